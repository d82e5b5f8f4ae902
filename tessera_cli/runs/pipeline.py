"""The loop of every process of a run: tiles pass through the stages of a job.

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
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Generic, TypeVar

from tessera_cli.dpixels.dpixel import DPixels
from tessera_cli.errors import (
    CredentialsError,
    DiskFullError,
    OutOfTimeError,
    ReadingStoppedError,
    SourceRefusedError,
    SourceUnavailableError,
    TesseraError,
    TileError,
    UsageError,
)
from tessera_cli.extent.grid import TileRequest
from tessera_cli.folders.failures import forget_failure, note_failure
from tessera_cli.folders.folder import TileFolder
from tessera_cli.imagery import OnRead
from tessera_cli.outputs.item import TileRecord
from tessera_cli.prefetch import prefetch
from tessera_cli.runs.deadline import Deadline, Pace, Part
from tessera_cli.runs.fit import Needs
from tessera_cli.runs.inputs import Inputs
from tessera_cli.runs.reading import Reading
from tessera_cli.runs.results import Progress, TileResult, TileStatus
from tessera_cli.timing import StageTimer

logger = logging.getLogger(__name__)

REFUSED = (CredentialsError, SourceRefusedError, SourceUnavailableError)
"""Errors after which it is doubtful that any tile can be read."""

Made = TypeVar("Made")
T = TypeVar("T")


class Job(ABC, Generic[Made]):
    """What a run does with its tiles. The stages run side by side, each on another tile."""

    reading: Reading
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
        return self.reading.read(self.folder.united(request), ascending=self.ascending, reading=reading)

    def left(self, request: TileRequest) -> int:
        """Return how many pixels of a tile are still to be processed."""
        return request.count

    def needs(self, inputs: Inputs, requests: Sequence[TileRequest]) -> Needs | None:
        """Return what taking these tiles is likely to need; None if nobody knows."""
        return None

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
        record = self.folder.finished(request, allow_missing=allow_missing, inputs=self.reading.digest(request))
        return None if record is None else self.result(request, "present", record)

    def result(self, request: TileRequest, status: TileStatus, record: TileRecord | None, **more: Any) -> TileResult:
        """Return the result of a tile from its record, or without one if it failed."""
        path = self.folder.path / record.main if record and record.main else None
        size = sum(asset.size for asset in record.assets) if record else None
        return TileResult(request, status, path, record.pixels if record else 0, bytes=size, **more)


class Pipeline(Generic[Made]):
    """Takes tiles through the stages of a job, and appends a result for each to `results`.

    A tile that fails does not stop the others and is noted in the folder. A full disk stops the run at once, and so
    does a source of which nothing can be read for two tiles in a row. No tile is begun that will not be finished by the
    deadline, by the pace of those before, and none is gone on with after it.
    """

    def __init__(
        self,
        job: Job[Made],
        run: str,
        progress: Progress,
        *,
        allow_missing: int = 0,
        overwrite: bool = False,
        deadline: float | None = None,
        pace: Pace | None = None,
        first_read: Callable[[], None] = lambda: None,
    ) -> None:
        """`run` is the key of the run; `overwrite` takes tiles though they are finished."""
        self._job, self._run, self._progress, self._first_read = job, run, progress, first_read
        self._allow_missing, self._overwrite = allow_missing, overwrite
        self._deadline = Deadline(deadline, pace or Pace())
        self._to_process = 0
        """Pixels left of the tile that was read last."""
        self._ahead = 0
        """Pixels of the tile that is processed that may still be to do."""
        self.results: list[TileResult] = []
        self.given_up = False
        """Whether nothing could be read, and tiles were not tried."""
        self.out_of_time = False
        """Whether tiles were left because of the deadline."""
        self._again: list[TileRequest] = []
        self._unread: set[str] = set()
        """Tiles of which no planned read worked."""
        self._seconds: dict[str, float] = {}
        """Tile -> seconds in the counted stages."""
        self._reporting = threading.Lock()
        self._writing: Future[None] = Future()
        """The tile that is being written, or was written last."""
        self._writing.set_result(None)

    def run(self, requests: Sequence[TileRequest]) -> None:
        """Take the tiles through the stages; raises what stops the run."""
        try:
            with self._deadline.calling(self._job.reading.stop):
                while requests:  # more than once those that other runs have finished for other pixels meanwhile
                    requests = self._run_once(requests)
        except OutOfTimeError:
            self.out_of_time = True
            self._writing.result()

    def _run_once(self, requests: Sequence[TileRequest]) -> list[TileRequest]:
        """Take the tiles through the stages; return those to be taken once more."""
        self._again = []
        refused = False
        # Closed here, since an error keeps the iterator: a reading thread that finalised it would wait without end.
        reading = closing(prefetch(requests, self._read, self._job.reading.stop))
        with ThreadPoolExecutor(1, "writer") as writer, reading as upcoming:
            for position, (request, read) in enumerate(upcoming, start=1):
                self._first_read()
                self._raise_if_stopped()
                self._deadline.check()  # what was being read then has failed for no other reason
                made = _attempt(request, partial(self._process, request, read))
                del read
                before, self._writing = self._writing, writer.submit(self._write, request, made)
                self._writing.add_done_callback(self._stop_reading)
                before.result()  # after the submission, so that what interrupts this does not cost the tile
                refused_before, refused = refused, isinstance(made, REFUSED)
                del made  # its codes are the writer's now
                if refused and refused_before and request.name in self._unread and position < len(requests):
                    self._writing.result()
                    untried = len(requests) - position + len(self._again)
                    logger.error("nothing can be read; %d tiles are not tried", untried)
                    self.given_up = True
                    return []
            self._writing.result()
            return self._again

    def _read(self, request: TileRequest) -> DPixels | TileResult:
        """Read a tile, unless another run has finished it meanwhile."""
        network = self._job.reading.network
        before = network()["reads"]["read"]
        self._seconds[request.name] = 0
        if present := self._present(request):
            return present
        meanwhile, self._to_process = self._to_process, self._job.left(request)
        self._deadline.check_reading(request.count, self._to_process, meanwhile)
        try:
            with self._timed("read", "read", request, request.count):
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
        left = self._job.left(request)
        self._deadline.check_processing(request.count, left)
        self._ahead = request.count
        with self._timed("process", self._job.process_stage, request, left):
            return self._job.process(request, dpixels, self._advance)

    def _write(self, request: TileRequest, made: Made | TileResult | TesseraError) -> None:
        """Write a tile and report it: all tiles in one thread, in their order."""
        folder = self._job.folder.path
        result: TileResult | TesseraError | None
        if isinstance(made, TileResult | TesseraError):
            result = made
        elif present := self._present(request):
            result = present
        else:
            with self._timed("write", "write", request, request.count):
                result = _attempt(request, partial(self._job.write, request, made))
        if result is None:
            self._again.append(request)
            return
        if isinstance(result, TesseraError):
            note_failure(folder, self._run, request, result, allow_missing=self._allow_missing)
            result = self._job.result(request, "failed", None, error=result)
        else:
            forget_failure(folder, self._run, request)
            result = replace(result, seconds=self._seconds[request.name])
        self.results.append(result)
        with self._reporting:
            self._progress.tile(result)

    def _present(self, request: TileRequest) -> TileResult | None:
        return None if self._overwrite else self._job.present(request, allow_missing=self._allow_missing)

    @contextmanager
    def _timed(self, part: Part, stage: str, request: TileRequest, pixels: int) -> Iterator[None]:
        started = time.monotonic()
        with self._job.stages.at(stage):
            yield
        seconds = time.monotonic() - started
        self._deadline.pace.add(part, pixels, seconds)
        if stage in self._job.counted_stages:
            self._seconds[request.name] += seconds

    def _reading(self, tile: str, files: int, planned: int) -> None:
        if hasattr(self._progress, "reading"):
            with self._reporting:
                self._progress.reading(tile, files, planned, self._job.reading.network()["bytes"])

    def _advance(self, pixels: int) -> None:
        with self._reporting:
            self._progress.advance(pixels)
        self._raise_if_stopped()
        self._ahead -= pixels
        if self._ahead > 0:  # else it is only to be written
            self._deadline.check()

    def _raise_if_stopped(self) -> None:
        """Raise the error with which the writer stopped the run."""
        if self._writing.done():
            self._writing.result()

    def _stop_reading(self, written: Future[None]) -> None:
        if written.exception() is not None:
            self._job.reading.stop()


def _attempt(request: TileRequest, stage: Callable[[], T]) -> T | TesseraError:
    """Return what the stage returns, or why the tile failed; raises what stops the run."""
    try:
        return stage()
    except (DiskFullError, OutOfTimeError, ReadingStoppedError, UsageError):
        raise
    except (TesseraError, MemoryError) as error:
        error.__traceback__ = error.__cause__ = error.__context__ = None  # their frames hold the tile's arrays
        if isinstance(error, MemoryError):
            error = TileError(f"out of memory ({error}). Give the job more memory, or fewer --threads.")
        logger.error("%s failed: %s", request.name, error)
        return error
