"""The scenes of a run: searched once, frozen to a file, split over tiles by footprint."""

from __future__ import annotations

import datetime as dt
import functools
import gzip
import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import shapely

from tessera_cli.catalog.hrefs import permitted
from tessera_cli.catalog.mosaic_order import in_mosaic_order
from tessera_cli.catalog.scene import NOT_STAC, Scene, Sensor, SkippedItem
from tessera_cli.catalog.sources import Source
from tessera_cli.errors import UsageError
from tessera_cli.extent.antimeridian import rejoin, shifted_all
from tessera_cli.extent.grid import Tile, outlines
from tessera_cli.extent.window import Window
from tessera_cli.json_text import parse_json
from tessera_cli.net.address import without_query
from tessera_cli.net.reach import Reach
from tessera_cli.reading import MB, open_file

MAX_LINE, MAX_LIST = 16 * MB, 2000 * MB
"""Characters of one scene, and of all scenes of a folder: an item has some ten thousand."""
ANYWHERE = shapely.box(-1000, -90, 1000, 90)
"""Degrees: where a scene that does not tell its footprint may lie."""


@dataclass(frozen=True, eq=False)
class Scenes:
    """Scenes in mosaic order."""

    source: Source
    scenes: tuple[Scene, ...]
    skipped: Mapping[str, int] = field(default_factory=dict)
    """Reason -> number of items that the search found and that hold nothing for us."""

    @classmethod
    def from_items(cls, items: Iterable[Mapping[str, Any]], source: Source) -> Scenes:
        """Return the scenes of STAC items; items that hold nothing usable are counted by reason in `skipped`."""
        scenes: dict[tuple[str, str], Scene] = {}
        skipped: Counter[str] = Counter()
        for item in items:
            try:
                scene = Scene.from_item(item, source)
            except SkippedItem as reason:
                skipped[str(reason)] += 1
            else:
                key = (scene.collection, scene.id)
                scenes[key] = max(scene, scenes.get(key, scene), key=_rank)
        return cls(source, tuple(in_mosaic_order(scenes.values(), source)), dict(skipped))

    @classmethod
    def from_ndjson(cls, path: Path, source: Source) -> Scenes:
        """Read the scenes from a file of `to_ndjson` lines."""
        try:
            with open_file(path) as packed, gzip.open(packed, "rt", encoding="utf-8") as lines:
                found = cls.from_items((_item(line) for line in _bounded(lines) if line.strip()), source)
            if any(reason.startswith(NOT_STAC) for reason in found.skipped):
                raise ValueError("it holds other things than scenes")
            return found
        except (OSError, EOFError, zlib.error, ValueError) as error:
            raise UsageError(f"{path} is damaged: {error}. Use --refresh to search again.") from error

    def to_ndjson(self) -> Iterator[Mapping[str, Any]]:
        """Yield one pruned STAC item per scene, in mosaic order."""
        return (scene.item for scene in self.scenes)

    def permitted(self, reach: Reach) -> Scenes:
        """Return frozen scenes, whose files are refused or not by what the user allows now."""
        scenes = []
        for scene in self.scenes:
            assets = permitted(scene.item["assets"], reach)
            same = assets == scene.item["assets"]
            scenes.append(scene if same else Scene.from_item({**scene.item, "assets": assets}, self.source))
        return Scenes(self.source, tuple(scenes), self.skipped)

    def merged(self, other: Scenes) -> Scenes:
        """Return the union of both; of equal ids, our scene."""
        ours = {scene.id for scene in self.scenes}
        both = in_mosaic_order([*self.scenes, *other.without(ours).scenes], self.source)
        return Scenes(self.source, tuple(both), self.skipped)

    def on(self, tile: Tile, window: Window) -> Scenes:
        """Return the scenes of the window whose footprint intersects the tile, also across the antimeridian."""
        touching = (self.scenes[index] for index in self.touching([tile])[1])
        return Scenes(self.source, tuple(s for s in touching if s.date in window), self.skipped)

    def touching(self, tiles: Sequence[Tile]) -> np.ndarray:
        """Return the pairs of numbers of a tile and a scene whose footprint intersects it, int (2, N), sorted."""
        found, scenes = self._footprints.query(shifted_all(outlines(tiles)), predicate="intersects")
        count = max(len(self), 1)
        pairs = np.sort(found % len(tiles) * count + scenes)
        pairs = pairs[np.diff(pairs, prepend=-1) > 0]
        return np.stack(np.divmod(pairs, count))

    def within(self, window: Window) -> Scenes:
        return self._where(lambda s: s.date in window)

    def without(self, ids: Iterable[str]) -> Scenes:
        dropped = set(ids)
        return self._where(lambda s: s.id not in dropped)

    def of(self, *sensors: Sensor) -> tuple[Scene, ...]:
        return tuple(s for s in self.scenes if s.sensor in sensors)

    @functools.cached_property
    def _footprints(self) -> shapely.STRtree:
        return shapely.STRtree([ANYWHERE if s.footprint is None else rejoin(s.footprint) for s in self.scenes])

    @property
    def digest(self) -> str:
        """Return the SHA-256 of ids and hrefs without queries, in mosaic order."""
        digest = hashlib.sha256()
        for scene in self.scenes:
            hrefs = [without_query(asset["href"]) for asset in scene.item["assets"].values()]
            digest.update(json.dumps([scene.id, *hrefs]).encode() + b"\n")
        return digest.hexdigest()

    @property
    def hold_queries(self) -> bool:
        """Return whether hrefs have queries left, which may be secrets of a kind that we do not know."""
        return any(
            without_query(asset["href"]) != asset["href"]
            for scene in self.scenes
            for asset in scene.item["assets"].values()
        )

    @property
    def signatures(self) -> dict[str, str]:
        """Return unsigned href -> the query it came with, for `GivenSignatures`."""
        return {href: query for scene in self.scenes for href, query in scene.signatures.items()}

    def named(self, ids: Sequence[str]) -> Scenes | None:
        """Return the scenes of these ids; None if one is absent."""
        wanted = set(ids)
        found = self._where(lambda s: s.id in wanted)
        return found if len(found) == len(wanted) else None

    def _where(self, keep: Callable[[Scene], bool]) -> Scenes:
        return Scenes(self.source, tuple(s for s in self.scenes if keep(s)), self.skipped)

    def __len__(self) -> int:
        return len(self.scenes)


def _item(text: str) -> Mapping[str, Any]:
    item = parse_json(text)
    if not isinstance(item, dict):
        raise ValueError("a line is no object")
    return item


def _rank(scene: Scene) -> tuple[str, str]:
    """Return a sort key by which, of items with the same id, the one updated last is kept."""
    return str(scene.item["properties"].get("updated", "")), json.dumps(scene.item, sort_keys=True)


def by_date(scenes: Iterable[Scene]) -> list[tuple[dt.date, tuple[Scene, ...]]]:
    """Return (UTC date, scenes of that date in mosaic order) pairs: one frame each."""
    return [(date, tuple(group)) for date, group in groupby(scenes, key=lambda s: s.date)]


def _bounded(lines: TextIO) -> Iterator[str]:
    """Yield the lines; ValueError before one, or all of them, are larger than any list of ours."""
    total = 0
    while line := lines.readline(MAX_LINE + 1):
        total += len(line)
        if len(line) > MAX_LINE or total > MAX_LIST:
            raise ValueError("it is larger than any list of scenes")
        yield line
