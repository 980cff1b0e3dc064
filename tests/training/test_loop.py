"""The training loop: exact resume, the joint step, divergence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests_support import document

from harness.data.loading import TaskData
from harness.errors import HarnessError
from harness.models.network import MultiTaskNetwork
from harness.progress import Reporter
from harness.run_data import build_network, open_data, task_data
from harness.submission import Submission
from harness.training import checkpoints
from harness.training.engine import Engine
from harness.training.loop import Progress, seed_everything, train

pytestmark = pytest.mark.usefixtures("tiny_suite")
QUIET = Reporter(quiet=True)


def prepare(seed: int = 0, **changes: Any) -> tuple[Submission, MultiTaskNetwork, dict[str, TaskData]]:
    raw = document()
    raw["training"] |= changes
    submission = Submission.model_validate(raw)
    splits = open_data(submission)
    seed_everything(seed)
    network = build_network(submission, splits)
    return (
        submission,
        network,
        {name: task_data(submission, seed, splits, name, training=True) for name in splits.train},
    )


def trained(folder: Path, **changes: Any) -> tuple[dict[str, torch.Tensor], Progress]:
    submission, network, data = prepare(**changes)
    progress = train(submission, network, Engine("32"), data, folder, QUIET)
    return network.state_dict(), progress


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_the_same_seed_gives_the_same_weights_and_curves(tmp_path: Path) -> None:
    first, second = trained(tmp_path / "a"), trained(tmp_path / "b")
    assert equal(first[0], second[0])
    assert first[1].curves == second[1].curves
    assert [step for step, _ in first[1].curves["learning_rate"]] == [2, 4, 6]


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_a_run_that_is_stopped_and_resumed_ends_in_the_same_weights_and_curves(tmp_path: Path, stop: int) -> None:
    whole, whole_progress = trained(tmp_path / "whole")

    class Stop(Exception):
        pass

    submission, network, data = prepare()
    folder = tmp_path / "parts"
    folder.mkdir()
    original = checkpoints.save

    def save_and_stop(where: Path, state: dict[str, Any]) -> None:
        original(where, state)
        if state["progress"]["step"] == stop:
            raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "save", save_and_stop)
        with pytest.raises(Stop):
            train(submission, network, Engine("32"), data, folder, QUIET)
    parts, progress = trained(folder)
    assert equal(whole, parts)
    assert progress.curves == whole_progress.curves
    assert progress.images == whole_progress.images


def test_training_changes_every_part_of_the_network(tmp_path: Path) -> None:
    _, fresh, _ = prepare()
    before = {name: value.clone() for name, value in fresh.named_parameters()}
    after, _ = trained(tmp_path)
    # FCOS's class 0 and words that no question of the tiny suite has stay as they are; whole tensors must not.
    same = [name for name, value in before.items() if torch.equal(value, after[name])]
    assert same == []


def test_a_loss_that_is_not_finite_stops_with_task_and_step(tmp_path: Path) -> None:
    submission, network, data = prepare()
    with torch.no_grad():
        network.heads["shapes-segmentation"].head[-1].bias.fill_(float("nan"))
    with pytest.raises(HarnessError, match="shapes-segmentation became nan at step 0"):
        train(submission, network, Engine("32"), data, tmp_path, QUIET)


def test_manual_balancing_weighs_losses_and_equal_does_not() -> None:
    from harness.training.balancing.base import Setting
    from harness.training.balancing.config import EqualConfig, ManualConfig
    from harness.training.balancing.weighted import Equal, Manual

    losses, setting = {"a": torch.tensor(2.0), "b": torch.tensor(3.0)}, Setting({"a": 10, "b": 1})
    assert Equal(EqualConfig(), setting)(losses) == 5
    assert Manual(ManualConfig(name="manual"), setting)(losses) == 23


def test_one_step_follows_the_gradient_of_the_summed_losses() -> None:
    submission, network, data = prepare(steps=1, gradient_clip=None)
    from harness.data.loading import TrainingOrder, loader

    batches = {
        t.dataset: next(iter(loader(data[t.dataset], TrainingOrder(data[t.dataset], t.batch_size), 0)))
        for t in submission.tasks
    }
    torch.manual_seed(1)
    losses = network(batches)
    assert set(losses) == set(data)
    sum(losses.values()).backward()
    shared = network.shared.trunk.backbone.body.conv1[0].weight  # type: ignore[union-attr]
    together = shared.grad.clone()
    network.zero_grad()
    torch.manual_seed(1)
    for loss in network(batches).values():
        loss.backward(retain_graph=True)
    torch.testing.assert_close(shared.grad, together)


def test_tasks_of_the_same_images_train_as_on_copies_and_count_each_image_once(tmp_path: Path) -> None:
    raw = document(steps=3)
    leader = {"dataset": "shapes-segmentation", "batch_size": 4, "image_size": 64, "flip": 0.5}
    others = ("shapes-classification", "shapes-detection", "shapes-vqa")
    raw["tasks"] = [leader, *({"dataset": name, "images_of": leader["dataset"]} for name in others)]
    losses = {}
    for accumulation in (1, 2):
        submission = Submission.model_validate(
            raw | {"training": raw["training"] | {"accumulation": accumulation, "log_every": 1}}
        )
        splits = open_data(submission)
        seed_everything(0)
        network = build_network(submission, splits)
        data = {name: task_data(submission, 0, splits, name, training=True) for name in splits.train}
        encoded: list[int] = []
        network.shared.trunk.backbone.register_forward_pre_hook(lambda _, x, seen=encoded: seen.append(len(x[0])))  # type: ignore[union-attr]
        progress = train(submission, network, Engine("32"), data, tmp_path / str(accumulation), QUIET)
        assert sum(encoded) == progress.images == 12
        losses[accumulation] = {key: value[0][1] for key, value in progress.curves.items() if key.startswith("loss/")}
    assert losses[1].keys() == {f"loss/{name}" for name in (leader["dataset"], *others)}
    assert losses[1] == pytest.approx(losses[2], rel=0.2)  # batch norms see halves


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({"step": 3}, "'network' is missing"),
        ([1, 2], "list indices must be integers"),
        ({"network": {"other.weight": torch.ones(2)}}, "Error"),
    ],
)
def test_a_checkpoint_of_something_else_is_told_and_stays(tmp_path: Path, state: Any, reason: str) -> None:
    checkpoints.save(tmp_path, state)
    with pytest.raises(HarnessError, match=rf"checkpoint is not one of this run.*{reason}.*--fresh"):
        trained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [checkpoints.NEWEST]
