"""The scenes of one split in the official layouts of ImageNet, COCO, Cityscapes and VQA v2, under one folder.

Each scene is one file, linked into the four trees. Numbers of classes are sparse on purpose, as in the real data sets:
whoever takes a category id for an index fails here, too.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from harness.data.shapes.drawing import SHAPES, SIZE, Stream, encode_png
from harness.data.shapes.questions import TEMPLATES, Examiner, Question, human_answers
from harness.data.shapes.scenes import Scene, draw_scene

SPLITS = ("train", "val", "test")
MAX_SCENES = 100_000  # per split, so that image ids of different splits never meet
CATEGORY_IDS = dict(zip(SHAPES, (1, 2, 4, 7, 11, 16, 22, 29), strict=True))
VOID_ID, BACKGROUND_ID = 0, 7
LABEL_IDS = dict(zip(SHAPES, (11, 12, 13, 17, 19, 20, 24, 26), strict=True))
_LICENSE = {"id": 1, "name": "Apache License 2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"}
_INFO = {
    "description": "Placeholder Harness embedded suite: drawn scenes of coloured shapes",
    "url": "",
    "version": "1.0",
    "year": 2025,
    "contributor": "The Placeholder Harness authors",
    "date_created": "2025-01-01 00:00:00",
}


class SplitWriter:
    """Writes one split.

    Args:
        root: Folder of the suite.
        split: ``train``, ``val`` or ``test``.
        seed: Seed of the suite.
    """

    def __init__(self, root: Path, split: str, seed: int) -> None:
        self._root, self._split, self._seed = root, split, seed
        self._number = SPLITS.index(split)
        self._examiner = Examiner()
        self._images: list[dict[str, Any]] = []
        self._boxes: list[dict[str, Any]] = []
        self._questions: list[dict[str, Any]] = []
        self._answers: list[dict[str, Any]] = []
        folders = [root / "imagenet" / split / shape for shape in SHAPES]
        folders += [root / "coco" / split, root / "coco" / "annotations", root / "vqa" / f"{split}2014"]
        folders += [root / "cityscapes" / tree / split / "shapes" for tree in ("leftImg8bit", "gtFine")]
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)

    def add(self, index: int) -> None:
        """Draw scene `index` and write its files."""
        scene = draw_scene(self._seed, self._number, index)
        image_id = self._number * MAX_SCENES + index + 1
        name = f"{image_id:012d}"
        streets = self._root / "cityscapes"
        frame = f"{self._split}/shapes/shapes_{self._number:06d}_{image_id:06d}"
        original = self._root / "coco" / self._split / f"{name}.png"
        original.write_bytes(encode_png(scene.image))
        _link(original, self._root / "imagenet" / self._split / scene.largest.shape / f"{name}.png")
        _link(original, self._root / "vqa" / f"{self._split}2014" / f"COCO_{self._split}2014_{name}.png")
        _link(original, streets / "leftImg8bit" / f"{frame}_leftImg8bit.png")
        (streets / "gtFine" / f"{frame}_gtFine_labelIds.png").write_bytes(encode_png(label_ids(scene)))
        self._add_instances(scene, image_id, name)
        stream = Stream(self._seed, self._number, index, 2)
        for number, question in enumerate(self._examiner.ask(scene, stream)):
            self._add_question(question, image_id, number, human_answers(question, stream))

    def _add_instances(self, scene: Scene, image_id: int, name: str) -> None:
        self._images.append(
            {
                "id": image_id,
                "file_name": f"{name}.png",
                "width": SIZE,
                "height": SIZE,
                "license": 1,
                "date_captured": _INFO["date_created"],
                "coco_url": "",
                "flickr_url": "",
            }
        )
        for number, item in enumerate(scene.objects):
            mask = scene.instances == number
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            x, y = int(columns[0]), int(rows[0])
            self._boxes.append(
                {
                    "id": image_id * 10 + number,
                    "image_id": image_id,
                    "category_id": CATEGORY_IDS[item.shape],
                    "bbox": [float(x), float(y), float(columns[-1] + 1 - x), float(rows[-1] + 1 - y)],
                    "area": float(np.count_nonzero(mask)),
                    "iscrowd": 0,
                    "segmentation": {"size": [SIZE, SIZE], "counts": run_lengths(mask)},
                }
            )

    def _add_question(self, question: Question, image_id: int, number: int, answers: list[str]) -> None:
        template = TEMPLATES[question.template]
        question_id = image_id * 1000 + number
        self._questions.append({"image_id": image_id, "question": question.text, "question_id": question_id})
        self._answers.append(
            {
                "question_id": question_id,
                "image_id": image_id,
                "question_type": template.question_type,
                "answer_type": template.answer_type,
                "multiple_choice_answer": question.answer,
                "answers": [
                    {
                        "answer": answer,
                        "answer_confidence": "yes" if answer == question.answer else "maybe",
                        "answer_id": answer_id,
                    }
                    for answer_id, answer in enumerate(answers, start=1)
                ],
            }
        )

    def finish(self) -> None:
        """Write the split's JSON files."""
        categories = [{"id": number, "name": shape, "supercategory": "shape"} for shape, number in CATEGORY_IDS.items()]
        instances = {
            "info": _INFO,
            "licenses": [_LICENSE],
            "images": self._images,
            "annotations": self._boxes,
            "categories": categories,
        }
        head = {"info": _INFO, "license": _LICENSE, "data_type": "mscoco", "data_subtype": f"{self._split}2014"}
        questions = head | {"task_type": "Open-Ended", "questions": self._questions}
        vqa = self._root / "vqa"
        for path, document in (
            (self._root / "coco" / "annotations" / f"instances_{self._split}.json", instances),
            (vqa / f"v2_OpenEnded_mscoco_{self._split}2014_questions.json", questions),
            (vqa / f"v2_mscoco_{self._split}2014_annotations.json", head | {"annotations": self._answers}),
        ):
            path.write_bytes(orjson.dumps(document))


def label_ids(scene: Scene) -> NDArray[np.uint8]:
    """The label map, uint8 [SIZE, SIZE]: pixels on an outline are void."""
    ids = np.array([LABEL_IDS[item.shape] for item in scene.objects] + [BACKGROUND_ID], dtype=np.uint8)
    return np.where(scene.mixed, np.uint8(VOID_ID), ids[scene.instances])  # -1 takes the last: the background


def run_lengths(mask: NDArray[np.bool_]) -> list[int]:
    """COCO's uncompressed run lengths of a mask: column by column, zeros first.

    Args:
        mask: bool [H, W].

    Returns:
        Lengths of the alternating runs.

    Source: pycocotools, maskApi.c, rleEncode.
    """
    flat = np.concatenate([[False], mask.ravel(order="F"), [False]])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    edges = np.concatenate([[0], changes, [mask.size]])
    lengths = np.diff(edges).tolist()
    return lengths if lengths[-1] else lengths[:-1]


def _link(original: Path, copy: Path) -> None:
    with suppress(OSError):  # a file system without hard links, or with too many
        os.link(original, copy)
        return
    shutil.copyfile(original, copy)
