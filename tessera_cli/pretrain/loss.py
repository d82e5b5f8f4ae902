"""The Barlow Twins loss, and the mixing regulariser.

z are projections, float32 (B, D): B pixels of this process, D dimensions. With a `World` of several processes means,
variances and correlations are those of the joint batch, to which each process brings equally many pixels; with
`World()` they are the process's own. All functions leave autocast.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from tessera_cli.pretrain.distributed import World

EPS = 1e-5
"""Added to variances: that of torch's batch norm."""


class Correlation(NamedTuple):
    """What the losses need to know of a matrix C of correlations, (D, D)."""

    diagonal: Tensor
    """(D,)"""
    squares: Tensor
    """(): the sum of all C_ij^2."""


class BarlowTwins(NamedTuple):
    """The two sums of the loss, which is on_diagonal + lambda off_diagonal. () each."""

    on_diagonal: Tensor
    """Sum over i of (C_ii - 1)^2."""
    off_diagonal: Tensor
    """Sum over i != j of C_ij^2."""


def centred(x_BD: Tensor, world: World) -> tuple[Tensor, Tensor]:
    """x less its mean over the batch, (B, D), and its variance, biased, (D,)."""
    with torch.autocast(x_BD.device.type, enabled=False):
        count = len(x_BD) * world.size
        x_BD = x_BD - world.sum(x_BD.sum(dim=0)) / count
        return x_BD, world.sum(x_BD.square().sum(dim=0)) / count


def standardised(z_BD: Tensor, world: World) -> Tensor:
    """Mean 0 and standard deviation 1 over the batch, per dimension: batch norm without parameters."""
    z_BD, variance_D = centred(z_BD, world)
    return z_BD * torch.rsqrt(variance_D + EPS)


def correlation(left_BD: Tensor, right_BD: Tensor, world: World, chunk: int) -> Correlation:
    """C = left^T right / (joint batch), of which `chunk` rows are made at a time.

    Where there are several chunks, each is made again for its gradient: a few arrays of (chunk, D) are held, never a
    whole C. The order in which this happens is the same in all processes, as their sums must be.
    """
    dimensions = left_BD.shape[1]

    def rows(left_BC: Tensor, right_BD: Tensor, start: int) -> Correlation:
        with torch.autocast(left_BC.device.type, enabled=False):
            c_CD = world.sum(left_BC.T @ right_BD) / (len(left_BC) * world.size)
            return Correlation(c_CD.diagonal(offset=start), c_CD.square().sum())

    if chunk >= dimensions:
        return rows(left_BD, right_BD, 0)
    parts = [
        checkpoint(
            rows, left_BD[:, start : start + chunk], right_BD, start, use_reentrant=False, preserve_rng_state=False
        )
        for start in range(0, dimensions, chunk)
    ]
    return Correlation(torch.cat([part.diagonal for part in parts]), torch.stack([p.squares for p in parts]).sum())


def barlow_twins(first_BD: Tensor, second_BD: Tensor, world: World, chunk: int) -> BarlowTwins:
    """Of the standardised projections of two views (Zbontar et al., 2021, arXiv 2103.03230)."""
    diagonal_D, squares = correlation(first_BD, second_BD, world, chunk)
    return BarlowTwins((diagonal_D - 1).square().sum(), squares - diagonal_D.square().sum())


def mixing(mixed_BD: Tensor, first_BD: Tensor, partners_BD: Tensor, share: float, world: World, chunk: int) -> Tensor:
    """How far the projections of blended pixels are from blends of projections, (): the sum over X of

        ||C(mixed, X) - share C(first, X) - (1 - share) C(partners, X)||^2,    X in {first, partners}.

    `partners` are the second views of the pixels with which the first views were blended; all are standardised.
    Bandara et al., 2023 (arXiv 2312.02151), with the permuted views of TESSERA v1. A correlation is linear in its first
    argument, so each norm takes one product instead of three.
    """
    rest_BD = mixed_BD - share * first_BD - (1 - share) * partners_BD
    return sum(
        (correlation(rest_BD, other_BD, world, chunk).squares for other_BD in (first_BD, partners_BD)),
        start=rest_BD.new_zeros(()),
    )


def rank_floor(dimensions: int, batch: int) -> float:
    """What the off-diagonal sum cannot fall below while all C_ii are 1.

    Centred and standardised, z has rank r <= B - 1, so that the sum of all C_ij^2 is at least D^2 / r.
    """
    return max(0.0, dimensions**2 / (batch - 1) - dimensions)
