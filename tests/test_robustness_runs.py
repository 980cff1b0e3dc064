"""Runs with corruptions and train gap: the same training, resumed between corruptions, and what is refused before."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from tests_runs import in_this_process
from tests_support import document

from harness.errors import HarnessError
from harness.progress import Reporter
from harness.runs import run
from harness.single_task import fingerprints
from harness.submission import Submission
from harness.validation import check

QUIET = Reporter(quiet=True)
ASKED = {"corruptions": {"kinds": ["fog", "contrast", "elastic_transform"], "severities": [1, 5]}, "train_gap": 10}


def raw(**evaluation: Any) -> dict[str, Any]:
    content = document(steps=4)
    content["evaluation"] = evaluation
    return content


def submission(**evaluation: Any) -> Submission:
    return Submission.model_validate(raw(**evaluation))


def test_the_keys_change_the_fingerprint_only_where_they_are_set() -> None:
    plain = submission().fingerprint()
    assert submission(corruptions=None, train_gap=None).fingerprint() == plain
    others = [
        {"corruptions": {}},
        {"corruptions": {"kinds": ["fog", "jpeg"]}},
        {"corruptions": {"severities": [1]}},
        {"train_gap": 5},
    ]
    found = {submission(**other).fingerprint() for other in others}
    assert len({plain, *found}) == 5
    swapped = submission(corruptions={"kinds": ["jpeg", "fog"]})  # the same corruptions
    assert swapped.fingerprint() == submission(corruptions={"kinds": ["fog", "jpeg"]}).fingerprint()


def test_single_task_baselines_do_without_so_that_those_on_a_board_count() -> None:
    assert fingerprints(submission(**ASKED)) == fingerprints(submission())


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_suite")
def test_training_and_clean_scores_are_those_without_and_a_finished_run_lends_its_weights(tmp_path: Path) -> None:
    plain = run(submission(), 0, tmp_path / "runs", tmp_path / "board", QUIET)
    own = run(submission(**ASKED), 0, tmp_path / "other", tmp_path / "board", QUIET)  # trains itself
    lent = run(submission(**ASKED), 0, tmp_path / "runs", tmp_path / "again", QUIET)
    assert lent.deterministic() == own.deterministic()
    assert not list((tmp_path / "runs" / f"{lent.fingerprint}-seed0").glob("log.jsonl"))  # it did not train
    assert own.weights == plain.weights
    for name, task in own.tasks.items():
        bare = task.model_copy(update={"robustness": None, "train_gap": None})
        assert bare == plain.tasks[name]
        assert task.robustness is not None
        # Boxes and label maps stay, so nothing is carried away from them.
        carried = ["elastic_transform"] if task.task in ("classification", "vqa") else []
        assert task.robustness.kinds == ["fog", "contrast", *carried]
        assert task.train_gap is not None
        assert task.train_gap.images == 10
    changed = {value for task in own.tasks.values() for row in task.robustness.values.values() for value in row}  # type: ignore[union-attr]
    assert len(changed) > 4  # the network did see other images
    assert not list((tmp_path / "runs").glob("*/predictions/corrupted/*/*"))  # gone once they are scored


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_suite")
def test_a_limited_run_has_corruptions_of_its_few_images(tmp_path: Path) -> None:
    record = run(submission(**ASKED, limit=4), 0, tmp_path / "runs", tmp_path / "board", QUIET)
    assert not record.rankable
    for task in record.tasks.values():
        assert task.train_gap is not None
        assert task.train_gap.images == 4  # of ten that were asked for
        assert task.robustness is not None


@pytest.mark.usefixtures("tiny_suite")
def test_what_cannot_be_scored_is_refused_before_training(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(yaml.safe_dump(raw(train_gap=25)))
    for refuse in (
        lambda: check(path),
        lambda: run(submission(train_gap=25), 0, tmp_path / "runs", tmp_path / "board", QUIET),
    ):
        with pytest.raises(HarnessError, match="train_gap: 25, but shapes-classification is trained on 24 images"):
            refuse()
    assert not (tmp_path / "runs").exists()
    path.write_text(yaml.safe_dump(raw(corruptions={"kinds": ["elastic_transform"]})))
    with pytest.raises(HarnessError, match=r"leaves nothing for shapes-detection \(detection\)"):
        check(path)
    content = raw(train_gap=5)
    content["training"]["on_bad_image"] = "skip"
    with pytest.raises(ValueError, match="train_gap"):
        Submission.model_validate(content)


def start(folder: Path, cache: Path, *words: str) -> subprocess.Popen[bytes]:
    folder.mkdir(exist_ok=True)
    (folder / "a.yaml").write_text(yaml.safe_dump(raw(**ASKED, batch_size=4)))
    return subprocess.Popen(
        [sys.executable, "-m", "harness", "submit", "a.yaml", "-q", *words],
        cwd=folder,
        env=os.environ | {"HARNESS_CACHE": str(cache), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def finish(folder: Path, cache: Path) -> None:
    content = raw(**ASKED, batch_size=4)
    in_this_process(folder, cache, {content["name"]: content})


def outcome(folder: Path) -> dict[str, Any]:
    (record,) = folder.glob("leaderboard/records/*/*/record.json")
    content = orjson.loads(record.read_bytes())
    del content["cost"], content["provenance"]
    return content


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_cache: Path) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    finish(folder, tiny_cache)
    return folder


@pytest.mark.slow
def test_a_run_that_is_killed_between_corruptions_goes_on_with_the_next_and_ends_alike(
    tmp_path: Path, tiny_cache: Path, whole: Path
) -> None:
    work = tmp_path / "work"
    process = start(work, tiny_cache)
    deadline = time.monotonic() + 200

    def scored() -> list[Path]:
        return sorted(work.glob("runs/*/robustness/*/*.npz"))

    while len(scored()) < 7 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = {path: path.stat().st_mtime_ns for path in scored()}
    assert 7 <= len(before) < 20
    finish(work, tiny_cache)
    assert outcome(work) == outcome(whole)
    assert {path: path.stat().st_mtime_ns for path in before} == before  # none was scored twice


@pytest.mark.slow
def test_two_processes_score_corruptions_as_one_does(tmp_path: Path, tiny_cache: Path, whole: Path) -> None:
    """Both from the same weights: batches of a step are other ones in two processes, but evaluation is not."""
    first = outcome(whole)
    two = tmp_path / "two"
    (folder,) = (whole / "runs").iterdir()
    for name in ("weights.safetensors", "training.json"):
        (two / "runs" / folder.name).mkdir(parents=True, exist_ok=True)
        (two / "runs" / folder.name / name).write_bytes((folder / name).read_bytes())
    process = start(two, tiny_cache, "--devices", "2")
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert outcome(two)["tasks"] == first["tasks"]
