"""Tile folders of the official code, read and written: seven `.npy` files and `roi.tiff`.

The official code takes files that are absent or broken for a sensor without observations; here they are errors.
"""

from __future__ import annotations

import hashlib
import logging
import math
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.lib.format as npy
from affine import Affine
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import MemoryFile

from tessera_cli.arrays import map_array, read_array, read_layout
from tessera_cli.dpixels.dpixel import ARRAYS, S1_BANDS, S2_BANDS, DPixels
from tessera_cli.dpixels.stored import Stored
from tessera_cli.errors import TileError, UsageError, plainly, reason
from tessera_cli.extent.grid import MAX_PIXELS, ForeignTile, pack_mask
from tessera_cli.files import atomic_directory
from tessera_cli.reading import MB, is_special, read_file

logger = logging.getLogger(__name__)

T = TypeVar("T")
PREPROCESSING = "official"
MAX_FRAMES = 4096
"""Of a sensor: more than one for each orbit and date."""
ROI = "roi.tiff"
MAX_ROI, MAX_BANDS = 600 * MB, 16
"""Bytes and bands of `roi.tiff`: a float64 of MAX_PIXELS."""
NOMINAL_YEAR = np.datetime64("2024-01-01")
"""A leap year, so that every day of year 1..366 is a date."""


class _Sensor(NamedTuple):
    frames: str
    days: str
    bands: int
    days_dtype: str


_SENSORS = {
    "s2": _Sensor("bands.npy", "doys.npy", len(S2_BANDS), "uint16"),
    "s1_asc": _Sensor("sar_ascending.npy", "sar_ascending_doy.npy", len(S1_BANDS), "int16"),
    "s1_desc": _Sensor("sar_descending.npy", "sar_descending_doy.npy", len(S1_BANDS), "int16"),
}
_MASKS = "masks.npy"
_OBSERVATIONS = {"s2_mask": _MASKS, **{sensor: files.frames for sensor, files in _SENSORS.items()}}
_FILES = (*_OBSERVATIONS.values(), *(files.days for files in _SENSORS.values()))
FILES = (*_FILES, ROI)
"""All files of a tile folder that is written here."""


def is_folder(path: Path) -> bool:
    """Return whether a folder holds any array of the layout."""
    return any((path / name).is_file() or is_special(path / name) for name in _FILES)


def describe_folder(path: Path) -> Stored:
    """Return what a folder holds, from `roi.tiff` and the headers of its arrays. Errors as those of `read_folder`."""
    size = _size(path)
    requested, crs, transform = _read_roi(path / ROI, size)
    return Stored(
        path=path,
        tile=ForeignTile(path.absolute().name, size, crs, transform),
        window=None,
        source=None,
        preprocessing=PREPROCESSING,
        packed=pack_mask(requested),
        input_digest=_digest(path),
        load=read_folder,
        load_dates=_read_dates,
    )


def read_folder(path: Path, *, lazy: bool = False) -> DPixels:
    """Return the d-pixels of an official tile folder, with dates of a leap year. What lies under masks is kept.

    All pixels are requested where there is no `roi.tiff`. With `lazy`, bands and radar are memory maps of the files.
    UsageError where the folder is of another kind, TileError where a file is missing, damaged or misfits the others.
    """
    number = _number(path)
    stored = describe_folder(path)
    masks = _load(path / _MASKS)
    if ((masks != 0) & (masks != 1)).any():
        logger.warning("%s: %s holds other values than 0 and 1; whatever is not 0 is taken for clear", path, _MASKS)
    arrays: dict[str, Any] = {sensor: _load(path / files.frames, lazy=lazy) for sensor, files in _SENSORS.items()}
    arrays |= {f"{sensor}_dates": dates for sensor, dates in _read_dates(path).items()}
    if _number(path) != number:  # what was read may be of both
        raise TileError(f"{path} was replaced while it was read: another run has written it. Run again.")
    return DPixels(
        tile=stored.tile,
        window=None,
        s2_mask=(masks != 0).astype(np.uint8),
        **arrays,
        requested=stored.pixels,
        source=None,
        preprocessing=PREPROCESSING,
        input_digest=stored.input_digest,
    )


