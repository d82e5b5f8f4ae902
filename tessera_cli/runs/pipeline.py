"""The loop of every run: finished tiles are skipped, the others pass through the stages of a job.

There are three, each in a thread of its own: the next tile is prefetched, the calling thread processes the one before,
and a writer thread writes what came of the one before that. Nothing queues up: a tile that was read waits until the one
before it is processed, and one that was processed until the one before it is written.
"""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Generic, TypeVar

from tessera_cli.dpixels.dpixel import DPixels
from tessera_cli.errors import (
    CredentialsError,
    DiskFullError,
    SourceRefusedError,
    SourceUnavailableError,
    TesseraError,
    TileError,
    UsageError,
)
from tessera_cli.extent.grid import TileRequest
from tessera_cli.imagery import OnRead
from tessera_cli.outputs.item import TileRecord
from tessera_cli.prefetch import prefetch
from tessera_cli.runs.folder import TileFolder
from tessera_cli.runs.inputs import Inputs
from tessera_cli.runs.results import Progress, TileResult, TileStatus, network_text
from tessera_cli.timing import StageTimer

logger = logging.getLogger(__name__)

REFUSED = (CredentialsError, SourceRefusedError, SourceUnavailableError)
"""Errors after which it is doubtful that any tile can be read."""

Made = TypeVar("Made")
T = TypeVar("T")


class Job(ABC, Generic[Made]):
    """What a run does with its tiles. The stages run side by side, each on another tile."""

    inputs: Inputs
    folder: TileFolder
    stages: StageTimer
    """Seconds of `start`, which ends when the first tile was read, `read`, `process_stage` and `write`."""
    process_stage = "encode"
    counted_stages = ("encode", "write")
    """Stages that are part of a tile's seconds."""
    ascending = True
    """Whether ascending passes of Sentinel-1 are read."""

    def read(self, request: TileRequest, reading: OnRead) -> DPixels:
        """Read a tile for the pixels asked for now and before. At most two tiles' d-pixels are held at a time."""
        return self.inputs.read(self.folder.united(request), ascending=self.ascending, reading=reading)

    @abstractmethod
    def process(self, request: TileRequest, dpixels: DPixels, advance: Callable[[int], None]) -> Made:
        """Process one tile's d-pixels into what `write` stores; must not keep a reference to them.

        `advance` is to be called now and then with the number of pixels finished since; it raises what stops the run.
        """

    @abstractmethod
    def write(self, request: TileRequest, made: Made) -> TileResult | None:
        """Write the files of a tile; None if another run has finished it for other pixels since it was read."""

    def present(self, request: TileRequest, *, allow_missing: int) -> TileResult | None:
        """Return the result of a tile that needs no work, since it is finished for what is asked for; else None."""
        record = self.folder.finished(request, allow_missing=allow_missing, inputs=self.inputs.digest(request))
        return None if record is None else self.result(request, "present", record)

    def result(self, request: TileRequest, status: TileStatus, record: TileRecord | None, **more: Any) -> TileResult:
        """Return the result of a tile from its record, or without one if it failed."""
        path = self.folder.path / record.main if record and record.main else None
        return TileResult(request, status, path, record.pixels if record else 0, **more)


def run_tiles(job: Job[Made], *, progress: Progress, allow_missing: int) -> tuple[TileResult, ...]:
    """Take all tiles of the job's inputs through its stages; return a result for each, in their order.

    A tile that fails does not stop the others and is noted in the folder. A full disk stops the run at once, and so
    does a source of which nothing can be read for two tiles in a row.
    """
    inputs, folder = job.inputs, job.folder
    with ExitStack() as starting:
        starting.enter_context(job.stages.at("start"))
        folder.tidy()
        todo, results = [], []
        for request in inputs.tile_requests:
            result = job.present(request, allow_missing=allow_missing)
            if result is None:
                todo.append(request)
            else:
                results.append(result)
        logger.info("%d tiles to do, %d done before", len(todo), len(results))
        progress.begin(len(todo), sum(request.count for request in todo))
        for result in results:
            progress.tile(result)

        if todo:
            inputs.check()
        folder.tell_foreign(request.name for request in todo)
        pipeline = Pipeline(job, progress, results, starting.close, allow_missing)
        while todo:
            todo = pipeline.run(todo)
    folder.end_run(inputs.key, inputs.record(), results, allow_missing=allow_missing)
    if text := network_text(inputs.network()):
        logger.info("%s", text)
    order = {request.name: position for position, request in enumerate(inputs.tile_requests)}
    return tuple(sorted(results, key=lambda result: order[result.request.name]))


