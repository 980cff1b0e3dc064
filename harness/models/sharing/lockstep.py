"""Several networks side by side, stage by stage, though each is only known as one call from images to features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from greenlet import getcurrent, greenlet

Result = TypeVar("Result")


@torch.compiler.disable  # type: ignore[untyped-decorator]
def in_lockstep(
    runs: Sequence[Callable[[], Result]], exchange: Callable[[str, list[Any]], Sequence[Any]]
) -> list[Result]:
    """Run calls side by side; wherever all of them `meet`, each goes on with what the exchange made for it.

    Each call runs in a coroutine of its own (a greenlet), which can pause inside other people's code. All of them are
    in one thread, so that autograd's and autocast's modes, which belong to a thread, hold for all.

    Args:
        runs: T calls.
        exchange: From the name of the meeting and the T values that came, to the T values to go on with.

    Returns:
        What the calls return.

    Raises:
        RuntimeError: The calls do not come to the same meetings.
    """
    coroutines = [greenlet(run) for run in runs]
    try:
        states = [one.switch() for one in coroutines]
        while not all(one.dead for one in coroutines):
            if any(one.dead for one in coroutines) or len({name for name, _ in states}) > 1:
                raise RuntimeError("networks in lock-step must have the same stages in the same order")
            values = exchange(states[0][0], [value for _, value in states])
            states = [one.switch(value) for one, value in zip(coroutines, values, strict=True)]
    finally:
        for one in coroutines:
            one.throw()  # leaves those that still wait; the others are over
    return states


def meet(name: str, value: Any) -> Any:
    """Wait for the others, from inside a call of `in_lockstep`.

    Args:
        name: Of the meeting.
        value: What this call brings.

    Returns:
        What the exchange made for this call.
    """
    hub = getcurrent().parent
    assert hub is not None, "meet is for calls that run in lock-step"
    return hub.switch((name, value))
