"""Observations of places from stored d-pixels: of each store only the blocks that hold one of them are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tessera_cli.dpixels import Stored, open_dpixels
from tessera_cli.dpixels.dpixel import SENSORS, DPixels
from tessera_cli.dpixels.zarr_store import CHUNK
from tessera_cli.errors import NothingToEmbedError, UsageError, listed
from tessera_cli.extent.grid import ForeignTile, pixel_positions
from tessera_cli.extent.points import zones_of_points
from tessera_cli.extent.window import Window
from tessera_cli.sampling.draws import hashed
from tessera_cli.sampling.ragged import RaggedPixels, concatenated, no_pixels
from tessera_cli.series.from_dpixels import ragged_series

if TYPE_CHECKING:
    import xarray as xr

NOMINAL = Window.from_name("2024")
"""The year of official tile folders, which know days of year alone."""


def read_places(
    stores: Sequence[Stored],
    lonlat: np.ndarray,
    window: Window | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[RaggedPixels, Window, np.ndarray]:
    """Return the observations of the pixels that hold places, their window, and which places have any.

    Where stores overlap, those of a place's own UTM zone come first, then by name.

    Args:
        stores: What `find_stores` finds.
        lonlat: float64 (N, 2) in degrees; NaN where a place is not known.
        window: Only stores of this window; None: the one that all have.
        progress: Called with the stores done and in all.

    Returns:
        N pixels (without observations where no store has the place), the window, and bool (N,): which places lie on a
        pixel that was asked for in a store.

    Raises:
        UsageError: The stores have several windows, and none is chosen, or none has the one that is.
        NothingToEmbedError: No place lies on a store.
        TileError: A store is damaged.
    """
    chosen, window = _of_window(stores, window)
    found = np.zeros(len(lonlat), bool)
    known = np.flatnonzero(np.isfinite(lonlat).all(axis=1))
    zones = np.zeros(len(lonlat), np.int64)
    zones[known] = zones_of_points([(lon, lat) for lon, lat in lonlat[known].tolist()])
    parts, members = [], []
    turns = [(stored, own) for own in (True, False) for stored in chosen]
    for number, (stored, own) in enumerate(turns):
        open_ = known[~found[known] & ((zones[known] == _epsg(stored)) == own)]
        hit, flat = _pixels_under(stored, lonlat[open_])
        for some, which in _blocks(stored, flat) if len(flat) else ():
            parts.append(some)
            members.append(open_[hit][which])
        found[open_[hit]] = True
        if progress:
            progress(number + 1, len(turns))
    if not found.any():
        raise NothingToEmbedError(
            f"None of {len(lonlat):,} samples lies on the d-pixels of {listed((each.name for each in chosen), 3)}. "
            "Give those of the area of the labels."
        )
    order = np.full(len(lonlat), sum(map(len, parts)))
    order[np.concatenate(members)] = np.arange(sum(map(len, parts)))
    return concatenated([*parts, _nowhere()]).take(order), window, found


def _of_window(stores: Sequence[Stored], window: Window | None) -> tuple[list[Stored], Window]:
    """Return the stores of one window, and it."""
    windows = sorted({each.window or NOMINAL for each in stores})
    names = listed(each.name for each in windows)
    if window is None:
        if len(windows) > 1:
            raise UsageError(f"The d-pixels are of several windows: {names}. Choose one with --window or --year.")
        (window,) = windows
    chosen = [each for each in stores if (each.window or NOMINAL) == window]
    if not chosen:
        raise UsageError(f"There are no d-pixels of {window}, but of {names}. Choose one of these.")
    return chosen, window


def _epsg(stored: Stored) -> int:
    crs = stored.tile.crs or ""
    return int(crs.removeprefix("EPSG:")) if crs.startswith("EPSG:") else 0


def _pixels_under(stored: Stored, lonlat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return which places lie on a pixel that was asked for, int64 (M,), and the flat numbers of these pixels."""
    from pyproj import Transformer

    tile = stored.tile
    if tile.transform is None or tile.crs is None or not len(lonlat):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    west, south, east, north = tile.outline.bounds
    lon, lat = lonlat.T
    margin = 0.1  # degrees: far from a zone its projection has no place, or a wrong one
    near = np.flatnonzero(
        ((lon - west + margin) % 360 <= east - west + 2 * margin)
        & (np.abs(lat - (south + north) / 2) <= (north - south) / 2 + margin)
    )
    x, y = Transformer.from_crs(4326, tile.crs, always_xy=True).transform(lon[near], lat[near])
    height, width = tile.shape
    columns = np.floor((x - tile.transform.c) / tile.transform.a)
    rows = np.floor((y - tile.transform.f) / tile.transform.e)
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    hit = near[inside]
    flat = (rows[inside] * width + columns[inside]).astype(np.int64)
    asked = stored.pixels.reshape(-1)[flat]
    return hit[asked], flat[asked]


def _blocks(stored: Stored, flat: np.ndarray) -> Iterator[tuple[RaggedPixels, np.ndarray]]:
    """Yield observations of the pixels with these flat numbers, block by block, and their positions among them."""
    if stored.error is not None:
        raise stored.error
    dataset = open_dpixels(stored.path)
    height, width = stored.tile.shape
    rows, columns = np.divmod(flat, width)
    block = (rows // CHUNK) * (-(-width // CHUNK)) + columns // CHUNK
    order = np.argsort(block, kind="stable")
    for which in np.split(order, np.flatnonzero(np.diff(block[order])) + 1):
        top, left = (int(each[which[0]] // CHUNK * CHUNK) for each in (rows, columns))
        some = _read(stored, dataset, slice(top, min(top + CHUNK, height)), slice(left, min(left + CHUNK, width)))
        inner = (rows[which] - top) * some.requested.shape[1] + columns[which] - left
        places = pixel_positions(stored.tile, flat[which])
        keys = hashed(0, *places.T)
        index = np.zeros(len(which), np.int32)
        yield RaggedPixels(*ragged_series(some, inner), keys, places.astype(np.int32), index), which


def _read(stored: Stored, dataset: xr.Dataset, y: slice, x: slice) -> DPixels:
    """Return a block of a tile; its place stays behind."""
    shape = (y.stop - y.start, x.stop - x.start)
    dates: dict[str, Any] = {
        f"{sensor}_dates": dataset[f"{sensor}_time"].values.astype("datetime64[D]") for sensor in SENSORS
    }
    arrays: dict[str, Any] = {name: dataset[name][:, y, x].values for name in ("s2", "s2_mask", "s1_asc", "s1_desc")}
    return DPixels(
        tile=ForeignTile("block", shape),
        window=stored.window,
        **arrays,
        **dates,
        requested=np.ones(shape, bool),
        source=stored.source,
        preprocessing=stored.preprocessing,
    )


def _nowhere() -> RaggedPixels:
    """Return one pixel without observations, for places that no store has."""
    none = no_pixels()
    starts = np.zeros(2, np.int64)
    s2, s1 = (type(each)(each.values, each.doy, each.streams, starts) for each in (none.s2, none.s1))
    return RaggedPixels(s2, s1, np.zeros(1, np.uint64), np.zeros((1, 3), np.int32), np.zeros(1, np.int32))
