"""The result of a check."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from harness.data.checking.findings import SEVERITIES, Finding, Severity


@dataclass(frozen=True)
class SplitReport:
    """What was looked at in one split.

    Attributes:
        counts: Numbers of images, boxes, questions and so on.
        read: Files that were read and decoded in this check.
        reused: Files that had not changed since an earlier check read them.
    """

    counts: dict[str, int]
    read: int
    reused: int


@dataclass(frozen=True)
class CardReport:
    """What was looked at in one data set.

    Attributes:
        name: The card's name.
        task: Its task.
        adapter: Its file layout.
        root: Its folder.
        splits: What was looked at in each split.
        archives: The archives that were there and verified.
    """

    name: str
    task: str
    adapter: str
    root: str
    splits: dict[str, SplitReport]
    archives: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """The result of a check.

    Attributes:
        cards: What was looked at.
        findings: What was found: by data set, errors first, then by code, split, file and id.
    """

    cards: tuple[CardReport, ...]
    findings: tuple[Finding, ...]

    def count(self, severity: Severity) -> int:
        """Number of findings of a severity."""
        return sum(finding.severity == severity for finding in self.findings)

    @property
    def clean(self) -> bool:
        """Whether there is neither an error nor a warning. Notes do not count."""
        return not self.count("error") and not self.count("warning")

    def to_json(self) -> dict[str, Any]:
        """The report as a document; docs/data-check.md describes it."""
        return {
            "cards": [
                {
                    "card": card.name,
                    "task": card.task,
                    "adapter": card.adapter,
                    "root": card.root,
                    "archives": list(card.archives),
                    "splits": {
                        name: {"counts": split.counts, "files_read": split.read, "files_unchanged": split.reused}
                        for name, split in card.splits.items()
                    },
                }
                for card in self.cards
            ],
            "findings": [finding.to_json() for finding in self.findings],
            "summary": {
                "clean": self.clean,
                **{f"{severity}s": self.count(severity) for severity in SEVERITIES},
                "by_code": dict(sorted(Counter(finding.code for finding in self.findings).items())),
            },
        }


def in_order(findings: list[Finding], cards: list[str], splits: list[str]) -> tuple[Finding, ...]:
    """Findings sorted so that two checks of the same data give the same report."""

    def key(finding: Finding) -> tuple[object, ...]:
        return (
            cards.index(finding.card),
            SEVERITIES.index(finding.severity),
            finding.code,
            splits.index(finding.split) if finding.split else -1,
            finding.file,
            len(finding.id),  # numbers by value
            finding.id,
            finding.message,
        )

    return tuple(sorted(findings, key=key))
