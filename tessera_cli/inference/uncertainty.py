"""How far an embedding would move with other dates: embeddings of random halves of a pixel's observations differ."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from tessera_cli.inference.encode import Embeddings, encode
from tessera_cli.inference.kept import Keeper, Keeping
from tessera_cli.sampling.halves import halves

if TYPE_CHECKING:
    from tessera_cli.dpixels.dpixel import DPixels
    from tessera_cli.models.load import Model
    from tessera_cli.models.quantise import Quantiser

AT_ONCE = {"cpu": 1 << 12, "cuda": 1 << 16}
"""Device -> pixels whose embeddings and uncertainties are made together, and kept if the tile is interrupted."""
_ROWS = 1 << 12


def _ignore(finished: int) -> None:
    pass


def encode_with_uncertainty(
    dpixels: DPixels,
    model: Model,
    pixels: np.ndarray,
    *,
    draws: int,
    dims: int | None = None,
    quantiser: Quantiser | None = None,
    seed: int = 0,
    threads: int = 1,
    progress: Callable[[int], None] = _ignore,
    keeper: Keeper | None = None,
) -> tuple[Embeddings, np.ndarray]:
    """Return what `encode` returns, and what `uncertainty` does: float32 (N,). Arguments are those of both."""
    numbers = np.flatnonzero(pixels)
    dims = model.representation if dims is None else dims
    values = np.empty((len(numbers), dims), np.float32 if quantiser is None else np.int8)
    scales = None if quantiser is None else np.empty(len(numbers), np.float32)
    found, tokens = np.empty(len(numbers), np.float32), 0
    each = _Shared(progress, 2 * (1 + draws))
    step = AT_ONCE.get(model.device, AT_ONCE["cpu"])
    with Keeping(keeper, found, values, scales) as keeping:
        first = keeping.done
        progress(first)
        for start in range(first, len(numbers), step):
            part = slice(start, min(start + step, len(numbers)))
            some = _mask(pixels, numbers[part])
            made = encode(
                dpixels,
                model,
                some,
                dims=dims,
                quantiser=quantiser,
                seed=seed,
                threads=threads,
                progress=lambda finished: each(2 * finished),
            )
            told = uncertainty(dpixels, model, some, draws=draws, dims=dims, seed=seed, threads=threads, progress=each)
            keeping.add(part, told, made.values, made.scales)
            tokens += made.tokens
    return Embeddings(values, scales, pixels, tokens, first), found


def uncertainty(
    dpixels: DPixels,
    model: Model,
    pixels: np.ndarray,
    *,
    draws: int,
    dims: int | None = None,
    seed: int = 0,
    threads: int = 1,
    progress: Callable[[int], None] = _ignore,
) -> np.ndarray:
    """Return the uncertainty of the embeddings of some pixels, float32 (N,), in row-major order.

    It is the expected cosine distance between a pixel's embedding and the one that endlessly many dates like its own
    would give, if dates were drawn independently: a quarter of the mean distance between embeddings of two random
    halves. For the variance of an embedding falls as 1/n: halves have twice that of the whole, and two of them differ.

    Args:
        dpixels: The tile's observations.
        model: A loaded model with statistics, whose sequences grow with the observations: none of v1.0.
        pixels: bool (H, W), as for `encode`.
        draws: How many times observations are halved: each costs about as much as the embedding.
        dims: How many leading values of the embeddings count; None for all.
        seed: As for `encode`.
        threads: As for `encode`.
        progress: Called with the pixels finished since its last call: each counts twice per draw, once per half.

    Returns:
        At least 0; NaN where no draw gave both halves an observation of each sensor that the pixel was seen by.
    """
    if not model.spec.use_ascending and len(dpixels.s1_asc):
        dpixels = dpixels.without_ascending()
    numbers = np.flatnonzero(pixels)
    row, positions = dpixels.row(numbers), dpixels.positions(numbers)
    by = _sensors(row)
    total, count = np.zeros(len(numbers)), np.zeros(len(numbers), np.int64)
    for draw in range(draws):
        both = halves(row, draw, positions)
        there = np.asarray(by.any(axis=0))
        for half in both:
            there &= (_sensors(half) >= by).all(axis=0)
        if there.any():
            one, other = (
                encode(half, model, there, dims=dims, seed=seed, threads=threads, progress=progress).values
                for half in both
            )
            distance = cosine_distance(one, other)
            known = np.flatnonzero(there)[np.isfinite(distance)]
            total[known] += distance[np.isfinite(distance)]
            count[known] += 1
        progress(2 * int((~there).sum()))
        del both
    with np.errstate(invalid="ignore"):
        return (total / count / 4).astype(np.float32)


def cosine_distance(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return 1 - cosine of the angle between rows, (N, R) each: float64 (N,), 0 to 2; NaN where one is zero."""
    found = np.empty(len(one))
    for start in range(0, len(one), _ROWS):
        part = slice(start, start + _ROWS)
        a, b = (np.asarray(each[part], np.float64) for each in (one, other))
        with np.errstate(invalid="ignore", divide="ignore"):
            cosine = (a * b).sum(axis=1) / np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
        found[part] = 1 - np.clip(cosine, -1, 1)
    return found


def _sensors(dpixels: DPixels) -> np.ndarray:
    """Return whether Sentinel-2 and Sentinel-1 see each pixel, bool (2, H, W)."""
    s2, asc, desc = dpixels.counts != 0
    return np.stack([s2, asc | desc])


def _mask(pixels: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Return bool (H, W), true at these flat numbers."""
    mask = np.zeros(pixels.size, bool)
    mask[numbers] = True
    return mask.reshape(pixels.shape)


class _Shared:
    """Tells of a pixel once it has been finished so many times."""

    def __init__(self, progress: Callable[[int], None], times: int) -> None:
        self._progress, self._times = progress, times
        self._finished = self._told = 0

    def __call__(self, pixels: int) -> None:
        self._finished += pixels
        now = self._finished // self._times
        self._progress(now - self._told)
        self._told = now
