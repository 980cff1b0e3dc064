import pickle
from pathlib import Path

import numpy as np
import pytest

from harness.cards import DatasetCard
from harness.data.cifar import Cifar
from harness.errors import HarnessError

TEN = [f"class {n}" for n in range(10)]
HUNDRED = [f"class {n:02d}" for n in range(100)]


def write_records(path: Path, labels: list[tuple[int, ...]], seed: int = 0) -> np.ndarray:
    """Records of label bytes and 32 x 32 pixels, channel by channel; returns the pixels [N, 32, 32, 3]."""
    pixels = np.random.default_rng(seed).integers(0, 256, (len(labels), 32, 32, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        b"".join(bytes(label) + image.transpose(2, 0, 1).tobytes() for label, image in zip(labels, pixels, strict=True))
    )
    return pixels


@pytest.fixture
def card(tmp_path: Path, card_for) -> DatasetCard:
    for number in (1, 2, 10):
        write_records(tmp_path / f"data_batch_{number}.bin", [(number % 10,), (3,)], number)
    write_records(tmp_path / "test_batch.bin", [(0,), (9,), (5,)], 9)
    (tmp_path / "batches.meta.txt").write_text("\n".join(TEN) + "\n\n")  # the official file ends in a blank line
    names = {"labels": "batches.meta.txt"}
    return card_for(
        "cifar",
        {"train": {"images": "data_batch_{1..2}.bin"} | names, "val": {"images": "data_batch_*.bin"} | names}
        | {"test": {"images": "test_batch.bin"} | names},
    )


def test_several_files_are_read_in_the_order_of_the_range(tmp_path: Path, card: DatasetCard) -> None:
    data = Cifar(card, "train")
    assert data.ids == ["data_batch_1/00000", "data_batch_1/00001", "data_batch_2/00000", "data_batch_2/00001"]
    assert data.labels.tolist() == [1, 3, 2, 3]
    assert data.classes == tuple(TEN)
    assert [path.name for path in data.ground_truth_files()] == ["data_batch_1.bin", "data_batch_2.bin"]
    assert Cifar(card, "val").ids[2] == "data_batch_10/00000"  # a star's files are in the order of their names


def test_pixels_are_rgb_in_rows_and_may_be_written_into(tmp_path: Path, card: DatasetCard) -> None:
    expected = write_records(tmp_path / "data_batch_2.bin", [(2,), (3,)], 5)
    sample = Cifar(card, "train")[3]
    assert (sample.id, sample.label) == ("data_batch_2/00001", 3)
    np.testing.assert_array_equal(sample.image, expected[1])
    assert sample.image.flags.writeable
    assert sample.image.flags.c_contiguous
    assert type(sample.image) is np.ndarray
    np.testing.assert_array_equal(Cifar(card, "train", limit=3)[-1].image, expected[0])


def test_cifar_100_takes_the_fine_label(tmp_path: Path, card_for) -> None:
    pixels = write_records(tmp_path / "train.bin", [(19, 99), (0, 42)])
    (tmp_path / "fine_label_names.txt").write_text("\n".join(HUNDRED))
    data = Cifar(card_for("cifar", {"train": {"images": "train.bin", "labels": "fine_label_names.txt"}}), "train")
    assert data.labels.tolist() == [99, 42]
    assert data.classes[42] == "class 42"
    np.testing.assert_array_equal(data[1].image, pixels[1])


def test_a_worker_process_gets_no_pixels(card: DatasetCard) -> None:
    assert len(pickle.dumps(Cifar(card, "test"))) < 3072
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(Cifar(card, "test")))[2].image, Cifar(card, "test")[2].image
    )


def test_the_annotation_hash_follows_the_labels_of_the_whole_split(tmp_path: Path, card: DatasetCard) -> None:
    before = Cifar(card, "test").annotation_hash()
    assert Cifar(card, "test", limit=1).annotation_hash() == before
    write_records(tmp_path / "test_batch.bin", [(0,), (9,), (5,)], 77)
    assert Cifar(card, "test").annotation_hash() == before
    write_records(tmp_path / "test_batch.bin", [(0,), (9,), (6,)], 9)
    assert Cifar(card, "test").annotation_hash() != before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"x" * 3072, r"test_batch\.bin: 3,072 bytes are not a whole number of CIFAR-10 records of 3,073 bytes; fetch"),
        (b"", r"0 bytes are not a whole number of CIFAR-10 records"),
        (bytes(3074 * 2), r"6,148 bytes are .*CIFAR-10 .* 3,073 bytes; it holds CIFAR-100's, correct the card"),
        (b"\x0a" + bytes(3072), r"test_batch\.bin: record 0: label 10 is not a class \(0 to 9 in .*batches\.meta\.txt"),
    ],
)
def test_a_file_that_is_not_of_records_is_refused(tmp_path: Path, card, content: bytes, message: str) -> None:
    (tmp_path / "test_batch.bin").write_bytes(content)
    with pytest.raises(HarnessError, match=message):
        Cifar(card, "test")


def test_cifar_10_named_as_cifar_100_is_told(tmp_path: Path, card: DatasetCard) -> None:
    (tmp_path / "batches.meta.txt").write_text("\n".join(HUNDRED))
    with pytest.raises(HarnessError, match=r"whole number of CIFAR-100 records of 3,074 bytes; it holds CIFAR-10's"):
        Cifar(card, "test")


def test_a_names_file_of_another_length_is_refused(tmp_path: Path, card: DatasetCard) -> None:
    (tmp_path / "batches.meta.txt").write_text("\n".join([*TEN, "bird"]))
    with pytest.raises(HarnessError, match=r"batches\.meta\.txt: lists 11 different classes, CIFAR has 10 or 100"):
        Cifar(card, "test")


def test_missing_files_are_named(tmp_path: Path, card: DatasetCard) -> None:
    (tmp_path / "data_batch_2.bin").unlink()
    with pytest.raises(HarnessError, match=r"the image file .*data_batch_2\.bin is missing; make it"):
        Cifar(card, "train")
    for path in tmp_path.glob("data_batch_*"):
        path.unlink()
    with pytest.raises(HarnessError, match=r"splits\.val\.images: no file matches 'data_batch_\*\.bin'; make it"):
        Cifar(card, "val")
    (tmp_path / "batches.meta.txt").unlink()
    with pytest.raises(HarnessError, match=r"the file of class names .*batches\.meta\.txt is missing"):
        Cifar(card, "test")
