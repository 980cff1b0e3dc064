"""Real photographs in the official layouts, where a copy of the small real data is present under HARNESS_DATA."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.cards import shipped

FOLDERS = ("imagenet", "coco", "cityscapes", "vqa")
ROOT = Path(os.environ.get("HARNESS_DATA") or "absent")


@pytest.mark.slow
@pytest.mark.skipif(
    not all((ROOT / folder).is_dir() for folder in FOLDERS), reason="HARNESS_DATA does not hold the small real data"
)
def test_four_real_data_sets_with_images_of_different_sizes_train_and_score_together(
    command: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    result = command("submit", shipped("baselines") / "real-mini.yaml", "--limit", "4", "--json")
    assert result.returncode == 0, result.stderr
    (record,) = json.loads(result.stdout)
    assert {name: task["images"] for name, task in record["tasks"].items()} == dict.fromkeys(
        ("imagenet-mini", "coco-mini", "camvid-mini", "daquar-mini"), 4
    )
    assert all(task["metrics"][task["main"]] is not None for task in record["tasks"].values())
