from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from harness.board.gallery import MANIFEST, Gallery, read_gallery
from harness.board.page import verify, write_board
from harness.board.records import read_records, read_statistics, write_record
from harness.cards import load_card
from harness.data import open_split
from harness.errors import HarnessError
from harness.evaluation import classification
from harness.evaluation.predictions import write_classification, write_detections, write_vqa
from harness.gallery import make_gallery
from harness.gallery.choosing import choose
from harness.scoring import record_predictions, score


@pytest.fixture
def suite(tiny_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_CACHE", str(tiny_cache))


def opened(name: str) -> Any:
    card = load_card(name)
    return open_split(card, card.evaluation_split)


def labels_file(path: Path, wrong: set[int]) -> Path:
    """Class predictions that are right but for some images."""
    adapter = opened("shapes-classification")
    scores = np.eye(len(adapter.classes))[np.asarray(adapter.labels)] * 5
    for number in wrong:
        scores[number] = np.roll(scores[number], 1)
    write_classification(path, adapter.ids, scores)
    return path


def test_the_worst_images_are_those_that_were_wrong_and_no_image_is_on_both_sides() -> None:
    labels = np.arange(20) % 4
    predicted = labels.copy()
    predicted[[3, 11]] += 1
    result = classification.evaluate(labels, predicted % 5, [f"{n:02d}" for n in range(20)], [*"abcde"])
    chosen = choose(result)
    assert [(side, value) for side, _, value in chosen] == [("best", 1.0)] * 3 + [("worst", 0.0)] * 2 + [("worst", 1.0)]
    assert {name for _, name, value in chosen if value == 0} == {"03", "11"}
    assert len({name for _, name, _ in chosen}) == 6


def test_an_images_value_is_the_metric_on_this_image_alone(suite: None, tmp_path: Path) -> None:
    adapter = opened("shapes-detection")
    sample = adapter[2]
    box = sample.boxes[0].astype(float)
    found = [
        {"image_id": int(sample.id), "category_id": int(adapter.category_ids[sample.labels[0]]), "score": 0.9,
         "bbox": [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()]}
    ]  # fmt: skip
    write_detections(tmp_path / "found.json", found)
    result = score(adapter, tmp_path / "found.json")
    best = choose(result)[0]
    assert best[:2] == ("best", sample.id)
    classes = len(set(sample.labels.tolist()))
    same = int((sample.labels == sample.labels[0]).sum())
    # One of `same` boxes of a class found and none of the others: recall 1/same of one of the image's classes.
    assert best[2] == pytest.approx(np.floor(100 / same + 1) / 101 / classes, abs=1e-9)


def test_equal_images_are_drawn_by_lot_and_not_in_the_order_of_the_classes() -> None:
    labels = np.repeat(np.arange(5), 40)
    result = classification.evaluate(labels, labels, [f"{n:03d}" for n in range(200)], [*"abcde"])
    assert len({int(name) // 40 for side, name, _ in choose(result) if side == "best"}) > 1


def test_every_task_has_its_pictures_and_says_what_was_asked_and_predicted(suite: None, tmp_path: Path) -> None:
    adapters = {task: opened(f"shapes-{task}") for task in ("classification", "detection", "segmentation", "vqa")}
    write_detections(tmp_path / "detection.json", [])
    questions = adapters["vqa"].question_ids.tolist()
    write_vqa(tmp_path / "vqa.json", questions, ["<b>no</b>"] * len(questions))
    files = {
        "classification": labels_file(tmp_path / "labels.npz", {0}),
        "detection": tmp_path / "detection.json",
        "segmentation": adapters["segmentation"].truth()[0],
        "vqa": tmp_path / "vqa.json",
    }
    truth = {f"{path.name.partition('_gtFine')[0]}.png": path for path in files["segmentation"].rglob("*labelIds.png")}
    (tmp_path / "maps").mkdir()
    for name, path in truth.items():
        (tmp_path / "maps" / name).write_bytes(path.read_bytes())
    files["segmentation"] = tmp_path / "maps"
    made = make_gallery({f"shapes-{task}": (a, files[task], score(a, files[task])) for task, a in adapters.items()})
    gallery = Gallery.model_validate_json(made[MANIFEST])
    assert set(made) == {MANIFEST, *(f"shapes-{task}.webp" for task in adapters)}
    assert sum(map(len, made.values())) < 150_000
    for name, sheet in gallery.sheets.items():
        picture = Image.open(io.BytesIO(made[f"{name}.webp"]))
        assert picture.size == (sheet.width, sheet.height)
        panels = len(sheet.panels)
        assert all(example.width == panels * 128 + (panels - 1) * 4 for example in sheet.examples)
    asked = gallery.sheets["shapes-vqa"].examples[0].lines
    assert [label for label, _ in asked[:3]] == ["question", "ground truth", "prediction"]
    assert asked[2][1] == "<b>no</b>"
    wrong = [e for e in gallery.sheets["shapes-classification"].examples if e.side == "worst" and e.value == 0]
    assert [example.id for example in wrong] == [adapters["classification"].ids[0]]


def test_a_perfect_label_map_is_drawn_like_its_ground_truth(suite: None, tmp_path: Path) -> None:
    adapter = opened("shapes-segmentation")
    for path in adapter.truth()[0].rglob("*labelIds.png"):
        (tmp_path / f"{path.name.partition('_gtFine')[0]}.png").write_bytes(path.read_bytes())
    made = make_gallery({"shapes-segmentation": (adapter, tmp_path, score(adapter, tmp_path))})
    example = Gallery.model_validate_json(made[MANIFEST]).sheets["shapes-segmentation"].examples[0]
    pixels = np.asarray(Image.open(io.BytesIO(made["shapes-segmentation.webp"])).convert("RGB"), dtype=int)
    rows = pixels[example.y : example.y + example.height]
    image, truth, predicted = rows[:, :128], rows[:, 132:260], rows[:, 264:392]
    assert np.abs(truth - predicted).mean() < 4  # but for the losses of the picture's format
    assert np.abs(truth - image).mean() > 20


def test_images_that_may_not_be_shown_are_not(suite: None, tmp_path: Path) -> None:
    adapter = opened("shapes-classification")
    path = labels_file(tmp_path / "labels.npz", set())
    adapter.card = adapter.card.model_copy(update={"redistributable": False})
    assert make_gallery({"shapes-classification": (adapter, path, score(adapter, path))}) == {}


def test_predictions_that_are_handed_in_have_pictures_and_a_limited_run_has_none(suite: None, tmp_path: Path) -> None:
    path = labels_file(tmp_path / "labels.npz", {1})
    board = tmp_path / "board"
    record = record_predictions("shapes-classification", path, "mine", 0, board)
    gallery = read_gallery(board, record)
    assert gallery is not None
    assert "shapes-classification" in gallery.sheets
    write_board(board)
    assert verify(board) == []
    page = (board / "index.html").read_text()
    assert f"records/{record.id}/shapes-classification.webp" in page


def test_pictures_that_are_not_those_of_the_manifest_are_not_shown_and_verifying_finds_them(
    suite: None, tmp_path: Path
) -> None:
    board = tmp_path / "board"
    record = record_predictions("shapes-classification", labels_file(tmp_path / "labels.npz", {1}), "mine", 0, board)
    folder = board / "records" / record.id
    picture, manifest = folder / "shapes-classification.webp", folder / MANIFEST
    good, said = picture.read_bytes(), manifest.read_text()

    def refused(match: str) -> None:
        with pytest.raises(HarnessError, match=match):
            read_gallery(board, record)
        write_board(board)
        assert any("gallery" in problem or ".webp" in problem for problem in verify(board))
        assert "pictures of this entry are damaged" in (board / "index.html").read_text()

    picture.write_bytes(good[:-1] + b"x")
    refused("is not the picture that gallery.json names")
    picture.unlink()
    refused("cannot be read")
    picture.symlink_to(tmp_path / "labels.npz")
    refused("is a link")
    picture.unlink()
    picture.write_bytes(good)
    for change, match in (
        (lambda d: d["sheets"]["shapes-classification"]["examples"][0].update(y=16000), "lies outside the picture"),
        (lambda d: d["sheets"].update({"../up": d["sheets"].pop("shapes-classification")}), "gallery.json: sheets"),
        (lambda d: d["sheets"].update({"other": d["sheets"]["shapes-classification"]}), "no task of the record"),
    ):
        document = json.loads(said)
        change(document)
        manifest.write_text(json.dumps(document))
        refused(match)
    manifest.write_text(said)
    write_board(board)
    assert verify(board) == []


def test_pictures_stay_with_the_same_numbers_and_go_with_others(suite: None, tmp_path: Path) -> None:
    board = tmp_path / "board"
    record_predictions("shapes-classification", labels_file(tmp_path / "labels.npz", {1}), "mine", 0, board)
    (record,) = read_records(board)
    arrays = {card: result.statistics for card, result in read_statistics(board, record).items()}
    before = read_gallery(board, record)
    write_record(board, record, arrays)
    assert read_gallery(board, record) == before is not None
    other = record.model_copy(update={"warnings": ["something else"]})
    write_record(board, other, arrays, replace=True)
    assert read_gallery(board, other) is None
