"""The submission: one YAML file that describes a model, its tasks, its training and its evaluation."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import orjson
from pydantic import Field, field_validator, model_validator

from harness.cards import DatasetCard, load_card
from harness.controls import Control, controlled
from harness.data.config import FEEDING, TaskConfig
from harness.documents import Section, load_yaml, parse, parse_yaml
from harness.errors import HarnessError, suggestion
from harness.models.config import ModelConfig
from harness.models.sharing import SHARING
from harness.models.weight_files import published, published_digest, weights_digest
from harness.training.balancing import BALANCING
from harness.training.combinations import check_combinations
from harness.training.config import EvaluationConfig, TrackingConfig, TrainingConfig
from harness.training.placeholders.objectives.config import TEACHER_WEIGHTS
from harness.training.placeholders.requirements import check_objectives
from harness.training.placeholders.samples_checks import check_samples, check_samples_of_task
from harness.training.regimes import REGIMES

Seed = Annotated[int, Field(ge=0, lt=2**31)]

# Keys of a card that no number depends on.
_ONLY_DESCRIBES = ("root", "title", "license", "homepage", "how_to_get", "citation", "redistributable", "archives")


class Submission(Section):
    """A model, what it is trained on and how.

    Attributes:
        name: The entry's name on the board.
        description: One line for readers of the board.
        model: The network.
        tasks: The tasks that it learns together.
        training: The recipe.
        evaluation: The scoring.
        seeds: Each seed is one run and one record.
        tracking: Experiment tracking.
        control: Make the matched control of this submission instead, called ``<name>-<control>``
            (``harness ls controls``).
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    description: str = Field(default="", max_length=500)
    model: ModelConfig
    tasks: tuple[TaskConfig, ...] = Field(min_length=1)
    training: TrainingConfig
    evaluation: EvaluationConfig = EvaluationConfig()
    seeds: tuple[Seed, ...] = Field(default=(0,), min_length=1)
    tracking: TrackingConfig = TrackingConfig()
    control: Control | None = None

    @field_validator("seeds")
    @classmethod
    def _different(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds):
            raise ValueError(f"seeds: {list(seeds)} names a seed twice")
        return seeds

    @field_validator("tasks", mode="before")
    @classmethod
    def _fed_alike(cls, tasks: Any) -> Any:
        """Fill in how the images of a task are fed that takes those of another."""
        if not isinstance(tasks, (list, tuple)) or not all(isinstance(task, dict) for task in tasks):
            return tasks
        by_name = {str(task.get("dataset")): task for task in tasks}
        leaders = [by_name.get(str(task.get("images_of")), {}) for task in tasks]
        return [
            {**{key: leader[key] for key in FEEDING if key in leader}, **task}
            for task, leader in zip(tasks, leaders, strict=True)
        ]

    @model_validator(mode="after")
    def _known_names(self) -> Submission:
        for field, value, known, listing in (
            ("model.sharing.name", self.model.sharing.name, SHARING, "sharing"),
            ("training.balancing.name", self.training.balancing.name, BALANCING, "balancing"),
            ("training.regime.name", self.training.regime.name, REGIMES, "regimes"),
        ):
            if value not in known:
                raise ValueError(f"{field}: {value!r} is unknown{suggestion(value, known, f'harness ls {listing}')}")
        names = [task.dataset for task in self.tasks]
        if len(set(names)) < len(names):
            raise ValueError("tasks: a dataset is named twice")
        order = self.training.regime.order
        if order is not None and sorted(order) != sorted(names):
            raise ValueError(f"training.regime.order: {list(order)} must name each of the data sets {names} once")
        if self.training.balancing.name != "manual":
            for task in self.tasks:
                if task.weight != 1.0:
                    raise ValueError(
                        f"tasks: {task.dataset} has weight {task.weight}, which only"
                        " training.balancing: {name: manual} uses"
                    )
        for task in self.tasks:
            self._check_images(task)
        check_objectives(self)
        if self.evaluation.train_gap is not None and self.training.on_bad_image == "skip":
            raise ValueError(
                f"evaluation.train_gap: {self.evaluation.train_gap}, but training.on_bad_image: skip says that some"
                " training images may not be readable, and images to be scored are never skipped; set on_bad_image to"
                " stop, or leave train_gap out"
            )
        if self.evaluation.relatedness is not None and len(self.tasks) < 2:
            raise ValueError(
                f"evaluation.relatedness: {self.evaluation.relatedness}, but there is one task only, and it says how"
                " alike two are; leave it out"
            )
        check_samples(self.model, self.training, self.tasks)
        check_combinations(self.model, self.training)
        return self

    def plainly_scored(self) -> Submission:
        """The same without corruptions, train gap and relatedness: what is trained is the same, to the bit."""
        plain = self.evaluation.model_copy(update={"corruptions": None, "train_gap": None, "relatedness": None})
        return self.model_copy(update={"evaluation": plain})

    def _check_images(self, task: TaskConfig) -> None:
        """See to it that a task can take another's images."""
        if task.images_of is None:
            return
        others = {other.dataset: other for other in self.tasks if other is not task and other.images_of is None}
        if task.images_of not in others:
            raise ValueError(
                f"tasks: {task.dataset}: images_of: {task.images_of!r} is no other task with images of its own"
                f"{suggestion(task.images_of, others, '')}"
            )
        for key in FEEDING:
            own, there = getattr(task, key), getattr(others[task.images_of], key)
            if own != there:
                raise ValueError(
                    f"tasks: {task.dataset}: {key}: {own!r}, but it takes the images of {task.images_of}, which is fed"
                    f" with {there!r}; leave {key} out"
                )
        if task.shuffle_labels:
            raise ValueError(
                f"tasks: {task.dataset}: shuffle_labels: with images_of, images are joined to labels by their ids;"
                " leave one of the two out"
            )
        if task.fraction < 1:
            raise ValueError(
                f"tasks: {task.dataset}: fraction: which images are taken depends on a task's own classes; with"
                " images_of all are taken, so leave fraction at 1"
            )

    def leaders(self) -> dict[str, str]:
        """Whose images the tasks take that take another's, by dataset name."""
        return {task.dataset: task.images_of for task in self.tasks if task.images_of is not None}

    def task(self, dataset: str) -> TaskConfig:
        """The task on a data set; each is named by one task at most."""
        return next(task for task in self.tasks if task.dataset == dataset)

    def cards(self) -> dict[str, DatasetCard]:
        """The dataset card of each task, in order.

        Raises:
            HarnessError: A card does not exist or is not valid, or its task cannot be fed as the submission says, or
                there is nothing that it could be selected on.
        """
        cards = {task.dataset: load_card(task.dataset) for task in self.tasks}
        for task in self.tasks:
            task.check(cards[task.dataset].task)
            check_samples_of_task(self.model, self.training, task, cards[task.dataset])
            if self.training.selection is not None:
                _check_selection(cards[task.dataset], task.fraction)
        return cards

    def resolved(self) -> dict[str, Any]:
        """The whole submission with every default written out, as plain JSON values."""
        return self.model_dump(mode="json")

    def published(self) -> dict[str, Any]:
        """As `resolved`, for a record: local weights are named by what they are, not by a path of this machine.

        Raises:
            HarnessError: There are no such weights.
        """
        content = self.resolved()
        for key, text in self.local_weights().items():
            _apply(content, key, published(text, key), key)
        return content

    def local_weights(self) -> dict[str, str]:
        """What names local weights, by key."""
        distilled = self.training.placeholders.distilled
        teacher = None if distilled is None else distilled.teacher
        texts = {
            "model.backbone.weights": self.model.backbone.weights,
            TEACHER_WEIGHTS: None if teacher is None else teacher.weights,
        }
        return {key: text for key, text in texts.items() if text is not None}

    def fingerprint(self) -> str:
        """12 hex digits that change with anything that a run's result depends on.

        Name, description, seeds and tracking are left out: they do not change a run. So are the number and interval of
        checkpoints, gradient checkpointing, the intervals of `log_gradients` and `log_affinity`, the number of loader
        processes, and where features of a frozen backbone are kept. `log_every` is in, for records hold the curves.
        Corruptions, the train gap and relatedness change no weight, but they are in: a record with them says more than
        one without.
        """
        content = self.resolved()
        for key in ("name", "description", "seeds", "tracking", "control"):
            del content[key]
        content["training"] = self.training.science()
        content["model"]["placeholders"] = self.model.placeholders.science()
        content["evaluation"] = self.evaluation.science()
        del content["model"]["backbone"]["feature_cache"]
        if self.model.backbone.weights is not None:  # what they are, not where they lie
            content["model"]["backbone"]["weights"] = weights_digest(self.model.backbone.weights)
        if content["model"]["sharing"].get("curriculum") == 0:
            del content["model"]["sharing"]["curriculum"]
        for task in content["tasks"]:
            if task["interpolation"] != "bicubic":
                del task["interpolation"]
            if task["images_of"] is None:
                del task["images_of"]
            if not task["shuffle_labels"]:
                del task["shuffle_labels"]
        content["cards"] = {name: card.model_dump(mode="json") for name, card in self.cards().items()}
        for card in content["cards"].values():
            for key in _ONLY_DESCRIBES:
                del card[key]
            if self.model.heads.classification.name != "zero_shot":  # nothing else reads them
                del card["display_names"]
        canonical = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
        return hashlib.sha256(canonical).hexdigest()[:12]


