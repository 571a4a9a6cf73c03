"""The training loop: the same for every method, device and number of processes."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from medmae.errors import BadInput, Stopped
from medmae.inference.config import Precision
from medmae.inference.device import autocast
from medmae.networks.layers import part_of_batch
from medmae.run_folder import RunFolder
from medmae.training.batch_parts import BatchParts
from medmae.training.checkpoint import list_checkpoints, load_checkpoint, save_checkpoint
from medmae.training.distributed import ProcessGroup
from medmae.training.prefetch import Prefetch
from medmae.training.progress import ProgressWriter
from medmae.training.randomness import DrawOrder, integer_seed
from medmae.training.samples import Samples
from medmae.training.schedule import OneCycle, ScheduleName, WarmupCosine
from medmae.training.small_maps import small_maps_in_full
from medmae.training.task import Batch, TrainingTask

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoopSettings:
    """How long and how fast to train.

    `batch_size` is over all processes. A device computes at most `device_batch_size` samples at once (None: the share
    of its process), and gradients are gathered over as many such parts as it takes.
    """

    steps: int
    batch_size: int
    learning_rate: float
    seed: int = 0
    precision: Precision = "fp32"
    warmup: float = 0.1
    schedule: ScheduleName = "warmup_cosine"
    betas: tuple[float, float] = (0.9, 0.95)
    clip_norm: float | None = 3.0
    checkpoint_every: int | None = None
    validate_every: int | None = None
    device_batch_size: int | None = None


def refuse_impossible(settings: LoopSettings, group: ProcessGroup) -> None:
    """Tell before long preparations what `train` could not do.

    Raises:
        BadInput: there are more processes than samples in a batch, or the device has no such arithmetic.
    """
    if settings.batch_size < group.size:
        raise BadInput(f"A batch of {settings.batch_size} leaves some of the {group.size} processes without a sample. "
                       f"Use at most {settings.batch_size} processes, or a larger batch (--set "
                       f"batch_size={group.size}), which trains differently.")
    autocast(group.device, settings.precision)


def train(task: TrainingTask, run: RunFolder, settings: LoopSettings, group: ProcessGroup,
          draw_sample: Callable[[], bytes] | None = None) -> int:
    """Train `task` from the newest checkpoint of `run` (or from the start) to the last step, or until the task says
    after a validation that it should stop; returns the number of steps done. Now and then `draw_sample` is asked on the
    main process for a picture, as PNG, of what the network does.

    Bit-exact: killed anywhere and continued, on a processor, it gives the same losses as without interruption. Another
    number of processes, or other parts, give the same losses up to rounding, where a loss is a mean over samples.

    Raises:
        BadInput: as `refuse_impossible`, the parts of the batch are too small for the network, or the checkpoint is
            damaged.
        Stopped: the run's STOP file appeared; a checkpoint was written first.
    """
    refuse_impossible(settings, group)
    module = task.module.to(group.device).train()
    optimizer = torch.optim.AdamW(task.parameter_groups(), lr=settings.learning_rate, betas=settings.betas,
                                  fused=True)
    scaler = torch.amp.GradScaler(group.device.type, enabled=settings.precision == "fp16")
    start = _restore(run, module, optimizer, scaler)
    if start:
        log.info("continuing at step %d of %d", start, settings.steps)
    _broadcast(module, group)
    wrapped = DistributedDataParallel(module) if group.size > 1 else module
    parts = _parts(task, settings, group)
    schedule = (OneCycle(settings.learning_rate, settings.steps) if settings.schedule == "one_cycle"
                else WarmupCosine(settings.learning_rate, settings.steps, settings.warmup))
    order = getattr(task, "order", None) or DrawOrder(task.number_of_items, settings.seed)
    one_at_a_time = threading.Lock()  # an order keeps the shuffle of its epoch
    every = settings.checkpoint_every or min(500, max(10, settings.steps // 20))
    writer = ProgressWriter(run, settings.steps, start, group.device,
                            getattr(task, "watch", None)) if group.is_main else None
    samples = Samples(run, draw_sample, module, group.device, settings.steps,
                      settings.validate_every) if group.is_main and draw_sample else None

    def load(number: int) -> Batch:
        step, part = divmod(number, parts.count)
        with one_at_a_time:
            draws = order.batch(step, settings.batch_size)
        return task.load_batch([draws[place] for place in parts.places(part)])

    def save(done: int) -> None:
        if writer:
            writer.flush()
            save_checkpoint(run.checkpoints, done, module, optimizer, {"scaler": scaler.state_dict()})

    done = start
    end = start if _gives_up(task, group) else settings.steps
    prefetch = Prefetch(load, start * parts.count, end * parts.count)
    batches = iter(prefetch)
    begun = time.monotonic()
    for step in range(start, end):
        if group.any(group.is_main and run.stop_requested):
            save(step)
            raise Stopped(f"Stopped at step {step} of {settings.steps}, as asked. Continue with --resume.")
        rate = schedule.at(step)
        for parameters in optimizer.param_groups:
            parameters["lr"] = rate * parameters["rate_scale"]
        figures = _step(wrapped, module, batches, parts, optimizer, scaler, settings, group,
                        integer_seed(settings.seed, "step", step, 0))
        task.after_step(step, settings.steps)
        done = step + 1
        known: dict[str, object] = {"lr": rate, "data_wait_s": round(prefetch.waited_s, 4)}
        gives_up = False
        if settings.validate_every and (done % settings.validate_every == 0 or done == settings.steps):
            if group.is_main:
                module.eval()
                known.update(task.validate(done))
                module.train()
            gives_up = _gives_up(task, group)
        if samples:
            samples.keep(done, is_last=gives_up or done == settings.steps)
        if writer:
            writer.add(step, figures, **known)
        if done % every == 0 or done == settings.steps or gives_up:
            save(done)
            group.barrier()
        if gives_up:
            log.info("ending at step %d of %d: validations have not become better", done, settings.steps)
            break
    if start < done:
        seconds = time.monotonic() - begun
        log.info("trained %d steps in %.1f s; waiting for data: %.1f %% of the training time",
                 done - start, seconds, 100 * prefetch.waited_s / seconds)
    module.eval()
    return done


def _parts(task: TrainingTask, settings: LoopSettings, group: ProcessGroup) -> BatchParts:
    parts = BatchParts(settings.batch_size, settings.device_batch_size, group.rank, group.size)
    least = getattr(task, "least_batch", 1)
    if parts.smallest < least:
        raise BadInput(f"A batch of {settings.batch_size} on {group.size} processes, in {parts.count} parts each, "
                       f"leaves {parts.smallest} samples to compute at once, but this network needs {least}. Use fewer "
                       "processes, or a larger device_batch_size or batch_size.")
    return parts


def _gives_up(task: TrainingTask, group: ProcessGroup) -> bool:
    """Whether the main process' task, which alone validates, should stop; all processes get the same answer."""
    should_stop = getattr(task, "should_stop", None)
    group.barrier()
    return should_stop is not None and group.any(group.is_main and should_stop())


