"""Every sharing architecture trains with every balancing method and under every regime."""

from __future__ import annotations

from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from tests_support import document

from harness.data.loading import TaskData
from harness.models.network import MultiTaskNetwork
from harness.models.sharing import SHARING
from harness.progress import Reporter
from harness.run_data import build_network, open_data, task_data
from harness.submission import Submission
from harness.training.balancing import BALANCING
from harness.training.engine import Engine
from harness.training.loop import seed_everything, train
from harness.training.regimes import REGIMES

# Every pair of an architecture and a method; the regimes take turns, so that each meets each of both.
COMBINATIONS = [
    (sharing, balancing, list(REGIMES)[(row + column) % len(REGIMES)])
    for (row, sharing), (column, balancing) in product(enumerate(SHARING), enumerate(BALANCING))
]
STEPS = {"curriculum": 2, "joint": 2, "sequential": 2}


def submission(sharing: str, balancing: str, regime: str) -> Submission:
    raw = document(steps=STEPS.get(regime, 1))
    raw["tasks"] = [
        {"dataset": "shapes-classification", "batch_size": 2, "image_size": 32},
        {"dataset": "shapes-segmentation", "batch_size": 2, "image_size": 32},
    ]
    raw["model"] |= {"sharing": {"name": sharing}, "neck": {"channels": 32, "strides": [8, 16]}}
    raw["training"] |= {"balancing": {"name": balancing}, "regime": {"name": regime}, "checkpoint_every": 100}
    return Submission.model_validate(raw)


@cache
def splits() -> Any:
    return open_data(submission("hard", "equal", "joint"))


def test_the_combinations_cover_every_pair() -> None:
    for first, second in ((0, 1), (0, 2), (1, 2)):
        wanted = [(SHARING, BALANCING, REGIMES)[place] for place in (first, second)]
        assert {(one[first], one[second]) for one in COMBINATIONS} == set(product(*wanted))


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_suite")
@pytest.mark.parametrize("sharing", SHARING)
def test_it_trains(tmp_path: Path, sharing: str) -> None:
    for number, (_, balancing, regime) in enumerate(one for one in COMBINATIONS if one[0] == sharing):
        wanted = submission(sharing, balancing, regime)
        seed_everything(0)
        network: MultiTaskNetwork = build_network(wanted, splits())
        data: dict[str, TaskData] = {name: task_data(wanted, 0, splits(), name, True) for name in wanted.cards()}
        before = {name: value.clone() for name, value in network.state_dict().items()}
        progress = train(wanted, network, Engine("32"), data, tmp_path / str(number), Reporter(quiet=True))
        what = f"{sharing}, {balancing}, {regime}"
        assert progress.step == {"joint": 2, "mt_dnn": 2, "continual": 2, "sequential": 3, "curriculum": 3}[regime], (
            what
        )
        losses = {name for name in progress.curves if name.startswith("loss/shapes")}
        assert losses == {"loss/shapes-classification", "loss/shapes-segmentation"}, what
        moved = [name for name, value in network.state_dict().items() if not torch.equal(value, before[name])]
        assert any(name.startswith("heads.") for name in moved), what
        assert any(name.startswith("shared.") for name in moved), what
