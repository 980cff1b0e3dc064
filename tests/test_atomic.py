from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.atomic import directory, json_bytes, sweep, write_bytes, write_json
from harness.errors import HarnessError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_writing_makes_parents_replaces_content_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.bin"
    write_bytes(path, b"old")
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert names(path.parent) == ["b.bin"]


def test_a_written_file_has_the_permissions_that_any_new_file_has(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    write_bytes(tmp_path / "atomic", b"")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_json_depends_on_content_only_and_ends_with_a_newline(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": [1], "a": "ä"})
    assert (tmp_path / "a.json").read_text() == '{\n  "a": "ä",\n  "b": [\n    1\n  ]\n}\n'
    assert json_bytes({"x": 1, "y": 2}) == json_bytes({"y": 2, "x": 1})


def test_a_write_that_the_system_refuses_is_one_sentence_and_keeps_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    script = (
        "import resource, signal, sys, pathlib\n"
        "from harness.atomic import write_bytes\n"
        "from harness.errors import HarnessError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n    write_bytes(pathlib.Path(sys.argv[1]), bytes(5000))\n"
        "except HarnessError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{path}: cannot be written (")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_folder_appears_with_all_its_files(tmp_path: Path) -> None:
    with directory(tmp_path / "a" / "folder") as building:
        (building / "one").write_text("1")
        assert not (tmp_path / "a" / "folder").exists()
        (building / "two").write_text("2")
    assert names(tmp_path / "a" / "folder") == ["one", "two"]
    assert names(tmp_path / "a") == ["folder"]


def test_a_folder_whose_making_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="null"), directory(tmp_path / "folder") as building:
        ((building / "one").write_text("1"), (building / "\0").write_text("2"))
    assert names(tmp_path) == []


def test_an_identical_folder_stays_and_another_gives_way_only_when_asked(tmp_path: Path) -> None:
    def make(text: str, replace: bool = False) -> None:
        with directory(tmp_path / "folder", replace=replace) as building:
            (building / "file").write_text(text)

    make("old")
    before = (tmp_path / "folder").stat().st_ino
    make("old", replace=True)
    assert (tmp_path / "folder").stat().st_ino == before
    with pytest.raises(HarnessError, match="exists already with other content"):
        make("new")
    assert (tmp_path / "folder" / "file").read_text() == "old"
    make("new", replace=True)
    assert (tmp_path / "folder" / "file").read_text() == "new"
    assert names(tmp_path) == ["folder"]


def test_a_file_in_a_folders_place_is_not_destroyed_unasked(tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("a file")
    with pytest.raises(HarnessError, match="exists already"), directory(tmp_path / "folder") as building:
        (building / "file").write_text("x")
    assert (tmp_path / "folder").read_text() == "a file"


def test_a_killed_writer_leaves_the_old_content_or_the_new_never_half(tmp_path: Path) -> None:
    path = tmp_path / "file"
    script = (
        "import itertools, sys, pathlib\n"
        "from harness.atomic import write_bytes\n"
        "for n in itertools.count():\n    write_bytes(pathlib.Path(sys.argv[1]), bytes([n % 2]) * 200_000)\n"
    )
    for wait in (0.001, 0.007, 0.012):
        path.unlink(missing_ok=True)
        writer = subprocess.Popen([sys.executable, "-c", script, str(path)])
        try:
            deadline = time.monotonic() + 200
            while not path.exists() and time.monotonic() < deadline:
                time.sleep(0.001)
            time.sleep(wait)
        finally:
            os.kill(writer.pid, signal.SIGKILL)
            writer.wait()
        assert path.read_bytes() in (bytes(200_000), b"\x01" * 200_000)


# Begins a folder (or a file), says so, and waits.
WRITER = """
import os, sys, time
from pathlib import Path
from harness import atomic
if sys.argv[2] == "folder":
    with atomic.directory(Path(sys.argv[1])) as building:
        (building / "one").write_text("1")
        print("begun", flush=True)
        sys.stdin.read()
else:
    fsync = os.fsync
    def wait(descriptor):
        print("begun", flush=True)
        sys.stdin.read()
        fsync(descriptor)
    os.fsync = wait
    atomic.write_bytes(Path(sys.argv[1]), b"1")
"""


def begin(path: Path, kind: str) -> tuple[subprocess.Popen[str], Path]:
    """A process that is in the middle of writing, and what it writes into."""
    before = names(path.parent)
    command = [sys.executable, "-c", WRITER, str(path), kind]
    writer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "begun\n"
    (unfinished,) = set(names(path.parent)) - set(before)
    return writer, path.parent / unfinished


def age(path: Path, seconds: float) -> None:
    for part in (*path.rglob("*"), path):
        os.utime(part, (time.time() - seconds, time.time() - seconds))


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_a_killed_writer_left_is_swept_away_and_what_a_live_one_writes_stays(tmp_path: Path, kind: str) -> None:
    dead, left = begin(tmp_path / "dead", kind)
    live, unfinished = begin(tmp_path / "live", kind)
    try:
        dead.kill()
        dead.wait()
        age(left, 7200)
        age(unfinished, 7200)
        assert names(tmp_path) == sorted([left.name, unfinished.name])
        with directory(tmp_path / "another") as building:
            (building / "two").write_text("2")
        assert names(tmp_path) == [unfinished.name, "another"]
        sweep(tmp_path)
        assert names(tmp_path) == [unfinished.name, "another"]
        live.communicate("", timeout=200)
    finally:
        live.kill()
    assert live.returncode == 0
    assert names(tmp_path) == ["another", "live"]
    assert (tmp_path / "live" / "one" if kind == "folder" else tmp_path / "live").read_text() == "1"


def test_what_changed_within_the_hour_stays_because_some_locks_do_not_reach_other_machines(tmp_path: Path) -> None:
    folder, file, inside = tmp_path / ".tmp-0", tmp_path / ".tmp-1", tmp_path / ".tmp-0" / "deep" / "part"
    inside.parent.mkdir(parents=True)
    inside.write_text("")
    file.write_text("")
    age(folder, 7200)
    os.utime(inside, None)
    sweep(tmp_path)
    assert names(tmp_path) == [".tmp-0", ".tmp-1"]
    age(folder, 7200)
    age(file, 7200)
    sweep(tmp_path)
    assert names(tmp_path) == []


def test_sweeping_follows_no_link_and_goes_as_deep_as_it_is_told(tmp_path: Path) -> None:
    board, elsewhere = tmp_path / "board", tmp_path / "elsewhere"
    for folder in (board / "entry" / ".tmp-0", board / "entry" / "deeper" / ".tmp-1", elsewhere / ".tmp-2"):
        folder.mkdir(parents=True)
        (folder / "part").write_text("")
        age(folder, 7200)
    (board / "linked").symlink_to(elsewhere)
    (board / "entry" / ".tmp-3").symlink_to(elsewhere)
    sweep(board)
    assert (board / "entry" / ".tmp-0").exists()
    sweep(board, below=True)
    assert names(board / "entry") == [".tmp-3", "deeper"]
    assert (board / "entry" / "deeper" / ".tmp-1" / "part").exists()
    assert (elsewhere / ".tmp-2" / "part").exists()
    sweep(board / "missing", below=True)
