"""Mean and standard deviation per band, from exact integer sums: the order of observations does not matter."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tessera_cli.dpixels.dpixel import S1_BANDS, S2_BANDS, SENSORS
from tessera_cli.sampling.ragged import STREAMS, RaggedPixels
from tessera_cli.sampling.statistics import V2_STUDENT_STATISTICS, Statistics

logger = logging.getLogger(__name__)

_ROWS = 1 << 16
"""Rows summed at once: at most 2^20, so that sums of squares of 16-bit integers are exact in float64."""
_OTHER_ORBIT = {"s1_asc": "s1_desc", "s1_desc": "s1_asc"}


@dataclass
class _Sums:
    """Exact sums per band over the observations of one stream."""

    count: int = 0
    values: np.ndarray | int = 0
    """object (C,): Python integers, which do not overflow."""
    squares: np.ndarray | int = 0

    def add(self, values: np.ndarray) -> None:
        """Add 16-bit integers (S, C)."""
        wide = np.ascontiguousarray(values.T, np.float64)  # (C, S)
        self.count += len(values)
        self.values = self.values + wide.sum(axis=1).astype(np.int64).astype(object)
        self.squares = self.squares + np.einsum("cs,cs->c", wide, wide).astype(np.int64).astype(object)

    def bands(self) -> list[tuple[float, float]]:
        """Return mean and population standard deviation of each band."""
        n, pairs = self.count, np.stack([self.values, self.squares], axis=1)
        return [(total / n, math.sqrt((n * squares - total * total) / (n * n))) for total, squares in pairs.tolist()]


class BandStatistics:
    """Accumulate pixels; `statistics` returns their band statistics."""

    def __init__(self) -> None:
        self._sums = {stream: _Sums() for stream in SENSORS}

    def add(self, pixels: RaggedPixels) -> None:
        for modality, streams in STREAMS.items():
            series = pixels.series(modality)
            for start in range(0, len(series.values), _ROWS):
                values, numbers = series.values[start : start + _ROWS], series.streams[start : start + _ROWS]
                for number, stream in enumerate(streams):
                    self._sums[stream].add(values[numbers == number])

    @property
    def observations(self) -> Mapping[str, int]:
        """The number of observations by stream."""
        return {stream: sums.count for stream, sums in self._sums.items()}

    def statistics(self) -> Statistics:
        """Return the statistics of all pixels.

        An orbit without observations takes those of the other one; a sensor without any, and a band that never varies,
        those of the v2 students.
        """
        card: dict[str, list[float]] = {}
        for stream in SENSORS:
            means, stds = (list(getattr(V2_STUDENT_STATISTICS, f"{stream}_{kind}")) for kind in ("mean", "std"))
            sums = self._sums[stream if self._sums[stream].count else _OTHER_ORBIT.get(stream, stream)]
            if not sums.count:
                logger.warning("no pixel has %s observations: they will be standardised as v2 does it", stream)
            names = S2_BANDS if stream == "s2" else S1_BANDS
            for number, (mean, std) in enumerate(sums.bands() if sums.count else ()):
                if std > 0:
                    means[number], stds[number] = mean, std
                else:
                    band = names[number]
                    logger.warning("%s of %s is always %g: it will be standardised as v2 does it", band, stream, mean)
            card |= {f"{stream}_mean": means, f"{stream}_std": stds}
        return Statistics.from_card(card)
