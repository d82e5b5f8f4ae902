"""The job for machines without network: an area's and a window's d-pixels, stored on disk tile by tile."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tessera_cli.dpixels.dpixel import DPixels
from tessera_cli.errors import TesseraError
from tessera_cli.runs.dpixel_folder import DPixelFolder, StoreRecord
from tessera_cli.runs.inputs import Inputs
from tessera_cli.runs.pipeline import Job, run_tiles
from tessera_cli.runs.results import Progress, Silent, Status, Summary, TileResult, stages_text
from tessera_cli.runs.task import Task
from tessera_cli.timing import StageTimer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FetchedTile(TileResult):
    """What became of one tile. `path` is its store, `pixels` those asked for, `seconds` include its reading."""

    missing_scenes: int = 0
    """Scenes that could not be read."""
    bytes: int = 0
    """Of the store."""

    def to_dict(self) -> dict[str, Any]:
        line = super().to_dict()
        del line["tokens"]  # encoders count them
        return {**line, "holes": self.missing_scenes, "bytes": self.bytes}


@dataclass(frozen=True)
class FetchSummary(Summary):
    """What became of a fetch."""

    embed_command: str = ""
    """Encodes what was fetched; empty where nothing was."""
    weights_error: TesseraError | None = None
    """Why the weights of the model are not here."""

    @property
    def stored(self) -> bool:
        """Whether there are d-pixels to embed."""
        return any(result.path for result in self.results)

    def error(self) -> TesseraError | None:
        return self.failure() or self.weights_error

    def to_dict(self) -> dict[str, Any]:
        line = super().to_dict()
        del line["tokens"], line["mosaics"]
        weights = {"weights_error": str(self.weights_error)} if self.weights_error else {}
        return {**line, "embed_command": self.embed_command, **weights}


@dataclass(frozen=True)
class _Fetch(Job[StoreRecord, tuple[DPixels, float], FetchedTile | None]):
    """Tiles: read, stored. Storing is the work: no stage after that may hold d-pixels."""

    inputs: Inputs
    folder: DPixelFolder
    stages: StageTimer = field(default_factory=StageTimer)

    def kept(self, task: Task, record: StoreRecord) -> TileResult:
        return self._result(task, "present", record, 0.0)

    def failed(self, task: Task, error: TesseraError) -> TileResult:
        return FetchedTile(task, "failed", error=error)

    def read(self, task: Task) -> tuple[DPixels, float]:
        """The d-pixels of a tile, for the pixels asked for now and those that earlier runs asked for; seconds."""
        started = time.monotonic()
        with self.stages.at("read"):
            before = self.folder.previously_requested(task.name)
            dpixels = self.inputs.read(task, task.pixels if before is None else task.pixels | before)
        return dpixels, time.monotonic() - started

    def work(self, task: Task, read: tuple[DPixels, float], advance: Callable[[int], None]) -> FetchedTile | None:
        """Store a tile."""
        started = time.monotonic()
        dpixels, seconds = read
        with self.stages.at("write"):
            before = self.folder.previously_requested(task.name)
            if before is not None and (before & ~dpixels.requested).any():  # by another run, since it was read
                return None
            record = self.folder.write(dpixels)
        advance(int(task.pixels.sum()))
        return self._result(task, "done", record, seconds + time.monotonic() - started)

    def finish(self, task: Task, made: FetchedTile | None) -> TileResult | None:
        return made

    def _result(self, task: Task, status: Status, record: StoreRecord, seconds: float) -> FetchedTile:
        path, size = self.folder.path / record.store, sum(file.size for file in record.assets)
        return FetchedTile(
            task, status, path, record.pixels, seconds=seconds, missing_scenes=len(record.missing_scenes), bytes=size
        )


def fetch(
    inputs: Inputs, folder: DPixelFolder, *, progress: Progress | None = None, allow_missing: int = 0
) -> FetchSummary:
    """Store the d-pixels of all tiles in the folder. Tiles that are there, whole and for the same pixels, are kept.

    Raises before anything is written if it cannot begin. A tile that fails does not stop the others, and
    `FetchSummary.error` tells.
    """
    started = time.monotonic()
    job = _Fetch(inputs, folder)
    results = run_tiles(inputs, folder, job, progress=progress or Silent(), allow_missing=allow_missing)
    seconds = time.monotonic() - started
    summary = FetchSummary(folder.path, results, (), seconds, inputs.network(), job.stages.seconds)
    logger.debug("%s", stages_text(summary))
    return summary
