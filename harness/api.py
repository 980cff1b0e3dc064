"""What the verbs of the command line do, as functions with typed results."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.progress import Reporter

if TYPE_CHECKING:
    from harness.admission import Admission
    from harness.board.compare import Comparison
    from harness.board.records import Record
    from harness.rerunning import RerunOutcome
    from harness.submission import Submission

BOARD = Path("leaderboard")
RUNS = Path("runs")


def submit(
    file: str | Path,
    seeds: Sequence[int] | None = None,
    overrides: Sequence[str] = (),
    limit: int | None = None,
    fresh: bool = False,
    board: Path = BOARD,
    runs: Path = RUNS,
    reporter: Reporter | None = None,
) -> list[Record]:
    """Train, evaluate and record a submission, and regenerate the board.

    Where torch's launcher started several processes, all of them call this, and all get the records.

    Args:
        file: The submission's YAML file.
        seeds: Seeds instead of the file's.
        overrides: ``a.b=value`` texts that replace values of the file.
        limit: Use at most so many images of each split and so many steps; the record is not ranked.
        fresh: Start over instead of resuming.
        board: The leaderboard's folder.
        runs: Folder of run folders.
        reporter: Shows progress; quiet by default.

    Returns:
        One record per seed.

    Raises:
        HarnessError: The submission or its data is not valid, or training diverged.
    """
    from harness.board.records import read_records
    from harness.runs import run
    from harness.training.devices import is_main

    submission = load(file, seeds, overrides, limit)
    if is_main():
        read_records(board)  # a board that could not be regenerated is told before hours of training
    reporter = reporter or Reporter(quiet=True)
    records = [run(submission, seed, runs, board, reporter, fresh) for seed in submission.seeds]
    if is_main():
        leaderboard(board)
    return records


def load(
    file: str | Path, seeds: Sequence[int] | None = None, overrides: Sequence[str] = (), limit: int | None = None
) -> Submission:
    """Read a submission as `submit` runs it, without running it.

    Args:
        file: The submission's YAML file.
        seeds: Seeds instead of the file's.
        overrides: ``a.b=value`` texts that replace values of the file.
        limit: Use at most so many images of each split and so many steps.

    Raises:
        HarnessError: The submission is not valid.
    """
    from harness.submission import load_submission

    extra = [f"seeds={list(seeds)}"] if seeds is not None else []
    extra += [f"evaluation.limit={limit}"] if limit is not None else []
    return load_submission(Path(file), [*overrides, *extra])


def leaderboard(board: Path = BOARD) -> list[Path]:
    """Regenerate the board's table, page and JSON from its records; returns the files written."""
    from harness.atomic import locked
    from harness.board.page import write_board

    # Of several runs that end at once, the last to write has seen the records of all.
    with locked(board) if board.is_dir() else nullcontext():
        return write_board(board)


def missing_baselines(board: Path, records: Sequence[Record]) -> list[str]:
    """A sentence about each entry whose Δm cannot be told because single-task baselines are not on the board.

    Args:
        board: The leaderboard's folder, regenerated.
        records: Of the entries that are asked about.
    """
    import orjson

    document = orjson.loads((board / "board.json").read_bytes())
    asked = {record.entry for record in records}
    return [
        f"{entry['name']}: no Δm, because single-task baselines of this backbone and recipe are not on the board"
        f" ({', '.join(entry['baselines_missing'])}); --with-baselines trains them"
        for entry in document["entries"]
        if entry["baselines_missing"] and f"{entry['name']}@{entry['fingerprint']}" in asked
    ]


def compare(a: str, b: str, board: Path = BOARD, by: Sequence[str] = ()) -> Comparison:
    """Compare two entries of a board, by paired differences per task.

    Args:
        a: Entry name (or ``name@fingerprint``).
        b: The baseline it is compared with.
        board: The leaderboard's folder.
        by: Breakdowns, e.g. ``["class"]`` (see `harness.board.compare.compare`).
    """
    from harness.board.compare import compare as compare_entries

    return compare_entries(board, a, b, by=by)


