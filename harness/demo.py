"""The demo: the embedded suite, a placeholder model, its control and a question-only baseline, and who wins."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from harness.cards import shipped
from harness.progress import Reporter

MODEL = "shapes-placeholder"
CONTROL = "shapes-plain"
BLIND = "shapes-question-only"


def ensure_shapes(reporter: Reporter) -> Path:
    """Make the embedded suite in the cache folder unless it is there; returns its folder."""
    from harness.data import shapes

    root = shapes.default_root()
    if shapes.is_complete(root):
        return root
    reporter.say(f"drawing the embedded suite into {root}")
    with reporter.bar("drawing scenes", sum(shapes.DEFAULT_SIZES.values())) as bar:
        done = 0

        def progress(drawn: int, total: int) -> None:
            nonlocal done
            bar.advance(drawn - done)
            done = drawn

        return shapes.ensure(root, progress)


def run_demo(directory: Path, quick: bool, fresh: bool, reporter: Reporter, console: Console) -> None:
    """Make the suite, run the three baselines, print the board and the comparison, write the page.

    Args:
        directory: Where runs and board go.
        quick: Half the steps.
        fresh: Start over instead of resuming.
        reporter: Shows progress.
        console: Gets the results.
    """
    from harness.board.compare import compare
    from harness.board.page import write_board
    from harness.runs import run
    from harness.submission import load_submission
    from harness.terminal import print_board, print_comparison

    ensure_shapes(reporter)
    board = directory / "leaderboard"
    for name in (MODEL, CONTROL, BLIND):
        file = shipped("baselines") / f"{name}.yaml"
        submission = load_submission(file)
        if quick:
            submission = load_submission(
                file, [f"training.steps={submission.training.steps // 2}", f"name={name}-quick"]
            )
        for seed in submission.seeds:
            run(submission, seed, directory / "runs", board, reporter, fresh)
    written = write_board(board)
    suffix = "-quick" if quick else ""
    print_board(board, console)
    print_comparison(compare(board, MODEL + suffix, CONTROL + suffix), console)
    page = next(path for path in written if path.suffix == ".html")
    console.print(f"The page: {page}", markup=False, highlight=False)
