"""Progress of `pretrain`: a bar on a terminal, else a line per row of `metrics.jsonl`."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tessera_cli.cli.signals import Signals, StoppedError
from tessera_cli.cli.terminal import HEARTBEAT_SECONDS, Terminal
from tessera_cli.figures.numbers import number
from tessera_cli.pretraining.report.measures import headline, measure

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from tessera_cli.pretraining.callbacks import Callbacks

SHORT = {"probe_knn": "kNN", "probe_linear": "linear", "retrieval": "retrieval", "teacher_all": "teacher"}
"""Measures of an evaluation that a line holds."""


class TrainingProgress:
    """Progress display while shards are built and an encoder is trained. Evaluations are always logged."""

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal
        self.bars: Bars | None = None
        self.bar: TaskID | None = None
        self.steps = 0
        self.teaching, self.taught = False, 0
        self.trained: Mapping[str, Any] = {}
        self.evaluated: Mapping[str, Any] = {}
        self.beat = time.monotonic()
        self.logger = logging.getLogger("tessera_cli.progress")

    def __enter__(self) -> TrainingProgress:
        return self

    def __exit__(self, *exc: object) -> None:
        self.end()

    def callbacks(self, signals: Signals) -> Callbacks:
        """Return the training callbacks: this display, and a stop once a signal asks for it."""
        from tessera_cli.pretraining.callbacks import Callbacks

        def building(done: int, total: int) -> None:
            if signals.number is not None:
                raise StoppedError(
                    "stopped while the shards were being built, of which nothing is kept. Run the same command to "
                    "start again.",
                    signals.number,
                )
            self.building(done, total)

        def embedding(done: int, total: int) -> None:
            if signals.number is not None:
                raise StoppedError(
                    "stopped while the teacher embedded the training pixels. Run the same command to go on.",
                    signals.number,
                )
            self.embedding(done, total)

        return Callbacks(building, embedding, self.begin, self.row, self.step, lambda: signals.number is not None)

    def building(self, done: int, total: int) -> None:
        """Show how much of the shards is built: tiles read and parts written."""
        if self.terminal.draws:
            if self.bar is None:
                self._draw("building shards", total)
            self._update(done, f"{done}/{total}")
        elif done == total or self._due():
            self._log("building shards: %d of %d", done, total)

    def embedding(self, done: int, total: int) -> None:
        """Show how many pixels the teacher has embedded."""
        if self.terminal.draws:
            if not self.teaching:
                self.end()
                self._draw("the teacher embeds", total)
            self._update(done, f"{done:,}/{total:,}")
        elif (done == total and done > self.taught) or self._due():
            self._log("the teacher has embedded %d of %d pixels", done, total)
        self.teaching, self.taught = True, done

    def begin(self, steps: int, start: int) -> None:
        """Show that training starts, after `start` steps of an earlier run."""
        self.end()
        self.steps = steps
        self.beat = time.monotonic()
        if self.terminal.draws:
            self._draw("training", steps, start)
            self._update(start, f"{start}/{steps}")

    def step(self, step: int) -> None:
        """Show the number of finished steps."""
        if self.bar is not None:
            self._update(step, f"{step}/{self.steps}")
        elif self._due():
            self._log("%s", self._at(step))

    def row(self, row: Mapping[str, Any]) -> None:
        """Show or log a row of `metrics.jsonl`."""
        step = self._at(int(measure(row, "step") or 0))
        if row.get("kind") == "eval":
            self.evaluated = row
            self._log("%s  %s", step, "  ".join(_evaluation(row)))
        elif row.get("kind") == "train":
            self.trained = row
            if self.bar is None:
                self._log("%s  %s", step, "  ".join(_training(row)))
        if self.bars is not None and self.bar is not None:
            self.bars.update(self.bar, figures="  ".join(_beside(self.trained, self.evaluated)))

    def end(self) -> None:
        """Remove the bar."""
        if self.bars is not None:
            self.bars.stop()
        self.bars = self.bar = None

    def _draw(self, name: str, total: int, done: int = 0) -> None:
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.table import Column

        figures = TextColumn("{task.fields[figures]}", table_column=Column(no_wrap=True, overflow="ellipsis"))
        bar, remaining = BarColumn(bar_width=12), TimeRemainingColumn(compact=True)
        self.bars = self.terminal.start_bars("{task.fields[count]}", bar, figures, "ETA", remaining)
        self.bar = self.bars.add_task(name, total=total, completed=done, count="", figures=name)

    def _update(self, done: int, count: str) -> None:
        if self.bars is not None and self.bar is not None:
            self.bars.update(self.bar, completed=done, count=count)

    def _at(self, step: int) -> str:
        return f"step {step:>{len(str(self.steps))}}/{self.steps}"

    def _due(self) -> bool:
        """Return whether the last line was logged long enough ago for another."""
        return time.monotonic() - self.beat > HEARTBEAT_SECONDS

    def _log(self, message: str, *arguments: object) -> None:
        self.beat = time.monotonic()
        self.logger.info(message, *arguments)


def _beside(trained: Mapping[str, Any], evaluated: Mapping[str, Any]) -> Iterator[str]:
    """Yield the figures beside the bar; a narrow terminal cuts off the last ones."""
    above, rms, speed = (
        measure(trained, "loss_above_floor"),
        measure(trained, "offdiag_rms"),
        measure(trained, "pixels_per_second"),
    )
    if trained.get("collapsed"):
        yield "COLLAPSED"
    if above is not None:
        yield f"{number(above)} above floor"
    if (far := measure(trained, "teacher_cosine")) is not None:
        yield f"cosine {1 - far:.3f}"
    if rms is not None:
        yield f"rms {rms:.2f}"
    if key := headline(evaluated):
        yield f"{SHORT[key]} {number(measure(evaluated, key))}"
    if speed is not None:
        yield f"{number(speed)} pixels/s"


def _training(row: Mapping[str, Any]) -> Iterator[str]:
    """Yield the figures of a log line, of the same width in every line."""
    loss, above = measure(row, "loss"), measure(row, "loss_above_floor")
    if loss is not None:
        yield f"loss {number(loss):>6}" + ("" if above is None else f" ({number(above):>6} above floor)")
    if (far := measure(row, "teacher_cosine")) is not None:
        yield f"cosine to the teacher {1 - far:.3f}"
    rms, chance = measure(row, "offdiag_rms"), measure(row, "offdiag_rms_chance")
    if rms is not None:
        yield f"rms {rms:.3f}" + ("" if chance is None else f" (chance {chance:.3f})")
    if (speed := measure(row, "pixels_per_second")) is not None:
        yield f"{number(speed):>7} pixels/s"
    if (wait := measure(row, "wait_share")) is not None:
        yield f"wait {100 * wait:>2.0f} %"
    if row.get("collapsed"):
        yield "COLLAPSED"


def _evaluation(row: Mapping[str, Any]) -> Iterator[str]:
    for key, name in SHORT.items():
        value, random = measure(row, key), measure(row, f"{key}_random")
        if value is not None:
            yield f"{name} {value:.3f}" + ("" if random is None else f" (random {random:.3f})")
    if row.get("best"):
        yield "best so far"
