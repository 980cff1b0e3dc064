"""The one way in which kernels are compiled. Imported by kernel modules only: numba takes half a second to load."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile a function at first use, keep the machine code on disk, release the GIL while it runs.

    Division by zero gives infinity or NaN as in numpy, and no operation is reordered or fused, so that results are
    those of the same expressions in C.
    """
    try:
        return cast(Function, numba.njit(cache=True, nogil=True, error_model="numpy")(function))
    except RuntimeError:  # no folder to keep machine code in (a read-only installation and no home): compile each time
        return cast(Function, numba.njit(nogil=True, error_model="numpy")(function))


def processors() -> int:
    """How many threads can run at once in this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
