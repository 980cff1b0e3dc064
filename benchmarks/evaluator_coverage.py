"""How often 95% intervals of a single mAP hold the true number, by simulation: several methods, two estimands.

Usage: python benchmarks/evaluator_coverage.py [--samples 400]

A source of 6,000 images with 10 categories and three objects an image stands for all images there are. Each sample of
a few of them is a benchmark with one fixed detector's results. "This size" is the mean of mAP over samples of the
size, "all images" is mAP on the whole source. "shifted once" is what `single_interval` does.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.evaluation import detection
from harness.evaluation.detection import DetectionResult
from harness.evaluation.resampling import draw_weights

IMAGES, CATEGORIES, PER_IMAGE, DRAWS = 6000, 10, 3, 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=400)
    samples = parser.parse_args().samples
    generator = np.random.default_rng(0)
    source = detection.evaluate(*detector(generator))
    everything = source.reduce()["AP"]
    print("| images | boxes per category | estimand | percentile | shifted once | basic (shifted twice) |")
    print("|---|---|---|---|---|---|")
    for size in (40, 75, 250, 533):
        rows = []
        for sample in range(samples):
            result = subset(source, generator.choice(IMAGES, size, replace=False))
            drawn = result.reduce_main(draw_weights(size, DRAWS, sample))
            rows.append((result.reduce()["AP"], *np.quantile(drawn, [0.025, 0.975]), drawn.mean()))
        value, low, high, mean = np.array(rows).T
        for name, truth in (("this size", value.mean()), ("all images", everything)):
            shares = [
                np.mean((low - shift <= truth) & (truth <= high - shift))
                for shift in (0, mean - value, 2 * (mean - value))
            ]
            boxes = size * PER_IMAGE / CATEGORIES
            print(f"| {size} | {boxes:.0f} | {name} | {' | '.join(f'{share:.3f}' for share in shares)} |", flush=True)


def detector(generator: np.random.Generator) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Ground truth and a detector's results: every object found, more or less well, and six false boxes an image."""
    annotations, results = [], []
    for image in range(1, IMAGES + 1):
        for number in range(PER_IMAGE + 6):
            corner, side = generator.random(2) * 400, 20 + generator.random(2) * 80
            box = np.concatenate([corner, side])
            common = {"image_id": image, "category_id": int(generator.integers(CATEGORIES))}
            score = float(generator.normal(1 if number < PER_IMAGE else -0.5, 1))
            if number < PER_IMAGE:
                area = float(side.prod())
                annotations.append(
                    {**common, "id": len(annotations) + 1, "bbox": box.tolist(), "area": area, "iscrowd": 0}
                )
                box = np.maximum(box + generator.normal(0, 0.06, 4) * np.tile(side, 2), 1)
            results.append({**common, "bbox": box.tolist(), "score": score})
    truth = {
        "images": [{"id": n + 1} for n in range(IMAGES)],
        "categories": [{"id": k, "name": str(k)} for k in range(CATEGORIES)],
        "annotations": annotations,
    }
    return truth, results


def subset(result: DetectionResult, images: NDArray[np.intp]) -> DetectionResult:
    """The statistics of some of the images."""
    chosen = np.sort(images)
    place = np.full(len(result.ids), -1, np.int32)
    place[chosen] = np.arange(len(chosen), dtype=np.int32)
    arrays = dict(result.statistics) | {"ids": result.ids[chosen]}
    for key, names in (
        ("image", ("category", "score", "matched", "ignored")),
        ("truth_image", ("truth_category", "truth_count")),
    ):
        kept = place[arrays[key]] >= 0
        arrays |= {name: arrays[name][kept] for name in names} | {key: place[arrays[key][kept]]}
    return DetectionResult.from_statistics(arrays)


if __name__ == "__main__":
    main()
