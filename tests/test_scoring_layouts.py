"""Predictions on every layout are scored, recorded and verified, from the official files to the numbers."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from scipy.io import savemat

from harness.board.page import verify, write_board
from harness.board.records import read_records, read_statistics
from harness.cards import load_card
from harness.data import open_split
from harness.data.config import TaskConfig
from harness.data.loading import EvaluationOrder, TaskData, collate
from harness.data.samples import Adapter
from harness.errors import HarnessError
from harness.evaluation import classification
from harness.evaluation.predictions import write_classification, write_detections, write_segmentation
from harness.scoring import record_predictions, score


def write_card(root: Path, task: str, adapter: str, splits: dict[str, Any], **more: Any) -> Path:
    """A card in a folder of its own, so that the same name can be used in every test."""
    card = {"name": "tiny", "version": "1", "title": "t", "task": task, "adapter": adapter, "root": str(root)}
    last = list(splits)[-1]
    roles = {"selection_split": last, "evaluation_split": last, "license": "none", "how_to_get": "make it"}
    path = root / "tiny.yaml"
    path.write_text(yaml.safe_dump(card | roles | {"splits": splits} | more))
    return path


def write_image(path: Path, height: int = 20, width: int = 20) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height)).save(path)


def recorded(card: Path, predictions: Path, tmp_path: Path) -> dict[str, float | None]:
    """The metrics of the record, after every number was recomputed from the stored statistics."""
    record = record_predictions(str(card), predictions, "mine", 0, tmp_path / "board")
    write_board(tmp_path / "board")
    assert verify(tmp_path / "board") == []
    return record.tasks["tiny"].metrics


# --- PASCAL VOC detection

CLASSES = [{"name": "cat", "id": 1}, {"name": "dog", "id": 2}]


def voc(root: Path) -> Path:
    """Image 1: a dog and a difficult cat. Image 2_2: a cat. Image 3: nothing. Boxes are 10 x 10 pixels."""
    objects = {"000001": [("dog", 0, 1), ("cat", 1, 11)], "2_2": [("cat", 0, 1)], "3": []}
    (root / "Annotations").mkdir()
    for name, found in objects.items():
        write_image(root / f"JPEGImages/{name}.jpg")
        text = "".join(
            f"<object><name>{kind}</name><difficult>{difficult}</difficult><bndbox><xmin>{first}</xmin>"
            f"<ymin>{first}</ymin><xmax>{first + 9}</xmax><ymax>{first + 9}</ymax></bndbox></object>"
            for kind, difficult, first in found
        )
        size = "<size><width>20</width><height>20</height></size>"
        (root / f"Annotations/{name}.xml").write_text(f"<annotation>{size}{text}</annotation>")
    (root / "val.txt").write_text("\n".join(objects))
    split = {"images": "JPEGImages", "annotations": "Annotations", "names": "val.txt", "size": 3}
    return write_card(root, "detection", "voc", {"train": split, "val": split}, classes=CLASSES)


def detections(adapter: Any) -> list[dict[str, Any]]:
    """The ground truth's boxes as a network's writer would put them: from samples, through `category_ids`."""
    results = []
    for sample in adapter:
        for (x, y, right, bottom), label, crowd in zip(sample.boxes, sample.labels, sample.crowd, strict=True):
            if not crowd:
                box = [float(x), float(y), float(right - x), float(bottom - y)]
                category = int(adapter.category_ids[label])
                results.append({"image_id": int(sample.id), "category_id": category, "bbox": box, "score": 0.8})
    return results


def test_perfect_boxes_on_pascal_voc_score_one(tmp_path: Path) -> None:
    card = voc(tmp_path)
    write_detections(tmp_path / "perfect.json", detections(open_split(load_card(str(card)), "val")))
    assert recorded(card, tmp_path / "perfect.json", tmp_path)["AP"] == pytest.approx(1)


def test_boxes_on_pascal_voc_score_as_computed_by_hand_and_difficult_objects_do_not_count(tmp_path: Path) -> None:
    card = voc(tmp_path)
    results = detections(open_split(load_card(str(card)), "val"))
    # Of cats: the difficult one is ignored, a false alarm comes first, then the true cat: precision 1/2 at all recalls.
    results.append({"image_id": 1, "category_id": 1, "bbox": [10, 10, 10, 10], "score": 0.95})
    results.append({"image_id": 3, "category_id": 1, "bbox": [0, 0, 10, 10], "score": 0.9})
    write_detections(tmp_path / "some.json", results)
    assert recorded(card, tmp_path / "some.json", tmp_path)["AP"] == pytest.approx((0.5 + 1.0) / 2)


def test_a_limited_pascal_voc_scores_its_first_images_only(tmp_path: Path) -> None:
    adapter = open_split(load_card(str(voc(tmp_path))), "val", limit=1)
    write_detections(tmp_path / "one.json", detections(adapter))
    result = score(adapter, tmp_path / "one.json")
    assert result.ids.tolist() == ["1"]
    assert result.reduce()["AP"] == pytest.approx(1)


# --- Folders of label maps

MAPS = [{"name": "background", "id": 0}, {"name": "cat", "id": 8}, {"name": "void", "id": 255, "evaluated": False}]
TRUTH = {"a": [[0, 0, 0, 0], [8, 8, 255, 255]], "sub/b": [[8, 8], [255, 255]]}


def label_maps(root: Path) -> Path:
    for name, rows in TRUTH.items():
        labels = np.array(rows, dtype=np.uint8)
        write_image(root / f"images/{name}.jpg", *labels.shape)
        (root / f"labels/{name}.png").parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(labels).save(root / f"labels/{name}.png")
    split = {"images": "images", "labels": "labels"}
    return write_card(root, "segmentation", "label_maps", {"train": split, "val": split}, classes=MAPS)


def write_maps(folder: Path, adapter: Any) -> None:
    """What a network's writer would put for the right train ids; ignored pixels get the first class."""
    folder.mkdir()
    for sample in adapter:
        write_segmentation(folder, sample.id, adapter.label_ids[np.where(sample.mask == 255, 0, sample.mask)])


