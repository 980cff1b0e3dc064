"""Hard sharing whose heads sit one after another, or on earlier stages."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests_support import batches, document

from harness.documents import parse
from harness.errors import HarnessError
from harness.models.config import ModelConfig
from harness.models.features import Features, FeatureShape
from harness.models.network import MultiTaskNetwork, TaskSpec
from harness.models.sharing.taps import SerialTaps, StageTap, TaskBlock

SPECS = {
    "c": TaskSpec("classification", 5),
    "d": TaskSpec("detection", 3),
    "s": TaskSpec("segmentation", 4),
    "v": TaskSpec("vqa", 7, words=10),
}


def build(names: str = "cdsv", count: int = 0, backbone: Any = None, **options: Any) -> MultiTaskNetwork:
    model = document(count)["model"] | {"sharing": {"name": "hard", **options}}
    model["backbone"] |= backbone or {}
    torch.manual_seed(0)
    return MultiTaskNetwork(parse(ModelConfig, model, "a.yaml"), {name: SPECS[name] for name in names})


def reached(net: MultiTaskNetwork, task: str) -> set[str]:
    """Modules of the shared part that a task's loss trains."""
    net.zero_grad()
    net({task: batches()[task]})[task].backward()
    shared: Any = net.shared
    return {name for name, p in shared.named_parameters() if p.grad is not None and bool(p.grad.any())}


def opened(net: MultiTaskNetwork) -> MultiTaskNetwork:
    """Last layers of blocks, which start at 0, let gradients through."""
    for module in net.modules():
        if isinstance(module, TaskBlock):
            for part in (module.maps, module.pooled):
                if part is not None:
                    torch.nn.init.normal_(part[-1].weight, std=0.1)
    return net


@pytest.mark.parametrize("taps", [{"taps": "serial"}, {"taps": "hierarchical", "depths": {"s": 8, "c": 8}}])
@pytest.mark.parametrize("count", [0, 4])
@pytest.mark.parametrize("backbone", [{"name": "test_resnet"}, {"name": "test_convnext"}])
def test_all_tasks_learn(taps: Any, count: int, backbone: Any) -> None:
    net = build(count=count, backbone=backbone, **taps)
    losses = net(batches())
    torch.stack(list(losses.values())).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)
    net.eval()
    for name, batch in batches().items():
        net.predict(name, batch)
    parts = [id(p) for module in net.parts().values() for p in module.parameters()]
    assert sorted(parts) == sorted(id(p) for p in net.parameters())
    other = build(count=count, backbone=backbone, **taps)
    other.load_state_dict(net.state_dict())
    other.eval()
    for a, b in zip(net.predict("s", batches()["s"]), other.predict("s", batches()["s"]), strict=True):
        assert torch.equal(torch.as_tensor(a), torch.as_tensor(b))


def test_a_chain_starts_as_parallel_heads() -> None:
    plain, serial = build(), build(taps="serial")
    serial.load_state_dict(plain.state_dict(), strict=False)
    torch.manual_seed(1)
    expected = plain(batches())
    torch.manual_seed(1)
    for name, loss in serial(batches()).items():
        torch.testing.assert_close(loss, expected[name])


def test_a_task_goes_through_the_blocks_of_those_before_it_and_of_none_after() -> None:
    net = opened(build(taps="serial"))
    blocks = {task: {name.split(".")[2] for name in reached(net, task) if name.startswith("chain.")} for task in SPECS}
    assert blocks == {"c": {"c"}, "d": {"c", "d"}, "s": {"c", "d", "s"}, "v": {"c", "d", "s", "v"}}


def test_the_chain_adds_up_block_by_block() -> None:
    chain = SerialTaps(FeatureShape((8,), 1, 2), ["a", "b"], [])
    with torch.no_grad():
        for value, block in zip((2.0, 3.0), chain.blocks.values(), strict=True):
            for parameter in block.parameters():  # type: ignore[union-attr]
                parameter.zero_()
            block.maps[0].weight[..., 1, 1] = 1.0  # type: ignore[union-attr, index]
            block.maps[2].weight.fill_(value)  # type: ignore[union-attr, index]
    features = Features({8: torch.tensor([[[[1.0, -1.0]]]])}, torch.zeros(1, 2), None)
    # a: x + 2 relu(x); b: y + 3 relu(y) of a's y.
    assert chain(features, "a").pyramid[8].flatten().tolist() == [3.0, -1.0]
    assert chain(features, "b").pyramid[8].flatten().tolist() == [12.0, -1.0]


def test_a_low_tap_trains_no_stage_beyond_it_and_no_other_neck() -> None:
    net = build(taps="hierarchical", depths={"s": 8, "c": 8})
    stages = net.shared.trunk.backbone.structure.stages  # type: ignore[union-attr]
    deeper = [stage.module for stage in stages if stage.stride > 8]
    assert deeper
    for task in ("s", "c"):
        found = reached(net, task)
        assert not [name for name in found if any(f".{module}." in name for module in deeper)]
        assert not [name for name in found if name.startswith("trunk.neck")]
        assert any(name.startswith(f"taps.{task}.") for name in found)
    deep = reached(net, "d")
    assert any(f".{module}." in name for name in deep for module in deeper)
    assert not any(name.startswith("taps.") for name in deep)


def test_coarser_levels_of_a_tap_are_every_second_position() -> None:
    tap = StageTap(FeatureShape((4, 8, 16), 2, 3), {4: 5, 8: 6, 16: 7}, 8, pooled=False)
    maps = {4: torch.randn(1, 5, 8, 8), 8: torch.randn(1, 6, 4, 4), 16: torch.full((1, 7, 2, 2), float("nan"))}
    levels = tap(Features({}, torch.zeros(1, 3), None, maps)).pyramid
    assert {stride: tuple(level.shape) for stride, level in levels.items()} == {
        4: (1, 2, 8, 8), 8: (1, 2, 4, 4), 16: (1, 2, 2, 2),
    }  # fmt: skip
    assert torch.equal(levels[16], levels[8][..., ::2, ::2])


def test_what_is_off_changes_neither_weights_nor_fingerprint() -> None:
    plain, other = build(), build(taps="parallel", fusion="none")
    assert all(torch.equal(a, b) for a, b in zip(plain.state_dict().values(), other.state_dict().values(), strict=True))
    model = parse(ModelConfig, document(0)["model"] | {"sharing": {"name": "hard", "taps": "parallel"}}, "a.yaml")
    assert model.model_dump()["sharing"] == {"name": "hard"}


@pytest.mark.parametrize(
    ("options", "backbone", "message"),
    [
        ({"taps": "hierarchical"}, {}, "depths: goes with taps: hierarchical"),
        ({"depths": {"s": 8}}, {}, "depths: goes with taps: hierarchical"),
        ({"taps": "hierarchical", "depths": {"segm": 8}}, {}, "depths.segm: is no task that reads images"),
        ({"taps": "hierarchical", "depths": {"s": 4}}, {}, r"4 is not among model.neck.strides \[8, 16\]"),
        (
            {"taps": "hierarchical", "depths": {"s": 8}},
            {"name": "test_vit", "options": {"img_size": 64}},
            "test_vit is a plain transformer",
        ),
    ],
)
def test_taps_that_cannot_be_are_refused(options: Any, backbone: Any, message: str) -> None:
    with pytest.raises(HarnessError, match=message):
        build(backbone=backbone, **options)
