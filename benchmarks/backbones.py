"""What placeholder tokens cost a backbone, and what kept features of a frozen one save; ratios within one run.

Usage: python benchmarks/backbones.py [--repeats 15] [--only tokens|probe]

Tokens: parameters and multiply-accumulates are counted; times are medians of interleaved forward passes of one image,
so that a machine that slows down slows both. Exchange sites as by default (two), and for the plain transformer also
four. The tokens themselves are counted with the sites.

Linear probe: epochs over JPEG files of 500 x 375 pixels, from disk to the optimizer's step, without kept features, with
those of the run's memory (images are decoded, for they may be augmented), and with those on disk. Without a GPU seconds
are CPU seconds of the process, for other work on the machine does not change these much.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import torch
from data import card, photograph
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from harness.data import open_split
from harness.data.config import TaskConfig
from harness.data.loading import TaskData, TrainingOrder, loader
from harness.data.samples import Adapter
from harness.models.backbones.timm_models import TimmBackbone
from harness.models.config import BackboneConfig, ModelConfig, PlaceholderConfig
from harness.models.network import MultiTaskNetwork, TaskSpec
from harness.models.placeholders import Placeholders
from harness.progress import Reporter
from harness.provenance import hardware, packages
from harness.training.engine import Engine
from harness.training.features import Mode, remember

CASES = (("resnet50", 2), ("convnext_tiny", 2), ("vit_base_patch16_224", 2), ("vit_base_patch16_224", 4))
PROBED = ("resnet50", "vit_small_patch16_224")
SIZE = 224


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15, help="timed passes of each network")
    parser.add_argument("--only", choices=("tokens", "probe"), help="one of the two tables")
    parser.add_argument("--images", type=int, default=256, help="linear probe: images of an epoch")
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    versions = packages()
    print(f"{hardware()}, {torch.get_num_threads()} threads, torch {versions['torch']}, timm {versions['timm']}\n")
    if options.only != "probe":
        tokens(options.repeats, device)
    if options.only != "tokens":
        for name in PROBED:
            probe(name, options.images)


def tokens(repeats: int, device: str) -> None:
    print("| backbone | sites | parameters | added | MACs | added | time, K=0 | ratio (quartiles) |")
    print("|---|---|---|---|---|---|---|---|")
    for name, sites in CASES:
        print(row(name, sites, repeats, device), flush=True)


def row(name: str, sites: int, repeats: int, device: str) -> str:
    config = PlaceholderConfig(stages=sites)
    # Only the library's model is compared: its last stride needs no pyramid of ours to be computed.
    stride = 16 if name.startswith("vit") else 32
    backbone = TimmBackbone(BackboneConfig(name=name), (stride,), config).eval().to(device)
    placeholders = Placeholders(config, backbone.sites).eval().to(device)
    images = torch.randint(0, 256, (1, 3, SIZE, SIZE), dtype=torch.uint8, device=device)

    def plain() -> None:
        backbone(images, None, None, 0)

    def enhanced() -> None:
        stream = placeholders.begin(1)
        backbone(images, stream, None, 0)
        stream.check(backbone.sites)

    with torch.inference_mode():
        before, after = macs(plain), macs(enhanced)
        times = interleaved(plain, enhanced, repeats, device)
    own = sum(p.numel() for p in backbone.body.parameters())
    added = sum(p.numel() for p in placeholders.parameters())
    ratios = [b / a for a, b in times]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return (
        f"| {name} | {len(backbone.sites)} | {own / 1e6:.2f} M | {100 * added / own:.2f}% | {before / 1e9:.2f} G"
        f" | {100 * (after - before) / before:.2f}% | {1000 * statistics.median(a for a, _ in times):.1f} ms"
        f" | {middle:.3f} ({low:.3f} to {high:.3f}) |"
    )


def probe(name: str, count: int) -> None:
    """A table of the seconds of one epoch of linear probing."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HARNESS_CACHE"] = str(Path(folder) / "cache")
        for number in range(count):
            path = Path(folder) / "train" / f"class{number % 10}" / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(photograph(number)).save(path, quality=90)
        adapter = open_split(card(Path(folder), "imagefolder", "classification", images="train"), "train")
        plain = epochs(name, adapter, "none", 1)[0]
        memory = epochs(name, adapter, "memory", 2)
        first, *later = epochs(name, adapter, "disk", 4)
        again, *_ = epochs(name, adapter, "disk", 1)
    print(f"\n| linear probe, {name}, {count} images | seconds of an epoch | times as fast |")
    print("|---|---|---|")
    for what, took in (
        ("without kept features", plain),
        ("first epoch, memory", memory[0]),
        ("later epochs, memory", memory[1]),
        ("first epoch, disk", first),
        ("later epochs, disk", statistics.median(later)),
        ("first epoch of a second run, disk", again),
    ):
        print(f"| {what} | {took:.3g} | {plain / took:.3g} |", flush=True)


def epochs(name: str, adapter: Adapter, mode: Mode, count: int) -> list[float]:
    """Seconds of each epoch of a new network; the first one has the making or finding of features in it."""
    torch.manual_seed(0)
    backbone = {"name": name, "frozen": "all", "feature_cache": mode}
    neck = {"strides": [16] if name.startswith("vit") else [32]}
    vqa = {"vqa": {"stride": neck["strides"][0]}}
    config = ModelConfig.model_validate(
        {"backbone": backbone, "neck": neck, "placeholders": {"count": 0}, "heads": vqa}
    )
    network = MultiTaskNetwork(config, {"bench": TaskSpec("classification", len(adapter.classes))})
    engine = Engine("32")
    network.to(engine.device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    task = TaskConfig.model_validate({"dataset": "bench", "batch_size": 32, "image_size": SIZE, "resize": "crop"})
    clock = time.perf_counter if engine.device.type == "cuda" else time.process_time
    found = []
    begun = clock()
    data = remember(network, engine, TaskData(adapter, task, True, 0), mode, Reporter(quiet=True))
    batches = loader(data, TrainingOrder(data, 32), 0)
    for _ in range(count):
        for batch in islice(batches, len(data) // 32):
            loss = network({"bench": batch.to(engine.device)})["bench"]
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            loss.item()
        found.append(clock() - begun)
        begun = clock()
    return found


def macs(call: Callable[[], None]) -> int:
    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops()) // 2


def interleaved(
    first: Callable[[], None], second: Callable[[], None], repeats: int, device: str
) -> list[tuple[float, float]]:
    for _ in range(3):
        first(), second()
    return [(seconds(first, device), seconds(second, device)) for _ in range(repeats)]


def seconds(call: Callable[[], None], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    begun = time.perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
