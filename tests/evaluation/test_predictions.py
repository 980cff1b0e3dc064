from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.errors import HarnessError
from harness.evaluation.predictions import (
    read_classification,
    read_detections,
    read_vqa,
    write_classification,
    write_detections,
    write_vqa,
)

SIZES = {1: (100.0, 80.0), 2: (100.0, 80.0)}
CATEGORIES = [1, 2, 3, 5]  # with a gap, as COCO's are


def box(**changes: Any) -> dict[str, Any]:
    return {"image_id": 1, "category_id": 1, "bbox": [1.0, 2, 30, 40], "score": 0.5} | changes


def test_detections_survive_a_round_trip_bit_for_bit(tmp_path: Path) -> None:
    results = [box(score=0.1 + 0.2), box(bbox=[0.1, 1 / 3, np.float64(5), 7.25], image_id=np.int64(2))]
    write_detections(tmp_path / "results.json", results)
    found = read_detections(tmp_path / "results.json", SIZES, CATEGORIES)
    assert found.image_ids.tolist() == [1, 2]
    assert found.scores.tolist() == [0.1 + 0.2, 0.5]
    assert found.boxes.tolist() == [[1, 2, 30, 40], [0.1, 1 / 3, 5, 7.25]]


def test_an_empty_list_of_detections_is_valid(tmp_path: Path) -> None:
    write_detections(tmp_path / "results.json", [])
    assert read_detections(tmp_path / "results.json", SIZES, CATEGORIES).boxes.shape == (0, 4)


@pytest.mark.parametrize(
    ("results", "words"),
    [
        ({"a": 1}, "a list of results is required"),
        ([3], r"results: \[0\]: 3 is not a mapping"),
        ([box(), {"image_id": 1}], r"results: \[1\].category_id: this key is required"),
        ([box(), box(image_id="1")], r"results: \[1\].image_id: '1' is not a whole number"),
        ([box(image_id=True)], r"\[0\].image_id: True is not a whole number"),
        ([box(image_id=2**70)], r"\[0\].image_id: 1180591620717411303424 is not a whole number below 2\*\*63"),
        (
            [box(), box(image_id=9)],
            r"\[1\].image_id: 9 is not an image of the ground truth; .* another data set or split",
        ),
        ([box(category_id=4)], r"\[0\].category_id: 4 is not a category of the ground truth; .*without gaps"),
        ([box(category_id=0)], r"number the 4 categories from 0 without gaps"),
        ([box(category_id=77)], r"77 is not a category of the ground truth; its ids are \[1, 2, 3, 5\]"),
        ([box(score=None)], r"\[0\].score: None is not a number"),
        ([box(), box(score=float("nan"))], r"\[1\].score: nan is not a finite number"),
        ([box(score=float("inf"))], r"\[0\].score: inf is not a finite number"),
        ([box(score=10**400)], r"\[0\].score: 1000.* is not a finite number"),
        ([box(bbox=[1, 2, 3])], r"\[0\].bbox: \[1, 2, 3\] is not a list of four numbers"),
        ([box(), box(bbox="abcd")], r"\[1\].bbox: 'abcd' is not a list of four numbers"),
        ([box(bbox=[1, 2, "3", 4])], r"\[0\].bbox: .* is not a list of four numbers"),
        ([box(bbox=[1, 2, float("nan"), 4])], r"\[0\].bbox: .* not finite"),
        ([box(bbox=[1, 2, 3, 10**400])], r"\[0\].bbox: "),
        ([box(bbox=[1, 2, -3, 4])], r"\[0\].bbox: \[1.0, 2.0, -3.0, 4.0\] has a negative side"),
    ],
)
def test_bad_detections_are_refused_in_one_sentence_that_names_the_place(results: Any, words: str) -> None:
    with pytest.raises(HarnessError, match=words) as error:
        read_detections(results, SIZES, CATEGORIES)
    assert "\n" not in str(error.value)


