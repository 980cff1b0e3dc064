"""Checkpoints: everything that the rest of a run depends on, written so that one good copy always exists."""

from __future__ import annotations

import io
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.atomic import write_bytes

NEWEST = "checkpoint.pt"
PREVIOUS = "checkpoint.previous.pt"


def save(folder: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint beside the previous one.

    Args:
        folder: The run's folder.
        state: Tensors and plain values only; the global random states are added.

    Raises:
        HarnessError: The disk is full; the previous checkpoints are untouched.
    """
    buffer = io.BytesIO()
    torch.save(state | {"random": random_states()}, buffer)
    newest = folder / NEWEST
    if newest.exists():
        newest.replace(folder / PREVIOUS)
    write_bytes(newest, buffer.getvalue())


def load(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint that can be read, or None. Does not restore the random states."""
    for name in (NEWEST, PREVIOUS):
        try:
            state: dict[str, Any] = torch.load(folder / name, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            continue
        except (RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError):
            continue  # damaged: the one before is as good, only older
        return state
    return None


def remove(folder: Path) -> None:
    """Delete the checkpoints of a run that needs them no more."""
    for name in (NEWEST, PREVIOUS):
        (folder / name).unlink(missing_ok=True)


def random_states() -> dict[str, Any]:
    """The states of every global random stream, as plain values and tensors."""
    name, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002 - libraries may draw from it
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": random.getstate(),
        "numpy": [str(name), torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached],
    }


def restore_random_states(states: dict[str, Any]) -> None:
    """The inverse of `random_states`."""
    torch.set_rng_state(states["torch"])
    if states["cuda"]:
        torch.cuda.set_rng_state_all(states["cuda"])
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002
