"""The search before a run: cut the AOI into tiles and list their scenes. No pixel is read, nothing is written."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tessera_cli.catalog import Scenes, Source, get_source, search
from tessera_cli.errors import NothingToEmbedError, TesseraError
from tessera_cli.extent.aoi import Aoi
from tessera_cli.extent.grid import TileRequest
from tessera_cli.extent.tiling import areas_by_zone, tile_requests
from tessera_cli.extent.window import Window
from tessera_cli.net import Client
from tessera_cli.net.address import unsigned
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

    def of_source(self, name: str | None) -> Request:
        """Return the same request to another source; to the same one for None."""
        return self if name is None else dataclasses.replace(self, source=get_source(name))

    @property
    def digest(self) -> str:
        """Return the key of the run, by which the same request finds its frozen scenes again."""
        mask = hashlib.sha256(self.mask.read_bytes()).hexdigest() if self.mask else None
        parts: list[Any] = [self.aoi.digest, [w.name for w in self.windows], self.source.name]
        parts += [given and unsigned(given)[0] for given in (self.catalog, self.radar_catalog)]
        parts += [self.epsg, mask]
        return hashlib.sha256(json.dumps([*parts, self.fill_bbox]).encode()).hexdigest()[:16]

    @property
    def signatures(self) -> dict[str, str]:
        """Return unsigned address -> query of the catalogues: a signature of Azure is often one for a container."""
        pairs = [unsigned(given) for given in (self.catalog, self.radar_catalog) if given]
        return {href: query for href, query in pairs if query}

    def search(self, requests: Sequence[TileRequest], client: Client) -> Scenes:
        """Return the scenes that the catalogue lists for tiles now."""
        return search(
            list(dict.fromkeys(tile_request.on_grid()[0] for tile_request in requests)),
            self.windows,
            self.source,
            client=client,
            catalog=self.catalog,
            radar_catalog=self.radar_catalog,
        )


@dataclass(frozen=True, eq=False)
class SceneSearch:
    """The tiles of the AOI and the scenes of the windows."""

    request: Request
    tile_requests: tuple[TileRequest, ...]
    """Window after window."""
    scenes: Scenes
    to_freeze: Scenes | None
    """The folder's new scene list; None if the scenes are those frozen there."""

    def collect_signatures(self, client: Client) -> None:
        """Search again for the signatures that frozen hrefs came with, if any did: they are never written.

        The scenes stay those frozen. Where the catalogue cannot be read, the files' servers are left to judge.
        """
        if self.to_freeze is None and any(scene.signed for scene in self.scenes.scenes):
            client.given.add(self.scenes.signatures)
            try:
                self.request.search(self.tile_requests, client)
            except TesseraError as error:
                logger.warning("no signatures for the files of scenes: %s", error)

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
    client.given.add(request.signatures)
    requests = tile_requests(
        request.aoi, request.windows, epsg=request.epsg, mask=request.mask, fill_bbox=request.fill_bbox
    )
    scenes = None if refresh or folder is None else folder.frozen_scenes(request.digest, request.source)
    to_freeze = None
    if scenes is None:
        to_freeze = scenes = request.search(requests, client)
        logger.info("%d scenes found in %s", len(scenes), redact(request.catalog or request.source.api))
        others = folder.all_frozen(request.source, damaged_ok=refresh) if folder else None
        if others is not None:  # other runs on the folder go by them
            to_freeze = scenes.merged(others)
    else:
        logger.info("using the frozen scene list (%d scenes); --refresh searches again", len(scenes))
    for window in request.windows:
        _check(scenes.within(window), window, request)
    return SceneSearch(request, tuple(requests), scenes, to_freeze)


def _check(scenes: Scenes, window: Window, request: Request) -> None:
    where = f"{request.aoi.name} in {window.name}"
    if not len(scenes):
        dropped = ", ".join(f"{count} skipped: {reason}" for reason, count in scenes.skipped.items())
        raise NothingToEmbedError(
            f"The catalogue has no scene for {where}{f' ({dropped})' if dropped else ''}. "
            "Check the place, the year and --catalog."
        )
    if not scenes.has_radar and not request.allow_no_radar:
        raise NothingToEmbedError(
            f"The catalogue has no Sentinel-1 scene for {where}. Check the catalogue, or embed from Sentinel-2 alone "
            "with --allow-no-radar."
        )
    if not window.is_twelve_months:
        logger.warning("window %s has %d days; the models were trained on twelve months", window.name, window.days)
