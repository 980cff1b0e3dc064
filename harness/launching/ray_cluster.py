"""Jobs on a Ray cluster."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.launching.commands import Command
from harness.launching.jobs import Job

OBJECT_STORE = 100_000_000  # bytes; jobs exchange nothing but exit statuses


class RayLauncher:
    """One Ray task per job, on the cluster at ``RAY_ADDRESS``, or on a local one that is started for the time being.

    The folders of runs and of the board must be on a file system that all nodes share.

    Args:
        folder: Not used: tasks leave logs only.
        at_once: Jobs handed to Ray at a time; None hands over all, and Ray decides.
        devices: GPUs per job where the cluster has any, unless `num_gpus` says otherwise.
        num_cpus: Processors per job.
        num_gpus: GPUs per job.
        address: The cluster's address; ``auto`` finds the one of this machine.
        **unknown: Refused.

    Raises:
        HarnessError: Ray is not installed, an option is not valid, or the cluster does not answer.
    """

    def __init__(
        self,
        folder: Path,
        at_once: int | None = None,
        devices: int = 1,
        num_cpus: float = 1,
        num_gpus: float | None = None,
        address: str | None = None,
        **unknown: Any,
    ) -> None:
        if unknown:
            raise HarnessError(f"--option {next(iter(unknown))}: the ray launcher takes num_cpus, num_gpus and address")
        try:
            import ray
        except ImportError:
            raise HarnessError("--launcher ray: needs Ray; pip install 'placeholder-harness[ray]'") from None
        self.at_once = at_once
        self._ray = ray
        where: dict[str, Any] = {"address": address or os.environ.get("RAY_ADDRESS")}
        if where["address"] is None:
            where = {"address": "local", "object_store_memory": OBJECT_STORE, "include_dashboard": False}
        try:
            ray.init(**where, log_to_driver=False, logging_level=logging.ERROR)
            if num_gpus is None:
                num_gpus = devices if ray.cluster_resources().get("GPU") else 0
            self._task = ray.remote(num_cpus=num_cpus, num_gpus=num_gpus, max_retries=0)(run_command)
        except (ConnectionError, RuntimeError, TypeError, ValueError) as error:
            first = str(error).strip().splitlines()[0]
            raise HarnessError(f"--launcher ray: {first}; check the --option values and RAY_ADDRESS") from None

    def start(self, job: Job, place: int) -> RayJob:
        """Hand a job to Ray."""
        return RayJob(self._ray, job, self._task.remote(job.command()))

    def close(self) -> None:
        """Leave the cluster; one that was started here ends."""
        self._ray.shutdown()


class RayJob:
    """A job that Ray has."""

    def __init__(self, ray: Any, job: Job, handle: Any) -> None:
        self._ray, self._job, self._handle = ray, job, handle
        self._asked = False

    def poll(self) -> int | None:
        """The exit status, or None while it waits or runs."""
        ready, _ = self._ray.wait([self._handle], timeout=0)
        if not ready:
            return None
        try:
            return int(self._ray.get(self._handle))
        except Exception as error:  # cancelled, or the worker died, or its node was lost
            if not self._asked:
                self._job.note(f"Ray: {str(error).strip().splitlines()[0]}")
            return 1

    def stop(self) -> None:
        """Cancel it, which interrupts its command: that keeps its work. The second time its worker is killed."""
        self._ray.cancel(self._handle, force=self._asked)
        self._asked = True


def run_command(command: Command) -> int:
    """Run a job's command on the node; returns the exit status."""
    return command()
