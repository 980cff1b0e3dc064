"""The load of the experts in a run's journal, and the curriculum of dynamic routing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tests_support import batches, document

from harness.errors import HarnessError
from harness.models.config import ModelConfig
from harness.models.network import MultiTaskNetwork, TaskSpec
from harness.models.sharing.dynamic_routing import DynamicRoutingSharing, Policy
from harness.models.sharing.experts import Gate
from harness.progress import Reporter
from harness.runs import run
from harness.submission import Submission, load_submission
from harness.training.engine import Engine
from harness.training.gate_curves import GateCurves, reach

QUIET = Reporter(quiet=True)
SPECS = {
    "c": TaskSpec("classification", 5),
    "d": TaskSpec("detection", 3),
    "s": TaskSpec("segmentation", 4),
    "v": TaskSpec("vqa", 7, words=10),
}
MAPS = ("8", "16")


def build(sharing: dict[str, Any], **backbone: Any) -> MultiTaskNetwork:
    model = document(0)["model"]
    model["backbone"] |= backbone
    model["sharing"] = sharing
    torch.manual_seed(0)
    return MultiTaskNetwork(ModelConfig.model_validate(model), SPECS)


def point(network: MultiTaskNetwork, names: str = "cdsv", passes: int = 1) -> dict[str, float]:
    curves = GateCurves(network, Engine("32"), compiled=False)
    with curves.watching(True):
        for _ in range(passes):
            network({name: batches()[name] for name in names})
    return curves.take()


EXPERTS = {
    "moe": {"experts": 3},
    "mmoe": {"experts": 3},
    "ml_mmoe": {"experts": 3, "levels": 2},
    "cgc": {"own": 1, "shared": 2},
    "ple": {"own": 1, "shared": 2, "levels": 2},
}


@pytest.mark.parametrize("name", EXPERTS)
def test_the_loads_of_a_gate_sum_to_one_for_every_task_and_map_that_it_reads(name: str) -> None:
    found = point(build({"name": name, "width": 8, **EXPERTS[name]}))
    sums: dict[str, float] = {}
    for key, value in found.items():
        group, task, level, _ = key.split("/")
        assert group == "gate"
        sums[f"{task}/{level}"] = sums.get(f"{task}/{level}", 0) + value
    levels = [""] if name in ("moe", "mmoe", "cgc") else [".1", ".2"]
    expected = {f"c/pooled{level}" for level in levels}
    expected |= {f"{task}/{map_}{level}" for task in "dsv" for map_ in MAPS for level in levels}
    expected |= {f"shared/{map_}.1" for map_ in ("pooled", *MAPS)} if name == "ple" else set()
    assert set(sums) == expected
    assert all(value == pytest.approx(1) for value in sums.values())


def test_a_load_is_the_mean_weight_over_images_of_all_parts_of_a_step() -> None:
    network = build({"name": "mmoe", "width": 8, "experts": 2})
    seen: list[torch.Tensor] = []
    gate: Any = network.shared.mixtures["8"].gates[0]["d"]  # type: ignore[union-attr,index]
    gate.register_forward_hook(lambda module, inputs, output: seen.append(output.detach()))
    curves = GateCurves(network, Engine("32"), compiled=False)
    whole = batches()["d"]
    with curves.watching(True):  # parts of two sizes: the mean of their means would be another number
        network({"d": whole})
        network({"d": whole.rows(0, 1)})
    expected = torch.cat(seen).double().mean(0)
    found = curves.take()
    assert [found["gate/d/8/1"], found["gate/d/8/2"]] == pytest.approx(expected.tolist())
    assert curves.take() == {}  # told once


def test_below_the_last_level_of_a_ple_a_task_counts_with_its_own_images_only() -> None:
    """There every image goes through the gates of all tasks."""
    network = build({"name": "ple", "width": 8, **EXPERTS["ple"]})
    tasks = {key.split("/")[1] for key in point(network, "d")}
    assert tasks == {"d", "shared"}


def test_nothing_is_kept_where_nobody_watches_and_nothing_changes_where_somebody_does() -> None:
    network = build({"name": "mmoe", "width": 8, "experts": 2}).eval()
    gates = [module for module in network.modules() if isinstance(module, Gate)]
    plain = network(batches())
    assert all(gate.kept is None for gate in gates)
    curves = GateCurves(network, Engine("32"), compiled=False)
    with curves.watching(True):
        watched = network(batches())
    assert {name: loss.item() for name, loss in watched.items()} == {name: loss.item() for name, loss in plain.items()}
    assert all(gate.kept is None for gate in gates)
    for silent in (
        GateCurves(network, Engine("32"), compiled=True),
        GateCurves(build({"name": "hard"}), Engine("32"), False),
    ):
        with silent.watching(True):
            network(batches())
        assert silent.take() == {}


def test_a_routed_block_has_the_probability_that_it_is_kept() -> None:
    network = build({"name": "dynamic_routing"}, name="test_vit", options={"img_size": 64})
    with torch.no_grad():
        network.shared.policy.logits["d"][2] = 0.0  # type: ignore[union-attr,index]
    found = point(network, "ds")
    assert found["gate/d/block 3/kept"] == pytest.approx(0.5)
    assert found["gate/s/block 3/kept"] == pytest.approx(0.9)


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_suite")
def test_a_journal_shows_loads_and_the_record_is_as_without(tmp_path: Path) -> None:
    raw = document(steps=4)
    raw["model"]["sharing"] = {"name": "mmoe", "experts": 2, "width": 8}
    record = run(Submission.model_validate(raw), 0, tmp_path / "runs", tmp_path / "board", QUIET)
    assert not [name for name in record.curves if name.startswith("gate/")]
    (journal,) = tmp_path.glob("runs/*/log.jsonl")
    points = [json.loads(line) for line in journal.read_text().splitlines()]
    assert [one["step"] for one in points if "gate/shapes-detection/8/1" in one] == [2, 4]
    assert "<h2>gate</h2>" in (journal.parent / "curves.html").read_text()


def test_a_curriculum_opens_blocks_from_the_last_to_the_first() -> None:
    network = build({"name": "dynamic_routing", "curriculum": 0.6}, name="test_vit", options={"img_size": 64})
    shared = network.shared
    assert isinstance(shared, DynamicRoutingSharing)
    closed = []
    for step in range(10):  # six blocks: one more after each tenth of the training
        reach(network, step / 10)
        closed.append(shared.policy.closed)
    assert closed == [5, 4, 3, 2, 1, 0, 0, 0, 0, 0]


def test_closed_blocks_are_kept_get_no_gradient_and_are_in_no_penalty() -> None:
    policy = Policy(["a", "b"], 4, 1.0)
    with torch.no_grad():
        for logits in policy.logits.values():
            logits.fill_(-50.0)  # would always be skipped
    policy.closed = 3
    gates = policy("a")
    assert gates.tolist() == [1, 1, 1, 0]
    (gates.sum() + policy("b").sum() + policy.penalty(["a", "b"], 1.0, 1.0)).backward()
    for logits in policy.logits.values():
        assert logits.grad is not None
        assert logits.grad[:3].tolist() == [0, 0, 0]
        assert logits.grad[3] != 0


def test_open_blocks_are_drawn_as_without_a_curriculum() -> None:
    torch.manual_seed(0)
    policy = Policy(["a"], 200, 1.0)
    whole = policy("a").detach()
    policy.closed = 120
    assert torch.equal(policy("a").detach()[120:], whole[120:])


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_suite")
def test_a_curriculum_moves_the_last_block_only_until_the_others_are_opened(tmp_path: Path) -> None:
    raw = document(count=0, steps=4)
    raw["model"]["backbone"] = {"name": "test_convnext"}  # nine blocks
    raw["model"]["sharing"] = {"name": "dynamic_routing", "curriculum": 1.0}
    raw["training"]["max_minutes"] = 1e-6  # ends after the first step
    run(Submission.model_validate(raw), 0, tmp_path / "runs", tmp_path / "board", QUIET)
    from safetensors.torch import load_file

    (weights,) = tmp_path.glob("runs/*/weights.safetensors")
    logits = load_file(weights)["shared.policy.logits.shapes-detection"]
    start = Policy(["a"], 9, 1.0).logits["a"].detach()
    assert torch.equal(logits[:8], start[:8])
    assert logits[8] != start[8]


def test_a_curriculum_changes_the_fingerprint_and_none_does_not(tmp_path: Path) -> None:
    def fingerprint(**more: Any) -> str:
        raw = document(count=0)
        raw["model"]["sharing"] = {"name": "dynamic_routing", **more}
        return Submission.model_validate(raw).fingerprint()

    assert fingerprint(curriculum=0) == fingerprint() != fingerprint(curriculum=0.5)
    raw = document(count=0)
    raw["model"]["sharing"] = {"name": "mmoe", "curriculum": 0.5}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(raw))
    with pytest.raises(HarnessError, match="curriculum"):
        load_submission(tmp_path / "a.yaml")
