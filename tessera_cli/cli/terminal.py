"""Streams, logging and progress: results on stdout, everything else on stderr, a bar only on a terminal."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from tessera_cli.runs.results import Summary, TileResult
    from tessera_cli.runs.verify import Verification

CHATTY = (
    "rasterio",
    "botocore",
    "urllib3",
    "httpx",
    "httpcore",
    "fsspec",
    "huggingface_hub",
    "pyogrio",
    "pystac",
)
HEARTBEAT_SECONDS = 60.0


@dataclass
class Terminal:
    """Output of a command: results to stdout, messages and progress to stderr."""

    verbosity: int = 0
    as_json: bool = False
    console: Console = field(init=False)

    def __post_init__(self) -> None:
        from rich.console import Console

        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        configure_logging(self.verbosity, self.console)

    @property
    def draws(self) -> bool:
        """Return whether a progress bar is drawn."""
        return self.console.is_terminal and self.verbosity >= 0 and os.environ.get("TERM") != "dumb"

    def result(self, text: str) -> None:
        """Print one line to stdout."""
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def result_json(self, obj: Mapping[str, Any]) -> None:
        """Print one JSON object as a line to stdout."""
        self.result(json.dumps(obj, ensure_ascii=(sys.stdout.encoding or "utf-8").lower() != "utf-8"))

    def tell(self, obj: Mapping[str, Any], lines: Iterable[str]) -> None:
        """Print a result: one object with --json, else lines of text."""
        if self.as_json:
            self.result_json(obj)
            return
        for line in lines:
            self.result(line)

    def end(self, outcome: Summary | Verification, lines: Iterable[str]) -> None:
        """Print the outcome of a run, then raise its error, if there is one."""
        self.tell(outcome.to_dict(), lines)
        if error := outcome.error():
            raise error


def lines(found: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """Yield nested names and values for people, the values of a level one below the other."""
    width = max([len(name) for name, value in found.items() if not isinstance(value, Mapping) or not value], default=0)
    for name, value in found.items():
        if isinstance(value, Mapping) and value:
            yield f"{indent}{name}"
            yield from lines(value, indent + "  ")
        else:
            yield f"{indent}{name:{width}s}  {_text(value)}"


def _text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.6g}"
    if isinstance(value, list | Mapping):
        return ", ".join(map(str, value)) or "-"
    return f"{value:,}" if isinstance(value, int) else str(value)


def configure_logging(verbosity: int, console: Console | None = None) -> None:
    """Configure logging to stderr for a verbosity of -2 to 2: progress from 0, details from 1, libraries at 2."""
    levels = (logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG)
    level = levels[max(-2, min(verbosity, 1)) + 2]
    handler = _ConsoleHandler(console)
    stamped = console is None or not console.is_terminal
    form = "%(asctime)s tessera: %(prefix)s%(message)s" if stamped else "tessera: %(prefix)s%(message)s"
    handler.setFormatter(_Formatter(form, datefmt="%H:%M:%S"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING if verbosity < 2 else logging.INFO)
    logging.getLogger("tessera_cli").setLevel(level)
    for name in CHATTY:
        # a failed read is reported by us, once and with its cause
        logging.getLogger(name).setLevel(logging.CRITICAL if verbosity < 2 else logging.INFO)
    if verbosity < 2:
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        # rasterio silences it while warping, but not reliably in threads
        warnings.filterwarnings("ignore", message="Dataset has no geotransform")


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        record.prefix = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        return super().format(record)


class _ConsoleHandler(logging.Handler):
    """Log handler that writes through the console, so that lines do not tear the bar."""

    def __init__(self, console: Console | None) -> None:
        super().__init__()
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if self.console is None:
                sys.stderr.write(self.format(record) + "\n")
            else:
                self.console.print(self.format(record), markup=False)
        except Exception:
            self.handleError(record)


class RunProgress:
    """Progress of `embed`: a bar on a terminal, else a line per tile and a heartbeat; results as they come."""

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal
        self.bars: Bars | None = None
        self.bar: TaskID | None = None
        self.tiles = self.finished = self.pixels = self.encoded = 0
        self.started = self.beat = time.monotonic()
        self.logger = logging.getLogger("tessera_cli.progress")

    def __enter__(self) -> RunProgress:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.bars is not None:
            self.bars.stop()

    def begin(self, tiles: int, pixels: int) -> None:
        self.tiles, self.pixels = tiles, pixels
        self.started = self.beat = time.monotonic()
        if not self.terminal.draws or not tiles:
            return
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self.bars = Progress(
            TextColumn("{task.fields[tiles]}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[rate]}"),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=self.terminal.console,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),  # else results would go where the bar is
        )
        self.bars.start()
        self.bar = self.bars.add_task("embed", total=pixels, tiles=f"tile 0/{tiles}", rate="reading")

    def advance(self, pixels: int) -> None:
        self.encoded += pixels
        now = time.monotonic()
        rate = f"{self.encoded / max(now - self.started, 1e-9):,.0f} pixels/s"
        if self.bars is not None and self.bar is not None:
            self.bars.update(self.bar, completed=self.encoded, rate=rate)
        elif now - self.beat > HEARTBEAT_SECONDS:
            self.beat = now
            self.logger.info("%d of %d pixels, %s", self.encoded, self.pixels, rate)

    def tile(self, result: TileResult) -> None:
        if result.status != "present":
            self.finished += 1
            if self.bars is not None and self.bar is not None:
                self.bars.update(self.bar, tiles=f"tile {self.finished}/{self.tiles}")
            if result.status in ("done", "empty"):
                speed = f", {result.pixels / max(result.seconds, 1e-9):,.0f} pixels/s" if result.pixels else ""
                done = f"{self.finished}/{self.tiles}"
                self.logger.info(
                    "%s %s: %d pixels%s (%s)", result.request.name, result.status, result.pixels, speed, done
                )
        if self.terminal.as_json:
            self.terminal.result_json(result.to_dict())
        elif result.path is not None:
            self.terminal.result(str(result.path))
