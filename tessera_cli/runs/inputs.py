"""Inputs of a run: scenes of a catalogue, or d-pixels on disk, behind one protocol."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tessera_cli.catalog import Scenes
from tessera_cli.dpixels import Stored, find_stores
from tessera_cli.errors import IdentityError, NothingToEmbedError, UsageError
from tessera_cli.extent.aoi import Aoi
from tessera_cli.extent.grid import AnyTile, Tile, TileRequest, pack_mask, pixel_positions, unpack_mask
from tessera_cli.extent.tiling import pixel_masks
from tessera_cli.folders.folder import TileFolder
from tessera_cli.imagery import OFFICIAL, Preprocessing, Reader
from tessera_cli.planning.costs import stored_costs
from tessera_cli.planning.scene_search import SceneSearch
from tessera_cli.runs.fit import Bulk, bulk_of_scenes, bulk_of_stores
from tessera_cli.runs.reading import Reading, SceneReading, StoreReading
from tessera_cli.runs.recipes import ReadingRecipe, SceneRecipe, StoreRecipe

logger = logging.getLogger(__name__)


class Inputs(Protocol):
    """What a run was asked to make, and what reads it."""

    @property
    def key(self) -> str:
        """Return the name of the run: equal requests have equal keys."""

    @property
    def tile_requests(self) -> Sequence[TileRequest]: ...

    @property
    def costs(self) -> Mapping[str, int]:
        """Return tile -> what it is expected to cost, in whole numbers."""

    @property
    def to_freeze(self) -> Scenes | None:
        """Return the scene list to write before pixels are read; None if there is nothing new."""
        return None

    @property
    def reading(self) -> Reading:
        """Return what reads the tiles in this process."""

    def bulk(self, requests: Sequence[TileRequest]) -> Bulk:
        """Return how much these tiles hold, before any of them is read."""

    def recipe(self, folder: TileFolder) -> ReadingRecipe:
        """Return how another process opens the same, for a run into `folder` that has started."""

    def record(self) -> Mapping[str, Any]:
        """Return what `runs/<key>.json` says of the request."""


@dataclass(frozen=True, eq=False)
class CatalogInputs(Inputs):
    """Scenes of a catalogue, read as they are needed."""

    search: SceneSearch
    reader: Reader
    preprocessing: Preprocessing = OFFICIAL
    allow_missing: int = 0
    refresh: bool = False
    """Whether tiles that were made from other scenes than those listed now are made again."""

    @property
    def key(self) -> str:
        return self.search.request.digest

    @property
    def tile_requests(self) -> Sequence[TileRequest]:
        return self.search.tile_requests

    @property
    def costs(self) -> Mapping[str, int]:
        return self.search.costs

    @property
    def to_freeze(self) -> Scenes | None:
        return self.search.to_freeze

    @functools.cached_property
    def reading(self) -> Reading:  # type: ignore[override]
        return SceneReading(
            self.search.scenes,
            self.search.request.origin,
            self.reader,
            self.preprocessing,
            self.allow_missing,
            self.refresh,
            frozen=self.to_freeze is None,
        )

    def bulk(self, requests: Sequence[TileRequest]) -> Bulk:
        return bulk_of_scenes(requests, self.search.tile_dates, self.search.scenes)

    def recipe(self, folder: TileFolder) -> ReadingRecipe:
        return SceneRecipe(
            self.search.request.origin.absolute(),
            folder.path.absolute(),
            self.key,
            self.search.scenes.digest,
            self.preprocessing.name,
            self.allow_missing,
            self.refresh,
        )

    def record(self) -> Mapping[str, Any]:
        return self.search.record()


@dataclass(frozen=True, eq=False)
class StoredInputs(Inputs):
    """d-pixels on disk: our Zarr stores and official tile folders."""

    stores: Mapping[str, Stored]
    """By name."""
    source: str | None
    """The source of all stores; None if none of them says."""
    preprocessing: str
    allow_missing: int = 0

    @classmethod
    def find(
        cls,
        paths: Sequence[Path],
        source: str | None = None,
        preprocessing: str | None = None,
        *,
        allow_missing: int = 0,
    ) -> StoredInputs:
        """Return all stores that the paths are or hold; IdentityError if they are of different kinds.

        `source` and `preprocessing` are what the user says of official folders, which record neither; their
        preprocessing is taken to be the official one, unless he says otherwise.
        """
        stores = {stored.name: stored for stored in find_stores(paths, broken=True)}
        for path in paths:
            _warn_of_missing(path, stores)
        sound = {name: stored for name, stored in stores.items() if stored.error is None}
        recorded = {name: stored.source for name, stored in sound.items() if stored.source is not None}
        unrecorded = sorted(sound.keys() - recorded.keys())
        if recorded and unrecorded and source is None:
            raise UsageError(
                f"--dpixels: {unrecorded[0]} does not record its source, others do. Say it with --source, or embed "
                "them apart."
            )
        made = _common(
            "preprocessing",
            {
                name: (preprocessing or OFFICIAL.name) if name in unrecorded else stored.preprocessing
                for name, stored in sound.items()
            },
        )
        assert made is not None  # of every store
        if preprocessing not in (None, made):
            raise IdentityError(f"--preprocessing {preprocessing}, but the d-pixels say {made}. Leave it out.")
        return cls(stores, _common("source", recorded), made, allow_missing)

    @property
    def key(self) -> str:
        masks = [[name, hashlib.sha256(stored.packed).hexdigest()] for name, stored in self.stores.items()]
        return hashlib.sha256(json.dumps(masks).encode()).hexdigest()[:16]

    @property
    def tile_requests(self) -> Sequence[TileRequest]:
        return tuple(self.stores.values())

    @property
    def costs(self) -> Mapping[str, int]:
        return dict(zip(self.stores, stored_costs(tuple(self.stores.values())), strict=True))

    def of_pixels(self, aoi: Aoi) -> StoredInputs:
        """Return the stores that hold pixels of the AOI, asked for those alone; NothingToEmbedError without any."""
        masks = pixel_masks(aoi)
        numbers = ((tile, np.flatnonzero(unpack_mask(packed, tile.shape))) for tile, packed in masks.items())
        centres = np.concatenate([pixel_positions(*each) for each in numbers])
        chosen = {}
        for name, stored in self.stores.items():
            pixels = stored.pixels & _pixels_at(stored.tile, centres)
            if pixels.any() or (stored.error is not None and stored.tile in masks):  # the latter fails as a tile
                chosen[name] = replace(stored, packed=pack_mask(pixels))
        if not chosen:
            raise NothingToEmbedError(
                f"--dpixels: no store holds pixels of {aoi.name}. Fetch them, or check the place of both."
            )
        return replace(self, stores=chosen)

    def record(self) -> Mapping[str, Any]:
        paths = {name: stored.path.name for name, stored in self.stores.items()}
        return {"names": sorted(self.stores), "areas": _areas(self.tile_requests), "dpixels": paths}

    @property
    def reading(self) -> Reading:
        return StoreReading(self.stores, self.allow_missing)

    def bulk(self, requests: Sequence[TileRequest]) -> Bulk:
        return bulk_of_stores(requests)

    def recipe(self, folder: TileFolder) -> ReadingRecipe:
        return StoreRecipe(Path.cwd(), self.allow_missing)


def _warn_of_missing(path: Path, stores: Mapping[str, Stored]) -> None:
    """Warn of tiles that a fetch into the folder was asked for and has not stored."""
    folder = TileFolder.open(path)
    missing = sorted(folder.requested_names() - stores.keys()) if folder.holds_dpixels else []
    if missing:
        names = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        logger.warning("%s lacks %d tile(s) that were to be fetched (%s); fetch again", path, len(missing), names)


def _common(what: str, by_name: Mapping[str, str]) -> str | None:
    """Return the one value that all have, None without any; IdentityError if there are several."""
    values = {value: name for name, value in by_name.items()}
    if len(values) > 1:
        (first, at), (second, other) = list(values.items())[:2]
        raise IdentityError(
            f"--dpixels: {what} is {first} in {at} and {second} in {other}; such embeddings do not belong together. "
            "Embed them apart, each with an --out of its own."
        )
    return next(iter(values), None)


def _pixels_at(tile: AnyTile, positions: np.ndarray) -> np.ndarray:
    """Return bool (H, W): the pixels of a tile that hold positions, int64 (N, 3), as `pixel_positions` gives them."""
    found = np.zeros(tile.shape, bool)
    if tile.transform is None:
        return found
    zone = pixel_positions(tile, np.zeros(1, np.int64))[0, 0]
    east, north = positions[positions[:, 0] == zone, 1:].T
    t, (height, width) = tile.transform, tile.shape
    columns = np.floor((east - t.c) / t.a).astype(np.int64)
    rows = np.floor((north - t.f) / t.e).astype(np.int64)
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    found[rows[inside], columns[inside]] = True
    return found


def _areas(requests: Sequence[TileRequest]) -> dict[str, list[float]]:
    """Return EPSG code -> the box around the pixels asked for in that zone, in metres."""
    areas: dict[str, list[float]] = {}
    for request in requests:
        rows, columns = np.nonzero(request.pixels)
        if not isinstance(request.tile, Tile) or not len(rows):
            continue
        t = request.tile.transform
        west, east = t.c + t.a * columns.min(), t.c + t.a * (columns.max() + 1)
        south, north = t.f + t.e * (rows.max() + 1), t.f + t.e * rows.min()
        w, s, e, n = areas.get(str(request.tile.epsg), (west, south, east, north))
        box = (min(w, west), min(s, south), max(e, east), max(n, north))
        areas[str(request.tile.epsg)] = [float(edge) for edge in box]
    return areas
