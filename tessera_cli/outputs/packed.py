"""Arrays of a tile that its record keeps packed: the records of thousands of tiles are in memory at a time."""

from __future__ import annotations

import functools
import zlib
from dataclasses import dataclass
from typing import overload

import numpy as np

from tessera_cli.dpixels.dpixel import SENSORS
from tessera_cli.extent.grid import check_shape, pack_mask, unpack_mask
from tessera_cli.outputs.layers import requested_counts
from tessera_cli.reading import inflate


@dataclass(frozen=True)
class PackedMask:
    """A bool array (H, W), as `pack_mask` packs it."""

    data: bytes
    shape: tuple[int, int]

    def array(self) -> np.ndarray:
        """Unpack it, to be read; ValueError where the data are of another shape."""
        return _mask(self)


@dataclass(frozen=True)
class PackedCounts:
    """A uint16 array (3, H, W), in the order of SENSORS: zlib of little-endian numbers."""

    data: bytes
    shape: tuple[int, int]

    def array(self) -> np.ndarray:
        """Unpack it, to be read; ValueError where the data are of another shape."""
        return _counts(self)


@functools.lru_cache(maxsize=64)  # of a large area most tiles are whole, and share one
def _mask(packed: PackedMask) -> np.ndarray:
    return _to_read(unpack_mask(packed.data, packed.shape))


@functools.lru_cache(maxsize=4)  # a tile is read block after block
def _counts(packed: PackedCounts) -> np.ndarray:
    counts = np.frombuffer(inflate(packed.data, 2 * len(SENSORS) * check_shape(packed.shape)), "<u2")
    return _to_read(counts.astype(np.uint16).reshape(len(SENSORS), *packed.shape))


def _to_read(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


class MaskField:
    """The pixels asked for, a field of the record: packed when it is set, unpacked when it is read."""

    @overload
    def __get__(self, record: None, owner: type) -> MaskField: ...
    @overload
    def __get__(self, record: object, owner: type) -> np.ndarray: ...
    def __get__(self, record: object | None, owner: type) -> MaskField | np.ndarray:
        if record is None:
            raise AttributeError  # the field has no default
        packed: PackedMask = record.__dict__["requested"]
        return packed.array()

    def __set__(self, record: object, value: np.ndarray | PackedMask) -> None:
        made = value if isinstance(value, PackedMask) else PackedMask(pack_mask(value), value.shape)
        record.__dict__["requested"] = made


class CountsField:
    """The observations used, a field of the record after that of the pixels asked for: those of other pixels go."""

    @overload
    def __get__(self, record: None, owner: type) -> None: ...
    @overload
    def __get__(self, record: object, owner: type) -> np.ndarray | None: ...
    def __get__(self, record: object | None, owner: type) -> np.ndarray | None:
        packed: PackedCounts | None = None if record is None else record.__dict__["counts"]
        return None if packed is None else packed.array()

    def __set__(self, record: object, value: np.ndarray | PackedCounts | None) -> None:
        if isinstance(value, np.ndarray):
            requested: PackedMask = record.__dict__["requested"]
            kept = requested_counts(value, requested.array()).astype("<u2")
            value = PackedCounts(zlib.compress(kept.tobytes(), 6), requested.shape)
        record.__dict__["counts"] = value


REQUESTED, COUNTS = MaskField(), CountsField()
