"""d-pixels -> embeddings, in chunks that bound the memory.

A pixel's embedding depends on the pixel alone (how: see `models/engine.py`), so pixels can be encoded in any
portions, on any number of threads, and tiles in any order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tessera_cli.models.band_means import band_means, null_embedding
from tessera_cli.sampling import BANDS, streams

if TYPE_CHECKING:
    from tessera_cli.dpixel import DPixels
    from tessera_cli.models.engine import Advance
    from tessera_cli.models.load import Model

CHUNK_BYTES = 1 << 27
"""Of the two sensor vectors that are held at a time."""
CHUNK = 16384
"""At most so many pixels at a time."""


@dataclass(frozen=True, eq=False)
class Embeddings:
    """The embeddings of N pixels, in row-major order."""

    values: np.ndarray
    """float32 (N, R), before a prefix is taken."""
    tokens: int
    """Observations that went through the encoder, fillers included; 0 for `null`."""


def encode(
    dpixels: DPixels,
    model: Model,
    pixels: np.ndarray,
    *,
    seed: int = 0,
    threads: int = 1,
    progress: Advance | None = None,
) -> Embeddings:
    """Encode the pixels where `pixels`, bool (H, W), is true, which must be such that the model gives an embedding.

    `seed` decides what v1.0 models draw. `threads` micro-batches run side by side on a CPU, which does not change the
    result. `progress` is called with the number of pixels finished since its last call.
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
    values = np.empty((len(numbers), model.representation), np.float32)
    report = progress or (lambda finished: None)
    if model.encoder is None:
        found = streams(dpixels, model.spec.statistics)
        for chunk in _chunks(len(numbers), CHUNK):
            s2, s1 = (band_means(found[modality], numbers[chunk]) for modality in BANDS)
            values[chunk] = null_embedding(s2, s1, model.representation)
            report(len(s2))
        return Embeddings(values, 0)

    from tessera_cli.models.engine import Engine

    tokens = 0
    sampler = rule.sampler(dpixels, model.spec.statistics, numbers, seed)
    with Engine(model.encoder, threads) as engine:
        for chunk in _chunks(len(numbers), min(CHUNK, CHUNK_BYTES // (8 * model.encoder.config.width))):
            total = np.zeros((chunk.stop - chunk.start, model.representation), np.float32)
            for repeat in range(rule.repeats):
                seen = {modality: sampler(modality, chunk, repeat) for modality in BANDS}
                tokens += engine.embed(seen, values[chunk], report if repeat == rule.repeats - 1 else _silent)
                total += values[chunk]
            values[chunk] = total / np.float32(rule.repeats)
    return Embeddings(values, tokens)


def _chunks(count: int, size: int) -> Iterator[slice]:
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def _silent(finished: int) -> None:
    pass
