"""`harness score` on strangers' files: good ones are recorded, a bad one costs one sentence and stores nothing."""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from harness import api
from harness.cards import load_card
from harness.cli import main
from harness.data import open_split
from harness.errors import HarnessError
from harness.evaluation.array_files import read_npz, read_parquet
from harness.evaluation.columns import read_json, read_typed
from harness.evaluation.label_maps import read_png
from harness.evaluation.predictions import read_classification, write_classification

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


def columns(entries: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """The entries as arrays, some of them replaced by a function of themselves."""
    arrays = {key: np.array([one[key] for one in entries]) for key in entries[0]}
    return arrays | {key: change(arrays[key]) for key, change in changes.items()}


def last(value: Any) -> Callable[[Any], Any]:
    """A copy of an array with another last entry."""

    def change(array: Any) -> Any:
        changed = array.astype(np.result_type(array, value))
        changed[-1] = value
        return changed

    return change


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image_id": last(10**9)}, "].image_id: 1000000000 is not an image of the ground truth"),
        ({"category_id": last(77)}, "].category_id: 77 is not a category of the ground truth"),
        ({"image_id": lambda ids: ids.astype(float)}, "image_id: shape [{n}] and dtype float64 where whole numbers"),
        ({"score": last(np.nan)}, "score[{last}]: nan is not finite, or too large"),
        ({"score": last(np.inf)}, "score[{last}]: inf is not finite, or too large"),
        ({"score": lambda scores: scores[:-1]}, "score: shape [{last}] and dtype float64 where numbers [{n}] are"),
        ({"bbox": last(np.nan)}, "bbox[{last}]: nan is not finite, or too large"),
        ({"bbox": lambda boxes: boxes[:, :3]}, "bbox: shape [{n}, 3] and dtype float64 where numbers [{n}, 4] are"),
        ({"bbox": last(-3)}, "has a negative side"),
        ({"bbox": lambda boxes: np.c_[boxes[:, :2], boxes[:, :2] + boxes[:, 2:]]}, "they seem to be corners"),
    ],
)
@pytest.mark.parametrize("ending", ["npz", "parquet"])
def test_bad_boxes_in_arrays(
    score: Score, tmp_path: Path, ending: str, changes: dict[str, Callable[[Any], Any]], words: str
) -> None:
    arrays = columns(boxes(), **changes)
    path = tmp_path / f"boxes.{ending}"
    if ending == "npz":
        np.savez(path, **arrays)
    elif len({len(array) for array in arrays.values()}) == 1:
        pyarrow = pytest.importorskip("pyarrow")
        table = pyarrow.table({key: array.tolist() for key, array in arrays.items()})
        pytest.importorskip("pyarrow.parquet").write_table(table, path)
    else:
        return  # a table's columns have one length
    code, said = score("detection", path)
    number = len(arrays["image_id"])
    expected = words.format(n=number, last=number - 1)
    assert (code, expected in said, said.count("\n")) == (2, True, 1), said
    assert said.startswith(f"error: {path}")


def pickled(path: Path) -> None:
    np.savez(path, **columns(boxes(), score=lambda scores: scores.astype(object)))


def without_scores(path: Path) -> None:
    np.savez(path, **{key: array for key, array in columns(boxes()).items() if key != "score"})


def cut_short(path: Path) -> None:
    np.savez(path, **columns(boxes()))
    path.write_bytes(path.read_bytes()[:-200])


def bomb(path: Path) -> None:
    """Some hundred kilobytes that unpack to gigabytes."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<i8", "fortran_order": False, "shape": (1 << 30,)})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("image_id.npy", header.getvalue())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (pickled, "not a valid NPZ file of plain arrays (score holds Python objects); write it again"),
        (without_scores, "score: this array is required and missing"),
        (cut_short, "not a valid NPZ file of plain arrays"),
        (bomb, "image_id states 8,589,934,592 bytes in a file of 128"),
        (lambda path: path.write_bytes(b""), "not a valid NPZ file of plain arrays"),
    ],
)
def test_bad_npz(score: Score, tmp_path: Path, make: Callable[[Path], Any], words: str) -> None:
    make(tmp_path / "boxes.npz")
    code, said = score("detection", tmp_path / "boxes.npz")
    assert (code, words in said, said.count("\n")) == (2, True, 1), said


def test_bad_parquet(score: Score, tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "boxes.parquet"
    good = {key: array.tolist() for key, array in columns(boxes()).items()}
    for content, words in (
        ({key: values for key, values in good.items() if key != "score"}, "score: this column is required and missing"),
        (good | {"score": [*good["score"][:-1], None]}, "score: holds empty cells; every row needs a value"),
        (good | {"bbox": [*good["bbox"][:-1], [1.0, 2.0]]}, "bbox: holds lists of 2 to 4 numbers; one length"),
    ):
        parquet.write_table(pyarrow.table(content), path)
        code, said = score("detection", path)
        assert (code, words in said, said.count("\n")) == (2, True, 1), said
    parquet.write_table(pyarrow.table(good), path)
    path.write_bytes(path.read_bytes()[:-50])
    code, said = score("detection", path)
    assert (code, "not a valid Parquet file" in said, said.count("\n")) == (2, True, 1), said


def gaps(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use a copy of the data whose category ids are 3, 13, 23 and so on."""
    shutil.copytree(path_of("detection", "annotations").parents[2], cache / "shapes-v1")
    monkeypatch.setenv("HARNESS_CACHE", str(cache))
    path = path_of("detection", "annotations")
    truth = json.loads(path.read_text())
    for entries, key in ((truth["categories"], "id"), (truth["annotations"], "category_id")):
        for n, one in enumerate(entries):
            entries[n] = one | {key: 10 * one[key] + 3}
    written(path, truth)


