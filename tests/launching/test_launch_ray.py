"""Fanning out over a Ray cluster of this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from tests_support import document

pytest.importorskip("ray", reason="Ray is not installed (the extra 'ray')")


@pytest.mark.slow
def test_ray_runs_jobs_and_an_interrupt_lets_them_keep_their_work(tmp_path: Path, tiny_cache: Path) -> None:
    diverging = document(steps=60)
    diverging["name"] = "diverges"
    diverging["training"]["optimizer"]["learning_rate"] = 1e30
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(diverging))
    (tmp_path / "good.yaml").write_text(yaml.safe_dump(document(steps=60)))
    words = ("bad.yaml", "good.yaml", "--launcher", "ray", "--option", "num_cpus=0.5", "--json")

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "harness", "submit", *words],
            cwd=tmp_path,
            env=os.environ | {"HARNESS_CACHE": str(tiny_cache)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    process = start()
    deadline = time.monotonic() + 200
    while not list(tmp_path.glob("runs/*/log.jsonl")) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=300)
    (log,) = tmp_path.glob("runs/launched/tiny-4-*.log")
    assert process.returncode == 130, (stderr, log.read_text())
    assert "interrupted; the work so far is kept" in log.read_text()

    process = start()
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 1, stderr
    (record,) = json.loads(stdout)
    assert record["name"] == "tiny-4"
    assert "resuming at step" in log.read_text()
    last = stderr.decode().splitlines()[-1]
    assert last.startswith("failed: diverges/")
    assert "the loss of shapes-" in last
