"""d-pixels as a Zarr v3 directory, one file per array, which xarray, zarrs and GDAL (from 3.13) open as well.

Observations lie in inner chunks of all frames of 32 x 32 px: a pixel's whole year costs about a megabyte to decode, and
clouds, stored as 0, next to nothing. Of the codecs in the specification of Zarr v3, blosc (zstd after a byte shuffle)
makes these integers smallest; crc32c tells of flipped bits, which blosc alone does not.
"""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tessera_cli.dpixels import zarr_layout
from tessera_cli.dpixels.dpixel import ARRAYS, S1_BANDS, S2_BANDS, SENSORS, DPixels, georeference, to_dataset
from tessera_cli.dpixels.stored import Stored
from tessera_cli.errors import TesseraError, TileError, UsageError, reason
from tessera_cli.extent.grid import Tile, pack_mask
from tessera_cli.extent.window import Window
from tessera_cli.files import atomic_directory
from tessera_cli.reading import read_json

if TYPE_CHECKING:
    import xarray as xr
    import zarr

SUFFIX = ".zarr"
FORMAT = "tessera d-pixels"
VERSION = 1
ADVICE = "Give one that `tessera fetch` wrote."
CHUNK = 32
"""Side of the inner chunks in pixels."""
OBSERVATIONS = ("s2", "s2_mask", "s1_asc", "s1_desc")
TIMES = {f"{sensor}_time": sensor for sensor in SENSORS}
STORED_ARRAYS = (*OBSERVATIONS, *TIMES, "x", "y", "roi")
FILES = ("zarr.json", *(f"{name}/zarr.json" for name in STORED_ARRAYS))
"""The files of every store; an array has one more, unless all its values are 0."""
TIME_ATTRIBUTES = {"units": "days since 1970-01-01", "calendar": "proleptic_gregorian"}
"""CF conventions: what makes xarray see dates."""
NOT_SHOWN = ("format", "format_version", "sizes", "digest")
"""Attributes of a store that tell nothing of the d-pixels."""
STRINGS = ("tile", "window", "source", "preprocessing", "input_digest")
ROOT_TYPES = {**dict.fromkeys(STRINGS, str), "scenes": list, "holes": dict, "sizes": dict}
ATTRIBUTES: Mapping[str, Mapping[str, Any]] = {
    "s2": {"bands": list(S2_BANDS)},  # strings in arrays are not in the specification of Zarr v3
    "s1_asc": {"pols": list(S1_BANDS)},
    "s1_desc": {"pols": list(S1_BANDS)},
    **{axis: {"units": "m", "standard_name": f"projection_{axis}_coordinate"} for axis in "xy"},
}


def write_store(folder: Path, dpixels: DPixels, *, look: Callable[[Path], None] = lambda part: None) -> Path:
    """Write `<folder>/<tile>_<window>.zarr`, whole or not at all, and return it; an older one is replaced.

    `look` is called with the finished folder before it is renamed, where other runs might replace it at once.
    Masked observations are stored as 0. ValueError for d-pixels that are not of a tile of the grid and a window, or
    whose arrays do not fit together. UsageError, DiskFullError or TileError where the disk does not take them.
    """
    import zarr

    tile, window = dpixels.tile, dpixels.window
    if not isinstance(tile, Tile) or window is None:
        raise ValueError(f"{dpixels.name}: only d-pixels of a tile of the grid and a window are written as a store")
    if dpixels.requested.shape != tile.shape:
        raise ValueError(f"requested is {dpixels.requested.shape}, not {tile.shape}")
    for sensor, dates in dpixels.dates.items():
        _check_dates(sensor, dates, window)
    dataset = dpixels.to_xarray().drop_vars(["band", "pol", "spatial_ref"])
    dataset.roi.data = dpixels.requested.astype(np.uint8)
    dataset.s2_mask.data = (dpixels.s2_mask != 0).astype(np.uint8)
    dataset.s2.data = _clear(dpixels.s2, dpixels.s2_mask)
    attributes, dataset.attrs = dataset.attrs, {}
    for name, variable in dataset.variables.items():
        variable.attrs, variable.encoding = dict(ATTRIBUTES.get(str(name), {})), _encoding(str(name), variable)
    path = folder / f"{dpixels.name}{SUFFIX}"
    with atomic_directory(path) as part:
        dataset.to_zarr(part, zarr_format=3, consolidated=False)
        attributes = {"format": FORMAT, "format_version": VERSION, **attributes, "sizes": _sizes(part, STORED_ARRAYS)}
        attributes["digest"] = _digest(attributes)
        # Last, so that nothing unfinished calls itself a store.
        zarr.open_group(part, mode="r+", use_consolidated=False).attrs.update(attributes)
        look(part)
        _check_written(part, dataset)
    return path


