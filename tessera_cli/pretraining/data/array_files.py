"""Pixels as a folder of plain `.npy` arrays, which are mapped into memory, and as records appended to one file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from operator import attrgetter
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.lib.format as npy

from tessera_cli.arrays import map_array
from tessera_cli.dpixels.dpixel import S1_BANDS, S2_BANDS
from tessera_cli.sampling import Modality
from tessera_cli.sampling.ragged import STREAMS, RaggedPixels, RaggedSeries, concatenated


class _Array(NamedTuple):
    attribute: str
    """Of `RaggedPixels`."""
    dtype: str
    per: str
    """Unit of the rows: pixel, start (one more than pixels), or observation of s2 or s1."""
    columns: tuple[int, ...] = ()


ARRAYS: Mapping[str, _Array] = {
    "s2": _Array("s2.values", "<u2", "s2", (len(S2_BANDS),)),
    "s2_doy": _Array("s2.doy", "<u2", "s2"),
    "s2_starts": _Array("s2.starts", "<i8", "start"),
    "s1": _Array("s1.values", "<i2", "s1", (len(S1_BANDS),)),
    "s1_doy": _Array("s1.doy", "<u2", "s1"),
    "s1_streams": _Array("s1.streams", "|u1", "s1"),
    "s1_starts": _Array("s1.starts", "<i8", "start"),
    "keys": _Array("keys", "<u8", "pixel"),
    "places": _Array("places", "<i4", "pixel", (3,)),
    "origins": _Array("tile_index", "<i4", "pixel"),
}
"""By file name. Sentinel-2 is one stream, so its stream numbers are not stored."""


def write_pixels(
    folder: Path, parts: Iterable[RaggedPixels], *, pixels: int, observations: Mapping[Modality, int]
) -> None:
    """Write the arrays of all parts into a new folder, one part in memory at a time, given the totals of all parts."""
    folder.mkdir()
    rows = {"pixel": pixels, "start": pixels + 1, "s2": observations["s2"], "s1": observations["s1"]}
    ends = {"s2_starts": np.zeros(1, np.int64), "s1_starts": np.zeros(1, np.int64)}
    with ExitStack() as stack:
        files = {name: stack.enter_context((folder / f"{name}.npy").open("xb")) for name in ARRAYS}
        for name, array in ARRAYS.items():
            _write_header(files[name], name, (rows[array.per], *array.columns))
        for name, first in ends.items():
            _write(files[name], first)
        for part in parts:
            for name, values in _arrays_of(part).items():
                if name in ends:
                    values = values[1:] + ends[name][-1]
                    ends[name] = values[-1:] if len(values) else ends[name]
                _write(files[name], values)


def open_pixels(folder: Path, tiles: int, *, verify: bool) -> RaggedPixels:
    """Map the arrays of a folder; ValueError if they do not fit each other or, with `verify`, hold impossible numbers.

    `tiles`: the number of d-pixels that the pixels came from.
    """
    files = {name: folder / f"{name}.npy" for name in ARRAYS}
    arrays = {name: np.asarray(map_array(file)) for name, file in files.items()}
    pixels = len(arrays["keys"])
    rows = {"pixel": pixels, "start": pixels + 1, "s2": len(arrays["s2_doy"]), "s1": len(arrays["s1_doy"])}
    for name, (_, dtype, per, columns) in ARRAYS.items():
        array, shape = arrays[name], (rows[per], *columns)
        if array.dtype != np.dtype(dtype) or array.shape != shape:
            raise ValueError(f"{folder.name}/{name}.npy is {array.dtype} {array.shape}, not {np.dtype(dtype)} {shape}")
    for sensor in STREAMS:
        starts = arrays[f"{sensor}_starts"]
        if starts[0] != 0 or starts[-1] != rows[sensor] or (np.diff(starts) < 0).any():
            raise ValueError(f"{folder.name}/{sensor}_starts.npy does not rise from 0 to {rows[sensor]}")
    if verify:
        limits = {"s2_doy": (1, 366), "s1_doy": (1, 366), "s1_streams": (0, 1), "origins": (0, tiles - 1)}
        for name, (low, high) in limits.items():
            if pixels and len(arrays[name]) and not low <= arrays[name].min() <= arrays[name].max() <= high:
                raise ValueError(f"{folder.name}/{name}.npy holds numbers outside {low} to {high}")
    return _pixels_of(arrays)


def append_pixels(file: BinaryIO, part: RaggedPixels) -> None:
    """Append pixels to a file for `appended_pixels`."""
    for name, values in _arrays_of(part).items():
        _write_header(file, name, values.shape)
        _write(file, values)


def appended_pixels(path: Path) -> RaggedPixels:
    """Read all pixels of a file, in the order in which they were appended."""
    parts = []
    with path.open("rb") as file:
        while file.tell() < path.stat().st_size:
            parts.append(_pixels_of({name: npy.read_array(file, allow_pickle=False) for name in ARRAYS}))
    return concatenated(parts)


def _arrays_of(part: RaggedPixels) -> dict[str, np.ndarray]:
    return {name: attrgetter(array.attribute)(part) for name, array in ARRAYS.items()}


def _pixels_of(arrays: Mapping[str, np.ndarray]) -> RaggedPixels:
    one_stream = np.broadcast_to(np.uint8(0), arrays["s2_doy"].shape)
    s2 = RaggedSeries(arrays["s2"], arrays["s2_doy"], one_stream, arrays["s2_starts"])
    s1 = RaggedSeries(*(arrays[name] for name in ("s1", "s1_doy", "s1_streams", "s1_starts")))
    return RaggedPixels(s2, s1, *(arrays[name] for name in ("keys", "places", "origins")))


def _write_header(file: BinaryIO, name: str, shape: tuple[int, ...]) -> None:
    npy.write_array_header_1_0(file, {"descr": ARRAYS[name].dtype, "fortran_order": False, "shape": shape})


def _write(file: BinaryIO, values: np.ndarray) -> None:
    file.write(np.ascontiguousarray(values).data)  # npy.write_array hides why a disk refuses to write
