"""Many processes on one board, killed at random moments: nothing lost, nothing half-written."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from harness import api
from harness.board.page import verify
from harness.board.records import read_records, read_statistics

# Stores records (what `harness score` does last) and regenerates the board, again and again; says what is stored.
WORKER = """
import itertools, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from conftest import Builder, marks
from harness import api
board, name, kind = Path(sys.argv[2]), sys.argv[3], sys.argv[4]
builder = Builder(board)
print("ready", flush=True)
for n in itertools.count(int(sys.argv[5])):
    if kind == "score":
        own = builder.add(f"own-{name}", {"one": marks(n % 30, 30)}, seed=n)
        print(own.id, flush=True)
        shared = builder.add("shared", {"one": marks(7, 30)}, seed=n % 3)
        print(shared.id, flush=True)
    if kind == "leaderboard" or n % 3 == 0:
        api.leaderboard(board)
"""

# Stores a record, replaces another and regenerates the board, in children of which the n-th kills itself before its
# n-th change of a file; looks at the store after each, and says before what they died.
EVERY_CHANGE = """
import os, signal, sys
from itertools import count
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from conftest import Builder, marks
from harness import api
from harness.board.records import read_records, read_statistics

board = Path(sys.argv[2])
builder = Builder(board)
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT

def changes(event, arguments):
    if event == "open":
        path, _, flags = arguments
        return bool(flags & WRITING) and str(board) in str(path)
    return event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "ctypes.call_function")

def work(n):
    left = n
    def watch(event, arguments):
        nonlocal left
        if changes(event, arguments):
            left -= 1
            if not left:
                print(event, *map(str, arguments[:2]), flush=True)
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(watch)
    builder.add("kept", {"one": marks(n % 2, 30)}, replace=True)
    builder.add("new", {"one": marks(9, 30)}, seed=n)
    api.leaderboard(board)
    os._exit(0)

builder.add("kept", {"one": marks(0, 30)})
for n in count(1):
    child = os.fork()
    if not child:
        work(n)
    _, status = os.waitpid(child, 0)
    records = read_records(board)
    for record in records:
        assert len(read_statistics(board, record)["one"].ids) == 30
    assert "kept" in {record.name for record in records}, "a record that was replaced is gone"
    if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
        assert status == 0
        print("survived", n)
        break
"""


def start(board: Path, name: str, kind: str, first: int = 0) -> subprocess.Popen[str]:
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", WORKER, here, str(board), name, kind, str(first)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def kill(process: subprocess.Popen[str]) -> list[str]:
    """Ids of the records that the worker said were stored; a line that the kill cut off does not count."""
    os.kill(process.pid, signal.SIGKILL)
    said, _ = process.communicate()
    return [line for line in said.splitlines(keepends=True) if line.endswith("\n")]


@pytest.mark.slow
def test_processes_killed_at_random_moments_lose_nothing_and_leave_nothing_half_written(
    builder: Any, right: Any
) -> None:
    draw = random.Random(20)
    builder.add("shared", {"one": right(7, 30)}, seed=0)
    promised: set[str] = set()
    for round_ in range(3):
        workers = [start(builder.board, str(n), "score", 100 * round_) for n in range(3)]
        workers.append(start(builder.board, "board", "leaderboard"))
        for process in draw.sample(workers, len(workers)):
            time.sleep(draw.uniform(0.0, 0.4))
            promised |= {line.strip() for line in kill(process)}
        records = read_records(builder.board)  # between the kills, too, a reader sees whole records only
        assert promised <= {record.id for record in records}
        for record in records:
            assert len(read_statistics(builder.board, record)["one"].ids) == 30
    assert len(promised) > 3
    api.leaderboard(builder.board)  # what a killed one had not come to
    assert verify(builder.board) == []


@pytest.mark.slow
def test_a_process_killed_before_any_change_of_a_file_leaves_whole_records_and_loses_none(builder: Any) -> None:
    script = [sys.executable, "-c", EVERY_CHANGE, str(Path(__file__).parent), str(builder.board)]
    found = subprocess.run(script, capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stdout[-300:] + found.stderr[-2000:]
    *died, survived = found.stdout.splitlines()
    assert survived.startswith("survived")
    assert len(died) > 20
    assert {"open", "os.mkdir", "os.rename"} <= {line.split()[0] for line in died}
    api.leaderboard(builder.board)
    assert verify(builder.board) == []


def test_the_last_of_many_that_score_at_once_leaves_a_board_of_all(builder: Any) -> None:
    script = WORKER.replace("itertools.count(int(sys.argv[5]))", "range(3)")
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", script, here, str(builder.board)]
    workers = [subprocess.Popen([*command, str(n), "score", "0"], stdout=subprocess.DEVNULL) for n in range(2)]
    assert [worker.wait(240) for worker in workers] == [0, 0]
    assert len(read_records(builder.board)) == 9
    assert not list(builder.board.rglob(".tmp-*"))
    api.leaderboard(builder.board)
    assert verify(builder.board) == []
