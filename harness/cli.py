"""The command line: its verbs, which `harness.commands` holds, and how errors are told."""

from __future__ import annotations

import io
import os
import sys
import warnings

import typer

from harness.commands import data, experiments, leaderboard, results, submissions
from harness.commands.submit import submit
from harness.errors import HarnessError
from harness.training.devices import INTERRUPTED, LAUNCHED, deserted, first_to_fail, is_main, world

app = typer.Typer(
    name="harness",
    help="Train a model on several vision tasks at once, score it, and tell whether it beats a baseline.\n\n"
    "Start with [bold]harness demo[/bold]; then copy a file from baselines/ and [bold]harness submit[/bold] it.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(epilog="Example: harness demo --quick")(experiments.demo)
app.command(epilog="Example: harness submit baselines/shapes-placeholder.yaml --seeds 0,1,2 --set training.steps=500")(
    submit
)
app.command(epilog="Example: harness validate baselines/shapes-*.yaml")(submissions.validate)
app.command(epilog="Example: harness score shapes-detection results.json --name my-detector")(results.score)
app.command(epilog="Example: harness compare shapes-placeholder shapes-plain")(results.compare)
app.command(epilog="Example: harness study baselines/studies/pe-shapes.yaml --launcher local --jobs 2")(
    experiments.study
)
app.command(epilog="Example: harness analyze shapes-placeholder --seed 0")(results.analyze)
app.command(epilog="Example: harness rerun my-model")(leaderboard.rerun)
app.command(name="ls", epilog="Example: harness ls backbones --filter convnext")(submissions.list_names)
app.add_typer(data.app, name="data")
app.add_typer(leaderboard.app, name="leaderboard")


def main() -> None:
    """Entry point: errors as one sentence with exit code 2, Ctrl-C as 130."""
    for stream in (sys.stdout, sys.stderr):  # a terminal that has no Δ shows ? instead
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")
    # Libraries' warnings are for developers; ours are shown as one line.
    warnings.filterwarnings("ignore")
    warnings.filterwarnings("default", module=r"harness\.")
    if world() > 1:  # torch, not loaded yet, would say of several processes what is of no use to their user
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr) if is_main() else None
    try:
        app()
    except HarnessError as error:
        from harness.terminal import safe_terminal

        if first_to_fail():
            print(f"error: {safe_terminal(str(error))}", file=sys.stderr)
        sys.exit(2)
    except SystemExit as stop:
        # Typer turns Ctrl-C into this, without a word; of several processes the one that started them says it.
        if stop.code == INTERRUPTED and world() == 1:
            print("interrupted; the work so far is kept, the same command goes on with it", file=sys.stderr)
        raise
    except BrokenPipeError:  # the reader of a pipe, e.g. head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if deserted(error):
            if LAUNCHED not in os.environ and first_to_fail():
                print(f"error: another process of this run is gone ({error})", file=sys.stderr)
            sys.exit(1)
        if not first_to_fail():
            sys.exit(1)
        if isinstance(error, OSError) and error.strerror:  # a disk, a folder or a permission, not the code
            from harness.terminal import safe_terminal

            place = "output" if error.filename is None else safe_terminal(str(error.filename))
            print(f"error: {place}: {error.strerror}", file=sys.stderr)
            sys.exit(2)
        raise
