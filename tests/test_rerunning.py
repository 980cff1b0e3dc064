"""Training an entry again: what is compared, what is promoted, and what stays as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from tests_support import document

from harness import api
from harness.board.page import verify
from harness.board.records import hash_arrays, read_records, read_statistics, write_record
from harness.errors import HarnessError
from harness.progress import Reporter
from harness.rerunning import DISAGREED, rerun_entry
from harness.scoring import record_predictions

QUIET = Reporter(quiet=True)


@pytest.fixture
def entry(tiny_suite: Path, tmp_path: Path) -> Path:
    """A board with a model of one task that took two steps."""
    content = document(0, steps=2) | {"name": "small"}
    content["tasks"], content["model"]["heads"] = content["tasks"][:1], {}
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(content))
    api.submit(path, board=tmp_path / "board", runs=tmp_path / "runs")
    return tmp_path / "board"


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_rerun_on_the_same_machine_is_bit_equal_and_promotes_the_record_with_its_provenance(
    entry: Path, tmp_path: Path
) -> None:
    (before,) = read_records(entry)
    outcome = api.rerun("small", entry, tmp_path / "runs")
    assert [task.rule for task in outcome.tasks] == ["bit-equal statistics"]
    assert outcome.agrees
    (after,) = read_records(entry)
    assert (before.trust, after.trust) == ("reported", "rerun")
    assert after.rerun is not None
    assert after.rerun.identical
    assert after.rerun.provenance.started >= before.provenance.started
    assert after.provenance == before.provenance
    assert after.deterministic() == before.deterministic()
    assert verify(entry) == []
    assert list((tmp_path / "runs" / f"rerun-{before.fingerprint}").iterdir()) == []  # the next one trains again


def test_a_rerun_that_gives_other_numbers_changes_nothing_and_keeps_its_own(entry: Path, tmp_path: Path) -> None:
    (record,) = read_records(entry)
    perfect: Any = read_statistics(entry, record)["shapes-classification"]
    arrays = {key: array.copy() for key, array in perfect.statistics.items()}
    arrays["predicted"][:], arrays["rank"][:] = arrays["label"], 0
    result = type(perfect).from_statistics(arrays)
    task = record.tasks["shapes-classification"].model_copy(
        update={
            "metrics": result.reduce(),
            "per_class": result.per_class(),
            "statistics": hash_arrays(result.statistics),
        }
    )
    boasting = record.model_copy(update={"tasks": {"shapes-classification": task}})
    write_record(entry, boasting, {"shapes-classification": result.statistics}, replace=True)
    before = tree(entry / "records")
    outcome = rerun_entry("small", entry, tmp_path / "runs", None, QUIET)
    assert not outcome.agrees
    assert "stored 100.00" in outcome.sentences()[0]
    assert tree(entry / "records") == before
    (kept,) = read_records(tmp_path / "runs" / f"rerun-{record.fingerprint}" / DISAGREED)
    assert kept.deterministic() == record.deterministic()


def test_predictions_that_were_handed_in_cannot_be_trained_again(tiny_suite: Path, tmp_path: Path) -> None:
    from test_admission import CARD, predictions

    record_predictions(CARD, predictions(tmp_path / "p.csv"), "handed-in", 0, tmp_path / "board")
    with pytest.raises(HarnessError, match="its predictions were handed in"):
        rerun_entry("handed-in", tmp_path / "board", tmp_path / "runs", None, QUIET)


def test_a_submission_that_gives_another_run_here_is_refused_before_training(entry: Path, tmp_path: Path) -> None:
    (record,) = read_records(entry)
    other = record.model_copy(update={"fingerprint": "0" * 12, "name": "moved"})
    statistics = {card: result.statistics for card, result in read_statistics(entry, record).items()}
    write_record(entry, other, statistics)
    with pytest.raises(HarnessError, match=f"fingerprint: its submission has {record.fingerprint} here"):
        rerun_entry("moved", entry, tmp_path / "runs", None, QUIET)
    assert not (tmp_path / "runs" / "rerun-000000000000").exists()


def test_weights_for_a_submission_that_names_none_are_refused(entry: Path, tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=r"--weights w\.pth: the submission of small/.* leave it out"):
        rerun_entry("small", entry, tmp_path / "runs", "w.pth", QUIET)
    assert not list((tmp_path / "runs").glob("rerun-*"))
