"""Jobs on a Slurm cluster, through submitit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.launching.commands import Command
from harness.launching.jobs import Job
from harness.training.devices import INTERRUPTED

REQUEUED_AT_MOST = 20  # times that a job may reach its time limit and go on; a submission error must not go on for ever


class SlurmLauncher:
    """One Slurm job per job, requeued when it reaches its time limit or is preempted.

    The folders of runs and of the board must be on a file system that all nodes share.

    Args:
        folder: Where submitit keeps its files.
        at_once: Jobs handed to Slurm at a time; None hands over all, and Slurm decides.
        devices: Not used: Slurm's options say what a job gets.
        cluster: ``slurm``; submitit's ``local`` and ``debug`` run here, for trying things out.
        **options: What ``submitit.AutoExecutor.update_parameters`` takes, e.g. ``slurm_partition``, ``timeout_min``,
            ``gpus_per_node``, ``cpus_per_task``, ``mem_gb``.

    Raises:
        HarnessError: submitit is not installed, there is no Slurm here, or it does not know an option.
    """

    def __init__(
        self, folder: Path, at_once: int | None = None, devices: int = 1, cluster: str = "slurm", **options: Any
    ) -> None:
        try:
            import submitit
        except ImportError:
            raise HarnessError("--launcher slurm: needs submitit; pip install 'placeholder-harness[slurm]'") from None
        self.at_once = at_once
        try:
            self._executor = submitit.AutoExecutor(folder, cluster, slurm_max_num_timeout=REQUEUED_AT_MOST)
            self._executor.update_parameters(**{"name": "harness", "timeout_min": 24 * 60, **options})
        except (
            Exception
        ) as error:  # unknown options are NameErrors, wrong types AssertionErrors, no Slurm a RuntimeError
            raise HarnessError(f"--launcher slurm: {_first_line(error)}") from None

    def start(self, job: Job, place: int) -> SlurmJob:
        """Hand a job to Slurm.

        Raises:
            HarnessError: Slurm refuses it.
        """
        command = job.command()
        # Before its time limit Slurm signals every process of a job. This one is for submitit, which stops the command.
        words = ("sh", "-c", 'trap "" USR2; exec "$@"', "sh", *command.words)
        try:
            handle = self._executor.submit(Requeued(words, command.log, command.folder, command.environment))
        except Exception as error:  # what sbatch says, in submitit's own exceptions
            raise HarnessError(f"--launcher slurm: {_first_line(error)}") from None
        return SlurmJob(job, handle)

    def close(self) -> None:
        """Nothing is held."""


class Requeued(Command):
    """A command that submitit may interrupt and run again."""

    def checkpoint(self) -> Any:
        """Called by submitit before it requeues the job: the command keeps its work, and is started again later."""
        from submitit.helpers import DelayedSubmission

        self.stop()
        return DelayedSubmission(replace(self, process=None))


class SlurmJob:
    """A job that Slurm has."""

    def __init__(self, job: Job, handle: Any) -> None:
        self._job, self._handle = job, handle
        self._stopped = False

    def poll(self) -> int | None:
        """The exit status, or None while it waits or runs."""
        if self._stopped:  # Slurm sees to the rest
            return INTERRUPTED
        if not self._handle.done():
            return None
        try:
            return int(self._handle.result())
        except Exception as error:  # killed by Slurm, out of memory, or the node was lost
            self._job.note(f"Slurm: {_first_line(error)}")
            return 1

    def stop(self) -> None:
        """Cancel it: Slurm sends SIGTERM, upon which it keeps its work."""
        if not self._stopped:
            self._handle.cancel()
        self._stopped = True


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
