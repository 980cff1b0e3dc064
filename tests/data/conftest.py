"""Small data sets in the official layouts, written by the tests themselves."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from harness.cards import DatasetCard
from harness.data import shapes

CardFor = Callable[..., DatasetCard]

_TASKS = {"coco": "detection", "voc": "detection", "vqa": "vqa"} | dict.fromkeys(
    ("cityscapes", "label_maps"), "segmentation"
)


@pytest.fixture
def card_for(tmp_path: Path) -> CardFor:
    """A card over `tmp_path`, whose train and val splits are given as mappings."""

    def build(adapter: str, splits: dict[str, dict[str, Any]], **extra: Any) -> DatasetCard:
        fields = {"version": "1", "title": "t", "license": "none", "how_to_get": "make it"} | extra
        return DatasetCard.model_validate(
            {
                "name": "tiny",
                "task": _TASKS.get(adapter, "classification"),
                "adapter": adapter,
                "root": str(tmp_path),
                "splits": splits,
            }
            | {"selection_split": list(splits)[-1], "evaluation_split": list(splits)[-1]}
            | fields
        )

    return build


@pytest.fixture
def write_image() -> Callable[..., np.ndarray]:
    """Writes a random RGB image and returns its pixels (only PNG keeps them exactly)."""

    def write(path: Path, height: int = 6, width: int = 8, seed: int = 0) -> np.ndarray:
        pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        return pixels

    return write


@pytest.fixture(scope="session")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small embedded suite."""
    root = tmp_path_factory.mktemp("cache") / "shapes-v1"
    shapes.make(root, {"train": 400, "val": 80, "test": 240})
    return root
