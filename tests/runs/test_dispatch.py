"""Which tiles go out in which tasks, whatever dies on the way."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future
from types import SimpleNamespace
from typing import Any

import pytest

from tessera_cli.errors import SourceUnavailableError, TesseraError, TileError
from tessera_cli.runs.dispatch import AHEAD, DEATHS, FEWEST, GRACE, LARGEST, Dispatch
from tessera_cli.runs.results import TileResult
from tessera_cli.runs.tasks import Performed, Task
from tessera_cli.runs.terms import PLAIN, Terms
from tessera_cli.workers import SchedulerGoneError


class World(Executor):
    """An executor whose processes are imagined: `process` works on a tile, or raises what happens to its process."""

    def __init__(self, process: Callable[[str], None] = lambda name: None, *, slots: int = 2, seed: int = 0) -> None:
        self.process, self.slots = process, slots
        self.random = random.Random(seed)
        self.queued: list[tuple[Task, Future[Performed]]] = []
        self.most = 0
        self.tasks: list[list[str]] = []
        self.done: Counter[str] = Counter()
        self.alone: dict[str, list[bool]] = {}

    def submit(self, fn: Any, task: Task, /) -> Future[Performed]:  # type: ignore[override]
        future = Waited(self)
        self.queued.append((task, future))
        self.most = max(self.most, len(self.queued))
        return future

    def step(self) -> None:
        """Let one of the tasks that are out end, in any order."""
        task, future = self.queued.pop(self.random.randrange(len(self.queued)))
        names = [request.name for request in task.requests]
        self.tasks.append(names)
        results = []
        try:
            for request in task.requests:
                self.alone.setdefault(request.name, []).append(not self.queued)
                if self.done[request.name]:
                    continue
                self.process(request.name)
                self.done[request.name] += 1
                results.append(TileResult(request, "done"))
        except TileError as error:
            future.set_result(Performed((TileResult(request, "failed", error=error),)))
        except SourceUnavailableError as error:
            if isinstance(error, SchedulerGoneError):
                future.set_exception(error)
            else:
                failed = TileResult(request, "failed", error=error)
                future.set_result(Performed((*results, failed), network={"reads": {"read": 0}}))
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(Performed(tuple(results)))


class Waited(Future):  # type: ignore[type-arg]
    """A future that ends when the world goes on."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world


@pytest.fixture(autouse=True)
def _time_passes(monkeypatch):
    def wait(futures: Any, timeout: float, return_when: str) -> Any:
        next(iter(futures)).world.step()
        return SimpleNamespace(done=[future for future in futures if future.done()])

    monkeypatch.setattr("tessera_cli.runs.dispatch.wait", wait)


class Recipe:
    stopped = 0

    def __init__(self, world: World) -> None:
        self.world = world

    def stop(self) -> None:
        self.stopped += 1
        assert all(future.cancelled() for _, future in self.world.queued)  # or a thread would begin the next


def run(world: World, names: Any, terms: Terms = PLAIN) -> Any:
    """Return what was kept, found finished, and failed."""
    requests: Any = [SimpleNamespace(name=name) for name in names]
    kept: list[str] = []
    found: list[str] = []
    failed: dict[str, TesseraError] = {}

    def finished(request: Any) -> bool:
        if world.done[request.name]:
            found.append(request.name)
        return bool(world.done[request.name])

    recipe: Any = Recipe(world)
    dispatch = Dispatch(
        world,
        terms,
        recipe,
        "key",
        keep=lambda performed: kept.extend(result.request.name for result in performed.results),
        finished=finished,
        fail=lambda request, error: failed.__setitem__(request.name, error),
    )
    made = SimpleNamespace(kept=kept, found=found, failed=failed, recipe=recipe, dispatch=dispatch)
    try:
        dispatch.run(requests)
    except BaseException as error:
        made.raised = error
    return made


NAMES = [f"t{number:03d}" for number in range(200)]


