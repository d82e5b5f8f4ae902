"""Decode deflated blocks into pixels: checking their checksums decompresses them anyway."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from rasterio.windows import Window as PixelWindow
from zlib_ng import zlib_ng

from tessera_cli.imagery.header import BrokenError
from tessera_cli.imagery.tiff import Blocks

CHUNK = 1 << 20
"""Bytes that are inflated at a time where nothing but the checksum matters."""


def decode(
    blocks: Blocks, streams: Mapping[int, bytes], window: PixelWindow, wanted: Sequence[PixelWindow]
) -> np.ndarray | None:
    """Return (H, W) of the window in the file's dtype, 0 outside the wanted parts.

    `streams`: number -> bytes of the blocks under the wanted parts. None where only GDAL can tell: of formats that are
    not the commonest, and where a block was never written or has another size than it should. Raises BrokenError if a
    block is damaged.
    """
    if blocks.values is None:
        return None
    (top, bottom), (left, right) = window.toranges()
    pixels = np.zeros((bottom - top, right - left), blocks.values.newbyteorder("="))
    for part in wanted:
        for number in blocks.under(*part.toranges()):
            values = _values(blocks, number, streams[number]) if number in streams else None
            if values is None:
                return None
            row, column = (at * size for at, size in zip(divmod(number, blocks.columns), blocks.block, strict=True))
            first, last = max(top, row), min(bottom, row + len(values))
            begin, end = max(left, column), min(right, column + blocks.block_width)
            pixels[first - top : last - top, begin - left : end - left] = values[
                first - row : last - row, begin - column : end - column
            ]
    return pixels


def check(streams: Mapping[int, bytes]) -> None:
    """Raise BrokenError if one of these deflated blocks is damaged. GDAL makes pixels of most that are."""
    for number, stream in streams.items():
        inflate(number, stream, 0)


def inflate(number: int, stream: bytes, size: int) -> bytes | None:
    """Return the content of a zlib stream; None if it has not `size` bytes, BrokenError if its checksum is wrong.

    TIFF libraries stop before the checksum. zlib-ng takes less than half the time of zlib. Memory is bounded, whatever
    the stream expands to.
    """
    inflater = zlib_ng.decompressobj()
    try:
        data = inflater.decompress(stream, size + 1)
        while not inflater.eof and inflater.decompress(inflater.unconsumed_tail, CHUNK):
            pass
        whole = inflater.eof
    except zlib_ng.error:  # type: ignore[misc]
        whole = False
    if not whole:
        raise BrokenError(f"its bytes do not decode: block {number} is damaged")
    return data if len(data) == size else None


def _values(blocks: Blocks, number: int, stream: bytes) -> np.ndarray | None:
    """Return the pixels of one block (rows, columns); None if there are too few or too many."""
    assert blocks.values is not None
    left = blocks.height - number // blocks.columns * blocks.block_height
    rows = blocks.block_height if blocks.tiled else min(blocks.block_height, left)
    size = rows * blocks.block_width * blocks.values.itemsize
    if (data := inflate(number, stream, size)) is None:
        return None
    values = np.frombuffer(data, blocks.values).reshape(rows, blocks.block_width)
    if blocks.differences:  # of unsigned integers that overflow, whatever the bits mean
        integers = values.view(f"{blocks.values.byteorder}u{blocks.values.itemsize}")
        integers = integers.astype(integers.dtype.newbyteorder("="), copy=False)
        values = np.add.accumulate(integers, axis=1, dtype=integers.dtype).view(blocks.values.newbyteorder("="))
    return values
