"""Tiles handed out as tasks to an executor, whose processes may die: what they leave is handed out again.

What a dead process has finished stays finished. Its other tiles go out once more, one to a task, so that it shows which
of them kills; a tile that killed twice is taken when nothing else runs, and after the third time it fails by its name.
Where process after process dies and none has done anything, the run ends.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait

from tessera_cli.errors import TesseraError, TileError, counted
from tessera_cli.extent.grid import TileRequest
from tessera_cli.runs.pipeline import REFUSED
from tessera_cli.runs.tasks import Performed, Recipe, Task, perform
from tessera_cli.runs.terms import Terms
from tessera_cli.workers import SchedulerGoneError

logger = logging.getLogger(__name__)

LARGEST = 16
"""Tiles of a task."""
AHEAD = 2
"""Tasks handed out for each that an executor can work on, so that none of its processes waits for us."""
DEATHS = 3
"""Of the process of a tile, after which it fails."""
FEWEST = 4
"""Executors that work on fewer tasks are judged as if they worked on so many."""
GRACE = 30.0
"""Seconds after the deadline in which tasks end by themselves; what is not begun by then is left: a cluster may have no
workers."""
LOOK = 5.0
"""Seconds after which an executor is asked again how much it can work on: workers of a cluster come and go."""


class Dispatch:
    """Hands out the tiles of a run, and takes back what comes of them in the order in which it comes."""

    def __init__(
        self,
        executor: Executor,
        terms: Terms,
        recipe: Recipe,
        run: str,
        *,
        keep: Callable[[Performed], None],
        finished: Callable[[TileRequest], bool],
        fail: Callable[[TileRequest, TesseraError], None],
    ) -> None:
        """`keep` takes what comes back; `finished` takes a tile that a dead process has finished, or returns False;
        `fail` takes one that is given up.
        """
        self._executor, self._terms, self._recipe, self._run = executor, terms, recipe, run
        self._keep, self._finished, self._fail = keep, finished, fail
        self._waiting: deque[TileRequest] = deque()
        self._suspects: deque[TileRequest] = deque()
        self._worst: deque[TileRequest] = deque()
        """Suspects that are to be alone, lest another dies with them."""
        self._deaths: Counter[str] = Counter()
        self._refused = 0
        """Tiles in a row of which nothing could be read."""
        self._in_vain: int | None = 0
        """Tasks whose process has died; None once a process has done anything."""
        self.stopped: TesseraError | None = None
        """Why tiles were left."""
        self.out_of_time = False
        """Whether a process has left tiles since the deadline has passed."""

    def run(self, requests: Sequence[TileRequest]) -> None:
        """Hand out the tiles, a few tasks ahead; raises what stops the run."""
        self._waiting.extend(requests)
        running: dict[Future[Performed], Task] = {}
        try:
            while True:
                while len(running) < AHEAD * self._slots and (task := self._next(alone=not running)) is not None:
                    running[self._executor.submit(perform, task)] = task
                if not running:
                    return
                for future in wait(running, timeout=LOOK, return_when=FIRST_COMPLETED).done:
                    self._take(running.pop(future), future)
                self._leave_late(running)
        except SchedulerGoneError as error:
            self.stopped = error
        except BaseException:
            _cancel(running)  # first: a thread that is stopped would begin the next
            self._recipe.stop()
            raise
        finally:
            _cancel(running)

    @property
    def _slots(self) -> int:
        return max(1, getattr(self._executor, "slots", 1))

    def _next(self, *, alone: bool) -> Task | None:
        """Return the next task; smaller ones towards the end, so that all processes end at about the same time."""
        if self._waiting:
            size = min(LARGEST, max(1, len(self._waiting) // (4 * self._slots)))
            return self._task([self._waiting.popleft() for _ in range(size)])
        if self._suspects:
            return self._task([self._suspects.popleft()])
        if self._worst and alone:
            return self._task([self._worst.popleft()])
        return None

    def _task(self, requests: Sequence[TileRequest]) -> Task:
        terms = self._terms
        return Task(
            self._recipe, self._run, tuple(requests), terms.allow_missing, terms.overwrite, deadline=terms.deadline
        )

    def _take(self, task: Task, future: Future[Performed]) -> None:
        try:
            performed = future.result()
        except BrokenExecutor as death:
            self._take_up(task, death)
            return
        self._in_vain = None
        self._keep(performed)
        self.out_of_time |= performed.out_of_time
        refused = performed.given_up or self._nothing_can_be_read(performed)
        if refused:
            logger.error("nothing can be read; %d tiles are not tried", self._leave_rest())
        elif performed.out_of_time:
            self._leave_rest()

    def _leave_rest(self) -> int:
        """Hand out no more tiles; return how many are left."""
        rest = (self._waiting, self._suspects, self._worst)
        count = sum(map(len, rest))
        for tiles in rest:
            tiles.clear()
        return count

    def _leave_late(self, running: dict[Future[Performed], Task]) -> None:
        """Leave what nobody has begun although the time is up."""
        if self._terms.deadline is not None and time.time() >= self._terms.deadline + GRACE:
            self._leave_rest()
            for future in _cancel(running):
                del running[future]
                self.out_of_time = True

    def _take_up(self, task: Task, death: BrokenExecutor) -> None:
        """Hand out again what a task has not finished whose process has died."""
        left = [request for request in task.requests if not self._finished(request)]
        logger.warning("%s; %d of its %d tiles are taken up again", death, len(left), len(task.requests))
        hopeless = self._all_die(len(left) < len(task.requests))
        for request in left:
            self._deaths[request.name] += 1
            deaths = self._deaths[request.name]
            if deaths < DEATHS and not hopeless:
                (self._suspects if deaths < DEATHS - 1 else self._worst).append(request)
                continue
            error = TileError(
                f"{request.name}: its process was killed {counted(deaths, 'time')}, for lack of memory? "
                "Give it more, or fewer --threads or --workers, and run again."
            )
            self._fail(request, error)
        if hopeless:
            logger.error("every process was killed that took a tile; %d tiles are not tried", self._leave_rest())

    def _all_die(self, finished: bool) -> bool:
        """Return whether it shows that no process lives to finish a tile; `finished`: the last one that died has."""
        self._in_vain = None if finished or self._in_vain is None else self._in_vain + 1
        return self._in_vain is not None and self._in_vain >= DEATHS * max(FEWEST, self._slots)

    def _nothing_can_be_read(self, performed: Performed) -> bool:
        """Return whether as many tiles were refused in a row as the executor works on, and at least two.

        A task of one tile cannot tell by itself.
        """
        for result in performed.results:
            reads = performed.network.get("reads", {}).get("read", 0)
            self._refused = self._refused + 1 if isinstance(result.error, REFUSED) and not reads else 0
        return self._refused >= AHEAD * self._slots


def _cancel(futures: Iterable[Future[Performed]]) -> list[Future[Performed]]:
    """Cancel what has not begun, and what nobody knows of whether it has; return it."""
    return [future for future in futures if future.cancel()]
