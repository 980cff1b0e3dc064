"""Checkpoints: everything that the rest of a run depends on, written so that one good copy always exists."""

from __future__ import annotations

import io
import pickle
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.atomic import write_bytes

NEWEST = "checkpoint.pt"
PREVIOUS = "checkpoint.previous.pt"  # and checkpoint.previous-2.pt and so on, the higher the older
DAMAGED = "checkpoint.damaged.pt"
_NEXT = "checkpoint.next.pt"
# What torch's reader raises over damaged bytes, which still are instructions to build something.
_DAMAGE = (
    *(RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError, AssertionError),
    pickle.UnpicklingError,
)


def save(folder: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint beside the previous ones.

    Args:
        folder: The run's folder.
        state: Tensors and plain values only.

    Raises:
        HarnessError: The disk is full; the checkpoints that are there are untouched.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_bytes(folder / _NEXT, buffer.getvalue())
    # From here on only names change, the oldest one's first: each copy is under one of the names at any moment.
    there = 0
    while (folder / _name(there)).exists():
        there += 1
    for age in range(there, 0, -1):
        (folder / _name(age - 1)).replace(folder / _name(age))
    (folder / _NEXT).replace(folder / NEWEST)


def thin(folder: Path, kept: int) -> None:
    """Delete all checkpoints but the newest `kept`."""
    for path in _oldest_last(folder)[kept:]:
        path.unlink()


def load(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint that can be read, or None. Does not restore the random states.

    A damaged one is set aside, so that it never takes the place of a good one, and there is a warning.
    """
    for path in (folder / _NEXT, *_oldest_last(folder)):
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            continue
        except _DAMAGE:
            path.replace(folder / DAMAGED)
            warnings.warn(f"{path}: damaged, now named {DAMAGED}; an older checkpoint is taken, if any", stacklevel=2)
            continue
        return state
    return None


def remove(folder: Path) -> None:
    """Delete the checkpoints of a run that needs them no more."""
    thin(folder, 0)
    for name in (_NEXT, DAMAGED):
        (folder / name).unlink(missing_ok=True)


def _name(age: int) -> str:
    return (NEWEST, PREVIOUS)[age] if age < 2 else f"checkpoint.previous-{age}.pt"


def _oldest_last(folder: Path) -> list[Path]:
    older = folder.glob("checkpoint.previous-*.pt")
    ages = sorted(int(number) for path in older if (number := path.stem.partition("-")[2]).isdecimal())
    return [path for age in (0, 1, *ages) if (path := folder / _name(age)).exists()]


def random_states() -> dict[str, Any]:
    """The states of every global random stream of this process, as plain values and tensors."""
    name, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002 - libraries may draw from it
    return {
        "torch": torch.get_rng_state(),
        "cuda": [torch.cuda.get_rng_state()] if torch.cuda.is_available() else [],  # of the GPU in use
        "python": random.getstate(),
        "numpy": [str(name), torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached],
    }


def restore_random_states(states: dict[str, Any]) -> None:
    """The inverse of `random_states`."""
    torch.set_rng_state(states["torch"])
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"][0])
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002