def is_store(path: Path) -> bool:
    """Return whether a folder looks like a Zarr store, ours or not."""
    return path.is_dir() and (path.suffix == SUFFIX or (path / "zarr.json").is_file())


def describe_store(path: Path) -> Stored:
    """Return what a store holds, without reading its observations. Errors as those of `read_store`."""
    attributes = _read_attributes(path)
    with _reading(path):
        tile, window = Tile.from_id(attributes["tile"]), Window.from_name(attributes["window"])
        if not georeference(tile).items() <= attributes.items():
            raise ValueError(f"its georeference is not that of {tile.id}")
        _check_files(path, ["roi"], attributes["sizes"])
        return Stored(
            path=path,
            tile=tile,
            window=window,
            source=attributes.get("source"),
            preprocessing=attributes["preprocessing"],
            packed=pack_mask(np.asarray(_get(path, "roi", "uint8", tile.shape)[...]) != 0),
            input_digest=attributes["input_digest"],
            load=read_store,
            load_dates=_read_dates,
            missing_scenes=attributes["holes"],
        )


def read_store(path: Path) -> DPixels:
    """Return the d-pixels of a store.

    UsageError where there is no store, or one in another version of the format; TileError where it is damaged.
    """
    stamp = _stamp(path)
    stored, dataset = describe_store(path), open_store(path)
    with _reading(path):
        observations = {name: _read_frames(dataset[name]) for name in OBSERVATIONS}
        if observations["s2_mask"].max(initial=0) > 1:
            raise ValueError("s2_mask holds other values than 0 and 1")
    if _stamp(path) != stamp:  # what was read may be of both, or of neither
        raise TileError(f"{path} was replaced while it was read: another run has written it. Run again.")
    return DPixels(
        tile=stored.tile,
        window=stored.window,
        **observations,
        **{f"{sensor}_dates": dataset[name].values.astype("datetime64[D]") for name, sensor in TIMES.items()},
        requested=stored.pixels,
        source=stored.source,
        preprocessing=stored.preprocessing,
        scenes=tuple(dataset.attrs["scenes"]),
        missing_scenes=stored.missing_scenes,
        input_digest=stored.input_digest,
    )


def open_store(path: Path) -> xr.Dataset:
    """Return what `read_store(path).to_xarray()` does, but observations are read when they are used.

    All else is read and checked at once. Errors as those of `read_store`.
    """
    import xarray as xr

    stored, attributes = describe_store(path), _read_attributes(path)
    with _reading(path):
        _check_files(path, STORED_ARRAYS, attributes["sizes"])
        dates = _read_dates(path)
        frames = {sensor: len(days) for sensor, days in dates.items()} | {"s2_mask": len(dates["s2"])}
        sizes = {"band": len(S2_BANDS), "pol": len(S1_BANDS), "y": stored.tile.shape[0], "x": stored.tile.shape[1]}
        for name in OBSERVATIONS:
            dtype, (_, *dims) = ARRAYS[name]
            zarr_layout.check_array(path, name, dtype, (frames[name], *(sizes[dim] for dim in dims)), CHUNK)
        others = {member.name for member in path.iterdir()}.difference(OBSERVATIONS)
        lazy = xr.open_dataset(
            path,
            engine="zarr",
            zarr_format=3,
            consolidated=False,
            decode_cf=False,
            drop_variables=others,
        )
        arrays: dict[str, Any] = {"roi": stored.pixels}
        for name in OBSERVATIONS:
            arrays[name] = lazy[name].variable
            for key, bands in ATTRIBUTES.get(name, {}).items():
                if arrays[name].attrs.get(key) != bands:
                    raise ValueError(f"{name} holds other bands than {', '.join(bands)}")
        own = {key: value for key, value in attributes.items() if key not in NOT_SHOWN}
        dataset = to_dataset(arrays, dates, stored.tile, own)
        for axis in ("x", "y"):
            if not np.array_equal(_get(path, axis, "float64", dataset[axis].shape)[...], dataset[axis]):
                raise ValueError(f"{axis} does not hold the pixel centres of {stored.tile.id}")
        return dataset


