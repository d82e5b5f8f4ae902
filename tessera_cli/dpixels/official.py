"""Tile folders of the official code, read and written: seven `.npy` files and `roi.tiff`.

The official code takes files that are absent or broken for a sensor that saw nothing; here they are errors.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.lib.format as npy
import rasterio
from affine import Affine
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import MemoryFile

from tessera_cli.dpixels.dpixel import S1_BANDS, S2_BANDS, SENSORS, DPixels
from tessera_cli.dpixels.stored import Stored
from tessera_cli.errors import TileError, UsageError, reason
from tessera_cli.extent.grid import ForeignTile, pack_mask
from tessera_cli.files import atomic_directory

logger = logging.getLogger(__name__)

PREPROCESSING = "official"
ROI = "roi.tiff"
NOMINAL_YEAR = np.datetime64("2024-01-01")
"""A leap year, so that every day of year 1..366 is a date."""


class _Sensor(NamedTuple):
    frames: str
    days: str
    bands: int
    dtype: str
    days_dtype: str


_S2 = _Sensor("bands.npy", "doys.npy", len(S2_BANDS), "uint16", "uint16")
_ASC = _Sensor("sar_ascending.npy", "sar_ascending_doy.npy", len(S1_BANDS), "int16", "int16")
_DESC = _Sensor("sar_descending.npy", "sar_descending_doy.npy", len(S1_BANDS), "int16", "int16")
_SENSORS = (_S2, _ASC, _DESC)
_MASKS = "masks.npy"
_ARRAYS = (_MASKS, *(name for sensor in _SENSORS for name in (sensor.frames, sensor.days)))


@dataclass(frozen=True, eq=False)
class _Roi:
    """What `roi.tiff` says."""

    requested: np.ndarray
    crs: str | None
    transform: Affine | None


def is_folder(path: Path) -> bool:
    """Whether a folder holds any array of the layout."""
    return any((path / name).is_file() for name in _ARRAYS)


def describe_folder(path: Path) -> Stored:
    """What a folder holds, from `roi.tiff` and the headers of its arrays. Errors as those of `read_folder`."""
    height, width = _size(path)
    roi = _roi(path, (height, width))
    return Stored(
        path=path,
        tile=ForeignTile(path.absolute().name, (height, width), roi.crs, roi.transform),
        window=None,
        source=None,
        preprocessing=PREPROCESSING,
        packed=pack_mask(roi.requested),
        input_digest=_digest(path),
        load=read_folder,
        load_dates=_read_dates,
    )


def read_folder(path: Path) -> DPixels:
    """The d-pixels of an official tile folder, with the dates of a leap year, and what lies under masks as it is.

    All pixels are requested where there is no `roi.tiff`. UsageError where the folder is of another kind, TileError
    where a file is missing, damaged, or does not fit the others.
    """
    stored = describe_folder(path)
    masks = _load(path / _MASKS)
    if ((masks != 0) & (masks != 1)).any():
        logger.warning("%s: %s holds other values than 0 and 1; whatever is not 0 is taken for clear", path, _MASKS)
    return DPixels(
        tile=stored.tile,
        window=None,
        s2=_load(path / _S2.frames),
        s2_mask=(masks != 0).astype(np.uint8),
        s2_dates=_dates(path / _S2.days),
        s1_asc=_load(path / _ASC.frames),
        s1_asc_dates=_dates(path / _ASC.days),
        s1_desc=_load(path / _DESC.frames),
        s1_desc_dates=_dates(path / _DESC.days),
        requested=stored.pixels,
        source=None,
        preprocessing=PREPROCESSING,
        input_digest=stored.input_digest,
    )


def write_folder(folder: Path, dpixels: DPixels, *, look: Callable[[Path], None] = lambda part: None) -> Path:
    """Write `<folder>/<name>`, whole or not at all, and return it; an older one is replaced, other files never.

    `look` is told of the finished folder before it takes its place, where others might replace it at once.
    ValueError for arrays of other types. UsageError where files that are none of ours are in the way; UsageError,
    DiskFullError or TileError where the disk does not take them.
    """
    path = folder / dpixels.name
    strange = sorted(found.name for found in path.glob("*") if found.name not in (*_ARRAYS, ROI))
    if strange:
        raise UsageError(
            f"{path} cannot be written: it holds files of another kind ({strange[0]}). Remove them, or choose another "
            "--out."
        )
    arrays: Mapping[str, np.ndarray] = {
        _MASKS: dpixels.s2_mask,
        _S2.frames: dpixels.s2,
        _S2.days: dpixels.s2_doy.astype(_S2.days_dtype),
        _ASC.frames: dpixels.s1_asc,
        _ASC.days: dpixels.s1_asc_doy.astype(_ASC.days_dtype),
        _DESC.frames: dpixels.s1_desc,
        _DESC.days: dpixels.s1_desc_doy.astype(_DESC.days_dtype),
    }
    for name, dtype in ((_MASKS, "uint8"), *((sensor.frames, sensor.dtype) for sensor in _SENSORS)):
        if arrays[name].dtype != dtype:
            raise ValueError(f"{name} is {dtype}, not {arrays[name].dtype}")
    with atomic_directory(path) as part:
        for name, array in arrays.items():
            with (part / name).open("xb") as file:
                npy.write_array_header_1_0(file, npy.header_data_from_array_1_0(np.ascontiguousarray(array)))
                file.write(np.ascontiguousarray(array).data)  # npy.write_array hides why the disk does not take them
        (part / ROI).write_bytes(_encode_roi(dpixels))
        look(part)
    return path


def _size(path: Path) -> tuple[int, int]:
    """H, W, after comparing the headers of all arrays with the layout and with each other."""
    if not is_folder(path):
        why = f"it has no {_S2.frames}" if path.is_dir() else "there is no such folder"
        raise UsageError(f"{path} is not an official tile folder: {why}. Give a folder of seven .npy files.")
    shape = _map(path / _S2.frames).shape
    if len(shape) != 4 or 0 in shape[1:3]:
        raise _unfit(path / _S2.frames, f"it has the shape {shape}, not (T, H, W, {_S2.bands})")
    size: tuple[int, int] = shape[1:3]
    for sensor in _SENSORS:
        frames, days = _map(path / sensor.frames), _map(path / sensor.days)
        if frames.dtype != sensor.dtype:
            raise _unfit(path / sensor.frames, f"it holds {frames.dtype}, not {sensor.dtype}")
        if frames.shape[1:] != (*size, sensor.bands):
            raise _unfit(
                path / sensor.frames, f"it has the shape {frames.shape}, not (T, {size[0]}, {size[1]}, {sensor.bands})"
            )
        if days.dtype.kind not in "iu":
            raise _unfit(path / sensor.days, f"it holds {days.dtype}, not integers")
        if days.shape != frames.shape[:1]:
            raise _unfit(
                path / sensor.days, f"it has the shape {days.shape}, not ({len(frames)},), one day for each frame"
            )
    masks = _map(path / _MASKS)
    if masks.dtype.kind not in "iub":
        raise _unfit(path / _MASKS, f"it holds {masks.dtype}, not integers")
    if masks.shape != shape[:3]:
        raise _unfit(path / _MASKS, f"it has the shape {masks.shape}, not {shape[:3]}")
    return size


def _map(path: Path) -> np.ndarray:
    """The array of a file, of which no more than the header is read; a file that is too short is found, too."""
    try:
        return npy.open_memmap(path, mode="r")
    except FileNotFoundError as error:
        raise TileError(
            f"{path} is missing: all seven arrays are needed. Make the folder again; a sensor that saw nothing is an "
            "array of 0 frames."
        ) from error
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _load(path: Path) -> np.ndarray:
    """The values in C order, read straight into memory: those of a tile come to a gigabyte."""
    try:
        with path.open("rb") as file:
            return np.ascontiguousarray(npy.read_array(file, allow_pickle=False))
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def _read_dates(path: Path) -> Mapping[str, np.ndarray]:
    return {name: _dates(path / sensor.days) for name, sensor in zip(SENSORS, _SENSORS, strict=True)}


def _dates(path: Path) -> np.ndarray:
    """Days of year -> datetime64[D] (T,) of the nominal year."""
    days = _load(path).astype(np.int64)
    if days.size and not (days.min() >= 1 and days.max() <= 366):
        raise _unfit(path, "it holds days outside 1 to 366")
    return NOMINAL_YEAR + (days - 1).astype("timedelta64[D]")


def _roi(path: Path, size: tuple[int, int]) -> _Roi:
    file = path / ROI
    if not file.is_file():
        return _Roi(np.ones(size, bool), None, None)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(file) as dataset:
                crs, transform, shape, roi = dataset.crs, dataset.transform, dataset.shape, dataset.read(1)
    except RasterioError as error:
        raise TileError(
            f"{file} cannot be read as a raster: {error}. Repair it, or remove it to take all pixels."
        ) from error
    if shape != size:
        raise _unfit(file, f"it has {shape[0]} x {shape[1]} pixels, the arrays {size[0]} x {size[1]}")
    if not crs or transform.is_identity:
        return _Roi(roi != 0, None, None)
    if not (transform.b == transform.d == 0 and transform.a > 0 > transform.e):
        raise _unfit(file, "it is not north up")
    code = crs.to_epsg()
    return _Roi(roi != 0, f"EPSG:{code}" if code else crs.to_wkt(), transform)


def _encode_roi(dpixels: DPixels) -> bytes:
    """`roi.tiff`: uint8, 1 where requested."""
    height, width = dpixels.requested.shape
    with warnings.catch_warnings(), MemoryFile() as memory:
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with memory.open(
            driver="GTiff",
            count=1,
            height=height,
            width=width,
            dtype="uint8",
            compress="lzw",
            crs=dpixels.tile.crs,
            transform=dpixels.tile.transform,
        ) as dataset:
            dataset.write(dpixels.requested.astype(np.uint8), 1)
        return bytes(memory.getbuffer())


def _digest(path: Path) -> str:
    """SHA-256 of names, sizes and times of change: the contents would take minutes for many folders."""
    digest = hashlib.sha256()
    for name in sorted((*_ARRAYS, ROI)):
        if (path / name).is_file():
            status = (path / name).stat()
            digest.update(f"{name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _unfit(file: Path, why: str) -> TileError:
    return TileError(f"{file} does not fit the official layout: {why}. Make the folder again.")


def _unreadable(file: Path, error: Exception) -> TileError:
    return TileError(f"{file} cannot be read as a NumPy array: {reason(error)}. Make the folder again.")
