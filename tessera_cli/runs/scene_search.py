"""The search before a run: cut the AOI into tiles and list their scenes. No pixel is read, nothing is written."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tessera_cli.catalog import Scenes, Source, get_source, search
from tessera_cli.errors import NothingToEmbedError, counted
from tessera_cli.extent.aoi import Aoi
from tessera_cli.extent.grid import TileRequest
from tessera_cli.extent.place import Place
from tessera_cli.extent.tiling import areas_by_zone, features_by_zone, tile_requests
from tessera_cli.extent.window import Window
from tessera_cli.net import Client
from tessera_cli.net.responses import redact
from tessera_cli.runs.folder import TileFolder

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """Area, windows and catalogue of a run."""

    aoi: Aoi
    windows: tuple[Window, ...]
    source: Source
    catalog: str | None = None
    radar_catalog: str | None = None
    epsg: int | None = None
    mask: Path | None = None
    fill_bbox: bool = False
    allow_no_radar: bool = False

    @property
    def name(self) -> str:
        """Return `<aoi>_<window>`."""
        return f"{self.aoi.name}_{'+'.join(window.name for window in self.windows)}"

    @functools.cached_property
    def place(self) -> Place:
        """Return where the AOI lies."""
        return Place.of(areas_by_zone(self.aoi, epsg=self.epsg))

    def of_source(self, name: str | None) -> Request:
        """Return the same request to another source; to the same one for None."""
        return self if name is None else dataclasses.replace(self, source=get_source(name))

    @property
    def digest(self) -> str:
        """Return the key of the run, by which the same request finds its frozen scenes again."""
        mask = hashlib.sha256(self.mask.read_bytes()).hexdigest() if self.mask else None
        parts: list[Any] = [self.aoi.digest, [w.name for w in self.windows], self.source.name, self.catalog]
        parts += [self.radar_catalog, self.epsg, mask]
        return hashlib.sha256(json.dumps([*parts, self.fill_bbox]).encode()).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class SceneSearch:
    """The tiles of the AOI and the scenes of the windows."""

    request: Request
    tile_requests: tuple[TileRequest, ...]
    """Window after window."""
    scenes: Scenes
    to_freeze: Scenes | None
    """The folder's new scene list; None if the scenes are those frozen there."""

    @property
    def zones(self) -> dict[str, dict[str, int]]:
        """Return the CRS of a UTM zone -> numbers of areas, tiles and pixels in it."""
        asked = self.request
        zones = {}
        for epsg, areas in features_by_zone(asked.aoi, epsg=asked.epsg).items():
            within = [each for each in self.tile_requests if each.tile.crs == f"EPSG:{epsg}"]
            tiles = len({each.tile for each in within})
            zones[f"EPSG:{epsg}"] = {"areas": areas, "tiles": tiles, "pixels": sum(each.count for each in within)}
        return zones

    def record(self) -> Mapping[str, Any]:
        """Return what `runs/<key>.json` says of the request."""
        request = self.request
        zones = areas_by_zone(request.aoi, epsg=request.epsg)
        return {
            "aoi": request.aoi.name,
            "aoi_bounds": list(request.aoi.bounds),
            "names": sorted(tile_request.name for tile_request in self.tile_requests),
            "source": request.source.name,
            "catalog": redact(request.catalog or request.source.api),
            **({"radar_catalog": redact(request.radar_catalog)} if request.radar_catalog else {}),
            "areas": {str(epsg): list(area.bounds) for epsg, area in zones.items()},
            "scenes": [scene.id for scene in self.scenes.scenes],
            "skipped": dict(self.scenes.skipped),
        }


def search_scenes(
    request: Request, client: Client, folder: TileFolder | None = None, *, refresh: bool = False
) -> SceneSearch:
    """Cut the AOI into tiles and list their scenes: those frozen in `folder` for this request, else a new search.

    Raises NothingToEmbedError when no pixel, no scene or (unless allowed) no radar scene is left, and IdentityError
    when the folder was made with other settings; the folder of a plan has none, and only its source is compared.
    """
    if folder is not None:
        if folder.identity:
            folder.check_identity()
        folder.check_source(request.source.name)
    requests = tile_requests(
        request.aoi, request.windows, epsg=request.epsg, mask=request.mask, fill_bbox=request.fill_bbox
    )
    scenes = None if refresh or folder is None else folder.frozen_scenes(request.digest, request.source)
    to_freeze = None
    if scenes is None:
        to_freeze = scenes = search(
            list(dict.fromkeys(tile_request.on_grid()[0] for tile_request in requests)),
            request.windows,
            request.source,
            client=client,
            catalog=request.catalog,
            radar_catalog=request.radar_catalog,
        )
        logger.info("%d scenes found in %s", len(scenes), redact(request.catalog or request.source.api))
        others = folder.all_frozen(request.source, damaged_ok=refresh) if folder else None
        if others is not None:  # other runs on the folder go by them
            to_freeze = scenes.merged(others)
    else:
        logger.info("using the frozen scene list (%d scenes); --refresh searches again", len(scenes))
    for window in request.windows:
        _check(scenes.within(window), window, request)
    found = SceneSearch(request, tuple(requests), scenes, to_freeze)
    _tell_zones(found)
    return found


def _tell_zones(search: SceneSearch) -> None:
    """Say which zones the areas went to; warn of several, whose pixels do not line up."""
    name, zones = search.request.aoi.name, search.zones
    parts = [
        f"{counted(zone['areas'], 'area')} in {crs}, {counted(zone['tiles'], 'tile')}" for crs, zone in zones.items()
    ]
    if len(zones) == 1:
        logger.info("%s: %s", name, parts[0])
        return
    most = max(zones, key=lambda crs: zones[crs]["pixels"])
    near = all(abs((int(crs[-2:]) - int(most[-2:]) + 30) % 60 - 30) <= 1 for crs in zones)
    way_out = f". --crs {most} puts all of it on one" if near else ""
    logger.warning("%s has %d grids that do not line up: %s%s", name, len(zones), "; ".join(parts), way_out)


def _check(scenes: Scenes, window: Window, request: Request) -> None:
    where = f"{request.aoi.name} in {window.name}"
    if not len(scenes):
        dropped = ", ".join(f"{count} skipped: {reason}" for reason, count in scenes.skipped.items())
        raise NothingToEmbedError(
            f"The catalogue has no scene for {where}{f' ({dropped})' if dropped else ''}. "
            f"Check the place ({request.place}), the year and --catalog. {request.place.swapped}".rstrip()
        )
    if not scenes.has_radar and not request.allow_no_radar:
        raise NothingToEmbedError(
            f"The catalogue has no Sentinel-1 scene for {where}. Check the catalogue, or embed from Sentinel-2 alone "
            "with --allow-no-radar."
        )
    if not window.is_twelve_months:
        logger.warning("window %s has %d days; the models were trained on twelve months", window.name, window.days)
