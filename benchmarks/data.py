"""Speed and memory of reading data, as ratios to peers in the same run.

    python benchmarks/data.py            # half a minute
    python benchmarks/data.py --full     # COCO-train sized annotations: minutes, 8 GB of memory for the peer

Peers: torchvision's ``ImageFolder`` with Pillow transforms and torch's ``DataLoader``; ``pycocotools.COCO``; a list of
Python objects held by every loader process. One thread each; times are CPU seconds of the process; of the pipeline, the
median over rounds in which the sides take turns.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import datasets, transforms

from harness.cards import DatasetCard
from harness.data import open_split
from harness.data.config import TaskConfig
from harness.data.image_cache import image_cache
from harness.data.images import read_image
from harness.data.instances import read_instances
from harness.data.loading import TaskData, TrainingOrder, loader
from harness.progress import Reporter

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BATCH = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="sizes of ImageNet images and COCO train")
    full = parser.parse_args().full
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HARNESS_CACHE"] = str(Path(folder) / "cache")
        pipeline(Path(folder), 600 if full else 200)
        parsing(Path(folder), 118_287 if full else 10_000)
        memory(Path(folder), 118_287 if full else 20_000)


def card(root: Path, adapter: str, task: str, **split: str) -> DatasetCard:
    return DatasetCard.model_validate(
        {
            "name": "bench", "version": "1", "title": "t", "task": task, "adapter": adapter, "root": str(root),
            "splits": {"train": split, "val": split}, "license": "none", "how_to_get": "made here",
        }
    )  # fmt: skip


# --- JPEG classification ---------------------------------------------------------------------------------------------


def pipeline(folder: Path, count: int) -> None:
    """Decode, random resized crop, flip, batch, normalise."""
    root = folder / "jpeg"
    for number in range(count):
        path = root / "train" / f"class{number % 10}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photograph(number)).save(path, quality=90)
    adapter = open_split(card(root, "imagefolder", "classification", images="train"), "train")

    crop = transforms.RandomResizedCrop(224, scale=(0.08, 1.0))
    steps = [crop, transforms.RandomHorizontalFlip(), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    plain = datasets.ImageFolder(str(root / "train"), transforms.Compose(steps))

    def torchvision() -> Iterator[Any]:
        return (images for images, _ in DataLoader(plain, BATCH, shuffle=True))

    def ours(normalised: bool = True, **fields: Any) -> Callable[[], Iterator[Any]]:
        config = TaskConfig.model_validate(
            {"dataset": "bench", "batch_size": BATCH, "image_size": 224, "flip": 0.5} | fields
        )
        cache = image_cache(adapter, config.cache, Reporter(quiet=True)) if config.cache else None
        data = TaskData(adapter, config, training=True, seed=0, cache=cache)
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) * 255 for v in (MEAN, STD))

        def batches() -> Iterator[Any]:
            for batch in islice(loader(data, TrainingOrder(data, BATCH), 0), count // BATCH):
                yield batch.images.contiguous().float().sub_(mean).div_(std) if normalised else batch.images

        return batches

    sides = {
        "torchvision ImageFolder, Pillow": torchvision,
        "harness": ours(crop=0.08),
        "harness, cache 256, crop": ours(crop=0.08, cache=256),
        "harness, cache 224, flip only": ours(cache=224),
        # What a loader process does, where the device normalises.
        "harness, to uint8": ours(normalised=False, crop=0.08),
        "harness, cache 256, crop, to uint8": ours(normalised=False, crop=0.08, cache=256),
        "harness, cache 224, flip only, to uint8": ours(normalised=False, cache=224),
    }
    times = race({name: (lambda side=side: sum(len(b) for b in side())) for name, side in sides.items()}, 15)
    base = times["torchvision ImageFolder, Pillow"]
    print(f"\nJPEG pipeline, {count} images of 500 x 375 to normalised batches of 224 x 224, one core")
    for name, seconds in times.items():
        low, ratio, high = np.quantile(np.divide(base, seconds), [0.25, 0.5, 0.75])
        print(
            f"  {name:40s} {count / np.median(seconds):8.0f} images/s  {ratio:6.2f}x  (half of the rounds: {low:.2f} to"
            f" {high:.2f})"
        )
    worst = max(
        int(np.abs(read_image(path).astype(int) - np.asarray(Image.open(path).convert("RGB"))).max())
        for path in sorted(root.rglob("*.jpg"))[:50]
    )
    print(f"  largest difference of a decoded pixel from Pillow's: {worst} of 255")


def photograph(seed: int) -> np.ndarray[Any, Any]:
    """A 375 x 500 picture: smooth areas and detail, 64 kB at quality 90 as real photographs of this size."""
    random = np.random.default_rng(seed)
    total = np.zeros((375, 500, 3))
    for cells in (3, 9, 27, 81):
        coarse = random.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        total += np.asarray(Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC), dtype=float) / cells
    total = 255 * (total - total.min()) / np.ptp(total) + random.normal(0, 10, total.shape)
    return total.clip(0, 255).astype(np.uint8)


# --- COCO annotations ------------------------------------------------------------------------------------------------


def parsing(folder: Path, images: int) -> None:
    """Read an instances JSON, in a process of its own each."""
    path = folder / "instances.json"
    objects = write_instances(path, images)
    print(f"\nInstances JSON, {images:,} images, {objects:,} boxes with polygons, {path.stat().st_size / 1e6:.0f} MB")
    base: tuple[float, float] | None = None
    for name, target in (("pycocotools.COCO", _pycocotools), ("harness", _ours), ("harness, again", _again)):
        seconds, peak = alone(target, path)
        base = base or (seconds, peak)
        print(
            f"  {name:18s} {seconds:7.2f} s  {base[0] / seconds:8.1f}x   peak {peak / 1e6:7.0f} MB  "
            f"{peak / base[1]:5.2f} of pycocotools'"
        )


def write_instances(path: Path, images: int) -> int:
    random = np.random.default_rng(0)
    objects = round(7.27 * images)
    of_image = random.integers(0, images, objects)
    with path.open("w") as file:
        file.write('{"info": {}, "licenses": [], "images": [')
        for n in range(images):
            entry = {"license": 3, "file_name": f"{n:012d}.jpg", "coco_url": f"http://images.example/{n:012d}.jpg",
                     "height": 480, "width": 640, "date_captured": "2013-11-14 17:02:52", "id": n}  # fmt: skip
            file.write((", " if n else "") + json.dumps(entry))
        file.write('], "categories": ')
        file.write(json.dumps([{"supercategory": "s", "id": c, "name": f"c{c}"} for c in range(1, 81)]))
        file.write(', "annotations": [')
        for n, image in enumerate(of_image.tolist()):
            polygon = random.uniform(0, 480, 44).round(2).tolist()  # COCO's polygons have 22 corners on average
            x, y, w, h = random.uniform(1, 200, 4).round(2).tolist()
            entry = {"segmentation": [polygon], "area": round(w * h, 4), "iscrowd": 0, "image_id": image,
                     "bbox": [x, y, w, h], "category_id": 1 + n % 80, "id": n + 1}  # fmt: skip
            file.write((", " if n else "") + json.dumps(entry))
        file.write("]}")
    return objects


def _pycocotools(path: Path) -> None:
    from pycocotools.coco import COCO

    COCO(str(path))


def _ours(path: Path) -> None:
    read_instances(path)


def _again(path: Path) -> None:
    """What a second run does: find the arrays in the cache by the file's hash."""
    from harness.data.columns import columns, file_key

    columns(file_key(path), lambda: read_instances(path))["boxes"].sum()


