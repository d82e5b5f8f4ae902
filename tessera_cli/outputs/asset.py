"""A written file of a tile, and the check that it still holds what was written."""

from __future__ import annotations

import hashlib
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tessera_cli.errors import TileError
from tessera_cli.files import sha256_of
from tessera_cli.outputs.layers import Role


@dataclass(frozen=True)
class Asset:
    """A written file of a tile."""

    name: str
    """Its path in the folder."""
    size: int
    """Bytes."""
    sha256: str
    role: Role | None = None
    """The layer it holds; None for a file of a store."""

    def __post_init__(self) -> None:
        """Raise ValueError for a name that leads out of the folder, as a folder of somebody else's may hold."""
        if "\0" in self.name or any(part in ("", ".", "..") for part in self.name.split("/")):
            raise ValueError(f"{self.name} is no file of the folder")

    @classmethod
    def of(cls, role: Role, name: str, data: bytes | memoryview) -> Asset:
        """Describe a file from its bytes."""
        return cls(name, len(data), hashlib.sha256(data).hexdigest(), role)

    def verified(self, folder: Path, *, recorded_at: int | None = None) -> Path:
        """Return its path in `folder` after comparing its bytes; TileError if they differ.

        `recorded_at`: the time of its tile's record, in nanoseconds. A file of the recorded size that is no newer is
        not read.
        """
        path = folder / self.name
        try:
            if recorded_at is not None:
                there = path.stat()
                if there.st_size != self.size:
                    raise damaged(path, f"it has {there.st_size:,} bytes, not {self.size:,}")
                # a clock that was ahead proves nothing
                if stat.S_ISREG(there.st_mode) and there.st_mtime_ns <= recorded_at <= time.time_ns():
                    return path
            digest = sha256_of(path)
        except OSError as error:
            raise damaged(path, f"it cannot be read: {error.strerror or error}") from error
        if digest != self.sha256:
            raise damaged(path, f"its SHA-256 is {digest[:12]}..., not {self.sha256[:12]}...")
        return path


def damaged(path: Path, why: str) -> TileError:
    """Return the error for a file that is not what its tile's record says."""
    return TileError(f"{path} is damaged: {why}. Remove it and run again.")


def check_scales(path: Path, scales: np.ndarray) -> None:
    """Raise TileError unless all scales in the file are finite and positive."""
    if not (np.isfinite(scales) & (scales > 0)).all():
        raise damaged(path, "some scales are not finite and positive")


def check_uncertainty(path: Path, values: np.ndarray, missing: np.ndarray) -> None:
    """Raise TileError unless uncertainties lie within 0 and 0.5 or are NaN, as they are without an embedding.

    `missing`: bool, the pixels without one.
    """
    told = ~np.isnan(values)
    if (told & missing).any():
        raise damaged(path, "some pixels without an embedding hold an uncertainty")
    if not ((values[told] >= 0) & (values[told] <= 0.5)).all():
        raise damaged(path, "some uncertainties are not within 0 and 0.5")


def check_layout(path: Path, layout: Mapping[str, tuple[object, object]]) -> None:
    """Raise TileError where a property of the file is not the expected one: name -> actual, expected."""
    for what, (actual, due) in layout.items():
        if actual != due:
            raise damaged(path, f"its {what} is {actual}, not {due}")
