"""The hidden model `null`: mean standardised bands in place of an encoder, for tests and benchmarks of all the rest."""

from __future__ import annotations

import numpy as np

from tessera_cli.sampling import BAND_COUNTS, SensorSeries, SensorSeriesByModality


def null_embeddings(sensor_series: SensorSeriesByModality, pixels: np.ndarray, representation: int) -> np.ndarray:
    """Return the twelve means of these pixels, repeated until the embedding is full: float32 (N, R)."""
    means = np.concatenate([mean_bands(sensor_series[modality], pixels) for modality in BAND_COUNTS], axis=1)
    return means[:, np.arange(representation) % means.shape[1]]


def mean_bands(sensor: tuple[SensorSeries, ...], pixels: np.ndarray) -> np.ndarray:
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