def test_boxes_given_by_their_corners_are_refused_and_explained() -> None:
    corners = [box(bbox=[60, 50, 90, 70]), box(bbox=[50, 10, 99, 79]), box(bbox=[5, 5, 20, 20])]
    with pytest.raises(HarnessError, match=r"\[0\].bbox: .* they seem to be corners \(x1, y1, x2, y2\)"):
        read_detections(corners, SIZES, CATEGORIES)
    read_detections([*corners, box(bbox=[70, 50, 20, 20])], SIZES, CATEGORIES)  # one that can be no pair of corners
    read_detections(corners, {1: None}, CATEGORIES)  # nothing to tell by


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'[{"image_id": 1', "not valid JSON .* may be cut short"),
        (b"[NaN]", "not valid JSON"),
        (b"", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
    ],
)
def test_a_broken_json_file_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(content)
    with pytest.raises(HarnessError, match=words) as error:
        read_detections(path, SIZES, CATEGORIES)
    assert str(error.value).startswith(str(path))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match="cannot be read"):
        read_detections(tmp_path / "none.json", SIZES, CATEGORIES)
    for name in ("none.csv", "none.npz"):
        with pytest.raises(HarnessError, match="cannot be read"):
            read_classification(tmp_path / name, ["a"], 2)


def test_vqa_answers_survive_a_round_trip(tmp_path: Path) -> None:
    write_vqa(tmp_path / "answers.json", [7, np.int64(3)], ["yes", 'no "quoted"'])
    assert read_vqa(tmp_path / "answers.json", [3, 7, 9]) == {3: 'no "quoted"', 7: "yes"}
    with pytest.raises(HarnessError, match="2 question ids for 1 answers"):
        write_vqa(tmp_path / "answers.json", [1, 2], ["yes"])


def test_class_scores_survive_a_round_trip_and_equal_values_give_equal_bytes(tmp_path: Path) -> None:
    logits = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    for name in ("a.npz", "b.npz"):
        write_classification(tmp_path / name, ["x/1.jpg", "x/2.jpg", "y/é.jpg"], logits)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    found = read_classification(tmp_path / "a.npz", ["y/é.jpg", "x/1.jpg", "x/2.jpg"], 4)
    assert np.array_equal(found, logits[[2, 0, 1]])
    with pytest.raises(HarnessError, match="1 ids for 3 rows"):
        write_classification(tmp_path / "a.npz", ["x"], logits)


def test_predicted_classes_are_read_from_csv_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text('\ufeffid,label\r\nb,1\r\n"a, quoted",3\r\n\r\n')
    assert read_classification(path, ["a, quoted", "b"], 4).tolist() == [3, 1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "line 1: the header must be id,label"),
        ("image,label\na,1\n", "line 1: the header must be id,label, found 'image,label'"),
        ("id,label\na,1,2\n", "line 2: 3 columns"),
        ("id,label\na,4\n", "line 2: label '4' is not a class index"),
        ("id,label\na,-1\n", "line 2: label '-1'"),
        ("id,label\na,1.0\n", "line 2: label '1.0'"),
        ("id,label\na,²\n", "line 2: label '²'"),
        ("id,label\na," + "9" * 5000 + "\n", "line 2: label '9999"),
        ("id,label\na,1\na,1\nb,1\n", "id 'a' appears twice"),
        ("id,label\na,1\nz,1\n", "id 'z' is not an image of the data set; ids are paths, such as 'a'"),
        ("id,label\na,1\n", "1 of 2 images have no prediction, the first is 'b'"),
        ('id,label\n"a,1\n', "not valid CSV"),
    ],
)
def test_a_bad_csv_is_refused_in_one_sentence_that_names_the_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(HarnessError, match=words) as error:
        read_classification(path, ["a", "b"], 4)
    assert str(error.value).startswith(str(path))


