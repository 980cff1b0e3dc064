"""What a study's report says of corrupted images and training images, and that it is silent where there are none."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tests_support import document

from harness.board.records import Protocol, Provenance, Record, TaskResult, hash_arrays, write_record
from harness.board.schema import Robustness, TrainGap
from harness.evaluation import classification
from harness.evaluation.classification import ClassificationResult
from harness.evaluation.draws import draw_weights
from harness.evaluation.drops import mean_drop, train_gap
from harness.evaluation.resampling import holm
from harness.studies.page import html, markdown, write
from harness.studies.report import report
from harness.studies.spec import Arm, Study, arms_of, load_study

CARD = "shapes-classification"
IMAGES = 300


def study(folder: Path, seeds: list[int]) -> tuple[Study, dict[str, Arm]]:
    raw = document()
    raw["tasks"] = [task for task in raw["tasks"] if task["dataset"] == CARD]
    (folder / "base.yaml").write_text(yaml.safe_dump(raw))
    arms = {"plain": {"model.placeholders.count": 0}, "tokens": {}}
    content = {"name": "tiny", "base": "base.yaml", "seeds": seeds, "baseline": "plain", "arms": arms}
    (folder / "study.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    loaded = load_study(folder / "study.yaml")
    return loaded, arms_of(loaded, folder / "study.yaml")


def result(share: float, stream: list[int], prefix: str = "") -> ClassificationResult:
    """Marks that are random, the same for a stream; of a larger share the same images are right and more."""
    labels = np.arange(IMAGES) % 3
    right = np.random.default_rng(stream).random(IMAGES) < share
    ids = [f"{prefix}{number:05d}" for number in range(IMAGES)]
    return classification.evaluate(labels, np.where(right, labels, (labels + 1) % 3), ids, ["a", "b", "c"])


def add(board: Path, arm: Arm, seed: int, shares: dict[str, float], **changes: Any) -> Record:
    """A record with shares of right images: `clean`, and as far as they are given `fog`, `jpeg` and `train`."""
    clean = result(shares["clean"], [seed, 1])
    digest = "0" * 64
    protocol = Protocol(
        card=CARD, card_version="1", split="val", images=digest, annotations=digest, metric="top1", metric_version=1
    )
    task = TaskResult(
        task="classification", protocol=protocol, main="top1", metrics=clean.reduce(), per_class=clean.per_class(),
        images=IMAGES, statistics=hash_arrays(clean.statistics),
    )  # fmt: skip
    if "fog" in shares:
        drop = mean_drop(clean, [result(shares[kind], [seed, 2, n]) for n, kind in enumerate(("fog", "jpeg"))])
        made = Robustness(
            version=1, kinds=["fog", "jpeg"], severities=[3], values={"fog": drop.values[:1], "jpeg": drop.values[1:]},
            drop=drop.drop, low=drop.interval.low, high=drop.interval.high, relative=drop.relative,
            draws=drop.draws.tolist(),
        )  # fmt: skip
        task = task.model_copy(update={"robustness": made})
    if "train" in shares:
        seen = result(shares["train"], [seed, 3], changes.get("prefix", "train-"))
        gap = train_gap(seen, clean)
        kept = hashlib.sha256("\n".join(map(str, seen.ids)).encode()).hexdigest()
        made_gap = TrainGap(
            images=IMAGES, value=seen.reduce()["top1"], gap=gap.gap, low=gap.interval.low, high=gap.interval.high,
            chosen=kept, draws=gap.draws.tolist(),
        )  # fmt: skip
        if changes.get("old"):
            made_gap = made_gap.model_copy(update={"chosen": None, "draws": []})
        task = task.model_copy(update={"train_gap": made_gap})
    names = {"name": arm.submission.name, "fingerprint": arm.submission.fingerprint()}
    record = Record(seed=seed, tasks={CARD: task}, provenance=Provenance(version="1"), **names)
    write_record(board, record, {CARD: clean.statistics})
    return record


def row(rows: list[dict[str, Any]], arm: str) -> dict[str, Any]:
    return next(one for one in rows if one["arm"] == arm)


PLAIN = {"clean": 0.8, "fog": 0.4, "jpeg": 0.5, "train": 0.95}
TOKENS = {"clean": 0.8, "fog": 0.7, "jpeg": 0.75, "train": 0.82}


def test_drops_and_gaps_are_shown_per_arm_and_compared_with_the_baseline(tmp_path: Path) -> None:
    spec, arms = study(tmp_path, [0, 1, 2])
    board = tmp_path / "board"
    found = {
        name: [add(board, arms[name], seed, shares) for seed in (0, 1, 2)]
        for name, shares in (("plain", PLAIN), ("tokens", TOKENS))
    }
    made = report(spec, arms, board, draws=200)
    shown = made["robustness"]
    drops = {name: [one.tasks[CARD].robustness.drop for one in own] for name, own in found.items()}  # type: ignore[union-attr]
    plain, tokens = row(shown["drops"], "plain"), row(shown["drops"], "tokens")
    assert plain["drop"] == pytest.approx(np.mean(drops["plain"]))  # type: ignore[arg-type]
    assert plain["low"] < plain["drop"] < plain["high"]
    assert (plain["hardest"], plain["difference"]) == ("fog", None)  # nothing is compared with itself
    difference = tokens["difference"]
    assert difference["by_seed"] == pytest.approx(np.subtract(drops["tokens"], drops["plain"]))  # type: ignore[arg-type]
    assert difference["value"] == pytest.approx(np.mean(difference["by_seed"]))
    assert difference["low"] < difference["value"] < difference["high"] < 0
    assert difference["verdict"] == "loses less"
    gap = row(shown["gaps"], "tokens")
    assert gap["gap"] == pytest.approx(np.mean([one.tasks[CARD].train_gap.gap for one in found["tokens"]]))  # type: ignore[union-attr]
    assert gap["low"] < gap["gap"] < gap["high"]  # of several seeds, too
    assert (gap["difference"]["verdict"], gap["images"]) == ("smaller", IMAGES)
    page, text = html(made), markdown(made)
    for words in ("On corrupted images", "On training images", "loses less", "2 kinds (fog, jpeg), severities 3"):
        assert words in page
        assert words in text
    assert 'class="forest better"' in page  # losing less is drawn as better
    write(made, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "report.json").read_text())["robustness"] == shown


def test_a_difference_of_gaps_is_paired_over_training_and_evaluation_images(tmp_path: Path) -> None:
    """Under common draws of both, what would be left of two equal networks is nothing; drawn apart it is ±0.08."""
    spec, arms = study(tmp_path, [0])
    board = tmp_path / "board"
    for name, train in (("plain", 0.9), ("tokens", 0.9)):
        add(board, arms[name], 0, {"clean": 0.7, "train": train})
    (one,) = [one for one in report(spec, arms, board, draws=200)["robustness"]["gaps"] if one["arm"] == "tokens"]
    assert (one["difference"]["low"], one["difference"]["high"]) == (0, 0)
    assert one["high"] - one["low"] > 0.1

    for name, train in (("plain", 0.9), ("tokens", 0.8)):
        add(tmp_path / "other", arms[name], 0, {"clean": 0.7, "train": train})
    found = row(report(spec, arms, tmp_path / "other", draws=200)["robustness"]["gaps"], "tokens")["difference"]
    weights = draw_weights(IMAGES, 1000, 0)  # of the training images; the evaluation images' cancel
    drawn = [result(share, [0, 3], "train-").reduce_main(weights) for share in (0.8, 0.9)]
    assert (found["low"], found["high"]) == pytest.approx(tuple(np.quantile(drawn[0] - drawn[1], [0.025, 0.975])))


def test_drops_and_gaps_are_corrected_each_as_a_family(tmp_path: Path) -> None:
    spec, arms = study(tmp_path, [0])
    board = tmp_path / "board"
    add(board, arms["plain"], 0, PLAIN)
    add(board, arms["tokens"], 0, {**TOKENS, "fog": 0.42, "jpeg": 0.52})
    made = report(spec, arms, board, draws=200)
    for rows in (made["robustness"]["drops"], made["robustness"]["gaps"]):
        compared = [one["difference"] for one in rows if one["difference"]]
        assert [one["p_holm"] for one in compared] == holm([one["p_value"] for one in compared])
    alone = made["contrasts"][0]
    assert alone["p_holm"] == alone["p_value"]  # the family of the differences is what it was


def test_without_corruptions_the_report_says_nothing_of_them(tmp_path: Path) -> None:
    spec, arms = study(tmp_path, [0])
    board = tmp_path / "board"
    for name in arms:
        add(board, arms[name], 0, {"clean": 0.8})
    made = report(spec, arms, board, draws=200)
    assert made["robustness"] is None
    for text in (html(made), markdown(made)):
        assert "corrupted" not in text
        assert "raining images" not in text
    assert report(spec, arms, tmp_path / "empty", draws=200)["robustness"] is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prefix": "others-"}, "gaps are not compared: the two were scored on different training images."),
        ({"old": True}, "gaps are not compared: records of before the draws were kept"),
    ],
)
def test_gaps_that_cannot_be_paired_are_shown_and_not_compared(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    spec, arms = study(tmp_path, [0])
    board = tmp_path / "board"
    add(board, arms["plain"], 0, {"clean": 0.7, "train": 0.9})
    add(board, arms["tokens"], 0, {"clean": 0.7, "train": 0.8}, **changes)
    made = report(spec, arms, board, draws=200)
    assert [one["difference"] for one in made["robustness"]["gaps"]] == [None, None]
    assert words in html(made)
    assert words in markdown(made)


def test_an_arm_without_drops_is_named_beside_those_that_have_them(tmp_path: Path) -> None:
    spec, arms = study(tmp_path, [0])
    board = tmp_path / "board"
    add(board, arms["plain"], 0, {"clean": 0.7})
    add(board, arms["tokens"], 0, {"clean": 0.7, "fog": 0.5, "jpeg": 0.5})
    made = report(spec, arms, board, draws=200)["robustness"]
    assert [one["arm"] for one in made["drops"]] == ["tokens"]
    assert made["left_out"] == [f"tokens against plain, {CARD}: drops are not compared: only tokens has them."]
