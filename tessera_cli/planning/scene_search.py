"""The search before a run: cut the AOI into tiles and list their scenes. No pixel is read, nothing is written."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tessera_cli.catalog import Scenes, Source, get_source
from tessera_cli.catalog.search import refuse_unallowed
from tessera_cli.errors import NothingToEmbedError, counted
from tessera_cli.extent.aoi import Aoi
from tessera_cli.extent.grid import TileRequest
from tessera_cli.extent.place import Place
from tessera_cli.extent.tiling import areas_by_zone, features_by_zone, tile_requests
from tessera_cli.extent.window import Window
from tessera_cli.files import sha256_of
from tessera_cli.folders.folder import TileFolder
from tessera_cli.net import Client
from tessera_cli.net.address import redact, unsigned
from tessera_cli.planning.costs import Expected
from tessera_cli.planning.origin import Origin
from tessera_cli.planning.overlaps import Overlaps
from tessera_cli.planning.scene_counts import DatesByTile, dates_by_tile, fewest_text, gaps_text

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
    unnamed: bool = False
    """Whether the AOI came without a name of its own, as boxes and standard input do."""
    allow_no_optical: bool = False
    allow_private_hosts: bool = False
    allow_outside: bool = False

    @property
    def name(self) -> str:
        """Return `<aoi>_<window>`; of an unnamed AOI, with its west, south, east and north in degrees."""
        place = [f"{edge:.6f}".rstrip("0").rstrip(".") for edge in _edges(self.aoi)] if self.unnamed else []
        return "_".join([self.aoi.name, *place, "+".join(window.name for window in self.windows)])

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
        mask = sha256_of(self.mask) if self.mask else None
        parts: list[Any] = [self.aoi.digest, [w.name for w in self.windows], self.source.name]
        parts += [given and unsigned(given)[0] for given in (self.catalog, self.radar_catalog)]
        parts += [self.epsg, mask]
        return hashlib.sha256(json.dumps([*parts, self.fill_bbox]).encode()).hexdigest()[:16]

    @property
    def origin(self) -> Origin:
        """Return where the scenes come from: all that a process which reads them must know."""
        return Origin(self.source, self.catalog, self.radar_catalog, self.allow_private_hosts, self.allow_outside)

    def search(self, requests: Sequence[TileRequest], client: Client) -> Scenes:
        """Return the scenes that the catalogue lists for tiles now."""
        return self.origin.search((request.on_grid()[0] for request in requests), self.windows, client)


def _edges(aoi: Aoi) -> tuple[float, float, float, float]:
    """Return west, south, east and north; west is greater than east where the antimeridian lies between them."""
    west, south, east, north = aoi.bounds
    if (west, east) == (-180, 180):
        boxes = [feature.bounds for feature in aoi.features]
        west = min((box[0] for box in boxes if box[0] > 0), default=west)
        east = max((box[2] for box in boxes if box[2] < 0), default=east)
    return west, south, east, north


@dataclass(frozen=True, eq=False)
class SceneSearch:
    """The tiles of the AOI and the scenes of the windows."""

    request: Request
    tile_requests: tuple[TileRequest, ...]
    """Window after window."""
    scenes: Scenes
    to_freeze: Scenes | None
    """The folder's new scene list; None if the scenes are those frozen there."""

    @functools.cached_property
    def overlaps(self) -> Overlaps:
        """Which scenes lie on which tiles."""
        return Overlaps.of(self.scenes, self.tile_requests)

    @functools.cached_property
    def costs(self) -> Mapping[str, int]:
        """Tile -> what it is expected to cost, to cut shares by."""
        costs = Expected.of(self.overlaps, self.tile_requests).costs
        return {request.name: cost for request, cost in zip(self.tile_requests, costs, strict=True)}

    @functools.cached_property
    def tile_dates(self) -> Mapping[str, Mapping[str, DatesByTile]]:
        """Window -> sensor (s2, s1) -> how many dates the tiles have."""
        return dates_by_tile(self.overlaps)

    def log_tile_dates(self) -> None:
        """Log the fewest dates of a tile; warn of tiles without scenes, or with far fewer dates than the others."""
        for line in fewest_text(self.tile_dates):
            logger.info("%s", line)
        for line in gaps_text(self.tile_dates):
            logger.warning("%s", line)

    @functools.cached_property
    def zones(self) -> dict[str, dict[str, int]]:
        """Return the CRS of a UTM zone -> numbers of areas (or points), tiles and pixels in it."""
        asked = self.request
        zones = {}
        for epsg, parts in features_by_zone(asked.aoi, epsg=asked.epsg).items():
            within = [each for each in self.tile_requests if each.tile.crs == f"EPSG:{epsg}"]
            tiles = len({each.tile for each in within})
            pixels = sum(each.count for each in within)
            zones[f"EPSG:{epsg}"] = {f"{asked.aoi.kind}s": parts, "tiles": tiles, "pixels": pixels}
        return zones

    def record(self) -> Mapping[str, Any]:
        """Return what `runs/<key>.json` says of the request."""
        request = self.request
        zones = areas_by_zone(request.aoi, epsg=request.epsg)
        costs = self.costs if self.to_freeze is not None else {}
        return {
            "aoi": request.aoi.name,
            "aoi_bounds": list(request.aoi.bounds),
            "names": (names := sorted(tile_request.name for tile_request in self.tile_requests)),
            **({"costs": [costs[name] for name in names]} if costs else {}),
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

    Raises NothingToEmbedError when no pixel, no scene or (unless allowed) no scene of one of the sensors is left, and
    IdentityError when the folder was made with other settings; the folder of a plan has none, and only its source is
    compared.
    """
    if folder is not None:
        if folder.identity:
            folder.check_identity()
        folder.check_source(request.source.name)
    request.origin.admit(client)
    requests = tile_requests(
        request.aoi, request.windows, epsg=request.epsg, mask=request.mask, fill_bbox=request.fill_bbox
    )
    scenes = None if refresh or folder is None else thaw(folder, request.digest, request.origin, client)
    to_freeze = None
    if scenes is None:
        to_freeze = scenes = request.search(requests, client)
        logger.info("%d scenes found in %s", len(scenes), redact(request.catalog or request.source.api))
        others = folder.all_frozen(request.source, damaged_ok=refresh) if folder else None
        if others is not None:  # other runs on the folder go by them
            to_freeze = scenes.merged(others)
    else:
        logger.info("using the frozen scene list (%d scenes); --refresh searches again", len(scenes))
    made = SceneSearch(request, tuple(requests), scenes, to_freeze)
    for window in request.windows:
        _check(made, window)
    _tell_zones(made)
    return made


def thaw(folder: TileFolder, run: str, origin: Origin, client: Client) -> Scenes | None:
    """Return the scenes frozen in `folder` for a run, by its key, as far as they may be read; None without any."""
    scenes = folder.frozen_scenes(run, origin.source)
    if scenes is not None:
        scenes = scenes.permitted(client.reach)  # a folder may come from somebody else
        refuse_unallowed(scenes)
    return scenes


def _tell_zones(search: SceneSearch) -> None:
    """Say which zones the areas went to; warn of several, whose pixels do not line up."""
    (name, kind), zones = (search.request.aoi.name, search.request.aoi.kind), search.zones
    parts = [
        f"{counted(zone[f'{kind}s'], kind)} in {crs}, {counted(zone['tiles'], 'tile')}" for crs, zone in zones.items()
    ]
    if len(zones) == 1 or search.request.aoi.points:  # points are rows of a table, whatever their grid
        logger.info("%s: %s", name, "; ".join(parts))
        return
    most = max(zones, key=lambda crs: zones[crs]["pixels"])
    near = all(abs((int(crs[-2:]) - int(most[-2:]) + 30) % 60 - 30) <= 1 for crs in zones)
    way_out = f". --crs {most} puts all of it on one" if near else ""
    logger.warning("%s has %d grids that do not line up: %s%s", name, len(zones), "; ".join(parts), way_out)


def _check(made: SceneSearch, window: Window) -> None:
    """Raise NothingToEmbedError if no tile has a scene, or one of a sensor that the request needs."""
    request, skipped = made.request, made.scenes.skipped
    seen = {sensor: len(dates.without) < dates.tiles for sensor, dates in made.tile_dates[window.name].items()}
    if not any(seen.values()):
        advice = (
            "Check --catalog and --source."
            if skipped
            else f"Check the place ({request.place}), the year and --catalog. {request.place.swapped}".rstrip()
        )
        raise _nothing("scene", advice, made, window)
    if not seen["s2"] and not request.allow_no_optical:
        advice = "Check --catalog and --source; embed --min-s2 0 goes on with radar alone."
        raise _nothing("Sentinel-2 scene", advice, made, window)
    if not seen["s1"] and not request.allow_no_radar:
        advice = "Check the catalogue, or embed from Sentinel-2 alone with --allow-no-radar."
        raise _nothing("Sentinel-1 scene", advice, made, window)
    if not window.is_twelve_months:
        logger.warning("window %s has %d days; the models were trained on twelve months", window.name, window.days)


def _nothing(what: str, advice: str, made: SceneSearch, window: Window) -> NothingToEmbedError:
    """Return the error for a window without scenes: what was skipped in the search, and what to do."""
    request, skipped = made.request, made.scenes.skipped
    dropped = ", ".join(f"{count} skipped: {reason}" for reason, count in skipped.items())
    if any("collection" in reason for reason in skipped):
        known = " or ".join(request.source.collections)
        advice += f" --source {request.source.name} reads items whose collection is {known}."
    return NothingToEmbedError(
        f"The catalogue has no {what} for {request.aoi.name} in {window.name}{f' ({dropped})' if dropped else ''}. "
        f"{advice}"
    )
