"""The engine of one process, and how the end of several is told."""

from __future__ import annotations

import signal

import pytest
import torch
from torch import nn

from harness.training.devices import _exit_code, deserted, is_main, world
from harness.training.engine import Engine


@pytest.mark.parametrize("precisions", [("32", "bf16"), ("bf16", "32")])
def test_runs_of_different_precision_follow_each_other_in_one_process(precisions: tuple[str, str]) -> None:
    for precision in precisions:
        with Engine(precision).autocast():
            product = nn.Linear(2, 2)(torch.ones(1, 2))
        assert product.dtype == (torch.bfloat16 if precision == "bf16" else torch.float32)


def test_one_process_exchanges_with_itself() -> None:
    engine = Engine("32")
    assert (engine.rank, engine.world, engine.main, engine.orphaned) == (0, 1, True, False)
    assert engine.exchange([1, 2.5]) == [[1, 2.5]]
    assert engine.gather("a") == ["a"]
    assert engine.from_main(lambda: 7) == 7
    assert engine.any(True)
    assert not engine.any(False)


def test_processes_are_counted_as_torchs_launcher_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")  # alone, as some clusters set it, it says nothing about this run
    assert (world(), is_main()) == (1, True)
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("RANK", "3")
    assert (world(), is_main()) == (4, False)
    assert deserted(RuntimeError("gloo: Connection closed by peer [127.0.0.1]"))
    assert not deserted(RuntimeError("shapes do not match"))


@pytest.mark.parametrize(
    ("codes", "expected", "told"),
    [
        ({1: 2, 0: -signal.SIGTERM}, 2, ""),  # a sentence of process 1, then torch ended the other
        ({0: 1, 1: 2}, 2, ""),  # the first only lost the second
        ({0: 130, 1: 130}, 130, ""),
        ({0: 1, 1: -signal.SIGKILL}, 1, "(rank 1) was ended by SIGKILL"),
        ({0: 1}, 1, ""),  # it has shown its own traceback
        ({0: 1, 1: -signal.SIGTERM}, 1, ""),
        ({0: -signal.SIGTERM}, 1, "(rank 0) was ended by SIGTERM"),
        ({0: -signal.SIGTERM, 1: -signal.SIGKILL}, 1, "(rank 1) was ended by SIGKILL"),
    ],
)
def test_the_exit_code_is_that_of_the_cause(
    capsys: pytest.CaptureFixture[str], codes: dict[int, int], expected: int, told: str
) -> None:
    assert _exit_code(codes, 2) == expected
    printed = capsys.readouterr().err
    assert told in printed
    assert bool(printed) == bool(told)
