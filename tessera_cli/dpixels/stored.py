"""d-pixels on disk, before they are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tessera_cli.dpixels.dpixel import DPixels
from tessera_cli.errors import TileError
from tessera_cli.extent.grid import TileRequest


@dataclass(frozen=True, eq=False)
class Stored(TileRequest):
    """The d-pixels that answer a request, on disk: a Zarr store or an official tile folder, described but not read.

    The name is that of the d-pixels, whatever the path is called.
    """

    path: Path
    source: str | None
    preprocessing: str
    input_digest: str
    """Digest of the scenes, or files, that they were made from."""
    load: Callable[[Path], DPixels] = field(repr=False)
    """Reads a path of this kind."""
    load_dates: Callable[[Path], Mapping[str, np.ndarray]] = field(repr=False)
    """Reads nothing but the dates, as those of DPixels."""
    missing_scenes: Mapping[str, str] = field(default_factory=dict)
    """Scene id -> why it could not be read; official folders do not say."""
    error: TileError | None = None
    """Why it cannot be described. Then name and shape are as far as they are known, and no pixels are asked for."""

    def read(self) -> DPixels:
        """Read the observations; TileError where they are damaged."""
        if self.error is not None:
            raise self.error
        return self.load(self.path)

    @property
    def dates(self) -> Mapping[str, np.ndarray]:
        """Read sensor -> dates of its frames; TileError where they are damaged."""
        if self.error is not None:
            raise self.error
        return self.load_dates(self.path)
