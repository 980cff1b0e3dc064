"""Controls by name: each takes away one thing, and what it says of its match is true."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from tests_support import document
from torch.utils.flop_counter import FlopCounterMode

from harness.controls import DESCRIPTIONS, Control, controlled
from harness.data.joint_images import share_images
from harness.errors import HarnessError
from harness.run_data import build_network, open_data, task_data
from harness.step_costs import step_macs
from harness.submission import Submission, load_submission, read_control
from harness.validation import check

Command = Callable[..., "subprocess.CompletedProcess[str]"]
ALL = get_args(Control)
WITH_DATA = ("equal_compute",)


def write(folder: Path, **changes: Any) -> Path:
    content = document()
    content["model"]["placeholders"] |= changes.pop("placeholders", {})
    path = folder / "base.yaml"
    path.write_text(yaml.safe_dump(content | changes))
    return path


def differences(a: Any, b: Any, place: str = "") -> set[str]:
    """Keys in which two documents differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        return {one for key in a.keys() | b.keys() for one in differences(a.get(key), b.get(key), f"{place}.{key}")}
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        return {one for n, (x, y) in enumerate(zip(a, b, strict=True)) for one in differences(x, y, f"{place}.{n}")}
    return set() if a == b else {place[1:]}


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("frozen_random", {"model.placeholders.frozen"}),
        ("read_off", {"model.placeholders.read"}),
        ("write_off", {"model.placeholders.write"}),
        ("equal_parameters", {"model.placeholders.adapter"}),
        ("per_task_banks", {"model.placeholders.sharing"}),
        ("output_placement", {"model.placeholders.placement"}),
        ("shuffled_labels", {f"tasks.{n}.shuffle_labels" for n in (1, 2, 3)}),
    ],
)
def test_a_control_changes_one_thing_and_its_name(tmp_path: Path, name: str, changed: set[str]) -> None:
    path = write(tmp_path)
    base, control = load_submission(path), load_submission(path, [f"control={name}"])
    assert differences(base.resolved(), control.resolved()) == changed | {"name", "description"}
    assert control.name == f"{base.name}-{name}"
    assert control.control is None
    assert control.fingerprint() != base.fingerprint()
    again = Submission.model_validate(control.resolved())
    assert again.fingerprint() == control.fingerprint()
    assert read_control(path, [f"control={name}"]) == name
    assert read_control(path) is None


def test_the_plain_network_is_the_same_however_it_is_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path, placeholders={"width": 256, "attention_width": 64, "heads": 4, "stages": 2})
    plain = load_submission(path, ["model.placeholders={count: 0}"])
    assert load_submission(path, ["control=plain"]).fingerprint() == plain.fingerprint()


@pytest.mark.usefixtures("tiny_suite")
def test_equal_parameters_and_equal_compute_match_and_validate_says_how_well(tmp_path: Path) -> None:
    path = write(tmp_path)
    base = load_submission(path, ["training.steps=1000"])
    plain = load_submission(path, ["training.steps=1000", "control=plain"])
    longer = load_submission(path, ["training.steps=1000", "control=equal_compute"])
    assert longer.model == plain.model
    assert longer.training.steps > 1000
    cost = step_macs(base) * 1000
    assert abs(step_macs(longer) * longer.training.steps - cost) <= step_macs(longer) / 2  # to the nearest step
    report = check(path, ["training.steps=1000", "control=equal_compute"])["control"]
    assert report["submission"]["macs"] == cost
    assert report["control"]["macs"] == step_macs(longer) * longer.training.steps
    match = check(path, ["control=equal_parameters"])["control"]
    counts = [match[side]["parameters"] for side in ("submission", "control")]
    assert abs(counts[0] - counts[1]) < 0.005 * counts[0]
    assert counts[0] != check(path, ["control=plain"])["control"]["control"]["parameters"]


@pytest.mark.parametrize("name", [one for one in ALL if one not in WITH_DATA])
def test_there_is_no_control_of_a_network_without_tokens(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, placeholders={"count": 0})
    with pytest.raises(HarnessError, match=rf"base.yaml: control: {name}: .*model.placeholders.count: 0"):
        load_submission(path, [f"control={name}"])


def test_what_a_control_cannot_be_made_of_is_told(tmp_path: Path) -> None:
    path = write(tmp_path)
    with pytest.raises(HarnessError, match="masked: true speaks of a prefix"):
        load_submission(path, ["control=masked"])
    with pytest.raises(HarnessError, match="control"):
        load_submission(path, ["control=frozen"])
    one = write(tmp_path, tasks=document()["tasks"][:1])
    with pytest.raises(HarnessError, match="shuffles the labels of all tasks but the first, and there is one"):
        load_submission(one, ["control=shuffled_labels"])
    with pytest.raises(HarnessError, match="takes away that tasks share tokens, and there is one task"):
        load_submission(one, ["control=per_task_banks"])


