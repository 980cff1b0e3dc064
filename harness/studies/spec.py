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
from harness.single_task import single_task
from harness.submission import Seed, Submission, load_submission, read_control

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._]{0,39}$")]
Changes = dict[str, Any]
MAX_ARMS = 1000


class Claim(Section):
    """What a study is to decide, stated beforehand.

    Attributes:
        claim: In a sentence.
        arm: It says that this arm is better
        beats: than each of these: the plain network first, then the controls.
    """

    claim: str = Field(min_length=1, max_length=300)
    arm: Name
    beats: tuple[Name, ...] = Field(min_length=1)


class Interaction(Section):
    """Whether a change does more in one setting than in another, such as in a network of several tasks than of one.

    Attributes:
        question: In a sentence.
        more: The arm with the change and the one without it, where it should do more
        than: and where it should do less.
    """

    question: str = Field(min_length=1, max_length=300)
    more: tuple[Name, Name]
    than: tuple[Name, Name]


class Stop(Section):
    """When an arm gets no more seeds.

    Attributes:
        after: Seeds that every arm gets in any case.
        risk: No more are run where the probability is at most this that they would change what is said of the arm.
    """

    after: int = Field(default=3, ge=2)
    risk: float = Field(default=0.05, gt=0, lt=0.5)


class Expected(Section):
    """What is expected on a task beforehand, in fractions of 1.

    Attributes:
        effect: The difference to be seen.
        spread: Standard deviation of the paired difference from seed to seed.
    """

    effect: float = Field(gt=0, lt=1)
    spread: float = Field(gt=0, lt=1)


class Study(Section):
    """Arms that differ in one thing each, and the baseline that they are compared with.

    Attributes:
        name: What reports and entries are called.
        description: The question, in a sentence.
        base: The submission that all arms start from, relative to the study's file.
        seeds: Every arm is trained with each of them.
        arms: Changes by arm, as `--set` takes them: ``{mmoe: {model.sharing.name: mmoe}}``; ``{}`` changes nothing.
            ``seeds`` among them replaces the study's, ``alone: <data set>`` takes that task by itself.
        grid: Every combination of one level of each factor is an arm, too, called after its levels:
            ``{sharing: {hard: {}, mmoe: {...}}, balancing: {equal: {}, dwa: {...}}}``.
        baseline: The arm that all others are compared with,
        against: but for these: arm → the one that it is compared with instead.
        claims: What the study is to decide.
        interactions: Differences of differences.
        stop: When an arm gets no more seeds; None: it gets all.
        expected: By data set, for the number of seeds that a claim needs.
        hours: Accelerator hours of one run, where nothing on the board tells what a run costs.
        single_tasks: Also train each task alone, for Δm against single-task models.
    """

    name: Name
    description: str = Field(default="", max_length=1000)
    base: str
    seeds: tuple[Seed, ...] = Field(default=(0, 1, 2), min_length=1)
    arms: dict[Name, Changes] = Field(default_factory=dict)
    grid: dict[Name, dict[Name, Changes]] = Field(default_factory=dict)
    baseline: str
    against: dict[Name, Name] = Field(default_factory=dict)
    claims: tuple[Claim, ...] = ()
    interactions: tuple[Interaction, ...] = ()
    stop: Stop | None = None
    expected: dict[str, Expected] = Field(default_factory=dict)
    hours: float | None = Field(default=None, gt=0)
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
        named = [("against", one) for pair in self.against.items() for one in pair]
        named += [("claims", one) for claim in self.claims for one in (claim.arm, *claim.beats)]
        named += [("interactions", one) for asked in self.interactions for one in (*asked.more, *asked.than)]
        for place, name in named:
            if name not in changes:
                raise ValueError(f"{place}: {name!r} is not an arm{suggestion(name, changes, '')}")
        if self.baseline in self.against:
            raise ValueError(f"against: {self.baseline!r} is the baseline, which is compared with nothing")
        for arm, other in self.references().items():
            if arm == other:
                raise ValueError(f"against: {arm!r} cannot be compared with itself")
        for claim in self.claims:
            if claim.arm in claim.beats:
                raise ValueError(f"claims: {claim.arm!r} cannot beat itself")
        self._check_seeds(changes)
        return self

    def _check_seeds(self, changes: Mapping[str, Changes]) -> None:
        """See to it that an arm's own seeds are seeds, and that a rule for stopping can ever stop an arm."""
        most = len(self.seeds)
        for name, own in changes.items():
            seeds = own.get("seeds", list(self.seeds))
            if not _are_seeds(seeds):
                place = f"arms.{name}.seeds" if name in self.arms else f"grid: seeds of {name}"
                raise ValueError(f"{place}: {seeds!r} is not a list of different whole numbers, such as [0, 1, 2]")
            most = max(most, len(seeds))
        if self.stop is not None and self.stop.after >= most:
            raise ValueError(
                f"stop.after: {self.stop.after}, but no arm has more than {most} seeds, so none would ever be stopped;"
                " name more seeds, or leave stop out"
            )

    def references(self) -> dict[str, str]:
        """The arm that each arm is compared with; the baseline is compared with none."""
        return {name: self.against.get(name, self.baseline) for name in self.changes() if name != self.baseline}

    def combinations(self) -> dict[str, dict[str, str]]:
        """The arms of the grid, each with its level of every factor."""
        levels = product(*self.grid.values()) if self.grid else ()
        return {"-".join(one): dict(zip(self.grid, one, strict=True)) for one in levels}

    def changes(self) -> dict[str, Changes]:
        """What each arm changes in the base, by arm.

        Raises:
            ValueError: Two arms have a name in common, or two factors change the same key.
        """
        found = dict(self.arms)
        for name, levels in self.combinations().items():
            merged: Changes = {}
            for factor, level in levels.items():
                changes = self.grid[factor][level]
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
        own = changes.get("seeds", list(study.seeds))
        entry = {"name": f"{study.name}-{name}", "seeds": list(seeds) if seeds else own}
        alone = changes.get("alone")
        values = {key: value for key, value in changes.items() if key != "alone"}
        try:
            base = path.parent / study.base
            if alone is not None and values.get("control", read_control(base, overrides)) == "equal_compute":
                raise HarnessError(
                    "control: equal_compute: with alone it would get the steps that tokens cost among all tasks; leave"
                    " control out and give training.steps"
                )
            submission = load_submission(base, overrides, {**values, **entry})
            submission = submission.model_copy(update={"name": entry["name"]})  # a control would add its own
            if alone is not None:
                submission = _alone(submission, alone)
        except HarnessError as error:
            raise HarnessError(f"{path}: arm {name}: {_blamed(error, path.parent / study.base, overrides)}") from None
        fingerprint = submission.fingerprint()
        if fingerprint in known:
            raise HarnessError(f"{path}: arms {known[fingerprint]} and {name} are the same submission; leave one out")
        known[fingerprint] = name
        found[name] = Arm(name, submission)
    _comparable(path, study, found)
    return found