def test_perfect_label_maps_score_one(tmp_path: Path) -> None:
    card = label_maps(tmp_path)
    write_maps(tmp_path / "perfect", open_split(load_card(str(card)), "val"))
    assert recorded(card, tmp_path / "perfect", tmp_path)["miou"] == 1.0


def test_label_maps_score_as_computed_by_hand(tmp_path: Path) -> None:
    card = label_maps(tmp_path)
    write_maps(tmp_path / "some", open_split(load_card(str(card)), "val"))
    # One of 4 background pixels is called cat, one of 4 cat pixels void: 3 / 4 and 3 / (4 + 1).
    write_segmentation(tmp_path / "some", "a", np.array([[8, 0, 0, 0], [8, 8, 8, 0]], dtype=np.uint8))
    write_segmentation(tmp_path / "some", "sub_b", np.array([[8, 255], [0, 0]], dtype=np.uint8))
    record = recorded(card, tmp_path / "some", tmp_path)
    assert record["miou"] == pytest.approx((3 / 4 + 3 / 5) / 2)


def test_predictions_of_the_whole_split_may_be_scored_with_a_limit(tmp_path: Path) -> None:
    card = load_card(str(label_maps(tmp_path)))
    write_maps(tmp_path / "all", open_split(card, "val"))
    assert score(open_split(card, "val", limit=1), tmp_path / "all").ids.tolist() == ["a"]


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        ("a", [[9] * 4] * 2, r"some/a\.png: holds the id 9, which is not among the classes of card tiny"),
        ("a", [[0] * 3] * 2, r"image 'a': shape \[2, 3\] where the ground truth has \[2, 4\]"),
        ("c", [[0]], r"some: c\.png: does not start with the name of a frame"),
    ],
)
def test_wrong_label_maps_are_refused(tmp_path: Path, name: str, rows: list, message: str) -> None:
    adapter = open_split(load_card(str(label_maps(tmp_path))), "val")
    write_maps(tmp_path / "some", adapter)
    write_segmentation(tmp_path / "some", name, np.array(rows, dtype=np.uint8))
    with pytest.raises(HarnessError, match=message):
        score(adapter, tmp_path / "some")


