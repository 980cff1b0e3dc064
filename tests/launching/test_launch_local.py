"""Fanning out over processes of this machine, through the real command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import yaml
from safetensors.torch import save_file
from tests_support import document

from harness.api import load

Command = Callable[..., "subprocess.CompletedProcess[str]"]


def attempts(log: Path) -> int:
    return sum(line.startswith("== ") for line in log.read_text().splitlines())


@pytest.mark.slow
def test_a_failed_job_stops_no_other_and_a_restart_runs_what_is_missing(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = document(steps=2), document(steps=4)
    (tmp_path / "w").mkdir()
    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "w" / "some.safetensors")
    good["model"]["backbone"]["weights"] = "w/some.safetensors"  # relative to where the command is typed
    bad["name"] = "diverges"
    bad["training"]["optimizer"]["learning_rate"] = 1e30
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(bad))
    (tmp_path / "good.yaml").write_text(yaml.safe_dump(good))
    words = ("submit", "bad.yaml", "good.yaml", "good.yaml", "--launcher", "local", "--jobs", "2", "--json")
    first = command(*words, CUDA_VISIBLE_DEVICES="")
    assert first.returncode == 1, first.stderr
    (record,) = json.loads(first.stdout)
    assert record["name"] == "tiny-4"
    monkeypatch.chdir(tmp_path)
    assert record["fingerprint"] == load("good.yaml").fingerprint()
    assert "tiny-4" in (tmp_path / "leaderboard" / "README.md").read_text()
    last = first.stderr.splitlines()[-1]
    assert last.startswith("failed: diverges/")
    assert "the loss of shapes-" in last
    (failed,) = tmp_path.glob("runs/launched/diverges-*.log")
    assert str(failed.relative_to(tmp_path)) in last
    (done,) = tmp_path.glob("runs/launched/tiny-4-*.log")
    assert (attempts(done), attempts(failed)) == (1, 1)

    bad["training"]["optimizer"]["learning_rate"] = 0.003
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(bad))
    again = command(*words, CUDA_VISIBLE_DEVICES="")
    assert again.returncode == 0, again.stderr
    assert [record["name"] for record in json.loads(again.stdout)] == ["diverges", "tiny-4"]
    assert (attempts(done), attempts(failed)) == (1, 1)  # another learning rate is another job


@pytest.mark.slow
def test_an_interrupt_lets_running_jobs_keep_their_work_and_the_same_command_goes_on(
    tmp_path: Path, tiny_cache: Path
) -> None:
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(document(steps=60)))
    words = [sys.executable, "-m", "harness", "submit", "a.yaml", "--seeds", "0,1,2", "--launcher", "local"]
    variables = {"HARNESS_CACHE": str(tiny_cache), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*words, "--jobs", "2"],
            cwd=tmp_path,
            env=os.environ | variables,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    process = start()
    deadline = time.monotonic() + 200
    while len(list(tmp_path.glob("runs/*/checkpoint.pt"))) < 2 and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 130
    assert b"interrupted; the work so far is kept" in stderr
    assert b"Traceback" not in stderr
    logs = sorted(tmp_path.glob("runs/launched/*.log"))
    assert len(logs) == 2  # the third never started
    assert all("interrupted" in log.read_text() for log in logs)
    process = start()
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    assert all("resuming at step" in log.read_text() for log in logs)
    assert len(list(tmp_path.glob("leaderboard/records/*/*/record.json"))) == 3
