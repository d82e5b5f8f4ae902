"""The pixels of one finished tile of embeddings, in any format that `embed` writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterWindow

from tessera_cli.arrays import map_array
from tessera_cli.errors import TileError, plainly
from tessera_cli.extent.raster import open_raster
from tessera_cli.outputs.asset import damaged
from tessera_cli.outputs.item import TileRecord
from tessera_cli.outputs.layers import Role
from tessera_cli.outputs.vectors import expanded

Box = tuple[slice, slice]
"""Rows and columns of a tile."""


@dataclass(frozen=True, eq=False)
class StoredTile:
    """A finished tile that holds embeddings, and the folder in which its files lie.

    Its files are not compared with their checksums, which `tessera verify` does. Every reading method raises TileError
    for a file that is absent or cannot be read.
    """

    record: TileRecord
    folder: Path

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def item_path(self) -> Path:
        """Return the path of the tile's STAC item."""
        return self.folder / f"{self.name}.json"

    @property
    def whole(self) -> Box:
        height, width = self.record.tile.shape
        return slice(0, height), slice(0, width)

    def stored(
        self, box: Box | None = None, bands: Sequence[int] | None = None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Read what is stored: codes int8 (R, h, w) and their scales float32 (h, w), or float32 values and None.

        Args:
            box: rows and columns; None reads the whole tile.
            bands: numbers of the dimensions, from 0; None reads all.

        Returns:
            A pixel without an embedding has a scale of NaN, or values of NaN; what its codes are depends on the format.
        """
        values = self._read("emb", box, bands)
        return values, self._read("scales", box, None)[0] if self.record.dtype == "int8" else None

    def values(self, box: Box | None = None, bands: Sequence[int] | None = None) -> np.ndarray:
        """Read embeddings: float32 (R, h, w), NaN where there is none; arguments as those of `stored`."""
        values, scales = self.stored(box, bands)
        return values if scales is None else values.astype(np.float32) * scales

    def valid(self, box: Box | None = None) -> np.ndarray:
        """Read which pixels have an embedding: bool (h, w)."""
        one = self._read("scales", box, None) if self.record.dtype == "int8" else self._read("emb", box, [0])
        return ~np.isnan(one[0])

    def counts(self, box: Box | None = None) -> np.ndarray:
        """Read the observations used: uint16 (3, h, w) in the order of SENSORS, 65535 where none were asked for."""
        if self.record.counts is not None:  # arrays, which have no file of them
            return self.record.counts[(slice(None), *(box or self.whole))]
        return self._read("counts", box, None)

    def uncertainty(self, box: Box | None = None) -> np.ndarray:
        """Read how far other dates would move each embedding, float32 (h, w); NaN where that is not known."""
        if not self.record.identity.get("uncertainty"):
            rows, columns = box or self.whole
            return np.full((rows.stop - rows.start, columns.stop - columns.start), np.nan, np.float32)
        return self._read("uncertainty", box, None)[0]

    def _read(self, role: Role, box: Box | None, bands: Sequence[int] | None) -> np.ndarray:
        """Read a layer: (bands, h, w)."""
        rows, columns = box or self.whole
        path = self._path(role)
        try:
            if self.record.format != "geotiff":
                array = map_array(path)
                if self.record.format == "vectors":
                    array = expanded(array, self.record.requested, (rows, columns))
                else:
                    array = array[rows, columns]
                array = array if role == "emb" else array[..., None]
                return np.ascontiguousarray(np.moveaxis(array if bands is None else array[..., bands], -1, 0))
            with open_raster(path) as dataset:
                window = RasterWindow.from_slices(rows, columns)
                return dataset.read(None if bands is None else [band + 1 for band in bands], window=window)
        except (OSError, ValueError, IndexError, RasterioError) as error:
            raise damaged(path, f"it cannot be read: {plainly(error)}") from error

    def _path(self, role: Role) -> Path:
        for asset in self.record.assets:
            if asset.role == role:
                return self.folder / asset.name
        raise TileError(f"{self.item_path} lists no file of {role}. Run the command that wrote it again.")
