"""d-pixels: what all clear observations of a tile's pixels saw, each with its date."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tessera_cli.extent.grid import AnyTile, tile_name
from tessera_cli.extent.window import Window, day_of_year

if TYPE_CHECKING:
    import xarray as xr

SENSORS = ("s2", "s1_asc", "s1_desc")
"""Sentinel-2 and the orbit directions of Sentinel-1, as arrays, bands, records and plans call them."""
S2_BANDS = ("B04", "B02", "B03", "B08", "B8A", "B05", "B06", "B07", "B11", "B12")
S1_BANDS = ("VV", "VH")


def missing_scenes_text(missing_scenes: Mapping[str, str]) -> str:
    """Holes, scene id -> reason, as a part of one line: a catalogue that has moved may make hundreds."""
    told = [f"{scene}: {why}" for scene, why in sorted(missing_scenes.items())]
    return "; ".join(told[:3]) + (f"; and {len(told) - 3} more" if len(told) > 3 else "")


@dataclass(frozen=True, eq=False)
class DPixels:
    """The d-pixels of one tile and window.

    Frames are in date order, one per UTC date (and orbit). H, W are the tile's size.
    """

    tile: AnyTile
    window: Window | None
    """None: the year is not known, only days of year; the dates are then those of a nominal leap year."""
    s2: np.ndarray
    """uint16 (T, H, W, 10): DN of S2_BANDS, offset removed. Ours are 0 where s2_mask is 0, official folders keep
    what is under the masks."""
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
    source: str | None
    """None: nobody recorded it."""
    preprocessing: str
    scenes: tuple[str, ...] = ()
    """Ids of the scenes listed on the tile, holes included, in the order that decides overlaps."""
    missing_scenes: Mapping[str, str] = field(default_factory=dict)
    """Scene id -> why it could not be read."""
    input_digest: str = ""
    """Digest of what they were made from: equal inputs need no second reading."""

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
        valid = (self.s2_mask != 0, self.s1_asc_valid, self.s1_desc_valid)
        return np.stack([v.sum(axis=0, dtype=np.uint16) for v in valid])

    @property
    def name(self) -> str:
        """`<tile>_<window>`, or the name of an official folder."""
        return tile_name(self.tile, self.window)

    def without_ascending(self) -> DPixels:
        """The same without ascending passes."""
        return dataclasses.replace(self, s1_asc=self.s1_asc[:0], s1_asc_dates=self.s1_asc_dates[:0])

    def embeddable(self, *, min_s2: int, min_s1: int) -> np.ndarray:
        """bool (H, W): requested pixels with enough observations per sensor."""
        s2, s1_asc, s1_desc = self.counts.astype(np.int32)
        return self.requested & (s2 >= min_s2) & (s1_asc + s1_desc >= min_s1)

    def to_xarray(self) -> xr.Dataset:
        """The same arrays with named dimensions, dates and, if the tile has a place, pixel-centre coordinates."""
        import xarray as xr

        coords: dict[str, Any] = {f"{name}_time": dates.astype("datetime64[ns]") for name, dates in self.dates.items()}
        coords |= {"band": list(S2_BANDS), "pol": list(S1_BANDS)}
        if (transform := self.tile.transform) is not None:
            height, width = self.requested.shape
            coords["x"] = transform.c + transform.a * (np.arange(width) + 0.5)
            coords["y"] = transform.f + transform.e * (np.arange(height) + 0.5)
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
            "window": None if self.window is None else self.window.name,
            "source": self.source,
            "preprocessing": self.preprocessing,
            "scenes": list(self.scenes),
            "holes": dict(self.missing_scenes),
            "input_digest": self.input_digest,
        }
        return xr.Dataset(variables, coords=coords, attrs=attrs)
