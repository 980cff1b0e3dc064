"""The training loop: one forward over a dict of task batches, one backward, one optimizer step."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch

from harness.data.batches import Batch
from harness.data.joint_images import share_images
from harness.data.loading import Place, TaskData, TrainingOrder, loader
from harness.data.unlabelled import UnlabelledData
from harness.models.network import MultiTaskNetwork
from harness.progress import Reporter
from harness.submission import Submission
from harness.training.affinity import affinity
from harness.training.averaging import WeightAverage
from harness.training.balancing.base import Setting, build_balancer
from harness.training.compiling import as_written, compiled
from harness.training.engine import Engine
from harness.training.finite import any_process, gradient_norm, require_finite, require_finite_gradient
from harness.training.gate_curves import GateCurves, reach
from harness.training.heap import keep_freed_memory
from harness.training.measuring import Measure
from harness.training.meters import Meters
from harness.training.optimization import build_optimizer, learning_rate
from harness.training.parts import look_back
from harness.training.placeholders.adversarial import differentiate_with_adversary
from harness.training.placeholders.feeding import SampleFeed
from harness.training.placeholders.starting import begin_tokens
from harness.training.placeholders.substitution.controller import substitute
from harness.training.planning import plan
from harness.training.recomputing import recomputing
from harness.training.resuming import Resumable
from harness.training.selection import Selection
from harness.training.signals import stop_signals
from harness.training.state import Progress

Log = Callable[[int, Mapping[str, float]], None]


def seed_everything(seed: int) -> None:
    """Seed every global random stream and ask for deterministic kernels."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - libraries may draw from it
    torch.manual_seed(seed)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Deterministic mode also fills fresh memory with NaN, a tenth of a small network's step; nothing here reads it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False


