"""`harness score` on strangers' files: good ones are recorded, a bad one costs one sentence and stores nothing."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from harness.cards import load_card
from harness.cli import main
from harness.data import open_split
from harness.evaluation.predictions import write_classification

Score = Callable[..., tuple[int, str]]


@pytest.fixture
def score(
    tiny_suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Score:
    """Run ``harness score shapes-TASK FILE``; exit code and what it says."""

    def run(task: str, predictions: Path) -> tuple[int, str]:
        board = tmp_path / "board"
        words = ["score", f"shapes-{task}", str(predictions), "--name", "stranger", "--leaderboard", str(board)]
        monkeypatch.setattr("sys.argv", ["harness", *words])
        with pytest.raises(SystemExit) as stop:
            main()
        stored = board.exists() and any(board.rglob("record.json"))
        assert stored == (not stop.value.code)
        return int(stop.value.code or 0), capsys.readouterr().err

    return run


def split(task: str) -> Any:
    card = load_card(f"shapes-{task}")
    return open_split(card, card.evaluation_split)


def path_of(task: str, field: str) -> Path:
    adapter = split(task)
    return Path(adapter.card.path(adapter.split, field))


def boxes() -> list[dict[str, Any]]:
    truth = json.loads(path_of("detection", "annotations").read_text())
    keys = ("image_id", "category_id", "bbox")
    return [{key: one[key] for key in keys} | {"score": 0.9} for one in truth["annotations"]]


def answers() -> list[dict[str, Any]]:
    asked = json.loads(path_of("vqa", "questions").read_text())["questions"]
    return [{"question_id": one["question_id"], "answer": "red"} for one in asked]


def label_maps(folder: Path) -> Path:
    folder.mkdir()
    for source in sorted(path_of("segmentation", "labels").rglob("*_gtFine_labelIds.png")):
        shutil.copy(source, folder / source.name.replace("_gtFine_labelIds", ""))
    return folder


def written(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_perfect_file_of_each_format_is_recorded(score: Score, tmp_path: Path) -> None:
    found = boxes()
    np.savez(tmp_path / "boxes.npz", **{key: np.array([one[key] for one in found]) for key in found[0]})
    ids, labels = split("classification").ids, split("classification").labels
    csv = "id,label\n" + "".join(f"{i},{n}\n" for i, n in zip(ids, labels, strict=True))
    write_classification(tmp_path / "logits.npz", ids, np.eye(len(split("classification").classes))[labels])
    folder = label_maps(tmp_path / "maps")
    with zipfile.ZipFile(tmp_path / "maps.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, f"results/{path.name}")
    for task, file in (
        ("detection", written(tmp_path / "boxes.json", found)),
        ("detection", tmp_path / "boxes.npz"),
        ("vqa", written(tmp_path / "answers.json", answers())),
        ("classification", written(tmp_path / "labels.csv", csv)),
        ("classification", tmp_path / "logits.npz"),
        ("segmentation", folder),
        ("segmentation", tmp_path / "maps.zip"),
    ):
        shutil.rmtree(tmp_path / "board", ignore_errors=True)
        assert score(task, file) == (0, ""), file
        record = json.loads(next((tmp_path / "board").rglob("record.json")).read_text())
        value = next(iter(record["tasks"].values()))
        if task != "vqa":
            assert value["metrics"][value["main"]] == pytest.approx(1)


def changed(entries: list[dict[str, Any]], **changes: Any) -> list[dict[str, Any]]:
    return [*entries[:-1], entries[-1] | changes]


def to_corners(box: list[float]) -> list[float]:
    return [box[0], box[1], box[0] + box[2], box[1] + box[3]]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: changed(boxes(), image_id=10**9), "image_id: 1000000000 is not an image of the ground truth"),
        (lambda: changed(boxes(), category_id=77), "category_id: 77 is not a category of the ground truth"),
        (lambda: changed(boxes(), score="0.5"), ".score: '0.5' is not a number"),
        (lambda: json.dumps(changed(boxes(), score=float("nan"))), "not valid JSON"),
        (lambda: json.dumps(changed(boxes(), score=float("inf"))), "not valid JSON"),
        (lambda: changed(boxes(), bbox=[1, 2, 3]), ".bbox: [1, 2, 3] is not a list of four numbers"),
        (lambda: changed(boxes(), bbox=[1, 2, -3, 4]), "has a negative side"),
        (lambda: json.dumps(boxes())[:-30], "it may be cut short"),
        (lambda: [one | {"bbox": to_corners(one["bbox"])} for one in boxes()], "they seem to be corners"),
        (lambda: {"annotations": boxes()}, "a list of results is required"),
        (lambda: "", "not valid JSON"),
    ],
)
def test_bad_boxes(score: Score, tmp_path: Path, make: Callable[[], Any], words: str) -> None:
    code, said = score("detection", written(tmp_path / "boxes.json", make()))
    assert (code, words in said, said.count("\n")) == (2, True, 1), said
    assert said.startswith(f"error: {tmp_path / 'boxes.json'}")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: answers()[:-1], "questions have no answer; the first is question"),
        (lambda: [*answers(), answers()[0]], "appears twice; answer each question once"),
        (lambda: changed(answers(), question_id=-1), "question_id: -1 is not a question of the ground truth"),
        (lambda: changed(answers(), answer=None), ".answer: None is not text"),
        (lambda: json.dumps(answers())[:-9], "it may be cut short"),
    ],
)
def test_bad_answers(score: Score, tmp_path: Path, make: Callable[[], Any], words: str) -> None:
    code, said = score("vqa", written(tmp_path / "answers.json", make()))
    assert (code, words in said, said.count("\n")) == (2, True, 1), said
    assert said.startswith(f"error: {tmp_path / 'answers.json'}")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows[:-1], "images have no prediction, the first is"),
        (lambda rows: [*rows, rows[-1]], "appears twice; predict each image once"),
        (lambda rows: [*rows, ["none.png", "1"]], "id 'none.png' is not an image of the data set"),
        (lambda rows: [*rows[:-1], [rows[-1][0], "99"]], "label '99' is not a class index"),
        (lambda rows: [["image", "class"], *rows[1:]], "line 1: the header must be id,label"),
    ],
)
def test_bad_classes(score: Score, tmp_path: Path, change: Callable[[Any], Any], words: str) -> None:
    rows = [["id", "label"], *([one, "1"] for one in split("classification").ids)]
    code, said = score(
        "classification", written(tmp_path / "labels.csv", "".join(f"{','.join(row)}\n" for row in change(rows)))
    )
    assert (code, words in said, said.count("\n")) == (2, True, 1), said


def one_of(folder: Path) -> Path:
    return sorted(folder.iterdir())[-1]


def redraw(folder: Path, image: Image.Image) -> None:
    image.save(one_of(folder))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: one_of(f).unlink(), "1 of 8 frames have no label map"),
        (lambda f: shutil.copy(one_of(f), f / one_of(f).name.replace(".png", "_b.png")), "a second label map of"),
        (lambda f: shutil.copy(one_of(f), f / "berlin.png"), "berlin.png: does not start with the name of a frame"),
        (lambda f: redraw(f, Image.new("L", (32, 64), 7)), "32 x 64 pixels where the ground truth has"),
        (lambda f: redraw(f, Image.new("RGB", (64, 64))), "PNG of mode RGB where L or P is required"),
        (lambda f: redraw(f, Image.new("L", (64, 64), 200)), "the prediction holds the id 200"),
        (lambda f: one_of(f).write_bytes(one_of(f).read_bytes()[:60]), "cannot be decoded"),
        (lambda f: one_of(f).write_bytes(b"GIF89a"), "is not a PNG"),
    ],
)
def test_bad_label_maps(score: Score, tmp_path: Path, change: Callable[[Path], Any], words: str) -> None:
    folder = label_maps(tmp_path / "maps")
    change(folder)
    code, said = score("segmentation", folder)
    assert (code, words in said, said.count("\n")) == (2, True, 1), said


def test_zips_that_escape_or_unpack_to_gigabytes(score: Score, tmp_path: Path) -> None:
    name = one_of(label_maps(tmp_path / "maps")).name
    path = tmp_path / "maps.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"../{name}", b"")
    code, said = score("segmentation", path)
    assert (code, "a path that leaves the ZIP" in said) == (2, True), said
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open(name, "w") as file:
        for _ in range(300):
            file.write(bytes(1 << 20))
    assert path.stat().st_size < 1 << 20
    code, said = score("segmentation", path)
    assert (code, "unpacks to 300 MiB; refused" in said) == (2, True), said
    path.write_bytes(b"no zip")
    code, said = score("segmentation", path)
    assert (code, "not a valid ZIP file" in said) == (2, True), said


def test_a_file_that_is_not_there(score: Score, tmp_path: Path) -> None:
    code, said = score("detection", tmp_path / "none.json")
    assert (code, said) == (2, f"error: {tmp_path / 'none.json'}: no such file or folder\n")
