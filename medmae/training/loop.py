"""The training loop: the same for every method, device and number of processes."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from medmae.errors import BadInput, Stopped
from medmae.inference.config import Precision
from medmae.inference.device import autocast
from medmae.run_folder import RunFolder
from medmae.training.checkpoint import list_checkpoints, load_checkpoint, save_checkpoint
from medmae.training.distributed import ProcessGroup
from medmae.training.prefetch import Prefetch
from medmae.training.progress import ProgressWriter
from medmae.training.randomness import DrawOrder, integer_seed, share
from medmae.training.schedule import OneCycle, ScheduleName, WarmupCosine
from medmae.training.small_maps import small_maps_in_full
from medmae.training.task import Batch, TrainingTask

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoopSettings:
    """How long and how fast to train. `batch_size` is over all processes."""

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


def refuse_impossible(settings: LoopSettings, group: ProcessGroup) -> None:
    """Tell before long preparations what `train` could not do.

    Raises:
        BadInput: the batch cannot be shared by the processes, or the device has no such arithmetic.
    """
    if settings.batch_size % group.size:
        fitting = group.size * -(-settings.batch_size // group.size)
        raise BadInput(f"The batch size {settings.batch_size} is not a multiple of the {group.size} processes. "
                       f"Choose one that is, with --set batch_size={fitting}.")
    autocast(group.device, settings.precision)


def train(task: TrainingTask, run: RunFolder, settings: LoopSettings, group: ProcessGroup) -> int:
    """Train `task` from the newest checkpoint of `run` (or from the start) to the last step, or until the task says
    after a validation that it should stop; returns the number of steps done.

    Bit-exact: killed anywhere and continued, on a processor, it gives the same losses as without interruption.

    Raises:
        BadInput: as `refuse_impossible`, or the checkpoint is damaged.
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
    schedule = (OneCycle(settings.learning_rate, settings.steps) if settings.schedule == "one_cycle"
                else WarmupCosine(settings.learning_rate, settings.steps, settings.warmup))
    order = getattr(task, "order", None) or DrawOrder(task.number_of_items, settings.seed)
    one_at_a_time = threading.Lock()  # an order keeps the shuffle of its epoch
    every = settings.checkpoint_every or min(500, max(10, settings.steps // 20))
    writer = ProgressWriter(run, settings.steps, start, getattr(task, "watch", None)) if group.is_main else None

    def load(step: int) -> Batch:
        with one_at_a_time:
            draws = order.batch(step, settings.batch_size)
        return task.load_batch(share(draws, group.rank, group.size))

    def save(done: int) -> None:
        if writer:
            writer.flush()
            save_checkpoint(run.checkpoints, done, module, optimizer, {"scaler": scaler.state_dict()})

    done = start
    batches = Prefetch(load, start, start if _gives_up(task, group) else settings.steps)
    begun = time.monotonic()
    for step, batch in enumerate(batches, start):
        if group.any(group.is_main and run.stop_requested):
            save(step)
            raise Stopped(f"Stopped at step {step} of {settings.steps}, as asked. Continue with --resume.")
        rate = schedule.at(step)
        for parameters in optimizer.param_groups:
            parameters["lr"] = rate * parameters["rate_scale"]
        # Dropped paths come from torch's global generator: fix it per step and process, so that a resume repeats it.
        torch.manual_seed(integer_seed(settings.seed, "step", step, group.rank))
        figures = _step(wrapped, module, batch, optimizer, scaler, settings, group)
        task.after_step(step, settings.steps)
        done = step + 1
        known: dict[str, object] = {"lr": rate, "data_wait_s": round(batches.waited_s, 4)}
        gives_up = False
        if settings.validate_every and (done % settings.validate_every == 0 or done == settings.steps):
            if group.is_main:
                module.eval()
                known.update(task.validate(done))
                module.train()
            gives_up = _gives_up(task, group)
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
                 done - start, seconds, 100 * batches.waited_s / seconds)
    module.eval()
    return done


def _gives_up(task: TrainingTask, group: ProcessGroup) -> bool:
    """Whether the main process' task, which alone validates, should stop; all processes get the same answer."""
    should_stop = getattr(task, "should_stop", None)
    group.barrier()
    return should_stop is not None and group.any(group.is_main and should_stop())


def _step(wrapped: nn.Module, module: nn.Module, batch: Batch, optimizer: torch.optim.Optimizer,
          scaler: torch.amp.GradScaler, settings: LoopSettings, group: ProcessGroup) -> dict[str, torch.Tensor]:
    batch = {name: tensor.to(group.device, non_blocking=True) for name, tensor in batch.items()}
    with autocast(group.device, settings.precision), small_maps_in_full(group.device):
        losses: dict[str, torch.Tensor] = wrapped(batch)
    optimizer.zero_grad(set_to_none=True)
    scaler.scale(losses["loss"]).backward()
    if settings.clip_norm is not None:
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_((p for p in module.parameters() if p.requires_grad), settings.clip_norm)
    scaler.step(optimizer)
    scaler.update()
    if group.size == 1:
        return {name: value.detach() for name, value in losses.items()}
    means = group.mean(torch.stack([value.detach().float() for value in losses.values()]))
    return dict(zip(losses, means, strict=True))


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
