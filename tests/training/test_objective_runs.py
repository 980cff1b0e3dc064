"""Objectives in runs: resumed, in several processes, under every architecture, and on the learning curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_devices import assert_close, cache, exact
from tests_runs import in_this_process, in_two_processes
from tests_support import document

from harness.data.loading import TaskData
from harness.models.network import MultiTaskNetwork
from harness.models.sharing import SHARING
from harness.progress import Reporter
from harness.run_data import build_network, open_data, task_data
from harness.submission import Submission
from harness.training import checkpoints
from harness.training.engine import Engine
from harness.training.loop import seed_everything, train
from harness.training.state import Progress

__all__ = ["cache"]  # a fixture
TEACHER = {"name": "test_convnext", "random": True}
EVERYTHING: dict[str, Any] = {
    "alignment": {},
    "auxiliary": {"target": "rotation"},
    "adversarial": {},
    "discriminator": {},
    "distilled": {"teacher": TEACHER, "from_task": "shapes-segmentation", "images": 8},
    "self_supervised": {},
}
# Those whose losses are means over samples, and are the same however these are divided.
DIVISIBLE = EVERYTHING | {"alignment": None, "distilled": {"teacher": TEACHER, "images": 8}}


def prepare(wanted: dict[str, Any], **model: Any) -> tuple[Submission, MultiTaskNetwork, dict[str, TaskData]]:
    raw = document(steps=3)
    raw["model"] |= model
    raw["training"] |= {"placeholders": wanted, "log_every": 1}
    submission = Submission.model_validate(raw)
    splits = open_data(submission)
    seed_everything(0)
    network = build_network(submission, splits)
    return submission, network, {name: task_data(submission, 0, splits, name, True) for name in splits.train}


def run(folder: Path, wanted: dict[str, Any], **model: Any) -> tuple[MultiTaskNetwork, Progress]:
    submission, network, data = prepare(wanted, **model)
    return network, train(submission, network, Engine("32"), data, folder, Reporter(quiet=True))


@pytest.mark.usefixtures("tiny_suite")
def test_a_resumed_run_ends_in_the_same_weights_and_starts_its_tokens_once(tmp_path: Path) -> None:
    whole, expected = run(tmp_path / "whole", EVERYTHING)

    class Stop(Exception):
        pass

    def stop(where: Path, state: dict[str, Any]) -> None:
        save(where, state)
        raise Stop

    submission, network, data = prepare(EVERYTHING)
    (tmp_path / "parts").mkdir()
    save = checkpoints.save
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "save", stop)
        with pytest.raises(Stop):
            train(submission, network, Engine("32"), data, tmp_path / "parts", Reporter(quiet=True))
    parts, progress = run(tmp_path / "parts", EVERYTHING)
    for name, value in whole.state_dict().items():
        assert torch.equal(parts.state_dict()[name], value), name
    assert progress.curves == expected.curves
    curves = {f"placeholder/{name}" for name in EVERYTHING}
    assert {name for name in progress.curves if name.startswith("placeholder/")} == curves


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_suite")
@pytest.mark.parametrize("sharing", SHARING)
def test_it_trains_under_every_architecture(tmp_path: Path, sharing: str) -> None:
    network, progress = run(tmp_path, EVERYTHING, sharing={"name": sharing})
    assert progress.step == 3
    terms = [name for name in progress.curves if name.startswith("placeholder/")]
    assert len(terms) == len(EVERYTHING)
    assert all(value > 0 for name in terms for _, value in progress.curves[name])
    fresh = prepare(EVERYTHING, sharing={"name": sharing})[1].state_dict()
    for name, value in network.named_parameters():
        if name.startswith("objectives."):
            assert not torch.equal(value, fresh[name]), name


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_suite")
@pytest.mark.parametrize(
    "model",
    [
        {"backbone": {"name": "test_vit"}},
        {"backbone": {"name": "test_resnet", "batch_norm": "per_task"}},
        {"placeholders": {**document()["model"]["placeholders"], "sharing": "per_task"}},
    ],
    ids=["class tokens", "statistics per task", "tokens per task"],
)
def test_it_trains_with_other_backbones_and_tokens(tmp_path: Path, model: dict[str, Any]) -> None:
    assert run(tmp_path, EVERYTHING, **model)[1].step == 3


@pytest.mark.slow
def test_two_processes_end_in_the_weights_of_one_and_so_do_parts(tmp_path: Path, cache: Path) -> None:
    raws = {"whole": exact(placeholders=DIVISIBLE), "parts": exact(placeholders=DIVISIBLE, accumulation=2)}
    one = in_this_process(tmp_path / "one", cache, raws)
    wanted = {"alignment": {}, "distilled": {"from_task": "shapes-segmentation"}}
    compares = exact(placeholders=wanted, accumulation=2)
    for task in compares["tasks"]:
        task["batch_size"] = 8
    two = in_two_processes(tmp_path / "two", cache, {"whole": raws["whole"], "compares": compares})
    assert_close(one["whole"], two["whole"])
    assert_close(one["whole"], one["parts"])
    curves, again = one["whole"].record["curves"], two["whole"].record["curves"]
    assert curves.keys() == again.keys()
    for name, points in curves.items():
        assert dict(again[name]) == pytest.approx(dict(points), rel=2e-2, abs=1e-3), name
    # What compares tasks, too, trains in two processes and parts.
    curves = two["compares"].record["curves"]
    assert all(value > 0 for name in ("alignment", "distilled") for _, value in curves[f"placeholder/{name}"])
