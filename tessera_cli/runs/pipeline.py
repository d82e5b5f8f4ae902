"""The loop of every run: tiles that are done are left alone, the others pass through the stages of a job.

There are three, each in a thread of its own: the next tile is read ahead, the calling thread does the work, and what
came of it is written behind. Nothing queues up: a tile that was read waits for the work on the one before it, and a
tile that was worked on waits for the one that is being written.
"""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import Generic, TypeVar

from tessera_cli.errors import (
    CredentialsError,
    DiskFullError,
    SourceRefusedError,
    SourceUnavailableError,
    TesseraError,
    TileError,
    UsageError,
)
from tessera_cli.files import remove_stale_parts
from tessera_cli.prefetch import prefetch
from tessera_cli.runs.folder import Failure, Folder, R
from tessera_cli.runs.inputs import Inputs
from tessera_cli.runs.results import Progress, TileResult, network_text
from tessera_cli.runs.task import Task
from tessera_cli.timing import StageTimer

logger = logging.getLogger(__name__)

REFUSED = (CredentialsError, SourceRefusedError, SourceUnavailableError)
"""What makes it doubtful that any tile can be read."""

Input = TypeVar("Input")
Made = TypeVar("Made")
T = TypeVar("T")


class Job(ABC, Generic[R, Input, Made]):
    """What a run does with its tiles. The stages run side by side, each on another tile."""

    stages: StageTimer
    """Told how long each stage was at work; the loop adds `start`, which ends when the first tile was read."""

    @abstractmethod
    def kept(self, task: Task, record: R) -> TileResult:
        """The result of a tile that an earlier run did."""

    @abstractmethod
    def read(self, task: Task) -> Input:
        """The tile's d-pixels. At most two tiles' are held at a time."""

    @abstractmethod
    def work(self, task: Task, read: Input, advance: Callable[[int], None]) -> Made:
        """What takes long. What is returned holds no d-pixels.

        `advance` is to be called now and then with the number of pixels that are finished since; it raises what stops
        the run.
        """

    @abstractmethod
    def finish(self, task: Task, made: Made) -> TileResult | None:
        """Write what was made. None: another run has finished the tile for other pixels since it was read."""

    @abstractmethod
    def failed(self, task: Task, error: TesseraError) -> TileResult:
        """The result of a tile that a stage failed on."""


def run_tiles(
    inputs: Inputs, folder: Folder[R], job: Job[R, Input, Made], *, progress: Progress, allow_missing: int
) -> tuple[TileResult, ...]:
    """What became of each task, in the order of the tasks.

    A tile that fails does not stop the others and is noted in the folder. A full disk stops the run at once, and so
    does a source of which nothing can be read for two tiles in a row.
    """
    with ExitStack() as starting:
        starting.enter_context(job.stages.at("start"))
        remove_stale_parts(folder.path)
        tasks = inputs.tasks
        todo, results = [], []
        for task in tasks:
            record = folder.finished(task.name, task.pixels, allow_missing=allow_missing, inputs=inputs.digest(task))
            if record is None:
                todo.append(task)
            else:
                results.append(job.kept(task, record))
        logger.info("%d tiles to do, %d done before", len(todo), len(results))
        progress.begin(len(todo), sum(int(task.pixels.sum()) for task in todo))
        for result in results:
            progress.tile(result)

        if todo:
            inputs.check()
        line = Pipeline(inputs, job, progress, results, starting.close)
        while todo:
            todo = line.run(todo)
    failed = (Failure(r.task.name, r.task.pixels, str(r.error), allow_missing) for r in results if r.error)
    folder.end(inputs.key, inputs.record(), failed)
    if text := network_text(inputs.network()):
        logger.info("%s", text)
    order = {task.name: position for position, task in enumerate(tasks)}
    return tuple(sorted(results, key=lambda result: order[result.task.name]))


class Pipeline(Generic[Input, Made]):
    """Tiles on their way through the stages of a job. What became of each is put on `results`."""

    def __init__(
        self,
        inputs: Inputs,
        job: Job[R, Input, Made],
        progress: Progress,
        results: list[TileResult],
        first_read: Callable[[], None],
    ) -> None:
        self._inputs, self._job, self._progress = inputs, job, progress
        self._results, self._first_read = results, first_read
        self._again: list[Task] = []
        self._unread: set[str] = set()
        """Tiles of which no planned read worked."""
        self._telling = threading.Lock()
        self._ending: Future[None] = Future()
        """Of the tile that is being written, or was written last."""
        self._ending.set_result(None)

    def run(self, tasks: Sequence[Task]) -> list[Task]:
        """Take the tasks through the stages; raises what stops the run.

        Those returned are to be taken once more: other runs have finished them for other pixels meanwhile.
        """
        self._again = []
        refused = False
        with ThreadPoolExecutor(1, "behind") as behind:
            for position, (task, read) in enumerate(prefetch(tasks, self._read, self._inputs.stop), start=1):
                self._first_read()
                self._check()
                made = _tried(task, partial(self._work, task, read))
                del read
                self._ending.result()
                self._ending = behind.submit(self._end, task, made)
                self._ending.add_done_callback(self._stop_reading)
                refused_before, refused = refused, isinstance(made, REFUSED)
                del made  # its codes are the writer's now
                if refused and refused_before and task.name in self._unread and position < len(tasks):
                    self._ending.result()
                    untried = len(tasks) - position + len(self._again)
                    logger.error("nothing can be read; %d tiles are not tried", untried)
                    return []
            self._ending.result()
            return self._again

    def _read(self, task: Task) -> Input:
        before = self._inputs.network()["reads"]["read"]
        try:
            return self._job.read(task)
        finally:
            if self._inputs.network()["reads"]["read"] == before:
                self._unread.add(task.name)

    def _work(self, task: Task, read: Future[Input]) -> Made:
        return self._job.work(task, read.result(), self._advance)

    def _end(self, task: Task, made: Made | TesseraError) -> None:
        """The last stage, and what is said of the tile: all in one thread, in the order of the tiles."""
        result = made if isinstance(made, TesseraError) else _tried(task, partial(self._job.finish, task, made))
        if isinstance(result, TesseraError):
            result = self._job.failed(task, result)
        if result is None:
            self._again.append(task)
            return
        self._results.append(result)
        with self._telling:
            self._progress.tile(result)

    def _advance(self, pixels: int) -> None:
        with self._telling:
            self._progress.advance(pixels)
        self._check()

    def _check(self) -> None:
        """Raises what the last stage stopped the run with."""
        if self._ending.done():
            self._ending.result()

    def _stop_reading(self, ended: Future[None]) -> None:
        if ended.exception() is not None:
            self._inputs.stop()


def _tried(task: Task, stage: Callable[[], T]) -> T | TesseraError:
    """What the stage returns, or why the tile failed; raises what stops the run."""
    try:
        return stage()
    except (DiskFullError, UsageError):
        raise
    except (TesseraError, MemoryError) as error:
        error.__traceback__ = error.__cause__ = error.__context__ = None  # their frames hold the tile's arrays
        if isinstance(error, MemoryError):
            error = TileError(f"out of memory ({error}). Give the job more memory, or fewer --threads.")
        logger.error("%s failed: %s", task.name, error)
        return error
