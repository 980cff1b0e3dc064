"""Runs that record how alike their tasks are: the same training, the numbers of an analysis, and what is refused."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tests_support import document

from harness.analysis import subsets
from harness.analysis.opening import open_run
from harness.analysis.relatedness import relatedness
from harness.board.page import verify, write_board
from harness.progress import Reporter
from harness.runs import run
from harness.single_task import fingerprints
from harness.submission import Submission

QUIET = Reporter(quiet=True)
NAMES = ["shapes-classification", "shapes-segmentation", "shapes-vqa"]


def submission(tasks: list[str] = NAMES, **evaluation: Any) -> Submission:
    content = document(steps=2)
    content["tasks"] = [task for task in content["tasks"] if task["dataset"] in tasks]
    content["evaluation"] = evaluation
    content["training"] |= {"log_gradients": 1, "log_every": 1}
    return Submission.model_validate(content)


def test_the_key_changes_the_fingerprint_where_it_is_set_and_no_baseline_or_subset() -> None:
    plain, asked = submission(), submission(relatedness=24)
    assert submission(relatedness=None).fingerprint() == plain.fingerprint()
    assert len({one.fingerprint() for one in (plain, asked, submission(relatedness=25))}) == 3
    assert fingerprints(asked) == fingerprints(plain)
    assert subsets.fingerprints(asked) == subsets.fingerprints(plain)
    assert asked.plainly_scored() == plain


def test_one_task_alone_is_alike_to_nothing() -> None:
    with pytest.raises(ValidationError, match=r"evaluation.relatedness: 24, but there is one task only"):
        submission(NAMES[:1], relatedness=24)
    with pytest.raises(ValidationError, match="greater than or equal to 10"):
        submission(relatedness=9)


def test_subsets_are_one_task_two_tasks_and_all_but_one() -> None:
    found = subsets.fingerprints(submission(["shapes-detection", *NAMES]))
    sizes = [len(names) for names in found]
    assert sizes == [1] * 4 + [2] * 6 + [3] * 4
    assert len(set(found.values())) == len(found)
    assert [len(names) for names in subsets.fingerprints(submission(NAMES[:2]))] == [1, 1]
    assert subsets.fingerprints(submission(NAMES[:1])) == {}
    listed = subsets.listed(submission())
    assert [one.tasks for one in listed] == [list(names) for size in (1, 2) for names in combinations(NAMES, size)]


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_suite")
def test_a_run_records_what_an_analysis_of_it_finds_and_trains_as_without(tmp_path: Path) -> None:
    runs, board = tmp_path / "runs", tmp_path / "board"
    plain = run(submission(), 0, tmp_path / "other", tmp_path / "elsewhere", QUIET)
    asked = run(submission(relatedness=24), 0, runs, board, QUIET)
    assert asked.weights == plain.weights
    assert asked.tasks == plain.tasks
    assert plain.relatedness is None
    assert asked.relatedness is not None
    again = relatedness(open_run(asked.entry, 0, board, runs, 24, QUIET), 24)
    kept = {key: [one for one in again[key] if one["a"] != one["b"]] for key in ("features", "tokens", "outputs")}
    assert asked.relatedness.model_dump() == {"version": 1, "images": 24} | kept
    assert {(one.a, one.b) for one in asked.relatedness.tokens} == set(combinations(NAMES, 2))
    assert set(asked.cosines()) == {"|".join(pair) for pair in combinations(NAMES, 2)}
    assert [one.fingerprint for one in asked.subsets] == list(subsets.fingerprints(submission()).values())

    file = runs / f"{asked.fingerprint}-seed0" / "relatedness.json"
    file.write_bytes(
        file.read_bytes().replace(b'"images": 24', b'"images": 23').replace(b'"images":24', b'"images":23')
    )
    taken = run(submission(relatedness=24), 0, runs, tmp_path / "third", QUIET)  # finished stages are not repeated
    assert taken.relatedness is not None
    assert taken.relatedness.images == 23
    write_board(board)
    assert verify(board) == []
