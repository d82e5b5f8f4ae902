"""What became of tiles and of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from tessera_cli.errors import NothingToEmbedError, PartialFailureError, TesseraError
from tessera_cli.runs.task import Task

Status = Literal["done", "empty", "failed", "present"]
STATUSES: tuple[Status, ...] = ("done", "empty", "failed", "present")
SCHEMA = 1
"""Version of the JSON objects: it rises when a key changes its meaning or goes."""


@dataclass(frozen=True)
class TileResult:
    """What became of one tile; `present` means that an earlier run did it."""

    task: Task
    status: Status
    path: Path | None = None
    """The raster or array of embeddings; None if there is none."""
    pixels: int = 0
    tokens: int = 0
    seconds: float = 0.0
    """Encoding and writing; reading runs ahead."""
    error: TesseraError | None = None

    def to_dict(self) -> dict[str, Any]:
        """A line of `--json`."""
        return {
            "type": "tile",
            "schema": SCHEMA,
            "tile": self.task.tile.id,
            "window": None if self.task.window is None else self.task.window.name,
            "status": self.status,
            "path": None if self.path is None else str(self.path),
            "pixels": self.pixels,
            "tokens": self.tokens,
            "seconds": round(self.seconds, 3),
            **({"error": str(self.error)} if self.error else {}),
        }


@dataclass(frozen=True)
class Summary:
    """What became of a run."""

    out: Path
    results: tuple[TileResult, ...]
    mosaics: tuple[Path, ...]
    seconds: float
    network: Mapping[str, Any] = field(default_factory=dict)
    """What was asked of servers, and what came of every planned read."""
    stages: Mapping[str, float] = field(default_factory=dict)
    """Stage -> seconds it was at work, side by side with others; `start` ended when the first tile was read."""

    def count(self, status: Status) -> int:
        return sum(r.status == status for r in self.results)

    @property
    def pixels(self) -> int:
        return sum(r.pixels for r in self.results)

    @property
    def tokens(self) -> int:
        return sum(r.tokens for r in self.results)

    @property
    def encode_share(self) -> float | None:
        """Of the time after the first tile was read, how much the encoder was at work; None if it never was."""
        after = self.seconds - self.stages.get("start", 0.0)
        return self.stages["encode"] / after if "encode" in self.stages and after > 0 else None

    def failure(self) -> TesseraError | None:
        """The error that failed tiles make; None if every tile is present."""
        failed = [r for r in self.results if r.error is not None]
        if failed:
            names = ", ".join(r.task.name for r in failed[:3]) + (", ..." if len(failed) > 3 else "")
            text = f"{len(failed)} of {len(self.results)} tiles failed ({names}). {failed[0].error}"
            codes = {r.error.exit_code for r in failed if r.error}
            if codes <= {69, 75, 77} and len(codes) == 1 and failed[0].error:
                return type(failed[0].error)(text)
            return PartialFailureError(text)
        return None

    def error(self) -> TesseraError | None:
        """The error the run ends with; None if every tile is present and at least one pixel has an embedding."""
        if failure := self.failure():
            return failure
        if all(r.path is None for r in self.results):
            return NothingToEmbedError(
                "No pixel has enough clear observations. Check the window, or lower --min-s2 and --min-s1."
            )
        return None

    def to_dict(self) -> dict[str, Any]:
        """The last line of `--json`."""
        error = self.error()
        return {
            "type": "summary",
            "schema": SCHEMA,
            "out": str(self.out),
            "tiles": {status: self.count(status) for status in STATUSES},
            "pixels": self.pixels,
            "tokens": self.tokens,
            "seconds": round(self.seconds, 3),
            "stages": {stage: round(seconds, 3) for stage, seconds in self.stages.items()},
            "network": dict(self.network),
            "mosaics": [str(path) for path in self.mosaics],
            "exit_code": error.exit_code if error else 0,
        }


class Progress(Protocol):
    """Told what happens: draws bars or writes lines. Called by more than one thread, one at a time."""

    def begin(self, tiles: int, pixels: int) -> None: ...
    def advance(self, pixels: int) -> None: ...
    def tile(self, result: TileResult) -> None: ...


class Silent:
    """A Progress that says nothing."""

    def begin(self, tiles: int, pixels: int) -> None: ...
    def advance(self, pixels: int) -> None: ...
    def tile(self, result: TileResult) -> None: ...


def network_text(network: Mapping[str, Any]) -> str:
    """What came of all planned reads, in one line for people; empty if there were none."""
    ended = ", ".join(f"{count:,} {outcome}" for outcome, count in network["reads"].items() if count)
    if not ended:
        return ""
    asked = (
        f"{network['requests']:,} requests, {network['bytes'] / 1e6:,.1f} MB" if network["requests"] else "no requests"
    )
    again = ", ".join(f"{cause} {count:,}" for cause, count in network["retries"].items())
    return f"files of scenes: {ended}; {asked}{f'; asked again: {again}' if again else ''}"


def stages_text(summary: Summary) -> str:
    """How long each stage was at work, in one line for people."""
    share = summary.encode_share
    notes = {} if share is None else {"encode": f" ({share:.0%} of the time after the first tile was read)"}
    stages = {stage: seconds for stage, seconds in summary.stages.items() if stage != "start"}
    return ", ".join(f"{stage} {seconds:.1f} s{notes.get(stage, '')}" for stage, seconds in stages.items())
