"""Which objectives a submission can have, and what they do to its fingerprint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from test_placeholder_objectives import ALL, SPECS, recipe
from tests_support import document

from harness.documents import parse
from harness.errors import HarnessError
from harness.models.network import MultiTaskNetwork
from harness.single_task import single_task
from harness.submission import Submission
from harness.training.placeholders.objectives.objective import add_objectives
from harness.training.placeholders.requirements import KEYS

READING = [key for key in KEYS if key != "adversarial"]


def submission(placeholders: dict[str, Any], **changes: Any) -> Submission:
    raw = document()
    raw["training"]["placeholders"] = placeholders
    for key, value in changes.items():
        section, _, rest = key.partition("__")
        if rest:
            raw[section][rest] = raw[section].get(rest, {}) | value if isinstance(value, dict) else value
        else:
            raw[section] = value
    return parse(Submission, raw, "a.yaml")


def some(key: str) -> dict[str, Any]:
    value = ALL[key] | ({"from_task": "shapes-vqa"} if key == "distilled" else {})
    return {key: value}


@pytest.mark.parametrize("key", KEYS)
def test_without_tokens_there_is_nothing_to_train(key: str) -> None:
    with pytest.raises(HarnessError, match=rf"placeholders\.{key}: model\.placeholders\.count is 0"):
        submission(some(key), model__placeholders={"count": 0})


@pytest.mark.parametrize("key", READING)
@pytest.mark.parametrize(
    "tokens",
    [{"placement": "output"}, {"placement": "input"}, {"mechanism": "prefix_shallow"}, {"stages": 0}],
    ids=str,
)
def test_tokens_that_read_no_image_are_refused(key: str, tokens: dict[str, Any]) -> None:
    with pytest.raises(HarnessError, match=rf"placeholders\.{key}: tokens must have read the image"):
        submission(some(key), model__placeholders=tokens)
    submission({"adversarial": {}}, model__placeholders=tokens)
    submission({"distilled": {"teacher": {"name": "a", "random": True}, "weight": 0}}, model__placeholders=tokens)


@pytest.mark.parametrize(
    ("placeholders", "changes", "message"),
    [
        ({"adversarial": {}}, {"model__placeholders": {"frozen": True}}, "adversarial: moves tokens against"),
        ({"alignment": {}}, {"training__regime": {"name": "mt_dnn"}}, "alignment: compares tasks within a step"),
        (
            {"distilled": {"from_task": "shapes-vqa"}},
            {"training__regime": {"name": "continual"}},
            r"distilled\.from_task: compares tasks within a step",
        ),
        ({"distilled": {"from_task": "shapes-vqq"}}, {}, "'shapes-vqq' is none of the tasks.*shapes-vqa"),
        ({"alignment": {}}, {"training__accumulation": 2}, "alignment: needs two images of each task at a time"),
        ({"distilled": {}}, {}, "neither teacher nor from_task"),
        ({"distilled": {"from_task": "shapes-vqa", "weight": 0}}, {}, "0 takes from_task away"),
        ({"distilled": {"from_task": "shapes-vqa", "images": 3}}, {}, "images: 3 are for a teacher"),
        ({"distilled": {"teacher": {"name": "resnet18"}}}, {}, "resnet18 has learned nothing"),
        (
            {"distilled": {"teacher": {"name": "resnet18", "pretrained": True, "random": True}}},
            {},
            "a network with pretrained is not one",
        ),
        (
            {"distilled": {"teacher": {"name": "resnet18", "random": True, "frozen": 1}}},
            {},
            "frozen: a teacher is always frozen",
        ),
        ({"auxiliary": {}}, {}, "target: this key is required"),
        ({"alignment": {"weight": 0}}, {}, "weight: input should be greater than 0"),
        ({"alignnment": {}}, {}, "did you mean 'alignment'"),
    ],
)
def test_what_cannot_work_is_refused_with_the_reason(
    placeholders: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(HarnessError, match=message):
        submission(placeholders, **changes)


@pytest.mark.parametrize("key", ["alignment", "discriminator"])
def test_one_task_alone_has_nobody_to_be_compared_with(key: str) -> None:
    with pytest.raises(HarnessError, match=f"{key}: compares tasks, and shapes-classification is the only one"):
        submission({key: {}}, tasks=document()["tasks"][:1])
    with pytest.raises(HarnessError, match="all images come from shapes-classification"):
        submission({"auxiliary": {"target": "dataset"}}, tasks=document()["tasks"][:1])


def test_padded_images_are_not_turned() -> None:
    tasks = document()["tasks"]
    tasks[1] |= {"resize": "fit"}
    with pytest.raises(HarnessError, match="rotation needs images without padding, which resize: fit of shapes-det"):
        submission({"auxiliary": {"target": "rotation"}}, tasks=tasks)
    submission({"auxiliary": {"target": "dataset"}}, tasks=tasks)


def test_a_map_of_one_position_has_nothing_to_mask() -> None:
    tasks = document()["tasks"]
    tasks[0]["image_size"] = 32
    for task, name in zip(tasks, SPECS, strict=True):
        task["dataset"] = name
    wanted = recipe({"self_supervised": {}}, tasks=tasks)
    with pytest.raises(HarnessError, match=r"stride 32\) has a single position at image_size \[32, 32\] of c"):
        add_objectives(MultiTaskNetwork(wanted.model, SPECS), wanted)


def test_an_unknown_teacher_is_named_by_its_own_key() -> None:
    wanted = recipe({"distilled": {"teacher": {"name": "resent18", "random": True}}})
    with pytest.raises(HarnessError, match=r"training\.placeholders\.distilled\.teacher\.name: 'resent18' is not a mo"):
        add_objectives(MultiTaskNetwork(wanted.model, SPECS), wanted)


def test_what_is_off_changes_no_fingerprint_and_what_is_on_does() -> None:
    off = submission({}).fingerprint()
    assert submission(dict.fromkeys(KEYS)).fingerprint() == off
    assert submission({}).training.science().get("placeholders") is None
    found = {key: submission(some(key)).fingerprint() for key in KEYS}
    found["other weight"] = submission({"alignment": {"weight": 0.1}}).fingerprint()
    assert len({off, *found.values()}) == len(KEYS) + 2
    # A switch that is on is told whole, so that no later change of a default goes unnoticed.
    assert submission({"alignment": {}}).training.science()["placeholders"] == {
        "alignment": {"weight": 0.05, "variance_weight": 0.05}
    }


def test_a_teacher_is_what_its_weights_are_and_not_where_they_lie(tmp_path: Path) -> None:
    found = []
    for name, value in (("a", 0.0), ("b", 0.0), ("c", 1.0)):
        (tmp_path / name).mkdir()
        file = tmp_path / name / "teacher.safetensors"
        save_file({"x": torch.full((2,), value)}, file)
        found.append(submission({"distilled": {"teacher": {"name": "resnet18", "weights": str(file)}}}))
    first, same, other = (one.fingerprint() for one in found)
    assert first == same != other
    published = found[0].published()["training"]["placeholders"]["distilled"]["teacher"]["weights"]
    assert published.startswith("teacher.safetensors sha256:")
    assert str(tmp_path) not in str(found[0].published())


def test_single_task_baselines_have_no_objectives() -> None:
    for key in KEYS:
        alone = single_task(submission(some(key)), "shapes-vqa")
        assert alone.fingerprint() == single_task(submission({}), "shapes-vqa").fingerprint()
