"""Processes that load data beside the one that trains."""

from __future__ import annotations

import os
import signal
import sys
import threading
from multiprocessing import forkserver, parent_process, resource_tracker
from types import TracebackType


def start_fork_server() -> None:
    """Start the process that loader processes are forked from; a second call does nothing.

    Forking the process that trains could deadlock: it runs the threads of a deep-learning library. The server and its
    children block what stops a run, which terminals and launchers send to every process of a group: the one that trains
    needs its loaders until it has kept its work, and they end with it.
    """
    resource_tracker.ensure_running()  # the server starts it otherwise, which lifts the block
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def end_with_parent(worker: int = 0) -> None:
    """Let this process end when the one that it loads for does, even if that is killed: then nothing else ends it."""
    parent = parent_process()
    if parent is not None:

        def watch() -> None:
            parent.join()
            os._exit(1)

        sys.excepthook = _unless_parent_left
        threading.Thread(target=watch, daemon=True).start()


def _unless_parent_left(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Show an error, but not that a batch could not be handed over to a parent that is no more."""
    if not issubclass(kind, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)
