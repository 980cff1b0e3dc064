"""What `harness validate` reports of a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tests_support import document

from harness.errors import HarnessError
from harness.progress import Reporter
from harness.run_data import build_network, open_data
from harness.runs import run
from harness.submission import load_submission
from harness.training.checkpoints import NEWEST
from harness.validation import check


@pytest.mark.usefixtures("tiny_suite")
def test_parts_hold_every_parameter_once_and_tell_what_is_frozen(tiny_submission: Path) -> None:
    report = check(tiny_submission, ["model.backbone.frozen=2"])
    submission = load_submission(tiny_submission, ["model.backbone.frozen=2"])
    network = build_network(submission, open_data(submission))
    assert sum(report["parameters"].values()) == sum(p.numel() for p in network.parameters())
    assert {part for part in report["parameters"] if not part.startswith("head ")} == {
        "backbone",
        "neck",
        "placeholders",
        "text",
    }
    frozen = {part: count - report["trainable"][part] for part, count in report["parameters"].items()}
    body = network.shared.trunk.backbone.body  # type: ignore[union-attr]
    assert frozen.pop("backbone") == sum(p.numel() for p in body.parameters() if not p.requires_grad) > 0
    assert not any(frozen.values())


@pytest.mark.usefixtures("tiny_suite")
def test_stages_strides_and_sites_are_told_with_where_they_attach(tiny_submission: Path) -> None:
    report = check(tiny_submission)
    assert [(stage["module"], stage["stride"]) for stage in report["stages"]] == [
        ("act1", 2),
        ("layer1", 4),
        ("layer2", 8),
        ("layer3", 16),
        ("layer4", 32),
    ]
    assert report["strides"] == [8, 16]
    rows = {row["site"]: row for row in report["attachments"]}
    assert list(rows) == report["sites"]
    assert (rows["backbone.layer4"]["stride"], rows["backbone.layer4"]["what"]) == (32, "ExchangeSite")
    assert sum(row["parameters"] for row in rows.values()) + 4 * 16 == report["parameters"]["placeholders"]
    assert check(tiny_submission, ["model.placeholders.count=0"])["attachments"] == []


@pytest.mark.usefixtures("tiny_suite")
def test_adapters_are_reported_with_the_parameters_of_the_exchange_that_they_stand_for(tiny_submission: Path) -> None:
    tokens = check(tiny_submission)["attachments"]
    adapters = check(tiny_submission, ["model.placeholders.adapter=true"])["attachments"]
    assert [row["exchange_parameters"] for row in adapters] == [row["parameters"] for row in tokens]
    assert all("exchange_parameters" not in row for row in tokens)
    assert all(row["what"].startswith("Adapter of width ") for row in adapters)
    assert [row["site"] for row in adapters] == [row["site"] for row in tokens]


@pytest.mark.usefixtures("tiny_suite")
@pytest.mark.parametrize("regime", ["sequential", "curriculum"])
def test_too_few_steps_for_a_regime_are_told_before_training(tiny_submission: Path, regime: str) -> None:
    with pytest.raises(HarnessError, match=f"training.steps: 3 batches .* too few for the regime {regime}"):
        check(tiny_submission, ["training.steps=3", f"training.regime.name={regime}"])


@pytest.mark.usefixtures("tiny_suite")
def test_a_smoke_run_that_is_too_short_for_a_regime_blames_the_limit(tiny_submission: Path) -> None:
    changes = ["training.steps=100", "training.regime.name=curriculum"]
    check(tiny_submission, changes)
    with pytest.raises(HarnessError, match=r"take 12 at least; evaluation.limit: 8 \(--limit\) leaves so few of"):
        check(tiny_submission, [*changes, "evaluation.limit=8"])


def unshared(tmp_path: Path, **changes: Any) -> Path:
    """Classification and segmentation without tokens, balanced by GradNorm."""
    raw = document(0)
    raw["tasks"] = [
        task for task in raw["tasks"] if task["dataset"] in ("shapes-classification", "shapes-segmentation")
    ]
    raw["model"] |= changes.get("model", {})
    raw["model"]["backbone"] |= changes.get("backbone", {})
    raw["training"] |= {"balancing": {"name": "gradnorm"}} | changes.get("training", {})
    path = tmp_path / "unshared.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


NOTHING = "gradnorm found no weight that shapes-classification, shapes-segmentation all reach; share some"


@pytest.mark.usefixtures("tiny_suite")
@pytest.mark.parametrize(
    "changes",
    [
        {"model": {"sharing": {"name": "single"}}},
        {"model": {"sharing": {"name": "single"}}, "training": {"regime": {"name": "sequential"}}},
        {"backbone": {"frozen": "all"}},
    ],
    ids=["single", "in a later stage", "frozen"],
)
def test_gradnorm_is_refused_where_the_tasks_of_a_step_share_no_weight(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(HarnessError, match=NOTHING):
        check(unshared(tmp_path, **changes))


@pytest.mark.usefixtures("tiny_suite")
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model": {"sharing": {"name": "single"}, "placeholders": document(4)["model"]["placeholders"]}},
        {"model": {"sharing": {"name": "single"}}, "training": {"regime": {"name": "continual"}}},
        {"training": {"placeholders": {"substitution": {"strategy": "random"}}}},
    ],
    ids=["hard", "tokens", "one task a step", "substitution"],
)
def test_gradnorm_is_let_through_where_they_do_and_nothing_is_drawn_for_it(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    state = torch.get_rng_state()
    check(unshared(tmp_path, **changes))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.usefixtures("tiny_suite")
def test_a_run_is_refused_before_its_first_step_though_a_later_stage_is_at_fault(tmp_path: Path) -> None:
    changes = {"model": {"sharing": {"name": "single"}}, "training": {"regime": {"name": "sequential"}}}
    submission = load_submission(unshared(tmp_path, **changes))
    with pytest.raises(HarnessError, match=NOTHING):
        run(submission, 0, tmp_path / "runs", tmp_path / "board", Reporter(quiet=True))
    assert not list((tmp_path / "runs").rglob(NEWEST))


@pytest.mark.usefixtures("tiny_suite")
def test_gradient_checkpointing_that_training_would_refuse_is_refused(tiny_submission: Path) -> None:
    masked = [
        "model.backbone.name=test_vit",
        "model.placeholders.mechanism=prefix_shallow",
        "model.placeholders.masked=true",
    ]
    check(tiny_submission, masked)
    with pytest.raises(HarnessError, match="gradient_checkpointing: blocks of test_vit read the number"):
        check(tiny_submission, [*masked, "training.gradient_checkpointing=true"])
