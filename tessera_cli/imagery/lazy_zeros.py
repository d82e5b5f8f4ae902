"""Large arrays of zeros that take memory only where they are written."""

from __future__ import annotations

import math
import mmap

import numpy as np
from numpy.typing import DTypeLike


def lazy_zeros(shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
    """Return zeros that take memory only where written. Large arrays of `np.zeros` use pages of 2 MB on Linux: a small
    area would take the memory of a whole tile, and clearing it longer than reading the files."""
    count = math.prod(shape)
    if count == 0:
        return np.zeros(shape, dtype)
    memory = mmap.mmap(-1, count * np.dtype(dtype).itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return np.frombuffer(memory, dtype).reshape(shape)
