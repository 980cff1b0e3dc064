"""Annotations as memory-mapped columns."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.cards import DatasetCard, cache_directory
from harness.data import open_split
from harness.data.columns import Texts, columns, file_key
from harness.data.instances import _careful, _fast, read_instances
from harness.errors import HarnessError

WORDS = ["", "Straße", "日本", "a\nb", "plain"]


def document(images: int = 40, boxes: int = 200, seed: int = 0) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    ids = random.permutation(10**6)[:images].tolist()
    categories = random.permutation(90)[:5].tolist()
    return {
        "info": {"year": 2017},
        "licenses": [],
        "images": [{"id": i, "file_name": f"{i}.png", "height": 8, "width": 9, "extra": [1]} for i in ids],
        "categories": [{"id": c, "name": f"c{c}", "supercategory": "x"} for c in categories],
        "annotations": [
            {
                "id": n + 1,
                "image_id": int(random.choice(ids)),
                "category_id": int(random.choice(categories)),
                "bbox": [float(v) for v in random.integers(0, 4, 4)],
                "segmentation": [[0.5] * 8],
                "area": 1.5,
                "iscrowd": int(random.random() < 0.1),
            }
            for n in random.permutation(boxes).tolist()
        ],
    }


def write(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_packed_texts_are_a_sequence_of_the_same_texts() -> None:
    texts = Texts.of(WORDS)
    assert list(texts) == WORDS
    assert texts == WORDS
    assert texts != WORDS[:-1]
    assert texts[-1] == "plain"
    assert list(texts[1:3]) == WORDS[1:3]
    assert list(texts[3:1]) == []
    assert list(texts[::-2]) == WORDS[::-2]
    assert list(texts[:2][1:]) == WORDS[1:2]
    assert pickle.loads(pickle.dumps(texts)) == WORDS
    with pytest.raises(IndexError):
        texts[5]


def test_columns_are_made_once_and_pickle_as_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    made = []

    def make() -> dict[str, Any]:
        made.append(1)
        return {"a": np.arange(100_000), "empty": np.zeros((0, 4)), "t": Texts.of(WORDS * 1000)}

    first, second = columns("k", make), columns("k", make)
    assert made == [1]
    data = pickle.dumps((second, second.texts("t"), second.texts("t")[1:3]))
    assert len(data) < 1000
    again, texts, part = pickle.loads(data)
    assert (again["a"] == first["a"]).all()
    assert again["empty"].shape == (0, 4)
    assert texts == WORDS * 1000
    assert part == WORDS[1:3]
    with pytest.raises(ValueError, match="read-only"):
        again["a"][0] = 1


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:100])])
def test_a_damaged_cache_is_one_sentence_with_the_mend(
    damage: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    folder = columns("k", lambda: {"a": np.arange(1000)}).folder
    damage(folder / "a.npy")
    with pytest.raises(HarnessError, match=r"v1-k: this folder of the cache is damaged; delete it"):
        columns("k", dict)["a"]


def test_without_a_cache_folder_columns_live_for_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "file"))
    found = columns("no-cache", lambda: {"a": np.arange(3)})
    assert found["a"].tolist() == [0, 1, 2]
    assert cache_directory() not in found.folder.parents


def test_a_changed_file_of_the_same_size_has_another_key(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    keys = set()
    for text in ("one", "two"):
        path.write_text(text)
        keys.add(file_key(path))
    assert len(keys) == 2


@pytest.mark.parametrize("seed", range(5))
def test_the_fast_reader_reads_what_the_careful_one_reads(tmp_path: Path, seed: int) -> None:
    path = write(tmp_path / "i.json", document(seed=seed))
    fast, careful = _fast(path), _careful(path)
    assert fast is not None
    assert fast.keys() == careful.keys()
    for name, value in fast.items():
        other = careful[name]
        if isinstance(value, Texts):
            assert value == other, name
        else:
            assert not isinstance(other, Texts)
            assert value.dtype == other.dtype, name
            np.testing.assert_array_equal(value, other, err_msg=name)


def test_images_without_boxes_and_files_without_annotations_are_read(tmp_path: Path) -> None:
    content = document() | {"annotations": []}
    found = read_instances(write(tmp_path / "i.json", content))
    assert found["boxes"].shape == (0, 4)  # type: ignore[union-attr]
    assert found["starts"].tolist() == [0] * 41  # type: ignore[union-attr]


BREAKS: list[tuple[str, Any]] = [
    ("bbox", lambda d: d["annotations"][3].update(bbox=[1, 2, 3])),
    ("bbox", lambda d: d["annotations"][3].update(bbox=[1, 2, 3, None])),
    ("image_id", lambda d: d["annotations"][3].update(image_id=10**7)),
    ("category_id", lambda d: d["annotations"][3].update(category_id=-5)),
    ("iscrowd", lambda d: d["annotations"][3].update(iscrowd=2)),
    ("appears twice", lambda d: d["annotations"][3].update(id=d["annotations"][4]["id"])),
    ("appears twice", lambda d: d["images"][3].update(id=d["images"][4]["id"])),
    ("appears twice", lambda d: d["categories"][3].update(id=d["categories"][4]["id"])),
    ("not a size", lambda d: d["images"][3].update(height=0)),
    ("not a whole number", lambda d: d["images"][3].update(id=1.5)),
    ("is not an id", lambda d: d["annotations"][3].update(id=-1)),
    ("is not an id", lambda d: d["images"][3].update(id=2**63)),
    ("required and missing", lambda d: d["images"][3].pop("file_name")),
    ("required and missing", lambda d: d["annotations"][3].pop("bbox")),
    ("is empty", lambda d: d.update(images=[])),
    ("is empty", lambda d: d.update(categories=[])),
]


@pytest.mark.parametrize(("message", "damage"), BREAKS, ids=range(len(BREAKS)))
def test_whatever_is_wrong_is_refused_with_its_place(tmp_path: Path, message: str, damage: Any) -> None:
    content = document()
    damage(content)
    path = write(tmp_path / "i.json", content)
    with pytest.raises(HarnessError, match=message) as caught:
        read_instances(path)
    assert str(caught.value).startswith(str(path))


def test_truncated_json_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "i.json", document())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(HarnessError, match="not valid JSON"):
        read_instances(path)
    path.write_bytes(b"")
    with pytest.raises(HarnessError, match="not valid JSON"):
        read_instances(path)


def test_what_a_loader_process_is_sent_does_not_grow_with_the_data_set(tmp_path: Path) -> None:
    sizes = []
    for count in (10, 2000):
        root = tmp_path / str(count)
        (root / "images").mkdir(parents=True)
        content = document(images=count, boxes=5 * count)
        for entry in content["images"]:
            (root / "images" / entry["file_name"]).touch()
        write(root / "i.json", content)
        split = {"images": "images", "annotations": "i.json"}
        card = DatasetCard.model_validate(
            {
                "name": "tiny", "version": "1", "title": "t", "task": "detection", "adapter": "coco",
                "root": str(root), "splits": {"train": split, "val": split}, "license": "none", "how_to_get": "x",
            }
        )  # fmt: skip
        sizes.append(len(pickle.dumps(open_split(card, "train"))))
    assert sizes[1] < sizes[0] + 100
