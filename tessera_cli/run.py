"""The run: reads ahead, encodes, writes, one tile after the other; what is done is not done again."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tessera_cli import __version__
from tessera_cli.coverage import Coverage, gap_warnings
from tessera_cli.dpixel import DPixels
from tessera_cli.encode import encode
from tessera_cli.grid import Tile
from tessera_cli.inputs import Inputs
from tessera_cli.loop import run_tiles
from tessera_cli.outputs import formats
from tessera_cli.outputs.asset import Asset
from tessera_cli.outputs.encoded import EncodedTile
from tessera_cli.outputs.folder import OutputFolder
from tessera_cli.outputs.formats import Compress
from tessera_cli.outputs.item import TileRecord
from tessera_cli.outputs.mosaic import write_mosaics
from tessera_cli.outputs.tags import model_tags
from tessera_cli.quantize import check_finite, quantize
from tessera_cli.results import Progress, Silent, Summary, TileResult
from tessera_cli.settings import Settings
from tessera_cli.task import Task


@dataclass(frozen=True)
class Run:
    """What the tiles of a run share."""

    inputs: Inputs
    settings: Settings
    folder: OutputFolder
    progress: Progress
    threads: int = 1
    compress: Compress = "zstd"

    def read(self, task: Task) -> DPixels:
        """The d-pixels of a tile, for the pixels asked for now and those that an earlier run asked for."""
        before = self._before(task)
        dpixels = self.inputs.read(task, task.pixels if before is None else task.pixels | before)
        return dpixels if self.settings.model.spec.use_ascending else dpixels.without_ascending()

    def _before(self, task: Task) -> np.ndarray | None:
        """What earlier runs asked for in the tile; None if nothing, or if an official folder had another size then."""
        before = self.folder.asked_before(task.name)
        return before if before is not None and before.shape == task.tile.shape else None

    def kept(self, task: Task, record: TileRecord) -> TileResult:
        """A tile that an earlier run did."""
        path = self.folder.path / record.assets[0].name if record.status == "done" else None
        return TileResult(task, "present", path, record.pixels)

    def run_tile(self, task: Task, dpixels: DPixels) -> TileResult:
        """Encode and write one tile. Its record, written last, makes it done."""
        started = time.monotonic()
        settings, model = self.settings, self.settings.model
        pixels = dpixels.embeddable(min_s2=settings.min_s2, min_s1=settings.min_s1)
        pixels &= model.spec.observations.encodes(dpixels)
        if not pixels.any():
            self.folder.set_aside(task.name)
            formats.remove(self.folder.path, task.name)  # of an earlier run
            self.folder.finish(self._record(dpixels, pixels, ()))
            return TileResult(task, "empty", seconds=time.monotonic() - started)
        embeddings = encode(
            dpixels, model, pixels, seed=settings.seed, threads=self.threads, progress=self.progress.advance
        )
        encoded = self._encoded(dpixels, pixels, embeddings.values[:, : settings.dims])
        if self._outdated(task, dpixels):
            return self.run_tile(task, self.read(task))
        self.folder.set_aside(task.name)
        assets = formats.write(settings.format, self.folder.path, encoded, compress=self.compress)
        self.folder.finish(self._record(dpixels, pixels, assets))
        path = self.folder.path / assets[0].name
        return TileResult(task, "done", path, int(pixels.sum()), embeddings.tokens, time.monotonic() - started)

    def _encoded(self, dpixels: DPixels, pixels: np.ndarray, values: np.ndarray) -> EncodedTile:
        scales = None
        if self.settings.dtype == "float32":
            check_finite(values)
        else:
            assert self.settings.model.spec.quantiser is not None
            values, scales = quantize(values, self.settings.model.spec.quantiser)
        return EncodedTile(
            tile=dpixels.tile, window=dpixels.window, pixels=pixels, values=values, scales=scales,
            counts=dpixels.counts, requested=dpixels.requested, tags=model_tags(self.settings),
        )  # fmt: skip

    def _outdated(self, task: Task, dpixels: DPixels) -> bool:
        """Whether another run on the folder has finished the tile for other pixels since it was read."""
        before = self._before(task)
        return before is not None and bool((before & ~dpixels.requested).any())

    def _record(self, dpixels: DPixels, pixels: np.ndarray, assets: tuple[Asset, ...]) -> TileRecord:
        window, settings = dpixels.window, self.settings
        return TileRecord(
            tile=dpixels.tile, window=window, status="done" if assets else "empty",
            identity=settings.identity(), note=settings.note, device=settings.model.device, software=__version__,
            pixels=int(pixels.sum()), requested=dpixels.requested,
            counts=dpixels.counts if settings.format == "npy" else None,
            observations={sensor: Coverage.of(dates, window) for sensor, dates in dpixels.dates.items()},
            scenes=dpixels.scenes, holes=dpixels.holes, warnings=gap_warnings(dpixels), assets=assets,
            input_digest=dpixels.input_digest,
        )  # fmt: skip


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
    run = Run(inputs, settings, folder, progress or Silent(), threads, compress)
    results = run_tiles(
        inputs, folder, kept=run.kept, read=run.read, finish=run.run_tile, progress=run.progress,
        allow_missing=allow_missing,
    )  # fmt: skip
    mosaics: tuple[Path, ...] = ()
    if settings.format == "geotiff":
        done = {r.task.name for r in results if r.path and isinstance(r.task.tile, Tile)}
        windows = sorted({task.window for task in inputs.tasks if task.window is not None})
        mosaics = write_mosaics(
            folder, windows, dims=settings.dims, dtype=settings.dtype, tags=model_tags(settings), known=done
        )
    return Summary(folder.path, results, mosaics, time.monotonic() - started, inputs.network())
