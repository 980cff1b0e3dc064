"""The sharing section: names, keys, documentation, and fingerprints that stay."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tests_support import batches, document

from harness.documents import parse
from harness.errors import HarnessError
from harness.models.config import ModelConfig
from harness.models.network import PENALTY, MultiTaskNetwork, TaskSpec
from harness.models.sharing import SHARING
from harness.submission import load_submission

ROOT = Path(__file__).parents[2]
SPECS = {
    "c": TaskSpec("classification", 5),
    "d": TaskSpec("detection", 3),
    "s": TaskSpec("segmentation", 4),
    "v": TaskSpec("vqa", 7, words=10),
}
SNIPPETS = [
    yaml.safe_load(text)["model"]["sharing"]
    for text in re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "sharing.md").read_text(), re.DOTALL)
]


def network(sharing: dict[str, Any]) -> MultiTaskNetwork:
    model = document(4)["model"] | {"sharing": sharing}
    return MultiTaskNetwork(parse(ModelConfig, model, "a.yaml"), SPECS)


@pytest.mark.parametrize("sharing", SNIPPETS, ids=lambda one: one["name"])
def test_every_example_of_the_documentation_makes_a_network_without_memory(sharing: dict[str, Any]) -> None:
    with torch.device("meta"):
        network(sharing)


def test_every_architecture_is_documented() -> None:
    page = (ROOT / "docs" / "sharing.md").read_text()
    assert all(f"`{name}`" in page for name in SHARING)


@pytest.mark.parametrize(
    ("sharing", "message"),
    [
        ({"name": "mmeo"}, r"'mmeo' is unknown; did you mean 'mmoe'\?"),
        ({"name": "mmoe", "levels": 2}, "unknown key 'levels'"),
        ({"name": "hard", "experts": 2}, "unknown key 'experts'"),
        ({"name": "mmoe", "experts": 0}, "experts"),
        ({"name": "dynamic_routing", "temperature": 0}, "temperature"),
    ],
)
def test_what_an_architecture_does_not_have_is_refused(sharing: dict[str, Any], message: str) -> None:
    with pytest.raises(HarnessError, match=message):
        network(sharing)


@pytest.mark.parametrize(
    ("baseline", "fingerprint"),
    [
        ("shapes-placeholder", "5941af1f068f"),
        ("shapes-plain", "66c4cd6e5701"),
        ("shapes-question-only", "590038ac293a"),
        ("shapes-vit", "fb4af9ba1718"),
    ],
)
def test_submissions_that_share_hard_keep_their_fingerprints(baseline: str, fingerprint: str) -> None:
    assert load_submission(ROOT / "baselines" / f"{baseline}.yaml").fingerprint() == fingerprint


@pytest.mark.parametrize("name", ["sluice", "dynamic_routing"])
def test_a_penalty_comes_with_the_losses_and_is_not_shared_out(name: str) -> None:
    net = network({"name": name})
    whole, parts = net(batches()), net(batches(), dict.fromkeys(SPECS, 0.5))
    assert torch.equal(parts[PENALTY], whole[PENALTY])
    assert whole[PENALTY].requires_grad


def test_an_architecture_without_a_penalty_gives_the_losses_alone() -> None:
    assert list(network({"name": "mmoe"})(batches())) == list(batches())
