"""Reading many image files in parallel."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from harness.data.checking.files import Facts, Job, read_facts
from harness.errors import HarnessError

CHUNK = 32  # files per message to a worker, and per write to the journal


class Reader:
    """Reads files in this process or in workers, which are started when there is enough to do.

    Args:
        workers: Number of processes; 0 reads in this one.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def read(self, jobs: Sequence[Job], indices: Sequence[int]) -> Iterator[list[tuple[int, Facts]]]:
        """Read some of the jobs' files, in chunks that come in any order.

        Args:
            jobs: All jobs.
            indices: Which of them to read.

        Yields:
            Index of the job and facts about its file, for the files of one chunk.

        Raises:
            HarnessError: A worker died.
        """
        chunks = (indices[start : start + CHUNK] for start in range(0, len(indices), CHUNK))
        if self.workers == 0 or len(indices) <= 2 * CHUNK:  # starting workers would take longer
            for chunk in chunks:
                yield list(zip(chunk, _read([jobs[index] for index in chunk]), strict=True))
            return
        if self._pool is None:
            # Not forked: threads of libraries that this process has loaded would be copied in an unknown state.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.workers, context, initializer=_leave_interrupts_to_the_parent)
        running: dict[Future[list[Facts]], Sequence[int]] = {}
        try:
            for chunk in chunks:
                running[self._pool.submit(_read, [jobs[index] for index in chunk])] = chunk
                if len(running) >= 4 * self.workers:
                    yield from _finished(running)
            while running:
                yield from _finished(running)
        except BrokenProcessPool:
            raise HarnessError(
                f"data check: a worker process died, perhaps for lack of memory; use fewer than {self.workers} "
                "--workers, what was read is kept"
            ) from None


def _finished(running: dict[Future[list[Facts]], Sequence[int]]) -> Iterator[list[tuple[int, Facts]]]:
    done, _ = wait(running, return_when=FIRST_COMPLETED)
    for future in done:
        yield list(zip(running.pop(future), future.result(), strict=True))


def _read(jobs: list[Job]) -> list[Facts]:
    return [read_facts(job) for job in jobs]


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