def _read_attributes(path: Path) -> dict[str, Any]:
    """Return the attributes of a store in this version of the format."""
    if not (path / "zarr.json").is_file():
        why = "it has no zarr.json" if path.is_dir() else "there is no such folder"
        raise UsageError(f"{path} is not a store of d-pixels: {why}. {ADVICE}")
    with _reading(path):
        try:
            root = read_json(path / "zarr.json")
        except ValueError as error:
            raise ValueError(f"zarr.json is not JSON ({error})") from error
    attributes = root.get("attributes") if isinstance(root, dict) else None
    if not isinstance(attributes, dict) or attributes.get("format") != FORMAT:
        raise UsageError(f"{path} is not a store of d-pixels: it is other Zarr data. {ADVICE}")
    if (version := attributes.get("format_version")) != VERSION:
        raise UsageError(
            f"{path} cannot be read: it has version {version} of the format, and this program knows "
            f"version {VERSION} only. Use the release that wrote it, or fetch the tile again."
        )
    with _reading(path):
        for key, kind in ROOT_TYPES.items():
            value = attributes.get(key)
            if not (isinstance(value, kind) or (key == "source" and value is None)):
                raise ValueError(f"the attribute {key} is {'missing' if value is None else f'not a {kind.__name__}'}")
        if attributes.get("digest", due := _digest(attributes)) != due:  # those of earlier releases have none
            raise ValueError("its attributes were changed: their digest does not fit")
    return attributes


def _read_dates(path: Path) -> Mapping[str, np.ndarray]:
    """Return sensor -> dates of its frames."""
    attributes = _read_attributes(path)
    with _reading(path):
        window = Window.from_name(attributes["window"])
        _check_files(path, TIMES, attributes["sizes"])
        dates = {}
        for name, sensor in TIMES.items():
            shape = zarr_layout.array_shape(path, name, "int64")
            if len(shape) != 1 or shape[0] > window.days:
                raise ValueError(f"{name} does not hold dates of {window}")
            array = _get(path, name, "int64", shape)
            if not TIME_ATTRIBUTES.items() <= dict(array.attrs).items():
                raise ValueError(f"{name} does not hold dates of {window}")
            dates[sensor] = np.asarray(array[...]).astype("datetime64[D]")
            _check_dates(sensor, dates[sensor], window)
        return dates


def _read_frames(array: xr.DataArray) -> np.ndarray:
    """Return all values, read one row of inner chunks at a time: Zarr decodes into memory of its own first."""
    values = np.empty(array.shape, array.dtype)
    for row in range(0, array.shape[1], CHUNK):
        values[:, row : row + CHUNK] = array[:, row : row + CHUNK]
    return values


def _get(path: Path, name: str, dtype: str, shape: tuple[int, ...]) -> zarr.Array[Any]:
    """Open the small array of this name, type and shape; no values are read."""
    import zarr

    zarr_layout.check_array(path, name, dtype, shape)
    return zarr.open_array(path / name, mode="r", zarr_format=3)


