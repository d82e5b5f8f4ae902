"""Streams and logging: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tessera_cli.errors import printable, printable_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn

    from tessera_cli.inspection.verify import Verification
    from tessera_cli.runs.results import Summary

CHATTY = (
    "distributed",
    "tornado",
    "rasterio",
    "botocore",
    "aiohttp",
    "urllib3",
    "httpx",
    "httpcore",
    "fsspec",
    "huggingface_hub",
    "pyogrio",
    "pystac",
)
logger = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 60.0
"""Between two lines of progress off a terminal."""


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

    def start_bars(self, *columns: str | ProgressColumn) -> Progress:
        """Return progress bars, drawn from now on. Results still go to stdout where that is no terminal."""
        from rich.progress import Progress

        bars = Progress(*columns, console=self.console, transient=True, redirect_stdout=sys.stdout.isatty())
        bars.start()
        return bars

    def result(self, text: str) -> None:
        """Print one line to stdout."""
        sys.stdout.write(printable(text, longest=None) + "\n")
        sys.stdout.flush()

    def result_json(self, obj: Mapping[str, Any]) -> None:
        """Print one JSON object as a line to stdout."""
        text = json.dumps(obj, ensure_ascii=(sys.stdout.encoding or "utf-8").lower() != "utf-8")
        sys.stdout.write(printable_json(text) + "\n")
        sys.stdout.flush()

    def tell(self, obj: Mapping[str, Any], lines: Iterable[str]) -> None:
        """Print a result: one object with --json, else lines of text."""
        if self.as_json:
            self.result_json(obj)
            return
        for line in lines:
            self.result(line)

    def end(self, outcome: Summary | Verification, lines: Iterable[str], next_step: str = "") -> None:
        """Print the outcome of a run, then raise its error, if there is one; else log what to do next."""
        error = outcome.error()
        described = failure(str(error), error.exit_code, type(error).__name__) if error else {}
        self.tell(outcome.to_dict() | {"error": described["error"]} if described else outcome.to_dict(), lines)
        if error:
            error.told = self.as_json
            raise error
        if next_step:
            self.suggest(next_step)

    def suggest(self, next_step: str) -> None:
        """Log what to do next."""
        logger.info("next: %s", next_step)


def failure(message: str, exit_code: int, kind: str) -> dict[str, Any]:
    """Return an error as the JSON object that a command which fails prints; `kind` is the name of its class."""
    error = {"message": message, "exit_code": exit_code, "kind": kind}
    return {"type": "error", "schema": 1, "error": error}


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


def configure_logging(verbosity: int, console: Console) -> None:
    """Configure logging to stderr for a verbosity of -2 to 2: progress from 0, details from 1, libraries at 2."""
    levels = (logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG)
    level = levels[max(-2, min(verbosity, 1)) + 2]
    handler = _ConsoleHandler(console)
    time = "" if console.is_terminal else "%(asctime)s "
    handler.setFormatter(_Formatter(f"{time}tessera: %(prefix)s%(message)s", datefmt="%H:%M:%S"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING if verbosity < 2 else logging.INFO)
    logging.getLogger("tessera_cli").setLevel(level)
    for name in CHATTY:
        # a failed read is reported by us, once and with its cause
        logging.getLogger(name).setLevel(logging.CRITICAL if verbosity < 2 else logging.INFO)
    warnings.showwarning = _show_warning
    if verbosity < 2:
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        # rasterio silences it while warping, but not reliably in threads
        warnings.filterwarnings("ignore", message="Dataset has no geotransform")


def _show_warning(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
    """Log a warning of another library: Python would write it to stderr as it is."""
    logging.getLogger("py.warnings").warning("%s: %s", category.__name__, message)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        record.prefix = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        return super().format(record)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        record.message = printable(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return "\n".join(map(printable, super().formatException(ei).splitlines()))


class _ConsoleHandler(logging.Handler):
    """Log handler that writes through the console, so that lines do not tear the bar."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.console.print(self.format(record), markup=False, emoji=False)  # :key: stays what it is
        except Exception:
            self.handleError(record)