def _step(wrapped: nn.Module, module: nn.Module, batches: Iterator[Batch], parts: BatchParts,
          optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, settings: LoopSettings, group: ProcessGroup,
          seed: int) -> dict[str, torch.Tensor]:
    """One step of the optimiser; returns the means of all figures over the samples of the batch."""
    optimizer.zero_grad(set_to_none=True)
    figures: dict[str, torch.Tensor] = {}
    for part in range(parts.count):
        batch = {name: tensor.to(group.device, non_blocking=True) for name, tensor in next(batches).items()}
        places, weight = parts.places(part), parts.weight(part)
        # Dropped paths come from torch's global generator: fixed here, a resume repeats them, on any processes.
        torch.manual_seed(seed)
        with part_of_batch(places[0], len(places), parts.batch_size), _exchange(wrapped, part + 1 == parts.count):
            with autocast(group.device, settings.precision), small_maps_in_full(group.device):
                losses: dict[str, torch.Tensor] = wrapped(batch)
            # times the processes, because gradients are averaged over them
            scaler.scale(losses["loss"] * (weight * group.size)).backward()
        for name, value in losses.items():
            figures[name] = figures.get(name, 0.0) + value.detach().float() * weight
    if settings.clip_norm is not None:
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_((p for p in module.parameters() if p.requires_grad), settings.clip_norm)
    scaler.step(optimizer)
    scaler.update()
    return dict(zip(figures, group.sum(torch.stack(list(figures.values()))), strict=True))


def _exchange(wrapped: nn.Module, is_last: bool) -> contextlib.AbstractContextManager[None]:
    """Processes exchange gradients once a step, in the backward of its last part."""
    if isinstance(wrapped, DistributedDataParallel) and not is_last:
        return wrapped.no_sync()
    return contextlib.nullcontext()


def _restore(run: RunFolder, module: nn.Module, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> int:
    checkpoints = list_checkpoints(run.checkpoints)
    if not checkpoints:
        return 0
    step, extra = load_checkpoint(checkpoints[-1], module, optimizer)
    if extra["scaler"]:
        scaler.load_state_dict(extra["scaler"])
    return step


def _broadcast(module: nn.Module, group: ProcessGroup) -> None:
    """Give every process the main one's weights; DistributedDataParallel does it, but not for frozen teachers."""
    if group.size > 1:
        for tensor in module.state_dict().values():
            torch.distributed.broadcast(tensor, 0)
