"""The run: d-pixels are read, encoded and written, each stage on a tile of its own; what is done is not done again."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from tessera_cli import __version__
from tessera_cli.dpixels.coverage import Coverage, gap_warnings
from tessera_cli.dpixels.dpixel import DPixels
from tessera_cli.errors import TesseraError
from tessera_cli.extent.grid import Tile
from tessera_cli.inference.encode import encode
from tessera_cli.outputs import formats
from tessera_cli.outputs.asset import Asset
from tessera_cli.outputs.encoded import EncodedTile
from tessera_cli.outputs.formats import Compress
from tessera_cli.outputs.item import TileRecord
from tessera_cli.runs.folder import OutputFolder
from tessera_cli.runs.identity import Settings
from tessera_cli.runs.inputs import Inputs
from tessera_cli.runs.mosaic import write_mosaics
from tessera_cli.runs.pipeline import Job, run_tiles
from tessera_cli.runs.results import Progress, Silent, Summary, TileResult, stages_text
from tessera_cli.runs.task import Task
from tessera_cli.timing import StageTimer

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Encoded:
    """What became of a tile's d-pixels, without them."""

    record: TileRecord
    """Of the tile, but for its files."""
    tile: EncodedTile | None
    """None: no pixel can be embedded."""
    tokens: int
    seconds: float


@dataclass(frozen=True)
class Run(Job[TileRecord, DPixels, Encoded]):
    """Tiles: read, encoded, written."""

    inputs: Inputs
    settings: Settings
    folder: OutputFolder
    threads: int = 1
    compress: Compress = "zstd"
    stages: StageTimer = field(default_factory=StageTimer)

    def kept(self, task: Task, record: TileRecord) -> TileResult:
        path = self.folder.path / record.assets[0].name if record.status == "done" else None
        return TileResult(task, "present", path, record.pixels)

    def failed(self, task: Task, error: TesseraError) -> TileResult:
        return TileResult(task, "failed", error=error)

    def read(self, task: Task) -> DPixels:
        """The d-pixels of a tile, for the pixels asked for now and those that an earlier run asked for."""
        with self.stages.at("read"):
            before = self._before(task)
            dpixels = self.inputs.read(task, task.pixels if before is None else task.pixels | before)
            return dpixels if self.settings.model.spec.use_ascending else dpixels.without_ascending()

    def work(self, task: Task, read: DPixels, advance: Callable[[int], None]) -> Encoded:
        """Encode a tile."""
        started = time.monotonic()
        settings, model = self.settings, self.settings.model
        with self.stages.at("encode"):
            pixels = read.embeddable(min_s2=settings.min_s2, min_s1=settings.min_s1)
            pixels &= model.spec.observations.encodes(read)
            record = self._record(read, pixels)
            if not pixels.any():
                return Encoded(record, None, 0, time.monotonic() - started)
            embeddings = encode(
                read,
                model,
                pixels,
                dims=settings.dims,
                quantiser=settings.quantiser,
                seed=settings.seed,
                threads=self.threads,
                progress=advance,
            )
            tile = EncodedTile(
                tile=read.tile,
                window=read.window,
                pixels=pixels,
                values=embeddings.values,
                scales=embeddings.scales,
                counts=read.counts,
                requested=read.requested,
                tags=settings.tags(),
            )
            return Encoded(record, tile, embeddings.tokens, time.monotonic() - started)

    def finish(self, task: Task, made: Encoded) -> TileResult | None:
        """Write a tile. Its record, written last, makes it done."""
        started = time.monotonic()
        with self.stages.at("write"):
            if self._outdated(task, made.record.requested):
                return None
            self.folder.invalidate(task.name)
            path: Path | None = None
            assets: tuple[Asset, ...] = ()
            if made.tile is None:
                formats.remove(self.folder.path, task.name)  # of an earlier run
            else:
                assets = formats.write(self.settings.format, self.folder.path, made.tile, compress=self.compress)
                path = self.folder.path / assets[0].name
            self.folder.finish(replace(made.record, assets=assets))
        seconds = made.seconds + time.monotonic() - started
        return TileResult(task, made.record.status, path, made.record.pixels, made.tokens, seconds)

    def _before(self, task: Task) -> np.ndarray | None:
        """What earlier runs asked for in the tile; None if nothing, or if an official folder had another size then."""
        before = self.folder.previously_requested(task.name)
        return before if before is not None and before.shape == task.tile.shape else None

    def _outdated(self, task: Task, requested: np.ndarray) -> bool:
        """Whether another run on the folder has finished the tile for other pixels since it was read."""
        before = self._before(task)
        return before is not None and bool((before & ~requested).any())

    def _record(self, dpixels: DPixels, pixels: np.ndarray) -> TileRecord:
        window, settings = dpixels.window, self.settings
        return TileRecord(
            tile=dpixels.tile,
            window=window,
            status="done" if pixels.any() else "empty",
            identity=settings.identity(),
            note=settings.note,
            device=settings.model.device,
            software=__version__,
            pixels=int(pixels.sum()),
            requested=dpixels.requested,
            counts=dpixels.counts if settings.format == "npy" else None,
            observations={sensor: Coverage.of(dates, window) for sensor, dates in dpixels.dates.items()},
            scenes=dpixels.scenes,
            missing_scenes=dpixels.missing_scenes,
            warnings=gap_warnings(dpixels),
            input_digest=dpixels.input_digest,
        )


def embed(
    inputs: Inputs,
    settings: Settings,
    folder: OutputFolder,
    *,
    progress: Progress | None = None,
    threads: int = 1,
    allow_missing: int = 0,
    compress: Compress = "zstd",
) -> Summary:
    """The main job: d-pixels -> embeddings in the folder. Raises before anything is written if it cannot begin.

    A tile that fails does not stop the others, and `Summary.error` tells. A full disk stops the run at once, and so
    does a source of which nothing can be read for two tiles in a row.
    """
    started = time.monotonic()
    run = Run(inputs, settings, folder, threads, compress)
    results = run_tiles(inputs, folder, run, progress=progress or Silent(), allow_missing=allow_missing)
    mosaics: tuple[Path, ...] = ()
    if settings.format == "geotiff":
        done = {r.task.name for r in results if r.path and isinstance(r.task.tile, Tile)}
        windows = sorted({task.window for task in inputs.tasks if task.window is not None})
        with run.stages.at("write"):
            mosaics = write_mosaics(
                folder, windows, dims=settings.dims, dtype=settings.dtype, tags=settings.tags(), known=done
            )
    seconds = time.monotonic() - started
    summary = Summary(folder.path, results, mosaics, seconds, inputs.network(), run.stages.seconds)
    logger.debug("%s", stages_text(summary))
    return summary