def _check_selection(card: DatasetCard, fraction: float) -> None:
    """See to it that nothing is selected on images that are scored or trained on."""
    if card.selection_split == card.evaluation_split:
        raise HarnessError(
            f"training.selection: card {card.name} has no split to select on, for its selection_split"
            f" {card.selection_split!r} is the one that it is scored on; leave training.selection out, or use a card"
            " with another selection_split"
        )
    if card.selection_split == "train" and fraction == 1:
        raise HarnessError(
            f"training.selection: card {card.name} selects on its training images, and all of them are trained on; set"
            f" fraction of tasks: {card.name} to, say, 0.9, and the rest of them is selected on"
        )


def load_submission(path: Path, overrides: Sequence[str] = (), values: Mapping[str, Any] | None = None) -> Submission:
    """Read a submission.

    Args:
        path: The YAML file.
        overrides: ``a.b=value`` texts that replace values of the file, as ``--set`` gives them.
        values: Further replacements by key: ``{"a.b": value}``.

    Raises:
        HarnessError: The file or an override is not valid; the message names file, field and value.
    """
    submission = parse(Submission, _read(path, overrides, values or {}), str(path))
    for key, text in submission.local_weights().items():
        if published_digest(text) is not None:
            raise HarnessError(f"{path}: {key}: {text!r} says what the weights are, not where; name the file itself")
    submission = submission.model_copy(update={"tasks": _with_interpolation(submission)})
    return submission if submission.control is None else _controlled(submission, str(path))


