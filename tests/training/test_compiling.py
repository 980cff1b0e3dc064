"""torch.compile of what the tasks share."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tests_support import document

from harness.errors import HarnessError
from harness.models.network import MultiTaskNetwork
from harness.progress import Reporter
from harness.run_data import build_network, open_data, selection_data, task_data
from harness.submission import Submission
from harness.training.compiling import compiled
from harness.training.engine import Engine
from harness.training.loop import seed_everything, train
from harness.training.state import Progress

pytestmark = pytest.mark.usefixtures("tiny_suite")


def trained(folder: Path, **training: Any) -> tuple[MultiTaskNetwork, Progress]:
    raw = document()
    raw["training"] |= {"log_every": 1} | training
    submission = Submission.model_validate(raw)
    splits = open_data(submission)
    seed_everything(0)
    network = build_network(submission, splits)
    data = {name: task_data(submission, 0, splits, name, training=True) for name in splits.train}
    looked_at = {name: selection_data(submission, 0, splits, name) for name in splits.selection}
    progress = train(submission, network, Engine("32"), data, folder, Reporter(quiet=True), selection_data=looked_at)
    return network, progress


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="needs a C++ compiler")
def test_compiled_losses_agree_with_those_that_are_not(tmp_path: Path) -> None:
    torch.compiler.reset()
    torch._dynamo.utils.counters.clear()  # reset() keeps what other tests of this process compiled
    _, plain = trained(tmp_path / "a")
    with torch._dynamo.config.patch(error_on_recompile=True):  # one program serves all steps
        network, progress = trained(tmp_path / "b", compile=True, selection={"every": 3})
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1  # and nothing in it runs uncompiled
    for name, curve in plain.curves.items():
        assert [value for _, value in progress.curves[name]] == pytest.approx([value for _, value in curve], rel=1e-3)
    assert "forward" not in vars(network.shared)  # predictions are made as written


def test_without_a_compiler_it_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    submission = Submission.model_validate(document())
    network = build_network(submission, open_data(submission))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(HarnessError, match=r"training.compile: there is no C\+\+ compiler"), compiled(network, True):
        pass
    with compiled(network, False):
        pass
