"""Training with placeholder samples: the control is exact, and labels of unlabelled images have no part in it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tests_support import document

from harness.cards import load_card
from harness.data import open_split
from harness.data.subsets import subset
from harness.errors import HarnessError
from harness.models.sharing import SHARING
from harness.progress import Reporter
from harness.run_data import build_network, open_data, task_data
from harness.submission import Submission
from harness.training import checkpoints
from harness.training.engine import Engine
from harness.training.loop import seed_everything, train
from harness.training.placeholders.pools import open_pools
from harness.training.state import Progress

QUIET = Reporter(quiet=True)
FRACTION = 0.3
Trained = tuple[dict[str, torch.Tensor], Progress]


def low_resource(samples: dict[str, Any] | None, steps: int = 2, **changes: Any) -> dict[str, Any]:
    raw = document(steps=steps)
    for task in raw["tasks"]:
        task["fraction"] = FRACTION
    raw["training"] |= {"log_every": 1}
    if samples is not None:
        raw["training"]["placeholders"] = {"samples": samples}
    for key, value in changes.items():
        raw[key] = raw[key] | value if isinstance(value, dict) else value
    return raw


def trained(folder: Path, raw: dict[str, Any]) -> Trained:
    submission = Submission.model_validate(raw)
    splits, engine = open_data(submission), Engine("32")
    seed_everything(0)
    network = build_network(submission, splits)
    data = {name: task_data(submission, 0, splits, name, training=True) for name in splits.train}
    folder.mkdir(exist_ok=True)
    pools = open_pools(submission, 0, splits, network, engine, data, folder, QUIET)
    progress = train(submission, network, engine, data, folder, QUIET, pools=pools)
    return network.state_dict(), progress


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.usefixtures("tiny_suite")
@pytest.mark.parametrize("samples", [{"ratio": 0}, {"ratio": 0, "kind": "adversarial", "selection": "k_center"}])
def test_ratio_0_is_the_run_without_placeholder_samples(tmp_path: Path, samples: dict[str, Any]) -> None:
    off, zero = low_resource(None), low_resource(samples)
    assert Submission.model_validate(off).fingerprint() == Submission.model_validate(zero).fingerprint()
    first, second = trained(tmp_path / "off", off), trained(tmp_path / "zero", zero)
    assert equal(first[0], second[0])
    assert first[1].curves == second[1].curves


@pytest.mark.usefixtures("tiny_suite")
@pytest.mark.parametrize("kind", ["random", "distilled", "adversarial"])
def test_labelled_losses_of_the_first_step_are_those_of_the_control_bit_for_bit(tmp_path: Path, kind: str) -> None:
    """Dropout would tell if a draw were taken from its stream, and batch norms if images were mixed."""
    control = trained(tmp_path / "off", low_resource(None))
    threshold = {"threshold": 0.5} if kind != "adversarial" else {}
    whole = trained(tmp_path / "on", low_resource({"ratio": 2, "kind": kind} | threshold))
    labelled = [name for name in control[1].curves if name.startswith("loss/")]
    assert len(labelled) == 4
    assert {name: whole[1].curves[name][0] for name in labelled} == {n: control[1].curves[n][0] for n in labelled}
    assert any(whole[1].curves[name][1] != control[1].curves[name][1] for name in labelled)
    told = {name for name in whole[1].curves if name.startswith("samples/")}
    ends = ("",) if kind == "adversarial" else ("", "/kept")
    assert told == {f"samples/{name.removeprefix('loss/')}{end}" for name in labelled for end in ends}
    assert all(0 <= value <= 1 for name in told if name.endswith("kept") for _, value in whole[1].curves[name])


@pytest.mark.usefixtures("tiny_suite")
@pytest.mark.parametrize("stop", [1, 3])
def test_a_stopped_run_goes_on_with_the_unlabelled_images_that_would_have_come(tmp_path: Path, stop: int) -> None:
    raw = low_resource({"ratio": 1, "threshold": 0.5, "selection": "k_center"}, steps=5)
    whole = trained(tmp_path / "whole", raw)
    original = checkpoints.save

    class Stop(Exception):
        pass

    def save_and_stop(where: Path, state: dict[str, Any]) -> None:
        original(where, state)
        if state["progress"]["step"] == stop:
            raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "save", save_and_stop)
        with pytest.raises(Stop):
            trained(tmp_path / "parts", raw)
    again = trained(tmp_path / "parts", raw)
    assert equal(whole[0], again[0])
    assert whole[1].curves == again[1].curves


def _garbage(path: Path) -> None:
    path.write_bytes(b"no label map")


def _corrupt(root: Path) -> None:
    """Make nonsense of every label of the images that no task trains on with labels."""
    left: dict[str, set[str]] = {}
    for task in document()["tasks"]:
        adapter = open_split(load_card(task["dataset"]), "train")
        taken = set(subset(adapter, FRACTION).tolist())
        left[task["dataset"]] = {name for row, name in enumerate(adapter.ids) if row not in taken}
    for file in root.glob("cityscapes/gtFine/train/**/*_labelIds.png"):
        if file.name.removesuffix("_gtFine_labelIds.png") in left["shapes-segmentation"]:
            _garbage(file)
    boxes = root / "coco/annotations/instances_train.json"
    content = json.loads(boxes.read_text())
    for annotation in content["annotations"]:
        if str(annotation["image_id"]) in left["shapes-detection"]:
            annotation["bbox"], annotation["area"] = [0, 0, 3, 3], 9
    boxes.write_text(json.dumps(content))
    (answers,) = root.glob("vqa/*mscoco_train2014_annotations.json")
    content = json.loads(answers.read_text())
    for annotation in content["annotations"]:
        if str(annotation["image_id"]) in left["shapes-vqa"]:
            for answer in annotation["answers"]:
                answer["answer"] = "nonsense"
    answers.write_text(json.dumps(content))


def test_labels_of_unlabelled_images_are_never_read(
    tmp_path: Path, tiny_suite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = low_resource({"ratio": 2, "threshold": 0.5, "selection": "k_center"})
    whole = trained(tmp_path / "whole", raw)
    cache = tmp_path / "cache"
    shutil.copytree(tiny_suite / "shapes-v1", cache / "shapes-v1")
    monkeypatch.setenv("HARNESS_CACHE", str(cache))
    _corrupt(cache / "shapes-v1")
    assert equal(whole[0], trained(tmp_path / "corrupted", raw)[0])
    raw = low_resource(None, steps=12)
    raw["tasks"][2]["fraction"] = 1.0
    with pytest.raises(HarnessError, match="_gtFine_labelIds"):  # they are corrupted indeed
        trained(tmp_path / "all", raw)


@pytest.mark.usefixtures("tiny_suite")
def test_only_tasks_of_the_step_that_have_a_pool_get_placeholder_samples(tmp_path: Path) -> None:
    raw = low_resource({"ratio": 1}, steps=1)
    raw["training"]["regime"] = {"name": "continual"}
    raw["tasks"][1]["fraction"] = 1.0
    _, progress = trained(tmp_path, raw)
    steps = {name: [step for step, _ in curve] for name, curve in progress.curves.items() if "kept" in name}
    assert steps == {
        "samples/shapes-classification/kept": [1],
        "samples/shapes-segmentation/kept": [3],
        "samples/shapes-vqa/kept": [4],
    }


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_suite")
@pytest.mark.parametrize("kind", ["random", "adversarial"])
@pytest.mark.parametrize("sharing", SHARING)
def test_every_sharing_architecture_and_kind_of_balancing_takes_them(tmp_path: Path, sharing: str, kind: str) -> None:
    for balancing in ("equal", "uncertainty", "famo", "gradnorm", "upgrad"):
        raw = low_resource({"ratio": 1, "kind": kind}, model={"sharing": {"name": sharing}})
        raw["training"] |= {"balancing": {"name": balancing}, "log_affinity": 2}
        raw["tasks"] = [raw["tasks"][0], raw["tasks"][2]]
        _, progress = trained(tmp_path / balancing, raw)
        assert progress.step == 2
        assert {"samples/shapes-classification", "samples/shapes-segmentation"} <= progress.curves.keys()
        assert any(name.startswith("affinity/") for name in progress.curves)
        assert not any(name.startswith("weight/samples") for name in progress.curves)
