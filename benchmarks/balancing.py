"""What balancing costs: a step's time over that of the plain sum, and over torchjd's own way to the same gradient.

Usage: python benchmarks/balancing.py [--rounds 7] [--backbone resnet18] [--size 96]

A step is forward and backward passes of four tasks that share a trunk (classification, FCOS, FCN, VQA), with what the
method adds, on random images that are already there; no optimizer. Ratios are medians over rounds in which all methods
take turns, so that a machine that slows down slows all of them. Without a GPU seconds are CPU seconds of the process,
for other work on the machine does not change these much.

Peer: `torchjd.autojac.mtl_backward` and `jac_to_grad` with the same aggregator, on the same network, from the features
that the trunk gives, one task after another and all at once (vmap).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchjd.aggregation import PCGrad, UPGrad
from torchjd.autojac import jac_to_grad, mtl_backward

from harness.data.batches import Batch, ClassificationBatch, DetectionBatch, SegmentationBatch, VqaBatch
from harness.models.config import ModelConfig
from harness.models.network import MultiTaskNetwork, TaskSpec
from harness.provenance import hardware, packages
from harness.training.balancing import BALANCING
from harness.training.balancing.base import Setting, build_balancer
from harness.training.balancing.dual_cone import DualCone
from harness.training.config import TrainingConfig
from harness.training.engine import Engine
from harness.training.parts import differentiate, look_back

SPECS = {
    "classification": TaskSpec("classification", 10),
    "detection": TaskSpec("detection", 5),
    "segmentation": TaskSpec("segmentation", 6),
    "vqa": TaskSpec("vqa", 20, words=50),
}


COMPARED = ("equal", "pcgrad", "upgrad")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="timed steps of each method")
    parser.add_argument("--backbone", default="resnet18", help="a timm model")
    parser.add_argument("--size", type=int, default=96, help="side of the images")
    parser.add_argument("--batch", type=int, default=8, help="images of each task")
    parser.add_argument("--methods", nargs="*", default=[], help="these beside equal, pcgrad and upgrad; default: all")
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network, batches = build(options.backbone), make_batches(options.batch, options.size)
    network.to(device, memory_format=torch.channels_last).train()
    batches = {name: batch.to(device) for name, batch in batches.items()}
    chosen = [name for name in BALANCING if not options.methods or name in (*COMPARED, *options.methods)]
    sides: dict[str, Callable[[], None]] = {name: ours(name, network, batches) for name in chosen}
    for name, aggregator in (("pcgrad", PCGrad()), ("upgrad", UPGrad(projector=DualCone()))):
        for way, chunk in (("one by one", 1), ("vmap", None)):
            sides[f"torchjd {name}, {way}"] = peer(aggregator, chunk, network, batches)
    times = interleaved(network, sides, options.rounds, device)
    print(f"{hardware()}, {torch.get_num_threads()} threads, torch {packages()['torch']}\n")
    print(f"{options.backbone}, {options.size} px, {options.batch} images per task, {options.rounds} rounds\n")
    print("| method | time over `equal` (quartiles) |\n|---|---|")
    for name in sides:
        print(f"| {name} | {ratio(times[name], times['equal'])} |")
    print("\n| ours over torchjd's | one by one | vmap |\n|---|---|---|")
    for name in ("pcgrad", "upgrad"):
        found = [ratio(times[name], times[f"torchjd {name}, {way}"]) for way in ("one by one", "vmap")]
        print(f"| {name} | {found[0]} | {found[1]} |")


def build(backbone: str) -> MultiTaskNetwork:
    torch.manual_seed(0)
    raw: dict[str, Any] = {
        "backbone": {"name": backbone},
        "neck": {"channels": 64, "strides": [8, 16, 32]},
        "placeholders": {"count": 0},
        "heads": {"detection": {"convolutions": 2}, "vqa": {"width": 128, "layers": 1, "stride": 8}},
    }
    return MultiTaskNetwork(ModelConfig.model_validate(raw), SPECS)


def make_batches(count: int, size: int) -> dict[str, Batch]:
    generator = torch.Generator().manual_seed(0)

    def common() -> dict[str, Any]:
        images = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)
        return {"ids": tuple(map(str, range(count))), "images": images, "sizes": torch.tensor([[size, size]] * count)}

    box, questions = torch.tensor([[4.0, 4, size / 2, size / 2]]), 6 * count
    return {
        "classification": ClassificationBatch(**common(), labels=torch.arange(count) % 10),
        "detection": DetectionBatch(**common(), boxes=(box,) * count, labels=(torch.tensor([1]),) * count),
        "segmentation": SegmentationBatch(
            **common(), masks=torch.randint(0, 6, (count, size, size), generator=generator)
        ),
        "vqa": VqaBatch(
            **common(),
            question_ids=torch.arange(questions),
            image_index=torch.arange(questions) // 6,
            words=torch.randint(2, 50, (questions, 10), generator=generator),
            targets=torch.rand(questions, 20, generator=generator),
        ),
    }


def ours(name: str, network: MultiTaskNetwork, batches: dict[str, Batch]) -> Callable[[], None]:
    config = TrainingConfig.model_validate({"steps": 1, "balancing": {"name": name}}).balancing
    balancer, engine = build_balancer(config, Setting(dict.fromkeys(SPECS, 1.0))), Engine("32")

    def step() -> None:
        differentiate(network, engine, balancer, batches, 1)
        if balancer.looks_back:
            balancer.look_back(look_back(network, engine, batches, 1))

    return step


def peer(
    aggregator: Any, chunk: int | None, network: MultiTaskNetwork, batches: dict[str, Batch]
) -> Callable[[], None]:
    found: list[Tensor] = []

    def keep(module: Any, inputs: Any, features: dict[str, Any]) -> None:
        found.clear()
        for one in features.values():
            found.extend(t for t in (one.pooled, *one.pyramid.values()) if t is not None and t.requires_grad)

    def step() -> None:
        assert network.shared is not None
        handle = network.shared.register_forward_hook(keep)
        losses = network(batches)
        handle.remove()
        mtl_backward(list(losses.values()), features=found, parallel_chunk_size=chunk)
        # The weights that some features do not reach have rows of zeros there, as ours have.
        jac_to_grad([p for p in network.parameters() if getattr(p, "jac", None) is not None], aggregator)

    return step


def interleaved(
    network: MultiTaskNetwork, sides: dict[str, Callable[[], None]], rounds: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of each side in each round; the first round is not counted."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    for number in range(rounds + 1):
        for name, step in sides.items():
            network.zero_grad(set_to_none=True)
            start = clock()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if number:
                times[name].append(clock() - start)
    return times


def ratio(times: list[float], others: list[float]) -> str:
    low, middle, high = statistics.quantiles([a / b for a, b in zip(times, others, strict=True)], n=4)
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    main()
