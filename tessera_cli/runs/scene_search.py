"""What was asked for, and what the catalogue has for it: everything known before a pixel is read."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tessera_cli.catalog import Scenes, Source, get_source, search
from tessera_cli.errors import NothingToEmbedError
from tessera_cli.extent.aoi import Aoi
from tessera_cli.extent.grid import TileRequest
from tessera_cli.extent.tiling import areas_by_zone, tile_requests
from tessera_cli.extent.window import Window
from tessera_cli.net import Client
from tessera_cli.net.responses import redact
from tessera_cli.runs.folder import Folder
from tessera_cli.runs.task import Task

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """Where, when and from which catalogue."""

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
        """`<aoi>_<window>`"""
        return f"{self.aoi.name}_{'+'.join(window.name for window in self.windows)}"

    def of_source(self, name: str | None) -> Request:
        """The same of another source; None: the same."""
        return self if name is None else dataclasses.replace(self, source=get_source(name))

    @property
    def digest(self) -> str:
        """Names the run: the same question finds its frozen scenes again."""
        mask = hashlib.sha256(self.mask.read_bytes()).hexdigest() if self.mask else None
        asked: list[Any] = [self.aoi.digest, [w.name for w in self.windows], self.source.name, self.catalog]
        asked += [self.radar_catalog, self.epsg, mask]
        return hashlib.sha256(json.dumps([*asked, self.fill_bbox]).encode()).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class SceneSearch:
    """The tiles of the AOI and the scenes of the windows."""

    ask: Request
    requests: tuple[TileRequest, ...]
    scenes: Scenes
    to_freeze: Scenes | None
    """The folder's new scene list; None if the frozen one was used."""

    @property
    def tasks(self) -> tuple[Task, ...]:
        return tuple(Task(r.tile, window, r.packed) for window in self.ask.windows for r in self.requests)

    def record(self) -> Mapping[str, Any]:
        """What `runs/<hash>.json` says of the request."""
        zones = areas_by_zone(self.ask.aoi, epsg=self.ask.epsg)
        return {
            "aoi": self.ask.aoi.name,
            "aoi_bounds": list(self.ask.aoi.bounds),
            "names": sorted(task.name for task in self.tasks),
            "source": self.ask.source.name,
            "catalog": redact(self.ask.catalog or self.ask.source.api),
            **({"radar_catalog": redact(self.ask.radar_catalog)} if self.ask.radar_catalog else {}),
            "areas": {str(epsg): list(area.bounds) for epsg, area in zones.items()},
            "scenes": [scene.id for scene in self.scenes.scenes],
            "skipped": dict(self.scenes.skipped),
        }


def prepare(ask: Request, folder: Folder[Any], client: Client, *, refresh: bool = False) -> SceneSearch:
    """The survey of a run on `folder`, with the scene list frozen before a pixel is read.

    Whose the folder is is checked first; of a plan, whose folder has an empty identity, only the source.
    """
    if folder.identity:
        folder.check_identity()
    folder.check_source(ask.source.name)
    surveyed = survey(ask, client, folder, refresh=refresh)
    if surveyed.to_freeze is not None:
        folder.begin(ask.digest, surveyed.record(), surveyed.to_freeze)
    elif folder.identity and not folder.is_claimed:  # the scenes were frozen by a plan
        folder.begin(ask.digest, surveyed.record(), None)
    return surveyed


def survey(ask: Request, client: Client, folder: Folder[Any] | None = None, *, refresh: bool = False) -> SceneSearch:
    """Cut the AOI into tiles and list their scenes: those frozen in `folder` for this question, else a new search.

    Raises NothingToEmbedError when no pixel, no scene or (unless allowed) no radar scene is left.
    """
    requests = tuple(tile_requests(ask.aoi, epsg=ask.epsg, mask=ask.mask, fill_bbox=ask.fill_bbox))
    scenes = None if refresh or folder is None else folder.frozen_scenes(ask.digest, ask.source)
    to_freeze = None
    if scenes is None:
        tiles = [request.tile for request in requests]
        to_freeze = scenes = search(
            tiles, ask.windows, ask.source, client=client, catalog=ask.catalog, radar_catalog=ask.radar_catalog
        )
        logger.info("%d scenes found in %s", len(scenes), redact(ask.catalog or ask.source.api))
        others = folder.all_frozen(ask.source, damaged_ok=refresh) if folder else None
        if others is not None:  # other runs on the folder go by them
            to_freeze = scenes.merged(others)
    else:
        logger.info("using the frozen scene list (%d scenes); --refresh searches again", len(scenes))
    for window in ask.windows:
        _check(scenes.within(window), window, ask)
    return SceneSearch(ask, requests, scenes, to_freeze)


def _check(scenes: Scenes, window: Window, ask: Request) -> None:
    where = f"{ask.aoi.name} in {window.name}"
    if not len(scenes):
        dropped = ", ".join(f"{count} skipped: {reason}" for reason, count in scenes.skipped.items())
        raise NothingToEmbedError(
            f"The catalogue has no scene for {where}{f' ({dropped})' if dropped else ''}. "
            "Check the place, the year and --catalog."
        )
    if not scenes.has_radar and not ask.allow_no_radar:
        raise NothingToEmbedError(
            f"The catalogue has no Sentinel-1 scene for {where}. Check the catalogue, or embed from Sentinel-2 alone "
            "with --allow-no-radar."
        )
    if not window.is_twelve_months:
        logger.warning("window %s has %d days; the models were trained on twelve months", window.name, window.days)
