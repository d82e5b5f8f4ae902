"""d-pixels on disk, before they are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tessera_cli.dpixels.dpixel import DPixels, tile_name
from tessera_cli.extent.grid import AnyTile, unpack_mask
from tessera_cli.extent.window import Window


@dataclass(frozen=True)
class Stored:
    """The d-pixels of one tile and window on disk: all that is known of them without their observations."""

    path: Path
    tile: AnyTile
    window: Window | None
    """None: the year is not known, only days of year."""
    source: str | None
    preprocessing: str
    packed: bytes
    """The pixels asked for, as `pack_mask` makes it: a run may keep thousands of these."""
    input_digest: str
    """Digest of what they were made from."""
    load: Callable[[Path], DPixels] = field(repr=False)
    """Reads a path of this kind."""
    load_dates: Callable[[Path], Mapping[str, np.ndarray]] = field(repr=False)
    """Reads nothing but the dates, as those of DPixels."""
    missing_scenes: Mapping[str, str] = field(default_factory=dict)
    """Scene id -> why it could not be read; official folders do not say."""

    @property
    def name(self) -> str:
        """`<tile>_<window>`, or the name of an official folder: that of the d-pixels, whatever the path is called."""
        return tile_name(self.tile, self.window)

    @property
    def pixels(self) -> np.ndarray:
        """bool (H, W): the pixels asked for."""
        return unpack_mask(self.packed, self.tile.shape)

    def read(self) -> DPixels:
        """The observations as well; TileError where they are damaged."""
        return self.load(self.path)

    @property
    def dates(self) -> Mapping[str, np.ndarray]:
        """Sensor -> dates of its frames; TileError where they are damaged."""
        return self.load_dates(self.path)
