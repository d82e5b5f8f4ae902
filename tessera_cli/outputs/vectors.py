"""The pixels of a tile that were asked for, and no others: `<name>_vectors.npy`, and `_vectors_scales.npy` of codes.

A row per pixel asked for, in the row-major order of the tile; which ones these are stands in the tile's record, as do
the counts of observations. A pixel without an embedding has a row of NaN, or of code 0 with a scale of NaN.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from tessera_cli.outputs import npy
from tessera_cli.outputs.asset import damaged
from tessera_cli.outputs.encoded import EncodedTile
from tessera_cli.outputs.item import TileRecord
from tessera_cli.outputs.layers import Layer, Role


@contextmanager
def layer_bytes(layer: Layer, encoded: EncodedTile) -> Iterator[memoryview]:
    """Yield the array of a layer for the N pixels asked for: embeddings (N, R) or float32 scales (N,).

    Raises TileError for embeddings of other pixels.
    """
    requested = encoded.record.requested
    if (encoded.pixels & ~requested).any():
        raise damaged(Path(encoded.record.name), "pixels outside the requested ones hold embeddings")
    yield npy.filled(layer, encoded, encoded.pixels[requested])


def read_back(record: TileRecord, paths: Mapping[Role, Path]) -> np.ndarray:
    """Return bool (H, W): pixels with an embedding in the arrays at `paths`.

    Raises TileError unless each has the expected layout and they agree with each other.
    """
    embedded = np.zeros(record.tile.shape, bool)
    embedded[record.requested] = npy.checked(record, paths, (int(record.requested.sum()),))
    return embedded


def expanded(rows: np.ndarray, requested: np.ndarray, box: tuple[slice, slice]) -> np.ndarray:
    """Return the rows (N, ...) of the pixels asked for, bool (H, W), at their place in a box of the tile: (h, w, ...).

    Elsewhere codes are 0 and floats NaN. Only the rows of pixels in the box are read.
    """
    wanted = requested[box]
    number = np.cumsum(requested, dtype=np.int64).reshape(requested.shape)[box][wanted] - 1
    made = np.full((*wanted.shape, *rows.shape[1:]), np.nan if rows.dtype.kind == "f" else 0, rows.dtype)
    made[wanted] = rows[number]
    return made
