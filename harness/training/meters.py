"""What training costs while it goes on: time by phase, memory, energy."""

from __future__ import annotations

import resource
import sys
import time
from importlib import import_module
from typing import Any

import torch

from harness.training.engine import Engine
from harness.training.state import Progress


class Stopwatch:
    """Splits time into phases that follow each other.

    On a GPU the marks are CUDA events in its queue, which are read when asked for and not before: taking the time waits
    for nothing. Phases are then those of the GPU, whose time without work counts for the phase that it waits in. On a
    CPU they are wall time.

    Args:
        device: Where the work is done.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._last: Any = None
        self._marks: list[tuple[str, Any, Any]] = []

    def start(self) -> None:
        """Begin the first phase now; what was before belongs to none."""
        self._last = self._mark()

    def lap(self, phase: str) -> None:
        """A phase ends here and the next one begins."""
        mark = self._mark()
        self._marks.append((phase, self._last, mark))
        self._last = mark

    def read(self) -> dict[str, float]:
        """Seconds by phase since the last reading. Waits for the GPU."""
        if self._cuda and self._marks:
            self._marks[-1][2].synchronize()
        seconds: dict[str, float] = {}
        for phase, begin, end in self._marks:
            passed = begin.elapsed_time(end) / 1000 if self._cuda else end - begin
            seconds[phase] = seconds.get(phase, 0.0) + passed
        self._marks = []
        return seconds

    def _mark(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


class Meters:
    """Brings the costs in a run's progress up to date; they go on from those of the run's earlier parts.

    Phases: ``data`` (waiting for batches and moving them to the device), ``forward``, ``backward`` (with the exchange
    between processes), ``optimizer`` (with clipping and averaging), ``selection`` and ``substitution``. They are those
    of the main process; the rest of the time went into logs and checkpoints.

    Args:
        engine: Device and processes.
        progress: What is brought up to date.
    """

    def __init__(self, engine: Engine, progress: Progress) -> None:
        self._engine, self._progress = engine, progress
        self.watch = Stopwatch(engine.device)
        self._energy = _EnergyCounter(engine.device)
        self._joules, self._images = progress.joules, progress.images
        self._phases: dict[str, float] = {}  # since the last point
        self._begun = time.perf_counter() - progress.seconds
        self._point = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Wall time of training so far, all parts together."""
        return time.perf_counter() - self._begun

    def point(self) -> dict[str, float]:
        """Images per second, if there were any, and seconds by phase since the last point."""
        self._read()
        phases, self._phases = self._phases, {}
        now = time.perf_counter()
        training = max(now - self._point - phases.get("selection", 0.0), 1e-9)
        images = self._progress.images - self._images
        self._point, self._images = now, self._progress.images
        rate = {"images_per_second": images / training} if images else {}
        return rate | {f"seconds/{phase}": seconds for phase, seconds in phases.items()}

    def settle(self) -> None:
        """Bring the progress up to date, as before a checkpoint. All processes."""
        progress = self._progress
        self._read()
        progress.seconds = self.seconds
        cuda = self._engine.device.type == "cuda"
        used = self._energy.joules()
        own = [peak_memory(), torch.cuda.max_memory_allocated() if cuda else -1, -1 if used is None else used]
        memory, gpu, joules = zip(*self._engine.exchange(own), strict=True)
        progress.memory = max(progress.memory, int(max(memory)))
        if max(gpu) >= 0:
            progress.gpu_memory = max(progress.gpu_memory or 0, int(max(gpu)))
        progress.joules = None if self._joules is None or min(joules) < 0 else self._joules + sum(joules)

    def _read(self) -> None:
        for phase, seconds in self.watch.read().items():
            for total in (self._progress.phases, self._phases):
                total[phase] = total.get(phase, 0.0) + seconds


def peak_memory() -> int:
    """Peak resident memory of this process in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class _EnergyCounter:
    """What the GPU used since now, whoever used it; needs NVML (``pip install nvidia-ml-py``) and a GPU that counts."""

    def __init__(self, device: torch.device) -> None:
        self._nvml: Any = None
        if device.type != "cuda":
            return
        try:
            self._nvml = import_module("pynvml")
            self._nvml.nvmlInit()
            uuid = str(torch.cuda.get_device_properties(device).uuid).removeprefix("GPU-")
            self._handle = self._nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}".encode())
            self._start = self._millijoules()
        except Exception:  # no library, no driver, a slice of a GPU: there is no number then, and no harm
            self._nvml = None

    def joules(self) -> float | None:
        if self._nvml is None:
            return None
        try:
            return (self._millijoules() - self._start) / 1000
        except Exception:
            return None

    def _millijoules(self) -> int:
        return int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))
