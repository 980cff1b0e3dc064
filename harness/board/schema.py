"""The schema of a record: the document that holds one run's numbers and everything that they depend on."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from harness.board.fields import CardName, Count, Document, EntryName, Fingerprint, Free, Number, Sha256
from harness.board.migration import SCHEMA_VERSION, migrate
from harness.board.related import Relatedness
from harness.board.task_result import Protocol, Robustness, TaskResult, TrainGap

__all__ = [
    "SCHEMA_VERSION",
    "TRUST",
    "Cost",
    "Protocol",
    "Provenance",
    "Record",
    "Rerun",
    "Robustness",
    "Stage",
    "SubsetRun",
    "TaskResult",
    "TrainGap",
    "Trust",
    "migrate",
]

Trust = Literal["reported", "rescored", "rerun"]
TRUST: tuple[Trust, ...] = ("reported", "rescored", "rerun")  # each proves more than the one before


class Cost(Document):
    """What the numbers cost.

    Attributes:
        parameters: Trainable and frozen parameters of the network that is scored.
        parameters_by_part: The same by part: backbone, placeholders, text, each head; also of what only training needs
            (placeholder objectives, substitution), which the sum leaves out.
        macs: Multiply-accumulates per image, by task.
        train_seconds: Wall time of training, summed over resumed parts.
        evaluation_seconds: Wall time of prediction and scoring.
        train_seconds_by_phase: The same by phase: waiting for data, forward, backward, optimizer, selection. What is
            missing to the whole went into logs and checkpoints.
        steps: Optimizer steps that were taken.
        images_per_second: Training images of all tasks per second of training.
        peak_memory_bytes: Peak resident memory, of the process that needed most.
        peak_gpu_memory_bytes: Peak memory of tensors on a GPU, of the GPU that held most; None without a GPU.
        energy_joules: What the GPUs used in training; None where it cannot be measured.
    """

    parameters: Count | None = None
    parameters_by_part: dict[str, Count] = {}
    macs: dict[str, Count] = {}
    train_seconds: Number = None
    evaluation_seconds: Number = None
    steps: Count | None = None
    images_per_second: Number = None
    peak_memory_bytes: Count | None = None
    train_seconds_by_phase: dict[str, Number] = {}
    peak_gpu_memory_bytes: Count | None = None
    energy_joules: Number = None


class Provenance(Document):
    """Where and when. No host name, user name or absolute path."""

    version: str
    commit: str | None = None
    dirty: bool | None = None
    packages: dict[str, str] = {}
    python: str = ""
    platform: str = ""
    hardware: str = ""
    threads: Count | None = None
    started: str = ""
    finished: str = ""
    command: str = ""


class Stage(Document):
    """One stage of training, under a regime that has several.

    Attributes:
        after: Optimizer steps of the run at its end.
        trained: The tasks that it trained.
        values: Headline number by task on the evaluation split at its end; empty for the last stage, whose numbers are
            the record's own, and where training ended before.
    """

    after: Count
    trained: list[CardName]
    values: dict[CardName, Number] = {}


class SubsetRun(Document):
    """The same recipe on some of the tasks.

    Attributes:
        tasks: Which.
        fingerprint: Of the submission.
    """

    tasks: list[CardName] = Field(min_length=1)
    fingerprint: Fingerprint


class Rerun(Document):
    """An entry's training repeated on a machine of those who keep the board.

    Attributes:
        identical: Whether the per-image statistics of all tasks came out the same, bit for bit.
        values: Headline number of the rerun by task, with the record's own seed.
        rule: By which rule the two agree.
        provenance: Where and when it was trained again.
    """

    identical: bool
    values: dict[CardName, Number]
    rule: str
    provenance: Provenance


class Record(Document):
    """One entry trained with one seed (or one set of predictions handed in), and what came out.

    Attributes:
        schema_version: Of this document.
        name: The entry's name.
        fingerprint: First 12 hex digits of the hash of what defines the run (seed, name and tracking left out).
        seed: The seed.
        submission: The resolved submission, whole; None for predictions handed in.
        tasks: Result by dataset card name.
        weights: SHA-256 of the final weights, if a model was trained.
        selected_step: The step after which they stood, where they were chosen on the selection splits.
        curves: Named learning curves: (step, value) pairs; the value is None where the number was not finite.
        baselines: Fingerprints of the single-task baselines of the same backbone and recipe, by data set.
        subsets: Submissions of the same recipe on one task, two tasks, and all but one: what transfer is made of.
        stages: The stages of training, under a regime that has several.
        relatedness: How alike the tasks are, where the submission asks for it.
        warnings: What a reader must know, e.g. images shared between training and evaluation of two tasks.
        cost: What it cost.
        provenance: Where and when.
        trust: reported by the submitter, rescored from predictions here, or rerun here.
        rerun: What training it again gave, where that was done.
        rankable: Whether the board may rank it.
        unrankable_because: Why not.
    """

    schema_version: int = SCHEMA_VERSION
    name: EntryName
    fingerprint: Fingerprint
    seed: Count
    submission: Free | None = None
    tasks: dict[CardName, TaskResult] = Field(min_length=1)
    weights: Sha256 | None = None
    selected_step: Count | None = None
    curves: dict[str, list[tuple[Count, Number]]] = {}
    baselines: dict[CardName, Fingerprint] = {}
    subsets: list[SubsetRun] = []
    stages: list[Stage] = []
    relatedness: Relatedness | None = None
    warnings: list[str] = []
    cost: Cost = Cost()
    provenance: Provenance
    trust: Trust = "reported"
    rerun: Rerun | None = None
    rankable: bool = True
    unrankable_because: list[str] = []

    @model_validator(mode="after")
    def _consistent(self) -> Record:
        for card, result in self.tasks.items():
            if result.protocol.card != card:
                raise ValueError(f"tasks.{card}.protocol.card: {result.protocol.card!r} must equal the key {card!r}")
        if self.relatedness is not None:
            self.relatedness.require_tasks(self.tasks)
        for name, curve in self.curves.items():
            if name.startswith("cosine/") and any(value is not None and abs(value) > 1.001 for _, value in curve):
                raise ValueError(f"curves: {name!r} holds a number that no cosine is: they lie in [-1, 1]")
        chosen = [frozenset(one.tasks) for one in self.subsets]
        if len(set(chosen)) < len(chosen) or not all(one < self.tasks.keys() for one in chosen):
            raise ValueError("subsets: each must name some of the record's tasks, not all, and no two the same ones")
        if self.rankable == bool(self.unrankable_because):
            raise ValueError("unrankable_because: must give a reason exactly when rankable is false")
        if self.rerun is not None and self.trust != "rerun":
            raise ValueError(f"rerun: is given, but trust is {self.trust!r}; leave it out, or set trust to 'rerun'")
        return self

    @property
    def id(self) -> str:
        """``<name>/<fingerprint>-seed<k>``: the record's folder under ``records/``."""
        return f"{self.name}/{self.fingerprint}-seed{self.seed}"

    @property
    def entry(self) -> str:
        """``<name>@<fingerprint>``: what all seeds of one entry share."""
        return f"{self.name}@{self.fingerprint}"

    def affinity(self) -> dict[str, float]:
        """TAG's affinities, each the mean over the steps at which it was measured (Fifty et al. 2021, section 4).

        Returns:
            By ``<i>|<j>``: above 0, a step for task i lowered the loss of task j. Empty without training.log_affinity.
        """
        return self._means("affinity/")

    def cosines(self) -> dict[str, float]:
        """Cosines of the tasks' gradients, each the mean over the points of its curve (Yu et al. 2020, section 2.3).

        Returns:
            By ``<a>|<b>``, each pair once. Empty where nothing logged them (training.log_gradients).
        """
        return self._means("cosine/")

    def _means(self, prefix: str) -> dict[str, float]:
        curves = {name: curve for name, curve in self.curves.items() if name.startswith(prefix)}
        known = {name: [value for _, value in curve if value is not None] for name, curve in curves.items()}
        return {name.removeprefix(prefix): sum(values) / len(values) for name, values in known.items() if values}

    def backward_transfer(self) -> dict[str, float]:
        """What later stages did to what earlier ones had learned: R_Ti - R_ii for each task i but the last.

        R_ii is its headline number after the stage that trained it first, R_Ti the one in the end; below 0 it was
        forgotten. The mean over tasks is the BWT of Lopez-Paz & Ranzato 2017, section 2 (arXiv:1706.08840). Empty where
        no stage brings in a task that the ones before did not have.
        """
        if len(self.stages) < 2 or set(self.stages[0].trained) >= self.tasks.keys():
            return {}
        found = {}
        for card, result in self.tasks.items():
            values = next((stage.values for stage in self.stages if card in stage.trained), {})
            before = values.get(card)
            if before is not None and result.value is not None:
                found[card] = result.value - before
        return found

    def deterministic(self) -> dict[str, Any]:
        """The document without cost, provenance and trust: equal for equal submission, seed and machine.

        Also without `subsets`, which follow from the submission, and which older records do not name.
        """
        return self.model_dump(mode="json", exclude={"cost", "provenance", "trust", "rerun", "subsets"})
