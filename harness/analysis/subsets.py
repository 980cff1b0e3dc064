"""The submissions of subsets of a submission's tasks: what transfer and Shapley values are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import combinations
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from harness.analysis.transfer import Subset as Subset
from harness.atomic import write_text
from harness.board.schema import SubsetRun
from harness.errors import HarnessError
from harness.single_task import single_task
from harness.submission import Submission

MAX_TASKS = 6  # 63 subsets


def subset(submission: Submission, tasks: Iterable[str]) -> Submission:
    """Some of a submission's tasks under the same recipe.

    Everything stays but what names the tasks that are left out. Tokens stay, too: what is asked is what the other tasks
    do, not what the tokens do. Tokens per task stay as many for each task. One task alone is the single-task baseline
    (`harness.single_task`) with the submission's tokens and what they are trained for without other tasks, so of a
    submission without tokens it is that baseline itself. Corruptions, train gap and relatedness go, which no difference
    needs.

    Args:
        submission: Of several tasks.
        tasks: Data sets of some of them.

    Raises:
        HarnessError: These tasks cannot be learned under this recipe.
    """
    kept = [task.dataset for task in submission.tasks if task.dataset in set(tasks)]
    if len(kept) == len(submission.tasks):
        return submission
    alone = len(kept) == 1
    if alone and not submission.model.placeholders.count:
        return single_task(submission, kept[0])
    content = (single_task(submission, kept[0], tokens=True) if alone else submission.plainly_scored()).resolved()
    model = content["model"]
    if not alone:
        _leave_out(content, kept)
    if submission.model.placeholders.sharing == "per_task":
        model["placeholders"]["count"] = submission.model.placeholders.count * len(kept) // len(submission.tasks)
    letters = "-".join(kept)
    content["name"] = f"{submission.name}-of-{letters}"[:100]
    content["description"] = f"{submission.name} on {', '.join(kept)} only."[:500]
    try:
        return Submission.model_validate(content)
    except ValidationError as error:
        reason = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        raise HarnessError(f"{', '.join(kept)} under the recipe of {submission.name}: {reason}") from None


def fingerprints(submission: Submission) -> dict[Subset, str]:
    """Fingerprints of a submission's subsets that transfer and leave-one-out are made of: one task, two, all but one.

    Returns:
        Small ones first; without those that cannot be learned under this recipe. Empty for a submission of one task.
    """
    names = [task.dataset for task in submission.tasks]
    sizes = sorted({1, 2, len(names) - 1} & set(range(1, len(names))))
    found: dict[Subset, str] = {}
    for chosen in (chosen for size in sizes for chosen in combinations(names, size)):
        with suppress(HarnessError):
            found[frozenset(chosen)] = subset(submission, chosen).fingerprint()
    return found


def listed(submission: Submission) -> list[SubsetRun]:
    """The same as a record lists them."""
    order = [task.dataset for task in submission.tasks]
    return [
        SubsetRun(tasks=[name for name in order if name in names], fingerprint=fingerprint)
        for names, fingerprint in fingerprints(submission).items()
    ]


def subsets(submission: Submission) -> dict[Subset, Submission | str]:
    """Every non-empty subset of a submission's tasks as a submission, or why there is none; small ones first.

    Raises:
        HarnessError: There are more than six tasks.
    """
    names = [task.dataset for task in submission.tasks]
    if len(names) > MAX_TASKS:
        count = 2 ** len(names) - 1
        raise HarnessError(f"{len(names)} tasks have {count:,} subsets; at most {MAX_TASKS} tasks are taken apart")
    found: dict[Subset, Submission | str] = {}
    for size in range(1, len(names) + 1):
        for chosen in combinations(names, size):
            try:
                found[frozenset(chosen)] = subset(submission, chosen)
            except HarnessError as error:
                found[frozenset(chosen)] = str(error)
    return found


def write(missing: Mapping[Subset, Submission], seeds: Sequence[int], folder: Path) -> list[Path]:
    """Write subsets as files that can be submitted: ``<number of tasks>-<fingerprint>.yaml``.

    Args:
        missing: The subsets.
        seeds: That they are to be trained with.
        folder: Where to; files of earlier calls go.
    """
    for old in folder.glob("[1-9]-*.yaml"):
        old.unlink()
    files = []
    for names, submission in sorted(missing.items(), key=lambda item: (len(item[0]), sorted(item[0]))):
        content: dict[str, Any] = submission.resolved() | {"seeds": list(seeds)}
        file = folder / f"{len(names)}-{submission.fingerprint()}.yaml"
        write_text(file, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
        files.append(file)
    return files


def _leave_out(content: dict[str, Any], kept: Sequence[str]) -> None:
    """Take what names other tasks out of a resolved submission."""
    tasks = [task for task in content["tasks"] if task["dataset"] in kept]
    content["tasks"] = [task if task["images_of"] in (None, *kept) else task | {"images_of": None} for task in tasks]
    sharing = content["model"]["sharing"]
    if sharing.get("depths"):
        sharing["depths"] = {name: depth for name, depth in sharing["depths"].items() if name in kept}
        if not sharing["depths"]:
            sharing |= {"taps": "parallel"}
    if sharing.get("sources"):
        sharing["sources"] = {
            name: [one for one in read if one in kept] for name, read in sharing["sources"].items() if name in kept
        }
    regime = content["training"]["regime"]
    if regime["order"] is not None:
        regime["order"] = [name for name in regime["order"] if name in kept]
