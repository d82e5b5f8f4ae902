"""The one seam of all runs: which tiles are to do, and who does them: this process, or an executor."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from tessera_cli.errors import OutOfTimeError, TesseraError
from tessera_cli.extent.grid import TileRequest
from tessera_cli.folders.failures import forget_failure, note_failure
from tessera_cli.runs.dispatch import Dispatch
from tessera_cli.runs.fit import tell_shortfalls
from tessera_cli.runs.inputs import Inputs
from tessera_cli.runs.pipeline import Job, Pipeline
from tessera_cli.runs.resources import resources, resources_text
from tessera_cli.runs.results import Outcome, Progress, TileResult, network_text
from tessera_cli.runs.selection import select
from tessera_cli.runs.tasks import Performed, Recipe, added
from tessera_cli.runs.terms import Terms

logger = logging.getLogger(__name__)


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
            tell_shortfalls(job.needs(inputs, todo), folder.path, terms)
            job.reading.check(todo)
            crew.take(todo, starting)
    network = added(job.reading.network(), crew.network)
    if text := network_text(network):
        logger.info("%s", text)
    taken = resources(crew.results, network, crew.performed)
    logger.info("%s", resources_text(taken))
    order = {request.name: position for position, request in enumerate(chosen)}
    results = tuple(sorted(crew.results, key=lambda result: order[result.request.name]))
    left = len(chosen) - len(results)
    stopped = crew.stopped or (_out_of_time(left, len(chosen)) if crew.out_of_time and left else None)
    return Outcome(results, left, stopped, network, taken)


def _out_of_time(left: int, tiles: int) -> OutOfTimeError:
    return OutOfTimeError(f"The time is up, and {left} of {tiles} tiles are left. Run the same command to go on.")


class _Crew:
    """Takes tiles through the stages of a job, here or elsewhere."""

    def __init__(self, inputs: Inputs, job: Job[Any], terms: Terms, progress: Progress, recipe: Recipe | None) -> None:
        self._run, self._job, self._recipe, self._terms, self._progress = inputs.key, job, recipe, terms, progress
        self.results: list[TileResult] = []
        self.network: Mapping[str, Any] = {}
        self.out_of_time = False
        self.stopped: TesseraError | None = None
        self.performed: list[Performed] = []

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
        """Hand the tiles to the executor as tasks."""
        assert self._terms.executor is not None
        assert self._recipe is not None
        dispatch = Dispatch(
            self._terms.executor,
            self._terms,
            self._recipe,
            self._run,
            keep=self._keep,
            finished=self._finished_by_a_dead_one,
            fail=self._fail,
        )
        dispatch.run(requests)
        self.stopped, self.out_of_time = dispatch.stopped, dispatch.out_of_time
        self._job.folder.tidy()  # processes may have died that nobody has told of

    def _keep(self, performed: Performed) -> None:
        self.network = added(self.network, performed.network)
        self.performed.append(replace(performed, results=()))
        self._job.stages.add(performed.stages)
        for result in performed.results:
            path = result.path and self._job.folder.path / result.path.name  # as the user has named the folder
            self._tell(replace(result, path=path))
            if result.error is not None and not getattr(self._terms.executor, "tells", True):
                logger.error("%s failed: %s", result.request.name, result.error)

    def _finished_by_a_dead_one(self, request: TileRequest) -> bool:
        """Keep the result of a tile that a process has finished before it died; return whether it has."""
        terms = self._terms
        result = None if terms.overwrite else self._job.present(request, allow_missing=terms.allow_missing)
        if result is None:
            return False
        forget_failure(self._job.folder.path, self._run, request)
        self._tell(replace(result, status="done" if result.path else "empty"))
        return True

    def _fail(self, request: TileRequest, error: TesseraError) -> None:
        logger.error("%s failed: %s", request.name, error)
        note_failure(self._job.folder.path, self._run, request, error, allow_missing=self._terms.allow_missing)
        self._tell(self._job.result(request, "failed", None, error=error))

    def _tell(self, result: TileResult) -> None:
        self.results.append(result)
        self._progress.advance(result.pixels)
        self._progress.tile(result)
