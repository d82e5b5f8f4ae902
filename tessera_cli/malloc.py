"""What glibc's malloc does with memory that is freed; other C libraries are left alone."""

from __future__ import annotations

import ctypes
import functools

BLOCK = 1 << 25
"""Larger blocks, such as the arrays of a tile, go back to the kernel at once."""
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3


@functools.cache
def keep_freed_blocks(most: int, *, ahead: int = 0) -> None:
    """Let malloc keep up to `most` bytes of freed blocks for those who ask for the same sizes again.

    glibc would give them back to the kernel and fetch them anew: the page faults, one for every 4 kB, cost several
    times what the sums in them do. `ahead`: bytes fetched at once beyond what is asked for.
    """
    if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        mallopt(_M_MMAP_THRESHOLD, BLOCK)
        mallopt(_M_TRIM_THRESHOLD, most)
        if ahead:
            mallopt(_M_TOP_PAD, ahead)
