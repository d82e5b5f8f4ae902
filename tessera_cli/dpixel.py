"""d-pixels: what all clear observations of a tile's pixels saw, each with its date."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tessera_cli.grid import RESOLUTION, Tile
from tessera_cli.window import Window, day_of_year

if TYPE_CHECKING:
    import xarray as xr

SENSORS = ("s2", "s1_asc", "s1_desc")
"""Sentinel-2 and the orbit directions of Sentinel-1, as arrays, bands, records and plans call them."""
S2_BANDS = ("B04", "B02", "B03", "B08", "B8A", "B05", "B06", "B07", "B11", "B12")
S1_BANDS = ("VV", "VH")


@dataclass(frozen=True, eq=False)
class DPixels:
    """The d-pixels of one tile and window.

    Frames are in date order, one per UTC date (and orbit). H, W are the tile's size.
    """

    tile: Tile
    window: Window
    s2: np.ndarray
    """uint16 (T, H, W, 10): DN of S2_BANDS, offset removed; 0 where s2_mask is 0."""
    s2_mask: np.ndarray
    """uint8 (T, H, W): 1 = clear."""
    s2_dates: np.ndarray
    """datetime64[D] (T,)"""
    s1_asc: np.ndarray
    """int16 (Ta, H, W, 2): scaled VV, VH of ascending passes; 0 = missing."""
    s1_asc_dates: np.ndarray
    s1_desc: np.ndarray
    """int16 (Td, H, W, 2): the same of descending passes."""
    s1_desc_dates: np.ndarray
    requested: np.ndarray
    """bool (H, W): the pixels asked for; the other arrays are only defined there."""
    source: str
    preprocessing: str
    scenes: tuple[str, ...] = ()
    """Ids of the scenes listed on the tile, holes included, in the order that decides overlaps."""
    holes: Mapping[str, str] = field(default_factory=dict)
    """Scene id -> why it could not be read."""

    @property
    def dates(self) -> Mapping[str, np.ndarray]:
        """Sensor -> dates of its frames."""
        return dict(zip(SENSORS, (self.s2_dates, self.s1_asc_dates, self.s1_desc_dates), strict=True))

    @functools.cached_property
    def s2_doy(self) -> np.ndarray:
        return day_of_year(self.s2_dates)

    @functools.cached_property
    def s1_asc_doy(self) -> np.ndarray:
        return day_of_year(self.s1_asc_dates)

    @functools.cached_property
    def s1_desc_doy(self) -> np.ndarray:
        return day_of_year(self.s1_desc_dates)

    @functools.cached_property
    def s1_asc_valid(self) -> np.ndarray:
        """bool (Ta, H, W): VV or VH present."""
        return np.asarray(self.s1_asc.any(axis=-1))

    @functools.cached_property
    def s1_desc_valid(self) -> np.ndarray:
        return np.asarray(self.s1_desc.any(axis=-1))

    @functools.cached_property
    def counts(self) -> np.ndarray:
        """uint16 (3, H, W): valid observations per sensor, in the order of SENSORS."""
        valid = (self.s2_mask, self.s1_asc_valid, self.s1_desc_valid)
        return np.stack([v.sum(axis=0, dtype=np.uint16) for v in valid])

    def embeddable(self, *, min_s2: int, min_s1: int) -> np.ndarray:
        """bool (H, W): requested pixels with enough observations per sensor, and at least one of any."""
        s2, s1_asc, s1_desc = self.counts.astype(np.int32)
        s1 = s1_asc + s1_desc
        return self.requested & (s2 >= min_s2) & (s1 >= min_s1) & (s2 + s1 > 0)

    def to_xarray(self) -> xr.Dataset:
        """The same arrays with named dimensions, dates and pixel-centre coordinates."""
        import xarray as xr

        west, _, _, north = self.tile.bounds
        height, width = self.requested.shape
        coords: dict[str, Any] = {
            "s2_time": self.s2_dates.astype("datetime64[ns]"),
            "s1_asc_time": self.s1_asc_dates.astype("datetime64[ns]"),
            "s1_desc_time": self.s1_desc_dates.astype("datetime64[ns]"),
            "y": north - RESOLUTION * (np.arange(height) + 0.5),
            "x": west + RESOLUTION * (np.arange(width) + 0.5),
            "band": list(S2_BANDS),
            "pol": list(S1_BANDS),
        }
        variables = {
            "s2": (("s2_time", "y", "x", "band"), self.s2),
            "s2_mask": (("s2_time", "y", "x"), self.s2_mask),
            "s1_asc": (("s1_asc_time", "y", "x", "pol"), self.s1_asc),
            "s1_desc": (("s1_desc_time", "y", "x", "pol"), self.s1_desc),
            "roi": (("y", "x"), self.requested),
        }
        attrs = {
            "tile": self.tile.id,
            "crs": self.tile.crs,
            "window": self.window.name,
            "source": self.source,
            "preprocessing": self.preprocessing,
            "scenes": list(self.scenes),
        }
        return xr.Dataset(variables, coords=coords, attrs=attrs)
