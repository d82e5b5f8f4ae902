"""The layout of a store's arrays, compared before Zarr sees them: it allocates whatever descriptions and chunks claim.

Each array is one file. Observations are a shard of inner chunks with an index at its end; the small rest is one chunk.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np

from tessera_cli.reading import open_file, read_json

CODECS = ("bytes", "blosc", "crc32c")
"""What every chunk goes through when it is written, in this order."""
INDEX_CODECS = ("bytes", "crc32c")
CHECKSUM = 4
"""Bytes of a crc32c."""
EMPTY = 2**64 - 1
"""Offset in an index of a chunk that holds the fill value alone."""
_BLOSC = struct.Struct("<4xI4xI")
"""Of the header of a blosc chunk: its bytes unpacked, and packed."""

Shape = tuple[int, ...]


def whole(shape: Shape) -> Shape:
    """Return the shape of the one chunk or shard of an array: a chunk of no frames is not allowed."""
    return tuple(max(1, side) for side in shape)


def inner(shape: Shape, side: int) -> Shape:
    """Return the shape of the inner chunks of observations."""
    frames, _, _, *bands = whole(shape)
    return frames, side, side, *bands


def array_shape(store: Path, name: str, dtype: str) -> Shape:
    """Return the shape that an array is described with; ValueError unless it is an array of this type."""
    found = _description(store, name)
    if (kind := found.get("data_type")) != dtype:
        raise ValueError(f"{name} is {str(kind)[:40]}, not {dtype}")
    shape = found.get("shape")
    if not isinstance(shape, list) or not all(type(side) is int and side >= 0 for side in shape):
        raise ValueError(f"the shape of {name} is none")
    return tuple(shape)


def check_array(store: Path, name: str, dtype: str, shape: Shape, chunk: int | None = None) -> None:
    """Raise ValueError unless an array is stored as ours are, and none of its chunks claims to be larger than it is.

    `chunk` is the side of the inner chunks of observations.
    """
    if (found := array_shape(store, name, dtype)) != shape:
        raise ValueError(f"{name} has the shape {found}, not {shape}")
    described, itemsize = _description(store, name), np.dtype(dtype).itemsize
    codecs = described.get("codecs")
    due: Mapping[str, Any] = {
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(whole(shape))}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
    }
    if wrong := [key for key, value in due.items() if described.get(key) != value]:
        raise ValueError(f"{name} is not stored as ours are ({wrong[0]})")
    if described.get("storage_transformers"):
        raise ValueError(f"{name} is not stored as ours are (storage_transformers)")
    parts = whole(shape)
    if chunk is not None:
        shard = codecs[0] if isinstance(codecs, list) and len(codecs) == 1 and isinstance(codecs[0], dict) else {}
        inside = shard.get("configuration")
        parts = inner(shape, chunk)
        if (
            shard.get("name") != "sharding_indexed"
            or not isinstance(inside, dict)
            or inside.get("chunk_shape") != list(parts)
            or _names(inside.get("index_codecs")) != INDEX_CODECS
            or inside.get("index_location", "end") != "end"
        ):
            raise ValueError(f"{name} is not stored as ours are (codecs)")
        codecs = inside.get("codecs")
    if _names(codecs) != CODECS:
        raise ValueError(f"{name} is not stored as ours are (codecs)")
    file = store.joinpath(name, "c", *("0" for _ in shape))
    if file.exists():  # an array of zeros has none
        with open_file(file) as opened:
            for start, length in _chunks(opened, shape, parts, sharded=chunk is not None):
                _check_chunk(opened, name, start, length, math.prod(parts) * itemsize)


def _description(store: Path, name: str) -> dict[str, Any]:
    found = read_json(store / name / "zarr.json")
    if not isinstance(found, dict) or found.get("node_type") != "array":
        raise ValueError(f"{name} is no array")
    return found


def _names(codecs: Any) -> tuple[Any, ...]:
    return tuple(each.get("name") if isinstance(each, dict) else None for each in codecs or ())


def _chunks(file: BufferedReader, shape: Shape, parts: Shape, *, sharded: bool) -> Iterator[tuple[int, int]]:
    """Yield where each chunk of a file begins, and its length; those in a shard that its index names."""
    size = file.seek(0, 2)
    if not sharded:
        yield 0, size
        return
    count = math.prod(-(-side // part) for side, part in zip(whole(shape), parts, strict=True))
    end = size - 16 * count - CHECKSUM
    file.seek(max(end, 0))
    index = np.frombuffer(file.read(16 * count), "<u8")
    if end < 0 or len(index) != 2 * count:
        raise ValueError("a shard is shorter than its index")
    for start, length in index.reshape(-1, 2).tolist():
        if start != EMPTY:
            if start + length > end:
                raise ValueError("the index of a shard names bytes beyond it")
            yield start, length


def _check_chunk(file: BufferedReader, name: str, start: int, length: int, due: int) -> None:
    file.seek(start)
    header = file.read(_BLOSC.size)
    if len(header) < _BLOSC.size:
        raise ValueError(f"a chunk of {name} is cut")
    unpacked, packed = _BLOSC.unpack(header)
    if unpacked != due or packed + CHECKSUM != length:
        raise ValueError(f"a chunk of {name} claims other sizes than it has")
