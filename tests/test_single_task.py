"""Single-task baselines: what they keep of a submission, and the Δm that they make possible."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from tests_support import document

from harness.analysis.subsets import subset
from harness.single_task import fingerprints, single_task, write
from harness.submission import Submission, load_submission

Command = Callable[..., "subprocess.CompletedProcess[str]"]
LEADER = "shapes-segmentation"


def submission(**training: Any) -> Submission:
    raw = document()
    raw["training"] |= training
    return Submission.model_validate(raw)


def test_a_baseline_keeps_backbone_recipe_and_head_and_drops_what_serves_several_tasks() -> None:
    raw = document()
    raw["training"] |= {"balancing": {"name": "manual"}, "regime": {"name": "mt_dnn"}, "accumulation": 2}
    raw["tasks"][1]["weight"] = 3.0
    one = single_task(Submission.model_validate(raw), "shapes-detection")
    assert one.name == "single-shapes-detection-test_resnet"
    assert one.model.placeholders.count == 0
    assert one.model.heads.detection.convolutions == 1  # type: ignore[union-attr]
    assert (one.training.balancing.name, one.training.regime.name) == ("equal", "joint")
    assert (one.training.steps, one.training.accumulation) == (6, 2)
    assert [(task.dataset, task.batch_size, task.flip, task.weight) for task in one.tasks] == [
        ("shapes-detection", 2, 0.5, 1.0)
    ]


def test_a_task_that_follows_another_ones_images_is_fed_alike_alone() -> None:
    raw = document()
    raw["tasks"] = [
        {"dataset": LEADER, "batch_size": 3, "image_size": 64, "flip": 0.5},
        {"dataset": "shapes-vqa", "images_of": LEADER},
    ]
    alone = single_task(Submission.model_validate(raw), "shapes-vqa").tasks[0]
    assert (alone.images_of, alone.batch_size, alone.flip) == (None, 3, 0.5)


def test_submissions_that_differ_in_how_tasks_are_learned_together_have_the_same_baselines() -> None:
    plain, other = submission(), document(count=0)
    other["training"] |= {"balancing": {"name": "uncertainty"}}
    other["tasks"].reverse()
    found = fingerprints(plain)
    assert found == fingerprints(Submission.model_validate(other))
    assert set(found) == {task.dataset for task in plain.tasks}
    changed = fingerprints(submission(optimizer={"learning_rate": 0.002}))
    assert all(found[name] != changed[name] for name in found)


def test_another_tasks_head_does_not_change_a_baseline() -> None:
    raw = document()
    raw["model"]["heads"]["detection"] = {"convolutions": 2}
    found, other = fingerprints(submission()), fingerprints(Submission.model_validate(raw))
    assert {name for name in found if found[name] != other[name]} == {"shapes-detection"}


def test_a_pyramid_without_the_level_that_vqa_reads_by_default_has_baselines_too() -> None:
    raw = document()
    raw["model"]["neck"]["strides"] = [16]
    raw["model"]["heads"]["vqa"]["stride"] = 16
    one = Submission.model_validate(raw)
    assert set(fingerprints(one)) == {task.dataset for task in one.tasks}


def test_one_task_has_no_baselines(tmp_path: Path) -> None:
    raw = document()
    raw["tasks"] = raw["tasks"][:1]
    one = Submission.model_validate(raw)
    assert fingerprints(one) == {}
    assert write(one, tmp_path) == []


def test_written_baselines_are_the_submissions_that_records_name(tmp_path: Path) -> None:
    one = submission()
    files = write(one, tmp_path)
    loaded = [load_submission(file) for file in files]
    assert {each.tasks[0].dataset: each.fingerprint() for each in loaded} == fingerprints(one)


@pytest.mark.parametrize("launcher", [(), ("--launcher", "local")])
def test_with_baselines_each_task_is_also_trained_alone_once(
    command: Command, tmp_path: Path, launcher: tuple[str, ...]
) -> None:
    raw = document(steps=3)
    raw["tasks"] = [raw["tasks"][0], raw["tasks"][3]]
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(raw))
    changed = ("submit", "a.yaml", "--set", "training.steps=2", "--with-baselines")
    done = command(*changed, *launcher)
    assert done.returncode == 0, done.stderr
    board = orjson.loads((tmp_path / "leaderboard" / "board.json").read_bytes())
    entries = {entry["name"]: entry for entry in board["entries"]}
    joint = load_submission(tmp_path / "a.yaml", ["training.steps=2"])
    expected = {"tiny-4": joint.fingerprint()}
    expected |= {f"single-{name}-test_resnet": key for name, key in fingerprints(joint).items()}
    assert {name: entry["fingerprint"] for name, entry in entries.items()} == expected
    assert {entry["cost"]["steps"] for entry in entries.values()} == {2}
    if launcher:  # what is looked up on the board does not depend on who trained it
        again = command(*changed)
        assert again.stderr.count("already on the board") == 3


def test_with_its_tokens_a_task_alone_keeps_what_they_are_trained_for_without_other_tasks() -> None:
    teacher = {"name": "test_resnet", "random": True}
    objectives: dict[str, Any] = {
        "alignment": {}, "adversarial": {}, "discriminator": {}, "self_supervised": {"mask": 0.25},
        "auxiliary": {"target": "dataset"}, "distilled": {"teacher": teacher, "from_task": "shapes-detection"},
        "substitution": {"strategy": "random"},
    }  # fmt: skip
    whole = submission(placeholders=objectives)
    kept = single_task(whole, "shapes-detection", tokens=True).training.placeholders
    assert {key for key, value in kept if value is not None} == {
        "adversarial", "self_supervised", "distilled", "samples",
    }  # fmt: skip
    assert kept.self_supervised == whole.training.placeholders.self_supervised
    assert kept.distilled is not None
    assert (kept.distilled.from_task, kept.distilled.teacher) == (None, whole.training.placeholders.distilled.teacher)  # type: ignore[union-attr]
    assert subset(whole, ["shapes-detection"]).training.placeholders == kept
    turned = submission(placeholders={"auxiliary": {"target": "rotation"}})
    assert subset(turned, ["shapes-detection"]).training.placeholders.auxiliary is not None
    # Without tokens there is nothing to train, and the baselines are those of the plain network.
    assert fingerprints(whole) == fingerprints(submission())
