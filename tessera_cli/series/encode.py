"""Ragged pixels -> embeddings, exactly as `embed` makes them of the same observations in a tile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from tessera_cli.dpixels.dpixel import DPixels
from tessera_cli.extent.grid import ForeignTile
from tessera_cli.extent.window import Window
from tessera_cli.inference.encode import encode
from tessera_cli.models.quantise import dequantise
from tessera_cli.sampling.ragged import RaggedPixels, RaggedSeries
from tessera_cli.series.days import days_in_window

if TYPE_CHECKING:
    from tessera_cli.models.load import Model
    from tessera_cli.models.quantise import Quantiser

CHUNK = 4096
"""Pixels whose observations are laid out as frames at a time: up to 45 KB each."""


@dataclass(frozen=True, eq=False)
class SeriesEmbeddings:
    """The embeddings of N pixels."""

    values: np.ndarray
    """float32 (N, dims), NaN where there is none; or int8 codes, 0 there."""
    scales: np.ndarray | None
    """float32 (N,): the factor of each pixel's codes, NaN where there is none; None without codes."""
    valid: np.ndarray
    """bool (N,): which pixels have an embedding."""
    counts: np.ndarray
    """uint16 (N, 3): valid observations per sensor, in the order of `dpixels.SENSORS`."""

    def floats(self) -> np.ndarray:
        """Return float32 (N, dims), of codes their product with the scale; NaN where there is none."""
        return self.values if self.scales is None else dequantise(self.values, self.scales)


@dataclass(frozen=True, eq=False)
class ScatteredDPixels(DPixels):
    """The d-pixels of pixels that lie anywhere, as a tile of one column."""

    places: np.ndarray = field(default_factory=lambda: np.empty((0, 3), np.int64))
    """int64 (N, 3): EPSG code, easting and northing of each pixel."""

    def positions(self, numbers: np.ndarray) -> np.ndarray:
        return self.places[numbers]


def encode_series(
    pixels: RaggedPixels,
    window: Window,
    model: Model,
    *,
    dims: int | None = None,
    quantiser: Quantiser | None = None,
    min_s2: int = 1,
    min_s1: int = 0,
    seed: int = 0,
    threads: int = 1,
    progress: Callable[[int], None] | None = None,
) -> SeriesEmbeddings:
    """Encode pixels; those with too few observations get no embedding.

    Args:
        pixels: Observations of a window.
        window: That window, which says in which order days of year come.
        model: A loaded model with statistics (`Model.bind_source`).
        dims: How many leading values of each embedding to return; None for all.
        quantiser: Rule by which to return int8 codes and scales; None to return float32.
        min_s2: Pixels with fewer observations of Sentinel-2 get no embedding.
        min_s1: The same of Sentinel-1, both orbits together.
        seed: Random seed (v1.0 models only, which also draw by the pixel's place).
        threads: Micro-batches that run side by side on a CPU; the result does not depend on it.
        progress: Called with the number of pixels finished since its last call.

    Raises:
        TileError: An embedding is NaN or infinite.
    """
    parts = [
        each
        for _, each in encode_parts(
            pixels,
            window,
            model,
            dims=dims,
            quantiser=quantiser,
            min_s2=min_s2,
            min_s1=min_s1,
            seed=seed,
            threads=threads,
            progress=progress,
        )
    ]
    if not parts:
        none = np.empty((0, model.representation if dims is None else dims), np.int8 if quantiser else np.float32)
        scales = np.empty(0, np.float32) if quantiser else None
        return SeriesEmbeddings(none, scales, np.empty(0, bool), np.empty((0, 3), np.uint16))
    return SeriesEmbeddings(
        np.concatenate([each.values for each in parts]),
        None if quantiser is None else np.concatenate([each.scales for each in parts if each.scales is not None]),
        np.concatenate([each.valid for each in parts]),
        np.concatenate([each.counts for each in parts]),
    )


