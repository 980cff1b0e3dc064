"""Fifty real commands on one board, some at a time, most killed at a moment of their own: nothing is lost."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from tests_support import document

from harness.board.records import read_records, read_statistics

AT_ONCE = 6
SUBMITS, SCORES, BOARDS = 8, 21, 21
CARD = "shapes-classification"
MADE = ("README.md", "board.json", "board.csv", "index.html")


@dataclass
class Killed:
    """A command that is killed when it has had its share of the processor time that the whole of it takes.

    Processor time, because how long a command takes depends on what else the machine has to do.
    """

    arguments: tuple[str, ...]
    seconds: float
    process: subprocess.Popen[bytes] | None = None

    def start(self, folder: Path, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "harness", *self.arguments],
            cwd=folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def ended(self) -> bool:
        assert self.process is not None
        if self.process.poll() is None and self._used(self.process.pid) >= self.seconds:
            self.process.kill()
            self.process.wait()
        return self.process.poll() is not None

    @property
    def returncode(self) -> int | None:
        """As it ended; None if it has not."""
        return self.process.returncode if self.process else None

    @staticmethod
    def _used(pid: int) -> float:
        """Processor seconds of the process so far."""
        try:
            used = psutil.Process(pid).cpu_times()
        except psutil.Error:  # it has ended
            return 0.0
        return float(used.user + used.system)


def processor_seconds(run: Callable[[], subprocess.CompletedProcess[str]]) -> float:
    """What a command takes when nothing disturbs it."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = run()
    assert done.returncode == 0, done.stderr
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def storm(commands: Iterable[Killed], folder: Path, environment: dict[str, str], look: Callable[[], None]) -> None:
    """Run commands, some at a time; `look` is called whenever one has ended."""
    waiting, running = list(commands), list[Killed]()
    try:
        while waiting or running:
            while waiting and len(running) < AT_ONCE:
                waiting[0].start(folder, environment)
                running.append(waiting.pop(0))
            over = [one for one in running if one.ended()]
            running = [one for one in running if one not in over]
            if over:
                look()
            time.sleep(0.005)
    finally:
        for one in running:
            if one.process:
                one.process.kill()


def outcome(folder: Path) -> tuple[dict[str, Any], bytes]:
    """What a record holds but its name, its cost, and where and when it was made; and its statistics."""
    content = json.loads((folder / "record.json").read_bytes())
    for key in ("name", "cost", "provenance"):
        del content[key]
    (content["submission"] or {}).pop("name", None)
    return content, (folder / "statistics.npz").read_bytes()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def unfinished(board: Path) -> list[Path]:
    return list(board.rglob(".tmp-*"))


@pytest.mark.slow
def test_commands_that_are_killed_lose_nothing_and_end_alike_when_started_again(
    builder: Any, right: Any, command: Any, tiny_cache: Path, tmp_path: Path
) -> None:
    board, records = builder.board, builder.board / "records"
    for number in range(3):
        builder.add(f"ranked-{number}", {"one": right(10 * number, 30)})
    submission = document(2, steps=3) | {"name": "whole"}
    submission["tasks"], submission["model"]["heads"] = submission["tasks"][:1], {}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(submission))

    def submit(name: str) -> tuple[str, ...]:
        return ("submit", "a.yaml", "-q", "--set", f"name={name}", "--runs", f"runs-{name}")

    def score(name: str) -> tuple[str, ...]:
        return ("score", CARD, "predictions.npz", "--name", name)

    needed = {"submit": processor_seconds(lambda: command(*submit("whole")))}
    shutil.copy(next(tmp_path.glob(f"runs-whole/*/predictions/{CARD}.npz")), tmp_path / "predictions.npz")
    needed["score"] = processor_seconds(lambda: command(*score("scored-whole")))
    needed["leaderboard"] = processor_seconds(lambda: command("leaderboard"))
    (whole,), (scored,) = (list(records.glob(f"{name}/*")) for name in ("whole", "scored-whole"))
    before = contents(records)
    assert len(read_records(board)) == 5

    draw = random.Random(9)
    plain = [submit(f"killed-{number}") for number in range(SUBMITS)]
    plain += [score(f"scored-{number % 12}") for number in range(SCORES)]
    plain += [("leaderboard",)] * BOARDS
    # Late moments are drawn more often, because writing comes last; a few commands live.
    killed = [Killed(one, max(draw.random(), draw.random()) * 1.05 * needed[one[0]]) for one in plain]
    draw.shuffle(killed)

    def look() -> None:
        found = {record.name: record for record in read_records(board)}
        for record in found.values():
            read_statistics(board, record)
        for one in killed:
            if one.returncode == 0 and one.arguments[0] != "leaderboard":
                assert one.arguments[4].removeprefix("name=") in found

    environment = os.environ | {"HARNESS_CACHE": str(tiny_cache), "OMP_NUM_THREADS": "1"}
    storm(killed, tmp_path, environment, look)
    ends = [one.returncode for one in killed]
    assert set(ends) <= {0, -signal.SIGKILL}
    assert ends.count(-signal.SIGKILL) >= 30

    assert {name: content for name, content in contents(records).items() if name in before} == before
    for path in records.glob("killed-*/*-seed0"):
        assert outcome(path) == outcome(whole)
    for path in records.glob("scored-*/*-seed0"):
        assert [outcome(path)[0]["tasks"], outcome(path)[1]] == [outcome(scored)[0]["tasks"], outcome(scored)[1]]

    again = [Killed(submit(f"killed-{number}"), float("inf")) for number in range(SUBMITS)]
    storm(again, tmp_path, environment, lambda: None)
    assert [one.returncode for one in again] == [0] * SUBMITS
    for number in range(SUBMITS):
        (path,) = records.glob(f"killed-{number}/*-seed0")
        assert outcome(path) == outcome(whole)

    for left in unfinished(board):  # as if it had been killed yesterday
        for part in (*left.rglob("*"), left):
            os.utime(part, (0, 0))
    assert command(*score("last")).returncode == 0
    assert unfinished(records) == unfinished(board) == []
    checked = command("leaderboard", "--verify")
    assert checked.returncode == 0, checked.stdout
    made = {name: (board / name).read_bytes() for name in MADE}
    for name in MADE:
        (board / name).unlink()
    shutil.rmtree(board / ".cache")
    assert command("leaderboard").returncode == 0
    assert {name: (board / name).read_bytes() for name in MADE} == made
    assert {name: content for name, content in contents(records).items() if name in before} == before
