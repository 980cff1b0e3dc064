"""The journal: nothing is told twice, and it is drawn whatever ends the run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests_support import document

from harness.errors import HarnessError
from harness.progress import Reporter
from harness.runs import run
from harness.submission import Submission
from harness.training import stepping
from harness.training.journal import Journal
from harness.training.state import Progress
from harness.training.tracking import Tracker


def journal(folder: Path) -> Journal:
    return Journal(folder, "a run", Tracker("disabled", folder, "id", "name", {}))


def test_a_resumed_journal_goes_on_after_the_lines_that_the_checkpoint_knows(tmp_path: Path) -> None:
    one = journal(tmp_path)
    for step in (2, 4, 4, 6):
        one.add(step, {"loss/a": 1.0})
    with (tmp_path / "log.jsonl").open("ab") as file:
        file.write(b'{"step": 8, "loss')  # killed here
    journal(tmp_path).resume(Progress(step=5, points=3))
    assert [json.loads(line)["step"] for line in (tmp_path / "log.jsonl").read_text().splitlines()] == [2, 4, 4]
    journal(tmp_path).resume(Progress())
    assert (tmp_path / "log.jsonl").read_text() == ""


def test_a_page_without_scripts_shows_every_curve_and_escapes_names(tmp_path: Path) -> None:
    one = Journal(tmp_path, "<b>mine</b>", Tracker("disabled", tmp_path, "id", "name", {}))
    one.draw()
    assert "No point yet" in (tmp_path / "curves.html").read_text()
    for step in range(1, 6):
        one.add(step, {"loss/a": 1 / step, "loss/b": 2.0, "learning_rate": 0.1 * step, "seconds/data": 0.5})
    one.draw()
    page = (tmp_path / "curves.html").read_text()
    assert page.count("<svg") == 4
    assert "<b>" not in page
    assert "<script" not in page
    order = [page.index(f"<h2>{group}</h2>") for group in ("loss", "run", "seconds")]
    assert order == sorted(order)


@pytest.mark.usefixtures("tiny_suite")
@pytest.mark.parametrize("end", [KeyboardInterrupt, HarnessError])
def test_curves_are_drawn_when_a_run_is_interrupted_or_fails(tmp_path: Path, end: type[BaseException]) -> None:
    def fail(*arguments: object) -> None:
        if arguments[1] == 3:
            raise end("stopped")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stepping, "require_finite", fail)
        with pytest.raises(end):
            run(Submission.model_validate(document()), 0, tmp_path / "runs", tmp_path / "b", Reporter(quiet=True))
    (page,) = tmp_path.glob("runs/*/curves.html")
    assert page.read_text().count("<svg") == 10


def test_lines_that_were_cut_short_are_left_out_of_the_page(tmp_path: Path) -> None:
    one = journal(tmp_path)
    one.add(2, {"loss/a": 1.0})
    with (tmp_path / "log.jsonl").open("ab") as file:
        file.write(b'[]\n{}\n{"step": 8, "loss')
    one.draw()
    assert (tmp_path / "curves.html").read_text().count("<svg") == 1