@pytest.mark.parametrize(
    ("name", "placeholders", "training", "message"),
    [
        (
            "equal_parameters",
            {"mechanism": "prefix_deep"},
            {},
            "none with mechanism: prefix_deep and placement: hidden",
        ),
        ("equal_parameters", {"placement": "input"}, {}, "none with mechanism: exchange and placement: input"),
        ("equal_parameters", {"placement": "output"}, {}, "none with mechanism: exchange and placement: output"),
        ("frozen_random", {}, {"distilled": {"teacher": {"name": "x", "random": True}}}, "gives the tokens a start"),
        ("equal_compute", {}, {"distilled": {"teacher": {"name": "x", "random": True}}}, "has computation of its own"),
        ("equal_compute", {}, {"self_supervised": {}}, "self_supervised has computation of its own"),
        ("equal_parameters", {"read": False}, {}, "with read: false half of them are not there"),
        ("equal_parameters", {"write": False}, {}, "with write: false half of them are not there"),
        ("frozen_random", {"frozen": True}, {}, "is its own control"),
        ("frozen_random", {"kind": "random"}, {}, "is its own control"),
        ("read_off", {"read": False}, {}, "is its own control"),
        ("per_task_banks", {"sharing": "per_task"}, {}, "is its own control"),
        ("output_placement", {"placement": "output"}, {}, "is its own control"),
        ("equal_compute", {}, {"auxiliary": {"target": "rotation"}}, "rotation has computation of its own"),
    ],
)
def test_a_control_that_would_not_match_is_refused(
    tmp_path: Path, name: str, placeholders: dict[str, Any], training: dict[str, Any], message: str
) -> None:
    path = write(tmp_path, placeholders=placeholders, training={"steps": 6, "placeholders": training})
    load_submission(path)
    with pytest.raises(HarnessError, match=message):
        load_submission(path, [f"control={name}"])


@pytest.mark.usefixtures("tiny_suite")
def test_equal_compute_counts_that_adversarial_tokens_take_every_step_twice(tmp_path: Path) -> None:
    path = write(tmp_path)
    settings = ["training.steps=1000", "control=equal_compute"]
    once = load_submission(path, settings).training.steps
    twice = load_submission(path, ["training.placeholders={adversarial: {}}", *settings]).training.steps
    assert abs(twice - 2 * once) <= 1
    match = check(path, ["training.placeholders={adversarial: {}}", *settings])["control"]
    assert match["control"]["macs"] == pytest.approx(match["submission"]["macs"], rel=1e-3)


@pytest.mark.usefixtures("tiny_suite")
@pytest.mark.parametrize("tokens", [{"dynamic": True}, {"sharing": "per_task"}])
def test_images_that_tasks_share_count_as_often_as_training_encodes_them(
    tmp_path: Path, tokens: dict[str, Any]
) -> None:
    first, *others = document()["tasks"]
    led = [{"dataset": task["dataset"], "images_of": first["dataset"]} for task in others]
    path = write(tmp_path, tasks=[first, *led], placeholders={"stages": 1})

    def trained(changes: Sequence[str]) -> float:
        submission = load_submission(path, changes)
        splits = open_data(submission)
        network = build_network(submission, splits).train()
        data = {name: task_data(submission, 0, splits, name, True) for name in splits.train}
        batches = {name: one.batch([(0, n) for n in range(first["batch_size"])]) for name, one in data.items()}
        with FlopCounterMode(display=False) as counter:
            network(share_images(batches, submission.leaders()))
        return counter.get_total_flops() / 2

    plain = "control=plain"
    shared, own = step_macs(load_submission(path)), step_macs(load_submission(path, [f"model.placeholders={tokens}"]))
    assert own > 1.5 * shared  # the trunk goes over the images once for each task
    for changes in ([], [plain], [f"model.placeholders={tokens}"]):
        assert step_macs(load_submission(path, changes)) == pytest.approx(trained(changes), rel=0.05)


def test_every_control_is_described() -> None:
    assert list(DESCRIPTIONS) == list(ALL)
    made = controlled("write_off", load_submission_document(), lambda document: 1)
    assert made["description"].startswith("Control of tiny: features do not read tokens")


def load_submission_document() -> dict[str, Any]:
    return Submission.model_validate(document() | {"name": "tiny"}).resolved()


def test_the_command_trains_a_control_and_lists_them(tmp_path: Path, command: Command) -> None:
    write(tmp_path)
    told = command("validate", "base.yaml", "--set", "control=frozen_random")
    assert told.returncode == 0, told.stderr
    assert "match of the control" in told.stdout
    done = command("submit", "base.yaml", "--set", "control=read_off", "--limit", "4", "-q", "--json")
    assert done.returncode == 0, done.stderr
    (record,) = json.loads(done.stdout)
    assert record["name"].endswith("-read_off")
    names = [row["name"] for row in json.loads(command("ls", "controls", "--json").stdout)]
    assert names == list(ALL)
