"""Progress of `embed` and `fetch`: bars on a terminal, else a line per tile and one a minute; results as they come."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from tessera_cli.cli import terminal as terminals
from tessera_cli.cli.units import duration, size

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from tessera_cli.cli.terminal import Terminal
    from tessera_cli.runs.results import TileResult


class RunProgress:
    """The `Progress` of a run on the screen. The lines come from a clock: reading one tile may take very long."""

    def __init__(self, terminal: Terminal, *, paths: bool = True) -> None:
        """`paths`: whether the path of each tile is a result, as where there is no table of them."""
        self.terminal, self.paths = terminal, paths
        self.bars: Bars | None = None
        self.tasks: list[TaskID] = []
        """The bars of pixels and of the files of the tile that is being read."""
        self.tiles = self.finished = self.pixels = self.encoded = 0
        self.read: dict[str, str] = {}
        """Tile -> how far it is read."""
        self.started = time.monotonic()
        self.logger = logging.getLogger("tessera_cli.progress")
        self._over = threading.Event()
        self._clock = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> RunProgress:
        if not self.terminal.draws:
            self._clock.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        if self.bars is not None:
            self.bars.stop()

    def begin(self, tiles: int, pixels: int) -> None:
        self.tiles, self.pixels = tiles, pixels
        self.started = time.monotonic()
        if not self.terminal.draws or not tiles:
            return
        from rich.progress import BarColumn, TimeElapsedColumn, TimeRemainingColumn

        figures = "{task.percentage:>3.0f} % {task.fields[figures]}"
        columns = "{task.description}", BarColumn(bar_width=12), figures, "ETA"
        self.bars = self.terminal.start_bars(*columns, TimeRemainingColumn(compact=True), TimeElapsedColumn())
        self.tasks = [
            self.bars.add_task(f"tile 0/{tiles}", total=pixels, figures=""),
            self.bars.add_task("", total=None, figures="", visible=False),
        ]

    def reading(self, tile: str, files: int, planned: int, bytes: int) -> None:
        new = tile not in self.read
        self.read[tile] = f"{files:,} of {planned:,} files" + (f", {size(bytes)}" if bytes else "")
        if self.bars is not None:
            if new:  # elapsed and remaining time are the tile's own
                self.bars.reset(self.tasks[1], description=f"reading {len(self.read)}/{self.tiles}")
            self.bars.update(
                self.tasks[1], completed=files, total=planned, figures=self.read[tile], visible=files < planned
            )

    def advance(self, pixels: int) -> None:
        self.encoded += pixels
        if self.bars is not None:
            self.bars.update(self.tasks[0], completed=self.encoded, figures=self._rate())

    def tile(self, result: TileResult) -> None:
        if result.status != "present":
            self.finished += 1
            if self.bars is not None:
                self.bars.update(self.tasks[0], description=f"tile {self.finished}/{self.tiles}")
            if result.status in ("done", "empty"):
                speed = f", {result.pixels / max(result.seconds, 1e-9):,.0f} pixels/s" if result.pixels else ""
                done = f"{self.finished}/{self.tiles}"
                self.logger.info(
                    "%s %s: %d pixels%s (%s)", result.request.name, result.status, result.pixels, speed, done
                )
        if self.terminal.as_json:
            self.terminal.result_json(result.to_dict())
        elif self.paths and result.path is not None:
            self.terminal.result(str(result.path))

    def _rate(self) -> str:
        return f"{self.encoded / max(time.monotonic() - self.started, 1e-9):,.0f} pixels/s"

    def _beat(self) -> None:
        """Log how far the run is, once a minute until it is over."""
        while not self._over.wait(terminals.HEARTBEAT_SECONDS):
            spent = duration(time.monotonic() - self.started)
            if not self.tiles:
                self.logger.info("searching and preparing: %s", spent)
                continue
            told = [f"{self.finished} of {self.tiles} tiles, {self.encoded:,} of {self.pixels:,} pixels"]
            if self.read:
                told.append(f"reading tile {len(self.read)}: {list(self.read.values())[-1]}")
            self.logger.info("%s; %s", "; ".join(told), spent)
