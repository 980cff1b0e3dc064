"""Synthetic predictions and ground truth of the official data sets' shapes, always the same for a size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial import cKDTree


def write_coco(folder: Path, images: int, annotations: int, detections: int) -> None:
    """Write ``truth.json``, and two detectors' ``results.json`` and ``other.json``, one also as ``results.npz``."""
    truth, results = coco(images, annotations, detections)
    (folder / "truth.json").write_text(json.dumps(truth))
    (folder / "results.json").write_text(json.dumps(results))
    generator = np.random.default_rng(1)
    for result in results:
        result["score"] = round(min(1.0, max(0.0, result["score"] + float(generator.normal(0, 0.05)))), 4)
    (folder / "other.json").write_text(json.dumps(results))
    columns = json.loads((folder / "results.json").read_text())
    np.savez(folder / "results.npz", **{key: np.array([one[key] for one in columns]) for key in columns[0]})


def coco(images: int, annotations: int, detections: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A data set of COCO's shape: 80 categories of falling frequency, 85% of the boxes found, many false ones.

    Scores have four digits, so that many tie.
    """
    generator = np.random.default_rng(0)
    categories = np.sort(generator.choice(np.arange(1, 91), 80, replace=False))
    frequency = 1 / np.arange(1, 81) ** 0.9
    canvas = np.array([640, 480])

    def boxes(count: int) -> tuple[Any, Any, Any]:
        sides = np.exp(generator.normal(4, 1, (count, 2))).clip(4, 400)
        corners = generator.random((count, 2)) * (canvas - sides).clip(1)
        kinds = generator.choice(categories, count, p=frequency / frequency.sum())
        return generator.integers(1, images + 1, count), kinds, np.hstack([corners, sides]).round(2)

    of_image, kinds, true = boxes(annotations)
    crowd = generator.random(annotations) < 0.01
    truth = {
        "images": [{"id": n + 1, "width": 640, "height": 480} for n in range(images)],
        "categories": [{"id": int(k), "name": str(k)} for k in categories],
        "annotations": [
            {
                "id": n + 1,
                "image_id": int(of_image[n]),
                "category_id": int(kinds[n]),
                "bbox": true[n].tolist(),
                "area": float(true[n, 2] * true[n, 3] * 0.6),
                "iscrowd": int(crowd[n]),
            }
            for n in range(annotations)
        ],
    }
    found = np.flatnonzero(generator.random(annotations) < 0.85)
    near = true[found] + generator.normal(0, 0.06, (len(found), 4)) * np.tile(true[found, 2:], 2)
    false_image, false_kind, false_boxes = boxes(detections - len(found))
    columns = zip(
        np.append(of_image[found], false_image).tolist(),
        np.append(kinds[found], false_kind).tolist(),
        np.vstack([near.clip(1), false_boxes]).round(2).tolist(),
        (1 / (1 + np.exp(-np.append(generator.normal(0.5, 1, len(found)), generator.normal(-3, 1, len(false_kind))))))
        .round(4)
        .tolist(),
        strict=True,
    )
    return truth, [{"image_id": i, "category_id": k, "bbox": b, "score": s} for i, k, b, s in columns]


def label_maps(count: int, fragments: int) -> tuple[list[NDArray[np.uint8]], list[NDArray[np.uint8]]]:
    """Pairs of 1024 x 2048 maps of Cityscapes' ids.

    Args:
        count: How many pairs.
        fragments: Number of regions by which each map is divided at random: some hundred are like street scenes.
    """
    generator = np.random.default_rng(0)
    pixels = np.stack(np.mgrid[0:256, 0:512], axis=-1)
    truth = []
    for _ in range(count):
        _, nearest = cKDTree(generator.random((fragments, 2)) * [256, 512]).query(pixels)
        ids = generator.integers(7, 34, fragments).astype(np.uint8)
        truth.append(np.ascontiguousarray(ids[nearest].repeat(4, 0).repeat(4, 1)))
    return truth, [np.roll(one, (2, 5), axis=(0, 1)) for one in truth]


def write_label_maps(folder: Path, count: int) -> None:
    """``truth`` and ``prediction`` folders of as many PNG pairs of 1024 x 2048, with Cityscapes' names."""
    truth, prediction = label_maps(4, 300)
    for name in ("truth", "prediction"):
        (folder / name).mkdir()
    for n in range(count):
        frame = f"city_{n:06d}_000019"
        Image.fromarray(truth[n % 4]).save(folder / "truth" / f"{frame}_gtFine_labelIds.png", compress_level=1)
        Image.fromarray(prediction[n % 4]).save(folder / "prediction" / f"{frame}.png", compress_level=1)


def vqa(questions: int) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
    """Questions, annotations and results of VQA v2's shape; on a third of the questions all people agree."""
    generator = np.random.default_rng(0)
    words = ["yes", "no", "2", "two", "a dog", "The cat", "black and white", "x-ray", "10:30", "dont know", "1,000."]
    words += [f"word{number}" for number in range(3000)]
    frequency = 1 / np.arange(1, len(words) + 1)
    frequency /= frequency.sum()
    people = generator.choice(len(words), (questions, 10), p=frequency)
    agree = generator.random(questions) < 1 / 3
    people[agree] = people[agree, :1]
    given = generator.choice(len(words), questions, p=frequency)
    kinds = ["yes/no", "number", "other"]
    annotations = [
        {
            "question_id": n,
            "image_id": n // 5,
            "answer_type": kinds[n % 3],
            "question_type": f"what {n % 65}",
            "answers": [{"answer": words[a], "answer_id": i, "answer_confidence": "yes"} for i, a in enumerate(ten)],
        }
        for n, ten in enumerate(people.tolist())
    ]
    asked = [{"question_id": n, "image_id": n // 5, "question": "?"} for n in range(questions)]
    results = [{"question_id": n, "answer": words[a]} for n, a in enumerate(given.tolist())]
    return {"questions": asked}, {"annotations": annotations}, results
