"""Placeholder samples in several processes, through the real command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests_runs import in_this_process, in_two_processes
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


def test_two_processes_end_in_the_weights_and_curves_of_one(tmp_path: Path, tiny_cache: Path) -> None:
    raws = {kind: exact(kind) for kind in ("random", "adversarial")}
    ones = in_this_process(tmp_path / "one", tiny_cache, raws)
    twos = in_two_processes(tmp_path / "two", tiny_cache, raws)
    for kind, one in ones.items():
        two = twos[kind]
        assert one.record["fingerprint"] == two.record["fingerprint"]
        assert (one.folder / "samples.json").read_bytes() == (two.folder / "samples.json").read_bytes()
        for name, value in one.weights.items():
            torch.testing.assert_close(two.weights[name], value, rtol=1e-3, atol=1e-5, msg=f"{kind}: {name}")
        curves = {name: curve for name, curve in one.record["curves"].items() if name.startswith("samples/")}
        assert len(curves) == (4 if kind == "adversarial" else 8)
        for name, curve in curves.items():
            again = dict(two.record["curves"][name])
            assert again == pytest.approx(dict(curve), rel=2e-2, abs=1e-6), (kind, name)
