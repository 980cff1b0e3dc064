"""Run folders and boards as earlier commands and accidents leave them, and what a record says of its command."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests_support import document

from harness import provenance, relatedness, robustness, runs
from harness.errors import HarnessError
from harness.evaluation import result_class
from harness.progress import Reporter
from harness.submission import Submission


@pytest.mark.parametrize("content", [None, "half", "[1]", '{"predicting a": "long", "scoring a": true}'])
def test_seconds_of_an_evaluation_start_anew_where_their_file_is_damaged(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / runs.EVALUATED
    if content is not None:
        path.write_text(content)
    seconds = runs._Seconds(path)
    assert seconds.total == 0
    seconds.add("scoring b", 1.5)
    assert runs._Seconds(path).total == 1.5


@pytest.mark.usefixtures("tiny_suite")
def test_a_name_that_differs_from_another_in_case_only_is_told_before_training(tmp_path: Path) -> None:
    (tmp_path / "board" / "records" / "TINY-4").mkdir(parents=True)
    submission = Submission.model_validate(document())
    with pytest.raises(HarnessError, match="'tiny-4' differs from 'TINY-4'"):
        runs.run(submission, 0, tmp_path / "runs", tmp_path / "board", Reporter(quiet=True))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("content", [b"half", b"PK\x03\x04", b""])
def test_damaged_statistics_of_corrupted_images_are_told_in_a_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "fog-1.npz").write_bytes(content)
    with pytest.raises(HarnessError, match=r"fog-1\.npz: cannot be read as statistics .*; remove it"):
        robustness._read(result_class("top1"), tmp_path / "fog-1.npz")


@pytest.mark.parametrize("content", ["half", "{}", "[]"])
def test_damaged_relatedness_is_told_in_a_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / relatedness.FILE).write_text(content)
    asked: Any = SimpleNamespace(evaluation=SimpleNamespace(relatedness=20))
    nothing: Any = None
    with pytest.raises(HarnessError, match=r"relatedness\.json: cannot be read as relatedness .*; remove it"):
        relatedness.measure(*(nothing, asked, *[nothing] * 4), folder=tmp_path, reporter=nothing)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["submit", "a.yaml", "--seeds", "0,1"], "submit a.yaml --seeds 0,1"),
        (["submit", "/home/me/a.yaml", "--runs", "/data/me/runs"], "submit a.yaml --runs runs"),
        (["--leaderboard=/home/me/board/", "--runs=/data/me/my runs"], "--leaderboard=board --runs=my runs"),
        (["--set", "model.backbone.weights=/home/me/a,b.pth"], "--set model.backbone.weights=a,b.pth"),
        (["--set=model.backbone.weights=/home/m,e/a.pth"], "--set=model.backbone.weights=a.pth"),
        (["--set", "a=local-dir:/home/me/clip"], "--set a=local-dir:clip"),
        (["--set", "a={name: x, weights: '/home/me/a.pth', n: 1}"], "--set a={name: x, weights: 'a.pth', n: 1}"),
        (["--set", "a=[/home/me/a.pth,~/b.pth]"], "--set a=[a.pth,b.pth]"),
        (["~/a.yaml", "--runs=~/me/runs", "--set", "w=~me/w.pth", "~me"], "a.yaml --runs=runs --set w=w.pth ~"),
        (["file:///home/me/a.yaml", "--set", "w=file:/home/me/w.pth"], "a.yaml --set w=w.pth"),
        (["../me/a.yaml", "--runs=../../me/runs", "-o/home/me/a.zip"], "a.yaml --runs=runs -oa.zip"),
        (["runs/a.yaml", "--set", "name=x", "--set", "a=1/2"], "runs/a.yaml --set name=x --set a=1/2"),
        (["--set", "description=see https://example.org/a/b"], "--set description=see https://example.org/a/b"),
    ],
)
def test_a_record_names_no_path_outside_the_current_folder(words: list[str], told: str) -> None:
    assert provenance.command(words) == f"harness {told}"
