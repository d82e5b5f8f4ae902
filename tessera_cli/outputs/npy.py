"""A tile as the official code writes it: `<name>.npy` and, with codes, `<name>_scales.npy`; no georeference.

The counts of observations, which the official code does not write, are in the tile's record.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from tessera_cli.arrays import map_array, read_layout
from tessera_cli.errors import plainly
from tessera_cli.outputs.asset import check_layout, check_scales, check_uncertainty, damaged
from tessera_cli.outputs.encoded import EncodedTile
from tessera_cli.outputs.item import TileRecord
from tessera_cli.outputs.layers import Layer, Role

VERSION = (1, 0)
"""Version of the npy format: the one that every reader knows."""
AT_ONCE = 4096
"""Pixels that are compared at a time."""


@contextmanager
def layer_bytes(layer: Layer, encoded: EncodedTile) -> Iterator[memoryview]:
    """Yield the array of a layer: embeddings (H, W, R) or float32 scales (H, W)."""
    yield filled(layer, encoded, encoded.pixels)


def filled(layer: Layer, encoded: EncodedTile, pixels: np.ndarray) -> memoryview:
    """Return an .npy file of a layer for bool `pixels`, of any shape: true, in C order, for each embedding in turn.

    Without an embedding, values and scales are NaN and codes 0: a zero code can be an embedding's, a NaN scale cannot.
    """
    values = {"scales": encoded.scales, "uncertainty": encoded.uncertainty}.get(layer.role, encoded.values)
    assert values is not None
    data, array = empty_npy((*pixels.shape, *values.shape[1:]), layer.dtype)
    array[...] = layer.nodata or 0
    array[pixels] = values
    return data


def read_back(record: TileRecord, paths: Mapping[Role, Path]) -> np.ndarray:
    """Return bool (H, W): pixels with an embedding in the arrays at `paths`.

    Raises TileError unless each has the expected layout and they agree with each other.
    """
    embedded = checked(record, paths, record.tile.shape)
    if (embedded & ~record.requested).any():
        raise damaged(paths["emb"], "pixels outside the requested ones hold embeddings")
    return embedded


def checked(record: TileRecord, paths: Mapping[Role, Path], shape: tuple[int, ...]) -> np.ndarray:
    """Return which pixels of arrays of this shape hold an embedding, bool; TileError as `read_back` does."""
    emb = _open_checked(paths["emb"], record.dtype, (*shape, record.dims))
    if "scales" in paths:
        scales = _open_checked(paths["scales"], "float32", shape)
        missing = np.isnan(scales)
        check_scales(paths["scales"], scales[~missing])
    else:
        missing = np.isnan(emb[..., 0])
    if "uncertainty" in paths:
        check_uncertainty(paths["uncertainty"], _open_checked(paths["uncertainty"], "float32", shape), missing)
    emb, gone = emb.reshape(-1, record.dims), missing.reshape(-1)
    for start in range(0, len(emb), AT_ONCE):  # in float32 they are large
        values, empty = emb[start : start + AT_ONCE], gone[start : start + AT_ONCE]
        unset = np.isnan(values) if record.dtype == "float32" else values == 0
        if not unset[empty].all():
            raise damaged(paths["emb"], "some pixels without an embedding hold values")
        if not np.isfinite(values[~empty]).all():
            raise damaged(paths["emb"], "some values are not finite")
    return ~missing


def empty_npy(shape: tuple[int, ...], dtype: str) -> tuple[memoryview, np.ndarray]:
    """Return the bytes of an .npy file (little-endian, C order) and, as a view of them, the array to fill."""
    little = np.dtype(dtype).newbyteorder("<")
    header = io.BytesIO()
    npy.write_array_header_1_0(header, {"descr": npy.dtype_to_descr(little), "fortran_order": False, "shape": shape})
    start = len(header.getvalue())
    data = np.empty(start + math.prod(shape) * little.itemsize, np.uint8)
    data[:start] = np.frombuffer(header.getvalue(), np.uint8)
    return data.data, data[start:].view(little).reshape(shape)


def _open_checked(path: Path, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Map the array at `path` after comparing its layout; TileError if it is not as record."""
    try:
        version, array = read_layout(path).version, map_array(path)
    except (OSError, ValueError) as error:
        raise damaged(path, f"it cannot be read: {plainly(error)}") from error
    layout = {
        "version": (version, VERSION),
        "type": (array.dtype, np.dtype(dtype)),
        "shape": (array.shape, shape),
        "order": ("C" if array.flags.c_contiguous else "Fortran", "C"),
    }
    check_layout(path, layout)
    return array