def test_a_csv_that_is_not_utf8_or_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes(b"id,label\n\xff,1\n")
    with pytest.raises(HarnessError, match="not UTF-8"):
        read_classification(tmp_path / "labels.csv", ["a"], 4)
    with pytest.raises(HarnessError, match=r"a file that ends in .csv .* or .npz"):
        read_classification(tmp_path / "labels.txt", ["a"], 4)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"ids": np.array(["a"])}, "logits: this array is required"),
        ({"ids": np.array([1]), "logits": np.zeros((1, 4))}, "ids: shape"),
        ({"ids": np.array(["a"]), "logits": np.zeros((1, 3))}, r"logits: shape \[1, 3\] .* \[1, 4\] are required"),
        ({"ids": np.array(["a"]), "logits": np.array([[0, 0, np.nan, 0]])}, r"logits\[0, 2\]: nan"),
        ({"ids": np.array(["a"]), "logits": np.array([["0"] * 4])}, "logits: shape .* dtype <U1"),
    ],
)
def test_a_bad_npz_is_refused_in_one_sentence_that_names_the_array(tmp_path: Path, arrays: Any, words: str) -> None:
    np.savez(tmp_path / "logits.npz", **arrays)
    with pytest.raises(HarnessError, match=words):
        read_classification(tmp_path / "logits.npz", ["a"], 4)


class Trap:
    """Unpickling this would make a file."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("trapped",)


def test_an_npz_with_pickled_objects_is_refused_without_running_them(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "logits.npz", ids=np.array([Trap()], dtype=object), logits=np.zeros((1, 4)))
    with pytest.raises(HarnessError, match="not a valid NPZ file of plain arrays"):
        read_classification(tmp_path / "logits.npz", ["a"], 4)
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize("cut", [0, 10, 100, -1])
def test_a_truncated_npz_or_another_file_of_that_name_is_refused(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "logits.npz"
    write_classification(path, ["a"], np.zeros((1, 4)))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(HarnessError, match=str(path)):
        read_classification(path, ["a"], 4)
    np.save(tmp_path / "plain.npy", np.zeros(3))
    (tmp_path / "plain.npy").rename(path)
    with pytest.raises(HarnessError, match="NPZ"):
        read_classification(path, ["a"], 4)


def test_an_npz_with_damaged_content_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "logits.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ids.npy", b"\x93NUMPY\x01\x00\x10\x00{'descr': nonsense")
        archive.writestr("logits.npy", b"")
    with pytest.raises(HarnessError, match="NPZ"):
        read_classification(path, ["a"], 4)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': (), 'fortran_order': False, 'shape': (0,)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (0, 1000000000000000000000)}",
        "{'descr': '<U0', 'fortran_order': False, 'shape': (1000000000000000000000,)}",
    ],
)
def test_an_npz_with_a_hostile_header_is_refused_in_one_sentence(tmp_path: Path, header: str) -> None:
    member = b"\x93NUMPY\x01\x00" + (len(header) + 1).to_bytes(2, "little") + header.encode() + b"\n"
    with zipfile.ZipFile(tmp_path / "p.npz", "w") as archive:
        archive.writestr("ids.npy", member)
    with pytest.raises(HarnessError, match="not a valid NPZ file"):
        read_classification(tmp_path / "p.npz", ["a"], 3)


def test_an_npz_that_states_a_huge_array_is_refused_before_it_is_allocated(tmp_path: Path) -> None:
    path = tmp_path / "logits.npz"
    write_classification(path, ["a"], np.zeros((1, 4)))
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    header = members["logits.npy"].replace(b"(1, 4), }" + b" " * 12, b"(9999999999999, 4), }")  # same length
    assert header != members["logits.npy"]
    for content in (header, members["logits.npy"] + b"\0" * (2 << 20)):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("ids.npy", members["ids.npy"])
            archive.writestr("logits.npy", content)
        with pytest.raises(HarnessError, match="logits states"):
            read_classification(path, ["a"], 4)


def test_writing_leaves_no_temporary_file_behind(tmp_path: Path) -> None:
    write_detections(tmp_path / "new" / "results.json", [box()])
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["results.json"]
    assert json.loads((tmp_path / "new" / "results.json").read_text()) == [box()]
