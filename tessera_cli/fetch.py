"""The job for machines without network: an area's and a window's d-pixels, stored on disk tile by tile."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from tessera_cli.dpixel import DPixels
from tessera_cli.errors import TesseraError
from tessera_cli.inputs import Inputs
from tessera_cli.loop import run_tiles
from tessera_cli.outputs.dpixels import DPixelFolder, StoreRecord
from tessera_cli.results import Progress, Silent, Status, Summary, TileResult
from tessera_cli.task import Task


@dataclass(frozen=True)
class FetchedTile(TileResult):
    """What became of one tile. `path` is its store, `pixels` those asked for, `seconds` include its reading."""

    holes: int = 0
    """Scenes that could not be read."""
    bytes: int = 0
    """Of the store."""

    def to_dict(self) -> dict[str, Any]:
        line = super().to_dict()
        del line["tokens"]  # encoders count them
        return {**line, "holes": self.holes, "bytes": self.bytes}


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
class _Fetch:
    """What the tiles of a fetch share."""

    inputs: Inputs
    folder: DPixelFolder
    progress: Progress

    def read(self, task: Task) -> tuple[DPixels, float]:
        """The d-pixels of a tile, for the pixels asked for now and those that earlier runs asked for; seconds."""
        started = time.monotonic()
        before = self.folder.asked_before(task.name)
        dpixels = self.inputs.read(task, task.pixels if before is None else task.pixels | before)
        return dpixels, time.monotonic() - started

    def finish(self, task: Task, read: tuple[DPixels, float]) -> TileResult:
        started = time.monotonic()
        dpixels, seconds = read
        before = self.folder.asked_before(task.name)
        if before is not None and (before & ~dpixels.requested).any():  # by another run, since it was read
            return self.finish(task, self.read(task))
        record = self.folder.write(dpixels)
        self.progress.advance(int(task.pixels.sum()))
        return self.result(task, "done", record, seconds + time.monotonic() - started)

    def kept(self, task: Task, record: StoreRecord) -> TileResult:
        return self.result(task, "present", record, 0.0)

    def result(self, task: Task, status: Status, record: StoreRecord, seconds: float) -> FetchedTile:
        path, size = self.folder.path / record.store, sum(file.size for file in record.assets)
        return FetchedTile(
            task, status, path, record.pixels, seconds=seconds, holes=len(record.holes), bytes=size
        )  # fmt: skip


def fetch(
    inputs: Inputs, folder: DPixelFolder, *, progress: Progress | None = None, allow_missing: int = 0
) -> FetchSummary:
    """Store the d-pixels of all tiles in the folder. Tiles that are there, whole and for the same pixels, are kept.

    Raises before anything is written if it cannot begin. A tile that fails does not stop the others, and
    `FetchSummary.error` tells.
    """
    started = time.monotonic()
    job = _Fetch(inputs, folder, progress or Silent())
    results = run_tiles(
        inputs, folder, kept=job.kept, read=job.read, finish=job.finish, progress=job.progress,
        allow_missing=allow_missing, kind=FetchedTile,
    )  # fmt: skip
    return FetchSummary(folder.path, results, (), time.monotonic() - started, inputs.network())
