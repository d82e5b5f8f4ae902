"""d-pixels -> embeddings, in chunks that bound the memory.

A pixel's embedding depends on nothing but that pixel (`inference/cpu.py` says how), so pixels can be encoded in any
portions, on any number of threads, and tiles in any order.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tessera_cli.inference.kept import Keeper, Keeping
from tessera_cli.models.quantise import Quantiser, check_finite, quantise
from tessera_cli.prefetch import prefetch
from tessera_cli.sampling import BAND_COUNTS, SensorSeries, SensorSeriesByModality, sensor_series
from tessera_cli.timing import StageTimer

if TYPE_CHECKING:
    from torch import Tensor

    from tessera_cli.dpixels.dpixel import DPixels
    from tessera_cli.inference.engine import Advance, Arrays, Chunk, Engine
    from tessera_cli.models.encoder import Encoder
    from tessera_cli.models.load import Model

_CHUNK = 16384
"""Pixels at a time, without an encoder."""


@dataclass(frozen=True, eq=False)
class Embeddings:
    """The embeddings of N pixels, in row-major order."""

    values: np.ndarray
    """float32 (N, dims), or int8 codes."""
    scales: np.ndarray | None
    """float32 (N,): the factor of each pixel's codes; None without codes."""
    pixels: np.ndarray
    """bool (H, W): which pixels of the tile they are."""
    tokens: int
    """Total length of the sequences that were encoded, padding included; 0 for `null`."""
    kept: int = 0
    """How many of the pixels an earlier call had encoded, whose sequences do not count here."""


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
    keeper: Keeper | None = None,
) -> Embeddings:
    """Encode some pixels of a tile.

    On a CPU with glibc, malloc is set to keep freed blocks of up to 32 MB, for the rest of the process.

    Args:
        dpixels: The tile's observations.
        model: A loaded model with statistics (`Model.bind_source`).
        pixels: bool (H, W), true where to encode; only pixels for which the model computes an embedding.
        dims: How many leading values of each embedding to return; None for all.
        quantiser: Rule by which to return int8 codes and scales; None to return float32.
        seed: Random seed (v1.0 models only).
        threads: Micro-batches that run side by side on a CPU; the result does not depend on it.
        progress: Called with the number of pixels finished since its last call.
        stages: Told the seconds of `choose` (in the background) and `encode`.
        keeper: Holds the first embeddings of an earlier call with the same arguments, which are not made again; is
            given the finished ones about once a minute, and when an error or a signal ends this call.

    Returns:
        The embeddings of the N pixels, in row-major order.

    Raises:
        TileError: An embedding is NaN or infinite.
        MemoryError: The device is too small.
    """
    if pixels.shape != dpixels.requested.shape or pixels.dtype != bool:
        raise ValueError(f"pixels must be bool {dpixels.requested.shape}, not {pixels.dtype} {pixels.shape}")
    if model.spec.statistics is None:
        raise ValueError(f"{model.name} has no statistics: call bind_source first")
    if not model.spec.use_ascending and len(dpixels.s1_asc):
        dpixels = dpixels.without_ascending()
    if invalid := int((pixels & ~model.spec.observations.valid_pixels(dpixels)).sum()):
        raise ValueError(f"{invalid} of the pixels to encode have nothing that {model.name} could encode")

    numbers, progress = np.flatnonzero(pixels), progress or _ignore
    dims = model.representation if dims is None else dims
    values = np.empty((len(numbers), dims), np.float32 if quantiser is None else np.int8)
    scales = None if quantiser is None else np.empty(len(numbers), np.float32)
    tokens = 0
    with Keeping(keeper, values, scales) as keeping:
        if first := keeping.done:
            progress(first)
        if model.encoder is None:
            parts = _null_parts(dpixels, model, numbers, first, dims, quantiser, progress)
        else:
            parts = _encoder_parts(
                dpixels, model, numbers, first, dims, quantiser, seed, threads, progress, stages or StageTimer()
            )
        with closing(parts):
            for chunk, (some_values, some_scales), length in parts:
                check_finite(some_values if some_scales is None else some_scales[:, None])
                keeping.add(chunk, some_values, some_scales)
                tokens += length
    return Embeddings(values, scales, pixels, tokens, first)


Part = tuple[slice, "Arrays", int]
"""Some of the pixels, their values and scales, and the length of the sequences that were encoded."""


def _null_parts(
    dpixels: DPixels,
    model: Model,
    numbers: np.ndarray,
    first: int,
    dims: int,
    quantiser: Quantiser | None,
    progress: Advance,
) -> Generator[Part, None, None]:
    assert model.spec.statistics is not None
    series = sensor_series(dpixels, model.spec.statistics)
    for chunk in _chunks(first, len(numbers), _CHUNK):
        values = _null_embeddings(series, numbers[chunk], model.representation)[:, :dims]
        arrays: Arrays = (values, None) if quantiser is None else quantise(values, quantiser)
        yield chunk, arrays, 0
        progress(len(values))


