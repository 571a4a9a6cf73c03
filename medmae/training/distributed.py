"""The processes of one run: alone, or started by torchrun; the code above never asks which."""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist

from medmae.errors import ProcessLost, Stopped
from medmae.inference.device import resolve_device

# After this long without an answer the others are lost: a node without power or network closes no connection.
ANSWER_WITHIN = datetime.timedelta(minutes=10)
# At a barrier the others wait for what the main process does alone: preparing labelled cases, validating.
WAIT_AT_BARRIERS = datetime.timedelta(hours=3)


@dataclass(frozen=True)
class ProcessGroup:
    """The processes that train together. Every method is also right for a single process."""

    rank: int
    size: int
    device: torch.device
    patient: dist.ProcessGroup | None = None

    @classmethod
    def join(cls, device_name: str) -> ProcessGroup:
        """Join the group that torchrun's environment describes, or be alone."""
        device = resolve_device(device_name)
        size = int(os.environ.get("WORLD_SIZE", 1))
        if device.type == "cuda":
            if device.index is None:
                local_rank = int(os.environ.get("LOCAL_RANK", 0))
                device = torch.device("cuda", local_rank % torch.cuda.device_count())
            torch.cuda.set_device(device)
        if size == 1:
            return cls(0, 1, device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=ANSWER_WITHIN)
        return cls(int(os.environ["RANK"]), size, device, dist.new_group(timeout=WAIT_AT_BARRIERS))

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and progress."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait for all processes: long for the main one, which may do something alone, then briefly for the others."""
        if self.size == 1:
            return
        arrived = torch.zeros(1, device=self.device)
        dist.broadcast(arrived, 0, group=self.patient)
        if not self.is_main:
            arrived.item()  # on a GPU only this waits
        dist.barrier()

    def any(self, flag: bool) -> bool:
        """Whether `flag` holds in any process; all get the same answer, so that all stop at the same step."""
        if self.size == 1:
            return flag
        value = torch.tensor([float(flag)], device=self.device)
        dist.all_reduce(value, op=dist.ReduceOp.MAX)
        return bool(value.item())

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum of a tensor over the processes."""
        if self.size > 1:
            values = values.detach().clone()
            dist.all_reduce(values)
        return values

    def leave(self) -> None:
        """Leave the group; call it once at the end."""
        if self.size > 1:
            dist.destroy_process_group()


@contextlib.contextmanager
def joined(device_name: str) -> Iterator[ProcessGroup]:
    """The group that torchrun's environment describes, for the length of a block.

    A process that fails does not leave it: its connections close when it ends, after it has said why.

    Raises:
        ProcessLost: another process ended, or does not answer any more.
    """
    group = ProcessGroup.join(device_name)
    try:
        yield group
    except Stopped:  # all processes at once
        group.leave()
        raise
    except Exception as error:
        if group.size > 1 and _is_of_connections(error):
            text = " ".join(str(error).split())[:200]
            raise ProcessLost("Another process of this run ended without saying why (killed, out of memory, its node "
                              f"lost), or does not answer any more ({text}).") from error
        raise
    group.leave()


def _is_of_connections(error: Exception) -> bool:
    """gloo has no exception of its own; NCCL tells with the same one that memory of the device is used up."""
    text = str(error).lower()
    return isinstance(error, RuntimeError) and "out of memory" not in text and (
        isinstance(error, dist.DistError) or "gloo" in text)


def mean_over_processes(values: torch.Tensor) -> torch.Tensor:
    """Mean over all processes of the current group, for code inside a module's forward."""
    if not (dist.is_available() and dist.is_initialized()):
        return values
    values = values.detach().clone()
    dist.all_reduce(values)
    return values / dist.get_world_size()
