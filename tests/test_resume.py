"""A run that is killed at any moment ends, started again, in the same weights, statistics and record."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests_runs import in_this_process
from tests_support import document

STEPS = 30
Outcome = tuple[dict[str, Any], bytes, list[int]]  # record, statistics, and the steps that the journal tells


def start(folder: Path, cache: Path) -> subprocess.Popen[bytes]:
    folder.mkdir(exist_ok=True)
    (folder / "a.yaml").write_text(yaml.safe_dump(document(steps=STEPS)))
    return subprocess.Popen(
        [sys.executable, "-m", "harness", "submit", "a.yaml", "-q"],
        cwd=folder,
        env=os.environ | {"HARNESS_CACHE": str(cache), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def outcome(folder: Path) -> Outcome:
    (record,) = folder.glob("leaderboard/records/*/*/record.json")
    content = json.loads(record.read_text())
    del content["cost"], content["provenance"]
    (journal,) = folder.glob("runs/*/log.jsonl")
    told = [json.loads(line)["step"] for line in journal.read_text().splitlines()]
    return content, (record.parent / "statistics.npz").read_bytes(), told


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, tiny_cache: Path) -> Outcome:
    folder = tmp_path_factory.mktemp("whole")
    in_this_process(folder, tiny_cache, {"tiny-4": document(steps=STEPS)})
    return outcome(folder)


def steps_done(folder: Path) -> int:
    (journal,) = list(folder.glob("runs/*/log.jsonl")) or [None]
    return len(journal.read_bytes().splitlines()) * 2 if journal else 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "moment",
    ["before the first step", "early in training", "late in training", "while predicting", "before the record"],
)
def test_a_killed_run_ends_like_an_uninterrupted_one_and_its_journal_tells_every_step_once(
    tmp_path: Path, tiny_cache: Path, uninterrupted: Outcome, moment: str
) -> None:
    reached = {
        "before the first step": lambda: any(tmp_path.glob("work/runs/*/submission.yaml")),
        "early in training": lambda: steps_done(tmp_path / "work") >= 4,
        "late in training": lambda: steps_done(tmp_path / "work") >= 22,
        "while predicting": lambda: any(tmp_path.glob("work/runs/*/predictions/shapes-classification.npz")),
        "before the record": lambda: any(tmp_path.glob("work/runs/*/predictions/shapes-vqa.json")),
    }[moment]
    process = start(tmp_path / "work", tiny_cache)
    deadline = time.monotonic() + 200
    while not reached() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert reached()
    in_this_process(tmp_path / "work", tiny_cache, {"tiny-4": document(steps=STEPS)})
    assert outcome(tmp_path / "work") == uninterrupted
    assert uninterrupted[2] == list(range(2, STEPS + 1, 2))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_keeps_the_work_says_so_and_exits_with_130(
    tmp_path: Path, tiny_cache: Path, uninterrupted: Outcome, number: int
) -> None:
    process = start(tmp_path / "work", tiny_cache)
    while steps_done(tmp_path / "work") < 6 and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 130
    assert b"interrupted" in stderr
    assert b"Traceback" not in stderr
    assert list(tmp_path.glob("work/runs/*/checkpoint.pt"))
    in_this_process(tmp_path / "work", tiny_cache, {"tiny-4": document(steps=STEPS)})
    assert outcome(tmp_path / "work") == uninterrupted


@pytest.mark.slow
def test_two_processes_that_submit_the_same_at_once_make_one_record(
    tmp_path: Path, tiny_cache: Path, uninterrupted: Outcome
) -> None:
    processes = [start(tmp_path / "work", tiny_cache) for _ in range(2)]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    assert outcome(tmp_path / "work") == uninterrupted
