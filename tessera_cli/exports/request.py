"""What is to be exported, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from tessera_cli.embeddings.folder import EmbeddingFolder
from tessera_cli.exports.mosaic import Mosaic
from tessera_cli.outputs.geotiff import Compress
from tessera_cli.outputs.layers import Dtype
from tessera_cli.outputs.tags import model_tags, window_tags

Target = Literal["cog", "zarr", "npy", "geotessera", "torchgeo"]
Resampling = Literal["nearest", "bilinear"]


@dataclass(frozen=True, eq=False)
class ExportRequest:
    """A folder as mosaics, and the settings of the target."""

    folder: EmbeddingFolder
    mosaics: tuple[Mosaic, ...]
    dtype: Dtype
    compress: Compress = "deflate"
    crs: str | None = None
    """Of the result; None: that of the tiles."""
    resolution: float | None = None
    resampling: Resampling = "nearest"

    @property
    def dims(self) -> int:
        return self.folder.first.dims

    def tags(self, mosaic: Mosaic) -> Mapping[str, str]:
        """Return the tags of a raster."""
        first = self.folder.first
        return {**model_tags(first.identity, first.note), **window_tags(mosaic.window)}
