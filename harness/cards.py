"""Dataset cards: one YAML file says what a data set is, where its files lie and how it is scored."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from harness.documents import Section, expand_path, load_yaml, parse
from harness.errors import HarnessError, suggestion

Task = Literal["classification", "detection", "segmentation", "vqa"]
SplitName = Literal["train", "val", "test"]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,99}$")]


class Split(Section):
    """Where one split's files lie, relative to the card's root. Which keys are needed depends on the adapter.

    Attributes:
        images: Folder of images, or tar shards of them: ``train-{000000..000146}.tar`` or ``train-*.tar``.
        annotations: COCO instances JSON, VQA v2 annotations JSON, or PASCAL VOC's folder of XML files.
        labels: Folder of label maps, or the file with the classes of a flat image folder.
        questions: VQA v2 questions JSON.
        names: Text file that lists the images of the split, where several splits share a folder.
        synsets: ImageNet development kit: ``meta.mat``.
        real: ImageNet: ReaL label sets (``real.json``), for a second accuracy beside top-1.
        image_prefix: VQA: what stands before the 12-digit image id in file names.
        image_suffix: Ending of image file names, where names are listed without it.
        label_suffix: Ending of label maps, which are otherwise named like their images.
        size: Number of images (VQA: of questions) that the split must have.
        objects: Number of annotated objects that the split must have (detection).
    """

    images: str
    annotations: str | None = None
    labels: str | None = None
    questions: str | None = None
    names: str | None = None
    synsets: str | None = None
    real: str | None = None
    image_prefix: str = ""
    image_suffix: str = ".jpg"
    label_suffix: str = ".png"
    size: int | None = Field(default=None, gt=0)
    objects: int | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _inside_root(self) -> Split:
        for field, value in self:
            if isinstance(value, str) and (Path(value).is_absolute() or ".." in Path(value).parts or "\0" in value):
                raise ValueError(f"{field}: {value!r} must lie inside the card's root")
        return self


class Archive(Section):
    """One of the official files to download, with the checksum that its publisher states.

    Attributes:
        file: Its name; ``harness data check`` verifies it where it lies in the card's root.
        md5: 32 hex digits.
        bytes: Its size.
    """

    file: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    md5: str = Field(pattern=r"^[0-9a-f]{32}$")
    bytes: int | None = Field(default=None, gt=0)


class SegmentationClass(Section):
    """One class of a label map.

    Attributes:
        name: The class's name.
        id: The id in the label PNG (Cityscapes: labelId), 0 to 255.
        category: The group it belongs to, for category IoU.
        evaluated: False for void classes: ground-truth pixels of them are ignored.
        has_instances: Whether instance-level IoU (iIoU) is defined for it.
    """

    name: str
    id: int = Field(ge=0, le=255)
    category: str = ""
    evaluated: bool = True
    has_instances: bool = False


AdapterName = Literal[
    "imagefolder", "imagenet_devkit", "cifar", "pets", "coco", "voc", "cityscapes", "label_maps", "vqa"
]
_TASK_OF_ADAPTER: dict[AdapterName, Task] = {
    "imagefolder": "classification",
    "imagenet_devkit": "classification",
    "cifar": "classification",
    "pets": "classification",
    "coco": "detection",
    "voc": "detection",
    "cityscapes": "segmentation",
    "label_maps": "segmentation",
    "vqa": "vqa",
}
_NEEDED: dict[AdapterName, tuple[str, ...]] = {
    "cifar": ("labels",),
    "pets": ("names",),
    "coco": ("annotations",),
    "voc": ("annotations", "names"),
    "cityscapes": ("labels",),
    "label_maps": ("labels",),
    "vqa": ("questions", "annotations"),
}
METRIC_OF_TASK: dict[Task, str] = {
    "classification": "top1",
    "detection": "coco_bbox",
    "segmentation": "cityscapes_iou",
    "vqa": "vqa_v2",
}


class DatasetCard(Section):
    """What a data set is, where its files lie and how it is scored.

    Attributes:
        name: Unique name, the file's stem.
        version: Version of the data, part of the protocol that entries are compared under.
        task: What is predicted.
        adapter: The file layout (``harness ls adapters``).
        root: Folder of the data; ``${HARNESS_DATA}`` and other environment variables are replaced.
        splits: The splits.
        selection_split: Split on which anything may be selected (checkpoints, hyper-parameters).
        evaluation_split: Split on which entries are scored; nothing is selected on it.
        classes: The label map: segmentation, and PASCAL VOC's objects. Other layouts state theirs in the data.
        display_names: What classes are called in a sentence, by their name in the data, for zero-shot classification;
            ``imagenet`` stands for CLIP's names of ImageNet's classes, which are called by wnid in the data. Others are
            called by their own name.
        answers: VQA: how many of the most frequent training answers a model chooses from.
        metric: Name of the metric that entries are ranked by; each task has one.
        exif_orientation: Whether to turn images as their EXIF data say. The official annotations of all shipped data
            sets are in the coordinates of the pixels as stored, so the default is not to.
        missing_labels: What to do with images that have no label map: stop, or leave them out of the split.
        archives: The official downloads and their checksums.
        redistributable: Whether the licence allows showing the images on a public page.
    """

    name: Name
    version: str
    title: str
    task: Task
    adapter: AdapterName
    root: str = ""
    splits: dict[SplitName, Split]
    selection_split: SplitName = "val"
    evaluation_split: SplitName = "val"
    classes: tuple[SegmentationClass, ...] = ()
    display_names: dict[str, str] | Literal["imagenet"] = Field(default_factory=dict)
    answers: int = Field(default=3129, gt=1)
    metric: str = ""
    exif_orientation: Literal["ignore", "apply"] = "ignore"
    missing_labels: Literal["error", "leave_out"] = "error"
    archives: tuple[Archive, ...] = ()
    license: str
    redistributable: bool = False
    homepage: str = ""
    how_to_get: str
    citation: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> DatasetCard:
        if _TASK_OF_ADAPTER[self.adapter] != self.task:
            raise ValueError(
                f"adapter: {self.adapter!r} reads {_TASK_OF_ADAPTER[self.adapter]} data, but task is {self.task!r}"
            )
        metric = METRIC_OF_TASK[self.task]
        if self.metric not in ("", metric):
            raise ValueError(f"metric: {self.metric!r} is not the metric of {self.task}; write {metric!r}")
        if "train" not in self.splits:
            raise ValueError("splits: a 'train' split is required")
        for role in ("selection_split", "evaluation_split"):
            if getattr(self, role) not in self.splits:
                raise ValueError(f"{role}: {getattr(self, role)!r} is not among the splits ({', '.join(self.splits)})")
        for name, split in self.splits.items():
            for field in _NEEDED.get(self.adapter, ()):
                if getattr(split, field) is None:
                    raise ValueError(f"splits.{name}.{field}: the {self.adapter} adapter needs this key")
        if self.task == "segmentation":
            if not any(c.evaluated for c in self.classes):
                raise ValueError("classes: a segmentation card needs at least one evaluated class")
            if len({c.id for c in self.classes}) < len(self.classes):
                raise ValueError("classes: two classes have the same id")
        elif self.adapter == "voc" and not self.classes:
            raise ValueError("classes: the voc adapter needs the names of the object classes")
        return self

    def path(self, split: str, field: str) -> Path:
        """The absolute path of a split's ``images``, ``annotations``, ``labels`` or ``questions``."""
        value = getattr(self.splits[split], field)  # type: ignore[index]
        return self.directory / value

    @property
    def directory(self) -> Path:
        """The data's folder, environment variables replaced.

        Raises:
            HarnessError: An environment variable that `root` names is not set.
        """
        text = self.root or f"${{HARNESS_DATA}}/{self.name}"
        return expand_path(text, f"card {self.name}: root", {"HARNESS_CACHE": str(cache_directory())})

    def require(self, path: Path, what: str) -> Path:
        """Return `path`, or say which file of the data set is missing and how to get it.

        Raises:
            HarnessError: `path` does not exist.
        """
        if not path.exists():
            raise HarnessError(f"card {self.name}: {what} {path} is missing; {self.how_to_get}")
        return path