def _encoder_parts(
    dpixels: DPixels,
    model: Model,
    numbers: np.ndarray,
    first: int,
    dims: int,
    quantiser: Quantiser | None,
    seed: int,
    threads: int,
    progress: Advance,
    stages: StageTimer,
) -> Generator[Part, None, None]:
    """Encode from pixel `first` on.

    While a chunk is encoded, the next is sampled and copied to the device, and the one before copied back.
    """
    import torch

    assert model.encoder is not None
    assert model.spec.statistics is not None
    rule = model.spec.observations
    with stages.at("choose"):
        sampler = rule.sampler(dpixels, model.spec.statistics, numbers, seed)
    with get_engine(model.encoder, threads) as engine:

        def sample(chunk_and_repeat: tuple[slice, int]) -> Chunk:
            with stages.at("choose"):
                return engine.to_device({modality: sampler(modality, *chunk_and_repeat) for modality in BAND_COUNTS})

        def fetch(chunk: slice, arriving: Callable[[], Arrays], tokens: int) -> Part:
            with stages.at("encode"):
                return chunk, arriving(), tokens

        chunks = _chunks(first, len(numbers), engine.chunk)
        rounds = [(chunk, repeat) for chunk in chunks for repeat in range(rule.repeats)]
        arriving: Callable[[], Part] | None = None
        total: Tensor | None = None
        tokens = 0
        try:
            for (chunk, repeat), sampled in prefetch(rounds, sample, ahead=engine.ahead):
                batches, last = sampled.result(), repeat == rule.repeats - 1
                with stages.at("encode"):
                    found = engine.embed(batches, progress if last else _ignore)
                    total = found if total is None else total + found
                    tokens += sum(batch.tokens for batch in batches.values())
                    if not last:
                        continue
                    mean = total if rule.repeats == 1 else total / rule.repeats
                    result = engine.finish(mean[:, :dims], quantiser)
                before, arriving = arriving, functools.partial(fetch, chunk, result, tokens)
                total, tokens = None, 0
                if not engine.copies_back:  # what an interruption finds here would be lost
                    before, arriving = arriving, None
                if before:
                    yield before()
            if arriving:
                yield arriving()
        except torch.OutOfMemoryError as error:
            raise MemoryError(f"{model.encoder.device} cannot hold a chunk of {engine.chunk} pixels") from error


def _chunks(first: int, count: int, size: int) -> Iterator[slice]:
    for start in range(first, count, size):
        yield slice(start, min(start + size, count))


def _ignore(finished: int) -> None:
    pass


def get_engine(encoder: Encoder, threads: int) -> Engine:
    """Return the engine for the device that `encoder` lies on; on a CPU, `threads` micro-batches run side by side."""
    if encoder.device.type == "cpu":
        from tessera_cli.inference.cpu import CpuEngine

        return CpuEngine(encoder, threads)
    from tessera_cli.inference.gpu import GpuEngine

    return GpuEngine(encoder)


@dataclass(frozen=True)
class Footprint:
    """The memory that encoding takes, in bytes, without the weights."""

    host: int
    """Of the machine, at its peak."""
    device: int = 0
    """Of a GPU at least; batches grow with what there is."""
    device_free: int | None = None
    """None without a GPU."""


def footprint(encoder: Encoder | None, threads: int, pixels: int, observations: float, longest: int) -> Footprint:
    """Return what encoding so many pixels takes; `observations` is their mean number, `longest` a sequence."""
    if encoder is None:
        return Footprint(0)
    from tessera_cli.inference import memory

    engine = get_engine(encoder, threads)
    if encoder.device.type == "cpu":
        return Footprint(engine.peak_bytes(pixels, observations, longest))
    host = engine.chunks * memory.chunk_bytes(encoder.config, min(pixels, engine.chunk), observations)
    least = memory.least_bytes(encoder.config, encoder.s2.matmul_dtype, longest)
    return Footprint(host, least, memory.free_bytes(encoder.device))


def _null_embeddings(sensor_series: SensorSeriesByModality, pixels: np.ndarray, representation: int) -> np.ndarray:
    """Return what the hidden model `null` makes of pixels, for tests and benchmarks of all the rest: float32 (N, R).

    It is the twelve means of standardised bands, repeated until the embedding is full.
    """
    means = np.concatenate([_mean_bands(sensor_series[modality], pixels) for modality in BAND_COUNTS], axis=1)
    return means[:, np.arange(representation) % means.shape[1]]


def _mean_bands(sensor: tuple[SensorSeries, ...], pixels: np.ndarray) -> np.ndarray:
    """Return the mean of one sensor's valid standardised observations, float32 (N, C); 0 where there is none."""
    bands = sensor[0].frames.shape[-1]
    total = np.zeros((len(pixels), bands))
    count = np.zeros(len(pixels), np.int64)
    for series in sensor:
        raw = np.zeros((len(pixels), bands), np.int32)  # exact: at most 366 frames of 16 bits
        valid_count = np.zeros(len(pixels), np.int64)
        for frame, valid in zip(series.frames, series.valid, strict=True):
            here = valid[pixels]
            raw += frame[pixels] * here[:, None]
            valid_count += here
        total += (raw - valid_count[:, None] * series.mean.astype(np.float64)) / series.std
        count += valid_count
    return (total / np.maximum(count, 1)[:, None]).astype(np.float32)