def read_control(path: Path, overrides: Sequence[str] = ()) -> str | None:
    """Which control a file asks for, if any. `load_submission` gives the control itself, which asks for none."""
    return _read(path, overrides, {}).get("control")


def _read(path: Path, overrides: Sequence[str], values: Mapping[str, Any]) -> dict[str, Any]:
    data = load_yaml(path)
    for override in overrides:
        _apply(data, *_read_override(override))
    for key, value in values.items():
        _apply(data, key, value, key)
    return data


def _controlled(submission: Submission, source: str) -> Submission:
    """The control that a submission asks for, in its place."""

    def macs(document: Mapping[str, Any]) -> int:
        from harness.step_costs import step_macs  # loads the libraries of deep learning, so only where it is asked

        return step_macs(Submission.model_validate(document))

    try:
        document = controlled(str(submission.control), submission.resolved(), macs)
    except HarnessError as error:
        raise HarnessError(f"{source}: {error}") from None
    made = parse(Submission, document, f"{source} (as control {submission.control})")
    if made.fingerprint() == submission.fingerprint():
        raise HarnessError(
            f"{source}: control: {submission.control}: the submission is its own control: nothing is left to take away;"
            " leave control out, or take another"
        )
    return made


def _with_interpolation(submission: Submission) -> tuple[TaskConfig, ...]:
    """The tasks with ``interpolation: auto`` replaced by what the backbone's weights ask for."""
    backbone = submission.model.backbone
    if all(task.interpolation != "auto" for task in submission.tasks):
        return submission.tasks
    native = "bilinear"
    if backbone.pretrained or backbone.weights:  # libraries load only where they have to be asked
        from harness.models.backbones.interpolation import native_interpolation

        native = native_interpolation(backbone)
    return tuple(
        task.model_copy(update={"interpolation": native}) if task.interpolation == "auto" else task
        for task in submission.tasks
    )


def _read_override(override: str) -> tuple[str, Any, str]:
    """Key, value and where they come from of ``a.b=value``; the value is read as YAML."""
    key, separator, text = override.partition("=")
    source = f"--set {override!r}"
    if not separator:
        raise HarnessError(f"{source}: write it as key.subkey=value, e.g. --set training.steps=100")
    return key.strip(), parse_yaml(f"value: {text}", source).get("value"), source


def _apply(data: dict[str, Any], key: str, value: Any, source: str) -> None:
    """Set ``a.b.0.c`` in nested mappings and lists."""
    parts = key.split(".")
    if not all(parts):
        raise HarnessError(f"{source}: write it as key.subkey=value, e.g. --set training.steps=100")
    target: Any = data
    for position, part in enumerate(parts):
        last = position == len(parts) - 1
        if isinstance(target, list):
            if not part.isdecimal() or int(part) >= len(target):
                raise HarnessError(
                    f"{source}: {part!r} is not an index into the {len(target)} items of {'.'.join(parts[:position])}"
                )
            index: Any = int(part)
        elif isinstance(target, dict):
            index = part
            if not last and not isinstance(target.get(part), (dict, list)):
                target[part] = {}
        else:
            raise HarnessError(f"{source}: {'.'.join(parts[:position])} has no keys")
        if last:
            target[index] = value
        else:
            target = target[index]


def json_schema() -> dict[str, Any]:
    """JSON Schema of a submission, for editors; committed as ``docs/submission.schema.json``."""
    schema = Submission.model_json_schema()
    task = schema["$defs"]["TaskConfig"]
    # What a task must say that is fed as another one is.
    task["anyOf"] = [{"required": ["images_of"]}, {"required": [key for key in task["required"] if key in FEEDING]}]
    task["required"] = [key for key in task["required"] if key not in FEEDING]
    # A size may also be one number.
    properties = task["properties"]
    number = {"type": "integer", "minimum": 16, "maximum": 4096}
    properties["image_size"] = {"anyOf": [properties["image_size"], number], "title": "Image Size"}
    properties["cache"]["anyOf"].append(number)
    precision = schema["$defs"]["TrainingConfig"]["properties"]["precision"]
    precision["enum"] = [*precision["enum"], 32, 16]
    del precision["type"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
