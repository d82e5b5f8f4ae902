"""The Barlow Twins loss and the mixing regulariser.

z are projections, float32 (B, D): B pixels of this process, D dimensions. With a `World` of several processes means,
variances and correlations are those of the joint batch, to which each process adds equally many pixels; with `World()`
they are the process's own. All functions leave autocast.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from tessera_cli.pretraining.distributed import World
from tessera_cli.pretraining.lanes import side_by_side

EPS = 1e-5
"""Added to variances, as in torch's batch norm."""


class Correlation(NamedTuple):
    """The parts of a correlation matrix C (D, D) that the losses need."""

    diagonal: Tensor
    """(D,)"""
    squares: Tensor
    """(): sum of all C_ij^2."""


class LossTerms(NamedTuple):
    """The two terms of the loss on_diagonal + lambda off_diagonal, () each."""

    on_diagonal: Tensor
    """Sum over i of (C_ii - 1)^2."""
    off_diagonal: Tensor
    """Sum over i != j of C_ij^2."""


def centre_batch(x_BD: Tensor, world: World) -> tuple[Tensor, Tensor]:
    """Subtract the mean over the batch; return the result (B, D) and the biased variance (D,)."""
    with torch.autocast(x_BD.device.type, enabled=False):
        count = len(x_BD) * world.size
        x_BD = x_BD - world.all_reduce(x_BD.sum(dim=0)) / count
        return x_BD, world.all_reduce(x_BD.square().sum(dim=0)) / count


def normalise_batch(z_BD: Tensor, world: World) -> Tensor:
    """Return z with mean 0 and standard deviation 1 over the batch, per dimension: batch norm without parameters."""
    z_BD, variance_D = centre_batch(z_BD, world)
    return z_BD * torch.rsqrt(variance_D + EPS)


def correlation(left_BD: Tensor, right_BD: Tensor, world: World, chunk: int, lanes: int = 1) -> Correlation:
    """Return C = left^T right / (size of the joint batch), computed `chunk` rows at a time.

    With several chunks each is computed again for its gradient, so that a few arrays (chunk, D) are held, never a whole
    C. The order is the same in all processes, as that of their collective sums must be; of a single one the rows may be
    shared among `lanes` (`lanes.py`).
    """
    dimensions = left_BD.shape[1]

    def rows(left_BC: Tensor, right_BD: Tensor, start: int) -> Correlation:
        with torch.autocast(left_BC.device.type, enabled=False):
            c_CD = world.all_reduce(left_BC.T @ right_BD) / (len(left_BC) * world.size)
            return Correlation(c_CD.diagonal(offset=start), c_CD.square().sum())

    if lanes > 1 and chunk >= dimensions:
        chunk = -(-dimensions // lanes)
        calls = [
            (functools.partial(rows, start=start), (left_BD[:, start : start + chunk], right_BD))
            for start in range(0, dimensions, chunk)
        ]
        return _joined([Correlation(*part) for part in side_by_side(calls, (), lanes)])
    if chunk >= dimensions:
        return rows(left_BD, right_BD, 0)
    parts = [
        checkpoint(
            rows, left_BD[:, start : start + chunk], right_BD, start, use_reentrant=False, preserve_rng_state=False
        )
        for start in range(0, dimensions, chunk)
    ]
    return _joined(parts)


def _joined(parts: Sequence[Correlation]) -> Correlation:
    return Correlation(torch.cat([part.diagonal for part in parts]), torch.stack([p.squares for p in parts]).sum())


def barlow_twins_loss(first_BD: Tensor, second_BD: Tensor, world: World, chunk: int, lanes: int = 1) -> LossTerms:
    """Return the terms for the normalised projections of two views (Zbontar et al., 2021, arXiv 2103.03230)."""
    diagonal_D, squares = correlation(first_BD, second_BD, world, chunk, lanes)
    return LossTerms((diagonal_D - 1).square().sum(), squares - diagonal_D.square().sum())


def mixing_loss(
    mixed_BD: Tensor, first_BD: Tensor, partners_BD: Tensor, share: float, world: World, chunk: int, lanes: int = 1
) -> Tensor:
    """Return how far the projections of blended pixels are from blends of projections, (): the sum over X of

        ||C(mixed, X) - share C(first, X) - (1 - share) C(partners, X)||^2,    X in {first, partners}.

    `partners` are the second views of the pixels with which the first views were blended; all are normalised.
    Bandara et al., 2023 (arXiv 2312.02151), with the permuted views of TESSERA v1. A correlation is linear in its first
    argument, so each norm takes one product instead of three.
    """
    rest_BD = mixed_BD - share * first_BD - (1 - share) * partners_BD
    return sum(
        (correlation(rest_BD, other_BD, world, chunk, lanes).squares for other_BD in (first_BD, partners_BD)),
        start=rest_BD.new_zeros(()),
    )


def rank_floor(dimensions: int, batch: int) -> float:
    """Return the least off-diagonal term that is possible while all C_ii are 1.

    A normalised z has rank r <= B - 1, so that the sum of all C_ij^2 is at least D^2 / r.
    """
    return max(0.0, dimensions**2 / (batch - 1) - dimensions)
