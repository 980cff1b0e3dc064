from pathlib import Path

import pytest
import yaml

from harness.cards import METRIC_OF_TASK, DatasetCard, cache_directory, card_paths, load_card, shipped
from harness.data import KEYS
from harness.documents import parse
from harness.errors import HarnessError

SHIPPED = sorted(path.stem for path in shipped("datasets").glob("*.yaml"))
CARD = {
    "name": "mine",
    "version": "1",
    "title": "Mine",
    "task": "detection",
    "adapter": "coco",
    "splits": {"train": {"images": "a", "annotations": "a.json"}, "val": {"images": "b", "annotations": "b.json"}},
    "license": "CC0",
    "how_to_get": "draw it",
}


def write(folder: Path, **changes: object) -> Path:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in (CARD | changes).items() if v is not None}))
    return path


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_card_loads_and_says_how_to_get_its_data(name: str) -> None:
    card = load_card(name)
    assert card.name == name
    assert card.how_to_get
    assert card.license
    assert all(split.size for split in card.splits.values())


def test_there_is_a_full_scale_an_embedded_and_a_small_card_for_every_task() -> None:
    tasks: dict[str, set[str]] = {}
    for name in SHIPPED:
        tasks.setdefault(load_card(name).task, set()).add(name)
    assert tasks == {
        "classification": {"imagenet", "imagenet-devkit", "cifar10", "cifar100", "pets"}
        | {"imagenet-mini", "shapes-classification"},
        "detection": {
            "coco2014",
            "coco2017",
            "voc2007-detection",
            "voc2012-detection",
            "coco-mini",
            "shapes-detection",
        },
        "segmentation": {"ade20k", "camvid", "cityscapes", "voc2012-segmentation", "camvid-mini"}
        | {"shapes-segmentation"},
        "vqa": {"vqa2", "daquar-mini", "shapes-vqa"},
    }


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_card_states_its_metric_and_the_keys_that_its_adapter_reads(name: str) -> None:
    card = load_card(name)
    assert card.metric == METRIC_OF_TASK[card.task]
    words = KEYS[card.adapter].replace("(", "").replace(")", "").split()
    for split in card.splits.values():
        stated = split.model_fields_set - {"images", "size", "objects"}
        assert stated <= set(words)


@pytest.mark.parametrize("name", [name for name in SHIPPED if "mini" not in name])
def test_nothing_is_selected_on_the_split_that_is_scored_where_the_data_has_another(name: str) -> None:
    card = load_card(name)
    has_public_test = "test" in card.splits
    assert (card.selection_split != card.evaluation_split) == has_public_test
    assert (card.evaluation_split == "test") == has_public_test


@pytest.mark.parametrize(
    ("name", "sizes", "objects"),
    [
        ("imagenet", [1281167, 50000], []),
        ("imagenet-devkit", [1281167, 50000], []),
        ("cifar10", [40000, 10000, 10000], []),
        ("cifar100", [50000, 10000], []),
        ("pets", [3680, 3669], []),
        ("coco2014", [82783, 40504], [604907, 291875]),
        ("coco2017", [118287, 5000], [860001, 36781]),
        ("voc2007-detection", [2501, 2510, 4952], []),
        ("voc2012-detection", [5717, 5823], []),
        ("voc2012-segmentation", [1464, 1449], []),
        ("camvid", [367, 101, 233], []),
        ("ade20k", [20210, 2000], []),
        ("cityscapes", [2975, 500], []),
        ("vqa2", [443757, 214354], []),
    ],
)
def test_the_cards_state_the_official_counts(name: str, sizes: list[int], objects: list[int]) -> None:
    splits = load_card(name).splits.values()
    assert [split.size for split in splits] == sizes
    assert [split.objects for split in splits if split.objects] == objects


def test_coco_has_as_many_images_and_objects_in_both_editions() -> None:
    old, new = ([*load_card(name).splits.values()] for name in ("coco2014", "coco2017"))
    assert sum(split.size or 0 for split in old) == sum(split.size or 0 for split in new)
    assert sum(split.objects or 0 for split in old) == sum(split.objects or 0 for split in new)


@pytest.mark.parametrize(
    ("name", "evaluated", "ignored"),
    [
        ("ade20k", range(1, 151), [0]),
        ("camvid", range(11), [11]),
        ("voc2012-segmentation", range(21), [255]),
        ("voc2007-detection", range(1, 21), []),
        ("voc2012-detection", range(1, 21), []),
    ],
)
def test_the_label_maps_have_the_official_ids(name: str, evaluated: range, ignored: list[int]) -> None:
    classes = load_card(name).classes
    assert [c.id for c in classes if c.evaluated] == list(evaluated)
    assert [c.id for c in classes if not c.evaluated] == ignored
    assert len({c.name for c in classes}) == len(classes)


def test_the_pascal_voc_cards_agree_on_their_classes() -> None:
    first, second, maps = (
        [(c.id, c.name) for c in load_card(name).classes]
        for name in ("voc2007-detection", "voc2012-detection", "voc2012-segmentation")
    )
    assert first == second == maps[1:-1]
    assert [name for _, name in first] == sorted(name for _, name in first)