def write_folder(folder: Path, dpixels: DPixels, *, look: Callable[[Path], None] = lambda part: None) -> Path:
    """Write `<folder>/<name>`, whole or not at all, and return it; an older one is replaced, other files never.

    `look` is called with the finished folder before it is renamed, where other runs might replace it at once.
    ValueError for arrays of other types. UsageError where other files are in the way; UsageError, DiskFullError or
    TileError where the disk does not take them.
    """
    path = folder / dpixels.name
    check_replaceable(path)
    arrays: dict[str, np.ndarray] = {}
    for name, file in _OBSERVATIONS.items():
        arrays[file] = getattr(dpixels, name)
        if arrays[file].dtype != ARRAYS[name][0]:
            raise ValueError(f"{name} is {arrays[file].dtype}, not {ARRAYS[name][0]}")
    for sensor, files in _SENSORS.items():
        arrays[files.days] = getattr(dpixels, f"{sensor}_doy").astype(files.days_dtype)
    with atomic_directory(path) as part:
        for name, array in arrays.items():
            with (part / name).open("xb") as opened:
                npy.write_array_header_1_0(opened, npy.header_data_from_array_1_0(np.ascontiguousarray(array)))
                opened.write(np.ascontiguousarray(array).data)  # npy.write_array hides why the disk does not take them
        (part / ROI).write_bytes(_encode_roi(dpixels))
        look(part)
    return path


def _number(path: Path) -> int | None:
    """Return the number by which the system knows a folder, and no other that takes its place; None without one."""
    with suppress(OSError):
        return path.stat().st_ino
    return None


def shape_of_folder(path: Path) -> tuple[int, int]:
    """Return H, W of the first array of frames that can be read, of a folder that is damaged; 1, 1 without any."""
    for file in _OBSERVATIONS.values():
        with suppress(TileError):
            shape = _opened(path / file, read_layout).shape
            if len(shape) in (3, 4) and 0 < shape[1] * shape[2] <= MAX_PIXELS:
                return shape[1], shape[2]
    return 1, 1


def check_replaceable(path: Path) -> None:
    """Raise UsageError if a folder holds other files than those of the layout."""
    strange = sorted(found.name for found in path.glob("*") if found.name not in FILES)
    if strange:
        raise UsageError(
            f"{path} cannot be written: it holds files of another kind ({strange[0]}). Remove them, or choose another "
            "--out."
        )


def _size(path: Path) -> tuple[int, int]:
    """Return H, W, after comparing the headers of all arrays with the layout and with each other."""
    if not is_folder(path):
        why = f"it has no {_SENSORS['s2'].frames}" if path.is_dir() else "there is no such folder"
        raise UsageError(f"{path} is not an official tile folder: {why}. Give a folder of seven .npy files.")
    bands = path / _SENSORS["s2"].frames
    frames, height, width, _ = _shape(bands, ARRAYS["s2"][0], ("T", "H", "W", len(S2_BANDS)))
    if 0 in (height, width):
        raise _unfit(bands, "it has no pixels")
    if height * width > MAX_PIXELS:
        raise _unfit(bands, f"it has {height * width:,} pixels, and at most {MAX_PIXELS:,} are read")
    _shape(path / _MASKS, "integers", (frames, height, width))
    for sensor, files in _SENSORS.items():
        frames = _shape(path / files.frames, ARRAYS[sensor][0], ("T", height, width, files.bands))[0]
        _shape(path / files.days, "integers", (frames,), ", one day for each frame")
    return height, width


def _shape(file: Path, dtype: str, due: tuple[int | str, ...], remark: str = "") -> tuple[int, ...]:
    """Return the shape of an array; TileError unless it has this type and shape, where a letter is any number."""
    array = _opened(file, read_layout)
    if not (array.dtype.kind in "iub" if dtype == "integers" else array.dtype == dtype):
        raise _unfit(file, f"it holds {array.dtype}, not {dtype}")
    if len(array.shape) != len(due) or any(b not in (a, "T", "H", "W") for a, b in zip(array.shape, due, strict=True)):
        raise _unfit(file, f"it has the shape {array.shape}, not {due}{remark}".replace("'", ""))
    if "T" in due and array.shape[0] > MAX_FRAMES:
        raise _unfit(file, f"it has {array.shape[0]:,} frames, and at most {MAX_FRAMES:,} are read")
    return array.shape


