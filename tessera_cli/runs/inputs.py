"""Where a run's d-pixels come from: scenes of a catalogue, or stores on disk. The run itself sees no difference."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tessera_cli.catalog import check_credentials
from tessera_cli.dpixels import Stored, find_stores
from tessera_cli.dpixels.dpixel import DPixels, missing_scenes_text
from tessera_cli.errors import IdentityError, TileError, UsageError
from tessera_cli.extent.grid import Tile, TileRequest, pack_mask
from tessera_cli.imagery import OFFICIAL, Preprocessing, Reader, read_dpixels
from tessera_cli.net import RequestStats
from tessera_cli.outputs.formats import check_tile
from tessera_cli.outputs.layers import Format, file_names
from tessera_cli.runs.dpixel_folder import DPixelFolder, opened
from tessera_cli.runs.folder import OutputFolder
from tessera_cli.runs.scene_search import SceneSearch
from tessera_cli.runs.task import Task

logger = logging.getLogger(__name__)


class Inputs(Protocol):
    """What a run reads."""

    @property
    def key(self) -> str:
        """Names the run: the same question has the same key."""

    @property
    def tasks(self) -> Sequence[Task]: ...

    def record(self) -> Mapping[str, Any]:
        """What `runs/<key>.json` says of the request."""

    def check(self) -> None:
        """Raises CredentialsError if reading cannot work: asked once, before the first tile."""

    def stop(self) -> None:
        """The run is given up: reads that are under way end soon."""

    def network(self) -> Mapping[str, Any]:
        """What was asked of servers so far, and what came of every planned read: as `RequestStats` says it."""

    def digest(self, task: Task) -> str | None:
        """Of what a finished tile must have been made from to count as done; None: of anything."""

    def read(self, task: Task, pixels: np.ndarray) -> DPixels:
        """The d-pixels of a tile for these pixels, bool (H, W), at least those of the task."""


@dataclass(frozen=True, eq=False)
class CatalogInputs:
    """Scenes, read as they are needed."""

    survey: SceneSearch
    reader: Reader
    preprocessing: Preprocessing = OFFICIAL
    allow_missing: int = 0
    refresh: bool = False
    """Tiles that were made from other scenes than those found now are made again."""
    ascending: bool = True
    """Whether ascending passes are read: one model takes none."""

    @property
    def key(self) -> str:
        return self.survey.ask.digest

    @property
    def tasks(self) -> Sequence[Task]:
        return self.survey.tasks

    def record(self) -> Mapping[str, Any]:
        return self.survey.record()

    def check(self) -> None:
        check_credentials(self.survey.scenes, self.reader.client)

    def stop(self) -> None:
        self.reader.stop()

    def network(self) -> Mapping[str, Any]:
        return self.reader.client.stats.to_dict()

    def digest(self, task: Task) -> str | None:
        tile, window = _on_the_grid(task)
        return self.survey.scenes.on(tile, window).digest if self.refresh else None

    def read(self, task: Task, pixels: np.ndarray) -> DPixels:
        tile, window = _on_the_grid(task)
        request = TileRequest(tile, pack_mask(pixels))
        scenes = self.survey.scenes.on(tile, window)
        return read_dpixels(
            scenes,
            request,
            window,
            self.reader,
            preprocessing=self.preprocessing,
            allow_missing=self.allow_missing,
            ascending=self.ascending,
        )


def _on_the_grid(task: Task) -> tuple[Tile, Any]:
    if not isinstance(task.tile, Tile) or task.window is None:
        raise ValueError(f"{task.name} is no tile of the grid")
    return task.tile, task.window


@dataclass(frozen=True, eq=False)
class StoredInputs:
    """d-pixels on disk: our Zarr stores and official tile folders."""

    stores: Mapping[str, Stored]
    """By name."""
    source: str | None
    """That of all stores; None: none of them says."""
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
        """All stores that the paths are or hold; IdentityError if they are of different kinds.

        `source` and `preprocessing` are what the user says of official folders, which record neither; those are taken
        for the work of the official code, unless he says otherwise.
        """
        stores = {stored.name: stored for stored in find_stores(paths)}
        for path in paths:
            _warn_of_missing(path, stores)
        recorded = {name: stored.source for name, stored in stores.items() if stored.source is not None}
        unrecorded = sorted(stores.keys() - recorded.keys())
        if recorded and unrecorded and source is None:
            raise UsageError(
                f"--dpixels: {unrecorded[0]} does not record its source, others do. Say it with --source, or embed "
                "them apart."
            )
        made = {
            name: (preprocessing or OFFICIAL.name) if name in unrecorded else stored.preprocessing
            for name, stored in stores.items()
        }
        found = _one("preprocessing", made)
        assert found is not None  # of every store
        if preprocessing not in (None, found):
            raise IdentityError(f"--preprocessing {preprocessing}, but the d-pixels say {found}. Leave it out.")
        return cls(stores, _one("source", recorded), found, allow_missing)

    def prepare(self, folder: OutputFolder, format: Format) -> None:
        """Begin a run on `folder`: whose it is and whether the tiles can be written is checked first."""
        folder.check_identity()
        files = Counter(file for name in folder.asked() | self.stores.keys() for file in file_names(name))
        for stored in self.stores.values():
            check_tile(format, stored.tile)
            if shared := [file for file in file_names(stored.name) if files[file] > 1]:
                raise UsageError(f"--dpixels: two tiles would share the file {shared[0]}. Rename {stored.path}.")
        folder.begin(self.key, self.record(), None)

    @property
    def key(self) -> str:
        asked = [[name, hashlib.sha256(stored.packed).hexdigest()] for name, stored in self.stores.items()]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]

    @property
    def tasks(self) -> Sequence[Task]:
        return [Task(stored.tile, stored.window, stored.packed) for stored in self.stores.values()]

    def record(self) -> Mapping[str, Any]:
        paths = {name: stored.path.name for name, stored in self.stores.items()}
        return {"names": sorted(self.stores), "areas": _areas(self.tasks), "dpixels": paths}

    def check(self) -> None: ...

    def stop(self) -> None: ...

    def network(self) -> Mapping[str, Any]:
        return RequestStats().to_dict()

    def digest(self, task: Task) -> str:
        return self.stores[task.name].input_digest

    def read(self, task: Task, pixels: np.ndarray) -> DPixels:
        dpixels = self.stores[task.name].read()
        if (pixels & ~dpixels.requested).any():
            raise TileError(
                f"{task.name}: the output folder holds pixels that {self.stores[task.name].path} lacks. "
                "Choose another --out, or fetch the whole area again."
            )
        if (count := len(dpixels.missing_scenes)) > self.allow_missing:
            raise TileError(
                f"{count} scene(s) were missing when the d-pixels were fetched: "
                f"{missing_scenes_text(dpixels.missing_scenes)}. Fetch them again, or accept that "
                f"with --allow-missing {count}."
            )
        return dpixels


def _warn_of_missing(path: Path, stores: Mapping[str, Stored]) -> None:
    """A fetch that failed on some tiles has said so, perhaps to nobody: its folder knows what was asked for."""
    folder = opened(path)
    missing = sorted(folder.asked() - stores.keys()) if isinstance(folder, DPixelFolder) else []
    if missing:
        names = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        logger.warning("%s lacks %d tile(s) that were to be fetched (%s); fetch again", path, len(missing), names)


def _one(what: str, found: Mapping[str, str]) -> str | None:
    """The one value that all have."""
    values = {value: name for name, value in found.items()}
    if len(values) > 1:
        (first, at), (second, other) = list(values.items())[:2]
        raise IdentityError(
            f"--dpixels: {what} is {first} in {at} and {second} in {other}; such embeddings do not belong together. "
            "Embed them apart, each with an --out of its own."
        )
    return next(iter(values), None)


def _areas(tasks: Sequence[Task]) -> dict[str, list[float]]:
    """EPSG code -> the box around the pixels asked for in that zone, in metres."""
    areas: dict[str, list[float]] = {}
    for task in tasks:
        if not isinstance(task.tile, Tile):
            continue
        rows, columns = np.nonzero(task.pixels)
        if not len(rows):
            continue
        t = task.tile.transform
        west, east = t.c + t.a * columns.min(), t.c + t.a * (columns.max() + 1)
        south, north = t.f + t.e * (rows.max() + 1), t.f + t.e * rows.min()
        w, s, e, n = areas.get(str(task.tile.epsg), (west, south, east, north))
        box = (min(w, west), min(s, south), max(e, east), max(n, north))
        areas[str(task.tile.epsg)] = [float(edge) for edge in box]
    return areas
