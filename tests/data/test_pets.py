from pathlib import Path

import pytest

from harness.cards import DatasetCard
from harness.data.pets import OxfordPets
from harness.errors import HarnessError

TRAIN = "Abyssinian_100 1 1 1\namerican_bulldog_7 2 2 1\nAbyssinian_2 1 1 1\n"
TEST = "#Image CLASS-ID SPECIES BREED ID\nAbyssinian_3 1 1 1\namerican_bulldog_8 2 2 1\n"


@pytest.fixture
def card(tmp_path: Path, card_for, write_image) -> DatasetCard:
    for line in (TRAIN + TEST).splitlines():
        if not line.startswith("#"):
            write_image(tmp_path / f"images/{line.split()[0]}.jpg")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations/trainval.txt").write_text(TRAIN)
    (tmp_path / "annotations/test.txt").write_text(TEST)
    splits = {"train": "trainval", "test": "test"}
    return card_for("pets", {s: {"images": "images", "names": f"annotations/{f}.txt"} for s, f in splits.items()})


def test_the_class_is_the_breed_in_the_order_of_its_number(card: DatasetCard) -> None:
    data = OxfordPets(card, "train")
    assert data.classes == ("Abyssinian", "american_bulldog")
    assert data.ids == ["Abyssinian_100.jpg", "american_bulldog_7.jpg", "Abyssinian_2.jpg"]
    assert data.labels.tolist() == [0, 1, 0]
    assert data.strata().tolist() == [0, 1, 0]
    assert (data[1].id, data[1].label, data[1].image.shape) == ("american_bulldog_7.jpg", 1, (6, 8, 3))


def test_comments_are_left_out_and_a_limit_keeps_the_classes(card: DatasetCard) -> None:
    data = OxfordPets(card, "test", limit=1)
    assert data.ids == ["Abyssinian_3.jpg"]
    assert data.classes == OxfordPets(card, "train").classes
    assert data.annotation_hash() == OxfordPets(card, "test").annotation_hash()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("Bengal_1 3 1 2\n", r"Bengal_1: class 3 is not in the training list"),
        ("Bengal_1 1 1 2\n", r"Bengal_1: class 1 is 'Abyssinian' in another line"),
        ("Abyssinian_1 2 1 2\n", r"Abyssinian_1: class 2 is 'american_bulldog' in another line, and 'Abyssinian' is"),
        ("Abyssinian_9 1 1 1\n", r"test\.txt: image .*Abyssinian_9\.jpg is missing"),
        ("Abyssinian_3 1 1\n", r"line 1: 'Abyssinian_3 1 1' has 3 words where 4 are required"),
        ("Abyssinian_3 x 1 1\n", r"'Abyssinian_3 x' is not an image named by breed"),
        ("Abyssinian 1 1 1\n", r"'Abyssinian 1' is not an image named by breed"),
        ("../images/Abyssinian_3 1 1 1\n", r"line 1: '\.\./images/Abyssinian_3' does not stay inside"),
        ("Abyssinian_3 1 1 1\nAbyssinian_3 1 1 1\n", r"line 2: 'Abyssinian_3' is in line 1 already"),
        ("# nothing\n", "lists no image"),
    ],
)
def test_a_wrong_list_is_refused(tmp_path: Path, card: DatasetCard, content: str, message: str) -> None:
    (tmp_path / "annotations/test.txt").write_text(content)
    with pytest.raises(HarnessError, match=message):
        OxfordPets(card, "test")


def test_a_missing_list_or_folder_is_named_with_how_to_get_it(tmp_path: Path, card: DatasetCard) -> None:
    (tmp_path / "annotations/trainval.txt").unlink()
    with pytest.raises(HarnessError, match=r"the list of images .*trainval\.txt is missing; make it"):
        OxfordPets(card, "test")
