"""Several processes of one run: starting them, and which of them speaks for all. Light: no torch."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.submission import Submission

INTERRUPTED = 130
LAUNCHED = "HARNESS_LAUNCHED"  # in the environment of processes whose end `launch` explains
_GONE = ("Connection closed by peer", "Connection reset by peer", "remote process exited")
SECONDS_TO_STOP = 120  # to end a step and keep a checkpoint, after a signal


def world() -> int:
    """How many processes work on this run; torch's launcher says so in the environment."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "LOCAL_RANK" in os.environ else 1


def is_main() -> bool:
    """Whether this process is the only one, or the one of several that prints and writes."""
    return world() == 1 or os.environ.get("RANK") == "0"


def check_batches(submission: Submission, processes: int) -> None:
    """See to it that every process gets a part of every task's batch.

    Raises:
        HarnessError: A batch is smaller than the number of parts that it is split into.
    """
    parts = submission.training.accumulation
    samples = submission.training.placeholders.samples
    for task in submission.tasks:
        into = (
            f"cannot be split into {processes} (--devices) x {parts} (training.accumulation) parts; raise it, or split"
        )
        if task.batch_size < processes * parts:
            raise HarnessError(
                f"{submission.name}: tasks: {task.dataset} has batch_size {task.batch_size}, which {into} less"
            )
        if samples.ratio and task.fraction < 1 and samples.batch_size(task.batch_size) < processes * parts:
            raise HarnessError(
                f"{submission.name}: training.placeholders.samples.ratio: {samples.ratio:g} of the batch_size"
                f" {task.batch_size} of {task.dataset} {into} less"
            )


def launch(devices: int, arguments: Sequence[str]) -> int:
    """Run a harness command in several processes of this machine, as ``torchrun --standalone`` would.

    Args:
        devices: How many; each takes a GPU, or where there is none its share of the processor.
        arguments: Those of the command line, without the program.

    Returns:
        The exit code: 0, that of the first process that failed, or 130 after Ctrl-C or a termination signal.

    Raises:
        HarnessError: There are not as many GPUs.
    """
    import torch
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    gpus = torch.cuda.device_count()
    if gpus and devices > gpus:
        raise HarnessError(f"--devices {devices}: this machine has {gpus} GPU{'s' * (gpus > 1)}; use at most as many")
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // devices)))
    os.environ[LAUNCHED] = "1"
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(SECONDS_TO_STOP))
    logging.disable(logging.CRITICAL)  # the processes say themselves what is wrong
    command = ["--standalone", f"--nproc-per-node={devices}", "--module", "harness", *arguments]
    try:
        run.run(run.parse_args(command))
    except SignalException:
        return INTERRUPTED
    except ChildFailedError as error:
        return _exit_code({rank: failure.exitcode for rank, failure in error.failures.items()}, devices)
    return 0


def first_to_fail() -> bool:
    """Whether no other process of this run on this machine has failed before: the first one tells why, and no other."""
    errors = os.environ.get("TORCHELASTIC_ERROR_FILE")  # <folder of this attempt>/<rank>/error.json
    if world() == 1 or errors is None:
        return is_main()
    try:
        (Path(errors).parent.parent / "told").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def deserted(error: Exception) -> bool:
    """Whether an error only says that another process of this run is gone, in the words of gloo or NCCL."""
    return world() > 1 and any(text in str(error) for text in _GONE)


def _exit_code(codes: dict[int, int], devices: int) -> int:
    """One code from those by rank; after the first failure torch ends the others by SIGTERM."""
    explained = [code for code in codes.values() if code > 1]
    killed = [(rank, -code) for rank, code in codes.items() if code < 0]
    first = next(iter(killed if 1 not in codes.values() else ()), None)
    first = next((one for one in killed if one[1] != signal.SIGTERM), first)
    if explained or first is None:
        return next(iter(explained), 1)
    print(
        f"error: a process of {devices} (rank {first[0]}) was ended by {signal.Signals(first[1]).name}, perhaps because"
        " memory ran out; the same command goes on from the newest checkpoint",
        file=sys.stderr,
    )
    return 1
