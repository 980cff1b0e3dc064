"""Shared fixtures: a tiny copy of the embedded suite, and the real command in a subprocess."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

# Tests run in as many processes as there are cores: with as many threads in each, they would wait for each other.
# Before anything loads torch, and for the commands that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import yaml
from tests_support import document

from harness.atomic import locked
from harness.data import shapes

# A shell that starts the tests in the background lets them ignore Ctrl-C, and so all commands that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

SIZES = {"train": 24, "val": 4, "test": 8}
Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test writes into the user's cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_CACHE", str(tmp_path_factory.getbasetemp() / "harness-cache"))
        yield


@pytest.fixture(scope="session")
def tiny_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder with a tiny embedded suite, made once for all workers."""
    shared = tmp_path_factory.getbasetemp().parent / "tiny-cache"
    shared.mkdir(exist_ok=True)
    cache = shared / "cache"  # one level down: making the suite locks the folder that it lies in
    root = cache / shapes.default_root().name
    with locked(shared):
        if not shapes.is_complete(root):
            shapes.make(root, SIZES)
    return cache


@pytest.fixture
def tiny_suite(tiny_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shipped shapes cards read the tiny suite."""
    monkeypatch.setenv("HARNESS_CACHE", str(tiny_cache))
    return tiny_cache


@pytest.fixture
def tiny_submission(tmp_path: Path) -> Path:
    """A submission on the embedded suite that trains in seconds."""
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(document()))
    return path


@pytest.fixture
def command(tiny_cache: Path, tmp_path: Path) -> Command:
    """Run the real command line in a process of its own, in a folder of its own, on the tiny suite."""

    def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "harness", *map(str, arguments)],
            cwd=tmp_path,
            env=os.environ | {"HARNESS_CACHE": str(tiny_cache), "OMP_NUM_THREADS": "1", "COLUMNS": "200"} | environment,
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run
