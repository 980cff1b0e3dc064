"""Checks of CIFAR's binary layout: files of fixed-length records, and a list of class names."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.cards import DatasetCard
from harness.data.checking.findings import Findings
from harness.data.checking.patterns import files_of
from harness.data.checking.plans import SplitPlan, existing, read_lines
from harness.data.cifar import LABEL_BYTES, PIXEL_BYTES


def plan_cifar(card: DatasetCard, split: str, found: Findings) -> SplitPlan:
    """Records of one label byte (CIFAR-10) or two (CIFAR-100) and 3,072 bytes of pixels."""
    plan = SplitPlan(None)
    names_file = existing(card, split, "labels", found)
    names = read_lines(names_file, split, found) if names_file else []
    if names_file and len(names) not in LABEL_BYTES:
        message = f"{len(names)} class names, where CIFAR-10 has 10 and CIFAR-100 has 100; fetch the file again"
        found.add("file-unreadable", split, names_file, "", message)
    label_bytes = LABEL_BYTES.get(len(names))
    files, missing = files_of(card, split)
    for path in missing:
        found.add("file-missing", split, path, "", f"splits.{split}.images does not exist; {card.how_to_get}")
    digests = [_read(path, split, names, label_bytes, plan, found) for path in files] if label_bytes else []
    plan.digests = np.concatenate([*digests, np.zeros((0, 32), np.uint8)])
    plan.size = len(plan.digests)
    plan.counts = {"images": plan.size, "classes": sum(count > 0 for count in plan.classes.values())}
    return plan


def _read(
    path: Path, split: str, names: list[str], label_bytes: int, plan: SplitPlan, found: Findings
) -> NDArray[np.uint8]:
    """SHA-256 of the pixels of each record of one file, uint8 [N, 32]."""
    length = label_bytes + PIXEL_BYTES
    size = path.stat().st_size
    if size == 0 or size % length:
        message = f"{size:,} bytes are not whole records of {length:,} bytes ({len(names)} classes); fetch it again"
        found.add("file-unreadable", split, path, "", message)
        return np.zeros((0, 32), np.uint8)
    records = np.memmap(path, dtype=np.uint8, mode="r", shape=(size // length, length))
    labels = np.asarray(records[:, label_bytes - 1])
    for row in np.flatnonzero(labels >= len(names)):
        message = f"record {row} has label {labels[row]}, and there are {len(names)} classes; fetch the file again"
        found.add("category-unknown", split, path, f"{path.stem}/{row:05d}", message)
    for label, count in enumerate(np.bincount(labels, minlength=len(names))[: len(names)]):
        plan.classes[names[label]] += int(count)
    plan.names += [str(path)] * len(records)
    plan.ids += [f"{path.stem}/{row:05d}" for row in range(len(records))]
    hashes = (hashlib.sha256(record[label_bytes:].tobytes()).digest() for record in records)
    return np.frombuffer(b"".join(hashes), dtype=np.uint8).reshape(-1, 32)
