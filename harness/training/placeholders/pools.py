"""The pools that placeholder samples are drawn from: unlabelled images of the training splits."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import orjson
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.atomic import write_json
from harness.data.loading import EvaluationOrder, TaskData, loader
from harness.data.samples import Adapter
from harness.data.subsets import subset
from harness.data.transforms import derive_seed
from harness.data.unlabelled import UnlabelledData
from harness.errors import HarnessError
from harness.models.network import MultiTaskNetwork
from harness.progress import Reporter
from harness.run_data import Splits
from harness.submission import Submission
from harness.training.engine import Engine
from harness.training.placeholders.k_center import k_center

POOLS = "samples.json"
_NUMBERED = ("coco", "vqa")  # layouts that number the same photographs alike


def open_pools(
    submission: Submission,
    seed: int,
    splits: Splits,
    network: MultiTaskNetwork,
    engine: Engine,
    data: Mapping[str, TaskData],
    folder: Path,
    reporter: Reporter,
) -> dict[str, UnlabelledData]:
    """The pool of every task that trains on a fraction of its labels. All processes.

    Which images these are is written into the run's folder, and read from there when the run goes on.

    Args:
        submission: The recipe.
        seed: The run's.
        splits: The data.
        network: As it starts, on its device.
        engine: The processes.
        data: The labelled training images by dataset name.
        folder: The run's.
        reporter: Tells how many images there are.

    Returns:
        Pools by dataset name; none where placeholder samples are off.

    Raises:
        HarnessError: There is no image for a pool.
    """
    found = {name: UnlabelledData(data[name], rows) for name, rows in unlabelled(submission, splits).items()}
    if not found:
        return {}

    def chosen() -> dict[str, list[str]]:
        file = folder / POOLS
        if file.exists():
            return _known(file, found)
        made = {name: _choose(submission, seed, network, engine, data[name], found[name]) for name in found}
        write_json(file, made)
        return made

    names = engine.from_main(chosen)
    for name, one in found.items():
        place = _places(one)
        one.rows = np.sort(np.array([place[image] for image in names[name]], dtype=np.int64))
        reporter.say(f"{name}: {len(one)} placeholder samples beside {len(data[name])} labelled images")
    return found


def _known(file: Path, pools: Mapping[str, UnlabelledData]) -> dict[str, list[str]]:
    """The images that an earlier part of the run has chosen."""
    try:
        known: dict[str, list[str]] = orjson.loads(file.read_bytes())
        if all(set(known[name]) <= _places(one).keys() for name, one in pools.items()):
            return known
        reason = "it names images that the data set does not have"
    except (OSError, LookupError, TypeError, ValueError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
    raise HarnessError(
        f"{file}: cannot be read as the images that were chosen ({reason}); restore it, or train again with harness"
        " submit --fresh"
    )


def _places(pool: UnlabelledData) -> dict[str, int]:
    return {image: row for row, image in enumerate(pool.adapter.ids)}


def unlabelled(submission: Submission, splits: Splits) -> dict[str, NDArray[np.int64]]:
    """The training images that are not trained on with labels, and that no task is scored on.

    Args:
        submission: Tells fractions, and whether there are placeholder samples.
        splits: The data.

    Returns:
        By dataset name, for every task that trains on a fraction, int64 [N]: rows of its training split in the order of
        the images' ids. Nothing where placeholder samples are off.

    Raises:
        HarnessError: A task has no such image.
    """
    if not submission.training.placeholders.samples.ratio:
        return {}
    return {task.dataset: _rest(submission, splits, task.dataset) for task in submission.tasks if task.fraction < 1}


def _rest(submission: Submission, splits: Splits, name: str) -> NDArray[np.int64]:
    config, adapter = submission.task(name), splits.train[name]
    rest = np.setdiff1d(np.arange(len(adapter)), subset(adapter, config.fraction, config.fraction_draw))
    scored: set[str] = set()
    for other, evaluated in splits.evaluation.items():
        if other != name and _same_photographs(adapter, evaluated):
            scored |= {_digits(one) for one in evaluated.ids}
    found = [int(row) for row in rest if _digits(adapter.ids[row]) not in scored]
    if not found:
        raise HarnessError(
            f"training.placeholders.samples: fraction {config.fraction:g} of {name} leaves no image over, for every"
            " class gives its share rounded up, and images that another task is scored on are left out; lower it, or"
            " raise evaluation.limit if there is one"
        )
    return np.array(sorted(found, key=lambda row: adapter.ids[row]), dtype=np.int64)


def _same_photographs(one: Adapter, other: Adapter) -> bool:
    """Whether two data sets may hold the same photographs under the same numbers."""
    numbered = one.card.adapter in _NUMBERED and other.card.adapter in _NUMBERED
    return numbered or one.card.directory == other.card.directory


def _digits(name: str) -> str:
    """What layouts that name a photograph differently have in common: 2007_000027 and 2007000027, 5 and 000005."""
    return re.sub(r"\D", "", name).lstrip("0") or name


def _choose(
    submission: Submission,
    seed: int,
    network: MultiTaskNetwork,
    engine: Engine,
    labelled: TaskData,
    candidates: UnlabelledData,
) -> list[str]:
    """Ids of the images of a pool; in the main process."""
    samples = submission.training.placeholders.samples
    count = min(max(1, samples.batch_size(len(labelled))), len(candidates))
    if samples.selection == "random":
        draw = np.random.default_rng(derive_seed("pool", seed, labelled.config.dataset))
        places = draw.permutation(len(candidates))[:count].tolist()  # a smaller pool lies within a larger one
    else:
        assert labelled.rows is not None
        size = submission.evaluation.batch_size
        centres = _features(network, engine, UnlabelledData(labelled, labelled.rows), size)
        places = k_center(_features(network, engine, candidates, size), centres, count)
    names = candidates.names
    return [names[place] for place in places]


@torch.no_grad()
def _features(network: MultiTaskNetwork, engine: Engine, data: UnlabelledData, batch_size: int) -> Tensor:
    """Pooled features of images without augmentation, float32 [N, F]."""
    assert network.shared is not None
    name = data.config.dataset
    network.eval()
    found = []
    for batch in loader(data.still(), EvaluationOrder(len(data), batch_size), workers=0):
        features = network.shared({name: batch.to(engine.device)}, network.placeholders)
        found.append(features[name].pooled.float())
    network.train()
    return torch.cat(found)
