"""Features of a frozen backbone are computed once: for a run, and on disk for all runs that need the same."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Literal

import torch

from harness import provenance
from harness.atomic import TEMPORARY, directory, locked
from harness.cards import cache_directory
from harness.data import feature_rows
from harness.data.batches import Batch
from harness.data.feature_rows import FeatureRows, PartWriter, part_name
from harness.data.loading import Place, TaskData, loader
from harness.data.stores import image_stamp
from harness.models import feature_memory
from harness.models.backbones.base import ImageBackbone
from harness.models.feature_memory import CHUNK, Outputs
from harness.models.network import MultiTaskNetwork
from harness.progress import Reporter
from harness.training.engine import Engine

Mode = Literal["disk", "memory", "none"]

FORMAT = 1
LIMIT = 64 * 1024**3  # bytes of all features on disk
SHARE = 0.5  # of what the disk has left, at most
RECENT = 24 * 3600  # seconds for which features that were used are not removed


def remember(
    network: MultiTaskNetwork,
    engine: Engine,
    data: TaskData,
    mode: Mode,
    reporter: Reporter,
    visits: int | None = None,
    workers: int = 0,
) -> TaskData:
    """Let a task take features of a frozen backbone from where they are kept, where that cannot change a number.

    Where images are always the same, their features are kept on disk, and images are not even decoded; otherwise (and
    where there is no room) features are kept in memory for as long as the run lasts, by the pixels of the image.

    Args:
        network: With its final backbone, on its device.
        engine: Device and precision.
        data: What the task reads.
        mode: ``disk``, ``memory`` only, or ``none``: every feature is computed every time, with the same result.
        reporter: Shows progress.
        visits: How many images will be read of it; None for each one once.
        workers: Loader processes.

    Returns:
        The data to read instead, `data` itself where images are needed.
    """
    backbone = _backbone(network)
    if backbone is None or not backbone.rests:
        return data
    backbone.remember(0 if mode == "none" else feature_memory.LIMIT)
    reads = network.reads(data.config.dataset)
    if mode != "disk" or not data.steady or reads == "nothing":
        return data
    mapped = reads == "maps"
    folder = cache_directory() / "features" / _key(backbone, engine, data, mapped)
    with suppress(OSError):
        os.utime(folder)
    if _missing(folder, len(data)):
        if visits is not None and visits < len(data):
            return data
        try:
            _make(folder, backbone, engine, data, mapped, reporter, workers)
        except _NoRoom as problem:
            reporter.say(f"features of {data.config.dataset} are not kept on disk: {problem} ({folder.parent})")
            return data
    rows = FeatureRows(folder / "parts")
    return data.remembering(rows, backbone.stores.attach(rows))


def _backbone(network: MultiTaskNetwork) -> ImageBackbone | None:
    found = [module for module in network.modules() if isinstance(module, ImageBackbone)]
    return found[0] if len(found) == 1 else None


def _key(backbone: ImageBackbone, engine: Engine, data: TaskData, mapped: bool) -> str:
    """Everything that the last bit of a feature depends on, and all else that rows hold."""
    config, card = data.config, data.adapter.card
    with engine.autocast():
        kind = engine.device.type
        precision = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32
    parts = (
        FORMAT, CHUNK, _CODE, sorted(provenance.packages().items()), metadata.version("simplejpeg"),
        # Of the arithmetic: other machines and other numbers of threads add up in another order.
        kind, provenance.hardware(), torch.get_num_threads(), str(precision), torch.get_float32_matmul_precision(),
        torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.allow_tf32,
        backbone.library.name, backbone.name, backbone.options, repr(backbone.structure), mapped, _weights(backbone),
        config.image_size, config.preprocessing(),
        card.model_dump_json(), data.adapter.split, hashlib.sha256("\n".join(data.names).encode()).hexdigest(),
        data.adapter.annotation_hash(), image_stamp(card, data.adapter.split),
    )  # fmt: skip
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _weights(backbone: ImageBackbone) -> str:
    """SHA-256 of the body and of the normalisation."""
    digest = hashlib.sha256()
    for name, value in sorted({**backbone.body.state_dict(), "mean": backbone.mean, "std": backbone.std}.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _code() -> str:
    """Of the code that makes features and decodes images: other code may give other bits."""
    package = Path(feature_rows.__file__).parent.parent
    digest = hashlib.sha256()
    for path in sorted(
        [*package.glob("models/backbones/*.py"), *package.glob("data/*.py"), Path(feature_memory.__file__)]
    ):
        digest.update(path.read_bytes())
    return digest.hexdigest()


_CODE = _code()  # when it is loaded, for files may be edited while a run goes on


def _missing(folder: Path, count: int) -> list[int]:
    parts = range(-(-count // feature_rows.PART))
    return [part for part in parts if not (folder / "parts" / part_name(part)).is_dir()]


class _NoRoom(Exception):
    """Features cannot be kept on disk. The message says why."""


def _make(
    folder: Path,
    backbone: ImageBackbone,
    engine: Engine,
    data: TaskData,
    mapped: bool,
    reporter: Reporter,
    workers: int,
) -> None:
    """Write what is missing, part by part; another process that wants the same waits and finds it.

    Raises:
        _NoRoom: The disk or the cache's share of it is full, or the folder cannot be written.
    """

    def features(batch: Batch) -> Outputs:
        with torch.no_grad(), engine.autocast():
            return backbone.outputs(batch.images.to(engine.device), mapped)

    with _writing():
        (folder / "parts").mkdir(parents=True, exist_ok=True)
    with locked(folder):
        for left in (folder / "parts").glob(f"{TEMPORARY}*"):  # by a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        missing = _missing(folder, len(data))
        still = data.still()
        first = still.batch([(-1, row) for row in range(min(CHUNK, len(data)))])
        _make_room(folder, sum(value.nbytes for value in features(first).values()) * len(data) // len(first.ids))
        batches = loader(still, [chunk for part in missing for chunk in _chunks(part, len(data))], workers)
        rows = sum(len(chunk) for part in missing for chunk in _chunks(part, len(data)))
        with reporter.bar(f"features of {data.config.dataset} {data.adapter.split}", rows) as bar:
            for part in missing:
                with directory(folder / "parts" / part_name(part)) as unfinished:
                    chunks = _chunks(part, len(data))
                    with PartWriter(unfinished, data.adapter.task, sum(map(len, chunks))) as writer:
                        for batch in islice(batches, len(chunks)):
                            found = features(batch)
                            with _writing():
                                writer.add(batch, found)
                            bar.advance(len(batch.ids))
                with _writing():
                    os.utime(folder)


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _NoRoom(error.strerror or str(error)) from None


def _chunks(part: int, count: int) -> list[list[Place]]:
    """The batches of a part; always the same, so that features do not depend on what was there already."""
    rows = range(part * feature_rows.PART, min((part + 1) * feature_rows.PART, count))
    return [[(-1, row) for row in rows[start : start + CHUNK]] for start in range(0, len(rows), CHUNK)]


def _make_room(folder: Path, needed: int) -> None:
    """Remove features that were not used for long, those first that were not used for longest, until `needed` fit."""
    with locked(folder.parent):
        used = {other: _size(other) for other in folder.parent.iterdir() if other.is_dir()}
        needed -= used.pop(folder, 0)
        old = [other for other in used if time.time() - other.stat().st_mtime > RECENT]
        old.sort(key=lambda other: other.stat().st_mtime, reverse=True)
        while needed > min(LIMIT - sum(used.values()), SHARE * shutil.disk_usage(folder).free):
            if not old:
                raise _NoRoom(f"{needed / 1e9:.3g} GB do not fit")
            oldest = old.pop()
            del used[oldest]
            shutil.rmtree(oldest.rename(oldest.with_name(f"{TEMPORARY}{oldest.name}")), ignore_errors=True)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
