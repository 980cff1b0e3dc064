"""Gradient checkpointing changes what is kept, not what is computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from tests_support import document
from torch import Tensor, nn

from harness.data.loading import TrainingOrder, loader
from harness.errors import HarnessError
from harness.models.network import MultiTaskNetwork
from harness.progress import Reporter
from harness.run_data import Splits, build_network, open_data, task_data
from harness.submission import Submission
from harness.training.engine import Engine
from harness.training.loop import seed_everything, train
from harness.training.recomputing import recomputing

pytestmark = pytest.mark.usefixtures("tiny_suite")
RESNET = {"library": "timm", "name": "test_resnet"}
VIT = {"library": "timm", "name": "test_vit", "options": {"drop_path_rate": 0.5, "proj_drop_rate": 0.1}}


def built(
    backbone: dict[str, Any] | None = None,
    placeholders: dict[str, Any] | None = None,
    sharing: str = "hard",
    **training: Any,
) -> tuple[Submission, Splits, MultiTaskNetwork]:
    raw = document(steps=3)
    raw["model"] |= {"backbone": backbone or RESNET, "sharing": {"name": sharing}}
    raw["model"]["placeholders"] |= placeholders or {}
    raw["training"] |= training
    submission = Submission.model_validate(raw)
    splits = open_data(submission)
    seed_everything(0)
    return submission, splits, build_network(submission, splits)


def trained(folder: Path, **changes: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    submission, splits, network = built(**changes)
    data = {name: task_data(submission, 0, splits, name, training=True) for name in splits.train}
    progress = train(submission, network, Engine("32"), data, folder, Reporter(quiet=True))
    return network.state_dict(), progress.curves


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"backbone": RESNET | {"batch_norm": "per_task"}, "accumulation": 2},
        {"backbone": VIT},
        {"backbone": VIT, "placeholders": {"mechanism": "prefix_deep"}},
        {"sharing": "cross_stitch"},
        {"balancing": {"name": "pcgrad"}, "log_gradients": 1},  # several backward passes through one forward pass
    ],
    ids=["resnet", "own batch norms", "vit with dropout", "prefix", "cross-stitch", "pcgrad"],
)
def test_weights_statistics_and_curves_are_the_same_to_the_bit(tmp_path: Path, changes: dict[str, Any]) -> None:
    kept, kept_curves = trained(tmp_path / "kept", **changes)
    again, again_curves = trained(tmp_path / "again", **changes, gradient_checkpointing=True)
    assert kept.keys() == again.keys()
    assert [name for name in kept if not torch.equal(kept[name], again[name])] == []
    assert kept_curves == again_curves


def held(backbone: dict[str, Any], wanted: bool) -> int:
    """Bytes that the graph of one forward pass holds."""
    submission, splits, network = built(backbone)
    network.train()
    batches = {
        task.dataset: next(iter(loader(data, TrainingOrder(data, task.batch_size), 0)))
        for task in submission.tasks
        for data in [task_data(submission, 0, splits, task.dataset, True)]
    }
    storages: dict[int, Tensor] = {}
    weights = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}

    def pack(value: Tensor) -> Tensor:
        storages[value.untyped_storage().data_ptr()] = value
        return value

    with recomputing(network, wanted), torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        losses = network(batches)
    del losses
    return sum(value.untyped_storage().nbytes() for place, value in storages.items() if place not in weights)


@pytest.mark.parametrize("backbone", [RESNET, VIT], ids=["resnet", "vit"])
def test_less_is_held_between_forward_and_backward(backbone: dict[str, Any]) -> None:
    assert held(backbone, True) < 0.8 * held(backbone, False)


def test_the_network_is_as_it_was_afterwards() -> None:
    _, _, network = built()
    before = [module for module in network.modules() if "forward" in vars(module)]
    with recomputing(network, True):
        assert len([module for module in network.modules() if "forward" in vars(module)]) > len(before)
    assert [module for module in network.modules() if "forward" in vars(module)] == before


def test_what_would_differ_the_second_time_is_refused() -> None:
    masked = {"mechanism": "prefix_shallow", "masked": True}
    _, _, network = built(VIT, masked)
    with (
        pytest.raises(HarnessError, match=r"gradient_checkpointing: blocks of test_vit read the number"),
        recomputing(network, True),
    ):
        pass
    with pytest.raises(ValidationError, match="gradient_checkpointing does not go with compile: true"):
        built(compile=True, gradient_checkpointing=True)

    built(sharing="dynamic_routing")
    with pytest.raises(ValidationError, match="gradient_checkpointing: sharing dynamic_routing skips blocks by the ro"):
        built(sharing="dynamic_routing", gradient_checkpointing=True)

    _, _, network = built()
    stage = network.shared.trunk.backbone.body.layer2  # type: ignore[union-attr]
    handle = stage[0].register_forward_hook(lambda module, inputs, output: None)
    with pytest.raises(HarnessError, match="reads features within layer2 of test_resnet"), recomputing(network, True):
        pass
    handle.remove()

    class Doubling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def forward(self, features: Tensor) -> Tensor:
            return features.mul_(2) * self.weight

    body = network.shared.trunk.backbone.body  # type: ignore[union-attr]
    body.layer2 = nn.Sequential(Doubling(), *body.layer2)
    images = torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    with pytest.raises(HarnessError, match="changes its input in place"), recomputing(network, True):
        network.shared.trunk.backbone(images)  # type: ignore[union-attr]