@pytest.mark.parametrize("ending", ["json", "npz", "parquet"])
@pytest.mark.parametrize("first", [0, 1])
def test_categories_numbered_without_gaps_where_the_ground_truth_has_gaps(
    score: Score, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, first: int
) -> None:
    gaps(tmp_path / "cache", monkeypatch)
    found = boxes()
    place = {known: n for n, known in enumerate(sorted({one["category_id"] for one in found}), start=first)}
    found = [one | {"category_id": place[one["category_id"]]} for one in found]
    path = tmp_path / f"boxes.{ending}"
    if ending == "json":
        written(path, found)
    elif ending == "npz":
        np.savez(path, **columns(found))
    else:
        pyarrow = pytest.importorskip("pyarrow")
        table = pyarrow.table({key: array.tolist() for key, array in columns(found).items()})
        pytest.importorskip("pyarrow.parquet").write_table(table, path)
    code, said = score("detection", path)
    assert (code, said.count("\n")) == (2, 1), said
    assert f"from {first} without gaps, where the ground truth's own ids are required" in said


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


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--name", "my detector"), "name: 'my detector' is not an entry's name; write up to 100 of"),
        (("--name", "a/b"), "name: 'a/b' is not"),
        (("--name", ""), "name: '' is not"),
        (("--name=-x",), "name: '-x' is not"),
        (("--name", "ümlaut"), "name: 'ümlaut' is not"),
        (("--name", "a" * 101), "name: 'aaa"),
        (("--name", "a", "--seed", "9" * 23), f"seed: {'9' * 23} is not an entry's seed; write a whole number from 0"),
    ],
)
def test_a_name_or_seed_that_no_entry_can_have_is_told_before_anything_is_scored(
    words: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    board = tmp_path / "board"
    # Neither card nor predictions are there: neither is looked at.
    monkeypatch.setattr("sys.argv", ["harness", "score", "no-card", "no-file", "--leaderboard", str(board), *words])
    with pytest.raises(SystemExit) as stop:
        main()
    told = capsys.readouterr().err
    assert (stop.value.code, told.count("\n"), board.exists()) == (2, 1, False), told
    assert told.startswith(f"error: {said}"), told


def test_a_name_that_differs_from_another_in_case_only_and_other_numbers_are_refused(
    tiny_suite: Path, tmp_path: Path
) -> None:
    board, card = tmp_path / "board", "shapes-vqa"
    api.score(card, written(tmp_path / "red.json", answers()), "ok1", board=board)
    before = {path: path.read_bytes() for path in board.rglob("*") if path.is_file()}
    with pytest.raises(HarnessError, match="name: 'OK1' differs from 'ok1', which is there, in upper and lower case"):
        api.score(card, tmp_path / "red.json", "OK1", board=board)
    others = [one | {"answer": "yes"} for one in answers()]
    with pytest.raises(HarnessError, match=f"another result of {card}; score under another name, or remove this folde"):
        api.score(card, written(tmp_path / "yes.json", others), "ok1", board=board)
    assert {path: path.read_bytes() for path in board.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("detection", "boxes.json"),
        ("detection", "boxes.npz"),
        ("vqa", "answers.json"),
        ("classification", "labels.csv"),
        ("segmentation", "maps.zip"),
    ],
)
def test_a_pipe_is_no_file_of_predictions(score: Score, tmp_path: Path, task: str, name: str) -> None:
    os.mkfifo(tmp_path / name)
    code, said = score(task, tmp_path / name)
    assert (code, "is a pipe or a device, not a file" in said, said.count("\n")) == (2, True, 1), said


def test_a_pipe_among_label_maps_is_no_label_map(score: Score, tmp_path: Path) -> None:
    folder = label_maps(tmp_path / "maps")
    one = sorted(folder.iterdir())[3]
    one.unlink()
    os.mkfifo(one)
    code, said = score("segmentation", folder)
    assert (code, said.count("\n")) == (2, 1), said
    assert said.startswith(f"error: {one}: is a pipe or a device")


@pytest.mark.parametrize("read", [read_json, read_typed, read_npz, read_parquet, read_classification, read_png])
def test_every_reader_refuses_a_pipe(read: Callable[..., Any], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    arguments: dict[Any, tuple[Any, ...]] = {
        read_json: ("mend",),
        read_typed: (list[int],),
        read_npz: (("a",), 9),
        read_parquet: (("a",), 9, 9),
        read_classification: ([], 2),
        read_png: (("L",),),
    }
    with pytest.raises(HarnessError, match=r"pipe\.csv: is a pipe or a device"):
        read(tmp_path / "pipe.csv", *arguments[read])
