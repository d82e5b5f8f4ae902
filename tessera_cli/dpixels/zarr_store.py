"""d-pixels as a Zarr v3 directory, one file per array, which xarray, zarrs and GDAL (from 3.13) open as well.

Observations lie in inner chunks of all frames of 32 x 32 px: a pixel's whole year costs about a megabyte to decode, and
clouds, stored as 0, next to nothing. Of the codecs in the specification of Zarr v3, blosc (zstd after a byte shuffle)
makes these integers smallest; crc32c tells of flipped bits, which blosc alone does not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from tessera_cli.dpixels import zarr_layout as layout
from tessera_cli.dpixels.dpixel import DPixels
from tessera_cli.dpixels.stored import Stored
from tessera_cli.errors import TesseraError, TileError, UsageError, reason
from tessera_cli.extent.grid import Tile, pack_mask
from tessera_cli.extent.window import Window
from tessera_cli.files import atomic_directory

if TYPE_CHECKING:
    import zarr

T = TypeVar("T")


def write_store(folder: Path, dpixels: DPixels, *, look: Callable[[Path], None] = lambda part: None) -> Path:
    """Write `<folder>/<tile>_<window>.zarr`, whole or not at all, and return it; an older one is replaced.

    `look` is told of the finished store before it takes its place, where others might replace it at once.
    What lies under masks is stored as 0. ValueError for d-pixels that are not of a tile of the grid and a window, or
    whose arrays do not fit together. UsageError, DiskFullError or TileError where the disk does not take them.
    """
    tile, window = dpixels.tile, dpixels.window
    if not isinstance(tile, Tile) or window is None:
        raise ValueError(f"{dpixels.name}: only d-pixels of a tile of the grid and a window are written as a store")
    days = {sensor: layout.days_of(dates) for sensor, dates in dpixels.dates.items()}
    for sensor in days:
        layout.check_days(sensor, days[sensor], window)
    for name, frames in layout.FRAMES.items():
        layout.check_array(name, getattr(dpixels, name), frames.dtype, frames.shape(len(days[frames.sensor]), tile))
    layout.check_array("requested", dpixels.requested, "bool", tile.shape)

    import zarr

    path = folder / f"{dpixels.name}{layout.SUFFIX}"
    with atomic_directory(path) as part:
        group = zarr.create_group(part, zarr_format=3)
        mask = (dpixels.s2_mask != 0).astype(np.uint8)
        arrays = {"s2": _clear(dpixels.s2, mask), "s2_mask": mask, "s1_asc": dpixels.s1_asc, "s1_desc": dpixels.s1_desc}
        for name, frames in layout.FRAMES.items():
            _put(group, name, arrays[name], frames.dimensions, frames.attributes)
        for sensor, name in layout.TIMES.items():
            _put(group, name, days[sensor], (name,), layout.TIME_ATTRIBUTES)
        for axis, metres in layout.centres(tile).items():
            _put(group, axis, metres, (axis,), layout.AXIS_ATTRIBUTES[axis])
        _put(group, "roi", dpixels.requested.astype(np.uint8), ("y", "x"), {})
        # Last, so that nothing unfinished calls itself a store.
        group.attrs.update(
            {
                "format": layout.FORMAT,
                "format_version": layout.VERSION,
                "tile": tile.id,
                **layout.georeference(tile),
                "window": window.name,
                "source": dpixels.source,
                "preprocessing": dpixels.preprocessing,
                "scenes": list(dpixels.scenes),
                "holes": dict(dpixels.missing_scenes),
                "input_digest": dpixels.input_digest,
                "sizes": layout.sizes(part, layout.ARRAYS),
            }
        )
        look(part)
    return path


def is_store(path: Path) -> bool:
    """Whether a folder looks like a Zarr store, ours or not."""
    return path.is_dir() and (path.suffix == layout.SUFFIX or (path / "zarr.json").is_file())


def describe_store(path: Path) -> Stored:
    """What a store holds, without reading its observations. Errors as those of `read_store`."""
    return _describe(path, _attributes(path))


def read_store(path: Path) -> DPixels:
    """The d-pixels of a store, all or nothing.

    UsageError where there is no store, or one in another version of the format; TileError where it is damaged.
    """
    stamp = _stamp(path)
    attributes = _attributes(path)
    stored = _describe(path, attributes)
    tile, window = stored.tile, stored.window
    assert isinstance(tile, Tile)
    assert window is not None
    with _reading(path):
        layout.check_files(path, layout.ARRAYS, _of(attributes, "sizes", dict))
        group = _open(path)
        for axis, metres in layout.centres(tile).items():
            if not np.array_equal(_get(group, axis, "float64", metres.shape)[...], metres):
                raise ValueError(f"{axis} does not hold the pixel centres of {tile.id}")
        days = {sensor: _read_days(group, sensor, window) for sensor in layout.TIMES}
        arrays = {}
        for name, frames in layout.FRAMES.items():
            arrays[name] = _get(group, name, frames.dtype, frames.shape(len(days[frames.sensor]), tile))
            if not frames.attributes.items() <= dict(arrays[name].attrs).items():
                raise ValueError(f"{name} holds other bands than {', '.join(frames.names)}")
        values = {name: _read_frames(array) for name, array in arrays.items()}
        if values["s2_mask"].max(initial=0) > 1:
            raise ValueError("s2_mask holds other values than 0 and 1")
        if _stamp(path) != stamp:  # what was read may be of both, or of neither
            raise TileError(f"{path} was replaced while it was read: another run has written it. Run again.")
        return DPixels(
            tile=tile,
            window=window,
            **values,
            **{f"{sensor}_dates": numbers.astype("datetime64[D]") for sensor, numbers in days.items()},
            requested=stored.pixels,
            source=stored.source,
            preprocessing=stored.preprocessing,
            scenes=tuple(_of(attributes, "scenes", list)),
            missing_scenes=stored.missing_scenes,
            input_digest=stored.input_digest,
        )


def _attributes(path: Path) -> dict[str, Any]:
    """The attributes of a store in this version of the format."""
    if not (path / "zarr.json").is_file():
        why = "it has no zarr.json" if path.is_dir() else "there is no such folder"
        raise UsageError(f"{path} is not a store of d-pixels: {why}. Give one that `tessera fetch` wrote.")
    with _reading(path):
        try:
            root = json.loads((path / "zarr.json").read_bytes())
        except ValueError as error:
            raise ValueError(f"zarr.json is not JSON ({error})") from error
    attributes = root.get("attributes") if isinstance(root, dict) else None
    if not isinstance(attributes, dict) or attributes.get("format") != layout.FORMAT:
        raise UsageError(
            f"{path} is not a store of d-pixels: it is other Zarr data. Give one that `tessera fetch` wrote."
        )
    if (version := attributes.get("format_version")) != layout.VERSION:
        raise UsageError(
            f"{path} cannot be read: it has version {version} of the format, and this program knows "
            f"version {layout.VERSION} only. Use the release that wrote it, or fetch the tile again."
        )
    return attributes


def _describe(path: Path, attributes: Mapping[str, Any]) -> Stored:
    with _reading(path):
        tile, window = Tile.from_id(_of(attributes, "tile", str)), layout.get_window(_of(attributes, "window", str))
        if not layout.georeference(tile).items() <= attributes.items():
            raise ValueError(f"its georeference is not that of {tile.id}")
        _of(attributes, "scenes", list)
        layout.check_files(path, ["roi"], _of(attributes, "sizes", dict))
        return Stored(
            path=path,
            tile=tile,
            window=window,
            source=None if attributes.get("source") is None else _of(attributes, "source", str),
            preprocessing=_of(attributes, "preprocessing", str),
            packed=pack_mask(np.asarray(_get(_open(path), "roi", "uint8", tile.shape)[...]) != 0),
            input_digest=_of(attributes, "input_digest", str),
            load=read_store,
            load_dates=_read_dates,
            missing_scenes=_of(attributes, "holes", dict),
        )


def _stamp(path: Path) -> int | None:
    """Changes when a store is replaced, even by an equal one; None where there is none."""
    with suppress(OSError):
        return (path / "zarr.json").stat().st_mtime_ns
    return None


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Whatever a damaged store makes Zarr and its codecs raise, as a TileError of one line."""
    try:
        yield
    except (TesseraError, MemoryError):
        raise
    except PermissionError as error:
        raise TileError(f"{path} cannot be read: no permission. Ask its owner, then run again.") from error
    except Exception as error:
        raise TileError(f"{path} is damaged: {reason(error)}. Fetch the tile again.") from error


