"""The one seam of all runs: which tiles are to do, and who does them: this process, or an executor."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from tessera_cli.errors import OutOfTimeError
from tessera_cli.extent.grid import TileRequest
from tessera_cli.runs.failures import forget_failure
from tessera_cli.runs.inputs import Inputs
from tessera_cli.runs.pipeline import Job, Pipeline
from tessera_cli.runs.results import Outcome, Progress, TileResult, network_text
from tessera_cli.runs.selection import select
from tessera_cli.runs.tasks import Performed, Recipe, Task, added, perform
from tessera_cli.runs.terms import Terms

logger = logging.getLogger(__name__)

LARGEST = 16
"""Tiles of a task."""


def run_tiles(
    inputs: Inputs, job: Job[Any], terms: Terms, progress: Progress, *, recipe: Recipe | None = None
) -> Outcome:
    """Take the tiles of a run that are to do through the stages of the job; return a result for each.

    `recipe` opens the job in other processes, where `terms` name an executor.

    Finished tiles are skipped. The record of a tile is what makes it done: whatever is lost on the way, the same run
    again does what is missing.
    """
    folder, crew = job.folder, _Crew(inputs, job, terms, progress, recipe)
    chosen = select(inputs, folder, terms)
    with ExitStack() as starting:
        starting.enter_context(job.stages.at("start"))
        folder.tidy()
        todo = []
        for request in chosen:
            result = None if terms.overwrite else job.present(request, allow_missing=terms.allow_missing)
            if result is None:
                todo.append(request)
            else:
                forget_failure(folder.path, inputs.key, request)
                crew.results.append(result)
        logger.info("%d tiles to do, %d done before", len(todo), len(crew.results))
        progress.begin(len(todo), sum(request.count for request in todo))
        for result in crew.results:
            progress.tile(result)
        folder.tell_foreign(request.name for request in todo)
        if todo:
            job.reading.check(todo)
            crew.take(todo, starting)
    network = added(job.reading.network(), crew.network)
    if text := network_text(network):
        logger.info("%s", text)
    order = {request.name: position for position, request in enumerate(chosen)}
    results = tuple(sorted(crew.results, key=lambda result: order[result.request.name]))
    left = len(chosen) - len(results)
    return Outcome(results, left, _out_of_time(left, len(chosen)) if crew.out_of_time and left else None, network)


def _out_of_time(left: int, tiles: int) -> OutOfTimeError:
    return OutOfTimeError(f"The time is up, and {left} of {tiles} tiles are left. Run the same command to go on.")


class _Crew:
    """Takes tiles through the stages of a job, here or elsewhere."""

    def __init__(self, inputs: Inputs, job: Job[Any], terms: Terms, progress: Progress, recipe: Recipe | None) -> None:
        self._run, self._job, self._recipe, self._terms, self._progress = inputs.key, job, recipe, terms, progress
        self.results: list[TileResult] = []
        self.network: Mapping[str, Any] = {}
        self.out_of_time = False

    def take(self, requests: Sequence[TileRequest], starting: ExitStack) -> None:
        """Take the tiles; `starting` is closed when the first was read."""
        if self._terms.executor is None:
            self._take_here(requests, starting)
        else:
            starting.close()
            self._hand_out(requests)

    def _take_here(self, requests: Sequence[TileRequest], starting: ExitStack) -> None:
        terms = self._terms
        pipeline = Pipeline(
            self._job,
            self._run,
            self._progress,
            allow_missing=terms.allow_missing,
            overwrite=terms.overwrite,
            deadline=terms.deadline,
            first_read=starting.close,
        )
        try:
            pipeline.run(requests)
        finally:
            self.results += pipeline.results
            self.out_of_time = pipeline.out_of_time

    def _hand_out(self, requests: Sequence[TileRequest]) -> None:
        """Hand tasks to the executor, never many more than it can work on, and take what comes back as it comes."""
        executor, slots = self._terms.executor, self._terms.slots
        assert executor is not None
        tasks, running = self._tasks(requests, slots), set[Future[Performed]]()
        try:
            while True:
                while len(running) < 2 * slots and (task := next(tasks, None)) is not None:
                    running.add(executor.submit(perform, task))
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    performed = future.result()
                    self._keep(performed)
                    self.out_of_time |= performed.out_of_time
                    if performed.given_up or performed.out_of_time:
                        tasks = iter(())
        finally:
            for future in running:
                future.cancel()

    def _tasks(self, requests: Sequence[TileRequest], slots: int) -> Iterator[Task]:
        """Cut tiles into tasks, smaller ones towards the end, so that all processes end at about the same time."""
        terms, position = self._terms, 0
        assert self._recipe is not None
        while position < len(requests):
            size = min(LARGEST, max(1, (len(requests) - position) // (4 * slots)))
            some = tuple(requests[position : position + size])
            position += size
            yield Task(self._recipe, self._run, some, terms.allow_missing, terms.overwrite, terms.deadline)

    def _keep(self, performed: Performed) -> None:
        self.network = added(self.network, performed.network)
        self._job.stages.add(performed.stages)
        for result in performed.results:
            path = result.path and self._job.folder.path / result.path.name  # as the user has named the folder
            self.results.append(replace(result, path=path))
            self._progress.advance(result.pixels)
            self._progress.tile(self.results[-1])
