"""A tiny network with placeholder tokens, for tests of this folder."""

from __future__ import annotations

from typing import Any

import torch
from tests_support import batches, document
from torch import Tensor, nn

from harness.models.config import ModelConfig
from harness.models.network import MultiTaskNetwork, TaskSpec
from harness.models.placeholders import Adapter, DynamicStart, ExchangeSite, LogitShift, Placeholders, SecondOrder

SPECS = {
    "c": TaskSpec("classification", 5),
    "d": TaskSpec("detection", 3),
    "s": TaskSpec("segmentation", 4),
    "v": TaskSpec("vqa", 7, words=10),
}


def network(placeholders: dict[str, Any], **model: Any) -> MultiTaskNetwork:
    found = document(8)["model"]
    found["placeholders"] |= placeholders
    torch.manual_seed(0)
    return MultiTaskNetwork(ModelConfig.model_validate(found | model), SPECS)


def tokens_of(net: MultiTaskNetwork) -> Placeholders:
    assert net.placeholders is not None
    return net.placeholders


def losses(net: MultiTaskNetwork) -> dict[str, Tensor]:
    torch.manual_seed(7)  # of dropout, and of what a detector learns from
    return net(batches())


def as_after_some_steps(net: nn.Module) -> None:
    """Give weight to what starts at zero."""
    torch.manual_seed(11)
    for module in net.modules():
        if isinstance(module, (ExchangeSite, Adapter)) and hasattr(module, "up"):
            nn.init.normal_(module.up.weight, std=0.1)
        elif isinstance(module, SecondOrder):
            nn.init.normal_(module.out.weight, std=0.1)
        elif isinstance(module, DynamicStart):
            nn.init.normal_(module.up.weight, std=0.1)
        elif isinstance(module, LogitShift):
            nn.init.normal_(module.weight, std=0.1)
        elif isinstance(module, Placeholders):
            for vector in module.modalities.values():
                nn.init.normal_(vector, std=0.1)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