def encode_parts(
    pixels: RaggedPixels,
    window: Window,
    model: Model,
    *,
    dims: int | None = None,
    quantiser: Quantiser | None = None,
    min_s2: int = 1,
    min_s1: int = 0,
    seed: int = 0,
    threads: int = 1,
    progress: Callable[[int], None] | None = None,
    chunk: int = CHUNK,
) -> Iterator[tuple[slice, SeriesEmbeddings]]:
    """Yield what `encode_series` returns, `chunk` pixels at a time; the embeddings do not depend on it."""
    dims = model.representation if dims is None else dims
    tell = progress or (lambda finished: None)
    for part, dpixels in to_dpixels(pixels, window, chunk):
        wanted = dpixels.embeddable(min_s2=min_s2, min_s1=min_s1)
        wanted &= model.spec.observations.valid_pixels(dpixels)
        valid = wanted[:, 0]
        kind, empty = (np.float32, np.nan) if quantiser is None else (np.int8, 0)
        values = np.full((len(valid), dims), empty, kind)
        scales = None if quantiser is None else np.full(len(valid), np.nan, np.float32)
        if valid.any():
            made = encode(
                dpixels, model, wanted, dims=dims, quantiser=quantiser, seed=seed, threads=threads, progress=tell
            )
            values[valid] = made.values
            if scales is not None:
                scales[valid] = made.scales
        tell(int((~valid).sum()))
        yield part, SeriesEmbeddings(values, scales, valid, dpixels.counts[..., 0].T.copy())


def to_dpixels(pixels: RaggedPixels, window: Window, chunk: int = CHUNK) -> Iterator[tuple[slice, ScatteredDPixels]]:
    """Yield parts of the pixels as d-pixels (T, n, 1); the frames are the dates of all the pixels.

    So frames do not depend on the size of the parts. (v1.0 draws from all frames where none is valid.)
    """
    s2 = _Frames.of(pixels.s2, window, np.uint8(0))
    asc, desc = (_Frames.of(pixels.s1, window, np.uint8(stream)) for stream in range(2))
    start = np.datetime64(window.start, "D")
    for first in range(0, len(pixels), chunk):
        part = slice(first, min(first + chunk, len(pixels)))
        size = part.stop - part.start
        bands, mask = s2.laid_out(part)
        yield (
            part,
            ScatteredDPixels(
                tile=ForeignTile("series", (size, 1)),
                window=window,
                s2=bands,
                s2_mask=mask.astype(np.uint8),
                s2_dates=start + s2.days,
                s1_asc=asc.laid_out(part)[0],
                s1_asc_dates=start + asc.days,
                s1_desc=desc.laid_out(part)[0],
                s1_desc_dates=start + desc.days,
                requested=np.ones((size, 1), bool),
                source=None,
                preprocessing="",
                places=np.asarray(pixels.places[part]).astype(np.int64),
            ),
        )


@dataclass(frozen=True, eq=False)
class _Frames:
    """One stream's observations, and the frames that they are laid out on."""

    series: RaggedSeries
    stream: np.uint8
    days: np.ndarray
    """int64 (T,): distinct days since the window's start, rising."""
    frame: np.ndarray
    """int16 (S,): frame of each observation of the sensor; of other streams without a meaning."""

    @classmethod
    def of(cls, series: RaggedSeries, window: Window, stream: np.uint8) -> _Frames:
        days = days_in_window(series, window)
        distinct = np.unique(days[np.asarray(series.streams) == stream])
        return cls(series, stream, distinct, np.searchsorted(distinct, days).astype(np.int16))

    def laid_out(self, part: slice) -> tuple[np.ndarray, np.ndarray]:
        """Return values (T, n, 1, C), 0 where there is none, and bool (T, n, 1): where there is one."""
        starts = self.series.starts[part.start : part.stop + 1]
        rows = slice(int(starts[0]), int(starts[-1]))
        ours = np.asarray(self.series.streams[rows]) == self.stream
        pixel = np.repeat(np.arange(len(starts) - 1), np.diff(starts))[ours]
        source = np.asarray(self.series.values[rows])
        values = np.zeros((len(self.days), len(starts) - 1, 1, source.shape[1]), source.dtype)
        there = np.zeros(values.shape[:3], bool)
        frame = self.frame[rows][ours]
        values[frame, pixel, 0], there[frame, pixel, 0] = source[ours], True
        return values, there
