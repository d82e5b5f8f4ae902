"""Some tiles of a run as a task for another process: plain and small on the way there, and on the way back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tessera_cli.errors import UsageError
from tessera_cli.extent.grid import TileRequest
from tessera_cli.files import explained
from tessera_cli.outputs.layers import RUNS
from tessera_cli.runs.deadline import Pace
from tessera_cli.runs.pipeline import Job, Pipeline
from tessera_cli.runs.results import Silent, TileResult
from tessera_cli.timing import peak_device_mb, peak_rss_mb


class Recipe(Protocol):
    """How to open the job of a run in any process: plain values."""

    def open(self, requests: Sequence[TileRequest]) -> Job[Any]: ...

    def stop(self) -> None:
        """Stop what this process reads for such jobs, in whichever threads."""


@dataclass(frozen=True)
class Task:
    """Tiles to take through the stages of a job. What is done is seen in the folder, so a task may run twice."""

    recipe: Recipe
    run: str
    """Key of the run."""
    requests: tuple[TileRequest, ...]
    allow_missing: int = 0
    overwrite: bool = False
    deadline: float | None = None


@dataclass(frozen=True)
class Performed:
    """What came of a task."""

    results: tuple[TileResult, ...]
    given_up: bool = False
    """Whether nothing could be read, and tiles were not tried."""
    out_of_time: bool = False
    """Whether tiles were left because of the deadline."""
    network: Mapping[str, Any] = field(default_factory=dict)
    """What this task has asked of servers, as `RequestStats.to_dict` says it."""
    stages: Mapping[str, float] = field(default_factory=dict)
    """Stage -> seconds it was at work."""
    peak_rss_mb: float = 0.0
    """The largest resident set of the process so far."""
    peak_device_mb: float | None = None
    """The most memory it has had on a GPU so far."""


_paces: dict[tuple[str, float | None], Pace] = {}
"""Run, deadline -> how long its tiles take in this process; to start a run again is to learn it again."""


def perform(task: Task) -> Performed:
    """Take the tiles of a task through the stages; raises what stops the run, such as a full disk."""
    job = task.recipe.open(task.requests)
    with explained(job.folder.path):
        return _perform(task, job)


def _perform(task: Task, job: Job[Any]) -> Performed:
    if not (job.folder.path / RUNS / f"{task.run}.json").exists():
        raise UsageError(
            f"A worker does not see the run in {job.folder.path}. All need the same file system at the same path."
        )
    before = job.reading.network()
    job.reading.check(task.requests)
    pipeline = Pipeline(
        job,
        task.run,
        Silent(),
        allow_missing=task.allow_missing,
        overwrite=task.overwrite,
        deadline=task.deadline,
        pace=_paces.setdefault((task.run, task.deadline), Pace()),
    )
    pipeline.run(task.requests)
    network = _since(before, job.reading.network())
    return Performed(
        tuple(pipeline.results),
        pipeline.given_up,
        pipeline.out_of_time,
        network,
        job.stages.seconds,
        peak_rss_mb(),
        peak_device_mb(),
    )


def _since(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Return the counts of `now` less those of `before`, level by level."""
    return {
        key: _since(before.get(key, {}), value) if isinstance(value, Mapping) else value - before.get(key, 0)
        for key, value in now.items()
    }


def added(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sums of two nested mappings of counts."""
    return {
        key: added(one.get(key, {}), other.get(key, {}))
        if isinstance(one.get(key, other.get(key)), Mapping)
        else one.get(key, 0) + other.get(key, 0)
        for key in dict.fromkeys([*one, *other])
    }
