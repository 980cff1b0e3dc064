from __future__ import annotations

import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_oracle import random_data

from harness.errors import HarnessError
from harness.evaluation import detection
from harness.evaluation.detection_predictions import read_detections

SIZES = {1: (100.0, 80.0), 2: (100.0, 80.0)}


def columns(results: list[dict[str, Any]]) -> dict[str, Any]:
    return {key: np.array([result[key] for result in results]) for key in ("image_id", "category_id", "bbox", "score")}


def arrays(**changes: Any) -> dict[str, Any]:
    return {
        "image_id": np.array([1, 2]),
        "category_id": np.array([3, 3]),
        "bbox": np.array([[1, 2, 3, 4], [5, 6, 7, 8.5]]),
        "score": np.array([0.5, 0.25], np.float32),
    } | changes


def save_parquet(path: Path, columns: dict[str, Any]) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({k: list(v) if k == "bbox" else v for k, v in columns.items()}), path)


def test_npz_arrays_give_the_numbers_of_the_same_results_as_json(tmp_path: Path) -> None:
    truth, results = random_data(3, 60, 20)
    np.savez_compressed(tmp_path / "results.npz", **columns(results))
    found = detection.evaluate(truth, tmp_path / "results.npz")
    assert np.array_equal(found.precision, detection.evaluate(truth, results).precision)
    assert found.stats[0] > 0


def test_parquet_columns_give_the_numbers_of_the_same_results_as_json(tmp_path: Path) -> None:
    truth, results = random_data(3, 60, 20)
    save_parquet(tmp_path / "results.parquet", columns(results))
    found = detection.evaluate(truth, tmp_path / "results.parquet")
    assert np.array_equal(found.precision, detection.evaluate(truth, results).precision)


def test_scores_in_float32_keep_their_value(tmp_path: Path) -> None:
    np.savez(tmp_path / "results.npz", **arrays(score=np.array([0.1, 0.2], np.float32)))
    assert read_detections(tmp_path / "results.npz", SIZES, [3]).scores.tolist() == np.float32([0.1, 0.2]).tolist()


def test_no_detections_are_valid(tmp_path: Path) -> None:
    empty = {"image_id": np.empty(0, int), "category_id": np.empty(0, int), "bbox": np.empty((0, 4)), "score": []}
    np.savez(tmp_path / "results.npz", **empty)
    assert read_detections(tmp_path / "results.npz", SIZES, [3]).boxes.shape == (0, 4)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image_id": np.array([1.0, 2])}, "image_id: shape .* dtype float64 where whole numbers"),
        ({"image_id": np.array([[1], [2]])}, r"image_id: shape \[2, 1\]"),
        ({"image_id": np.array(7)}, "image_id: shape"),
        ({"category_id": np.array([3])}, r"category_id: shape \[1\] .* whole numbers \[2\]"),
        ({"image_id": np.array([1, 2**63 + 1], np.uint64)}, r"image_id\[1\]: 9223372036854775809"),
        ({"bbox": np.zeros((2, 5))}, r"bbox: shape \[2, 5\] .* numbers \[2, 4\]"),
        ({"bbox": np.array([["1"] * 4] * 2)}, "bbox: shape .* dtype <U1"),
        ({"bbox": np.array([[0, 0, 1, 1], [0, 0, np.nan, 1]])}, r"bbox\[1\]: nan"),
        ({"bbox": np.array([[0, 0, 1, 1], [0, 0, -1, 1.0]])}, r"row \[1\].bbox: .* negative side"),
        ({"score": np.array([0.5, np.inf])}, r"score\[1\]: inf"),
        ({"score": np.array([True, False])}, "score: shape .* dtype bool"),
        ({"score": np.array([0.5, 1j])}, "score: shape .* dtype complex"),
        ({"image_id": np.array([1, 9])}, r"row \[1\].image_id: 9 is not an image of the ground truth"),
        ({"category_id": np.array([3, 4])}, r"row \[1\].category_id: 4 is not a category"),
    ],
)
def test_bad_arrays_are_refused_in_one_sentence_that_names_the_place(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    path = tmp_path / "results.npz"
    np.savez(path, **arrays(**changes))
    with pytest.raises(HarnessError, match=words) as error:
        read_detections(path, SIZES, [3])
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


def test_a_missing_array_or_file_and_another_kind_of_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.npz"
    with pytest.raises(HarnessError, match="cannot be read"):
        read_detections(path, SIZES, [3])
    np.savez(path, **{k: v for k, v in arrays().items() if k != "score"})
    with pytest.raises(HarnessError, match="score: this array is required and missing"):
        read_detections(path, SIZES, [3])
    path.write_bytes(b"PK\x03\x04 nonsense")
    with pytest.raises(HarnessError, match="not a valid NPZ"):
        read_detections(path, SIZES, [3])


def test_an_npz_that_unpacks_to_gigabytes_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "results.npz"
    header = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little")
    shape = "{'descr': '<i8', 'fortran_order': False, 'shape': (20000000,), }"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("image_id.npy", "w") as file:
        file.write(header + shape.ljust(117).encode() + b"\n")
        for _ in range(160):
            file.write(bytes(1_000_000))
    assert path.stat().st_size < 1_000_000
    with pytest.raises(HarnessError, match="image_id states 160,000,000 bytes in a file of"):
        read_detections(path, SIZES, [3])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"score": [0.5, None]}, "score: holds empty cells"),
        ({"bbox": [[1, 2, 3, 4], [1, 2, 3]]}, "bbox: holds lists of 3 to 4 numbers"),
        ({"bbox": [[1, 2, 3, 4], None]}, "bbox: holds empty cells"),
        ({"bbox": [1.0, 2.0]}, r"bbox: shape \[2\]"),
        ({"image_id": ["a", "b"]}, "image_id: shape .* where whole numbers"),
        ({"image_id": [1, 9]}, r"row \[1\].image_id: 9"),
    ],
)
def test_bad_parquet_columns_are_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    path = tmp_path / "results.parquet"
    save_parquet(path, arrays() | changes)
    with pytest.raises(HarnessError, match=words):
        read_detections(path, SIZES, [3])


def test_a_parquet_file_that_is_broken_lacks_a_column_or_states_too_many_rows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.parquet"
    save_parquet(path, {k: v for k, v in arrays().items() if k != "score"})
    with pytest.raises(HarnessError, match="score: this column is required and missing"):
        read_detections(path, SIZES, [3])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(HarnessError, match="not a valid Parquet file"):
        read_detections(path, SIZES, [3])
    many = np.ones(1_100_000, np.int64)
    save_parquet(path, {"image_id": many, "category_id": many, "score": many, "bbox": np.ones((len(many), 1), np.int8)})
    with pytest.raises(HarnessError, match="1,100,000 rows, and at most"):
        read_detections(path, SIZES, [3])


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(HarnessError, match=r"pip install pyarrow, or write \.npz"):
        read_detections(tmp_path / "results.parquet", SIZES, [3])