def _of(attributes: Mapping[str, Any], key: str, kind: type[T]) -> T:
    value = attributes.get(key)
    if not isinstance(value, kind):
        raise ValueError(f"the attribute {key} is {'missing' if value is None else f'not a {kind.__name__}'}")
    return value


def _clear(s2: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """`s2` with 0 where the mask is 0: itself, if it is so already, since a copy is large."""
    dirty = any(frame[clear == 0].any() for frame, clear in zip(s2, mask, strict=True))
    return np.where(mask[..., None] != 0, s2, np.uint16(0)) if dirty else s2


def _put(
    group: zarr.Group, name: str, data: np.ndarray, dimensions: tuple[str, ...], attributes: Mapping[str, Any]
) -> None:
    """Write one array as one file: frames as a shard of inner chunks, the small rest as one chunk."""
    from zarr.codecs import BloscCodec, Crc32cCodec

    whole = tuple(max(1, side) for side in data.shape)  # a chunk of no frames is not allowed
    inner = (whole[0], layout.CHUNK, layout.CHUNK, *whole[3:]) if name in layout.FRAMES else None
    blosc = BloscCodec(cname="zstd", clevel=3, shuffle="shuffle", typesize=data.dtype.itemsize)
    array = group.create_array(
        name,
        shape=data.shape,
        dtype=data.dtype,
        chunks=inner or whole,
        shards=whole if inner else None,
        filters=None,
        compressors=[blosc, Crc32cCodec()],
        fill_value=0,
        config={"write_empty_chunks": False},
        dimension_names=dimensions,
        attributes=dict(attributes),
    )
    array[...] = data


def _open(path: Path) -> zarr.Group:
    import zarr

    return zarr.open_group(path, mode="r", zarr_format=3, use_consolidated=False)


def _get(group: zarr.Group, name: str, dtype: str, shape: tuple[int, ...] | None) -> zarr.Array[Any]:
    """The array of this name, type and (unless None) shape, of which only the description is read."""
    import zarr

    array = group[name]
    if not isinstance(array, zarr.Array):
        raise ValueError(f"{name} is not an array")
    layout.check_array(name, array, dtype, array.shape if shape is None else shape)
    return array


def _read_dates(path: Path) -> Mapping[str, np.ndarray]:
    attributes = _attributes(path)
    window = _describe(path, attributes).window
    assert window is not None
    with _reading(path):
        layout.check_files(path, [*layout.TIMES.values()], _of(attributes, "sizes", dict))
        group = _open(path)
        return {sensor: _read_days(group, sensor, window).astype("datetime64[D]") for sensor in layout.TIMES}


def _read_days(group: zarr.Group, sensor: str, window: Window) -> np.ndarray:
    """Days since 1970-01-01 of the frames, int64 (T,)."""
    array = _get(group, layout.TIMES[sensor], "int64", None)
    in_days = layout.TIME_ATTRIBUTES.items() <= dict(array.attrs).items()
    if array.ndim != 1 or array.shape[0] > window.days or not in_days:
        raise ValueError(f"{layout.TIMES[sensor]} does not hold dates of {window}")
    days = np.asarray(array[...])
    layout.check_days(sensor, days, window)
    return days


def _read_frames(array: zarr.Array[Any]) -> np.ndarray:
    """All values, a row of inner chunks at a time: Zarr decodes into memory of its own before it fills ours."""
    values = np.empty(array.shape, array.dtype)
    for row in range(0, array.shape[1], layout.CHUNK):
        values[:, row : row + layout.CHUNK] = array[:, row : row + layout.CHUNK]
    return values
