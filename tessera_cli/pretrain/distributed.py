"""The processes that train together, and the sums over them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

TIMEOUT = dt.timedelta(hours=12)
"""How long processes wait for one another: one of them may be building shards."""


@dataclass(frozen=True)
class World:
    """One process among those that train together. One process alone needs no process group.

    Gradients pass through `sum` and `gather` as through functions of all processes' tensors: what comes back is the
    gradient of the sum of all processes' losses. DDP then averages the gradients, so that a loss which each process
    computes of the joint batch has the gradient that one process would find for it. `torch.distributed.all_reduce`,
    which autograd does not see, would give 1 / size of that.
    """

    rank: int = 0
    size: int = 1

    @property
    def main(self) -> bool:
        """Whether this is the process that writes files."""
        return self.rank == 0

    def sum(self, x: Tensor) -> Tensor:
        """The sum over all processes, of the same shape; gradients pass."""
        return x if self.size == 1 else _Sum.apply(x)  # type: ignore[no-untyped-call]

    def gather(self, x: Tensor) -> Tensor:
        """(B, ...) -> (size x B, ...): the rows of all processes, equally many each, by rank; gradients pass."""
        return x if self.size == 1 else _Gather.apply(x, self.rank, self.size)  # type: ignore[no-untyped-call]

    def total(self, x: Tensor) -> Tensor:
        """The sum over all processes, without gradients."""
        return x.detach() if self.size == 1 else _summed(x.detach())

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def joined(rank: int, size: int, device: torch.device) -> Iterator[World]:
    """The process group that torchrun prepared (MASTER_ADDR and MASTER_PORT say where), while the context lasts.

    NCCL for a CUDA `device`, which needs an index, else gloo.
    """
    if size == 1:
        yield World(rank, size)
        return
    cuda = device.type == "cuda"
    dist.init_process_group(
        "nccl" if cuda else "gloo",
        rank=rank,
        world_size=size,
        timeout=TIMEOUT,
        device_id=device if cuda else None,
    )
    yield World(rank, size)
    # Not after an error: the others may be waiting for this process, and leaving the group may wait for them.
    dist.destroy_process_group()


def _summed(x: Tensor) -> Tensor:
    out = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(out)
    return out


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _summed(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _summed(grad)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rank: int, size: int) -> Tensor:
        ctx.rows = slice(rank * len(x), (rank + 1) * len(x))
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(size)]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _summed(grad)[ctx.rows], None, None
