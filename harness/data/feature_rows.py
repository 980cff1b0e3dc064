"""Features of a frozen backbone on disk, with all that a batch holds of an image besides its pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.lib.format import write_array_header_2_0
from numpy.typing import NDArray
from torch import Tensor

from harness.data.batches import Batch, ClassificationBatch, DetectionBatch, SegmentationBatch
from harness.data.columns import Columns

PART = 1024  # images in one folder, which appears whole or not at all
_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # NumPy does not know every float of torch


class FeatureRows:
    """One row for every image of a split, in folders of PART rows each, mapped into memory. Pickles as its path.

    Args:
        folder: Holds the parts, as `PartWriter` writes them, named by `part_name`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._parts: dict[int, Columns] = {}
        self._names: list[tuple[str, str, torch.dtype]] = []  # of the feature, of its file, its type

    def __reduce__(self) -> tuple[type[FeatureRows], tuple[Path]]:
        return FeatureRows, (self._folder,)

    def item(self, row: int) -> dict[str, Any]:
        """What `TaskData` makes of an image besides its pixels, its id and its questions."""
        part, place = self._part(row // PART), row % PART
        found: dict[str, Any] = {"size": tuple(part["sizes"][place].tolist())}
        task = str(part["task"])
        if task == "classification":
            found["label"] = int(part["labels"][place])
        elif task == "segmentation":
            found["mask"] = torch.from_numpy(np.array(part["masks"][place])).long()
        elif task == "detection":
            own = slice(*part["starts"][place : place + 2].tolist())
            found["boxes"] = torch.from_numpy(np.array(part["boxes"][own]))
            found["labels"] = torch.from_numpy(np.array(part["labels"][own]))
        return found

    def outputs(self, rows: Sequence[int], mapped: int) -> dict[str, Tensor]:
        """Features of images.

        Args:
            rows: Which.
            mapped: For how many of them, from the first on, maps are wanted beside the pooled feature.

        Returns:
            By name float [len(rows), F] or, of maps, float [mapped, h, w, C].
        """
        if not self._names:
            self._names = _features(self._part(0).folder)
        found = {}
        for name, file, dtype in self._names:
            is_map = self._part(0)[file].ndim == 4
            places = np.asarray(rows[:mapped] if is_map else rows, dtype=np.int64)
            if len(places):
                found[name] = torch.from_numpy(self._gather(file, places)).view(dtype)
        return found

    def _gather(self, file: str, rows: NDArray[np.int64]) -> NDArray[Any]:
        like = self._part(0)[file]
        out = np.empty((len(rows), *like.shape[1:]), dtype=like.dtype)
        for number in np.unique(rows // PART).tolist():
            here = rows // PART == number
            out[here] = self._part(number)[file][rows[here] % PART]
        return out

    def _part(self, number: int) -> Columns:
        if number not in self._parts:
            self._parts[number] = Columns(self._folder / part_name(number))
        return self._parts[number]


class PartWriter(ExitStack):
    """Writes one part, batch by batch; it is whole when the ``with`` block ends.

    Args:
        folder: Empty.
        task: Of the split.
        rows: How many images will come.
    """

    def __init__(self, folder: Path, task: str, rows: int) -> None:
        super().__init__()
        self._folder, self._task, self._rows = folder, task, rows
        self._files: dict[str, BinaryIO] = {}
        self._small: dict[str, list[Tensor]] = {}
        self.callback(self._finish)

    def add(self, batch: Batch, features: Mapping[str, Tensor]) -> None:
        """Write the next images.

        Args:
            batch: Without augmentation.
            features: By name, first dimension the image; maps with their channels last.
        """
        for name, value in features.items():
            words = value.contiguous().cpu().view(_WORDS[value.element_size()])
            self._write(f"features.{name}.{str(value.dtype).removeprefix('torch.')}", words.numpy())
        self._note("sizes", batch.sizes)
        if isinstance(batch, ClassificationBatch):
            self._note("labels", batch.labels)
        elif isinstance(batch, SegmentationBatch):
            self._write("masks", batch.masks.to(torch.uint8).numpy())
        elif isinstance(batch, DetectionBatch):
            self._note("boxes", *batch.boxes)
            self._note("labels", *batch.labels)
            self._note("counts", torch.tensor([len(boxes) for boxes in batch.boxes]))

    def _finish(self) -> None:
        small = {name: torch.cat(values).numpy() for name, values in self._small.items()}
        if "counts" in small:
            small["starts"] = np.concatenate([[0], np.cumsum(small.pop("counts"))])
        for name, value in {**small, "task": np.array(self._task)}.items():
            np.save(self._folder / f"{name}.npy", value, allow_pickle=False)

    def _write(self, name: str, rows: NDArray[Any]) -> None:
        if name not in self._files:
            file = self._files[name] = self.enter_context((self._folder / f"{name}.npy").open("xb"))
            shape = (self._rows, *rows.shape[1:])
            header = {"descr": rows.dtype.str, "fortran_order": False, "shape": shape}
            write_array_header_2_0(file, header)
        self._files[name].write(np.ascontiguousarray(rows).data)

    def _note(self, name: str, *values: Tensor) -> None:
        self._small.setdefault(name, []).extend(values)


def part_name(number: int) -> str:
    """The folder of a part."""
    return f"{number:06d}"


def _features(folder: Path) -> list[tuple[str, str, torch.dtype]]:
    """Name, file and type of each feature."""
    found = []
    for path in sorted(folder.glob("features.*.npy")):
        name, _, dtype = path.stem.removeprefix("features.").rpartition(".")
        found.append((name, path.stem, getattr(torch, dtype)))
    return found
