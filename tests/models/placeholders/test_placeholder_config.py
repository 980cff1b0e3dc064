"""The placeholder section: what is refused and why, and what a fingerprint sees of it."""

from __future__ import annotations

from typing import Any

import pytest
from tests_support import document

from harness.listing import list_rows
from harness.models.config import PlaceholderConfig
from harness.submission import Submission
from harness.training.placeholders.config import PlaceholderTrainingConfig
from harness.training.placeholders.substitution import STRATEGIES

SWITCHES: list[dict[str, Any]] = [
    {"kind": "random"},
    {"kind": "random", "random": "resampled"},
    {"order": "second"},
    {"dynamic": True},
    {"levels": 4},
    {"levels": 4, "opening": "staged"},
    {"modalities": True},
    {"read": False},
    {"write": False},
    {"mechanism": "prefix_deep", "masked": True},
    {"adapter": True},
]
# The keys that fingerprints have always held, of which records are committed.
KNOWN = {
    "count",
    "width",
    "attention_width",
    "heads",
    "stages",
    "mechanism",
    "placement",
    "sharing",
    "frozen",
}


def fingerprint(**changes: Any) -> str:
    raw = document(8)
    raw["model"]["placeholders"] |= changes
    return Submission.model_validate(raw).fingerprint()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"random": "resampled"}, "resampled needs kind: random, not learned"),
        ({"kind": "random", "random": "resampled", "frozen": True}, "keeps the tokens, but random: resampled draws"),
        ({"opening": "staged"}, "levels is 1; raise levels"),
        ({"read": False, "write": False}, "leaves nothing of the tokens; use count: 0"),
        ({"read": False, "order": "second"}, "with read: false there is none"),
        (
            {"mechanism": "prefix_deep", "read": False},
            "read: false: inserted tokens are read and written by the network",
        ),
        ({"placement": "input", "write": False}, "write: false: inserted tokens are read and written by"),
        ({"mechanism": "prefix_shallow", "order": "second"}, "order: second follows the reads of an exchange"),
        ({"masked": True}, "for an exchange use write: false"),
        ({"placement": "output", "order": "second"}, "order: second: .* at the logits nothing is read; use placement"),
        ({"placement": "output", "dynamic": True}, "dynamic: true: an offset is made from features"),
        ({"placement": "output", "levels": 2}, "levels: 2: each task's logits are one site"),
        ({"placement": "output", "modalities": True}, "modalities: true: logits belong to no modality"),
        ({"placement": "output", "read": False}, "read: false: at the logits nothing is read anyway"),
        ({"placement": "output", "write": False}, "write: false: nothing would be left"),
        ({"placement": "output", "masked": True}, "masked: true: there is no prefix"),
        ({"adapter": True, "dynamic": True}, "adapter: true has no tokens, which dynamic: true speaks of"),
        ({"adapter": True, "sharing": "per_task"}, "which sharing: per_task speaks of"),
        ({"adapter": True, "mechanism": "prefix_deep"}, "which mechanism: prefix_deep speaks of"),
        ({"adapter": True, "read": False}, "which read: false speaks of"),
        ({"adapter": True, "frozen": True}, "which frozen: true speaks of"),
    ],
    ids=str,
)
def test_what_cannot_work_together_is_refused_with_the_reason(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PlaceholderConfig(**changes)


def test_a_fingerprint_sees_the_known_keys_always_and_the_others_only_where_they_are_switched_on() -> None:
    assert set(PlaceholderConfig().science()) == KNOWN
    for switch in SWITCHES[1:]:
        assert set(PlaceholderConfig(**switch).science()) == KNOWN | set(switch)


def test_every_switch_changes_the_fingerprint_and_each_in_its_own_way() -> None:
    found = [fingerprint(), *(fingerprint(**switch) for switch in SWITCHES), fingerprint(mechanism="prefix_deep")]
    assert len(set(found)) == len(found)


def test_random_tokens_that_are_drawn_once_are_frozen_tokens_by_another_name() -> None:
    assert fingerprint(kind="random") == fingerprint(frozen=True) == fingerprint(kind="random", frozen=True)


def test_the_plain_network_is_the_same_whatever_its_tokens_would_have_been() -> None:
    plain = fingerprint(count=0)
    assert all(fingerprint(count=0, **switch) == plain for switch in SWITCHES if "mechanism" not in switch)
    assert fingerprint(count=0, frozen=True) != plain  # as it has always been


def test_every_key_is_listed_with_its_values_its_default_and_one_sentence() -> None:
    rows = {row["name"]: row for row in list_rows("placeholders")}
    own = list(PlaceholderConfig.model_fields)
    assert list(rows)[: len(own)] == own
    beside = [f"training.placeholders.{name}" for name in PlaceholderTrainingConfig.model_fields]
    assert list(rows)[len(own) : len(own) + len(beside)] == beside
    assert list(rows)[len(own) + len(beside) :] == [f"substitution {name}" for name in STRATEGIES]
    assert all(row["about"].endswith(".") for row in rows.values())
    assert rows["mechanism"]["values"] == "exchange, prefix_shallow, prefix_deep"
    assert (rows["read"]["values"], rows["read"]["default"]) == ("true, false", "true")
    assert rows["width"]["about"] == "d, the width of a token."
