"""What a source promises of the values of an asset, and how a file shows that it holds something else."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tessera_cli.imagery.geotiff import GeoTiffFile
from tessera_cli.imagery.header import Header


class UnfitError(Exception):
    """Raised with why a file cannot be what its source promises, worded to follow the asset's key."""


@dataclass(frozen=True, eq=False)
class Promise:
    """What the values of an asset must be."""

    need: str
    types: str
    """Kinds of NumPy's dtypes."""
    instead: Mapping[str, str]
    """Other kinds -> what such values are, most likely."""
    scales: tuple[float, ...]
    """Factors that the file's scale tag may name."""
    low: float
    high: float
    """Values within these are what they must be."""
    below: str
    above: str
    """What values beyond them are, most likely."""
    rarely: tuple[float, float] | None = None
    """Values between `low` or `high` and these limits are accepted unless they outnumber the positive ones elsewhere;
    values beyond these limits stand for missing data. None: no value may be beyond `low` and `high`."""
    palette: bool = False
    """Whether the file may have a colour table."""

    def check_file(self, file: GeoTiffFile) -> None:
        """Raise UnfitError for what the header shows."""
        header, kind = file.header, np.dtype(file.header.dtype).kind
        if header.bands != 1:
            raise UnfitError(f"has {header.bands} bands: {self.need}, in a file of one band")
        if kind not in self.types:
            raise UnfitError(f"is {header.dtype}: {self.instead.get(kind, 'something else')}? {self.need}")
        if header.palette and not self.palette:
            raise UnfitError(f"has a colour table: a picture? {self.need}")
        known = any(math.isclose(header.scale, scale, rel_tol=1e-6) for scale in self.scales)  # some are float32
        if not known or (header.offset and self.scales == (1,)):
            raise UnfitError(f"has the scale {header.scale:g} and the offset {header.offset:g} as tags: {self.need}")
        if file.mask_beside:
            raise UnfitError(f"has its mask in {file.mask_beside}, which is not read: put it into the file")

    def check_values(self, layer: np.ndarray, wanted: np.ndarray | None, header: Header) -> None:
        """Raise UnfitError if the values that are wanted, of (H, W) in the file's type, show it."""
        if np.fmin.reduce(layer, axis=None) >= self.low and np.fmax.reduce(layer, axis=None) <= self.high:
            return
        values = layer.ravel() if wanted is None else layer[wanted]
        values = values[np.isfinite(values) & (values != header.nodata)]
        for beyond, what in ((values < self.low, self.below), (values > self.high, self.above)):
            others = 0
            if self.rarely is not None:
                beyond &= (values >= self.rarely[0]) & (values <= self.rarely[1])
                others = int(np.count_nonzero((values > 0) & ~beyond))
            if np.count_nonzero(beyond) > others:
                typical = np.quantile(values[beyond], 0.5, method="nearest")
                raise UnfitError(f"holds {float(typical):.6g}: {what}? {self.need}")


DN = Promise(
    need="integer DN from 0 to 65535 are needed",
    types="iu",
    instead={"f": "float reflectance", "c": "complex numbers"},
    scales=(1, 0.0001),
    low=0,
    high=65535,
    below="negative reflectance",
    above="another unit",
)
SCL = Promise(
    need="classes from 0 to 11 are needed",
    types="iu",
    instead={"f": "scaled classes"},
    scales=(1,),
    low=0,
    high=11,
    below="scaled classes",
    above="scaled classes",
    palette=True,
)
# Linear gamma0: taking the noise (0.01 and less) off it leaves tiny negatives, never -1; ships and buildings alone
# exceed 100. Decibels lie between -60 and -1 nearly everywhere, amplitudes of 16 bits above 100.
POWER = Promise(
    need="linear power as float is needed",
    types="f",
    instead={"i": "scaled decibels or amplitude", "u": "amplitude", "c": "complex amplitude"},
    scales=(1,),
    low=-1,
    high=100,
    below="decibels",
    above="amplitude",
    rarely=(-60, 65535),
)
