"""Speed and memory of the evaluators beside their peers', measured in one run on one machine.

Usage: python benchmarks/evaluator.py [--full] [--output FILE]

Each measurement runs in a process of its own and is repeated; the least CPU time counts. By default a tenth of COCO
val2017's size, with --full all of it. Peers that are not installed are left out:
pip install pycocotools faster-coco-eval hotcoco ultrafast-pycocotools torchmetrics
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import evaluator_data as data
import evaluator_peers as peers
import numpy as np

DETECTION = {
    "pycocotools": ("pycocotools.coco", "pycocotools.cocoeval", "COCOeval"),
    "faster-coco-eval": ("faster_coco_eval", "faster_coco_eval", "COCOeval_faster"),
    "ultrafast-pycocotools": ("ultrafast_pycocotools", "ultrafast_pycocotools", "COCOeval"),
    "hotcoco": ("hotcoco", "hotcoco", "COCOeval"),
}
PACKAGES = ("numpy", "numba", "orjson", "faster-coco-eval", "hotcoco", "pycocotools", "torchmetrics")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="COCO val2017's size, 40 label maps, 200,000 questions")
    parser.add_argument("--output", type=Path, help="write the table to this file, too")
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        report = one(*given.one)
        report["memory"] = peak_memory()
        print(json.dumps(report))
        return
    lines = [*machine(), ""]
    for line in table(1 if given.full else 10):
        print(line, flush=True)
        lines.append(line)
    if given.output:
        given.output.write_text("\n".join(lines) + "\n")


def peak_memory() -> int:
    """The most MiB that this process has held; a child's ``ru_maxrss`` starts from its parent's."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) >> 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def machine() -> list[str]:
    model = platform.processor()
    if Path("/proc/cpuinfo").exists():
        names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(":")[1].strip()
    found = []
    for package in (*PACKAGES, "ultrafast-pycocotools", "torch"):
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"{package} not installed")
    return [
        f"{model}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}; {', '.join(found)}"
    ]


