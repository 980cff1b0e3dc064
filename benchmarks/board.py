"""How long `harness leaderboard` takes: `python benchmarks/board.py 100 10000`.

Makes boards of generated records (one data set of classification, entries of many strengths), regenerates each twice
and prints processor seconds: from nothing, where every interval and test is computed, and again after one record was
added, which is what happens day by day.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from pathlib import Path

import numpy as np

from harness.atomic import json_bytes
from harness.board.packing import pack
from harness.board.page import write_board
from harness.board.records import STATISTICS, Cost, Protocol, Provenance, Record, TaskResult, hash_arrays
from harness.evaluation import classification

IMAGES = 200
CLASSES = 10


def add(board: Path, number: int) -> None:
    """One record, with curves and a submission of the usual size."""
    rng = np.random.default_rng(number)
    labels = np.arange(IMAGES) % CLASSES
    right = rng.random(IMAGES) < 0.4 + 0.5 * rng.random()
    ids = [f"{n:05d}" for n in range(IMAGES)]
    result = classification.evaluate(
        labels, np.where(right, labels, (labels + 1) % CLASSES), ids, [f"class {n}" for n in range(CLASSES)]
    )
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    task = TaskResult(
        task="classification",
        protocol=Protocol(
            card="generated", card_version="1", split="val", images=hashlib.sha256("\n".join(ids).encode()).hexdigest(),
            annotations="0" * 64, metric=result.metric, metric_version=result.version,
        ),
        main=result.main, metrics=result.reduce(), per_class=result.per_class(), images=IMAGES,
        statistics=hash_arrays(result.statistics),
    )  # fmt: skip
    record = Record(
        name=f"entry-{number:05d}", fingerprint=digest[:12], seed=0, tasks={"generated": task},
        submission={"model": {"backbone": {"name": "net", **{f"option_{n}": n for n in range(60)}}}},
        curves={f"loss/{n}": [(step, 1.0 / (1 + step)) for step in range(0, 1000, 25)] for n in range(5)},
        cost=Cost(parameters=int(rng.integers(10**5, 10**8)), train_seconds=float(rng.random() * 1e4)),
        provenance=Provenance(version="0.1.0", packages={"torch": "2.7", "numpy": "2.0"}),
    )  # fmt: skip
    folder = board / "records" / record.id
    folder.mkdir(parents=True)
    (folder / "record.json").write_bytes(json_bytes(record.model_dump(mode="json")))
    (folder / STATISTICS).write_bytes(pack({f"generated/{key}": a for key, a in result.statistics.items()}))


def regenerate(board: Path) -> float:
    """Processor seconds of one regeneration."""
    start = time.process_time()
    write_board(board)
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("entries", nargs="*", type=int, default=[100, 1000])
    for entries in parser.parse_args().entries:
        with tempfile.TemporaryDirectory() as folder:
            board = Path(folder)
            for number in range(entries):
                add(board, number)
            first = regenerate(board)
            add(board, entries)
            again = regenerate(board)
            size = (board / "index.html").stat().st_size / 1e6
            print(f"{entries:,} entries: {first:.2f} s from nothing, {again:.2f} s with one more; page {size:.1f} MB")


if __name__ == "__main__":
    main()
