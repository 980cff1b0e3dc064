"""What 16 placeholder tokens cost a backbone, as ratios to the plain network of the same run.

Usage: python benchmarks/backbones.py [--repeats 15]

Parameters and multiply-accumulates are counted; times are medians of interleaved forward passes of one image, so that
a machine that slows down slows both. Exchange sites as by default (two), and for the plain transformer also four. The
tokens themselves are counted with the sites.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from harness.models.backbones.timm_models import TimmBackbone
from harness.models.config import BackboneConfig, PlaceholderConfig
from harness.models.placeholders import Placeholders
from harness.provenance import hardware, packages

CASES = (("resnet50", 2), ("convnext_tiny", 2), ("vit_base_patch16_224", 2), ("vit_base_patch16_224", 4))
SIZE = 224


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15, help="timed passes of each network")
    repeats = parser.parse_args().repeats
    device = "cuda" if torch.cuda.is_available() else "cpu"
    versions = packages()
    print(f"{hardware()}, {torch.get_num_threads()} threads, torch {versions['torch']}, timm {versions['timm']}\n")
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
