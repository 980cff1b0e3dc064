"""A study from its file to its report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.board.text import duration
from harness.studies import page
from harness.studies.power import seeds_needed
from harness.studies.report import report
from harness.studies.run import Runner, submissions
from harness.studies.spec import Arm, Study, arms_of, load_study


@dataclass(frozen=True)
class Prepared:
    """A study whose submissions are all valid.

    Attributes:
        study: The study.
        arms: Its arms, by name.
        files: The submissions to run, those of single tasks too.
        folder: Where they lie.
    """

    study: Study
    arms: dict[str, Arm]
    files: list[Path]
    folder: Path


def prepare(file: Path, seeds: Sequence[int] | None, overrides: Sequence[str], board: Path, runs: Path) -> Prepared:
    """Read a study and write its submissions into the folder of runs.

    Args:
        file: The study's YAML file.
        seeds: Seeds instead of the file's.
        overrides: ``a.b=value`` texts that hold for every arm.
        board: The leaderboard's folder.
        runs: Folder of run folders.

    Raises:
        HarnessError: The study or one of its submissions is not valid.
    """
    study = load_study(file)
    arms = arms_of(study, file, tuple(seeds) if seeds is not None else None, tuple(overrides))
    folder = runs / "studies" / study.name
    return Prepared(study, arms, submissions(arms, folder, study.single_tasks, board), folder)


def execute(prepared: Prepared, runner: Runner) -> list[str]:
    """Train what is missing; where the study has a rule for stopping, seed by seed until it is met.

    Args:
        prepared: The study.
        runner: How and where; returns and raises as its `train`.
    """
    study, arms = prepared.study, prepared.arms
    if study.stop is None:
        return runner.train(prepared.files)
    most = max(len(arm.submission.seeds) for arm in arms.values())
    running = set(arms)
    for seeds in range(min(study.stop.after, most), most + 1):
        part = {name: first_seeds(arm, seeds) for name, arm in arms.items() if name in running}
        failed = runner.train(submissions(part, prepared.folder, study.single_tasks, runner.board))
        if failed or seeds == most:
            return failed
        running = unsettled(prepared, runner.board)
        for name in sorted(set(part) - running):
            if seeds < len(arms[name].submission.seeds):
                runner.reporter.say(
                    f"{study.name}: {name} stops after {seeds} seeds: more would hardly change what is said"
                )
        if not running:
            break
    return []


def first_seeds(arm: Arm, seeds: int) -> Arm:
    """An arm with its first seeds only."""
    return Arm(arm.name, arm.submission.model_copy(update={"seeds": arm.submission.seeds[:seeds]}))


def unsettled(prepared: Prepared, board: Path) -> set[str]:
    """The arms that need more seeds: those of which something else may yet be said, and what they are compared with."""
    study = prepared.study
    documents = report(study, prepared.arms, board)["arms"]
    open_ = {one["arm"] for one in documents if one["missing_seeds"] and one["against"] and not one["stopped"]}
    compared = {study.references()[name] for name in open_}
    claimed = {name for claim in study.claims if claim.arm in open_ for name in (claim.arm, *claim.beats)}
    return open_ | compared | claimed


def conclude(prepared: Prepared, board: Path) -> tuple[dict[str, Any], list[Path]]:
    """The report, which also lies under ``studies/`` on the board then, and its files.

    Raises:
        HarnessError: Statistics are missing or damaged.
    """
    made = report(prepared.study, prepared.arms, board)
    return made, page.write(made, board / "studies" / prepared.study.name)


def sentence(prepared: Prepared, expected: dict[str, Any]) -> str:
    """What is missing and what it costs, in words."""
    study = prepared.study
    text = f"{study.name}: {expected['runs']} runs, {expected['done']} done, {expected['missing']} to do"
    if not expected["missing"]:
        return text
    if study.stop is not None:
        text += ", or fewer if seeds settle it early"
    if expected["seconds"] is not None:
        return f"{text}, about {duration(expected['seconds'])} one after another"
    if study.hours is not None:
        return f"{text}, about {study.hours * expected['missing']:,.0f} accelerator hours ({study.hours:g} for each)"
    return f"{text}; what they cost is known after the first"


def seeds_to_see(prepared: Prepared) -> list[str]:
    """How many seeds the study's claims need, in words, where it says what is expected."""
    study = prepared.study
    claims = max(1, len(study.claims))
    sentences = []
    for card, one in study.expected.items():
        needed = seeds_needed(one.effect, one.spread, claims * len(study.expected))
        words = f"{needed} paired seeds" if needed is not None else "more than a thousand seeds"
        sentences.append(
            f"{card}: to see {100 * one.effect:+.1f} points with 80% power takes {words}, if the difference scatters by"
            f" {100 * one.spread:.2f} points from seed to seed"
        )
    return sentences
