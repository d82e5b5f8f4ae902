"""What an export consists of: the parts that are written one after the other, and what they take on the disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Advance = Callable[[int], object]
"""Told how many more pixels are done."""


@dataclass(frozen=True)
class Part:
    """A file, or files that belong together, within the folder of an export."""

    names: tuple[str, ...]
    """Their paths below the folder; empty for what is no result of its own."""
    write: Callable[[Path, Advance], object]
    """Given the folder; it exists."""
    pixels: int = 0
    """That are gone through, of which `write` tells."""
    bytes: int = 0
    """On the disk when it is written, at most about."""
    scratch: int = 0
    """More while it is written."""