def cache_directory() -> Path:
    """Folder for generated data: ``$HARNESS_CACHE``, else ``$XDG_CACHE_HOME/placeholder-harness``."""
    base = os.environ.get("HARNESS_CACHE")
    if base:
        return Path(base)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "placeholder-harness"


def shipped(folder: Literal["datasets", "baselines"]) -> Path:
    """Folder of the cards or baselines that come with the package (in a wheel, or beside it in a checkout)."""
    package = Path(__file__).parent
    inside = package / "_shipped" / folder
    return inside if inside.is_dir() else package.parent / folder


def card_paths() -> dict[str, Path]:
    """Every card that can be named: the shipped ones, then ``./datasets``, then ``$HARNESS_CARDS`` (last wins)."""
    folders = [shipped("datasets"), Path("datasets")]
    folders += [Path(p) for p in os.environ.get("HARNESS_CARDS", "").split(os.pathsep) if p]
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.yaml"))}


def load_card(name_or_path: str) -> DatasetCard:
    """Load a card by name, or from a file if the text ends in ``.yaml`` or ``.yml``.

    Raises:
        HarnessError: No such card, or the card is not valid.
    """
    if name_or_path.endswith((".yaml", ".yml")):
        return _load(Path(name_or_path).resolve())
    paths = card_paths()
    if name_or_path not in paths:
        raise HarnessError(
            f"{name_or_path!r} is not a dataset card{suggestion(name_or_path, paths, 'harness ls datasets')}"
        )
    return _load(paths[name_or_path].resolve())


@cache
def _load(path: Path) -> DatasetCard:
    card = parse(DatasetCard, load_yaml(path), str(path))
    if card.name != path.stem:
        raise HarnessError(f"{path}: name: {card.name!r} must equal the file's name {path.stem!r}")
    return card
