"""On a CPU: the encoders' backbones in micro-batches that fit its caches, several side by side, forward and backward.

One operation after the other on all cores and on the whole batch would move every activation through memory, and have
the cores wait for each other after each. Here each lane, a thread with one core, takes its micro-batches through the
whole backbone. Sums run in a fixed order, so a run's bits depend on the number of lanes and on nothing else.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

FLOATS = 1 << 17
"""Numbers in an activation of a micro-batch, tokens x width: few enough for a core's caches,"""
TOKENS = 1024
"""but so many tokens at least, since products of few rows are slow."""

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3

Out = TypeVar("Out")


@dataclass(frozen=True)
class Piece:
    """Sequences of one length, whose vectors are computed row by row."""

    count: int
    length: int
    encode: Callable[[slice], Tensor]
    """Rows of the piece -> their vectors, float32 (rows, D)."""


class Lanes:
    """Threads of one core each. What a lane has begun, the same lane ends."""

    def __init__(self, count: int) -> None:
        self.count = count
        threads = torch.get_num_threads()
        self._threads = [ThreadPoolExecutor(1, f"lane-{i}", _one_core) for i in range(count)]
        for lane in self._threads:
            lane.submit(int).result()
        torch.set_num_threads(threads)  # that of threads to come, which a lane has changed

    def map(self, call: Callable[..., Out], *arguments: Sequence[Any]) -> list[Out]:
        """Return the results of one call per lane; the first error, if there is one, after all have ended."""
        futures = [lane.submit(call, *each) for lane, *each in zip(self._threads, *arguments, strict=True)]
        wait(futures)
        return [future.result() for future in futures]


def _one_core() -> None:
    torch.set_num_threads(1)
    torch.get_num_threads()  # a thread takes the last number set by any when it is first asked; this settles it


def get_lanes(count: int) -> Lanes:
    """Return so many lanes, begun when they are first asked for in this process."""
    return _begun(count, os.getpid())


@functools.cache
def _begun(count: int, process: int) -> Lanes:
    """`process`: a forked child has none of its parent's threads."""
    _keep_blocks()
    return Lanes(count)


def encode(pieces: Sequence[Piece], width: int, parameters: Sequence[Tensor], lanes: int) -> list[Tensor]:
    """Return the vectors of each piece, (count, D), in `lanes` lanes.

    `parameters` are all that `Piece.encode` depends on and that gradients are wanted of.
    """
    lanes = max(1, min(lanes, max((piece.count for piece in pieces), default=1)))
    cuts = [_cuts(piece, max(TOKENS, FLOATS // width), lanes) for piece in pieces]
    if lanes == 1:
        return [torch.cat([piece.encode(rows) for rows in cut]) for piece, cut in zip(pieces, cuts, strict=True)]
    shares = [
        [(piece, rows) for piece, cut in zip(pieces, cuts, strict=True) for rows in cut[lane::lanes]]
        for lane in range(lanes)
    ]
    threads = get_lanes(lanes)
    if torch.is_grad_enabled():
        found = _SideBySide.apply(threads, shares, *parameters)  # type: ignore[no-untyped-call]
    else:
        found = threads.map(torch.no_grad()(_encode), shares)
    parts = [
        iter(of_lane.split([rows.stop - rows.start for _, rows in share]))
        for of_lane, share in zip(found, shares, strict=True)
    ]
    return [torch.cat([next(parts[i % lanes]) for i in range(len(cut))]) for cut in cuts]


def _cuts(piece: Piece, tokens: int, lanes: int) -> list[slice]:
    """Return slices of about `tokens` tokens of a piece, as many for each lane as far as there are pixels."""
    rounds = max(1, round(piece.count * piece.length / (tokens * lanes)))
    edges = [piece.count * i // (rounds * lanes) for i in range(rounds * lanes + 1)]
    return [slice(start, stop) for start, stop in itertools.pairwise(edges) if start < stop]


def _encode(share: Sequence[tuple[Piece, slice]]) -> Tensor:
    return torch.cat([piece.encode(rows) for piece, rows in share])


class _SideBySide(torch.autograd.Function):
    """`_encode` of each lane's share; gradients of the parameters are summed lane by lane."""

    @staticmethod
    def forward(ctx: Any, lanes: Lanes, shares: Sequence[Sequence[tuple[Piece, slice]]], *parameters: Tensor) -> Any:
        ctx.lanes, ctx.parameters = lanes, parameters
        ctx.found = lanes.map(torch.enable_grad()(_encode), shares)
        return tuple(found.detach() for found in ctx.found)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        wanted = [p for p in ctx.parameters if p.requires_grad]

        def differentiate(found: Tensor, grad: Tensor) -> tuple[Tensor | None, ...]:
            return torch.autograd.grad(found, wanted, grad, allow_unused=True)

        found, ctx.found = ctx.found, None
        of_lanes = ctx.lanes.map(differentiate, found, grads)
        sums = iter([_sum([grad for grad in each if grad is not None]) for each in zip(*of_lanes, strict=True)])
        return None, None, *(next(sums) if p.requires_grad else None for p in ctx.parameters)


def _sum(grads: Sequence[Tensor]) -> Tensor | None:
    if not grads:
        return None
    total, *rest = grads
    for grad in rest:
        total = total + grad
    return total


@functools.cache
def _keep_blocks() -> None:
    """Let malloc keep what a step has freed for the next one, which asks for the same sizes.

    glibc would give much of it back to the kernel and fetch it anew, a page fault for every 4 kB.
    """
    if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(_M_MMAP_THRESHOLD, 1 << 25)
        mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
        mallopt(_M_TOP_PAD, 1 << 26)
