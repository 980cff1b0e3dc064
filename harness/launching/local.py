"""Jobs as processes on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.launching.jobs import Job


class LocalLauncher:
    """Worker processes, which share the processors and take the GPUs in turn.

    Args:
        folder: Not used: processes leave logs only.
        at_once: Jobs under way at a time; None: as many as there are GPUs for, or one where there is none.
        devices: Processes per job, each with a GPU where there is any.
        **unknown: Refused.

    Raises:
        HarnessError: An option is given, or a job needs more GPUs than there are.
    """

    def __init__(self, folder: Path, at_once: int | None = None, devices: int = 1, **unknown: Any) -> None:
        if unknown:
            raise HarnessError(
                f"--option {next(iter(unknown))}: the local launcher takes none; --jobs says how many run at a time, "
                "the environment variable CUDA_VISIBLE_DEVICES on which GPUs"
            )
        self._gpus, self._devices = _visible_gpus(), devices
        if 0 < len(self._gpus) < devices:
            raise HarnessError(f"--devices {devices}: this machine has {len(self._gpus)} GPUs; ask for fewer per job")
        self.at_once: int | None = at_once or max(1, len(self._gpus) // devices)

    def start(self, job: Job, place: int) -> LocalProcess:
        """Start a job."""
        command = job.command()
        command.environment = {**command.environment, **self.environment(place)}
        return LocalProcess(job, command.start())

    def environment(self, place: int) -> dict[str, str]:
        """The share of the processors and the GPUs that a place has, in variables; OMP_NUM_THREADS is left if set."""
        assert self.at_once is not None
        shared: dict[str, str] = {}
        if self.at_once > 1 and "OMP_NUM_THREADS" not in os.environ:
            shared["OMP_NUM_THREADS"] = str(max(1, processors() // (self.at_once * self._devices)))
        if self._gpus:
            first = place * self._devices
            numbers = [self._gpus[(first + index) % len(self._gpus)] for index in range(self._devices)]
            shared["CUDA_VISIBLE_DEVICES"] = ",".join(numbers)
        return shared

    def close(self) -> None:
        """Nothing is held."""


class LocalProcess:
    """A job's process."""

    def __init__(self, job: Job, process: subprocess.Popen[bytes]) -> None:
        self._job, self._process = job, process
        self._asked = self._told = False

    def poll(self) -> int | None:
        """The exit status, or None while it runs."""
        status = self._process.poll()
        if status is not None and status < 0 and not self._told:
            self._told = True
            perhaps = ", perhaps for want of memory" if -status == signal.SIGKILL else ""
            self._job.note(f"the process was ended by {signal.Signals(-status).name}{perhaps}")
        return status

    def stop(self) -> None:
        """Terminate it: it writes a checkpoint and ends. The second time it is killed.

        Not by SIGINT, which processes below a shell script's background job ignore.
        """
        if self._process.poll() is None:
            if self._asked:
                os.killpg(self._process.pid, signal.SIGKILL)  # it leads a session, and so a group
            else:
                self._process.terminate()
        self._asked = True


def processors() -> int:
    """Processors that this process may use; macOS cannot tell, and has no way to use fewer than all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _visible_gpus() -> list[str]:
    """The GPUs to use, without loading a deep-learning library."""
    stated = os.environ.get("CUDA_VISIBLE_DEVICES")
    if stated is not None:
        return [part.strip() for part in stated.split(",") if part.strip() not in ("", "-1")]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(number) for number in range(sum(line.startswith("GPU ") for line in listed.splitlines()))]
