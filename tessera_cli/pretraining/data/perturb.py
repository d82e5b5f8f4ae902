"""What differs between two looks at the same ground, and says nothing of it: light, haze, noise, an early spring.

Every number is a hash of the view's key, so it does not depend on the batch, the process or the thread.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tessera_cli.pretraining.config import ViewConfig
from tessera_cli.pretraining.data.batch import MISSING, Sequences
from tessera_cli.sampling import Modality
from tessera_cli.sampling.draws import mix, numbered, uniform

SCALE = 200 * 20
"""Of radar: scaled values per factor of ten in power (`imagery.sentinel1.scale`)."""
_YEAR = 366

Hashes = Callable[[str], np.ndarray]
"""A decision -> the hashes of the pixels that make it, uint64 (N,)."""


def days_later(config: ViewConfig, hashes: np.ndarray) -> np.ndarray:
    """Return by how many days each view is later, int64 (N,), of hashes uint64 (N,)."""
    span = 2 * config.shift_days + 1
    return (uniform(hashes) * span).astype(np.int64) - config.shift_days


def perturbed(
    sequences: Sequences[np.ndarray], modality: Modality, config: ViewConfig, hashes: Hashes, shifts: np.ndarray
) -> Sequences[np.ndarray]:
    """Return sequences with other factors of brightness, as `config` says, and `shifts` days later, int64 (N,)."""
    there = sequences.streams != MISSING
    values, doy = sequences.values, sequences.doy
    rows, steps, bands = values.shape
    if config.gain or config.noise:
        log = np.zeros((rows, steps, bands))
        if config.gain:
            drawn = normal(hashes("gain")[sequences.members], 1 + bands)
            log += config.gain * (drawn[:, :1] + drawn[:, 1:])[:, None]
        if config.noise:
            drawn = normal(hashes("noise")[sequences.members], steps * bands)
            log += config.noise * drawn.reshape(rows, steps, bands)
        values = np.where(there[..., None], _brightened(values, log, modality), values)
    if config.shift_days:
        moved = (doy.astype(np.int64) + shifts[sequences.members, None] - 1) % _YEAR + 1
        doy = np.where(there, moved, doy).astype(np.int16)
    return Sequences(sequences.members, values, doy, sequences.streams)


def normal(keys: np.ndarray, count: int) -> np.ndarray:
    """Return `count` standard normal numbers of each key, uint64 (N,) -> float64 (N, count), by Box and Muller."""
    pairs = -(-count // 2)
    one, other = (uniform(numbered(mix(keys ^ np.uint64(salt)), pairs)) for salt in (1, 2))
    radius, angle = np.sqrt(-2 * np.log1p(-one)), 2 * np.pi * other
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)[:, :count]


def _brightened(values: np.ndarray, log: np.ndarray, modality: Modality) -> np.ndarray:
    """Multiply power or reflectance with exp(log), (M, T, C), in the units of the values; what is not 0 stays so."""
    if modality == "s2":
        changed = np.rint(values * np.exp(log)).clip(1, np.iinfo(np.uint16).max)
    else:
        changed = np.rint(values + SCALE / np.log(10) * log).clip(1, np.iinfo(np.int16).max)
    return np.where(values == 0, 0, changed).astype(values.dtype)
