"""torch.compile for the part of the network that all tasks share."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch

from harness.errors import HarnessError
from harness.models.network import MultiTaskNetwork


@contextmanager
def compiled(network: MultiTaskNetwork, wanted: bool, repeated: bool = False) -> Iterator[None]:
    """Compile backbone, pyramid and exchange sites for the time of a block.

    Heads are left as they are: their losses match boxes and draw samples, in shapes that depend on the data. The first
    shape of a batch is compiled for itself; if another one comes, sizes become variables of one more program.

    Args:
        network: Its parameters and their names stay the same.
        wanted: Whether to do anything.
        repeated: Several backward passes go through the graph of one forward pass, which must not overwrite what it
            keeps for them.

    Raises:
        HarnessError: There is no C++ compiler, which code for CPUs needs.
    """
    if not wanted or network.shared is None:
        yield
        return
    on_cpu = next(network.parameters()).device.type == "cpu"
    if on_cpu and not any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "clang++", "c++")):
        raise HarnessError("training.compile: there is no C++ compiler here; install g++, or leave it out")
    shared = network.shared
    shared.forward = torch.compile(shared.forward)
    try:
        with _kept_graphs() if repeated else nullcontext():
            yield
    finally:
        del shared.forward


@contextmanager
def _kept_graphs() -> Iterator[None]:
    """Compiled backward passes leave what their forward pass kept for them as it is.

    Torch's caches of compiled programs do not tell apart those that do and those that do not: a tag does.
    """
    tag = f"{torch.compiler.config.cache_key_tag}harness-kept-graphs"
    with torch._functorch.config.patch(donated_buffer=False), torch.compiler.config.patch(cache_key_tag=tag):  # type: ignore[attr-defined]
        yield


@contextmanager
def as_written(network: MultiTaskNetwork) -> Iterator[None]:
    """Run the network uncompiled for the time of a block: it then predicts what its weights predict in any process."""
    own = vars(network.shared) if network.shared is not None else {}
    forward = own.pop("forward", None)
    try:
        yield
    finally:
        if forward is not None:
            own["forward"] = forward
