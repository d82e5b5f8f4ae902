"""d-pixels -> embeddings, in chunks that bound the memory.

A pixel's embedding depends on the pixel alone (how: see `models/cpu.py`), so pixels can be encoded in any portions, on
any number of threads, and tiles in any order.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tessera_cli.inference.band_means import band_means, null_embedding
from tessera_cli.models.quantise import Quantiser, check_finite, quantize
from tessera_cli.prefetch import prefetch
from tessera_cli.sampling import BANDS, streams
from tessera_cli.timing import StageTimer

if TYPE_CHECKING:
    from torch import Tensor

    from tessera_cli.dpixels.dpixel import DPixels
    from tessera_cli.inference.batch import Chunk
    from tessera_cli.inference.engine import Advance
    from tessera_cli.models.load import Model

_CHUNK = 16384
"""Pixels at a time, without an encoder."""


@dataclass(frozen=True, eq=False)
class Embeddings:
    """The embeddings of N pixels, in row-major order."""

    values: np.ndarray
    """float32 (N, dims), or int8 codes."""
    scales: np.ndarray | None
    """float32 (N,): what codes are multiplied with; None without codes."""
    pixels: np.ndarray
    """bool (H, W): which pixels they are."""
    tokens: int
    """Places of the sequences that were encoded, fillers included wherever they were; 0 for `null`."""


def encode(
    dpixels: DPixels,
    model: Model,
    pixels: np.ndarray,
    *,
    dims: int | None = None,
    quantiser: Quantiser | None = None,
    seed: int = 0,
    threads: int = 1,
    progress: Advance | None = None,
    stages: StageTimer | None = None,
) -> Embeddings:
    """Encode the pixels where `pixels`, bool (H, W), is true, which must be such that the model gives an embedding.

    The first `dims` values of each embedding (None: all) come as float32 or, with a `quantiser`, as codes and scales;
    TileError if one is NaN or infinite, MemoryError if the device is too small. `seed` decides what v1.0 models draw.
    `threads` micro-batches run side by side on a CPU, which does not change the result. `progress` is called with the
    number of pixels finished since its last call, `stages` told the seconds of `choose` (ahead) and `encode`.

    On a CPU with glibc, malloc is told to keep freed blocks of up to 32 MB, for the rest of the process.
    """
    if pixels.shape != dpixels.requested.shape or pixels.dtype != bool:
        raise ValueError(f"pixels must be bool {dpixels.requested.shape}, not {pixels.dtype} {pixels.shape}")
    if model.spec.statistics is None:
        raise ValueError(f"{model.name} must be settled for a source first")
    if not model.spec.use_ascending and len(dpixels.s1_asc):
        dpixels = dpixels.without_ascending()
    rule = model.spec.observations
    if unseen := int((pixels & ~rule.encodes(dpixels)).sum()):
        raise ValueError(f"{unseen} of the pixels to encode have nothing that {model.name} could encode")

    numbers = np.flatnonzero(pixels)
    dims = model.representation if dims is None else dims
    values = np.empty((len(numbers), dims), np.float32 if quantiser is None else np.int8)
    scales = None if quantiser is None else np.empty(len(numbers), np.float32)
    if model.encoder is None:
        parts = _null_parts(dpixels, model, numbers, dims, quantiser)
    else:
        parts = _encoder_parts(
            dpixels, model, numbers, dims, quantiser, seed, threads, progress, stages or StageTimer()
        )
    tokens = 0
    for part in parts:
        values[part.pixels] = part.values
        if scales is not None:
            scales[part.pixels] = part.scales
        tokens += part.tokens
        if progress and model.encoder is None:
            progress(len(part.values))
    check_finite(values if scales is None else scales[:, None])
    return Embeddings(values, scales, pixels, tokens)


@dataclass(frozen=True, eq=False)
class _Part:
    """Some of the embeddings."""

    pixels: slice
    values: np.ndarray
    scales: np.ndarray | None
    tokens: int = 0


def _null_parts(
    dpixels: DPixels, model: Model, numbers: np.ndarray, dims: int, quantiser: Quantiser | None
) -> Iterator[_Part]:
    assert model.spec.statistics is not None
    found = streams(dpixels, model.spec.statistics)
    for chunk in _chunks(len(numbers), _CHUNK):
        s2, s1 = (band_means(found[modality], numbers[chunk]) for modality in BANDS)
        values = null_embedding(s2, s1, model.representation)[:, :dims]
        yield _Part(chunk, values, None) if quantiser is None else _Part(chunk, *quantize(values, quantiser))


def _encoder_parts(
    dpixels: DPixels,
    model: Model,
    numbers: np.ndarray,
    dims: int,
    quantiser: Quantiser | None,
    seed: int,
    threads: int,
    progress: Advance | None,
    stages: StageTimer,
) -> Iterator[_Part]:
    """While a chunk is encoded, the next is chosen and staged; what is done comes back meanwhile."""
    import torch

    from tessera_cli.inference.engines import get_engine

    assert model.encoder is not None
    assert model.spec.statistics is not None
    rule = model.spec.observations
    with stages.at("choose"):
        sampler = rule.sampler(dpixels, model.spec.statistics, numbers, seed)
    report = progress or _silent
    with get_engine(model.encoder, threads) as engine:

        def choose(asked: tuple[slice, int]) -> Chunk:
            with stages.at("choose"):
                return engine.stage({modality: sampler(modality, *asked) for modality in BANDS})

        def fetched(arriving: Callable[[], _Part]) -> _Part:
            with stages.at("encode"):
                return arriving()

        rounds = [(chunk, repeat) for chunk in _chunks(len(numbers), engine.chunk) for repeat in range(rule.repeats)]
        arriving: Callable[[], _Part] | None = None
        total: Tensor | None = None
        tokens = 0
        try:
            for (chunk, repeat), staged in prefetch(rounds, choose):
                seen, last = staged.result(), repeat == rule.repeats - 1
                with stages.at("encode"):
                    found = engine.embed(seen, report if last else _silent)
                    total = found if total is None else total + found
                    tokens += seen.tokens
                    if not last:
                        continue
                    mean = total if rule.repeats == 1 else total / rule.repeats
                    result = engine.finish(mean[:, :dims], quantiser)
                before, arriving = arriving, functools.partial(_part, chunk, result, tokens)
                total, tokens = None, 0
                if before:
                    yield fetched(before)
            if arriving:
                yield fetched(arriving)
        except torch.OutOfMemoryError as error:
            raise MemoryError(f"{model.encoder.device} cannot hold a chunk of {engine.chunk} pixels") from error


def _part(chunk: slice, fetched: Callable[[], tuple[np.ndarray, np.ndarray | None]], tokens: int) -> _Part:
    return _Part(chunk, *fetched(), tokens)


def _chunks(count: int, size: int) -> Iterator[slice]:
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def _silent(finished: int) -> None:
    pass
