"""Small data sets in the official layouts, good ones, for tests that then break them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from harness.cards import DatasetCard
from harness.data.checking import check

Build = Callable[..., DatasetCard]
Found = Callable[..., list[tuple[str, str, str, str]]]

TASKS = {
    "imagefolder": "classification",
    "imagenet_devkit": "classification",
    "cifar": "classification",
    "pets": "classification",
    "coco": "detection",
    "voc": "detection",
    "cityscapes": "segmentation",
    "label_maps": "segmentation",
    "vqa": "vqa",
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("HARNESS_CACHE", str(folder))
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The data set's folder."""
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture
def build(root: Path) -> Build:
    """A card over `root` with these splits."""

    def make(adapter: str, splits: dict[str, dict[str, Any]], name: str = "tiny", **extra: Any) -> DatasetCard:
        fields = {
            "name": name,
            "version": "1",
            "title": "t",
            "task": TASKS[adapter],
            "adapter": adapter,
            "root": str(root),
            "splits": splits,
            "selection_split": list(splits)[-1],
            "evaluation_split": list(splits)[-1],
            "license": "none",
            "how_to_get": "make it",
        }
        return DatasetCard.model_validate(fields | extra)

    return make


@pytest.fixture
def found() -> Found:
    """The findings of a check as (code, split, file, id)."""

    def run(*cards: DatasetCard, workers: int = 0) -> list[tuple[str, str, str, str]]:
        return [(f.code, f.split, f.file, f.id) for f in check(cards, workers=workers).findings]

    return run


@pytest.fixture
def photo() -> Callable[..., Path]:
    """Writes an image of random pixels, another one for every seed."""

    def write(path: Path, seed: int, width: int = 8, height: int = 6, **options: Any) -> Path:
        pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, **options)
        return path

    return write


@pytest.fixture
def mask() -> Callable[..., Path]:
    """Writes a label map of 8 x 6 pixels whose rows repeat the given ids."""

    def write(path: Path, *ids: int, width: int = 8, height: int = 6) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.resize(np.array(ids, dtype=np.uint8), (height, width))).save(path)
        return path

    return write


@pytest.fixture
def class_folders(root: Path, build: Build, photo: Callable[..., Path]) -> DatasetCard:
    """Two classes, two training images and one validation image of each."""
    for number, name in enumerate(("ant", "bee")):
        photo(root / "train" / name / "0.jpg", 10 * number)
        photo(root / "train" / name / "1.jpg", 10 * number + 1)
        photo(root / "val" / name / "0.jpg", 10 * number + 2)
    return build("imagefolder", {"train": {"images": "train", "size": 4}, "val": {"images": "val", "size": 2}})


def coco_document(images: dict[int, str], first: int) -> dict[str, Any]:
    return {
        "images": [{"id": key, "file_name": name, "width": 8, "height": 6} for key, name in images.items()],
        "categories": [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}],
        "annotations": [
            {"id": first + n, "image_id": key, "category_id": (1, 18)[n % 2], "bbox": [1, 1, 4, 3], "iscrowd": 0}
            for n, key in enumerate(images)
        ],
    }


@pytest.fixture
def coco(root: Path, build: Build, photo: Callable[..., Path]) -> DatasetCard:
    """Two training images (ids 1 and 2) and two validation images (ids 11 and 12) with one box each."""
    for split, base in (("train", 0), ("val", 10)):
        images = {base + 1: f"{base + 1:012d}.jpg", base + 2: f"{base + 2:012d}.jpg"}
        for key, name in images.items():
            photo(root / split / name, key)
        (root / f"{split}.json").write_text(json.dumps(coco_document(images, 100 * (base + 1))))
    splits = {s: {"images": s, "annotations": f"{s}.json", "size": 2, "objects": 2} for s in ("train", "val")}
    return build("coco", splits)


