"""The hidden model `null`: mean standardised bands in place of an encoder, for tests and benchmarks of all the rest."""

from __future__ import annotations

import numpy as np

from tessera_cli.sampling import SensorSeries


def band_means(streams: tuple[SensorSeries, ...], pixels: np.ndarray) -> np.ndarray:
    """Mean of one sensor's valid standardised observations, float32 (N, C); 0 where there is none."""
    bands = streams[0].frames.shape[-1]
    total = np.zeros((len(pixels), bands))
    count = np.zeros(len(pixels), np.int64)
    for stream in streams:
        raw = np.zeros((len(pixels), bands), np.int32)  # exact: at most 366 frames of 16 bits
        seen = np.zeros(len(pixels), np.int64)
        for frame, valid in zip(stream.frames, stream.valid, strict=True):
            here = valid[pixels]
            raw += frame[pixels] * here[:, None]
            seen += here
        total += (raw - seen[:, None] * stream.mean.astype(np.float64)) / stream.std
        count += seen
    means: np.ndarray = (total / np.maximum(count, 1)[:, None]).astype(np.float32)
    return means


def null_embedding(s2: np.ndarray, s1: np.ndarray, representation: int) -> np.ndarray:
    """The twelve means, over and over until the embedding is full: float32 (N, R)."""
    means = np.concatenate([s2, s1], axis=1)
    return means[:, np.arange(representation) % means.shape[1]]
