import pickle
from pathlib import Path

import pytest

from harness.cards import load_card
from harness.data import ADAPTERS, open_split
from harness.errors import HarnessError
from harness.registry import look_up

SUITE = ("shapes-classification", "shapes-detection", "shapes-segmentation", "shapes-vqa")


def test_every_adapter_can_be_imported_and_reads_the_task_that_it_says() -> None:
    tasks = {name: look_up(ADAPTERS, name, "adapter").task for name in ADAPTERS}
    assert tasks == dict.fromkeys(("imagefolder", "imagenet_devkit", "cifar", "pets"), "classification") | {
        "coco": "detection",
        "voc": "detection",
        "cityscapes": "segmentation",
        "label_maps": "segmentation",
        "vqa": "vqa",
    }


def test_an_unknown_split_is_refused_with_the_nearest(card_for) -> None:
    card = card_for("imagefolder", {"train": {"images": "a"}, "val": {"images": "a"}})
    with pytest.raises(HarnessError, match=r"card tiny: splits: there is no split 'vall'; did you mean 'val'\?"):
        open_split(card, "vall")


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused(card_for, limit: int) -> None:
    with pytest.raises(HarnessError, match=f"limit: {limit} is not usable"):
        open_split(card_for("imagefolder", {"train": {"images": "a"}}), "train", limit)


@pytest.mark.parametrize("name", SUITE)
def test_a_missing_suite_says_how_to_make_it(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    with pytest.raises(HarnessError, match=f"card {name}: .* is missing; run: harness data make shapes"):
        open_split(load_card(name), "train")


@pytest.mark.parametrize("name", SUITE)
def test_the_suites_cards_open_every_split(name: str, suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(suite.parent))
    card = load_card(name)
    for split, size in (("train", 400), ("val", 80), ("test", 240)):
        data = open_split(card, split)
        assert data.task == card.task
        assert len(data) == len(data.ids) == size
        assert len(open_split(card, split, limit=7)) == 7
        for index in range(0, size, 37):
            sample = data[index]
            assert sample.id == data.ids[index]
            assert sample.image.shape == (64, 64, 3)
        copy = pickle.loads(pickle.dumps(data))  # what a loader process gets where there is no fork
        assert (copy[1].image == data[1].image).all()
        assert data.classes == open_split(card, "train").classes


@pytest.mark.parametrize("name", ["imagenet-mini", "coco-mini", "camvid-mini", "daquar-mini"])
def test_the_small_real_data_open_whole_and_have_the_size_of_their_card(name: str) -> None:
    card = load_card(name)
    try:
        for split in card.splits:
            card.require(card.path(split, "images"), "the images")
    except HarnessError as missing:
        pytest.skip(str(missing))
    for split, entry in card.splits.items():
        data = open_split(card, split)
        samples = [data[index] for index in range(len(data))]
        assert entry.size == (sum(len(s.questions) for s in samples) if card.task == "vqa" else len(samples))
        assert all(s.image.ndim == 3 for s in samples)
        assert data.classes == open_split(card, "train").classes
