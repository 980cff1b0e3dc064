"""Jobs, the share of a machine that each gets, and the table of them."""

from __future__ import annotations

import io
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from harness.api import load
from harness.cards import shipped
from harness.errors import HarnessError
from harness.launching.jobs import Job, read_options
from harness.launching.local import LocalLauncher, LocalProcess, processors
from harness.launching.table import State, Status, table

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def job(tmp_path: Path, tiny_submission: Path) -> Job:
    submission = load(tiny_submission)
    return Job(submission, submission.fingerprint(), 0, tmp_path / "leaderboard", tmp_path / "runs")


@pytest.mark.parametrize("baseline", sorted(shipped("baselines").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_copy_that_a_job_runs_has_the_fingerprint_of_the_submission(baseline: Path, tmp_path: Path) -> None:
    submission = load(baseline, [3, 4], ["training.optimizer.learning_rate=1e-5"], limit=3)
    made = Job(submission, submission.fingerprint(), 3, tmp_path / "board", tmp_path / "runs")
    words = made.command().words
    copy = load(words[words.index("submit") + 1])
    assert copy == submission
    assert copy.fingerprint() == submission.fingerprint()


def test_jobs_at_a_time_share_processors_and_take_gpus_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,7,9")
    assert LocalLauncher(tmp_path).at_once == 4
    assert [LocalLauncher(tmp_path).environment(place)["CUDA_VISIBLE_DEVICES"] for place in range(4)] == list("3579")
    pairs = LocalLauncher(tmp_path, devices=2)
    assert pairs.at_once == 2
    assert [pairs.environment(place)["CUDA_VISIBLE_DEVICES"] for place in range(2)] == ["3,5", "7,9"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert LocalLauncher(tmp_path).at_once == 1
    assert LocalLauncher(tmp_path).environment(0) == {}  # alone, a job is as without a launcher
    assert LocalLauncher(tmp_path, 2).environment(1) == {"OMP_NUM_THREADS": str(max(1, processors() // 2))}
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert LocalLauncher(tmp_path, 2).environment(1) == {}


def test_options_are_read_as_yaml_and_others_are_refused() -> None:
    assert read_options(["gpus_per_node=2", "slurm_setup=[module load cuda]", "slurm_comment=a=b"]) == {
        "gpus_per_node": 2,
        "slurm_setup": ["module load cuda"],
        "slurm_comment": "a=b",
    }
    with pytest.raises(HarnessError, match="key=value"):
        read_options(["slurm_partition"])


def test_the_last_words_are_the_error_of_the_last_attempt_without_control_characters(job: Job) -> None:
    assert job.last_words() == "no output"
    job.log.parent.mkdir(parents=True)
    job.log.write_bytes(b"== first\nerror: of old\n== second\n\x1b[31mtraining\r\nerror: too \x1b[2Jbad\nwandb: bye\n")
    assert job.last_words() == "too bad"
    with job.log.open("ab") as log:
        log.write(b"== third\nTraceback\nKeyError: 'x'\n\n")
    assert job.last_words() == "KeyError: 'x'"


def test_a_killed_process_says_by_what_and_a_stopped_one_that_does_not_end_is_killed(job: Job) -> None:
    words = ["sh", "-c", 'trap "" TERM; echo ready; while true; do sleep 0.05; done']
    process = subprocess.Popen(words, stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    process.stdout.readline()
    running = LocalProcess(job, process)
    running.stop()
    time.sleep(0.2)
    assert running.poll() is None
    running.stop()
    assert process.wait(timeout=200) == running.poll() == -9
    assert job.last_words() == "the process was ended by SIGKILL, perhaps for want of memory"


def test_progress_is_the_journals_last_step_and_not_that_of_a_run_that_is_started_over(job: Job) -> None:
    folder = job.runs / f"{job.fingerprint}-seed0"
    folder.mkdir(parents=True)
    assert job.step() is None
    (folder / "log.jsonl").write_text('{"step": 2, "loss/x": 1.0}\n{"step": 4, "loss/x": 0.5}\n{"step": 6, "lo')
    assert job.step() == 4
    assert not job.trained()
    (folder / "training.json").write_text("{}")
    assert job.trained()
    assert not job.trained(since=time.time() + 60)
    assert job.step(since=time.time() + 60) is None


def test_the_table_shows_what_matters_where_not_all_jobs_have_room_and_cuts_errors_only(job: Job) -> None:
    states: list[State] = ["done"] * 10 + ["failed"] + ["waiting"] * 10 + ["running"]
    statuses = [Status(replace(job, seed=seed), state) for seed, state in enumerate(states)]
    statuses[10].job.note("an error that " + "goes on and on " * 20)
    console = Console(width=70, record=True, file=io.StringIO())
    console.print(table(statuses, height=10))
    text = console.export_text()
    assert "1 running, 1 failed, 10 waiting, 10 done (16 not shown)" in text
    assert "tiny-4 seed 21" in text  # the running one
    assert "tiny-4 seed 10  failed" in text
    assert "an error that goes on" in text
    assert "tiny-4 seed 9" not in text
    assert len(text.splitlines()) <= 10


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--launcher", "slrm"], ("'slrm'", "did you mean 'slurm'?")),
        (["--jobs", "2"], ("--jobs", "--launcher")),
        (["--option", "a=1"], ("--option", "--launcher")),
        (["--launcher", "local", "--option", "gpus=1"], ("gpus", "CUDA_VISIBLE_DEVICES")),
        (["--launcher", "slurm", "--option", "cluster=local", "--option", "slurm_partion=gpu"], ("'partion'", "slurm")),
        (["--launcher", "local", "--devices", "64"], ("batch_size", "--devices")),
        (["--launcher", "local", "--seeds", "0,x"], ("--seeds", "0,1,2")),
    ],
)
def test_bad_options_are_refused_in_one_sentence_before_anything_runs(
    command: Command, tmp_path: Path, tiny_submission: Path, options: list[str], parts: tuple[str, ...]
) -> None:
    result = command("submit", tiny_submission, *options, CUDA_VISIBLE_DEVICES="")
    assert result.returncode == 2
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert all(part in lines[0] for part in ("error: ", *parts)), lines
    assert not list(tmp_path.glob("runs/launched/*.log"))
    assert not (tmp_path / "leaderboard").exists()


def test_every_file_is_checked_before_the_first_job_starts(
    command: Command, tmp_path: Path, tiny_submission: Path
) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(tiny_submission.read_text().replace("shapes-vqa", "shapes-vqq"))
    result = command("submit", tiny_submission, other, "--launcher", "local")
    assert result.returncode == 2
    assert "did you mean 'shapes-vqa'?" in result.stderr
    assert not (tmp_path / "runs").exists()
