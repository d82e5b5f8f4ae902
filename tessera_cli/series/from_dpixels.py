"""Pixels of a tile -> ragged series of all their valid observations."""

from __future__ import annotations

import numpy as np

from tessera_cli.dpixels.dpixel import DPixels
from tessera_cli.sampling import V2_RULE, Modality
from tessera_cli.sampling.ragged import RaggedSeries
from tessera_cli.sampling.statistics import V2_STUDENT_STATISTICS


def ragged_series(dpixels: DPixels, numbers: np.ndarray) -> tuple[RaggedSeries, RaggedSeries]:
    """Return the series of Sentinel-2 and Sentinel-1 of the pixels with these flat numbers, int (N,).

    Observations are in the order of the frames: by date, ascending passes before descending ones.
    """
    # All valid observations, raw: the statistics play no part.
    sample = V2_RULE.sampler(dpixels, V2_STUDENT_STATISTICS, numbers, 0)

    def series(modality: Modality) -> RaggedSeries:
        valid = sample(modality, slice(None), 0)
        starts = np.append(valid.starts, len(valid.doy)).astype(np.int64)
        return RaggedSeries(valid.values, valid.doy.astype(np.uint16), valid.series_index, starts)

    return series("s2"), series("s1")
