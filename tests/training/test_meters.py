"""What training costs: time by phase, budgets, memory, and sums over interrupted parts."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tests_support import document

from harness.errors import HarnessError
from harness.progress import Reporter
from harness.run_data import build_network, open_data, task_data
from harness.runs import run
from harness.submission import Submission
from harness.training import checkpoints
from harness.training.engine import Engine
from harness.training.loop import seed_everything, train
from harness.training.meters import Meters, Stopwatch, peak_memory
from harness.training.state import Progress

QUIET = Reporter(quiet=True)
PHASES = {"data", "forward", "backward", "optimizer"}


def trained(folder: Path, **training: Any) -> tuple[dict[str, torch.Tensor], Progress, list[dict[str, float]]]:
    raw = document()
    raw["training"] |= training
    submission = Submission.model_validate(raw)
    splits = open_data(submission)
    seed_everything(0)
    network = build_network(submission, splits)
    data = {name: task_data(submission, 0, splits, name, training=True) for name in splits.train}
    points: list[dict[str, float]] = []
    progress = train(
        submission, network, Engine("32"), data, folder, QUIET, lambda step, point: points.append(dict(point))
    )
    return network.state_dict(), progress, points


def test_the_watch_gives_each_phase_its_time_and_starts_afresh_when_told(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([10.0, 12.0, 16.0, 26.0, 29.0])  # the 10 seconds from 16 to 26 belong to none
    monkeypatch.setattr(time, "perf_counter", lambda: next(moments))
    watch = Stopwatch(torch.device("cpu"))
    watch.start()
    watch.lap("a")
    watch.lap("b")
    watch.start()
    watch.lap("a")
    seconds = watch.read()
    monkeypatch.undo()
    assert seconds == {"a": 2.0 + 3.0, "b": 4.0}
    assert watch.read() == {}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_phases_are_times_of_the_gpu() -> None:
    watch = Stopwatch(torch.device("cuda"))
    matrix = torch.randn(4096, 4096, device="cuda")
    matrix @ matrix
    torch.cuda.synchronize()
    watch.start()
    begun = time.perf_counter()
    for _ in range(20):
        matrix = matrix @ matrix
    launched = time.perf_counter() - begun
    watch.lap("products")
    assert watch.read()["products"] > launched


@pytest.mark.usefixtures("tiny_suite")
def test_phases_are_part_of_the_time_and_the_curves_do_not_hold_them(tmp_path: Path) -> None:
    _, progress, points = trained(tmp_path)
    assert set(progress.phases) == PHASES
    assert 0 < sum(progress.phases.values()) <= progress.seconds
    assert progress.memory > 100e6
    assert [set(point) - set(progress.curves) for point in points] == [
        {"images_per_second", *(f"seconds/{phase}" for phase in PHASES)}
    ] * 3
    for phase in PHASES:
        assert sum(point[f"seconds/{phase}"] for point in points) == pytest.approx(progress.phases[phase])


def test_costs_of_interrupted_parts_sum_up() -> None:
    progress = Progress(seconds=100.0, phases={"forward": 60.0}, memory=10**15, joules=5.0)
    meters = Meters(Engine("32"), progress)
    meters.watch.start()
    meters.watch.lap("forward")
    meters.settle()
    assert 100 < progress.seconds < 101
    assert 60 < progress.phases["forward"] < 61
    assert progress.memory == 10**15
    if not torch.cuda.is_available():
        assert progress.joules is None  # one part that could not be measured leaves the sum unknown
        assert progress.gpu_memory is None
    assert peak_memory() > 50e6


@pytest.mark.usefixtures("tiny_suite")
def test_a_budget_ends_training_with_a_sentence_and_counts_what_earlier_parts_took(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    original = checkpoints.save

    def save_and_stop(where: Path, state: dict[str, Any]) -> None:
        state["progress"] = state["progress"] | {"seconds": 3600.0}  # as if it had taken an hour so far
        original(where, state)
        raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "save", save_and_stop)
        with pytest.raises(Stop):
            trained(tmp_path, max_minutes=60.0, checkpoint_every=2)
    _, progress, points = trained(tmp_path, max_minutes=60.0, checkpoint_every=2)
    assert progress.step == 3
    assert progress.ended == "training ended after step 3 of 6: its time was up (training.max_minutes: 60)"
    assert len(points) == 1  # the losses of the last step are told, although no point was due


@pytest.mark.usefixtures("tiny_suite")
def test_a_budget_that_suffices_changes_nothing(tmp_path: Path) -> None:
    plain, plain_progress, _ = trained(tmp_path / "a")
    limited, progress, _ = trained(tmp_path / "b", max_minutes=60.0)
    assert all(torch.equal(plain[name], limited[name]) for name in plain)
    assert (progress.curves, progress.ended) == (plain_progress.curves, "")


@pytest.mark.usefixtures("tiny_suite")
def test_the_record_tells_the_steps_that_were_taken_and_what_ended_them(tmp_path: Path) -> None:
    raw = document()
    raw["training"]["max_minutes"] = 1e-6
    record = run(Submission.model_validate(raw), 0, tmp_path / "runs", tmp_path / "board", QUIET)
    assert record.cost.steps == 1
    assert any(re.match("training ended after step 1 of 6: its time was up", text) for text in record.warnings)
    assert set(record.cost.train_seconds_by_phase) == PHASES
    assert record.cost.energy_joules is None or record.cost.energy_joules > 0
    (page,) = tmp_path.glob("runs/*/curves.html")
    assert page.read_text().count("<svg") == 6 + 4  # losses, learning rate and speed, and the phases


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is a GPU")
def test_precision_16_without_a_gpu_is_refused_before_anything_is_done() -> None:
    with pytest.raises(HarnessError, match=r"training.precision: 16 needs a GPU, and there is none here; use bf16"):
        Engine("16")
