"""d-pixels: all observations of a tile's pixels in a window, each with its date."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tessera_cli.extent.grid import AnyTile, ForeignTile, pixel_positions, tile_name
from tessera_cli.extent.window import Window, day_of_year

if TYPE_CHECKING:
    import xarray as xr

SENSORS = ("s2", "s1_asc", "s1_desc")
"""Sentinel-2 and the orbit directions of Sentinel-1, as arrays, bands, records and plans call them."""
S2_BANDS = ("B04", "B02", "B03", "B08", "B8A", "B05", "B06", "B07", "B11", "B12")
S1_BANDS = ("VV", "VH")


def missing_scenes_text(missing_scenes: Mapping[str, str]) -> str:
    """Return missing scenes (id -> reason) as a part of one line; the first three are named, the others counted."""
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
    """None if unknown."""
    preprocessing: str
    scenes: tuple[str, ...] = ()
    """Ids of the scenes listed on the tile, missing ones included, in the order that decides overlaps."""
    missing_scenes: Mapping[str, str] = field(default_factory=dict)
    """Scene id -> why it could not be read."""
    input_digest: str = ""
    """Digest of what they were made from."""

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

    def positions(self, numbers: np.ndarray) -> np.ndarray:
        """Return int64 (N, 3): EPSG code, easting and northing of the pixels with these flat numbers, int (N,)."""
        return pixel_positions(self.tile, numbers)

    def row(self, numbers: np.ndarray) -> DPixels:
        """Return the pixels with these flat numbers, int (N,), side by side without their place: H = 1, W = N."""

        def some(frames: np.ndarray) -> np.ndarray:
            flat = frames.reshape(len(frames), self.requested.size, *frames.shape[3:])
            return flat[:, numbers][:, None]

        return dataclasses.replace(
            self,
            tile=ForeignTile(self.tile.id, (1, len(numbers))),
            requested=self.requested.reshape(-1)[numbers][None],
            s2=some(self.s2),
            s2_mask=some(self.s2_mask),
            s1_asc=some(self.s1_asc),
            s1_desc=some(self.s1_desc),
        )

    def without_ascending(self) -> DPixels:
        """Return a copy without ascending passes."""
        return dataclasses.replace(self, s1_asc=self.s1_asc[:0], s1_asc_dates=self.s1_asc_dates[:0])

    def embeddable(self, *, min_s2: int, min_s1: int) -> np.ndarray:
        """Return bool (H, W): requested pixels with enough observations per sensor."""
        s2, s1_asc, s1_desc = self.counts.astype(np.int32)
        return self.requested & (s2 >= min_s2) & (s1_asc + s1_desc >= min_s1)

    def to_xarray(self) -> xr.Dataset:
        """Return a Dataset of the same arrays with named bands, dates and, where it is known, the place on Earth.

        Variables: s2 (s2_time, y, x, band), s2_mask (s2_time, y, x), s1_asc and s1_desc (their time, y, x, pol), and
        roi (y, x), the requested pixels. Coordinates: dates as datetime64[ns], band, pol, pixel centres y and x, and
        spatial_ref, from which `.odc.crs` and `.rio.crs` read the CRS. Attributes say what the d-pixels were made from.
        """
        arrays = {name: self.requested if name == "roi" else getattr(self, name) for name in ARRAYS}
        attrs = {
            **georeference(self.tile),
            "window": None if self.window is None else self.window.name,
            "source": self.source,
            "preprocessing": self.preprocessing,
            "scenes": list(self.scenes),
            "holes": dict(self.missing_scenes),
            "input_digest": self.input_digest,
        }
        return to_dataset(arrays, self.dates, self.tile, attrs)


ARRAYS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "s2": ("uint16", ("s2_time", "y", "x", "band")),
    "s2_mask": ("uint8", ("s2_time", "y", "x")),
    "s1_asc": ("int16", ("s1_asc_time", "y", "x", "pol")),
    "s1_desc": ("int16", ("s1_desc_time", "y", "x", "pol")),
    "roi": ("bool", ("y", "x")),
}
"""Types and dimensions of the arrays of a dataset; roi is what DPixels calls requested."""


def georeference(tile: AnyTile) -> dict[str, Any]:
    """Return the attributes that say where a tile lies; `transform` is a, b, c, d, e, f of pixel corner -> metres."""
    transform = None if tile.transform is None else list(tile.transform)[:6]
    return {"tile": tile.id, "crs": tile.crs, "transform": transform}


def to_dataset(
    arrays: Mapping[str, Any], dates: Mapping[str, np.ndarray], tile: AnyTile, attrs: Mapping[str, Any]
) -> xr.Dataset:
    """Name the dimensions and coordinates of ARRAYS: NumPy arrays, or lazy variables, which stay so.

    ValueError where they have other types or do not fit together.
    """
    import xarray as xr
    from odc.geo.geobox import GeoBox
    from odc.geo.xr import xr_coords

    for name, (dtype, _) in ARRAYS.items():
        if arrays[name].dtype != dtype:
            raise ValueError(f"{name} is {arrays[name].dtype}, not {dtype}")
    coords: dict[Any, Any] = {f"{sensor}_time": days.astype("datetime64[ns]") for sensor, days in dates.items()}
    coords |= {"band": list(S2_BANDS), "pol": list(S1_BANDS)}
    if tile.transform is not None:
        coords |= xr_coords(GeoBox(arrays["roi"].shape, tile.transform, tile.crs), dims=("y", "x"))
    return xr.Dataset({name: (dims, arrays[name]) for name, (_, dims) in ARRAYS.items()}, coords, attrs)
