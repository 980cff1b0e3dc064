import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from harness.cards import DatasetCard
from harness.data import open_split
from harness.data.imagenet_devkit import read_synsets
from harness.data.real_labels import real_labels
from harness.errors import HarnessError

# Ids are not in the order of wnids, as in the official kit, and an inner node comes last.
LEAVES = [(1, "n02000000"), (2, "n01000000"), (3, "n03000000")]


def write_meta(path: Path, leaves: list[tuple[int, str]], inner: bool = True, **more: Any) -> None:
    rows = [(number, wnid, 0) for number, wnid in leaves] + [(len(leaves) + 1, "n00001740", 2)] * inner
    synsets = np.zeros((len(rows), 1), dtype=[("ILSVRC2012_ID", "O"), ("WNID", "O"), ("num_children", "O")])
    for row, (number, wnid, children) in enumerate(rows):
        synsets[row, 0] = (float(number), wnid, float(children))
    savemat(path, {"synsets": synsets}, **more)


@pytest.fixture
def card(tmp_path: Path, card_for, write_image) -> DatasetCard:
    for _, wnid in LEAVES:
        write_image(tmp_path / f"train/{wnid}/{wnid}_1.JPEG")
    for number in (1, 2, 3, 4):
        write_image(tmp_path / f"val/ILSVRC2012_val_{number:08d}.JPEG")
    (tmp_path / "truth.txt").write_text("2\n1\n3\n2\n")
    write_meta(tmp_path / "meta.mat", LEAVES)
    val = {"images": "val", "labels": "truth.txt", "synsets": "meta.mat", "real": "real.json"}
    return card_for("imagenet_devkit", {"train": {"images": "train"}, "val": val})


def test_a_flat_folder_gets_the_class_indices_of_the_training_folders(card: DatasetCard) -> None:
    train, val = open_split(card, "train"), open_split(card, "val")
    assert train.classes == val.classes == ("n01000000", "n02000000", "n03000000")
    assert val.ids == [f"ILSVRC2012_val_{n:08d}.JPEG" for n in (1, 2, 3, 4)]
    assert val.labels.tolist() == [0, 1, 2, 0]
    assert (val[2].label, val[2].image.shape) == (2, (6, 8, 3))
    assert train.ids[0] == "n01000000/n01000000_1.JPEG"


def test_both_layouts_of_the_validation_images_give_the_same_classes(tmp_path: Path, card, card_for) -> None:
    flat = open_split(card, "val")
    for sample in list(flat):
        folder = tmp_path / "sorted" / flat.classes[sample.label]
        folder.mkdir(parents=True, exist_ok=True)
        (tmp_path / "val" / sample.id).rename(folder / sample.id)
    sorted_card = card_for("imagefolder", {"train": {"images": "train"}, "val": {"images": "sorted"}})
    folders = open_split(sorted_card, "val")
    assert folders.classes == flat.classes
    found = {name.split("/")[1]: label for name, label in zip(folders.ids, folders.labels.tolist(), strict=True)}
    assert found == dict(zip(flat.ids, flat.labels.tolist(), strict=True))


def test_the_annotation_hash_is_of_the_whole_split(tmp_path: Path, card: DatasetCard) -> None:
    before = open_split(card, "val").annotation_hash()
    assert open_split(card, "val", limit=1).annotation_hash() == before
    assert [path.name for path in open_split(card, "val").ground_truth_files()] == ["truth.txt", "meta.mat"]
    (tmp_path / "truth.txt").write_text("2\n1\n3\n1\n")
    assert open_split(card, "val").annotation_hash() != before


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        ("2\n1\n3\n", r"val: holds 4 images, but .*truth\.txt has 3 lines"),
        ("2\n1\n3\n2\n2\n", r"val: holds 4 images, but .*truth\.txt has 5 lines"),
        ("2\n1\n4\n2\n", r"truth\.txt: line 3: '4' is not the ILSVRC2012_ID of one of the 3 classes"),
        ("2\n0\n3\n2\n", r"line 2: '0' is not the ILSVRC2012_ID"),
        ("2\n-1\n3\n2\n", r"line 2: '-1' is not the ILSVRC2012_ID"),
        ("2\nx\n3\n2\n", r"line 2: 'x' is not the ILSVRC2012_ID"),
    ],
)
def test_a_ground_truth_that_does_not_fit_is_refused(tmp_path: Path, card, truth: str, message: str) -> None:
    (tmp_path / "truth.txt").write_text(truth)
    with pytest.raises(HarnessError, match=message):
        open_split(card, "val")


def test_images_with_a_gap_or_another_name_are_refused(tmp_path: Path, card: DatasetCard, write_image) -> None:
    (tmp_path / "val/ILSVRC2012_val_00000002.JPEG").rename(tmp_path / "val/ILSVRC2012_val_00000009.JPEG")
    with pytest.raises(HarnessError, match=r"val_00000003\.JPEG: number 2 is missing before it"):
        open_split(card, "val")
    (tmp_path / "val/ILSVRC2012_val_00000009.JPEG").rename(tmp_path / "val/cat.JPEG")
    with pytest.raises(HarnessError, match=r"cat\.JPEG: is not named ILSVRC2012_val_<8 digits>\.JPEG; .*'labels'"):
        open_split(card, "val")


