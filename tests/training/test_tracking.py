"""Weights & Biases: what an offline run holds, read back from its file, and that its troubles stop no run."""

from __future__ import annotations

import json
import struct
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wandb
import yaml
from PIL import Image
from tests_support import document
from wandb.proto import wandb_internal_pb2

from harness import api
from harness.board.gallery import read_gallery
from harness.board.records import Record, read_records, read_statistics
from harness.cards import load_card
from harness.data import open_split
from harness.evaluation.predictions import read_classification
from harness.gallery import GAP, make_gallery
from harness.training.publishing import examples
from harness.training.tracking import Tracker

BLOCK = 32768  # of LevelDB's log format, in which W&B writes its records


def submitted(folder: Path, mode: str, dataset: int = 0) -> Record:
    content = document(0, steps=4) | {"name": "small", "tracking": {"wandb": mode}}
    content["tasks"] = [content["tasks"][dataset]]
    kind = content["tasks"][0]["dataset"].removeprefix("shapes-")
    content["model"]["heads"] = {kind: content["model"]["heads"].get(kind, {})}
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(content))
    (record,) = api.submit(path, board=folder / "board", runs=folder / "runs")
    return record


def logged(file: Path) -> Iterator[Any]:
    """The records of a ``.wandb`` file, parsed by W&B's own protocol."""
    raw = file.read_bytes()
    assert raw[:4] == b":W&B"
    place, parts = 7, b""
    while place + 7 <= len(raw):
        if BLOCK - place % BLOCK < 7:
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", raw[place : place + 7])
        parts += raw[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            yield record
            parts = b""


def contents(run: Path) -> dict[str, dict[str, list[Any]]]:
    """What an offline run holds, by kind: config, summary and history, every value that a key ever had."""
    (file,) = run.glob("wandb/offline-run-*/run-*.wandb")
    found: dict[str, dict[str, list[Any]]] = {kind: defaultdict(list) for kind in ("config", "summary", "history")}
    for record in logged(file):
        for kind, items in (
            ("config", [*record.run.config.update, *record.config.update]),
            ("summary", record.summary.update),
            ("history", record.history.item),
        ):
            for item in items:
                key = item.key or "/".join(item.nested_key)
                found[kind][key].append(json.loads(item.value_json))
    return found


@pytest.fixture(scope="module", params=range(4), ids=["classification", "detection", "segmentation", "vqa"])
def offline(
    request: pytest.FixtureRequest, tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Record]:
    """A folder with a board and an offline run of one task, and its record."""
    folder = tmp_path_factory.mktemp("offline")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_CACHE", str(tiny_cache))
        return folder, submitted(folder, "offline", request.param)


def test_an_offline_run_holds_what_the_board_shows(offline: tuple[Path, Record]) -> None:
    folder, record = offline
    (card,) = record.tasks
    task = record.tasks[card]
    found = contents(folder / "runs" / f"{record.fingerprint}-seed0")
    assert found["config"]["training"][-1]["steps"] == 4
    assert set(found["config"]["name"]) == {"small"}

    summary = {key: values[-1] for key, values in found["summary"].items()}
    interval = read_statistics(folder / "board", record)[card].interval()
    assert summary["record/id"] == record.id
    assert summary[f"{card}/{task.main}"] == task.value
    assert summary[f"{card}/{task.main}/low"] == pytest.approx(interval.low)
    assert summary[f"{card}/{task.main}/high"] == pytest.approx(interval.high)
    assert summary["cost/parameters"] == record.cost.parameters

    for name, curve in record.curves.items():
        if name in found["history"]:
            assert found["history"][name] == pytest.approx([value for _, value in curve])
    assert set(record.curves) <= set(found["history"])

    run = next((folder / "runs" / f"{record.fingerprint}-seed0").glob("wandb/offline-run-*"))
    (path,) = found["history"]["tables/metrics/path"]
    table = json.loads((run / "files" / path).read_text())
    assert table["columns"] == ["card", "metric", "value", "low", "high"]
    assert [row[1:3] for row in table["data"]] == [[key, value] for key, value in task.metrics.items()]


def shown(folder: Path, record: Record) -> list[tuple[str, Image.Image]]:
    """Captions and pictures that W&B has of a run of one task."""
    (card,) = record.tasks
    run = next((folder / "runs" / f"{record.fingerprint}-seed0").glob("wandb/offline-run-*"))
    history = contents(run.parent.parent)["history"]
    (captions,), (files,) = history[f"examples/{card}/captions"], history[f"examples/{card}/filenames"]
    return [(one, Image.open(run / "files" / name)) for one, name in zip(captions, files, strict=True)]


def test_w_and_b_has_the_boards_pictures_with_ground_truth_and_prediction_beside_each_other(
    offline: tuple[Path, Record],
) -> None:
    folder, record = offline
    (card,) = record.tasks
    gallery = read_gallery(folder / "board", record)
    assert gallery is not None
    sheet = gallery.sheets[card]
    whole = Image.open(folder / "board" / "records" / record.id / f"{card}.webp").convert("RGB")
    pictures = shown(folder, record)
    assert len(pictures) == len(sheet.examples) >= 4
    for (caption, picture), example in zip(pictures, sheet.examples, strict=True):
        expected = whole.crop((0, example.y, example.width, example.y + example.height))
        assert np.array_equal(picture, expected)
        assert caption.startswith(f"{example.side}: {example.id}, ")
        assert {"ground truth", "prediction"} <= {line.partition(": ")[0] for line in caption.splitlines()}
        if card in ("shapes-detection", "shapes-segmentation"):
            assert "image | ground truth | prediction" in caption.splitlines()
            width = (picture.width - 2 * GAP) // 3
            image, truth, prediction = (
                np.asarray(picture, int)[:, left : left + width] for left in (n * (width + GAP) for n in range(3))
            )
            assert np.abs(truth - image).max() > 60  # drawn upon, beyond what the compression does
            assert np.abs(prediction - truth).max() > 60  # four steps teach nobody anything


def test_captions_say_what_the_predictions_file_says(offline: tuple[Path, Record], tiny_suite: Path) -> None:
    folder, record = offline
    (card,) = record.tasks
    adapter = open_split(load_card(card), "test")
    place = folder / "runs" / f"{record.fingerprint}-seed0" / "predictions"
    for caption, _ in shown(folder, record):
        first, *lines = caption.splitlines()
        name, _, value = first.partition(": ")[2].rpartition(", ")
        if card == "shapes-classification":
            scores = read_classification(place / f"{card}.npz", adapter.ids, len(adapter.classes))
            found, label = int(scores[adapter.ids.index(name)].argmax()), adapter[adapter.ids.index(name)].label
            assert lines[0] == f"ground truth: {adapter.classes[label]}"
            assert lines[1].startswith(f"prediction: {adapter.classes[found]} (")
            assert value == ("100.00%" if found == label else "0.00%")
        if card == "shapes-vqa":
            answers = {one["question_id"]: one["answer"] for one in json.loads((place / f"{card}.json").read_bytes())}
            sample = adapter[adapter.ids.index(name)]
            asked = {
                (f"question: {question}", f"prediction: {answers[int(number)]}")
                for number, question in zip(sample.question_ids, sample.questions, strict=True)
            }
            assert set(zip(lines[::3], lines[2::3], strict=True)) <= asked


def test_without_a_gallery_no_picture_leaves_the_machine(tiny_suite: Path, offline: tuple[Path, Record]) -> None:
    folder, record = offline
    (card,) = record.tasks
    adapter = open_split(load_card(card), "test")
    (path,) = (folder / "runs" / f"{record.fingerprint}-seed0" / "predictions").glob(f"{card}*")
    result = read_statistics(folder / "board", record)[card]
    assert list(examples(make_gallery({card: (adapter, path, result)}))) == [f"examples/{card}"]
    adapter.card = adapter.card.model_copy(update={"redistributable": False})
    assert examples(make_gallery({card: (adapter, path, result)})) == {}


def broken(*_: Any, **__: Any) -> Any:
    raise OSError("no space left on device")


def test_a_run_goes_on_when_w_and_b_cannot_start(
    tiny_suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wandb, "init", broken)
    with pytest.warns(UserWarning, match="W&B logging stopped"):
        record = submitted(tmp_path, "offline")
    assert read_records(tmp_path / "board") == [record]


def test_a_run_goes_on_when_w_and_b_fails_in_the_end(
    tiny_suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wandb, "Table", broken)
    with pytest.warns(UserWarning, match="no space left on device"):
        record = submitted(tmp_path, "offline")
    assert read_records(tmp_path / "board") == [record]


def test_a_run_that_w_and_b_closed_is_logged_no_further_without_an_error(tmp_path: Path) -> None:
    tracker = Tracker("offline", tmp_path, "some-run", "some run", {"a": 1})
    wandb.finish()
    with pytest.warns(UserWarning, match="W&B logging stopped"):
        tracker.log(1, {"loss": 1.0})
    tracker.log(2, {"loss": 0.5})


def test_online_without_a_key_is_offline_and_asks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setattr("builtins.input", broken)
    tracker = Tracker("online", tmp_path, "some-run", "some run", {"a": 1})
    tracker.log(1, {"loss": 1.0})
    wandb.finish()
    assert list(tmp_path.glob("wandb/offline-run-*"))
