"""Which weights of a backbone stay as they are, and how deep each weight lies."""

from __future__ import annotations

from collections.abc import Sequence

from timm.layers.norm import RmsNorm, RmsNorm2d
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from harness.errors import HarnessError

_NORMS = (_BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, RmsNorm, RmsNorm2d)


def depths(body: nn.Module, stages: Sequence[str]) -> dict[str, int]:
    """How deep each weight lies: 0 before the first stage, i in the i-th, and the last depth behind the last.

    Modules are registered in the order in which they are run, so what comes after a stage belongs to the next one;
    loose parameters (position embeddings, class tokens) come first and have depth 0.

    Args:
        body: The model.
        stages: Names of its stages, in order.

    Returns:
        Depth by parameter name, from 0 to ``len(stages) + 1``.
    """
    order = {name: index for index, (name, _) in enumerate(body.named_modules())}
    ends = [max(index for name, index in order.items() if f"{name}.".startswith(f"{stage}.")) for stage in stages]
    found = {}
    for name, _ in body.named_parameters():
        owner = name.rpartition(".")[0]
        inside = [number for number, stage in enumerate(stages, 1) if name.startswith(f"{stage}.")]
        before = sum(end < order[owner] for end in ends)
        found[name] = inside[0] if inside else before + 1 if before else 0
    return found


def freeze(body: nn.Module, frozen: str | int, stages: Sequence[str]) -> list[nn.Module]:
    """Freeze weights in place.

    Args:
        body: The model.
        frozen: ``none``, ``all``, ``norm``, or how many stages from the first on, with all that lies before them.
        stages: Names of the stages, in order.

    Returns:
        The modules that must stay in evaluation mode, so that no statistics move and nothing is dropped.

    Raises:
        HarnessError: There are not so many stages.
    """
    if frozen == "none":
        return []
    if frozen == "norm":
        norms: list[nn.Module] = [module for module in body.modules() if isinstance(module, _NORMS)]
        for norm in norms:
            norm.requires_grad_(False)
        return norms
    if frozen == "all":
        body.requires_grad_(False)
        return [body]
    count = int(frozen)
    if count > len(stages):
        raise HarnessError(f"model.backbone.frozen: {count} is more than the {len(stages)} stages; use all")
    depth = depths(body, stages)
    parameters = dict(body.named_parameters())
    for name, parameter in parameters.items():
        if depth[name] <= count:
            parameter.requires_grad_(False)
    return [
        module
        for module in body.modules()
        if (own := list(module.parameters())) and not any(parameter.requires_grad for parameter in own)
    ]