def test_a_class_without_training_folder_is_refused(tmp_path: Path, card: DatasetCard) -> None:
    (tmp_path / "train/n03000000/n03000000_1.JPEG").unlink()
    (tmp_path / "train/n03000000").rmdir()
    with pytest.raises(HarnessError, match=r"truth\.txt: line 3: class n03000000 has no folder in .*train"):
        open_split(card, "val")


def test_ground_truth_without_synsets_is_refused(card_for) -> None:
    card = card_for("imagenet_devkit", {"train": {"images": "train"}, "val": {"images": "val", "labels": "truth.txt"}})
    with pytest.raises(HarnessError, match=r"splits\.val\.synsets: the ground truth needs the kit's meta\.mat"):
        open_split(card, "val")


def test_synsets_are_read_compressed_or_not_and_inner_nodes_left_out(tmp_path: Path) -> None:
    for packed in (True, False):
        write_meta(tmp_path / "meta.mat", LEAVES, do_compression=packed)
        assert read_synsets(tmp_path / "meta.mat") == dict(LEAVES)


@pytest.mark.parametrize(
    ("leaves", "message"),
    [
        ([(1, "n01000000"), (1, "n02000000")], "an ILSVRC2012_ID or WNID is missing or twice"),
        ([(1, "n01000000"), (2, "n01000000")], "an ILSVRC2012_ID or WNID is missing or twice"),
        ([(2, "n01000000")], r"'n01000000' with ILSVRC2012_ID 2 is not one of 1 classes numbered from 1"),
        ([(1, "../cat")], r"'\.\./cat' with ILSVRC2012_ID 1 is not"),
    ],
)
def test_synsets_that_contradict_themselves_are_refused(tmp_path: Path, leaves: list, message: str) -> None:
    write_meta(tmp_path / "meta.mat", leaves)
    with pytest.raises(HarnessError, match=r"meta\.mat: synsets: .*" + message):
        read_synsets(tmp_path / "meta.mat")


def test_a_file_that_is_no_development_kit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "meta.mat"
    with pytest.raises(HarnessError, match=r"meta\.mat: cannot be read"):
        read_synsets(path)
    for content in (b"", b"not a mat file", bytes(200)):
        path.write_bytes(content)
        with pytest.raises(HarnessError, match=r"meta\.mat: is not the development kit's meta\.mat"):
            read_synsets(path)
    savemat(path, {"synsets": np.arange(3)})
    with pytest.raises(HarnessError, match=r"meta\.mat: is not the development kit's meta\.mat"):
        read_synsets(path)
    savemat(path, {"other": np.arange(3)})
    with pytest.raises(HarnessError, match=r"meta\.mat: is not the development kit's meta\.mat"):
        read_synsets(path)


def test_a_file_that_unpacks_to_too_much_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    packed = zlib.compress(bytes(100 << 20))
    header = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H2s", 0x0100, b"IM")
    (tmp_path / "meta.mat").write_bytes(header + struct.pack("<II", 15, len(packed)) + packed)
    with pytest.raises(HarnessError, match=r"meta\.mat: .*unpacks to more than 64 MiB"):
        read_synsets(tmp_path / "meta.mat")


def write_real(folder: Path, content: object) -> None:
    (folder / "real.json").write_text(content if isinstance(content, str) else json.dumps(content))


def test_real_labels_are_found_by_the_number_in_the_name(tmp_path: Path, card: DatasetCard) -> None:
    write_real(tmp_path, [[0], [], [1, 2], [2]])
    ids = ["n01/ILSVRC2012_val_00000003.JPEG", "ILSVRC2012_val_00000001.JPEG", "ILSVRC2012_val_00000002.JPEG"]
    assert real_labels(card, "val", ids, 3) == [[1, 2], [0], []]


def test_without_a_real_file_there_are_no_real_labels(card: DatasetCard) -> None:
    assert real_labels(card, "val", ["ILSVRC2012_val_00000001.JPEG"], 3) is None
    assert real_labels(card, "train", ["n01000000/n01000000_1.JPEG"], 3) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([[0], [1], [2]], r"real\.json: has no label set for image 'ILSVRC2012_val_00000004\.JPEG'"),
        ([[0], [3], [2], [1]], r"real\.json: \[1\]: \[3\] is not a list of class indices 0 to 2"),
        ([[0], 1, [2], [1]], r"\[1\]: 1 is not a list of class indices"),
        ([[0], [True], [2], [1]], r"\[1\]: \[True\] is not a list of class indices"),
        ({"a": 1}, "a list with one list of class indices per image is required"),
        ("[[0], [", r"real\.json: is not valid JSON"),
    ],
)
def test_a_wrong_real_file_is_refused(tmp_path: Path, card: DatasetCard, content: object, message: str) -> None:
    write_real(tmp_path, content)
    with pytest.raises(HarnessError, match=message):
        real_labels(card, "val", open_split(card, "val").ids, 3)


def test_a_real_file_of_another_length_than_the_split_is_refused(tmp_path: Path, card_for, card) -> None:
    write_real(tmp_path, [[0]] * 5)
    val = {"images": "val", "labels": "truth.txt", "synsets": "meta.mat", "real": "real.json", "size": 4}
    sized = card_for("imagenet_devkit", {"train": {"images": "train"}, "val": val})
    with pytest.raises(HarnessError, match=r"real\.json: holds 5 label sets, but split val has 4 images"):
        real_labels(sized, "val", open_split(sized, "val").ids, 3)
