"""The code of docs/evaluation.md runs as it stands."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_oracle import random_data
from PIL import Image

PAGE = Path(__file__).parents[2] / "docs" / "evaluation.md"


def test_the_code_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    truth, results = random_data(0, 40, 12, 6)
    frame = "city_000001_000019"
    questions = [{"question_id": n, "image_id": n // 2, "question": "?"} for n in range(4)]
    people = [{"answer": "yes"}] * 10
    annotations = [
        {"question_id": n, "answer_type": "yes/no", "question_type": "is", "answers": people} for n in range(4)
    ]
    files: dict[str, Any] = {
        "instances": truth,
        "results": results,
        "other": results[::2],
        "questions": {"questions": questions},
        "annotations": {"annotations": annotations},
        "answers": [{"question_id": n, "answer": "no" if n else "yes"} for n in range(4)],
    }
    for name, content in files.items():
        Path(f"{name}.json").write_text(json.dumps(content))
    Path("gtFine/val").mkdir(parents=True)
    Path("predictions").mkdir()
    label = Image.fromarray(np.full((4, 6), 7, np.uint8))
    label.save(f"gtFine/val/{frame}_gtFine_labelIds.png")
    label.save(f"predictions/{frame}.png")

    found: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL):
        if "first_half" in block:
            found |= {"first_half": found["boxes"], "second_half": found["boxes"]}
        found.setdefault("weights", None)
        exec(block, found)
    assert (found["answers"].accuracy, found["maps"].miou, found["classes"].reduce()["top1"]) == (25.0, 1.0, 2 / 3)
    assert found["again"].stats.tobytes() == found["boxes"].stats.tobytes()
