"""Process groups, and sums over processes that gradients pass through."""

from __future__ import annotations

import datetime as dt
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

TIMEOUT = dt.timedelta(hours=12)
"""How long processes wait for one another; the first one may be building shards."""

_NAMES = inspect.signature(DistributedDataParallel).parameters
WITHOUT_BUFFER_SYNC: dict[str, Any] = {
    ("forward_sync_buffers" if "forward_sync_buffers" in _NAMES else "broadcast_buffers"): False
}
"""Arguments of DDP for a module whose buffers are equal everywhere; torch 2.13 renamed the older one."""


@dataclass(frozen=True)
class World:
    """This process's rank among `size` processes. A single process needs no process group.

    Through `all_reduce` and `all_gather` the gradient of the sum of all processes' losses flows back. DDP then averages
    the gradients, so that a loss which every process computes of the joint batch has the gradient that one process
    would find for it. `torch.distributed.all_reduce`, which autograd does not see, would give 1 / size of that.
    """

    rank: int = 0
    size: int = 1

    @property
    def main(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def all_reduce(self, x: Tensor) -> Tensor:
        """Return the sum over all processes, of the same shape, with gradients."""
        return x if self.size == 1 else _AllReduce.apply(x)  # type: ignore[no-untyped-call]

    def all_gather(self, x: Tensor) -> Tensor:
        """Return the rows of all processes, equally many each, by rank: (B, ...) -> (size x B, ...), with gradients."""
        return x if self.size == 1 else _AllGather.apply(x, self.rank, self.size)  # type: ignore[no-untyped-call]

    def all_reduce_detached(self, x: Tensor) -> Tensor:
        """Return the sum over all processes, without gradients."""
        return x.detach() if self.size == 1 else _summed(x.detach())

    def from_main(self, text: str) -> str:
        """Return the text that the first process gave."""
        if self.size == 1:
            return text
        told = [text]
        dist.broadcast_object_list(told, src=0)
        return told[0]

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def init_distributed(rank: int, size: int, device: torch.device) -> Iterator[World]:
    """Join the process group of torchrun (at MASTER_ADDR and MASTER_PORT) for the time of the context.

    The backend is NCCL for a CUDA `device`, which needs an index, else gloo.
    """
    if size == 1:
        yield World(rank, size)
        return
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.set_device(device)  # where collectives of objects, which have no device, go
    dist.init_process_group(
        "nccl" if cuda else "gloo", rank=rank, world_size=size, timeout=TIMEOUT, device_id=device if cuda else None
    )
    yield World(rank, size)
    dist.barrier()  # gloo may abort a process whose peer is gone before it leaves
    # Not after an error: leaving the group may wait for processes that wait for this one.
    dist.destroy_process_group()


def _summed(x: Tensor) -> Tensor:
    out = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(out)
    return out


class _AllReduce(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _summed(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _summed(grad)


class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rank: int, size: int) -> Tensor:
        ctx.rows = slice(rank * len(x), (rank + 1) * len(x))
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(size)]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _summed(grad)[ctx.rows], None, None
