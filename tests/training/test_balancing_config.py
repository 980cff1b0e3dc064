"""The balancing section: its names and options, its documentation, and what it does to fingerprints."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from tests_support import document

from harness.documents import parse
from harness.errors import HarnessError
from harness.registry import look_up
from harness.submission import Submission, load_submission
from harness.training.balancing import BALANCING
from harness.training.balancing.base import Setting, build_balancer
from harness.training.balancing.config import ASKING
from harness.training.config import TrainingConfig

ROOT = Path(__file__).parents[2]
DOCS = (ROOT / "docs/balancing.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", BALANCING)
def test_the_documentation_has_a_section_with_a_snippet_that_builds_the_method(name: str) -> None:
    section = re.search(rf"^### {name}\n(.*?)(?=^##|\Z)", DOCS, re.MULTILINE | re.DOTALL)
    assert section is not None
    (snippet,) = re.findall(r"```yaml\n(.*?)```", section[1], re.DOTALL)
    training = TrainingConfig.model_validate(yaml.safe_load(snippet)["training"])
    assert training.balancing.name == name
    written = yaml.safe_load(snippet)["training"]["balancing"]
    assert set(written) == set(type(training.balancing).model_fields)  # every option is shown
    build_balancer(training.balancing, Setting({"a": 1.0, "b": 1.0}))


def test_the_methods_that_ask_what_a_loss_reaches_are_named() -> None:
    """Whoever reads submissions knows names only, for methods are loaded with torch."""
    methods = {name: look_up(BALANCING, name, "balancing method") for name in BALANCING}
    assert {name for name, method in methods.items() if method.by_task or method.watches} == set(ASKING)


def test_every_snippet_of_the_documentation_is_valid() -> None:
    snippets = re.findall(r"```yaml\n(.*?)```", DOCS, re.DOTALL)
    assert len(snippets) == len(BALANCING) + 1
    for snippet in snippets:
        TrainingConfig.model_validate(yaml.safe_load(snippet)["training"])


def test_shown_options_are_the_defaults_but_for_an_epoch() -> None:
    for snippet in re.findall(r"```yaml\n(.*?)```", DOCS, re.DOTALL):
        written = yaml.safe_load(snippet)["training"]["balancing"]
        default = TrainingConfig.model_validate({"steps": 1, "balancing": {"name": written["name"]}}).balancing
        assert default.model_dump() == written | ({"epoch": None} if "epoch" in written else {})


@pytest.mark.parametrize(
    ("balancing", "sentence"),
    [
        ({"name": "gradnrm"}, "did you mean 'gradnorm'"),
        ({"name": "gradnorm", "alhpa": 1}, "unknown key 'alhpa'; did you mean 'alpha'"),
        ({"name": "equal", "alpha": 1}, "unknown key 'alpha'"),
        ({"name": "gradnorm", "alpha": -1}, "greater than or equal to 0, got -1"),
        ({"name": "cagrad", "c": 1}, "less than 1"),
        ({"name": ["a"]}, "is unknown"),
        ("gradnorm", "gradnorm"),
    ],
)
def test_what_is_wrong_is_one_sentence(balancing: Any, sentence: str) -> None:
    raw = document()
    raw["training"]["balancing"] = balancing
    with pytest.raises(HarnessError) as error:
        parse(Submission, raw, "a.yaml")
    assert str(error.value).startswith("a.yaml: training.balancing")
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_a_section_without_a_name_is_the_default_one() -> None:
    assert TrainingConfig.model_validate({"steps": 1, "balancing": {}}).balancing.name == "equal"
    with pytest.raises(ValidationError):
        TrainingConfig.model_validate({"steps": 1, "balancing": None})


def test_submissions_from_before_there_were_options_keep_their_fingerprints() -> None:
    """As they were computed by the version that had equal, manual and uncertainty only."""
    known = {
        "shapes-coatnet": "6ace362f3d8e",
        "shapes-placeholder": "5941af1f068f",
        "shapes-plain": "66c4cd6e5701",
        "shapes-question-only": "590038ac293a",
        "shapes-vit": "fb4af9ba1718",
    }
    baselines = {name: load_submission(ROOT / f"baselines/{name}.yaml") for name in known}
    assert all(one.training.science()["balancing"] == {"name": "equal"} for one in baselines.values())
    assert {name: one.fingerprint() for name, one in baselines.items()} == known


def test_options_change_the_fingerprint_and_looking_at_gradients_does_not() -> None:
    def fingerprint(**training: Any) -> str:
        raw = document()
        raw["training"] |= training
        return Submission.model_validate(raw).fingerprint()

    alphas = {fingerprint(balancing={"name": "gradnorm", "alpha": alpha}) for alpha in (1.0, 1.5)}
    assert len(alphas | {fingerprint(balancing={"name": "gradnorm"})}) == 2
    assert fingerprint(log_gradients=3) == fingerprint()


def test_the_schema_of_the_section_needs_no_torch() -> None:
    code = "import sys, harness.training.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
