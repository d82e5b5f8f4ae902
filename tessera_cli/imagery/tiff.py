"""Parse directories of a TIFF (6.0 or BigTIFF) to locate the blocks of its image and of its mask that a read needs."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from rasterio.windows import Window as PixelWindow

Fetch = Callable[[int, int], bytes]
"""(start, length) -> exactly those bytes of the file; EOFError where it ends before."""

_WIDTH, _HEIGHT, _STRIP_OFFSETS, _SAMPLES, _ROWS_PER_STRIP, _STRIP_BYTES, _PLANAR = 256, 257, 273, 277, 278, 279, 284
_COMPRESSION, _DEFLATE = 259, (8, 32946)
_BITS, _PHOTOMETRIC, _FILL_ORDER, _ORIENTATION, _PREDICTOR, _FORMAT = 258, 262, 266, 274, 317, 339
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_BYTES = 322, 323, 324, 325
_SUBFILE, _REDUCED, _MASK = 254, 1, 4
_PLACES = frozenset({_STRIP_OFFSETS, _STRIP_BYTES, _TILE_OFFSETS, _TILE_BYTES})
_USUAL = {_COMPRESSION: 1, _PREDICTOR: 1, _BITS: 1, _FORMAT: 1, _PHOTOMETRIC: 1, _FILL_ORDER: 1, _ORIENTATION: 1}
"""What decides how values stand in blocks, and what holds where the directory does not say."""
_TAKEN = {_WIDTH, _HEIGHT, _SAMPLES, _ROWS_PER_STRIP, _PLANAR, _TILE_WIDTH, _TILE_HEIGHT, *_PLACES, *_USUAL}
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""TIFF type -> bytes per value."""
_INTEGERS = {1: "u1", 3: "u2", 4: "u4", 16: "u8", 13: "u4", 18: "u8"}
_MOST_ENTRIES, _MOST_DIRECTORIES = 4096, 256
_MOST_PLACES, _MOST_TOLD = 1 << 24, 1 << 20
"""Bytes that a directory may name: the places of a million blocks, and of all else 32 times what is usual."""
_MOST_UNPACKED, _MOST_PLAIN = 1 << 26, 1 << 28
"""Bytes of a block: compressed ones may come from next to nothing."""


class NotTiffError(ValueError):
    """Raised where a file is of another format."""


