"""Freed memory stays with the process."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource
from harness.training.heap import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        bytearray(1 << 26)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

given_back = faults()
keep_freed_memory()
faults()
print(given_back, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such switch")
def test_blocks_that_are_freed_are_not_fetched_from_the_system_again() -> None:
    # In a process of its own: the setting is for the rest of its life.
    found = subprocess.run([sys.executable, "-c", FAULTS], check=True, capture_output=True, text=True).stdout
    given_back, kept = map(int, found.split())
    assert given_back > 20 * 16  # huge pages are 32 each time; with none the test would show nothing
    assert kept < given_back / 10


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.training import heap

    monkeypatch.setattr(heap.ctypes, "CDLL", None)  # would raise
    monkeypatch.setattr(heap.sys, "platform", "darwin")
    heap.keep_freed_memory()
