"""The loop of every run: tiles that are done are left alone, the others are read ahead and finished, one by one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import zip_longest
from typing import TypeVar

from tessera_cli.atomic import remove_stale_parts
from tessera_cli.errors import (
    CredentialsError,
    DiskFullError,
    SourceRefusedError,
    SourceUnavailableError,
    TesseraError,
    TileError,
    UsageError,
)
from tessera_cli.inputs import Inputs
from tessera_cli.outputs.folder import Failure, Folder, R
from tessera_cli.results import Progress, TileResult, network_text
from tessera_cli.task import Task

log = logging.getLogger(__name__)

T = TypeVar("T")


def run_tiles(
    inputs: Inputs,
    folder: Folder[R],
    *,
    kept: Callable[[Task, R], TileResult],
    read: Callable[[Task], T],
    finish: Callable[[Task, T], TileResult],
    progress: Progress,
    allow_missing: int,
    kind: type[TileResult] = TileResult,
) -> tuple[TileResult, ...]:
    """What became of each task: `kept` if its record says that it is done, else `read` and then `finish`.

    A tile that fails does not stop the others and is noted in the folder; its result is a `kind`. A full disk stops
    the run at once, and so does a source of which nothing can be read for two tiles in a row.
    """
    remove_stale_parts(folder.path)
    todo, results = [], []
    for task in inputs.tasks:
        record = folder.finished(task.name, task.pixels, allow_missing=allow_missing, inputs=inputs.digest(task))
        if record is None:
            todo.append(task)
        else:
            results.append(kept(task, record))
    log.info("%d tiles to do, %d done before", len(todo), len(results))
    progress.begin(len(todo), sum(int(task.pixels.sum()) for task in todo))
    for result in results:
        progress.tile(result)

    if todo:
        inputs.check()
    read_before: int | None = None  # planned reads that had worked when the last tile was refused
    for task, upcoming in read_ahead(todo, read, inputs.stop):
        result = _finished(task, upcoming, finish, kind)
        results.append(result)
        progress.tile(result)
        del upcoming  # or two tiles would stay in memory while the third is read
        if isinstance(result.error, (CredentialsError, SourceRefusedError, SourceUnavailableError)):
            worked = inputs.network()["reads"]["read"]
            if worked == read_before and len(results) < len(inputs.tasks):
                log.error("nothing can be read; %d tiles are not tried", len(inputs.tasks) - len(results))
                break
            read_before = worked
        else:
            read_before = None
    failed = (Failure(r.task.name, r.task.pixels, str(r.error), allow_missing) for r in results if r.error)
    folder.end(inputs.key, inputs.record(), failed)
    if text := network_text(inputs.network()):
        log.info("%s", text)
    return tuple(results)


def read_ahead(
    tasks: Sequence[Task], read: Callable[[Task], T], stop: Callable[[], None] = lambda: None
) -> Iterator[tuple[Task, Future[T]]]:
    """Each task with its finished read; while the caller works on it, the next one is read.

    `stop` is called when the caller leaves early or is interrupted: it must make reads end soon.
    """
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
        except BaseException:
            stop()
            raise
        finally:
            executor.shutdown(cancel_futures=True)


def _finished(
    task: Task, read: Future[T], finish: Callable[[Task, T], TileResult], kind: type[TileResult]
) -> TileResult:
    try:
        return finish(task, read.result())
    except (DiskFullError, UsageError):
        raise
    except TesseraError as error:
        log.error("%s failed: %s", task.name, error)
        error.__traceback__ = error.__cause__ = error.__context__ = None  # their frames hold the tile's arrays
        return kind(task, "failed", error=error)
    except MemoryError as error:
        text = f"out of memory ({error}). Give the job more memory, or fewer --threads."
        return kind(task, "failed", error=TileError(text))
