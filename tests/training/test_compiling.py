"""torch.compile of what the tasks share."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from tests_support import batches, document

from harness.errors import HarnessError
from harness.models.config import ModelConfig
from harness.models.network import MultiTaskNetwork, TaskSpec
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


@pytest.mark.slow
def test_compiled_losses_have_gradients_of_zeros_in_what_they_do_not_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is why what asks for that is refused together with it; should torch change, it need not be."""
    torch.compiler.reset()
    torch.manual_seed(0)
    network = MultiTaskNetwork(ModelConfig.model_validate(document(0)["model"]), {"s": TaskSpec("segmentation", 4)})
    unread = dict(network.named_parameters())["shared.trunk.backbone.body.layer4.0.conv1.weight"]
    batch = {"s": batches()["s"]}
    network(batch)["s"].backward()
    assert unread.grad is None
    compiler = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function: compiler(function, backend="aot_eager"))
    monkeypatch.setattr(shutil, "which", lambda name: name)  # this backend needs no C++ compiler
    with compiled(network, True):
        network(batch)["s"].backward()
    assert unread.grad is not None
    assert not unread.grad.any()


@pytest.mark.parametrize(
    ("section", "change", "what"),
    [
        ("training", {"balancing": {"name": "mgda"}}, "training.balancing: mgda"),
        ("training", {"balancing": {"name": "gradnorm"}}, "training.balancing: gradnorm"),
        ("training", {"regime": {"name": "mt_dnn"}}, "training.regime: mt_dnn"),
        ("training", {"log_gradients": 5}, "training.log_gradients"),
        ("training", {"log_affinity": 5}, "training.log_affinity"),
        (
            "training",
            {"placeholders": {"substitution": {"strategy": "adaptive"}}},
            "training.placeholders.substitution: adaptive",
        ),
        ("model", {"sharing": {"name": "soft"}}, "model.sharing: soft"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_asks_which_weights_a_task_reaches_is_not_compiled(
    section: str, change: dict[str, Any], what: str
) -> None:
    raw = document()
    raw[section] |= change
    Submission.model_validate(raw)
    raw["training"]["compile"] = True
    with pytest.raises(ValidationError, match=f"training.compile: does not go with {what}, for which it matters"):
        Submission.model_validate(raw)
