"""Selection on the selection splits, averaged weights, early ends, and going on from a checkpoint with all of them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from tests_runs import in_this_process
from tests_support import document

from harness.data import open_split, shapes
from harness.data.loading import TaskData
from harness.errors import HarnessError
from harness.models.network import MultiTaskNetwork
from harness.progress import Reporter
from harness.run_data import build_network, open_data, selection_data, task_data
from harness.runs import run
from harness.scoring import score
from harness.submission import Submission
from harness.training import checkpoints
from harness.training.engine import Engine
from harness.training.inference import SUFFIX, predict
from harness.training.loop import seed_everything, train
from harness.training.measuring import Measure
from harness.training.state import Progress

pytestmark = pytest.mark.usefixtures("tiny_suite")
QUIET = Reporter(quiet=True)
CARDS = ("shapes-classification", "shapes-detection", "shapes-segmentation", "shapes-vqa")


def submission_of(**training: Any) -> Submission:
    raw = document()
    raw["training"] |= training
    return Submission.model_validate(raw)


def prepared(submission: Submission) -> tuple[MultiTaskNetwork, dict[str, TaskData], dict[str, TaskData]]:
    splits = open_data(submission)
    seed_everything(0)
    network = build_network(submission, splits)
    data = {name: task_data(submission, 0, splits, name, training=True) for name in splits.train}
    return network, data, {name: selection_data(submission, 0, splits, name) for name in splits.selection}


def trained(folder: Path, **training: Any) -> tuple[dict[str, torch.Tensor], Progress]:
    submission = submission_of(**training)
    network, data, looked_at = prepared(submission)
    progress = train(submission, network, Engine("32"), data, folder, QUIET, selection_data=looked_at)
    return {name: value.clone() for name, value in network.state_dict().items()}, progress


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_the_final_weights_are_those_of_the_best_look_and_training_is_what_it_is_without_looks(tmp_path: Path) -> None:
    weights, progress = trained(tmp_path / "a", selection={"every": 2})
    points = [progress.curves[f"selection/{card}"] for card in CARDS]
    assert [[step for step, _ in curve] for curve in points] == [[2, 4, 6]] * 4
    means = [np.mean([curve[look][1] for curve in points]) for look in range(3)]
    assert progress.best_step == [2, 4, 6][int(np.argmax(means))]
    assert progress.best_score == pytest.approx(max(means))
    # As many steps of the same schedule without a look, stopped at the step that was chosen.
    plain, plain_progress = stopped_at(tmp_path / "b", progress.best_step)
    assert equal(weights, plain)
    losses = {name: curve for name, curve in progress.curves.items() if not name.startswith("selection/")}
    _, whole = trained(tmp_path / "c")
    assert losses == whole.curves
    assert plain_progress.step == progress.best_step


def stopped_at(folder: Path, step: int, **training: Any) -> tuple[dict[str, torch.Tensor], Progress]:
    """Weights after some step of an uninterrupted run, out of its checkpoint."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "save", stopping(step))
        submission = submission_of(**training)
        network, data, looked_at = prepared(submission)
        if step < submission.training.steps:
            with pytest.raises(Stop):
                train(submission, network, Engine("32"), data, folder, QUIET, selection_data=looked_at)
            return network.state_dict(), Progress(step=step)
        progress = train(submission, network, Engine("32"), data, folder, QUIET, selection_data=looked_at)
        return network.state_dict(), progress


class Stop(Exception):
    pass


def stopping(step: int) -> Any:
    original = checkpoints.save

    def save(where: Path, state: dict[str, Any]) -> None:
        original(where, state)
        if state["progress"]["step"] == step:
            raise Stop

    return save


@pytest.mark.parametrize("stop", [1, 2, 3, 4, 5])
def test_a_run_with_looks_and_averages_resumes_exactly(tmp_path: Path, stop: int) -> None:
    recipe: dict[str, Any] = {"selection": {"every": 2, "patience": 2}, "ema": 0.8}
    whole, whole_progress = trained(tmp_path / "whole", **recipe)
    (tmp_path / "parts").mkdir()
    stopped_at(tmp_path / "parts", stop, **recipe)
    parts, progress = trained(tmp_path / "parts", **recipe)
    assert equal(whole, parts)
    for field in ("curves", "images", "points", "best_step", "best_score", "looked", "fruitless", "ended"):
        assert getattr(progress, field) == getattr(whole_progress, field), field


