"""Series on a fixed grid of days: linear in time between observations, the nearest one beyond them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tessera_cli.evaluation.raw.observed import Observed
from tessera_cli.extent.window import Window

STEPS = 24
"""Half months of a year."""


def grid_days(window: Window, steps: int = STEPS) -> np.ndarray:
    """Return the middles of `steps` equal parts of a window in days since its start, float64 (steps,)."""
    return (np.arange(steps) + 0.5) * window.days / steps - 0.5


def gap_filled(streams: Sequence[Observed], days: np.ndarray) -> np.ndarray:
    """Return float32 (N, G x C): for each day of the grid the values of all streams, one stream after the other.

    Pixels without any observation of a value have NaN there. `days` are float64 (G,), rising.
    """
    return np.concatenate([_filled(each, days) for each in streams], axis=1)


def _filled(stream: Observed, days: np.ndarray) -> np.ndarray:
    made = np.empty((len(stream), len(days), len(stream.names)), np.float32)
    for part, some in stream.parts():
        if np.isfinite(some.values).all():
            made[part] = _interpolated(some, days)
            continue
        for column in range(len(stream.names)):
            kept = some.where(np.isfinite(some.values[:, column]))
            made[part, :, column] = _interpolated(kept, days)[..., column]
    return made.reshape(len(stream), -1)


def _interpolated(stream: Observed, days: np.ndarray) -> np.ndarray:
    """Return float64 (N, G, C), as numpy.interp does for each pixel."""
    count, starts = len(stream), stream.starts
    made = np.full((count, len(days), len(stream.names)), np.nan)
    there = np.flatnonzero(np.diff(starts))
    if not len(there):
        return made
    far = float(max(stream.days.max(), days.max())) + 2  # positions of pixels on one axis, apart from each other
    axis = stream.pixels * far + stream.days
    wanted = there[:, None] * far + days
    first, last = starts[there][:, None], starts[there + 1][:, None] - 1
    after = np.clip(np.searchsorted(axis, wanted.ravel()).reshape(wanted.shape), first, last)
    before = np.clip(after - 1, first, last)
    at_after, at_before = (stream.days[each].astype(np.float64) for each in (after, before))
    span = np.maximum(at_after - at_before, 1)
    weight = np.where(after == before, 0.0, np.clip((days - at_before) / span, 0, 1))[..., None]
    values = stream.values.astype(np.float64)
    made[there] = values[before] * (1 - weight) + values[after] * weight
    return made
