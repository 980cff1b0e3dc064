"""Whole runs for tests that compare them: in several processes, in parts, or after a kill.

Loading torch takes a process longer than a tiny run does. So what is compared with is found in the test's own process,
and two processes take all submissions of a test one after another.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml
from safetensors.torch import load_file

from harness.progress import Reporter
from harness.runs import run
from harness.submission import load_submission


class Ended(NamedTuple):
    """What a run left behind."""

    weights: dict[str, torch.Tensor]
    record: dict[str, Any]
    folder: Path


def in_this_process(folder: Path, cache: Path, raws: Mapping[str, dict[str, Any]]) -> dict[str, Ended]:
    """Train submissions, or go on with what the command began in the folder; by the names that they get."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the processes that tests start: other sums would have other last digits
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HARNESS_CACHE", str(cache))
            for file in _written(folder, raws):
                run(load_submission(file), 0, folder / "runs", folder / "leaderboard", Reporter(quiet=True))
    finally:
        torch.set_num_threads(threads)
    return {name: ended(folder, name) for name in raws}


def in_two_processes(folder: Path, cache: Path, raws: Mapping[str, dict[str, Any]]) -> dict[str, Ended]:
    """Train submissions through the real command; by the names that they get."""
    done = subprocess.run(
        [sys.executable, "-m", "harness", "submit", *_written(folder, raws), "--devices", "2"],
        cwd=folder,
        env=os.environ | {"HARNESS_CACHE": str(cache), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return {name: ended(folder, name) for name in raws}


def ended(folder: Path, name: str = "tiny-4") -> Ended:
    """What the run of one submission and seed left behind in a folder."""
    (file,) = folder.glob(f"leaderboard/records/{name}/*/record.json")
    record = json.loads(file.read_text())
    where = folder / "runs" / f"{record['fingerprint']}-seed0"
    return Ended(load_file(where / "weights.safetensors"), record, where)


def _written(folder: Path, raws: Mapping[str, dict[str, Any]]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for name, raw in raws.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(raw | {"name": name}))
    return [folder / f"{name}.yaml" for name in raws]