def test_the_averaged_weights_are_final_and_do_not_touch_training(tmp_path: Path) -> None:
    plain, plain_progress = trained(tmp_path / "plain")
    averaged, progress = trained(tmp_path / "averaged", ema=0.5)
    assert progress.curves == plain_progress.curves
    assert not equal(plain, averaged)
    tiny, _ = trained(tmp_path / "tiny", ema=1e-9)  # an average over the last step only
    for name, value in plain.items():
        torch.testing.assert_close(tiny[name], value)


def test_what_is_looked_at_are_the_averaged_weights(tmp_path: Path) -> None:
    averaged, progress = trained(tmp_path / "a", ema=0.5, selection={"every": 6})
    without, _ = trained(tmp_path / "b", ema=0.5)
    assert progress.best_step == 6
    assert equal(averaged, without)


def test_a_look_scores_as_the_final_evaluation_does(tmp_path: Path) -> None:
    submission = submission_of(selection={"every": 6})
    network, data, looked_at = prepared(submission)
    progress = train(submission, network, Engine("32"), data, tmp_path, QUIET, selection_data=looked_at)
    for card in CARDS:
        adapter = looked_at[card].adapter
        assert adapter.split == "val"
        path = tmp_path / f"again-{card}{SUFFIX[adapter.task]}"
        predict(network, Engine("32"), card, looked_at[card], path, 64, QUIET)
        result = score(adapter, path)
        assert progress.curves[f"selection/{card}"] == [(6, result.reduce()[result.main])]


def test_nothing_of_the_evaluation_split_is_needed_to_select(
    tmp_path: Path, tiny_suite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe: dict[str, Any] = {"selection": {"every": 2}}
    weights, progress = trained(tmp_path / "a", **recipe)
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "cache" / shapes.default_root().name
    shutil.copytree(tiny_suite / root.name, root)
    submission = submission_of(**recipe)
    network, data, looked_at = prepared(submission)
    gone = [path for path in root.rglob("*") if path.is_file() and "test" in path.relative_to(root).as_posix()]
    assert len(gone) > 20
    for path in gone:
        path.unlink()
    again = train(submission, network, Engine("32"), data, tmp_path / "b", QUIET, selection_data=looked_at)
    assert equal(weights, network.state_dict())
    assert (again.curves, again.best_step) == (progress.curves, progress.best_step)


@pytest.mark.parametrize(("patience", "looks"), [(1, 2), (2, 3), (None, 6)])
def test_training_ends_when_nothing_better_comes(tmp_path: Path, patience: int | None, looks: int) -> None:
    submission = submission_of(selection={"every": 1, "patience": patience})
    network, data, looked_at = prepared(submission)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Measure, "_value", lambda self, network, name: 0.5)  # no look is better than the first
        progress = train(submission, network, Engine("32"), data, tmp_path, QUIET, selection_data=looked_at)
    assert (progress.step, progress.looked, progress.best_step) == (looks, looks, 1)
    assert bool(progress.ended) == (patience is not None)
    if patience:
        assert f"since step 1 (training.selection.patience: {patience})" in progress.ended
    assert progress.curves["loss/shapes-vqa"][-1][0] == looks


