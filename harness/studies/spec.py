"""The study: one YAML file that names a submission, what is changed in it, and what is compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from harness.documents import Section, load_yaml, parse
from harness.errors import HarnessError, suggestion
from harness.submission import Seed, Submission, load_submission

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._]{0,39}$")]
Changes = dict[str, Any]
MAX_ARMS = 1000


class Study(Section):
    """Arms that differ in one thing each, and the baseline that they are compared with.

    Attributes:
        name: What reports and entries are called.
        description: The question, in a sentence.
        base: The submission that all arms start from, relative to the study's file.
        seeds: Every arm is trained with each of them.
        arms: Changes by arm, as `--set` takes them: ``{mmoe: {model.sharing.name: mmoe}}``; ``{}`` changes nothing.
        grid: Every combination of one level of each factor is an arm, too, called after its levels:
            ``{sharing: {hard: {}, mmoe: {...}}, balancing: {equal: {}, dwa: {...}}}``.
        baseline: The arm that all others are compared with.
        single_tasks: Also train each task alone, for Δm against single-task models.
    """

    name: Name
    description: str = Field(default="", max_length=1000)
    base: str
    seeds: tuple[Seed, ...] = Field(default=(0, 1, 2), min_length=1)
    arms: dict[Name, Changes] = Field(default_factory=dict)
    grid: dict[Name, dict[Name, Changes]] = Field(default_factory=dict)
    baseline: str
    single_tasks: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> Study:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: {list(self.seeds)} names a seed twice")
        for factor, levels in self.grid.items():
            if not levels:
                raise ValueError(f"grid.{factor}: has no levels")
        combinations = 1 if self.grid else 0
        for levels in self.grid.values():
            combinations *= len(levels)
        if combinations + len(self.arms) > MAX_ARMS:
            raise ValueError(f"grid: makes {combinations:,} arms, more than {MAX_ARMS:,}")
        changes = self.changes()
        if len(changes) < 2:
            raise ValueError("arms: a study compares two arms at least")
        if self.baseline not in changes:
            raise ValueError(f"baseline: {self.baseline!r} is not an arm{suggestion(self.baseline, changes, '')}")
        return self

    def changes(self) -> dict[str, Changes]:
        """What each arm changes in the base, by arm.

        Raises:
            ValueError: Two arms have a name in common, or two factors change the same key.
        """
        found = dict(self.arms)
        for levels in product(*(factor.items() for factor in self.grid.values())) if self.grid else ():
            name = "-".join(level for level, _ in levels)
            merged: Changes = {}
            for _, changes in levels:
                twice = merged.keys() & changes.keys()
                if twice:
                    raise ValueError(f"grid: two factors of {name} change {sorted(twice)[0]!r}")
                merged |= changes
            if name in found:
                raise ValueError(f"grid: {name!r} is an arm already")
            found[name] = merged
        return found


@dataclass(frozen=True)
class Arm:
    """One arm of a study.

    Attributes:
        name: Its name in the study.
        submission: What is trained.
    """

    name: str
    submission: Submission


def load_study(path: Path) -> Study:
    """Read a study.

    Raises:
        HarnessError: The file is not valid; the message names file, field and value.
    """
    return parse(Study, load_yaml(path), str(path))


def arms_of(
    study: Study, path: Path, seeds: tuple[int, ...] | None = None, overrides: tuple[str, ...] = ()
) -> dict[str, Arm]:
    """The arms of a study, each as the submission that it is.

    Args:
        study: The study.
        path: Its file, which `base` is relative to.
        seeds: Seeds instead of the study's.
        overrides: As `load_submission` takes them; they hold for every arm and come before its own changes.

    Raises:
        HarnessError: A submission is not valid, or two arms are the same.
    """
    found: dict[str, Arm] = {}
    known: dict[str, str] = {}
    for name, changes in study.changes().items():
        entry = {"name": f"{study.name}-{name}", "seeds": list(seeds or study.seeds)}
        try:
            submission = load_submission(path.parent / study.base, overrides, {**changes, **entry})
        except HarnessError as error:
            raise HarnessError(f"{path}: arm {name}: {error}") from None
        fingerprint = submission.fingerprint()
        if fingerprint in known:
            raise HarnessError(f"{path}: arms {known[fingerprint]} and {name} are the same submission; leave one out")
        known[fingerprint] = name
        found[name] = Arm(name, submission)
    _comparable(path, study, found)
    return found


def _comparable(path: Path, study: Study, arms: Mapping[str, Arm]) -> None:
    base = {task.dataset for task in arms[study.baseline].submission.tasks}
    for name, arm in arms.items():
        if not base & {task.dataset for task in arm.submission.tasks}:
            raise HarnessError(f"{path}: arm {name} has no task in common with the baseline {study.baseline}")
