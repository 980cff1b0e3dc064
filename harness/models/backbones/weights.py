"""Local weights into a model: read without executing anything, compared key by key, refused if they do not fit."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from harness.errors import HarnessError

# Names under which training programs keep a model's weights, and prefixes that wrappers put before each of them.
_CONTAINERS = ("state_dict", "model", "model_state_dict", "teacher", "net")
_PREFIXES = ("shared.trunk.backbone.body.", "module.", "backbone.")
_SHOWN = 3
# What the readers raise over damaged bytes, which torch's reader takes for instructions to build something.
_DAMAGE = (
    *(RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError, AssertionError),
    SafetensorError,
)


def read_weights(file: Path) -> dict[str, Tensor]:
    """The weights of a file, by name.

    Args:
        file: ``.safetensors``, or what `torch.save` wrote; of the latter only tensors and plain values are read.

    Raises:
        HarnessError: The file is damaged, holds code instead of weights, or no weights.
    """
    try:
        if file.suffix == ".safetensors":
            found: Any = load_file(file)
        else:
            found = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise HarnessError(
            f"model.backbone.weights: {file} holds more than weights, which is not read; save model.state_dict() alone"
        ) from None
    except _DAMAGE as error:
        raise HarnessError(
            f"model.backbone.weights: {file} cannot be read as weights ({_first_line(error)}); copy it again"
        ) from None
    for name in _CONTAINERS:
        if isinstance(found, dict) and isinstance(found.get(name), dict):
            found = found[name]
    state = {str(k): v for k, v in found.items() if isinstance(v, Tensor)} if isinstance(found, dict) else {}
    if not state:
        raise HarnessError(f"model.backbone.weights: {file} holds no named tensors; save model.state_dict()")
    for prefix in _PREFIXES:
        inner = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        # A wrapper's prefix stands before every key; a network's own weights hold other parts beside its backbone.
        if inner and (len(inner) == len(state) or prefix == _PREFIXES[0]):
            state = inner
    return state


def load_weights(body: nn.Module, state: dict[str, Tensor], source: str, allow_mismatch: bool) -> None:
    """Load weights that must match a model exactly.

    Args:
        body: Changed in place.
        state: Weight by name, without the classifier's.
        source: Where they come from, for errors.
        allow_mismatch: Load what matches in name and shape, and leave the rest as it was.

    Raises:
        HarnessError: Something is missing, unexpected or of another shape, and that is not allowed; or nothing fits.
    """
    own = body.state_dict()
    missing = sorted(key for key in own if key not in state and not key.endswith("num_batches_tracked"))
    unexpected = sorted(key for key in state if key not in own)
    fitting = {key: value for key, value in state.items() if key in own and own[key].shape == value.shape}
    shapes = sorted(
        f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
        for key in state
        if key in own and key not in fitting
    )
    if not fitting:
        raise HarnessError(
            f"model.backbone.weights: none of the {len(state)} weights in {source} belongs to this model"
            f" (the first is {next(iter(state))!r}); check model.backbone.library and name"
        )
    if (missing or unexpected or shapes) and not allow_mismatch:
        parts = [("missing", missing), ("unexpected", unexpected), ("of another shape", shapes)]
        told = "; ".join(f"{len(keys)} {what}: {_some(keys)}" for what, keys in parts if keys)
        raise HarnessError(
            f"model.backbone.weights: {source} does not match the model ({told});"
            " choose the model it was made for, or set allow_mismatch: true to load what fits"
        )
    body.load_state_dict(fitting, strict=False)


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:_SHOWN]) + (", ..." if len(keys) > _SHOWN else "")


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:120] or type(error).__name__
