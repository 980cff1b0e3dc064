"""Whether the tasks' gradients agree: over training where that was logged, else at the final weights."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats

from harness.analysis.opening import Run
from harness.data.joint_images import share_images
from harness.data.loading import TrainingOrder, loader
from harness.data.transforms import derive_seed
from harness.run_data import cache_of, task_data
from harness.training.affinity import whole_gradients
from harness.training.loop import seed_everything

BATCHES = 8
PREFIX = "cosine/"


def gradient_cosines(run: Run) -> dict[str, Any] | None:
    """Cosines of the gradients of every two tasks, over the parameters that both reach.

    Returns:
        ``measured``: ``in training`` (from the record's curves, with ``curves``) or ``at the final weights`` (on
        training batches); ``pairs[]`` with ``a``, ``b``, ``mean``, ``low``, ``high`` and ``count``. The interval is
        Student's, over batches; points of a curve are no independent sample, so they have none. None for one task.
    """
    if len(run.data) < 2:
        return None
    curves = {name: curve for name, curve in run.record.curves.items() if name.startswith(PREFIX)}
    if curves:
        known = {name: [value for _, value in curve if value is not None] for name, curve in curves.items()}
        pairs = [_pair(name.removeprefix(PREFIX), values, False) for name, values in sorted(known.items()) if values]
        return {"measured": "in training", "pairs": pairs, "curves": {name: list(one) for name, one in curves.items()}}
    found = _at_the_end(run)
    pairs = [_pair(name, values, True) for name, values in sorted(found.items())]
    return {"measured": "at the final weights", "pairs": pairs, "curves": {}}


def _pair(name: str, values: list[float], independent: bool) -> dict[str, Any]:
    a, _, b = name.partition("|")
    numbers = np.array(values)
    half = float("nan")
    if independent and len(numbers) > 1:
        half = float(stats.t.ppf(0.975, len(numbers) - 1) * numbers.std(ddof=1) / np.sqrt(len(numbers)))
    mean = float(numbers.mean())
    ends = {"low": mean - half, "high": mean + half} if np.isfinite(half) else {"low": None, "high": None}
    return {"a": a, "b": b, "mean": mean, **ends, "count": len(values)}


def _at_the_end(run: Run) -> dict[str, list[float]]:
    submission, seed, training = run.submission, run.record.seed, run.submission.training
    batches = {}
    for task in submission.tasks:
        name = task.dataset
        cache = cache_of(task, run.splits.train[name], run.engine, run.reporter, training.workers)
        data = task_data(submission, seed, run.splits, name, True, cache)
        batches[name] = iter(loader(data, TrainingOrder(data, task.batch_size), training.workers))
    found: dict[str, list[float]] = {}
    seed_everything(derive_seed("analysis", seed) % 2**32)  # dropout
    run.network.train()
    with run.reporter.bar("gradients", BATCHES) as bar:
        for _ in range(BATCHES):
            loaded = {name: next(one).to(run.engine.device) for name, one in batches.items()}
            step = share_images(loaded, submission.leaders())
            jacobian = whole_gradients(run.network, run.engine, step, training.accumulation)
            for pair, cosine in jacobian.cosines().items():
                found.setdefault(pair, []).append(cosine)
            bar.advance()
    run.network.eval()
    return found