# --- Classification


def logits(adapter: Any, predicted: list[int]) -> np.ndarray:
    return np.eye(len(adapter.classes), dtype=np.float32)[predicted]


def cifar(root: Path) -> Path:
    (root / "test.bin").write_bytes(b"".join(bytes([label]) + bytes(3072) for label in (3, 1, 4, 1)))
    (root / "names.txt").write_text("\n".join(f"class {n}" for n in range(10)))
    split = {"images": "test.bin", "labels": "names.txt", "size": 4}
    return write_card(root, "classification", "cifar", {"train": split, "test": split})


def pets(root: Path) -> Path:
    names = ["Birman_1 1 1 1", "pug_1 2 2 1", "pug_2 2 2 1", "Birman_2 1 1 1"]
    for line in names:
        write_image(root / f"images/{line.split()[0]}.jpg")
    (root / "test.txt").write_text("\n".join(names))
    split = {"images": "images", "names": "test.txt", "size": 4}
    return write_card(root, "classification", "pets", {"train": split, "test": split})


def devkit(root: Path) -> Path:
    """Classes 0 to 2; labels 0, 1, 2, 0."""
    synsets = np.zeros((3, 1), dtype=[("ILSVRC2012_ID", "O"), ("WNID", "O"), ("num_children", "O")])
    for row, (number, wnid) in enumerate([(1, "n02000000"), (2, "n01000000"), (3, "n03000000")]):
        synsets[row, 0] = (float(number), wnid, 0.0)
        write_image(root / f"train/{wnid}/1.JPEG")
    savemat(root / "meta.mat", {"synsets": synsets})
    for number in range(1, 5):
        write_image(root / f"val/ILSVRC2012_val_{number:08d}.JPEG")
    (root / "truth.txt").write_text("2\n1\n3\n2\n")
    val = {"images": "val", "labels": "truth.txt", "synsets": "meta.mat", "real": "real.json", "size": 4}
    return write_card(root, "classification", "imagenet_devkit", {"train": {"images": "train"}, "val": val})


@pytest.mark.parametrize("layout", [cifar, pets, devkit])
def test_classes_score_as_computed_by_hand(tmp_path: Path, layout: Any) -> None:
    card = layout(tmp_path)
    adapter: Any = open_split(load_card(str(card)), load_card(str(card)).evaluation_split)
    right = adapter.labels.tolist()
    write_classification(tmp_path / "perfect.npz", adapter.ids, logits(adapter, right))
    assert score(adapter, tmp_path / "perfect.npz").reduce()["top1"] == 1.0
    wrong = [(right[0] + 1) % len(adapter.classes), *right[1:]]
    write_classification(tmp_path / "some.npz", adapter.ids, logits(adapter, wrong))
    metrics = recorded(card, tmp_path / "some.npz", tmp_path)
    assert metrics["top1"] == 0.75
    assert "real" not in metrics


def real_record(tmp_path: Path) -> dict[str, float | None]:
    """Labels 0, 1, 2, 0; predicted 0, 2, 2, 1; ReaL sets {0}, {}, {1}, {1, 2}: top-1 2/4, ReaL 2/3."""
    card = devkit(tmp_path)
    (tmp_path / "real.json").write_text("[[0], [], [1], [1, 2]]")
    ids = [f"ILSVRC2012_val_{n:08d}.JPEG" for n in range(1, 5)]
    (tmp_path / "p.csv").write_text(
        "id,label\n" + "".join(f"{i},{c}\n" for i, c in zip(ids, (0, 2, 2, 1), strict=True))
    )
    return recorded(card, tmp_path / "p.csv", tmp_path)


def test_real_accuracy_stands_beside_top_1_and_drops_images_without_labels(tmp_path: Path) -> None:
    metrics = real_record(tmp_path)
    assert metrics["top1"] == 0.5
    assert metrics["real"] == pytest.approx(2 / 3)


