"""One piece of a run's work: one tile in one window."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tessera_cli.dpixels.dpixel import tile_name
from tessera_cli.extent.grid import AnyTile, unpack_mask
from tessera_cli.extent.window import Window


@dataclass(frozen=True, eq=False)
class Task:
    """A tile in a window, and the pixels of it that were asked for."""

    tile: AnyTile
    window: Window | None
    packed: bytes
    """The mask as `pack_mask` makes it: a large run keeps thousands of these."""

    @property
    def name(self) -> str:
        return tile_name(self.tile, self.window)

    @property
    def pixels(self) -> np.ndarray:
        """bool (H, W)"""
        return unpack_mask(self.packed, self.tile.shape)
