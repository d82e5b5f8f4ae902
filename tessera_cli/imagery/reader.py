"""Scenes + tile -> arrays, through odc-stac; and what happens when a file cannot be read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import odc.stac
import pystac
import rasterio
import requests
import shapely
from odc.geo.geobox import GeoBox

from tessera_cli.catalog import Scene, Signer
from tessera_cli.catalog.http import error_for, unreachable
from tessera_cli.errors import SourceUnavailableError, TesseraError
from tessera_cli.grid import Tile

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

_HTTP_STATUS = re.compile(r"HTTP (?:response|error) code\D{0,3}(\d{3})")


@dataclass(frozen=True)
class BandSet:
    """Assets that are read together, and how."""

    assets: tuple[str, ...]
    dtype: str
    resampling: str

    def nbytes(self, tile: Tile) -> int:
        """Of one scene on the tile's grid."""
        return tile.shape[0] * tile.shape[1] * np.dtype(self.dtype).itemsize * len(self.assets)


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

    def read(self, scenes: Sequence[Scene], bands: BandSet, tile: Tile) -> Iterator[np.ndarray]:
        """Per scene, in the order given, its (len(bands.assets), H, W) on the tile's grid.

        The file's own nodata decides what is no data. One odc call per group of scenes and all assets.
        Raises HoleError when files are absent or broken; another error when that is not certain.
        """
        size = max(1, GROUP_BYTES // bands.nbytes(tile))
        for start in range(0, len(scenes), size):
            yield from self._read_group(scenes[start : start + size], bands, tile)

    def _read_group(self, scenes: Sequence[Scene], bands: BandSet, tile: Tile) -> Iterator[np.ndarray]:
        incomplete = {
            scene.id: f"asset {', '.join(absent)} is not listed"
            for scene in scenes
            if (absent := [key for key in bands.assets if key in scene.missing])
        }
        if incomplete:
            raise HoleError(incomplete)
        try:
            layers = self._load(scenes, bands, tile)
        except (TesseraError, MemoryError):
            raise
        except Exception as error:  # GDAL, odc-stac and the signer raise many kinds
            raise self._explained(scenes, bands, tile, error) from error
        return (np.stack([layer[i] for layer in layers]) for i in range(len(scenes)))

    def _load(self, scenes: Sequence[Scene], bands: BandSet, tile: Tile) -> list[np.ndarray]:
        with rasterio.Env(**self.gdal_options):
            data = odc.stac.load(
                [_odc_item(scene, bands, tile) for scene in scenes],
                bands=list(bands.assets),
                geobox=GeoBox(tile.shape, tile.transform, tile.crs),
                groupby="id",
                dtype=bands.dtype,
                resampling=bands.resampling,
                patch_url=self.signer,
                pool=self.threads,
                fail_on_error=True,
            )
        return [data[asset].values for asset in bands.assets]

    def _explained(self, scenes: Sequence[Scene], bands: BandSet, tile: Tile, error: Exception) -> Exception:
        """Find the scenes that a failed group read stumbled over, file by file."""
        holes: dict[str, str] = {}
        for scene in scenes:
            for asset in bands.assets:
                try:
                    self._load([scene], BandSet((asset,), bands.dtype, bands.resampling), tile)
                except (TesseraError, MemoryError):
                    raise
                except Exception as fault:
                    holes[scene.id] = f"{asset} {_why(scene.item['assets'][asset]['href'], fault)}"
                    break
        if holes:
            return HoleError(holes)
        return SourceUnavailableError(f"A read failed and then worked: {error}. Run the command again.")


def _odc_item(scene: Scene, bands: BandSet, tile: Tile) -> pystac.Item:
    """What odc-stac is told of a scene: the hrefs.

    Footprints and projections of catalogues are at times absent or wrong, and odc-stac would skip or refuse such
    scenes. Which scenes lie on the tile is decided already, and the files know their own grids.
    """
    outline = shapely.geometry.mapping(tile.outline)
    item = pystac.Item(scene.id, outline, list(tile.outline.bounds), scene.time, {}, collection=scene.collection)
    for key in bands.assets:
        href = scene.item["assets"][key]["href"]
        item.add_asset(key, pystac.Asset(href, media_type="image/tiff", roles=["data"]))
    return item


def _why(href: str, fault: Exception) -> str:
    """`is absent` or `is broken`; raises for anything that is not proven to be one of them."""
    if isinstance(fault, requests.RequestException):
        raise unreachable(href, fault) from fault  # the signer's question, not the file
    if "://" in href or href.startswith("/vsi"):
        found = _HTTP_STATUS.search(str(fault).replace(href, ""))
        status = int(found[1]) if found else None
        if status in (404, 410):
            return "is absent"
        raise error_for(status, href) from fault
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
