"""What a Zarr store of d-pixels holds: its arrays, their dimensions and types, and what must agree with what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tessera_cli.dpixels.dpixel import S1_BANDS, S2_BANDS, SENSORS
from tessera_cli.extent.grid import Tile
from tessera_cli.extent.window import MAX_DAYS, Window

SUFFIX = ".zarr"
FORMAT = "tessera d-pixels"
VERSION = 1
CHUNK = 32
"""Side of the inner chunks in pixels."""


class Frames(NamedTuple):
    """An array of frames: (time, y, x), or (time, y, x, band) where the last dimension has names."""

    sensor: str
    dtype: str
    last: str = ""
    names: Sequence[str] = ()

    @property
    def dimensions(self) -> tuple[str, ...]:
        return (f"{self.sensor}_time", "y", "x", self.last)[: 4 if self.last else 3]

    @property
    def attributes(self) -> dict[str, Any]:
        """The names of bands: strings in arrays are not in the specification of Zarr v3."""
        return {f"{self.last}s": list(self.names)} if self.last else {}

    def shape(self, frames: int, tile: Tile) -> tuple[int, ...]:
        return (frames, *tile.shape, len(self.names))[: 4 if self.last else 3]


FRAMES: Mapping[str, Frames] = {
    "s2": Frames("s2", "uint16", "band", S2_BANDS),
    "s2_mask": Frames("s2", "uint8"),
    "s1_asc": Frames("s1_asc", "int16", "pol", S1_BANDS),
    "s1_desc": Frames("s1_desc", "int16", "pol", S1_BANDS),
}
TIMES: Mapping[str, str] = {sensor: f"{sensor}_time" for sensor in SENSORS}
ARRAYS = (*FRAMES, *TIMES.values(), "x", "y", "roi")

TIME_ATTRIBUTES = {"units": "days since 1970-01-01", "calendar": "proleptic_gregorian"}
"""CF conventions: what makes xarray see dates."""
AXIS_ATTRIBUTES = {axis: {"units": "m", "standard_name": f"projection_{axis}_coordinate"} for axis in "xy"}


def centres(tile: Tile) -> dict[str, np.ndarray]:
    """Axis -> pixel centres in metres, float64."""
    height, width = tile.shape
    return {
        "x": tile.transform.c + tile.transform.a * (np.arange(width) + 0.5),
        "y": tile.transform.f + tile.transform.e * (np.arange(height) + 0.5),
    }


def georeference(tile: Tile) -> dict[str, Any]:
    """The attributes that say where a tile lies; a, b, c, d, e, f of pixel corner -> metres."""
    return {"crs": tile.crs, "transform": list(tile.transform)[:6]}


def days_of(dates: np.ndarray) -> np.ndarray:
    """datetime64 (T,) -> int64 days since 1970-01-01."""
    return np.asarray(dates).astype("datetime64[D]").astype(np.int64)


def check_days(sensor: str, days: np.ndarray, window: Window) -> None:
    """ValueError unless frames are in date order, one per date, within the window."""
    first, last = days_of(np.array([window.start, window.end], "datetime64[D]"))
    if days.size and not (first <= days.min() and days.max() <= last):
        raise ValueError(f"{sensor} has frames outside {window.start} to {window.end}")
    if (np.diff(days) <= 0).any():
        raise ValueError(f"the frames of {sensor} are not in date order, one per date")


def check_array(name: str, array: Any, dtype: str, shape: tuple[int, ...]) -> None:
    """ValueError unless an array, of NumPy or Zarr, has this type and shape."""
    if array.dtype != np.dtype(dtype) or array.shape != shape:
        raise ValueError(f"{name} is {array.dtype} {array.shape}, not {dtype} {shape}")


def get_window(name: str) -> Window:
    """ValueError unless `name` is that of a window."""
    window = Window.from_name(name)
    if window.name != name or not 1 <= window.days <= MAX_DAYS:
        raise ValueError(f"{name!r} is not the name of a window")
    return window


def sizes(store: Path, names: Sequence[str]) -> dict[str, int]:
    """Files of these arrays -> bytes. An array of zeros has none."""
    files = [
        file for name in names for file in (store / name).rglob("*") if file.is_file() and file.name != "zarr.json"
    ]
    return {file.relative_to(store).as_posix(): file.stat().st_size for file in sorted(files)}


def check_files(store: Path, names: Sequence[str], recorded: Mapping[str, int]) -> None:
    """ValueError unless the files of these arrays are there with the sizes that were recorded of all arrays."""
    for name in names:
        if not (store / name / "zarr.json").is_file():
            raise ValueError(f"the array {name} is missing")
    due = {file: size for file, size in recorded.items() if file.partition("/")[0] in names}
    found = sizes(store, names)
    for file in sorted({*due, *found}):  # Zarr takes a file that is not there for zeros
        if due.get(file) != found.get(file):
            raise ValueError(f"{file} has {found.get(file, 'no')} bytes, not {due.get(file, 'none')}")
