"""Scenes + tile -> arrays, through odc-stac; and what happens when a file cannot be read."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import odc.stac
import rasterio
from odc.geo.geobox import GeoBox
from rasterio.errors import RasterioError

from tessera_cli.catalog import Scene, Signer
from tessera_cli.errors import SourceUnavailableError
from tessera_cli.grid import Tile

log = logging.getLogger(__name__)

GDAL_OPTIONS: Mapping[str, str | int] = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_HTTP_MAX_RETRY": "5",
    "GDAL_HTTP_RETRY_DELAY": "0.5",
    "GDAL_HTTP_CONNECTTIMEOUT": "20",
    "GDAL_HTTP_TIMEOUT": "120",
    "GDAL_CACHEMAX": 128 * 2**20,  # bytes; GDAL itself takes 5 % of the host's memory
}
"""Defaults; whatever the user's environment sets wins (see `config.gdal_options`)."""

GROUP_BYTES = 96 * 2**20
"""Raw pixels held by one odc call: scenes are read in groups of this size."""


class HoleError(Exception):
    """Scenes of a read whose data is absent or broken: id -> reason."""

    def __init__(self, holes: Mapping[str, str]) -> None:
        super().__init__(", ".join(f"{scene}: {why}" for scene, why in holes.items()))
        self.holes = dict(holes)


@dataclass(frozen=True)
class Reader:
    """How pixels are read; shared by all tiles of a run."""

    signer: Signer
    threads: int = 8
    """Files read side by side within one odc call."""
    gdal_options: Mapping[str, str | int] = field(default_factory=lambda: GDAL_OPTIONS)

    def read(
        self, scenes: Sequence[Scene], assets: Sequence[str], tile: Tile, *, dtype: str, resampling: str
    ) -> Iterator[tuple[Scene, np.ndarray]]:
        """Each scene with its array (len(assets), H, W) of `dtype` on the tile's grid, in the order given.

        The file's own nodata decides what is no data. One odc call per group of scenes and all assets.
        Raises HoleError when files are absent or broken, SourceUnavailableError when that is not certain.
        """
        layer_bytes = tile.shape[0] * tile.shape[1] * np.dtype(dtype).itemsize * len(assets)
        size = max(1, GROUP_BYTES // layer_bytes)
        for start in range(0, len(scenes), size):
            group = scenes[start : start + size]
            yield from zip(group, self._read_group(group, assets, tile, dtype, resampling), strict=True)

    def _read_group(
        self, scenes: Sequence[Scene], assets: Sequence[str], tile: Tile, dtype: str, resampling: str
    ) -> Iterator[np.ndarray]:
        incomplete = {
            s.id: f"asset {', '.join(s.missing)} is not listed" for s in scenes if set(s.missing) & set(assets)
        }
        if incomplete:
            raise HoleError(incomplete)
        try:
            loaded = self._load(scenes, assets, tile, dtype, resampling)
        except RasterioError as error:
            self._explain(scenes, assets, tile, dtype, resampling, error)
            raise AssertionError from error  # _explain always raises
        return (np.stack([layer[i] for layer in loaded]) for i in range(len(scenes)))

    def _load(
        self, scenes: Sequence[Scene], assets: Sequence[str], tile: Tile, dtype: str, resampling: str
    ) -> list[np.ndarray]:
        height, width = tile.shape
        with rasterio.Env(**self.gdal_options):
            data = odc.stac.load(
                [scene.stac for scene in scenes],
                bands=list(assets),
                geobox=GeoBox((height, width), tile.transform, tile.crs),
                groupby="id",
                dtype=dtype,
                resampling=resampling,
                patch_url=self.signer,
                pool=self.threads,
                fail_on_error=True,
            )
        return [data[asset].values for asset in assets]

    def _explain(
        self, scenes: Sequence[Scene], assets: Sequence[str], tile: Tile, dtype: str, resampling: str, error: Exception
    ) -> None:
        """Find the scenes that a failed group read stumbled over, one by one; always raises."""
        holes: dict[str, str] = {}
        for scene in scenes:
            for asset in assets:
                try:
                    self._load([scene], [asset], tile, dtype, resampling)
                except RasterioError as fault:
                    href = scene.item["assets"][asset]["href"]
                    holes[scene.id] = f"{asset} {_why(href, fault)}"
                    break
        if holes:
            raise HoleError(holes)
        raise SourceUnavailableError(f"A read failed and then worked: {error}. Run the command again.") from error


def _why(href: str, fault: Exception) -> str:
    """`absent` or `broken`; anything that is not proven to be one of them is no hole."""
    if "://" in href:
        if any(code in str(fault) for code in ("404", "410")):
            return "is absent"
        raise SourceUnavailableError(f"{href} cannot be read: {fault}. Try again later.") from fault
    path = Path(href)
    if not path.exists():
        return "is absent"
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            while file.read(2**20):  # the bytes are there: the fault is in what they say
                pass
    except OSError as error:
        raise SourceUnavailableError(f"{href} cannot be read: {error}. Run the command again.") from error
    return f"is broken ({size} bytes that do not decode)"
