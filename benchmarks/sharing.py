"""What sharing architectures cost beside hard sharing, and what computing experts together saves; ratios in one run.

Usage: python benchmarks/sharing.py [--repeats 15] [--backbone resnet18] [--size 64] [--only steps|experts]

A step is the forward and backward pass of one batch of each of four tasks, heads and penalty included. Rounds are
interleaved: each times every architecture once, and a ratio is that to hard sharing in the same round. Without a GPU
seconds are CPU seconds of the process, for other work on the machine does not change these much.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.data.batches import Batch, ClassificationBatch, DetectionBatch, SegmentationBatch, VqaBatch
from harness.models.config import ModelConfig
from harness.models.network import MultiTaskNetwork, TaskSpec
from harness.models.sharing import SHARING
from harness.models.sharing.experts import Experts
from harness.provenance import hardware, packages

IMAGES = 4
SPECS = {
    "c": TaskSpec("classification", 10),
    "d": TaskSpec("detection", 5),
    "s": TaskSpec("segmentation", 6),
    "v": TaskSpec("vqa", 20, words=50),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15, help="rounds")
    parser.add_argument("--backbone", default="resnet18", help="a timm model")
    parser.add_argument("--size", type=int, default=64, help="side of the images in pixels")
    parser.add_argument("--only", choices=("steps", "experts"), help="one of the two tables")
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(f"{hardware()}, {torch.get_num_threads()} threads, torch {packages()['torch']}")
    if options.only != "experts":
        steps(options.backbone, options.size, options.repeats, device)
    if options.only != "steps":
        experts(options.repeats, device)


def steps(backbone: str, size: int, repeats: int, device: str) -> None:
    """A table of the architectures."""
    networks = {name: build(backbone, name).to(device) for name in SHARING}
    data = {name: batch.to(torch.device(device)) for name, batch in batches(size).items()}
    calls = {name: step(network, data) for name, network in networks.items()}
    found = interleaved(calls, repeats, device)
    images = f"{size} px, {IMAGES} images of each of {len(SPECS)} tasks"
    print(f"\n| sharing, {backbone}, {images} | parameters | step | ratio (quartiles) |")
    print("|---|---|---|---|")
    for name, network in networks.items():
        count = sum(p.numel() for p in network.parameters()) / 1e6
        took = 1000 * statistics.median(found[name])
        print(f"| `{name}` | {count:.2f} M | {took:.0f} ms | {ratio(found, name, 'hard')} |")


def experts(repeats: int, device: str) -> None:
    """A table of experts computed together and one after another."""
    print("\n| 4 experts, width 64 | together | one by one | ratio (quartiles) |")
    print("|---|---|---|---|")
    for images, channels, side in ((16, 64, 8), (16, 256, 28)):
        block = Experts(channels, 4, 64, 3).to(device)
        x = torch.randn(images, channels, side, side, device=device)
        found = interleaved(
            {"together": differentiated(block, x), "looped": differentiated(lambda x, one=block: looped(one, x), x)},
            repeats,
            device,
        )
        times = (1000 * statistics.median(found[name]) for name in ("together", "looped"))
        print(
            "| {} x {} x {side} x {side} | {:.1f} ms | {:.1f} ms |".format(images, channels, *times, side=side), end=""
        )
        print(f" {ratio(found, 'looped', 'together')} |")


def build(backbone: str, name: str) -> MultiTaskNetwork:
    torch.manual_seed(0)
    model = {"backbone": {"name": backbone}, "placeholders": {"count": 0}, "sharing": {"name": name}}
    return MultiTaskNetwork(ModelConfig.model_validate(model), SPECS).train()


def step(network: MultiTaskNetwork, data: dict[str, Batch]) -> Callable[[], None]:
    def call() -> None:
        torch.stack(list(network(data).values())).sum().backward()
        network.zero_grad(set_to_none=True)

    return call


def differentiated(function: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], None]:
    return lambda: function(x).square().mean().backward()


def looped(experts: Experts, x: Tensor) -> Tensor:
    """What `experts` gives, expert by expert."""
    found = []
    width, channels = experts.norm.num_channels // experts.count, x.shape[1]
    for e in range(experts.count):
        inner, outer = slice(width * e, width * (e + 1)), slice(channels * e, channels * (e + 1))
        hidden = F.conv2d(x, experts.inward.weight[inner], padding=1)
        hidden = F.group_norm(hidden, 1, experts.norm.weight[inner], experts.norm.bias[inner]).relu()
        found.append(x + F.conv2d(hidden, experts.outward.weight[outer], experts.outward.bias[outer], padding=1))
    return torch.stack(found, 1)


def batches(size: int) -> dict[str, Batch]:
    generator = torch.Generator().manual_seed(0)

    def common() -> dict[str, Any]:
        images = torch.randint(0, 256, (IMAGES, 3, size, size), dtype=torch.uint8, generator=generator)
        return {"ids": tuple(map(str, range(IMAGES))), "images": images, "sizes": torch.tensor([[size, size]] * IMAGES)}

    box = torch.tensor([[size / 8, size / 8, size / 2, size / 2]])
    return {
        "c": ClassificationBatch(**common(), labels=torch.arange(IMAGES)),
        "d": DetectionBatch(**common(), boxes=(box,) * IMAGES, labels=(torch.tensor([1]),) * IMAGES),
        "s": SegmentationBatch(**common(), masks=torch.randint(0, 6, (IMAGES, size, size), generator=generator)),
        "v": VqaBatch(
            **common(),
            question_ids=torch.arange(IMAGES),
            image_index=torch.arange(IMAGES),
            words=torch.randint(1, 50, (IMAGES, 8), generator=generator),
            targets=torch.rand(IMAGES, 20, generator=generator),
        ),
    }


def interleaved(calls: dict[str, Callable[[], None]], repeats: int, device: str) -> dict[str, list[float]]:
    """Seconds of each call in each round, after two rounds that do not count."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(repeats + 2):
        for name, call in calls.items():
            took = seconds(call, device)
            if number >= 2:
                found[name].append(took)
    return found


def ratio(found: dict[str, list[float]], name: str, other: str) -> str:
    low, middle, high = statistics.quantiles([a / b for a, b in zip(found[name], found[other], strict=True)], n=4)
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def seconds(call: Callable[[], None], device: str) -> float:
    if device == "cpu":
        begun = time.process_time()
        call()
        return time.process_time() - begun
    torch.cuda.synchronize()
    begun = time.perf_counter()
    call()
    torch.cuda.synchronize()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
