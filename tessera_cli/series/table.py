"""Time series of points: what a long table becomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from tessera_cli.extent.window import Window
from tessera_cli.sampling.ragged import RaggedPixels
from tessera_cli.series.mapping import Columns
from tessera_cli.series.told import agreed


@dataclass(frozen=True, eq=False)
class SeriesTable:
    """N samples with their observations in a window, and what the table says of each."""

    origin: str
    """The file: what messages say."""
    pixels: RaggedPixels
    """Observations; `keys` are hashes of the ids, `places` the pixels of the grid that hold the samples (zone 0 where
    the place is not known)."""
    ids: np.ndarray
    """object (N,): text, in order of appearance."""
    lonlat: np.ndarray
    """float64 (N, 2) in degrees, NaN where the place is not known."""
    window: Window
    columns: Mapping[str, np.ndarray]
    """The table's other columns that say one thing of each sample -> values (N,)."""
    mapping: Columns
    """How the table was read, all columns named."""
    conflicts: Mapping[str, str]
    """Columns that change within a sample -> an example, in words."""
    notes: tuple[str, ...] = ()
    """What was left out or assumed, a line each."""

    def __len__(self) -> int:
        return len(self.ids)

    def column(self, name: str) -> np.ndarray:
        """Return a column (N,); UsageError where there is none, or where it changes within a sample."""
        return agreed(name, self.columns, self.conflicts, self.origin)

    def take(self, numbers: np.ndarray) -> SeriesTable:
        """Return these samples, int (M,), in this order."""
        columns = {name: values[numbers] for name, values in self.columns.items()}
        some = self.pixels.take(numbers)
        return replace(self, pixels=some, ids=self.ids[numbers], lonlat=self.lonlat[numbers], columns=columns)
