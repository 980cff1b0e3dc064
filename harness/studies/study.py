"""A study from its file to its report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.board.text import duration
from harness.studies import page
from harness.studies.report import report
from harness.studies.run import submissions
from harness.studies.spec import Arm, Study, arms_of, load_study


@dataclass(frozen=True)
class Prepared:
    """A study whose submissions are all valid.

    Attributes:
        study: The study.
        arms: Its arms, by name.
        files: The submissions to run, those of single tasks too.
    """

    study: Study
    arms: dict[str, Arm]
    files: list[Path]


def prepare(file: Path, seeds: Sequence[int] | None, overrides: Sequence[str], runs: Path) -> Prepared:
    """Read a study and write its submissions into the folder of runs.

    Args:
        file: The study's YAML file.
        seeds: Seeds instead of the file's.
        overrides: ``a.b=value`` texts that hold for every arm.
        runs: Folder of run folders.

    Raises:
        HarnessError: The study or one of its submissions is not valid.
    """
    study = load_study(file)
    arms = arms_of(study, file, tuple(seeds) if seeds is not None else None, tuple(overrides))
    return Prepared(study, arms, submissions(arms, runs / "studies" / study.name, study.single_tasks))


def conclude(prepared: Prepared, board: Path) -> tuple[dict[str, Any], list[Path]]:
    """The report, which also lies under ``studies/`` on the board then, and its files.

    Raises:
        HarnessError: Statistics are missing or damaged.
    """
    made = report(prepared.study, prepared.arms, board)
    return made, page.write(made, board / "studies" / prepared.study.name)


def sentence(prepared: Prepared, expected: dict[str, Any]) -> str:
    """What is missing and what it costs, in words."""
    text = f"{prepared.study.name}: {expected['runs']} runs, {expected['done']} done, {expected['missing']} to do"
    if not expected["missing"]:
        return text
    if expected["seconds"] is None:
        return f"{text}; what they cost is known after the first"
    return f"{text}, about {duration(expected['seconds'])} one after another"