def test_tasks_are_large_at_first_and_small_in_the_end_and_few_are_out():
    world = World(slots=3)
    made = run(world, NAMES)
    assert sorted(made.kept) == NAMES
    sizes = [len(task) for task in world.tasks]
    assert max(sizes) == min(LARGEST, len(NAMES) // 12)
    assert min(sizes) == 1
    assert world.most == AHEAD * 3


def test_more_workers_get_more_tasks():
    """They come and go, in a cluster that adapts."""
    world = World(slots=1)

    def process(name: str) -> None:
        world.slots = 5 if name > "t050" else 1

    world.process = process
    assert sorted(run(world, NAMES).kept) == NAMES
    assert world.most == AHEAD * 5


@pytest.mark.parametrize("seed", range(8))
def test_a_tile_that_kills_fails_by_its_name_and_no_other(seed):
    deaths: Counter[str] = Counter()

    def process(name: str) -> None:
        if name in ("t017", "t018", "t199"):
            deaths[name] += 1
            raise BrokenExecutor("a worker process has died (signal 9)")

    world = World(process, seed=seed)
    made = run(world, NAMES)
    assert sorted(made.failed) == ["t017", "t018", "t199"]
    assert "killed 3 times" in str(made.failed["t017"])
    assert isinstance(made.failed["t017"], TileError)
    assert sorted([*made.kept, *made.found]) == [name for name in NAMES if name not in made.failed]
    assert all(count == 1 for count in world.done.values() if count)  # no finished tile was made twice
    assert max(deaths.values()) <= 3
    assert world.alone["t017"][-1]  # its third time harmed nobody


@pytest.mark.parametrize("seed", range(8))
def test_processes_that_die_at_random_lose_nothing(seed):
    chance, spared = random.Random(seed), Counter[str]()

    def process(name: str) -> None:
        if chance.random() < 0.05 and not spared[name]:
            spared[name] += 1
            raise BrokenExecutor("a worker process has died (signal 9)")

    world = World(process, slots=4, seed=seed)
    made = run(world, NAMES)
    assert not made.failed
    assert sorted([*made.kept, *made.found]) == NAMES
    assert set(world.done.values()) == {1}


@pytest.mark.parametrize("slots", [1, 8])
def test_where_every_process_dies_most_tiles_are_not_tried(slots):
    """As where a library, or the least of the tiles, takes more memory than there is."""
    deaths = 0

    def process(name: str) -> None:
        nonlocal deaths
        deaths += 1
        raise BrokenExecutor("a worker process has died (signal 9)")

    names = [f"t{number:05d}" for number in range(10_000)]
    made = run(World(process, slots=slots), names)
    limit = DEATHS * max(FEWEST, slots)
    assert limit <= deaths <= limit + AHEAD * slots
    assert not [*made.kept, *made.found]
    assert 0 < len(made.failed) <= LARGEST * (AHEAD * slots + 1)
    assert "its process was killed" in str(next(iter(made.failed.values())))


def test_deaths_after_a_tile_was_finished_do_not_end_the_run():
    poison = {f"t{number:03d}" for number in range(100, 140)}

    def process(name: str) -> None:
        if name in poison:
            raise BrokenExecutor("a worker process has died (signal 9)")

    made = run(World(process, slots=1), NAMES)
    assert made.failed.keys() == poison
    assert sorted([*made.kept, *made.found]) == [name for name in NAMES if name not in poison]


def test_tasks_that_nobody_begins_are_left_after_the_deadline(monkeypatch):
    """A cluster whose workers do not come."""
    world, now = World(), time.time()
    world.step = lambda: None  # type: ignore[method-assign]
    clock = iter([now, now + GRACE - 1, now + GRACE + 1])
    monkeypatch.setattr("tessera_cli.runs.dispatch.time.time", lambda: next(clock))
    made = run(world, NAMES, Terms(deadline=now))
    assert made.dispatch.out_of_time
    assert not [*made.kept, *made.failed]
    assert world.queued
    assert all(future.cancelled() for _, future in world.queued)


def test_neighbours_that_die_with_it_are_not_blamed():
    """A process of Dask works on several tasks: one that kills it takes the others along."""
    world = World(slots=4)

    def process(name: str) -> None:
        if name == "t003":
            for task, future in world.queued[:]:
                future.set_exception(BrokenExecutor("the workers of a task have died"))
                world.queued.remove((task, future))
            raise BrokenExecutor("the workers of a task have died")

    world.process = process
    made = run(world, NAMES[:12])
    assert list(made.failed) == ["t003"]
    assert sorted([*made.kept, *made.found]) == [name for name in NAMES[:12] if name != "t003"]


def test_a_scheduler_that_is_gone_ends_the_run_to_be_started_again():
    def process(name: str) -> None:
        if name == "t100":
            raise SchedulerGoneError("the scheduler is gone")

    world = World(process)
    made = run(world, NAMES)
    assert made.dispatch.stopped.exit_code == 75
    assert not made.failed
    assert 0 < len(made.kept) < len(NAMES)


def test_an_error_that_ends_the_run_cancels_and_stops_what_is_on_its_way():
    def process(name: str) -> None:
        if name == "t020":
            raise KeyboardInterrupt

    world = World(process)
    made = run(world, NAMES)
    assert isinstance(made.raised, KeyboardInterrupt)
    assert made.recipe.stopped == 1
    assert all(future.cancelled() for _, future in world.queued)


def test_a_source_that_answers_to_none_is_given_up():
    """Though no task is of more than one tile."""

    def process(name: str) -> None:
        raise SourceUnavailableError("nobody answers")

    made = run(World(process), NAMES[:15])
    assert 4 <= len(made.kept) <= 8
    assert not made.failed
