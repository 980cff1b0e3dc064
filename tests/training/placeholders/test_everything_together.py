"""All switches of placeholder enhancement at once, with every architecture, balancing method and regime in turn."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import torch
from tests_support import document

from harness.models.sharing import SHARING
from harness.progress import Reporter
from harness.run_data import build_network, open_data, task_data
from harness.submission import Submission
from harness.training import checkpoints
from harness.training.balancing import BALANCING
from harness.training.engine import Engine
from harness.training.loop import seed_everything, train
from harness.training.placeholders.pools import open_pools

QUIET = Reporter(quiet=True)
REGIMES = ("joint", "sequential")  # these have several tasks in a step, as alignment needs, in few steps
EVERYTHING: dict[str, Any] = {
    "alignment": {},
    "auxiliary": {"target": "dataset"},
    "adversarial": {},
    "discriminator": {},
    "distilled": {"from_task": "shapes-detection"},
    "self_supervised": {},
    "substitution": {"strategy": "random", "ratio": 0.5},
    "samples": {"ratio": 1, "threshold": 0.5},
}
KINDS: dict[str, Any] = {"order": "second", "levels": 2, "opening": "staged", "modalities": True, "stages": 2}


def submission(sharing: str = "hard", balancing: str = "equal", regime: str = "joint", steps: int = 4) -> Submission:
    raw = document(steps=steps)
    for task in raw["tasks"]:
        task["fraction"] = 0.5
    raw["model"]["placeholders"] |= KINDS
    raw["model"]["sharing"] = {"name": sharing}
    raw["training"] |= {
        "placeholders": EVERYTHING, "balancing": {"name": balancing}, "regime": {"name": regime}, "log_every": 1,
    }  # fmt: skip
    return Submission.model_validate(raw)


def trained(wanted: Submission, folder: Path, stop_at: int | None = None) -> tuple[dict[str, torch.Tensor], set[str]]:
    splits, engine = open_data(wanted), Engine("32")
    seed_everything(0)
    network = build_network(wanted, splits)
    data = {name: task_data(wanted, 0, splits, name, training=True) for name in splits.train}
    folder.mkdir(parents=True, exist_ok=True)
    pools = open_pools(wanted, 0, splits, network, engine, data, folder, QUIET)

    def stop(step: int, point: Any) -> None:
        if step == stop_at:
            raise KeyboardInterrupt

    progress = train(wanted, network, engine, data, folder, QUIET, stop, pools=pools)
    return network.state_dict(), set(progress.curves)


@pytest.mark.usefixtures("tiny_suite")
def test_everything_at_once_is_seen_on_the_curves_and_resumes_to_the_same_weights(tmp_path: Path) -> None:
    whole, curves = trained(submission(steps=4), tmp_path / "whole")
    groups = {name.rpartition("/")[0] if name.startswith("placeholder/") else name.partition("/")[0] for name in curves}
    assert {"loss", "placeholder", "samples", "substitution"} <= groups
    switched_on = {name.partition("/")[2] for name in curves if name.startswith("placeholder/")}
    assert switched_on == set(EVERYTHING) - {"substitution", "samples"}
    with pytest.raises(KeyboardInterrupt):
        trained(submission(steps=4), tmp_path / "parts", stop_at=2)
    assert checkpoints.load(tmp_path / "parts") is not None
    resumed, _ = trained(submission(steps=4), tmp_path / "parts")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_suite")
@pytest.mark.parametrize("sharing", SHARING)
def test_everything_trains_with_every_architecture(tmp_path: Path, sharing: str) -> None:
    """Methods and regimes take turns, so that every one of them is met."""
    turns = list(zip(BALANCING, cycle(REGIMES), strict=False))
    row = list(SHARING).index(sharing)
    for number, (balancing, regime) in enumerate(turns):
        if number % len(SHARING) == row:
            weights, _ = trained(submission(sharing, balancing, regime), tmp_path / balancing)
            assert all(bool(torch.isfinite(one).all()) for one in weights.values() if one.is_floating_point())