def test_class_folders_have_real_accuracy_too(tmp_path: Path) -> None:
    write_image(tmp_path / "train/n01/1.JPEG")
    for number, wnid in enumerate(("n01", "n02", "n01"), 1):
        write_image(tmp_path / f"train/{wnid}/1.JPEG")
        write_image(tmp_path / f"val/{wnid}/ILSVRC2012_val_{number:08d}.JPEG")
    (tmp_path / "real.json").write_text("[[0, 1], [0], []]")
    splits = {"train": {"images": "train"}, "val": {"images": "val", "real": "real.json"}}
    adapter: Any = open_split(load_card(str(write_card(tmp_path, "classification", "imagefolder", splits))), "val")
    write_classification(tmp_path / "p.npz", adapter.ids, logits(adapter, [1, 1, 1]))
    numbers = score(adapter, tmp_path / "p.npz").reduce()
    assert (numbers["top1"], numbers["real"]) == (pytest.approx(1 / 3), 0.5)


def test_a_changed_real_accuracy_is_found_by_verify(tmp_path: Path) -> None:
    real_record(tmp_path)
    (path,) = (tmp_path / "board/records").rglob("record.json")
    document = json.loads(path.read_text())
    document["tasks"]["tiny"]["metrics"]["real"] = 0.9
    path.write_text(json.dumps(document))
    assert any("metrics.real: is 0.9, the statistics give 0.66" in problem for problem in verify(tmp_path / "board"))


def test_real_statistics_survive_storing_merging_and_weighting(tmp_path: Path) -> None:
    real_record(tmp_path)
    (record,) = read_records(tmp_path / "board")
    result: Any = read_statistics(tmp_path / "board", record)["tiny"]
    assert result.real.tolist() == [1, -1, 0, 1]
    assert result.reduce(np.array([1, 5, 3, 0]))["real"] == 0.25
    assert np.isnan(result.reduce(np.array([0, 5, 0, 0]))["real"])
    halves = [
        classification.evaluate([0, 1], [0, 2], ["a", "b"], ["x", "y", "z"], real=[[0], []]),
        classification.evaluate([2, 0], [2, 1], ["c", "d"], ["x", "y", "z"], real=[[1], [1, 2]]),
    ]
    merged = classification.ClassificationResult.merge(halves[::-1])
    assert merged.reduce() == pytest.approx(result.reduce(), nan_ok=True)
    plain = classification.evaluate([2, 0], [2, 1], ["c", "d"], ["x", "y", "z"])
    with pytest.raises(HarnessError, match="only some shards have ReaL labels"):
        classification.ClassificationResult.merge([halves[0], plain])
    with pytest.raises(HarnessError, match="real: 1 label sets for 2 images"):
        classification.evaluate([2, 0], [2, 1], real=[[0]])


@pytest.mark.parametrize("layout", [voc, label_maps, cifar, pets, devkit])
def test_every_layout_feeds_a_batch_from_a_loader_process(tmp_path: Path, layout: Any) -> None:
    card = load_card(str(layout(tmp_path)))
    config = TaskConfig(dataset="tiny", batch_size=2, image_size=(16, 16))
    adapter = pickle.loads(pickle.dumps(open_split(card, card.evaluation_split)))
    data = TaskData(adapter, config, training=False, seed=0)
    ids = []
    for batch in EvaluationOrder(len(data), 2):
        found = collate([data[place] for place in batch])
        assert found.images.shape[1:] == (3, 16, 16)
        ids += found.ids
    assert ids == list(adapter.ids)


def test_coco_and_vqa_are_scored_from_the_official_files(tiny_suite: Path) -> None:
    for name, endings in {"shapes-detection": [".json"], "shapes-vqa": [".json", ".json"]}.items():
        adapter: Adapter = open_split(load_card(name), "test")
        assert [path.suffix for path in adapter.truth()] == endings
        assert list(adapter.truth()) == list(adapter.ground_truth_files())
