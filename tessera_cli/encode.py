"""d-pixels -> embeddings, in chunks that bound the memory.

A pixel's embedding depends on the pixel alone (how: see `models/engine.py`), so pixels can be encoded in any
portions, on any number of threads, and tiles in any order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tessera_cli.models.band_means import band_means, null_embedding
from tessera_cli.sampling import Observations, Stream, s1_streams, s2_streams

if TYPE_CHECKING:
    from tessera_cli.dpixel import DPixels
    from tessera_cli.models.engine import Advance
    from tessera_cli.models.load import Model
    from tessera_cli.models.spec import Modality

CHUNK = 16384
"""Pixels whose two sensor vectors are held at a time: 84 MB with the widest student."""


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
    threads: int = 1,
    progress: Advance | None = None,
) -> Embeddings:
    """Encode the pixels where `pixels`, bool (H, W), is true; each must have a valid observation of some sensor.

    `threads` micro-batches run side by side on a CPU, which does not change the result. `progress` is called with
    the number of pixels finished since its last call.
    """
    if pixels.shape != dpixels.requested.shape or pixels.dtype != bool:
        raise ValueError(f"pixels must be bool {dpixels.requested.shape}, not {pixels.dtype} {pixels.shape}")
    streams: dict[Modality, tuple[Stream, ...]] = {
        "s2": s2_streams(dpixels, model.spec.statistics),
        "s1": s1_streams(dpixels, model.spec.statistics),
    }
    numbers = np.flatnonzero(pixels)
    unseen = ~np.logical_or.reduce([s.valid.any(axis=0) for group in streams.values() for s in group])[numbers]
    if unseen.any():
        raise ValueError(f"{unseen.sum()} of the pixels to encode have no valid observation of any sensor")

    values = np.empty((len(numbers), model.representation), np.float32)
    report = progress or (lambda finished: None)
    chunks = [slice(start, start + CHUNK) for start in range(0, len(numbers), CHUNK)]
    if model.encoder is None:
        for chunk in chunks:
            s2, s1 = (band_means(streams[modality], numbers[chunk]) for modality in ("s2", "s1"))
            values[chunk] = null_embedding(s2, s1, model.representation)
            report(len(s2))
        return Embeddings(values, 0)

    from tessera_cli.models.engine import Engine

    tokens = 0
    with Engine(model.encoder, threads) as engine:
        for chunk in chunks:
            rule = model.spec.observations
            seen = {m: Observations.of(streams[m], numbers[chunk], rule) for m in streams}
            tokens += engine.embed(seen, values[chunk], report)
    return Embeddings(values, tokens)
