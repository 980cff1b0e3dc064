"""Running many jobs: so many at a time, whatever becomes of the others, with a table of what goes on."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from rich.live import Live

from harness.errors import HarnessError
from harness.launching.jobs import Job, Launcher
from harness.launching.table import Status, counts, table
from harness.progress import Reporter
from harness.training.devices import INTERRUPTED

LOOK_EVERY = 0.5  # seconds


def fan_out(jobs: Sequence[Job], launcher: Launcher, reporter: Reporter) -> list[Status]:
    """Run jobs; one that fails does not stop the others, and one whose record is there is not run.

    Args:
        jobs: What to run.
        launcher: Where; it is closed at the end.
        reporter: Shows a table on a terminal, and a line per event anywhere else.

    Returns:
        How each job ended, in the order of `jobs`.

    Raises:
        KeyboardInterrupt: Ctrl-C or a termination signal came; running jobs were asked to stop and have kept their
            work.
    """
    statuses = [Status(job, "done" if job.recorded() and not job.fresh else "waiting") for job in jobs]
    try:
        with _shown(statuses, reporter) as (show, say), _signals_as_interrupts():
            try:
                while any(status.state in ("waiting", "queued", "running") for status in statuses):
                    _look(statuses, say)
                    _hand_over(statuses, launcher, say)
                    show()
                    time.sleep(LOOK_EVERY)
            except KeyboardInterrupt:
                _stop(statuses, show)
                raise
    finally:
        launcher.close()
    return statuses


def _look(statuses: Sequence[Status], say: Callable[[str], None]) -> None:
    """Take note of jobs that have begun or ended."""
    for status in statuses:
        if status.running is None:
            continue
        job = status.job
        if status.state == "queued" and _size(job) > status.log_size:
            status.state, status.begun = "running", time.time()
        code = status.running.poll()
        if code is None:
            continue
        status.running = None
        status.seconds = time.time() - status.begun
        if code == 0 and not job.recorded():
            job.note(
                f"the run ended well, but {job.leaderboard / 'records' / job.id} is not there; the leaderboard must be "
                "in a folder that all machines share, and cards and weights must not change while jobs wait"
            )
        if code == 0 and job.recorded():
            status.state = "done"
        else:
            status.state = "interrupted" if code == INTERRUPTED else "failed"
        why = f": {job.last_words()} (log: {job.log})" if status.state == "failed" else ""
        say(f"{job.id}: {status.state} after {status.seconds:.0f} s{why} [{counts(statuses)}]")


def _hand_over(statuses: Sequence[Status], launcher: Launcher, say: Callable[[str], None]) -> None:
    """Start waiting jobs as far as there is room."""
    for status in statuses:
        taken = {other.place for other in statuses if other.running is not None}
        if launcher.at_once is not None and len(taken) >= launcher.at_once:
            return
        if status.state != "waiting":
            continue
        status.place = next(number for number in range(len(statuses)) if number not in taken)
        status.log_size, status.begun = _size(status.job), time.time()
        try:
            status.running = launcher.start(status.job, status.place)
        except HarnessError as error:
            status.state = "failed"
            status.job.note(str(error))
            say(f"{status.job.id}: failed: {error}")
            continue
        status.state = "queued"
        say(f"{status.job.id}: started, log: {status.job.log}")


def _stop(statuses: Sequence[Status], show: Callable[[], None]) -> None:
    """Ask running jobs to stop, and wait until they have kept their work; a second Ctrl-C ends them at once."""
    under_way = [status for status in statuses if status.running is not None]
    try:
        _ask(under_way)
        _wait(under_way, show)
    except KeyboardInterrupt:
        _ask(under_way)
        _wait(under_way, show)


def _ask(statuses: Sequence[Status]) -> None:
    for status in statuses:
        if status.running is not None:
            status.running.stop()
            status.state = "stopping"


def _wait(statuses: Sequence[Status], show: Callable[[], None]) -> None:
    while any(status.running is not None for status in statuses):
        for status in statuses:
            if status.running is not None and status.running.poll() is not None:
                status.running, status.seconds = None, time.time() - status.begun
                status.state = "done" if status.job.recorded() and not status.job.fresh else "interrupted"
        show()
        time.sleep(LOOK_EVERY)


@contextmanager
def _shown(
    statuses: Sequence[Status], reporter: Reporter
) -> Iterator[tuple[Callable[[], None], Callable[[str], None]]]:
    """What shows the table, and what says one line: on a terminal the first, anywhere else the second is of use."""
    if reporter.quiet or not reporter.console.is_terminal:
        yield (lambda: None), reporter.say
        return
    with Live(console=reporter.console, auto_refresh=False) as live:
        try:
            yield (lambda: live.update(table(statuses, reporter.console.height), refresh=True)), (lambda text: None)
        finally:
            live.update(table(statuses, reporter.console.height), refresh=True)


@contextmanager
def _signals_as_interrupts() -> Iterator[None]:
    """Treat a termination signal and the end of the terminal like Ctrl-C: jobs must not go on without their parent."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    previous = {number: handler for number, handler in previous.items() if handler is not signal.SIG_IGN}  # nohup
    for number in previous:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _size(job: Job) -> int:
    try:
        return job.log.stat().st_size
    except OSError:
        return 0