@dataclass(frozen=True, eq=False)
class Blocks:
    """The compressed blocks of the first band at full resolution: tiles, or strips of whole rows."""

    width: int
    height: int
    block_width: int
    block_height: int
    starts: np.ndarray
    """Integer (rows * columns,): first byte in the file, row by row; 0 where the block was never written."""
    lengths: np.ndarray
    deflated: bool = False
    """Whether the blocks are zlib streams, which end with a checksum."""
    tiled: bool = True
    """Strips end with the image, tiles do not."""
    plain: bool = False
    """Whether the blocks are not compressed."""
    row_bytes: int = 0
    """Bytes of a row of a block once it is decompressed."""
    values: np.dtype[Any] | None = None
    """Type of the values in a deflated block, byte order included; None: unusual, and for GDAL to decode."""
    differences: bool = False
    """Whether each value but the first of a row is stored as the difference from the one before it (predictor 2)."""
    description: bytes = b""
    """All that the directory says of the image, but for where its blocks lie; empty where it is out of order."""
    pointer: tuple[int, bytes] = (0, b"")
    """First byte and bytes that lead a TIFF library to the directory."""
    mask: Blocks | None = None
    """The mask of the image: 0 where it has no data."""

    @property
    def columns(self) -> int:
        return -(-self.width // self.block_width)

    @property
    def block(self) -> tuple[int, int]:
        """Return rows and columns of a block."""
        return self.block_height, self.block_width

    def rows(self, number: int) -> int:
        """Return the rows of a block: fewer of the last strip."""
        left = self.height - number // self.columns * self.block_height
        return self.block_height if self.tiled else min(self.block_height, left)

    def nbytes(self, number: int) -> int:
        """Return the bytes that a block must have once it is decompressed."""
        return self.rows(number) * self.row_bytes

    @property
    def most_bytes(self) -> int:
        """Return the bytes that a block may have: some writers fill up the last strip."""
        return self.block_height * self.row_bytes

    def under(self, rows: tuple[int, int], columns: tuple[int, int]) -> list[int]:
        """Return the numbers of the blocks that hold pixels of these half-open ranges."""
        first, last = rows[0] // self.block_height, -(-rows[1] // self.block_height)
        left, right = columns[0] // self.block_width, -(-columns[1] // self.block_width)
        return [row * self.columns + column for row in range(first, last) for column in range(left, right)]

    def written(self, windows: Iterable[PixelWindow]) -> list[int]:
        """Return the numbers of the blocks under these windows that were ever written."""
        return [n for window in windows for n in self.under(*window.toranges()) if self.lengths[n]]


def find_blocks(fetch: Fetch) -> Blocks:
    """Read the directories of the first image and of its mask with all their values.

    NotTiffError where the bytes are no TIFF, ValueError or EOFError where they are no sound one. Afterwards `fetch` has
    seen every byte that a TIFF library needs to describe image and mask.
    """
    order = {b"II": "<", b"MM": ">"}.get(fetch(0, 2))
    if order is None:
        raise NotTiffError("it is not a TIFF file")
    (version,) = struct.unpack(order + "H", fetch(2, 2))
    if version not in (42, 43):
        raise NotTiffError(f"it is not a TIFF file (version {version})")
    big = version == 43
    at, length = (8, 8) if big else (4, 4)
    where = order + ("Q" if big else "I")
    (first,) = struct.unpack(where, fetch(at, length))
    directory = _Directory.read(fetch, first, order, big)
    image, known = directory.blocks(fetch), {first}
    if _without_mask(fetch(at + length, min(_MOST_ENTRIES, max(0, first - at - length)))):
        return image
    while directory.next not in (0, *known) and len(known) < _MOST_DIRECTORIES:
        known.add(directory.next)
        here, directory = directory.next, _Directory.read(fetch, directory.next, order, big)
        if directory.subfile & (_MASK | _REDUCED) == _MASK:
            mask = replace(directory.blocks(fetch), pointer=(at, struct.pack(where, here)))
            if (mask.width, mask.height) != (image.width, image.height):
                raise ValueError(f"its mask has {mask.height} x {mask.width} pixels")
            return replace(image, mask=mask)
    return image


def _without_mask(ghost: bytes) -> bool:
    """Return whether the bytes before the first directory promise that no mask follows: GDAL's COGs say so."""
    unchanged = b"LAYOUT=IFDS_BEFORE_DATA" in ghost and b"KNOWN_INCOMPATIBLE_EDITION=NO" in ghost
    return unchanged and b"MASK_INTERLEAVED" not in ghost


@dataclass(frozen=True, eq=False)
class _Directory:
    """The entries of an image directory, each with the bytes of its value or of the place of its value."""

    entries: Sequence[bytes]
    next: int
    """First byte of the directory that follows; 0: none."""
    order: str
    big: bool

    @classmethod
    def read(cls, fetch: Fetch, at: int, order: str, big: bool) -> _Directory:
        where, number, count_size, entry_size = ("Q", 8, 8, 20) if big else ("I", 4, 2, 12)
        (entries,) = struct.unpack(order + ("Q" if big else "H"), fetch(at, count_size))
        if not 0 < entries <= _MOST_ENTRIES:
            raise ValueError(f"one of its directories claims {entries} entries")
        table = fetch(at, count_size + entries * entry_size + number)[count_size:]
        (following,) = struct.unpack(order + where, table[-number:])
        return cls([table[n * entry_size : (n + 1) * entry_size] for n in range(entries)], following, order, big)

    @property
    def subfile(self) -> int:
        """Return what the directory says it is: bits of a reduced image (1), of a mask (4)."""
        for entry in self.entries:
            if (tag := struct.unpack(self.order + "HH", entry[:4]))[0] == _SUBFILE and tag[1] in (3, 4):
                value = entry[12:] if self.big else entry[8:]
                return int(struct.unpack_from(self.order + ("H" if tag[1] == 3 else "I"), value)[0])
        return 0

    def blocks(self, fetch: Fetch) -> Blocks:
        """Return the blocks of the image."""
        where, number = ("Q", 8) if self.big else ("I", 4)
        values: dict[int, np.ndarray] = {}
        told: dict[int, bytes] = {}
        places = others = 0
        for entry in self.entries:
            tag, kind, count = struct.unpack(self.order + "HH" + where, entry[: 4 + number])
            size = _SIZES.get(kind, 1) * count
            places, others = (places + size, others) if tag in _PLACES else (places, others + size)
            if places > _MOST_PLACES or others > _MOST_TOLD:
                raise ValueError(f"one of its directories claims {places + others} bytes up to tag {tag}")
            data = entry[4 + number : 4 + number + size]
            if size > number:
                data = fetch(struct.unpack(self.order + where, entry[4 + number :])[0], size)
            if tag in _TAKEN and kind in _INTEGERS:
                values[tag] = np.frombuffer(data, self.order + _INTEGERS[kind], count)
            told[tag] = entry[: 4 + number] + (b"" if tag in _PLACES else data)
        in_order = len(told) == len(self.entries) and list(told) == sorted(told)
        return _blocks(values, told, self.order if in_order else None)


def _blocks(values: dict[int, np.ndarray], told: dict[int, bytes], order: str | None) -> Blocks:
    """Return the blocks from integer tags, the bytes of all tags, and byte order (None: tags are not sorted)."""

    def one(tag: int, default: int | None = None) -> int:
        if tag in values and len(values[tag]):
            return int(values[tag][0])
        if default is None:
            raise ValueError(f"tag {tag} is missing")
        return default

    width, height = one(_WIDTH), one(_HEIGHT)
    tiled = _TILE_OFFSETS in values
    if tiled:
        starts, lengths = values[_TILE_OFFSETS], values.get(_TILE_BYTES)
        block = one(_TILE_WIDTH), one(_TILE_HEIGHT)
    else:
        starts, lengths = values.get(_STRIP_OFFSETS), values.get(_STRIP_BYTES)  # type: ignore[assignment]
        block = width, min(one(_ROWS_PER_STRIP, height), height)
    if starts is None or lengths is None or 0 in (width, height, *block):
        raise ValueError("it does not say where its pixels are")
    samples, planar = one(_SAMPLES, 1), one(_PLANAR, 1)
    compression, planes = one(_COMPRESSION, 1), samples if planar == 2 else 1
    bits = values.get(_BITS, np.ones(1, np.uint16)).astype(np.int64)
    bits_per_pixel = int(bits[0]) if planes > 1 else int(bits[:samples].sum() if len(bits) > 1 else bits[0] * samples)
    found = Blocks(
        width,
        height,
        *block,
        starts,
        lengths,
        compression in _DEFLATE,
        tiled,
        compression == 1,
        -(-block[0] * bits_per_pixel // 8),
        _type(values, told, order) if samples == 1 or planar == 2 else None,
        one(_PREDICTOR, 1) == 2,
        b"".join([order.encode(), *told.values()]) if order else b"",
    )
    if not 0 < found.most_bytes <= (_MOST_PLAIN if found.plain else _MOST_UNPACKED):
        raise ValueError(f"one of its blocks claims {found.most_bytes} bytes")
    expected = found.columns * -(-height // block[1])
    if len(starts) < expected * planes or len(lengths) != len(starts):
        raise ValueError(f"it lists {len(starts)} blocks where {expected * planes} are needed")
    return found


def _type(values: dict[int, np.ndarray], told: dict[int, bytes], order: str | None) -> np.dtype[Any] | None:
    """Return the dtype of pixels in deflated blocks; None if GDAL must decode an unusual format."""
    if order is None or any(tag in told and not len(values.get(tag, ())) for tag in _USUAL):
        return None
    says = [set(values[tag].tolist()) if tag in values else {default} for tag, default in _USUAL.items()]
    if any(len(of_all_bands) > 1 for of_all_bands in says):
        return None
    compression, predictor, bits, kind, photometric, *others = (value for (value,) in says)
    name = {(8, 1): "u1", (16, 1): "u2", (32, 3): "f4"}.get((bits, kind))
    usual = compression in _DEFLATE and predictor in (1, 2) and photometric in (1, 2) and others == [1, 1]
    return np.dtype(order + name) if name and usual else None
