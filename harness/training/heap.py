"""Memory between steps: kept by the process rather than given back to the system."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_… of malloc.h
_MOST = 2**31 - 1  # what the argument, a C int, can hold


def keep_freed_memory() -> None:
    """Let the C library keep the memory that a step frees for the next one; on Linux, elsewhere nothing happens.

    By default glibc gives large blocks back as soon as they are freed, and fetches them anew, page by page and filled
    with zeros, in the next step: a tenth of a small network's training on CPUs. A process keeps as much memory as its
    largest moment took, either way counted as its peak.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # a C library that has no such switch
        return
    mallopt(_TRIM_THRESHOLD, _MOST)
    mallopt(_MMAP_THRESHOLD, _MOST)
