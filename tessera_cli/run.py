"""The run: reads ahead, encodes, writes, one tile after the other; what is done is not done again."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np

from tessera_cli import __version__
from tessera_cli.atomic import remove_stale_parts
from tessera_cli.catalog import Scenes, signer_of
from tessera_cli.coverage import Coverage, gap_warnings
from tessera_cli.dpixel import DPixels
from tessera_cli.encode import encode
from tessera_cli.errors import CredentialsError, DiskFullError, TesseraError, TileError, UsageError
from tessera_cli.grid import TileRequest, pack_mask
from tessera_cli.imagery import GDAL_OPTIONS, Reader, read_dpixels
from tessera_cli.outputs import geotiff
from tessera_cli.outputs.folder import Failure, OutputFolder
from tessera_cli.outputs.item import Asset, TileRecord
from tessera_cli.outputs.layers import EMB, SCALES, raster_name
from tessera_cli.outputs.mosaic import write_mosaics
from tessera_cli.outputs.tags import model_tags
from tessera_cli.quantize import quantize
from tessera_cli.results import Progress, Silent, Summary, TileResult
from tessera_cli.settings import Settings
from tessera_cli.survey import Ask, Task, prepare

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """What the tiles of a run share."""

    settings: Settings
    folder: OutputFolder
    scenes: Scenes
    reader: Reader
    progress: Progress
    threads: int = 1
    allow_missing: int = 0
    compress: geotiff.Compress = "zstd"

    def read(self, task: Task) -> DPixels:
        """The d-pixels of a tile, for the pixels asked for now and those that an earlier run asked for."""
        request = task.request
        before = self.folder.asked_before(task.name)
        if before is not None:
            request = TileRequest(request.tile, pack_mask(request.pixels | before))
        scenes = self.scenes.on(request.tile, task.window)
        return read_dpixels(scenes, request, task.window, self.reader, allow_missing=self.allow_missing)

    def run_tile(self, task: Task, dpixels: DPixels) -> TileResult:
        """Encode and write one tile. Its record, written last, makes it done."""
        started = time.monotonic()
        settings, tile = self.settings, task.request.tile
        pixels = dpixels.embeddable(min_s2=settings.min_s2, min_s1=settings.min_s1)
        if not pixels.any():
            self.folder.set_aside(task.name)
            geotiff.remove_rasters(self.folder.path, tile, task.window)  # of an earlier run
            self.folder.finish(self._record(dpixels, pixels, ()))
            return TileResult(task, "empty", seconds=time.monotonic() - started)
        embeddings = encode(dpixels, settings.model, pixels, threads=self.threads, progress=self.progress.advance)
        codes, scales = quantize(embeddings.values[:, : settings.dims], settings.model.spec.quantiser)
        if self._outdated(task, dpixels):
            return self.run_tile(task, self.read(task))
        self.folder.set_aside(task.name)
        assets = geotiff.write_rasters(
            self.folder.path, tile, task.window,
            codes=_raster(codes.T, pixels, EMB.nodata), scales=_raster(scales, pixels, SCALES.nodata),
            counts=dpixels.counts, requested=dpixels.requested, tags=model_tags(settings), compress=self.compress,
        )  # fmt: skip
        self.folder.finish(self._record(dpixels, pixels, assets))
        path = self.folder.path / raster_name(tile, task.window, "emb")
        return TileResult(task, "done", path, len(codes), embeddings.tokens, time.monotonic() - started)

    def _outdated(self, task: Task, dpixels: DPixels) -> bool:
        """Whether another run on the folder has finished the tile for other pixels since it was read."""
        before = self.folder.asked_before(task.name)
        return before is not None and bool((before & ~dpixels.requested).any())

    def _record(self, dpixels: DPixels, pixels: np.ndarray, assets: tuple[Asset, ...]) -> TileRecord:
        window, settings = dpixels.window, self.settings
        return TileRecord(
            tile=dpixels.tile, window=window, status="done" if assets else "empty",
            identity={**settings.identity(), "source": dpixels.source, "preprocessing": dpixels.preprocessing},
            note=settings.note, device=settings.model.device, software=__version__,
            pixels=int(pixels.sum()), requested=dpixels.requested,
            observations={sensor: Coverage.of(dates, window) for sensor, dates in dpixels.dates.items()},
            scenes=dpixels.scenes, holes=dpixels.holes, warnings=gap_warnings(dpixels), assets=assets,
            input_digest=self.scenes.on(dpixels.tile, window).digest,
        )  # fmt: skip


def embed(
    ask: Ask,
    settings: Settings,
    out: Path,
    *,
    progress: Progress | None = None,
    gdal_options: Mapping[str, str | int] = GDAL_OPTIONS,
    threads: int = 1,
    allow_missing: int = 0,
    compress: geotiff.Compress = "zstd",
    refresh: bool = False,
) -> Summary:
    """The main job: AOI + windows -> embeddings in `out`. Raises before anything is written if it cannot begin.

    A tile that fails does not stop the others, and `Summary.error` tells; a full disk or refused credentials stop
    the run at once.
    """
    started = time.monotonic()
    progress = progress or Silent()
    folder = settings.folder(out)
    surveyed = prepare(ask, folder, refresh=refresh)
    remove_stale_parts(out)

    todo, results = [], []
    for task in surveyed.tasks:
        inputs = surveyed.scenes.on(task.request.tile, task.window).digest if refresh else None
        record = folder.finished(task.request, task.window, allow_missing=allow_missing, inputs=inputs)
        if record is None:
            todo.append(task)
        else:
            path = out / raster_name(record.tile, record.window, "emb") if record.status == "done" else None
            results.append(TileResult(task, "present", path, record.pixels))
    log.info("%d tiles to do, %d done before", len(todo), len(results))
    progress.begin(len(todo), sum(int(task.request.pixels.sum()) for task in todo))
    for result in results:
        progress.tile(result)

    reader = Reader(signer_of(ask.source), max(8, 4 * threads), gdal_options)
    run = Run(settings, folder, surveyed.scenes, reader, progress, threads, allow_missing, compress)
    for task, dpixels in read_ahead(todo, run.read):
        result = _finish(task, run, dpixels)
        results.append(result)
        progress.tile(result)
        del dpixels  # or two tiles would stay in memory while the third is read
    failed = (Failure(r.task.request, r.task.window, str(r.error), allow_missing) for r in results if r.error)
    folder.end(ask.digest, surveyed.record(), failed)
    done = {r.task.name for r in results if r.path}
    mosaics = write_mosaics(folder, ask.windows, dims=settings.dims, tags=model_tags(settings), known=done)
    return Summary(out, tuple(results), mosaics, time.monotonic() - started)


def read_ahead(tasks: Sequence[Task], read: Callable[[Task], DPixels]) -> Iterator[tuple[Task, Future[DPixels]]]:
    """Each task with its finished read; while the caller works on it, the next one is read."""
    if not tasks:
        return
    with ThreadPoolExecutor(1, "ahead") as executor:
        try:
            upcoming = executor.submit(read, tasks[0])
            for task, following in zip_longest(tasks, tasks[1:]):
                current = upcoming
                wait([current])
                if following is not None:
                    upcoming = executor.submit(read, following)
                yield task, current
                del current
        finally:
            executor.shutdown(cancel_futures=True)


def _finish(task: Task, run: Run, dpixels: Future[DPixels]) -> TileResult:
    try:
        return run.run_tile(task, dpixels.result())
    except (DiskFullError, CredentialsError, UsageError):
        raise
    except TesseraError as error:
        log.error("%s failed: %s", task.name, error)
        error.__traceback__ = error.__cause__ = error.__context__ = None  # their frames hold the tile's arrays
        return TileResult(task, "failed", error=error)
    except MemoryError as error:
        text = f"out of memory ({error}). Give the job more memory, or fewer --threads."
        return TileResult(task, "failed", error=TileError(text))


def _raster(values: np.ndarray, pixels: np.ndarray, nodata: float) -> np.ndarray:
    """(..., N) values of the true pixels of (H, W) -> (..., H, W), nodata elsewhere."""
    raster = np.full((*values.shape[:-1], *pixels.shape), nodata, values.dtype)
    raster[..., pixels] = values
    return raster
