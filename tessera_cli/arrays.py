"""`.npy` files of others: read only where the header is what NumPy writes and fits the length of the file.

NumPy itself evaluates the header as Python, allocates what it claims, and reads on behind a header of wrong length.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from tessera_cli.reading import open_file

_MAGIC = b"\x93NUMPY"
_HEADER = re.compile(
    rb"\{'descr': ?'(?P<type>[<|][biuf]\d|<U\d{1,4})', ?'fortran_order': ?(?P<order>True|False), ?"
    rb"'shape': ?\((?P<shape>(\d{1,12}(, ?\d{1,12})*,?)?)\),? ?\} *\n"
)
_LONGEST = 4096
"""Bytes of a header; those of our arrays have 118."""


class Layout(NamedTuple):
    """What the header of a file says."""

    version: tuple[int, int]
    dtype: np.dtype
    shape: tuple[int, ...]
    fortran: bool
    start: int
    """Bytes before the values."""


def read_layout(path: Path) -> Layout:
    """Return what the header says. OSError, also for what is no file; ValueError unless header and length agree."""
    with open_file(path) as file:
        return layout_of(file, os.fstat(file.fileno()).st_size)


def read_array(path: Path) -> np.ndarray:
    """Return the values in C order, in memory of their own. Errors as those of `read_layout`."""
    with open_file(path) as file:
        layout = layout_of(file, os.fstat(file.fileno()).st_size)
        count = math.prod(layout.shape)
        file.seek(layout.start)
        values = np.fromfile(file, layout.dtype, count)
    if len(values) != count:
        raise ValueError("it was cut while it was read")
    return np.ascontiguousarray(values.reshape(layout.shape, order="F" if layout.fortran else "C"))


def map_array(path: Path) -> np.ndarray:
    """Return the values, which are read when they are used. Errors as those of `read_layout`."""
    layout = read_layout(path)
    return np.memmap(path, layout.dtype, "r", layout.start, layout.shape, "F" if layout.fortran else "C")


def layout_of(file: IO[bytes], size: int, *, text: bool = False) -> Layout:
    """Return what the header of an open file of `size` bytes says, which is read; with `text` also that of text.

    ValueError unless header and size agree.
    """
    magic = file.read(8)
    if magic[:6] != _MAGIC or len(magic) < 8:
        raise ValueError("it does not begin as a NumPy array does")
    version = magic[6], magic[7]
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"it is of version {version[0]}.{version[1]} of the npy format")
    width = 2 if version == (1, 0) else 4
    length = int.from_bytes(file.read(width), "little")
    found = _HEADER.fullmatch(file.read(length)) if length <= _LONGEST else None
    if found is None:
        raise ValueError("its header is not that of an array of numbers")
    shape = tuple(int(side) for side in found["shape"].replace(b" ", b"").split(b",") if side)
    try:
        dtype = np.dtype(found["type"].decode())
    except TypeError:
        raise ValueError(f"its type {found['type'].decode()} does not exist") from None
    if dtype.kind == "U" and not text:
        raise ValueError("its header is not that of an array of numbers")
    start = 8 + width + length
    if (due := start + math.prod(shape) * dtype.itemsize) != size:
        raise ValueError(f"its header speaks of {due:,} bytes, and it has {size:,}")
    return Layout(version, dtype, shape, found["order"] == b"True", start)
