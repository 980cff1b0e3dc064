"""The submission schema: fingerprint, overrides, resolved defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from tests_support import document

from harness.errors import HarnessError
from harness.submission import Submission, load_submission


def fingerprint(**changes: Any) -> str:
    raw = document()
    for path, value in changes.items():
        section, _, key = path.partition("__")
        if key:
            raw[section] = {**raw.get(section, {}), key: value}
        else:
            raw[section] = value
    return Submission.model_validate(raw).fingerprint()


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"description": "x"},
        {"seeds": [4, 5]},
        {"tracking": {"wandb": "offline"}},
        {"training__checkpoint_every": 7},
        {"training__checkpoints_kept": 3},
        {"training__gradient_checkpointing": True},
        {"training__log_gradients": 3},
        {"training__log_affinity": 3},
        {"training__workers": 1},
        {"model__placeholders": document()["model"]["placeholders"] | {"stages": 2}},  # the default, written out
    ],
)
def test_what_does_not_change_a_run_does_not_change_its_fingerprint(change: dict[str, Any]) -> None:
    assert fingerprint(**change) == fingerprint()


@pytest.mark.parametrize(
    "change",
    [
        {"training__steps": 7},
        {"training__optimizer": {"learning_rate": 0.0031}},
        {"model__placeholders": {"count": 5}},
        {"evaluation": {"limit": 3}},
        {"tasks": document()["tasks"][:3]},
        {"training__log_every": 3},  # learning curves are part of the record
    ],
)
def test_what_changes_a_run_changes_its_fingerprint(change: dict[str, Any]) -> None:
    assert fingerprint(**change) != fingerprint()


def test_a_changed_card_changes_the_fingerprint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.cards import load_card

    card = load_card("shapes-detection").model_dump(mode="json")
    before = fingerprint()
    for change, same in (({"title": "new words"}, True), ({"version": "2"}, False)):
        folder = tmp_path / str(same)
        folder.mkdir()
        (folder / "shapes-detection.yaml").write_text(yaml.safe_dump(card | change))
        monkeypatch.setenv("HARNESS_CARDS", str(folder))
        assert (fingerprint() == before) is same


def test_overrides_replace_values_in_mappings_and_lists(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(yaml.safe_dump(document()))
    overrides = [
        "training.steps=99",
        "tasks.1.image_size=[32, 48]",
        "model.backbone.batch_norm=per_task",
        "seeds=[1,2]",
    ]
    overrides += ["model.backbone.batch_norm=per_task", "training.schedule.warmup=1e-1"]
    submission = load_submission(path, overrides)
    assert submission.training.steps == 99
    assert submission.tasks[1].image_size == (32, 48)
    assert submission.tasks[0].image_size == (64, 64)
    assert submission.model.backbone.batch_norm == "per_task"
    assert submission.seeds == (1, 2)
    assert submission.training.schedule.warmup == 0.1


def test_the_resolved_submission_is_the_same_submission() -> None:
    submission = Submission.model_validate(document())
    again = Submission.model_validate(submission.resolved())
    assert again == submission
    assert again.fingerprint() == submission.fingerprint()


@pytest.mark.parametrize("text", ["- a\n- b\n", "name: !!python/object:os.system x\n", "name: a\nname: b\n", "{", ""])
def test_files_that_are_not_one_plain_mapping_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(HarnessError, match=r"a\.yaml"):
        load_submission(path)


def test_keys_that_are_off_or_that_the_schedule_does_not_use_are_not_in_the_fingerprint() -> None:
    training = Submission.model_validate(document()).training
    assert set(training.science()) == {
        "regime", "balancing", "steps", "optimizer", "schedule", "gradient_clip", "precision", "on_bad_image",
        "log_every",
    }  # fmt: skip
    assert set(training.science()["schedule"]) == {"name", "warmup"}
    poly = Submission.model_validate(document() | {"training": {"steps": 3, "schedule": {"name": "poly"}}}).training
    assert set(poly.science()["schedule"]) == {"name", "warmup", "power"}


@pytest.mark.parametrize(
    ("key", "value"),
    [("ema", 0.9), ("selection", {"every": 2}), ("max_minutes", 5), ("compile", True), ("schedule", {"name": "step"})],
)
def test_training_features_change_the_fingerprint(key: str, value: Any) -> None:
    raw = document()
    raw["training"] |= {key: value}
    assert Submission.model_validate(raw).fingerprint() != Submission.model_validate(document()).fingerprint()


@pytest.mark.parametrize(
    ("key", "value"),
    [("ema", 0), ("ema", 1), ("selection", {"every": 0}), ("selection", {}), ("max_minutes", 0), ("compile", "maybe")],
)
def test_training_features_are_validated(key: str, value: Any) -> None:
    raw = document()
    raw["training"] |= {key: value}
    with pytest.raises(ValidationError, match=key):
        Submission.model_validate(raw)
