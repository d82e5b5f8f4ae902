"""The display of `info --watch`: bars on a terminal, else a line a minute, or an object a look."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING

from tessera_cli.cli import terminal as terminals
from tessera_cli.cli.terminal import failure
from tessera_cli.cli.units import cut, duration
from tessera_cli.errors import TesseraError

if TYPE_CHECKING:
    from rich.progress import Progress as Bars

    from tessera_cli.cli.terminal import Terminal
    from tessera_cli.inspection.watch import Round


class LeftError(TesseraError):
    """Ctrl-C has ended the watching, not what was watched."""

    exit_code = 130


def follow(terminal: Terminal, rounds: Iterator[Round]) -> None:
    """Show each round, raise the error that the run has ended with, if any."""
    display = Display(terminal)
    last: Round | None = None
    try:
        with closing(display):
            for last in rounds:
                display.show(last)
    except KeyboardInterrupt:
        raise LeftError("no longer watching; the run goes on, and Ctrl-C has not touched it.") from None
    if last is None:
        return
    error = last.error()
    if terminal.as_json:
        described = failure(str(error), error.exit_code, type(error).__name__) if error else {}
        terminal.result_json(last.to_dict() | ({"error": described["error"]} if described else {}))
    else:
        terminal.result(standing(last))
    if error:
        error.told = terminal.as_json
        raise error


class Display:
    """Rounds on the screen, the last one excepted."""

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal
        self.bars: Bars | None = None
        self.told: float | None = None
        """When the last line was written, by the monotonic clock."""

    def close(self) -> None:
        if self.bars is not None:
            self.bars.stop()

    def show(self, found: Round) -> None:
        if not self.terminal.as_json:
            for line in cut((f"failed {state.name}: {state.reason}" for state in found.failed), "tessera info --csv"):
                self.terminal.result(line)
        if found.is_last:
            return
        if self.terminal.as_json:
            self.terminal.result_json(found.to_dict())
        elif self.terminal.draws:
            self._draw(found)
        elif self.told is None or time.monotonic() - self.told >= terminals.HEARTBEAT_SECONDS:
            self.told = time.monotonic()
            self.terminal.result(f"{time.strftime('%H:%M:%S', time.localtime(found.at))} {standing(found)}")

    def _draw(self, found: Round) -> None:
        if self.bars is None:
            from rich.progress import BarColumn

            self.bars = self.terminal.start_bars(BarColumn(bar_width=16), "{task.description}")
            self.bars.add_task("", total=None)
        over = found.census.done + found.census.counts.get("failed", 0)
        task = self.bars.task_ids[0]
        self.bars.update(task, description=standing(found), completed=over, total=len(found.census.states))


def standing(found: Round) -> str:
    """Return in one line how far a run is: tiles, rate, when it will end, who is at work."""
    counts, rate, eta = found.census.counts, found.per_hour, found.eta
    parts = [f"{found.census.done:,} of {len(found.census.states):,} tiles"]
    parts += [f"{counts[status]:,} {status}" for status in ("empty", "failed", "missing") if status in counts]
    if not found.is_last:
        parts += [] if rate is None else [f"{rate:,.0f} tiles/h" if rate >= 10 else f"{rate:.1f} tiles/h"]
        parts += [] if not eta else [f"about {duration(eta)} left"]
        seen = "1 process" if found.processes == 1 else f"{found.processes:,} processes"
        parts += [f"{seen} seen at work"] if found.processes else []
    return ", ".join(parts)
