"""On a CPU: calls side by side, forward and backward, and the micro-batches that are encoded so.

One operation after the other on all cores and on the whole batch would move every activation through memory, and have
the cores wait for each other after each. Here each lane, a thread with one core, takes its micro-batches through the
whole backbone. Sums run in a fixed order, so a run's bits depend on the number of lanes and on nothing else.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from tessera_cli.malloc import keep_freed_blocks

FLOATS = 1 << 18
"""Numbers in an activation of a micro-batch, tokens x width: few enough for a core's caches,"""
TOKENS = 1024
"""but so many tokens at least, since products of few rows are slow."""

Out = TypeVar("Out")
Call = tuple[Callable[..., tuple[Tensor, ...]], tuple[Tensor, ...]]
"""A function and its arguments, which gradients are wanted of."""


@dataclass(frozen=True)
class Piece:
    """Sequences of one length, whose vectors are computed row by row."""

    count: int
    length: int
    encode: Callable[[slice], Tensor]
    """Rows of the piece -> their vectors, float32 (rows, D)."""


def encode(pieces: Sequence[Piece], width: int, parameters: Sequence[Tensor], lanes: int) -> list[Tensor]:
    """Return the vectors of each piece, (count, D).

    `parameters` are all that `Piece.encode` depends on and that gradients are wanted of.
    """
    cuts = _cuts(pieces, max(TOKENS, FLOATS // width), lanes)
    shares = _shares([pieces[i].length * (rows.stop - rows.start) for i, rows in cuts], lanes)

    def encoded(share: Sequence[int]) -> tuple[Tensor, ...]:
        return tuple(pieces[i].encode(rows) for i, rows in (cuts[number] for number in share))

    found = side_by_side([(functools.partial(encoded, share), ()) for share in shares], parameters, len(shares))
    vectors = dict(zip(itertools.chain(*shares), itertools.chain(*found), strict=True))
    of_pieces: list[list[Tensor]] = [[] for _ in pieces]
    for number, (i, _) in enumerate(cuts):
        of_pieces[i].append(vectors[number])
    return [torch.cat(each) for each in of_pieces]


def side_by_side(calls: Sequence[Call], parameters: Sequence[Tensor], lanes: int) -> list[tuple[Tensor, ...]]:
    """Return the results of the calls, call i in lane i % `lanes`; with one lane here, one after the other.

    `parameters` are what the functions depend on besides their arguments and gradients are wanted of.
    """
    if lanes == 1:
        return [function(*arguments) for function, arguments in calls]
    threads = get_lanes(lanes)
    if not torch.is_grad_enabled():
        return threads.map([functools.partial(_without_gradients, *call) for call in calls])
    functions, arguments = zip(*calls, strict=True)
    shape = _Shape(threads, functions, tuple(map(len, arguments)))
    flat = iter(_SideBySide.apply(shape, *itertools.chain(*arguments), *parameters))  # type: ignore[no-untyped-call]
    return [tuple(itertools.islice(flat, count)) for count in shape.results]


@contextmanager
def one_core(really: bool = True) -> Iterator[None]:
    """Have this thread's own operations run on it alone: helpers of torch's own would spin beside the lanes."""
    before = torch.get_num_threads()
    if really:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Lanes:
    """Threads of one core each. What a lane has begun, the same lane ends."""

    def __init__(self, count: int) -> None:
        before = torch.get_num_threads()
        self._threads = [ThreadPoolExecutor(1, f"lane-{i}", _settle_on_one_core) for i in range(count)]
        for lane in self._threads:
            lane.submit(int).result()
        torch.set_num_threads(before)  # that of threads to come, which a lane has changed

    def map(self, calls: Sequence[Callable[[], Out]]) -> list[Out]:
        """Return the results of the calls; the first error, if there is one, after all have ended."""
        futures = [self._threads[i % len(self._threads)].submit(call) for i, call in enumerate(calls)]
        wait(futures)
        return [future.result() for future in futures]


def get_lanes(count: int) -> Lanes:
    """Return so many lanes, begun when they are first asked for in this process."""
    return _begun(count, os.getpid())


@functools.cache
def _begun(count: int, process: int) -> Lanes:
    """`process`: a forked child has none of its parent's threads."""
    keep_blocks()
    return Lanes(count)


def _settle_on_one_core() -> None:
    torch.set_num_threads(1)
    torch.get_num_threads()  # a thread takes the last number set by any when it is first asked; this settles it


def _cuts(pieces: Sequence[Piece], tokens: int, lanes: int) -> list[tuple[int, slice]]:
    """Return micro-batches of about `tokens` tokens as piece and rows: not more of them than keep the lanes busy."""
    total = sum(piece.count * piece.length for piece in pieces)
    size = min(tokens, max(1, total // (2 * lanes))) if lanes > 1 else tokens
    found = []
    for i, piece in enumerate(pieces):
        parts = min(piece.count, max(1, round(piece.count * piece.length / size)))
        edges = [piece.count * part // parts for part in range(parts + 1)]
        found += [(i, slice(*pair)) for pair in itertools.pairwise(edges)]
    return found


def _shares(sizes: Sequence[int], lanes: int) -> list[list[int]]:
    """Return numbers of micro-batches for each lane: the largest first, each to the lane that has least."""
    shares: list[list[int]] = [[] for _ in range(lanes)]
    loads = [0] * lanes
    for number in sorted(range(len(sizes)), key=lambda n: -sizes[n]):
        lane = loads.index(min(loads))
        shares[lane].append(number)
        loads[lane] += sizes[number]
    return [share for share in shares if share]


@dataclass(eq=False)
class _Shape:
    """What `_SideBySide` is told besides tensors, and tells."""

    lanes: Lanes
    functions: Sequence[Callable[..., tuple[Tensor, ...]]]
    counts: Sequence[int]
    """Arguments of each call."""
    results: Sequence[int] = ()
    """Results of each call."""


class _SideBySide(torch.autograd.Function):
    """All calls with a graph of their own each; gradients of the parameters are summed in the order of the calls."""

    @staticmethod
    def forward(ctx: Any, shape: _Shape, *tensors: Tensor) -> tuple[Tensor, ...]:
        given = iter(tensors)
        arguments = [
            tuple(x.detach().requires_grad_(x.requires_grad) for x in itertools.islice(given, count))
            for count in shape.counts
        ]
        calls = zip(shape.functions, arguments, strict=True)
        found = shape.lanes.map([functools.partial(_with_gradients, *call) for call in calls])
        ctx.lanes, ctx.arguments, ctx.parameters, ctx.found = shape.lanes, arguments, tuple(given), found
        shape.results = [len(each) for each in found]
        return tuple(x.detach() for each in found for x in each)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        found, ctx.found = ctx.found, None
        given = iter(grads)
        wanted = [p for p in ctx.parameters if p.requires_grad]
        calls, counts = [], []
        for arguments, results in zip(ctx.arguments, found, strict=True):
            own = [x for x in arguments if x.requires_grad]
            pairs = [pair for pair in zip(results, given, strict=False) if pair[0].requires_grad]
            calls.append(functools.partial(_differentiate, pairs, [*own, *wanted]))
            counts.append(len(own))
        of_calls = ctx.lanes.map(calls)
        of_arguments = [
            grad
            for arguments, each in zip(ctx.arguments, of_calls, strict=True)
            for grad in _in_place([x.requires_grad for x in arguments], each)
        ]
        rest = [each[count:] for each, count in zip(of_calls, counts, strict=True)]
        sums = [_sum([grad for grad in each if grad is not None]) for each in zip(*rest, strict=True)]
        return None, *of_arguments, *_in_place([p.requires_grad for p in ctx.parameters], sums)


def _with_gradients(function: Callable[..., Out], arguments: tuple[Tensor, ...]) -> Out:
    with torch.enable_grad():
        return function(*arguments)


def _without_gradients(function: Callable[..., Out], arguments: tuple[Tensor, ...]) -> Out:
    with torch.no_grad():
        return function(*arguments)


def _differentiate(pairs: Sequence[tuple[Tensor, Tensor]], by: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    """Return the gradients of results, each with that of the loss by it; None for what nothing depends on."""
    if not pairs:
        return (None,) * len(by)
    results, grads = zip(*pairs, strict=True)
    return torch.autograd.grad(results, by, grads, allow_unused=True)


def _in_place(wanted: Sequence[bool], grads: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Return the gradients, which there is one of for each that is wanted, and None for the others."""
    following = iter(grads)
    return [next(following) if each else None for each in wanted]


def _sum(grads: Sequence[Tensor]) -> Tensor | None:
    if not grads:
        return None
    return functools.reduce(torch.add, grads)


def keep_blocks() -> None:
    """Let malloc keep what a step has freed for the next one."""
    keep_freed_blocks((1 << 31) - 1, ahead=1 << 26)
