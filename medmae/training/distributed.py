"""The processes of one run: alone, or started by torchrun; the code above never asks which."""

from __future__ import annotations

import datetime
import os
from dataclasses import dataclass

import torch
import torch.distributed as dist

from medmae.inference.device import resolve_device


@dataclass(frozen=True)
class ProcessGroup:
    """The processes that train together. Every method is also right for a single process."""

    rank: int
    size: int
    device: torch.device

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
        if size > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo",
                                    timeout=datetime.timedelta(minutes=60))
        return cls(rank=int(os.environ.get("RANK", 0)) if size > 1 else 0, size=size, device=device)

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and progress."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier()

    def any(self, flag: bool) -> bool:
        """Whether `flag` holds in any process; all get the same answer, so that all stop at the same step."""
        if self.size == 1:
            return flag
        value = torch.tensor([float(flag)], device=self.device)
        dist.all_reduce(value, op=dist.ReduceOp.MAX)
        return bool(value.item())

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """The mean of a tensor over the processes."""
        if self.size == 1:
            return values
        values = values.detach().clone()
        dist.all_reduce(values)
        return values / self.size

    def leave(self) -> None:
        """Leave the group; call it once at the end."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()


def mean_over_processes(values: torch.Tensor) -> torch.Tensor:
    """Mean over all processes of the current group, for code inside a module's forward."""
    if not (dist.is_available() and dist.is_initialized()):
        return values
    values = values.detach().clone()
    dist.all_reduce(values)
    return values / dist.get_world_size()
