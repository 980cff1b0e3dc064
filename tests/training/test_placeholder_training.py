"""Placeholder tokens that depend on the step or the sample: exact resume, several processes, every architecture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests_runs import in_this_process, in_two_processes
from tests_support import batches, document
from torch import nn

from harness.models.config import ModelConfig
from harness.models.network import MultiTaskNetwork, TaskSpec
from harness.models.placeholders import Adapter, DynamicStart, ExchangeSite, SecondOrder
from harness.models.sharing import SHARING
from harness.progress import Reporter
from harness.run_data import build_network, open_data, task_data
from harness.submission import Submission
from harness.training import checkpoints
from harness.training.engine import Engine
from harness.training.loop import Progress, seed_everything, train

EVERYTHING = {"order": "second", "dynamic": True, "levels": 4, "opening": "staged", "modalities": True}
KINDS: dict[str, dict[str, Any]] = {
    "everything": EVERYTHING,
    "per_task": EVERYTHING | {"sharing": "per_task"},
    "resampled": EVERYTHING | {"kind": "random", "random": "resampled"},
    "read off": {"read": False, "dynamic": True, "levels": 2},
    "write off": {"write": False, "order": "second"},
    "adapter": {"adapter": True},
}
SPECS = {
    "c": TaskSpec("classification", 5),
    "d": TaskSpec("detection", 3),
    "s": TaskSpec("segmentation", 4),
    "v": TaskSpec("vqa", 7, words=10),
}


def raw(placeholders: dict[str, Any], steps: int = 6) -> dict[str, Any]:
    found = document(8, steps)
    found["model"]["placeholders"] |= placeholders
    return found


def trained(folder: Path, placeholders: dict[str, Any], **training: Any) -> tuple[dict[str, torch.Tensor], Progress]:
    content = raw(placeholders)
    content["training"] |= training
    submission = Submission.model_validate(content)
    splits = open_data(submission)
    seed_everything(0)
    network = build_network(submission, splits)
    data = {name: task_data(submission, 0, splits, name, training=True) for name in splits.train}
    progress = train(submission, network, Engine("32"), data, folder, Reporter(quiet=True))
    return network.state_dict(), progress


@pytest.mark.usefixtures("tiny_suite")
@pytest.mark.parametrize("kind", ["everything", "resampled"])
def test_a_run_that_is_stopped_and_resumed_ends_in_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    whole, _ = trained(tmp_path / "whole", KINDS[kind])

    class Stop(Exception):
        pass

    original = checkpoints.save

    def save_and_stop(where: Path, state: dict[str, Any]) -> None:
        original(where, state)
        if state["progress"]["step"] == 3:
            raise Stop

    (tmp_path / "parts").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save", save_and_stop)
        with pytest.raises(Stop):
            trained(tmp_path / "parts", KINDS[kind])
    parts, _ = trained(tmp_path / "parts", KINDS[kind])
    assert whole.keys() == parts.keys()
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())
    assert int(whole["placeholders.opened"]) == 4


@pytest.mark.usefixtures("tiny_suite")
def test_a_level_learns_once_it_is_open_and_all_that_starts_at_zero_learns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps, tokens = 12, []
    original = checkpoints.save

    def watch(where: Path, state: dict[str, Any]) -> None:
        tokens.append(state["network"]["placeholders.bank.tokens"].clone())
        original(where, state)

    monkeypatch.setattr(checkpoints, "save", watch)
    after, _ = trained(tmp_path, EVERYTHING, steps=steps)  # a checkpoint after every step
    learned = [[not torch.equal(now[level], tokens[0][level]) for now in tokens] for level in range(4)]
    # Tokens meet a W_up of 0 in the step in which they open, and learn in the next one.
    assert [moved.index(True) + 1 for moved in learned] == [2, 5, 8, 11]
    for name in ("up.weight", "out.weight", "modalities."):
        gates = [key for key in after if key.startswith("placeholders.") and name in key]
        assert len(gates) >= 3
        assert all(bool(after[key].any()) for key in gates), name


@pytest.mark.parametrize(
    ("sharing", "kind"),
    [
        pytest.param(sharing, kind, marks=() if kind == "everything" or sharing == "hard" else pytest.mark.slow)
        for sharing in SHARING
        for kind in KINDS
    ],
)
def test_every_architecture_meets_every_kind_and_starts_as_the_plain_network(sharing: str, kind: str) -> None:
    def build(placeholders: dict[str, Any]) -> MultiTaskNetwork:
        model = raw(placeholders)["model"] | {"sharing": {"name": sharing}}
        torch.manual_seed(0)
        return MultiTaskNetwork(ModelConfig.model_validate(model), SPECS)

    def losses(network: MultiTaskNetwork) -> dict[str, torch.Tensor]:
        torch.manual_seed(3)
        return network(batches())

    plain, network = build({"count": 0}), build(KINDS[kind])
    expected, found = losses(plain), losses(network)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    for module in network.modules():
        if isinstance(module, (ExchangeSite, Adapter, DynamicStart)) and hasattr(module, "up"):
            nn.init.normal_(module.up.weight, std=0.1)
        elif isinstance(module, SecondOrder):
            nn.init.normal_(module.out.weight, std=0.1)
    network.advance(0, 4)
    found = losses(network)
    torch.stack(list(found.values())).sum().backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    changed = any(not torch.equal(found[name], expected[name]) for name in expected)
    assert changed is (kind != "write off")
    seen: set[str] = set()
    assert network.placeholders is not None
    network.placeholders.edit = lambda site, tokens: (seen.add(site), tokens)[1]
    network.advance(3, 4)
    losses(network)
    assert seen == (set() if kind == "adapter" else set(network.site_names()))


@pytest.mark.slow
def test_two_processes_end_where_one_does(tmp_path: Path, tiny_cache: Path) -> None:
    """No batch norm and no dropout, which make a batch more than its images, and plain gradient steps."""
    contents = {}
    for kind in ("everything", "resampled", "adapter"):
        content = contents[kind] = raw(KINDS[kind], steps=4)
        content["model"]["backbone"] = {"name": "test_convnext"}
        content["tasks"] = content["tasks"][:1] + content["tasks"][3:]
        content["training"] |= {"optimizer": {"name": "sgd", "learning_rate": 0.02}, "gradient_clip": None}
    one = in_this_process(tmp_path / "one", tiny_cache, contents)
    two = in_two_processes(tmp_path / "two", tiny_cache, contents)
    for kind, ended in one.items():
        assert ended.weights.keys() == two[kind].weights.keys()
        for name, value in ended.weights.items():
            torch.testing.assert_close(two[kind].weights[name], value, rtol=1e-4, atol=2e-6, msg=f"{kind}: {name}")