@pytest.fixture
def edit(root: Path) -> Callable[[str, Callable[[dict[str, Any]], object]], None]:
    """Changes a JSON file below the root."""

    def change(name: str, how: Callable[[dict[str, Any]], object]) -> None:
        document = json.loads((root / name).read_text())
        how(document)
        (root / name).write_text(json.dumps(document))

    return change


CLASSES = [
    {"name": "void", "id": 0, "evaluated": False},
    {"name": "road", "id": 7},
    {"name": "car", "id": 26},
]


@pytest.fixture
def cityscapes(root: Path, build: Build, photo: Callable[..., Path], mask: Callable[..., Path]) -> DatasetCard:
    """Two training frames and one validation frame."""
    for seed, (split, frame) in enumerate((("train", "a_0_0"), ("train", "a_0_1"), ("val", "b_0_0"))):
        photo(root / "leftImg8bit" / split / frame[0] / f"{frame}_leftImg8bit.png", seed)
        mask(root / "gtFine" / split / frame[0] / f"{frame}_gtFine_labelIds.png", 0, 7, 26)
    splits = {s: {"images": f"leftImg8bit/{s}", "labels": f"gtFine/{s}"} for s in ("train", "val")}
    return build("cityscapes", splits, classes=CLASSES)


@pytest.fixture
def vqa(root: Path, build: Build, photo: Callable[..., Path]) -> DatasetCard:
    """Two images of two questions each per split: training images 1 and 2, validation images 3 and 4."""
    splits: dict[str, dict[str, Any]] = {}
    for split, images in (("train", (1, 2)), ("val", (3, 4))):
        for image in images:
            photo(root / split / f"COCO_{split}_{image:012d}.jpg", 50 + image)
        pairs = [(10 * image + n, image) for image in images for n in range(2)]
        questions = [{"question_id": q, "image_id": i, "question": "what is it"} for q, i in pairs]
        answers = [{"answer": "cat", "answer_id": n + 1} for n in range(10)]
        annotations = [
            {"question_id": q, "image_id": i, "multiple_choice_answer": "cat", "answers": answers} for q, i in pairs
        ]
        (root / f"q_{split}.json").write_text(json.dumps({"questions": questions}))
        (root / f"a_{split}.json").write_text(json.dumps({"annotations": annotations}))
        splits[split] = {
            "images": split,
            "image_prefix": f"COCO_{split}_",
            "questions": f"q_{split}.json",
            "annotations": f"a_{split}.json",
            "size": 4,
        }
    return build("vqa", splits)


VOC_XML = """<annotation><size><width>8</width><height>6</height><depth>3</depth></size>
<object><name>{name}</name><difficult>0</difficult><bndbox>
<xmin>{xmin}</xmin><ymin>1</ymin><xmax>{xmax}</xmax><ymax>6</ymax></bndbox></object></annotation>"""


@pytest.fixture
def voc_object(root: Path) -> Callable[..., None]:
    """Writes one image's XML file."""

    def write(item: str, name: str = "dog", xmin: float = 1, xmax: float = 8) -> None:
        (root / "Annotations").mkdir(exist_ok=True)
        (root / "Annotations" / f"{item}.xml").write_text(VOC_XML.format(name=name, xmin=xmin, xmax=xmax))

    return write


@pytest.fixture
def voc(root: Path, build: Build, photo: Callable[..., Path], voc_object: Callable[..., None]) -> DatasetCard:
    """Training images 000001 and 000002, validation image 000003; an image of no list lies beside them."""
    for seed, item in enumerate(("000001", "000002", "000003", "000009")):
        photo(root / "JPEGImages" / f"{item}.jpg", seed)
        voc_object(item)
    (root / "train.txt").write_text("000001\n000002\n")
    (root / "val.txt").write_text("000003\n")
    splits = {
        s: {"images": "JPEGImages", "annotations": "Annotations", "names": f"{s}.txt", "objects": n}
        for s, n in (("train", 2), ("val", 1))
    }
    return build("voc", splits, classes=[{"name": "dog", "id": 1}, {"name": "cat", "id": 2}])
