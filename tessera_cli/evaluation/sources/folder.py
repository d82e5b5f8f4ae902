"""A folder that `embed` wrote as a source: one window of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from tessera_cli.embeddings.folder import EmbeddingFolder, Windows
from tessera_cli.embeddings.grid import Grid
from tessera_cli.embeddings.tile import StoredTile
from tessera_cli.errors import UsageError
from tessera_cli.evaluation.sources.source import Bounds, Centres, joined_bounds
from tessera_cli.evaluation.sources.tiled import places_of
from tessera_cli.extent.grid import ForeignTile
from tessera_cli.extent.window import Window
from tessera_cli.tables.lookup import TileIndex
from tessera_cli.tables.pixels import Validity, chosen, vectors_at


@dataclass(frozen=True, eq=False)
class FolderSource:
    """The embeddings of one window: codes times scales, or float32, as they are stored."""

    name: str
    origin: str
    dims: int
    index: TileIndex
    model: str = ""
    weights: str = ""
    """SHA-256."""
    window: Window | None = None
    kind: Literal["embedding"] = "embedding"

    @cached_property
    def validity(self) -> Validity:
        return Validity(self.index)

    @cached_property
    def bounds(self) -> Bounds:
        from pyproj import Transformer

        boxes = []
        for zone in self.index.zones:
            west, south, east, north = np.array([tile.record.tile.bounds for tile in zone.tiles]).T
            box = float(west.min()), float(south.min()), float(east.max()), float(north.max())
            boxes.append(Transformer.from_crs(zone.crs, 4326, always_xy=True).transform_bounds(*box))
        return joined_bounds(boxes)

    def at(self, lonlat: np.ndarray) -> np.ndarray:
        return vectors_at(self.index, self.validity, lonlat, self.dims)

    def centres(self) -> Iterator[Centres]:
        tiles = self.index.tiles
        # the tiles of the grid of one zone share no ground; those of other zones, and official ones, may
        overlap = len(self.index.zones) > 1 or any(isinstance(tile.record.tile, ForeignTile) for tile in tiles)
        for number, tile in enumerate(tiles):
            place = tile.record.tile
            assert place.crs is not None
            assert place.transform is not None
            grid = Grid(place.crs, place.transform, place.shape)
            for box in grid.boxes():
                rows, columns = np.nonzero(tile.valid(box))
                if not len(rows):
                    continue
                rows, columns = rows + box[0].start, columns + box[1].start
                places, lonlat = places_of(grid.crs, *grid.centres(rows, columns))
                if overlap:
                    hits = chosen(self.index.locate(lonlat), self.validity)
                    places = places[hits.numbers[hits.tiles == number]]
                if len(places):
                    yield Centres(places)


def folder_sources(path: Path, windows: Windows = None) -> tuple[FolderSource, ...]:
    """Return the windows of a folder, in order of time, each as a source; UsageError as `EmbeddingFolder.open`."""
    folder = EmbeddingFolder.open(path, windows)
    placed = [tile for tile in folder.tiles if tile.record.tile.crs is not None]
    if not placed:
        raise UsageError(f"{path}: its tiles have no CRS, so their place on Earth is unknown. Embed them anew.")
    names = sorted({_window(tile) for tile in placed})
    model = folder.first.identity.get("model", "?")
    found = []
    for name in names:
        called = path.resolve().name if len(names) == 1 else f"{path.resolve().name} {name or 'undated'}"
        about = ", ".join(part for part in (str(path), name, str(model), folder.first.dtype) if part)
        tiles = [tile for tile in placed if _window(tile) == name]
        found.append(
            FolderSource(
                name=called,
                origin=about,
                dims=folder.first.dims,
                index=TileIndex(tiles),
                model="" if model == "?" else str(model),
                weights=str(folder.first.identity.get("weights_sha256") or ""),
                window=tiles[0].record.window,
            )
        )
    return tuple(found)


def _window(tile: StoredTile) -> str:
    return tile.record.window.name if tile.record.window is not None else ""