@pytest.mark.parametrize("name", [name for name in SHIPPED if name.startswith("shapes-")])
def test_the_embedded_suite_selects_on_val_and_scores_on_test(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE", "/cache")
    card = load_card(name)
    assert (card.selection_split, card.evaluation_split) == ("val", "test")
    assert card.redistributable
    assert card.directory.parent == Path("/cache/shapes-v1")
    assert card.how_to_get == "run: harness data make shapes"


def test_the_shapes_card_has_the_label_ids_that_the_suite_draws() -> None:
    from harness.data.shapes.layouts import BACKGROUND_ID, LABEL_IDS, VOID_ID

    classes = {c.name: (c.id, c.evaluated) for c in load_card("shapes-segmentation").classes}
    drawn = {"void": (VOID_ID, False), "background": (BACKGROUND_ID, True)}
    assert classes == drawn | {shape: (number, True) for shape, number in LABEL_IDS.items()}


def test_cityscapes_has_the_official_label_table() -> None:
    classes = load_card("cityscapes").classes
    assert [c.id for c in classes] == list(range(34))
    evaluated = [c.id for c in classes if c.evaluated]
    assert evaluated == [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
    assert [c.name for c in classes if c.has_instances and c.evaluated] == [
        *("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
    ]
    groups = {c.category for c in classes if c.evaluated}
    assert groups == {"flat", "construction", "object", "nature", "sky", "human", "vehicle"}


def test_an_unknown_card_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(HarnessError, match=r"'coco2071' is not a dataset card; did you mean 'coco2017'\?"):
        load_card("coco2071")


def test_a_card_is_found_by_path_in_the_working_folder_and_in_harness_cards_in_rising_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, title in (("datasets", "here"), ("more", "more")):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder, title=title)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HARNESS_CARDS", raising=False)
    assert load_card("mine").title == "here"
    assert load_card("more/mine.yaml").title == "more"
    monkeypatch.setenv("HARNESS_CARDS", str(tmp_path / "more"))
    assert load_card("mine").title == "more"
    assert set(SHIPPED) < set(card_paths())


def test_a_card_whose_name_is_not_its_files_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=r"mine\.yaml: name: 'yours' must equal the file's name 'mine'"):
        load_card(str(write(tmp_path, name="yours")))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "vqa"}, r"adapter: 'coco' reads detection data, but task is 'vqa'"),
        ({"splits": {"val": CARD["splits"]["val"]}}, r"splits: a 'train' split is required"),
        ({"splits": {"train": CARD["splits"]["train"]}}, r"selection_split: 'val' is not among the splits \(train\)"),
        ({"evaluation_split": "test"}, r"evaluation_split: 'test' is not among the splits \(train, val\)"),
        ({"splits": {"train": {"images": "a"}, "val": CARD["splits"]["val"]}}, r"splits\.train\.annotations: the coco"),
        ({"splits": {"train": {"images": "/a"}}}, r"splits\.train: images: '/a' must lie inside the card's root"),
        ({"splits": {"train": {"images": "a/../../b"}}}, r"splits\.train: images: 'a/\.\./\.\./b' must lie inside"),
        (
            {"splits": {"train": {"images": "a", "image_prefix": "../x"}}},
            r"splits\.train: image_prefix: '\.\./x' must lie inside",
        ),
        ({"splits": {"train": {"images": "a", "labls": "b"}}}, r"splits\.train\.labls: unknown key 'labls'; did you"),
        ({"licence": "CC0"}, r"licence: unknown key 'licence'; did you mean 'license'\?"),
        ({"license": None}, r"license: this key is required and missing"),
        ({"name": "../x"}, r"name: "),
        ({"answers": 1}, r"answers: .*greater than 1, got 1"),
        ({"task": "segmentation", "adapter": "cityscapes"}, r"splits\.train\.labels: the cityscapes adapter needs"),
    ],
)
def test_a_wrong_card_is_refused_with_field_and_value(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(HarnessError, match=r"mine\.yaml: " + message) as caught:
        load_card(str(write(tmp_path, **changes)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([], "needs at least one evaluated class"),
        ([{"name": "void", "id": 0, "evaluated": False}], "needs at least one evaluated class"),
        ([{"name": "a", "id": 3}, {"name": "b", "id": 3}], "two classes have the same id"),
        ([{"name": "a", "id": 256}], r"classes\.0\.id: .*256"),
    ],
)
def test_a_label_map_that_cannot_be_used_is_refused(classes: list, message: str) -> None:
    card = CARD | {"task": "segmentation", "adapter": "cityscapes", "classes": classes}
    card["splits"] = {name: {"images": "a", "labels": "b"} for name in ("train", "val")}
    with pytest.raises(HarnessError, match=message):
        parse(DatasetCard, card, "card.yaml")


def test_the_root_needs_its_environment_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = load_card(str(write(tmp_path)))
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    with pytest.raises(HarnessError, match=r"card mine: root: .* needs the environment variable HARNESS_DATA"):
        card.path("train", "images")
    monkeypatch.setenv("HARNESS_DATA", "/data")
    assert card.path("train", "annotations") == Path("/data/mine/a.json")


def test_a_missing_file_is_named_with_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = load_card(str(write(tmp_path)))
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    with pytest.raises(HarnessError, match=r"card mine: the instances file .*mine/a\.json is missing; draw it"):
        card.require(card.path("train", "annotations"), "the instances file")


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HARNESS_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_directory() == tmp_path / "placeholder-harness"
    monkeypatch.setenv("HARNESS_CACHE", "/elsewhere")
    assert cache_directory() == Path("/elsewhere")