def table(scale: int) -> Iterator[str]:
    """The lines of the tables, in Markdown."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data.write_coco(folder, 5000 // scale, 36_000 // scale, 500_000 // scale)
        yield from detection_rows(folder, scale)
        yield from bootstrap_rows(folder, 1000 // scale)
    yield from segmentation_rows(40 // scale)
    yield from label_file_rows(60 // scale)
    yield from vqa_rows(200_000 // scale)


def run(*words: Any, repeats: int = 3, **environment: str) -> dict[str, Any]:
    """The report of the fastest of several child processes."""
    reports = []
    for _ in range(repeats):
        done = subprocess.run(
            [sys.executable, __file__, "--one", *map(str, words)],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | environment,
        )
        reports.append(json.loads(done.stdout.splitlines()[-1]))
    best: dict[str, Any] = min(reports, key=lambda report: report["all"]["cpu"])
    if "matching" in best:
        best["matching"] = min((report["matching"] for report in reports), key=lambda seconds: seconds["cpu"])
    return best


def one(what: str, *words: str) -> dict[str, Any]:
    """One measurement, in this process."""
    if what == "coco":
        folder, name = Path(words[0]), words[1]
        if name in DETECTION:
            return peers.coco_like(folder, *DETECTION[name])
        return peers.ours(folder, name)
    if what == "bootstrap":
        return peers.bootstrap(Path(words[0]), int(words[1]))
    if what == "permutation":
        return peers.permutation(Path(words[0]), int(words[1]))
    if what == "label files":
        return peers.segmentation_files(Path(words[0]), int(words[1]))
    if what == "vqa files":
        return peers.vqa_from_files(Path(words[0]), words[1])
    if what == "hotcoco":
        return peers.hotcoco_compare(Path(words[0]), int(words[1]))
    if what == "segmentation":
        return peers.segmentation(data.label_maps(int(words[0]), int(words[1])), words[2])
    if words[1] == "ours":
        peers.vqa_loaded(*data.vqa(10), "ours")
    return peers.vqa_loaded(*data.vqa(int(words[0])), words[1])


def detection_rows(folder: Path, scale: int) -> Iterator[str]:
    yield (
        f"**Boxes**: {5000 // scale:,} images, {36_000 // scale:,} ground truths, 80 categories, {500_000 // scale:,} "
        "detections, many ties; files in, 12 numbers and all arrays out. Matching: matching and accumulation alone."
    )
    yield ""
    yield "| tool | all: CPU s | wall s | ratio | matching: CPU s | ratio | memory MiB | same 12 numbers |"
    yield "|---|---|---|---|---|---|---|---|"
    base = run("coco", folder, "pycocotools", repeats=1 if scale == 1 else 3)
    names = [name for name in DETECTION if name != "pycocotools" and find_spec(DETECTION[name][0])]
    rows = {"pycocotools": base} | {name: run("coco", folder, name) for name in names}
    rows["this evaluator, .json"] = run("coco", folder, "results.json")
    rows["this evaluator, .npz"] = run("coco", folder, "results.npz")
    for name, row in rows.items():
        worst = float(np.max(np.abs(np.array(row["stats"]) - base["stats"])))
        yield (
            f"| {name} | {row['all']['cpu']:.2f} | {row['all']['wall']:.2f} | "
            f"{base['all']['cpu'] / row['all']['cpu']:.1f} | {row['matching']['cpu']:.3f} | "
            f"{base['matching']['cpu'] / row['matching']['cpu']:.1f} | {row['memory']:,} | "
            f"{'yes' if worst == 0 else f'to {worst:.0e}'} |"
        )
    with tempfile.TemporaryDirectory() as empty:
        tiny = Path(empty) / "tiny"
        tiny.mkdir()
        data.write_coco(tiny, 50, 200, 1000)
        first = run("coco", tiny, "results.json", repeats=1, NUMBA_CACHE_DIR=empty)["first"]
        again = run("coco", tiny, "results.json", repeats=3, NUMBA_CACHE_DIR=empty)["first"]
    yield ""
    yield (
        f"First call after installation, which compiles: {first['wall']:.1f} s; first call of a later process "
        f"on 1,000 detections, with loading numba and the machine code: {again['wall']:.2f} s."
    )


def bootstrap_rows(folder: Path, draws: int) -> Iterator[str]:
    yield ""
    yield f"**Bootstrap**: {draws:,} paired draws of all 12 numbers for two detectors on the same images."
    yield ""
    yield "| tool | CPU s | wall s | ratio |"
    yield "|---|---|---|---|"
    mine = run("bootstrap", folder, draws)
    if find_spec("hotcoco"):
        peer = run("hotcoco", folder, draws, repeats=1)
        yield f"| hotcoco compare | {peer['all']['cpu']:.1f} | {peer['all']['wall']:.1f} | 1.0 |"
        ratio = f"{peer['all']['cpu'] / mine['all']['cpu']:.0f}"
    else:
        ratio = ""
    yield f"| this evaluator | {mine['all']['cpu']:.2f} | {mine['all']['wall']:.2f} | {ratio} |"
    compared = run("permutation", folder, draws)
    yield ""
    yield (
        f"Comparing the two in AP alone, as `harness compare` does: {compared['interval']['cpu']:.2f} CPU s for the "
        f"interval of {draws:,} paired draws, {compared['test']['cpu']:.2f} CPU s for the p-value of {draws:,} random "
        "swaps."
    )


def segmentation_rows(count: int) -> Iterator[str]:
    yield ""
    yield f"**Label maps**: {count} decoded pairs of 1024 x 2048, in maps per CPU second; ratio to bincount."
    yield ""
    yield "| counting | 300 regions | ratio | 5,000 regions | ratio |"
    yield "|---|---|---|---|---|"
    ways = {"unique": "numpy unique (the official script without its C extension)", "bincount": "numpy bincount"}
    if find_spec("torchmetrics"):
        ways["torchmetrics"] = "torchmetrics confusion matrix"
    ways |= {"pairs": "this evaluator, pairs of ids", "row": "this evaluator, all statistics of an image"}
    speeds = {
        way: [count / run("segmentation", count, regions, way)["all"]["cpu"] for regions in (300, 5000)] for way in ways
    }
    for way, name in ways.items():
        cells = [
            f"{speed:,.0f} | {speed / base:.1f}" for speed, base in zip(speeds[way], speeds["bincount"], strict=True)
        ]
        yield f"| {name} | {' | '.join(cells)} |"


def label_file_rows(count: int) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as name:
        data.write_label_maps(Path(name), count)
        few, many = (run("label files", name, pairs, repeats=1) for pairs in (count // 3, count))
    yield ""
    yield (
        f"From PNG files: {count // 3} pairs take {few['memory']:,} MiB at most, {count} pairs {many['memory']:,} MiB; "
        f"{many['all']['cpu'] / count * 1000:.0f} CPU ms a pair."
    )


def vqa_rows(questions: int) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as name:
        for kind, content in zip(("questions", "annotations", "results"), data.vqa(questions), strict=True):
            (Path(name) / f"{kind}.json").write_text(json.dumps(content))
        rows = [
            tuple(run(what, source, way, repeats=times) for what, source in (("vqa", questions), ("vqa files", name)))
            for way, times in (("official", 1), ("ours", 3))
        ]
    assert np.ptp([row["accuracy"] for pair in rows for row in pair]) < 1e-9
    yield ""
    yield f"**VQA**: {questions:,} questions with ten answers each; accuracy overall and per type."
    yield ""
    yield "| tool | results on read ground truth: CPU s | ratio | all of it, loaded: CPU s | ratio | from files: CPU s | ratio | memory MiB |"  # noqa: E501
    yield "|---|---|---|---|---|---|---|---|"
    for name, pair in zip(("the official rules, question by question", "this evaluator"), rows, strict=True):
        cells = [
            f"{pair[which][key]['cpu']:.2f} | {rows[0][which][key]['cpu'] / pair[which][key]['cpu']:.1f}"
            for which, key in ((0, "scoring"), (0, "all"), (1, "all"))
        ]
        yield f"| {name} | {' | '.join(cells)} | {pair[1]['memory']:,} |"


if __name__ == "__main__":
    main()