def test_an_undefined_metric_has_no_part_in_the_mean(tmp_path: Path) -> None:
    submission = submission_of(selection={"every": 6})
    network, data, looked_at = prepared(submission)
    values = dict(zip(CARDS, (0.5, float("nan"), 0.25, 0.75), strict=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Measure, "_value", lambda self, network, name: values[name])
        progress = train(submission, network, Engine("32"), data, tmp_path, QUIET, selection_data=looked_at)
    assert progress.best_score == 0.5
    assert "selection/shapes-detection" not in progress.curves


def card_like_shapes(folder: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """The classification card with other splits, found before the shipped one."""
    content = yaml.safe_load(Path("datasets/shapes-classification.yaml").read_text()) | {"name": "other"} | changes
    (folder / "other.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.setenv("HARNESS_CARDS", str(folder))


def one_task(fraction: float = 1.0) -> Submission:
    raw = document()
    raw["tasks"] = [raw["tasks"][0] | {"dataset": "other", "fraction": fraction}]
    raw["training"]["selection"] = {"every": 3}
    return Submission.model_validate(raw)


def test_a_card_without_a_split_of_its_own_to_select_on_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card_like_shapes(tmp_path, monkeypatch, selection_split="test")
    with pytest.raises(HarnessError, match="card other has no split to select on, for its selection_split 'test' is"):
        one_task().cards()


def test_a_card_that_selects_on_training_images_selects_on_those_that_are_held_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card_like_shapes(tmp_path, monkeypatch, selection_split="train")
    with pytest.raises(HarnessError, match=r"set fraction of tasks: other to, say, 0\.9"):
        one_task().cards()
    with pytest.raises(HarnessError, match=r"fraction 0\.99 of other leaves no image over to select on"):
        prepared(one_task(fraction=0.99))
    submission = one_task(fraction=0.4)
    network, data, looked_at = prepared(submission)
    ids = np.array(open_split(submission.cards()["other"], "train").ids)
    chosen, held_out = ids[data["other"].rows], ids[looked_at["other"].rows]
    assert sorted([*chosen, *held_out]) == sorted(ids)
    assert 0 < len(held_out) < len(ids)
    progress = train(submission, network, Engine("32"), data, tmp_path / "run", QUIET, selection_data=looked_at)
    assert [step for step, _ in progress.curves["selection/other"]] == [3, 6]


def test_the_record_says_at_which_step_the_chosen_weights_stood(tmp_path: Path) -> None:
    submission = submission_of(selection={"every": 2}, ema=0.5)
    record = run(submission, 0, tmp_path / "runs", tmp_path / "board", QUIET)
    assert record.selected_step in (2, 4, 6)
    assert record.curves["selection/shapes-vqa"][0][0] == 2
    assert record.cost.train_seconds_by_phase["selection"] > 0
    assert not any(tmp_path.glob("runs/*/selection"))
    assert run(submission_of(), 0, tmp_path / "runs", tmp_path / "board", QUIET).selected_step is None


def started(folder: Path, cache: Path, raw: dict[str, Any]) -> subprocess.Popen[bytes]:
    folder.mkdir(exist_ok=True)
    (folder / "a.yaml").write_text(yaml.safe_dump(raw))
    return subprocess.Popen(
        [sys.executable, "-m", "harness", "submit", "a.yaml", "-q"],
        cwd=folder,
        env=os.environ | {"HARNESS_CACHE": str(cache), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def told(folder: Path) -> list[tuple[int, list[str]]]:
    """Steps and names of the journal's points, without times."""
    (journal,) = list(folder.glob("runs/*/log.jsonl")) or [None]
    lines = journal.read_bytes().splitlines() if journal else []
    points = [json.loads(line) for line in lines if line.endswith(b"}")]
    return [(point["step"], sorted(key for key in point if "/" in key and "seconds" not in key)) for point in points]


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_in_the_same_record_and_journal(
    tmp_path: Path, tiny_suite: Path
) -> None:
    raw = document(steps=16)
    raw["training"] |= {"selection": {"every": 3}, "ema": 0.8, "checkpoint_every": 2}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    in_this_process(whole, tiny_suite, {raw["name"]: raw})
    for points in (2, 6, 11):
        process = started(parts, tiny_suite, raw)
        deadline = time.monotonic() + 200
        while len(told(parts)) < points and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
    in_this_process(parts, tiny_suite, {raw["name"]: raw})
    records = []
    for folder in (whole, parts):
        (path,) = folder.glob("leaderboard/records/*/*/record.json")
        record = json.loads(path.read_text())
        assert record["cost"]["steps"] == 16
        assert record["cost"]["train_seconds"] >= sum(record["cost"]["train_seconds_by_phase"].values())
        del record["cost"], record["provenance"]
        records.append((record, told(folder)))
    assert records[0] == records[1]