def _load(file: Path, *, lazy: bool = False) -> np.ndarray:
    """Return the values in C order, read straight into memory, or, if lazy, the file mapped after its header was read.

    TileError where it is missing, cut or no array.
    """
    return _opened(file, map_array if lazy else read_array)


def _opened(file: Path, use: Callable[[Path], T]) -> T:
    try:
        return use(file)
    except FileNotFoundError as error:
        raise TileError(
            f"{file} is missing: all seven arrays are needed. Make the folder again; a sensor without observations is "
            "an array of 0 frames."
        ) from error
    except (OSError, ValueError) as error:
        why = plainly(error)
        raise TileError(f"{file} cannot be read as a NumPy array: {why}. Make the folder again.") from error


def _read_dates(path: Path) -> Mapping[str, np.ndarray]:
    """Return sensor -> datetime64[D] (T,) of the nominal year."""
    dates = {}
    for sensor, files in _SENSORS.items():
        days = _load(path / files.days).astype(np.int64)
        if days.size and not (days.min() >= 1 and days.max() <= 366):
            raise _unfit(path / files.days, "it holds days outside 1 to 366")
        dates[sensor] = NOMINAL_YEAR + (days - 1).astype("timedelta64[D]")
    return dates


def _read_roi(file: Path, size: tuple[int, int]) -> tuple[np.ndarray, str | None, Affine | None]:
    """Return the requested pixels, bool (H, W), CRS and transform; all pixels where there is no file."""
    try:
        data = read_file(file, MAX_ROI)
    except FileNotFoundError:
        return np.ones(size, bool), None, None
    except OSError as error:
        raise _unreadable(file, error.strerror or reason(error)) from error
    try:
        with warnings.catch_warnings(), MemoryFile(data) as memory:
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            # Nothing but the bytes of a GeoTIFF: other formats name further files, here or on the web.
            with memory.open(driver="GTiff") as dataset:
                crs, transform, shape = dataset.crs, dataset.transform, dataset.shape
                if shape != size:
                    raise _unfit(file, f"it has {shape[0]} x {shape[1]} pixels, the arrays {size[0]} x {size[1]}")
                if max(map(math.prod, dataset.block_shapes)) > MAX_PIXELS or dataset.count > MAX_BANDS:
                    raise _unfit(file, "its blocks or bands are too many to be those of a mask")
                roi = dataset.read(1)
    except RasterioError as error:
        raise _unreadable(file, reason(error)) from error
    if not np.isfinite(transform).all():
        raise _unfit(file, "its place is not finite")
    if not crs or transform.is_identity:
        return roi != 0, None, None
    if not (transform.b == transform.d == 0 and transform.a > 0 > transform.e):
        raise _unfit(file, "it is not north up")
    try:
        if not (crs.is_projected or crs.is_geographic):
            raise _unfit(file, "its coordinate system is neither projected nor geographic")
        code, wkt = crs.to_epsg(), crs.to_wkt()
    except RasterioError as error:
        raise _unreadable(file, reason(error)) from error
    return roi != 0, f"EPSG:{code}" if code else wkt, transform


def _unreadable(file: Path, why: str) -> TileError:
    return TileError(f"{file} cannot be read as a raster: {why}. Repair it, or remove it to take all pixels.")


def _encode_roi(dpixels: DPixels) -> bytes:
    """Return the bytes of `roi.tiff`: uint8, 1 where requested."""
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
    """Return the SHA-256 of names, sizes and modification times: reading many folders would take minutes."""
    digest = hashlib.sha256()
    for name in sorted((*_FILES, ROI)):
        if (path / name).is_file():
            status = (path / name).stat()
            digest.update(f"{name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _unfit(file: Path, why: str) -> TileError:
    return TileError(f"{file} does not fit the official layout: {why}. Make the folder again.")