def analyze(
    entry: str,
    seed: int | None = None,
    images: int = 128,
    folder: str | Path | None = None,
    board: Path = BOARD,
    runs: Path = RUNS,
    reporter: Reporter | None = None,
) -> tuple[dict[str, Any], list[Path]]:
    """Analyse a finished run: its tokens, and how its tasks get along.

    Args:
        entry: Entry name (or ``name@fingerprint``).
        seed: Which of its seeds; the first one by default.
        images: How many evaluation images of each task to look at.
        folder: Where page and JSON go; by default ``analysis`` in the run's folder.
        board: The leaderboard's folder.
        runs: Folder of run folders.
        reporter: Shows progress; quiet by default.

    Returns:
        What ``analysis.json`` holds (docs/analysis.md), and the files written.

    Raises:
        HarnessError: There is no such entry, or its run's folder, weights or data are missing.
    """
    from harness.analysis import page
    from harness.analysis.report import analyze as analyze_run
    from harness.atomic import make_folder

    place = None if folder is None else Path(folder)
    if place is not None:  # told before minutes of looking
        make_folder(place)
    report, place = analyze_run(entry, seed, board, runs, images, place, reporter or Reporter(quiet=True))
    return page.document(report), page.write(report, place)


def score(
    card: str, predictions: str | Path, name: str, seed: int = 0, board: Path = BOARD, limit: int | None = None
) -> Record:
    """Score a file of predictions in the task's official format and record it.

    Args:
        card: Dataset card's name.
        predictions: The file (segmentation: folder or zip).
        name: The entry's name on the board.
        seed: Which training seed the predictions come from.
        board: The leaderboard's folder.
        limit: Score only the first so many images; the record is not ranked.
    """
    from harness.scoring import record_predictions

    record = record_predictions(card, Path(predictions), name, seed, board, limit)
    leaderboard(board)
    return record


def bundle(entry: str, output: str | Path, board: Path = BOARD, predictions: Sequence[str | Path] = ()) -> list[Record]:
    """Pack all seeds of an entry into a zip file for somebody else's board (see `harness.board.bundle`).

    Args:
        entry: Its name, or ``name@fingerprint``.
        output: The file to write.
        board: The leaderboard's folder.
        predictions: Where the predictions lie that were scored, if they are to travel, too.

    Returns:
        The records that it holds.
    """
    from harness.board.bundle import write_bundle
    from harness.board.records import find_entry, read_records

    records = find_entry(read_records(board), entry)
    write_bundle(Path(output), board, records, [Path(place) for place in predictions])
    return records


def add_bundle(file: str | Path, board: Path = BOARD, more_seeds: bool = False, other_name: bool = False) -> Admission:
    """Check a stranger's bundle, put its records on a board, and regenerate that.

    Args:
        file: The bundle.
        board: The leaderboard's folder.
        more_seeds: Whether it may add seeds to entries that are on the board.
        other_name: Whether it may bring submissions that are on the board under another name.

    Returns:
        What was stored, or why nothing was.

    Raises:
        HarnessError: The file is no bundle, or the board cannot be read.
    """
    from harness.admission import admit

    outcome = admit(board, Path(file), more_seeds, other_name)
    if not outcome.problems:
        leaderboard(board)
    return outcome


def rerun(
    entry: str,
    board: Path = BOARD,
    runs: Path = RUNS,
    weights: str | Path | None = None,
    reporter: Reporter | None = None,
) -> RerunOutcome:
    """Train an entry again from its records, and mark it as rerun if the numbers agree.

    Args:
        entry: Its name, or ``name@fingerprint``.
        board: The leaderboard's folder.
        runs: Folder of run folders; the reruns are made in one of their own below it.
        weights: The local weights that the backbone starts from, where the submission names such.
        reporter: Shows progress; quiet by default.

    Returns:
        Both sides' numbers, and whether they agree.

    Raises:
        HarnessError: The records hold no submission, or data is missing.
    """
    from harness.rerunning import rerun_entry

    outcome = rerun_entry(entry, board, runs, weights, reporter or Reporter(quiet=True))
    if outcome.agrees:
        leaderboard(board)
    return outcome