def _stamp(path: Path) -> int | None:
    """Return a number that changes when a store is replaced, even by an equal one; None where there is no store."""
    with suppress(OSError):
        return (path / "zarr.json").stat().st_mtime_ns
    return None


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn whatever a damaged store makes Zarr and its codecs raise into a TileError of one line."""
    try:
        yield
    except (TesseraError, MemoryError):
        raise
    except PermissionError as error:
        raise TileError(f"{path} cannot be read: no permission. Ask its owner, then run again.") from error
    except Exception as error:
        raise TileError(f"{path} is damaged: {reason(error)}. Fetch the tile again.") from error


def _clear(s2: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return `s2` with 0 where the mask is 0: itself, if it is so already, since a copy is large."""
    dirty = any(frame[clear == 0].any() for frame, clear in zip(s2, mask, strict=True))
    return np.where(mask[..., None] != 0, s2, np.uint16(0)) if dirty else s2


def _encoding(name: str, variable: xr.Variable) -> dict[str, Any]:
    """Return how an array is written: as one file, frames as a shard of inner chunks, the small rest as one chunk."""
    from zarr.codecs import BloscCodec, Crc32cCodec

    whole = zarr_layout.whole(variable.shape)
    blosc = BloscCodec(cname="zstd", clevel=3, shuffle="shuffle", typesize=variable.dtype.itemsize)
    return {
        **(
            {"chunks": zarr_layout.inner(variable.shape, CHUNK), "shards": whole}
            if name in OBSERVATIONS
            else {"chunks": whole}
        ),
        **({**TIME_ATTRIBUTES, "dtype": "int64"} if name in TIMES else {}),
        "filters": None,
        "compressors": [blosc, Crc32cCodec()],
        "fill_value": 0,
        "_FillValue": None,
        "write_empty_chunks": False,
    }


def _check_written(part: Path, dataset: xr.Dataset) -> None:
    """Raise FileNotFoundError if a file is gone: Zarr goes on where its folder was removed, and makes a new one."""
    for name in STORED_ARRAYS:
        values = dataset[name].values
        due = [part / name / "zarr.json"]
        if any(frame.any() for frame in values):
            due.append(part.joinpath(name, "c", *("0" for _ in values.shape)))
        for file in due:
            if not file.is_file():
                raise FileNotFoundError(errno.ENOENT, "it was removed while it was written", str(file))


def _check_dates(sensor: str, dates: np.ndarray, window: Window) -> None:
    """Raise ValueError unless frames are in date order, one per date, within the window."""
    start, end = np.array([window.start, window.end], "datetime64[D]")
    if not ((start <= dates) & (dates <= end)).all():
        raise ValueError(f"{sensor} has frames outside {window.start} to {window.end}")
    if (dates[1:] <= dates[:-1]).any():
        raise ValueError(f"the frames of {sensor} are not in date order, one per date")


def _digest(attributes: Mapping[str, Any]) -> str:
    """Return the SHA-256 of all other attributes: unlike values, they have no checksum of their own."""
    others = {key: value for key, value in attributes.items() if key != "digest"}
    return hashlib.sha256(json.dumps(others, sort_keys=True).encode()).hexdigest()


def _sizes(store: Path, names: Collection[str]) -> dict[str, int]:
    """Return file -> bytes of the values of these arrays. An array of zeros has no file."""
    files = sorted(file for name in names for file in (store / name / "c").rglob("*") if file.is_file())
    return {file.relative_to(store).as_posix(): file.stat().st_size for file in files}


def _check_files(store: Path, names: Collection[str], recorded: Mapping[str, int]) -> None:
    """Raise ValueError unless the files of these arrays are there with the sizes that were recorded of all arrays."""
    for name in names:
        if not (store / name / "zarr.json").is_file():
            raise ValueError(f"the array {name} is missing")
    due = {file: size for file, size in recorded.items() if file.partition("/")[0] in names}
    found = _sizes(store, names)
    for file in sorted({*due, *found}):  # Zarr takes a file that is not there for zeros
        if due.get(file) != found.get(file):
            raise ValueError(f"{file} has {found.get(file, 'no')} bytes, not {due.get(file, 'none')}")
