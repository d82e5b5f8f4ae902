"""Decode deflated blocks into pixels: checking their checksums decompresses them anyway."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from isal import isal_zlib
from rasterio.windows import Window as PixelWindow

from tessera_cli.imagery.header import BrokenError
from tessera_cli.imagery.tiff import Blocks

CHUNK = 1 << 20
"""Bytes that are inflated at a time where nothing but the checksum matters."""


def decode(
    blocks: Blocks, streams: Mapping[int, bytes], window: PixelWindow, wanted: Sequence[PixelWindow]
) -> np.ndarray | None:
    """Return (H, W) of the window in the file's dtype, 0 outside the wanted parts.

    `streams`: number -> bytes of the blocks under the wanted parts. None where only GDAL can tell: of formats that are
    not the commonest, and where a block was never written. Raises BrokenError if a block is damaged.
    """
    if blocks.values is None:
        return None
    (top, bottom), (left, right) = window.toranges()
    pixels = np.zeros((bottom - top, right - left), blocks.values.newbyteorder("="))
    for part in wanted:
        for number in blocks.under(*part.toranges()):
            if number not in streams:
                return None
            values = _values(blocks, number, streams[number])
            row, column = (at * size for at, size in zip(divmod(number, blocks.columns), blocks.block, strict=True))
            first, last = max(top, row), min(bottom, row + len(values))
            begin, end = max(left, column), min(right, column + blocks.block_width)
            pixels[first - top : last - top, begin - left : end - left] = values[
                first - row : last - row, begin - column : end - column
            ]
    return pixels


def check(blocks: Blocks, streams: Mapping[int, bytes]) -> None:
    """Raise BrokenError if one of these deflated blocks is damaged. GDAL makes pixels of most that are.

    It stops before the checksum, and of a longer stream leaves at the end of the block what was in memory.
    """
    for number, stream in streams.items():
        _content(blocks, number, stream, blocks.nbytes(number))


def inflate(number: int, stream: bytes, size: int, filled_up: int | None = None) -> bytes | None:
    """Return the first `size` bytes of a zlib stream; None if it has more or fewer, BrokenError if it is damaged.

    `filled_up`: another length that it may have. ISA-L takes less than half the time of zlib. Memory is bounded,
    whatever the stream expands to.
    """
    inflater = isal_zlib.decompressobj()
    length = 0
    try:
        data = inflater.decompress(stream, size + 1)
        length = len(data)
        while not inflater.eof and (more := inflater.decompress(inflater.unconsumed_tail, CHUNK)):
            length += len(more)
        whole = inflater.eof
    except isal_zlib.error:  # type: ignore[misc]
        whole = False
    if not whole:
        raise BrokenError(f"its bytes do not decode: block {number} is damaged")
    return data[:size] if length in (size, filled_up) else None


def _content(blocks: Blocks, number: int, stream: bytes, filled_up: int) -> bytes:
    """Return what `inflate` does; BrokenError if it is None."""
    size = blocks.nbytes(number)
    if (data := inflate(number, stream, size, filled_up)) is None:
        raise BrokenError(f"its bytes do not decode: block {number} holds more or fewer bytes than {size}")
    return data


def _values(blocks: Blocks, number: int, stream: bytes) -> np.ndarray:
    """Return the pixels of one block (rows, columns)."""
    assert blocks.values is not None
    data = _content(blocks, number, stream, blocks.most_bytes)
    values = np.frombuffer(data, blocks.values).reshape(-1, blocks.block_width)
    if blocks.differences:  # of unsigned integers that overflow, whatever the bits mean
        integers = values.view(f"{blocks.values.byteorder}u{blocks.values.itemsize}")
        integers = integers.astype(integers.dtype.newbyteorder("="), copy=False)
        values = np.add.accumulate(integers, axis=1, dtype=integers.dtype).view(blocks.values.newbyteorder("="))
    return values