def _are_seeds(value: Any) -> bool:
    if not isinstance(value, list) or not all(type(one) is int and 0 <= one < 2**31 for one in value):
        return False
    return 0 < len(value) == len(set(value))


def _blamed(error: HarnessError, base: Path, overrides: tuple[str, ...]) -> str:
    """What is wrong with an arm; its base is named only where that is not valid by itself."""
    try:
        load_submission(base, overrides)
    except HarnessError:
        return str(error)
    return str(error).removeprefix(f"{base}: ")


def _alone(submission: Submission, dataset: Any) -> Submission:
    """One task of an arm, with the arm's tokens."""
    known = [task.dataset for task in submission.tasks]
    if dataset not in known:
        raise HarnessError(f"alone: {dataset!r} is no task of it{suggestion(str(dataset), known, '')}")
    one = single_task(submission, dataset, tokens=True)
    return one.model_copy(update={"name": submission.name, "description": submission.description})


def _comparable(path: Path, study: Study, arms: Mapping[str, Arm]) -> None:
    pairs = [*study.references().items(), *((claim.arm, other) for claim in study.claims for other in claim.beats)]
    for name, other in pairs:
        sides = [{task.dataset for task in arms[arm].submission.tasks} for arm in (name, other)]
        if not set.intersection(*sides):
            raise HarnessError(f"{path}: arm {name} has no task in common with {other}, which it is compared with")
    for asked in study.interactions:
        names = (*asked.more, *asked.than)
        if not set.intersection(*({task.dataset for task in arms[arm].submission.tasks} for arm in names)):
            raise HarnessError(f"{path}: interactions: {', '.join(names)} have no task in common: {asked.question!r}")
    known = {task.dataset for arm in arms.values() for task in arm.submission.tasks}
    for card in study.expected:
        if card not in known:
            raise HarnessError(f"{path}: expected: {card!r} is no task of this study{suggestion(card, known, '')}")
