"""Placeholder samples in several processes, through the real command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tests_support import document

pytestmark = pytest.mark.slow


def exact(kind: str) -> dict[str, Any]:
    """No batch norm and no dropout, which make a batch more than its images; odd batches, which split unevenly."""
    raw = document(steps=3)
    raw["model"]["backbone"] = {"name": "test_convnext"}
    raw["model"]["heads"]["segmentation"] = {"name": "upernet", "channels": 16, "dropout": 0}
    for task in raw["tasks"]:
        task |= {"fraction": 0.3, "batch_size": 3}
    threshold = {} if kind == "adversarial" else {"threshold": 0.5}
    raw["training"] |= {
        "optimizer": {"name": "sgd", "learning_rate": 0.02},
        "gradient_clip": None,
        "placeholders": {"samples": {"ratio": 1, "kind": kind, "selection": "k_center"} | threshold},
    }
    return raw


def finish(folder: Path, cache: Path, raw: dict[str, Any], *words: str) -> dict[str, Any]:
    folder.mkdir()
    (folder / "a.yaml").write_text(yaml.safe_dump(raw))
    done = subprocess.run(
        [sys.executable, "-m", "harness", "submit", "a.yaml", *words],
        cwd=folder,
        env=os.environ | {"HARNESS_CACHE": str(cache), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    (file,) = folder.glob("leaderboard/records/*/*/record.json")
    content: dict[str, Any] = json.loads(file.read_text())
    return content


def weights(folder: Path) -> dict[str, torch.Tensor]:
    (file,) = folder.glob("runs/*/weights.safetensors")
    return load_file(file)


@pytest.mark.parametrize("kind", ["random", "adversarial"])
def test_two_processes_end_in_the_weights_and_curves_of_one(tmp_path: Path, tiny_cache: Path, kind: str) -> None:
    raw = exact(kind)
    one = finish(tmp_path / "one", tiny_cache, raw)
    two = finish(tmp_path / "two", tiny_cache, raw, "--devices", "2")
    assert one["fingerprint"] == two["fingerprint"]
    (pools,) = (tmp_path / "one").glob("runs/*/samples.json")
    (same,) = (tmp_path / "two").glob("runs/*/samples.json")
    assert pools.read_bytes() == same.read_bytes()
    first, second = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-3, atol=1e-5, msg=name)
    curves = {name: curve for name, curve in one["curves"].items() if name.startswith("samples/")}
    assert len(curves) == (4 if kind == "adversarial" else 8)
    for name, curve in curves.items():
        for (step, value), (other_step, other) in zip(curve, two["curves"][name], strict=True):
            assert step == other_step
            assert other == pytest.approx(value, rel=2e-2, abs=1e-6)
