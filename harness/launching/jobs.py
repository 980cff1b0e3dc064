"""One job: a submission with one seed, what it leaves on disk, and what launchers do with it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import orjson
import yaml

from harness.atomic import write_text
from harness.board.text import safe_terminal
from harness.documents import parse_yaml
from harness.errors import HarnessError
from harness.launching.commands import ATTEMPT, Command
from harness.submission import Submission

LAUNCHED = "launched"  # folder of logs, below that of runs
LOG_TAIL = 20_000  # bytes of a log that are searched for its last line


@dataclass(frozen=True)
class Job:
    """A submission with one seed.

    Attributes:
        submission: What to run.
        fingerprint: Its fingerprint.
        seed: The seed.
        leaderboard: The board's folder.
        runs: Folder of run folders.
        fresh: Whether to start over.
        words: More words for its command.
    """

    submission: Submission
    fingerprint: str
    seed: int
    leaderboard: Path
    runs: Path
    fresh: bool = False
    words: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """The id of its record."""
        return f"{self.submission.name}/{self.fingerprint}-seed{self.seed}"

    @property
    def log(self) -> Path:
        """Where its output goes."""
        return self.runs / LAUNCHED / f"{self.id.replace('/', '-')}.log"

    @property
    def steps(self) -> int:
        """Training steps; a smoke run takes at most as many as it has images."""
        steps, limit = self.submission.training.steps, self.submission.evaluation.limit
        return steps if limit is None else min(steps, limit)

    def command(self) -> Command:
        """The command that does it, and that does only what is missing when it is run again.

        The submission is written out beside the log first, so that a file that changes while its jobs wait for a
        scheduler changes none of them.
        """
        file = self.runs / LAUNCHED / f"{self.submission.name}-{self.fingerprint}.yaml"
        write_text(file, yaml.safe_dump(self.submission.resolved(), sort_keys=False, allow_unicode=True))
        words = [sys.executable, "-m", "harness", "submit", str(file.absolute()), "--seeds", str(self.seed)]
        words += ["--leaderboard", str(self.leaderboard.absolute()), "--runs", str(self.runs.absolute())]
        words += ["--fresh"] if self.fresh else []
        variables = {name: value for name, value in os.environ.items() if name.startswith("HARNESS_")}
        return Command((*words, *self.words), self.log.absolute(), Path.cwd(), variables)

    def recorded(self) -> bool:
        """Whether its record is on the board."""
        return (self.leaderboard / "records" / self.id / "record.json").is_file()

    def trained(self, since: float = 0.0) -> bool:
        """Whether its training has ended; files from before `since` (seconds since the epoch) do not count."""
        return _newer(self._folder / "training.json", since)

    def step(self, since: float = 0.0) -> int | None:
        """The last step that its journal tells of, or None; a journal from before `since` does not count."""
        journal = self._folder / "log.jsonl"
        if not _newer(journal, since):
            return None
        lines = [line for line in _tail(journal, 4096) if line.startswith(b"{") and line.endswith(b"}")]
        try:
            return int(orjson.loads(lines[-1])["step"]) if lines else None
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return None

    def last_words(self) -> str:
        """The error that ends its last attempt's output, or else the last line of that."""
        lines = [safe_terminal(line.decode(errors="replace")) for line in _tail(self.log, LOG_TAIL)]
        starts = [index for index, line in enumerate(lines) if line.startswith(ATTEMPT)]
        lines = [line for line in lines[starts[-1] + 1 if starts else 0 :] if line]
        errors = [line for line in lines if line.startswith("error: ")]
        return (errors or lines or ["no output"])[-1].removeprefix("error: ")

    def note(self, text: str) -> None:
        """Add to the log why the job ended, where it could not say so itself."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            log.write(f"error: {text}\n".encode())

    @property
    def _folder(self) -> Path:
        return self.runs / f"{self.fingerprint}-seed{self.seed}"


class Running(Protocol):
    """A job under way."""

    def poll(self) -> int | None:
        """The exit status, or None while it waits or runs."""

    def stop(self) -> None:
        """Ask it to stop and to keep its work; asked again, it ends at once."""


class Launcher(Protocol):
    """Starts jobs.

    Attributes:
        at_once: How many jobs may be under way; None leaves it to a scheduler.
    """

    at_once: int | None

    def start(self, job: Job, place: int) -> Running:
        """Start a job.

        Args:
            job: What to run.
            place: Number of the place that it takes among the jobs under way, from 0.

        Raises:
            HarnessError: The job is refused.
        """

    def close(self) -> None:
        """Give back what the launcher holds."""


def read_options(texts: Sequence[str]) -> dict[str, Any]:
    """Read ``key=value`` texts; values are YAML.

    Raises:
        HarnessError: A text is not of this form.
    """
    options = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not separator or not key.isidentifier():
            raise HarnessError(f"--option {text!r}: write it as key=value, e.g. --option slurm_partition=gpu")
        options[key] = parse_yaml(f"value: {value}", f"--option {text!r}").get("value")
    return options


def _newer(path: Path, since: float) -> bool:
    try:
        return path.stat().st_mtime >= since
    except OSError:
        return False


def _tail(path: Path, size: int) -> list[bytes]:
    """The lines at a file's end; the first may be cut."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - size))
            return file.read().splitlines()
    except OSError:
        return []