class Pipeline(Generic[Made]):
    """Takes tiles through the stages of a job, and appends a result for each to `results`."""

    def __init__(
        self,
        job: Job[Made],
        progress: Progress,
        results: list[TileResult],
        first_read: Callable[[], None],
        allow_missing: int,
    ) -> None:
        self._job, self._progress, self._results, self._first_read = job, progress, results, first_read
        self._present = partial(job.present, allow_missing=allow_missing)
        self._again: list[TileRequest] = []
        self._unread: set[str] = set()
        """Tiles of which no planned read worked."""
        self._seconds: dict[str, float] = {}
        """Tile -> seconds in the counted stages."""
        self._reporting = threading.Lock()
        self._writing: Future[None] = Future()
        """The tile that is being written, or was written last."""
        self._writing.set_result(None)

    def run(self, requests: Sequence[TileRequest]) -> list[TileRequest]:
        """Take the tiles through the stages; raises what stops the run.

        Returns those to be taken once more, since other runs have finished them for other pixels meanwhile.
        """
        self._again = []
        refused = False
        # Closed here, since an error keeps the iterator: a reading thread that finalised it would wait without end.
        reading = closing(prefetch(requests, self._read, self._job.inputs.stop))
        with ThreadPoolExecutor(1, "writer") as writer, reading as upcoming:
            for position, (request, read) in enumerate(upcoming, start=1):
                self._first_read()
                self._raise_if_stopped()
                made = _attempt(request, partial(self._process, request, read))
                del read
                self._writing.result()
                self._writing = writer.submit(self._write, request, made)
                self._writing.add_done_callback(self._stop_reading)
                refused_before, refused = refused, isinstance(made, REFUSED)
                del made  # its codes are the writer's now
                if refused and refused_before and request.name in self._unread and position < len(requests):
                    self._writing.result()
                    untried = len(requests) - position + len(self._again)
                    logger.error("nothing can be read; %d tiles are not tried", untried)
                    return []
            self._writing.result()
            return self._again

    def _read(self, request: TileRequest) -> DPixels | TileResult:
        """Read a tile, unless another run has finished it meanwhile."""
        network = self._job.inputs.network
        before = network()["reads"]["read"]
        self._seconds[request.name] = 0
        if present := self._present(request):
            return present
        try:
            with self._timed("read", request):
                return self._job.read(request, partial(self._reading, request.name))
        finally:
            if network()["reads"]["read"] == before:
                self._unread.add(request.name)

    def _process(self, request: TileRequest, read: Future[DPixels | TileResult]) -> Made | TileResult:
        if error := read.exception():
            raise error
        dpixels = read.result()
        if isinstance(dpixels, TileResult):
            return dpixels
        if present := self._present(request):
            return present
        with self._timed(self._job.process_stage, request):
            return self._job.process(request, dpixels, self._advance)

    def _write(self, request: TileRequest, made: Made | TileResult | TesseraError) -> None:
        """Write a tile and report it: all tiles in one thread, in their order."""
        result: TileResult | TesseraError | None
        if isinstance(made, TileResult | TesseraError):
            result = made
        elif present := self._present(request):
            result = present
        else:
            with self._timed("write", request):
                result = _attempt(request, partial(self._job.write, request, made))
        if result is None:
            self._again.append(request)
            return
        if isinstance(result, TesseraError):
            result = self._job.result(request, "failed", None, error=result)
        else:
            result = replace(result, seconds=self._seconds[request.name])
        self._results.append(result)
        with self._reporting:
            self._progress.tile(result)

    @contextmanager
    def _timed(self, stage: str, request: TileRequest) -> Iterator[None]:
        started = time.monotonic()
        with self._job.stages.at(stage):
            yield
        if stage in self._job.counted_stages:
            self._seconds[request.name] += time.monotonic() - started

    def _reading(self, tile: str, files: int, planned: int) -> None:
        if hasattr(self._progress, "reading"):
            with self._reporting:
                self._progress.reading(tile, files, planned, self._job.inputs.network()["bytes"])

    def _advance(self, pixels: int) -> None:
        with self._reporting:
            self._progress.advance(pixels)
        self._raise_if_stopped()

    def _raise_if_stopped(self) -> None:
        """Raise the error with which the writer stopped the run."""
        if self._writing.done():
            self._writing.result()

    def _stop_reading(self, written: Future[None]) -> None:
        if written.exception() is not None:
            self._job.inputs.stop()


def _attempt(request: TileRequest, stage: Callable[[], T]) -> T | TesseraError:
    """Return what the stage returns, or why the tile failed; raises what stops the run."""
    try:
        return stage()
    except (DiskFullError, UsageError):
        raise
    except (TesseraError, MemoryError) as error:
        error.__traceback__ = error.__cause__ = error.__context__ = None  # their frames hold the tile's arrays
        if isinstance(error, MemoryError):
            error = TileError(f"out of memory ({error}). Give the job more memory, or fewer --threads.")
        logger.error("%s failed: %s", request.name, error)
        return error