def train(
    submission: Submission,
    network: MultiTaskNetwork,
    engine: Engine,
    data: Mapping[str, TaskData],
    folder: Path,
    reporter: Reporter,
    log: Log = lambda step, point: None,
    selection_data: Mapping[str, TaskData] | None = None,
    evaluation_data: Mapping[str, TaskData] | None = None,
    begin: Callable[[Progress], None] = lambda progress: None,
    pools: Mapping[str, UnlabelledData] | None = None,
) -> Progress:
    """Train a network in place, from the newest checkpoint in `folder` if there is one.

    Args:
        submission: The recipe.
        network: Freshly built from the run's seed; ends with the final weights (averaged or chosen, where the recipe
            says so) in the main process.
        engine: Device and precision.
        data: Training split by dataset name.
        folder: Where checkpoints go.
        reporter: Shows progress.
        log: Called with every new point of the learning curves.
        selection_data: Selection split by dataset name, where the recipe selects.
        evaluation_data: Evaluation split by dataset name, where every stage of the regime is to be scored. Nothing is
            chosen by it.
        begin: Called once, before `log`, with what the checkpoint says was done.
        pools: Placeholder samples by dataset name, where the recipe has them.

    Returns:
        What was done.

    Raises:
        HarnessError: A loss or gradient is not finite, or an image cannot be read.
        KeyboardInterrupt: Ctrl-C or a termination signal came; the work so far is in the checkpoint.
    """
    keep_freed_memory()
    config = submission.training
    planned = plan(submission, data)
    steps = planned.steps
    weights = {task.dataset: task.weight for task in submission.tasks}
    sizes, leaders = {task.dataset: task.batch_size for task in submission.tasks}, submission.leaders()
    counts = planned.batches()
    # Steps in which the task that takes longest sees its data once; with one batch of each task per step, its batches.
    epoch = max(math.ceil(len(one) / sizes[name] * steps / max(1, counts[name])) for name, one in data.items())
    seed = next(iter(data.values())).seed
    balancer = build_balancer(config.balancing, Setting(weights, seed, epoch))
    trainable = torch.nn.ModuleDict({"network": network, "balancer": balancer})
    optimizer = build_optimizer(trainable, config.optimizer)
    balancer.to(engine.device)
    substituting = substitute(submission, network, engine, data, planned)
    model, optimizer = engine.prepare(network, optimizer)
    average = WeightAverage(network, config.ema) if config.ema is not None else None

    def measure(what: Mapping[str, TaskData], name: str) -> Measure:
        return Measure(what, submission.evaluation.batch_size, config.workers, folder / name, engine, reporter)

    selection = None
    if config.selection is not None and selection_data is not None:
        selection = Selection(config.selection, measure(selection_data, "selection"), engine, reporter)
    stages = measure(evaluation_data, "stages") if evaluation_data is not None else None
    run = Resumable(network, balancer, optimizer, engine, average, selection, substituting, config.checkpoints_kept)
    progress = run.resume(folder, reporter)
    if not progress.step:
        begin_tokens(network, engine, data)
    begin(progress)
    if progress.step:
        reporter.say(f"resuming at step {progress.step} of {steps}")
    batches = {}
    for name, taken in planned.batches(progress.step).items():
        order: Iterable[list[Place]] = TrainingOrder(data[name], sizes[name], taken, engine.rank, engine.world)
        if substituting is not None:
            order = substituting.order(name, order)
        batches[name] = iter(loader(data[name], order, config.workers))
    feed = SampleFeed(submission, pools or {}, engine, planned.batches(progress.step))
    network.train()
    several = balancer.repeats or config.log_gradients is not None or config.log_affinity is not None
    several = several or (substituting is not None and substituting.repeats)
    with (
        stop_signals() as stopped,
        compiled(network, config.compile, several),
        recomputing(network, config.gradient_checkpointing),
        reporter.bar("training", steps, progress.step) as bar,
    ):
        meters = Meters(engine, progress)
        gates = GateCurves(network, engine, config.compile)
        kept = progress.step

        def over() -> bool:
            return progress.step >= steps or bool(progress.ended)

        def write(point: Mapping[str, float]) -> None:
            progress.draw(point)
            progress.points += 1
            log(progress.step, {**point, **gates.take(), **meters.point()})

        def write_losses(also: dict[str, float] | None = None) -> None:
            also = also or {}
            if progress.pending and (progress.step % config.log_every == 0 or over()):
                rate = learning_rate(config.schedule, config.optimizer.learning_rate, progress.step - 1, steps)
                write(progress.losses() | {"learning_rate": rate} | also)
            elif also:
                write(also)

        def keep() -> None:
            meters.settle()
            run.keep(folder, progress)

        def stop_if(wanted: bool) -> None:
            if wanted:
                keep()
                raise KeyboardInterrupt

        while True:
            meters.watch.start()
            if stages is not None and planned.due(progress.step, len(progress.stages)):
                with average.installed() if average is not None else nullcontext(), as_written(network):
                    progress.stages.append(stages(network))
                meters.watch.lap("stages")
                write({f"stage/{name}": value for name, value in progress.stages[-1].items()})
                stop_if(*any_process(engine, bool(stopped) or engine.orphaned))
            if selection is not None and selection.due(progress, over()):
                with average.installed() if average is not None else nullcontext(), as_written(network):
                    point = selection.look(network, progress)
                meters.watch.lap("selection")
                write(point)
                write_losses()
                stop_if(*any_process(engine, bool(stopped) or engine.orphaned))
            if over():
                break
            if progress.step % config.checkpoint_every == 0 and progress.step != kept:
                keep()
                kept = progress.step
                meters.watch.start()
            rate = learning_rate(config.schedule, config.optimizer.learning_rate, progress.step, steps)
            for group in optimizer.param_groups:
                group["lr"] = rate * group["scale"]
            tasks = planned.tasks(progress.step)
            network.advance(progress.step, steps)
            loaded = {name: next(batches[name]).to(engine.device) for name in tasks}
            step_batches = share_images(loaded, leaders)
            samples = feed.next(tasks, progress.step)
            meters.watch.lap("data")
            following = progress.step + 1
            reach(network, progress.step / steps)
            related = {}
            if config.log_affinity is not None and following % config.log_affinity == 0:
                related = affinity(model, engine, step_batches, config.accumulation, rate)
                meters.watch.lap("affinity")
            cosines = config.log_gradients is not None and following % config.log_gradients == 0
            found: dict[str, float] | None = None  # weights and cosines, in steps that end at a point of the curves
            if cosines or related or following == steps or following % config.log_every == 0:
                found = related
            if substituting is not None:
                substituting.begin(progress.step, model, step_batches, rate)
                meters.watch.lap("substitution")
            if network.objectives is not None:
                network.objectives.step = progress.step
            with gates.watching(found is not None):
                values = differentiate_with_adversary(
                    config.placeholders.adversarial,
                    *(model, engine, balancer, step_batches, config.accumulation, meters.watch.lap, found, cosines),
                    samples=samples,
                )
            require_finite(values, progress.step)
            limit = config.gradient_clip
            norm = gradient_norm(network) if limit is None else engine.clip(model, limit)
            if config.precision != "16":  # whose scaler notices, leaves out the step and scales less
                require_finite_gradient(norm, network, engine, step_batches, progress.step)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if balancer.looks_back:
                balancer.look_back(look_back(model, engine, step_batches, config.accumulation))
            if substituting is not None:
                substituting.end(values, rate, found)
            if average is not None:
                average.update()
            meters.watch.lap("optimizer")
            progress.step += 1
            progress.take(values)
            progress.images += sum(sizes[name] for name in tasks if leaders.get(name) not in tasks)
            read = [*step_batches.values(), *(samples.batches.values() if samples is not None else ())]
            for sentence in _skipped(engine, read) if config.on_bad_image == "skip" else ():
                if sentence not in progress.skipped:
                    progress.skipped.append(sentence)
                    reporter.say(f"skipped: {sentence}")
            bar.advance(values=values, images={name: sizes[name] for name in tasks})
            late = config.max_minutes is not None and meters.seconds >= 60 * config.max_minutes
            stop, late = any_process(engine, bool(stopped) or engine.orphaned, late)
            if late and progress.step < steps:
                progress.ended = (
                    f"training ended after step {progress.step} of {steps}: its time was up"
                    f" (training.max_minutes: {config.max_minutes:g})"
                )
            write_losses(found)
            stop_if(stop)
        meters.settle()
    if selection is not None:
        selection.choose(network)
    elif average is not None:
        average.install()
    network.eval()
    return progress


def _skipped(engine: Engine, batches: Iterable[Batch]) -> list[str]:
    """Sentences of all processes, at the main one."""
    return [one for found in engine.gather([one for batch in batches for one in batch.skipped]) for one in found]