def alone(target: Callable[[Path], None], path: Path) -> tuple[float, float]:
    """CPU seconds and the growth of the peak memory in bytes, in a fresh process that has imported everything."""
    if target is _again:
        _again(path)  # the first run
    context = multiprocessing.get_context("spawn")
    queue: Any = context.Queue()
    process = context.Process(target=_measure, args=(target, path, queue))
    process.start()
    found: tuple[float, float] = queue.get()
    process.join()
    return found


def _measure(target: Callable[[Path], None], path: Path, queue: Any) -> None:
    import pycocotools.coco  # noqa: F401

    sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115
    before = _peak()
    begun = time.process_time()
    target(path)
    queue.put((time.process_time() - begun, max(_peak() - before, 1.0)))


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1.0 if sys.platform == "darwin" else 1024.0)


# --- memory of loader processes --------------------------------------------------------------------------------------


class Listed(Dataset[Any]):
    """The usual data set: a list of Python objects, copied into every loader process."""

    def __init__(self, images: int) -> None:
        random = np.random.default_rng(0)
        self.entries = [
            {"file_name": f"{n:012d}.jpg", "id": n, "boxes": random.uniform(0, 480, (7, 4)).tolist(), "labels": [1] * 7}
            for n in range(images)
        ]

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> int:
        return len(self.entries[index]["boxes"])


class Mapped(Dataset[Any]):
    """The annotations of our adapter, without the pixels."""

    def __init__(self, adapter: Any) -> None:
        self.adapter = adapter

    def __len__(self) -> int:
        return len(self.adapter)

    def __getitem__(self, index: int) -> int:
        columns = self.adapter._columns
        part = slice(*columns["starts"][index : index + 2])
        return len(self.adapter.ids[index]) + len(columns["boxes"][part].copy())


def memory(folder: Path, images: int) -> None:
    """Private memory of four loader processes, before and after they have read every annotation once."""
    root = folder / "memory"
    (root / "images").mkdir(parents=True)
    for n in range(images):
        (root / "images" / f"{n:012d}.jpg").touch()
    write_instances(root / "i.json", images)
    adapter = open_split(card(root, "coco", "detection", images="images", annotations="i.json"), "train")
    print(f"\nPrivate memory of 4 loader processes, annotations of {images:,} images, beyond an empty data set")
    empty = workers_memory(Listed(64))[1]
    for name, data in (("list of objects", Listed(images)), ("harness", Mapped(adapter))):
        start, end = workers_memory(data)
        print(
            f"  {name:18s} at the start {(start - empty) / 1e6:7.0f} MB   after an epoch {(end - empty) / 1e6:7.0f} MB"
        )


def workers_memory(data: Any) -> tuple[int, int]:
    """Unique memory of all workers together, in bytes, at the first batch and after an epoch."""
    batches: Any = iter(
        DataLoader(data, 64, num_workers=4, multiprocessing_context="forkserver", persistent_workers=True)
    )
    next(batches)

    def used() -> int:
        return sum(psutil.Process(worker.pid).memory_full_info().uss for worker in batches._workers)

    start = used()
    for _ in batches:
        pass
    return start, used()


def race(sides: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each side in every round; the sides take turns, so that a slow moment hits them all."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            begun = time.process_time()
            side()
            times[name].append(time.process_time() - begun)
    return times


if __name__ == "__main__":
    main()
