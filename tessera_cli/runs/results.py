"""The results of a run and of each of its tiles, and the protocol by which progress is reported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

from tessera_cli.errors import NothingToEmbedError, PartialFailureError, TesseraError
from tessera_cli.extent.grid import TileRequest
from tessera_cli.planning.shard import Shard

TileStatus = Literal["done", "empty", "failed", "present"]
"""`empty`: no pixel can be embedded; `present`: an earlier run has finished the tile."""
SCHEMA = 1
"""Version of the JSON objects: it rises when a key changes its meaning or goes."""


@dataclass(frozen=True)
class TileResult:
    """Result of one tile in a run of `embed` or `fetch`."""

    request: TileRequest
    status: TileStatus
    path: Path | None = None
    """The raster or array of embeddings, or the store of d-pixels; None if there is none."""
    pixels: int = 0
    """Pixels with an embedding; of d-pixels, those asked for."""
    tokens: int | None = 0
    """Observations that went through the encoder; None in a fetch."""
    seconds: float = 0.0
    """Encoding and writing; in a fetch, reading and writing."""
    error: TesseraError | None = None
    missing_scenes: int | None = None
    """Number of scenes that could not be read, in a fetch."""
    bytes: int | None = None
    """Size of its files; None of a tile that failed."""

    def to_dict(self) -> dict[str, Any]:
        """Return a line of `--json`."""
        window = self.request.window
        line = {
            "type": "tile",
            "schema": SCHEMA,
            "tile": self.request.tile.id,
            "window": None if window is None else window.name,
            "status": self.status,
            "path": None if self.path is None else str(self.path),
            "pixels": self.pixels,
            "tokens": self.tokens,
            "seconds": round(self.seconds, 3),
            "error": None if self.error is None else str(self.error),
            "holes": self.missing_scenes,
            "bytes": self.bytes,
        }
        return {key: value for key, value in line.items() if value is not None or key in ("window", "path")}


@dataclass(frozen=True)
class Outcome:
    """What came of all tiles of a run."""

    results: tuple[TileResult, ...]
    """In the order of the requests."""
    left: int = 0
    """Tiles that were to be taken, and were not."""
    stopped: TesseraError | None = None
    """Why the run ended before its last tile, if it is to be started again."""
    network: Mapping[str, Any] = field(default_factory=dict)
    """What was asked of servers, and how every planned read ended."""
    resources: Mapping[str, Any] = field(default_factory=dict)
    """What the run took of the machine."""


@dataclass(frozen=True)
class Summary:
    """Result of a run of `embed` or `fetch`."""

    out: Path
    results: tuple[TileResult, ...]
    mosaics: tuple[Path, ...]
    """The VRTs that were written."""
    seconds: float
    network: Mapping[str, Any] = field(default_factory=dict)
    """What was asked of servers, and how every planned read ended."""
    stages: Mapping[str, float] = field(default_factory=dict)
    """Stage -> seconds it was at work, side by side with others; `start` ended when the first tile was read."""
    embed_command: str | None = None
    """The command that encodes what was fetched, empty where nothing was; None in `embed`."""
    weights_error: TesseraError | None = None
    """Why a fetch could not download the weights of its model."""
    left: int = 0
    """Tiles that were to be taken, and were not."""
    stopped: TesseraError | None = None
    """Why the run ended before its last tile, if it is to be started again."""
    resources: Mapping[str, Any] = field(default_factory=dict)
    """What the run took of the machine: memory, bytes read and written, repeated requests."""
    shard: Shard | None = None
    """The share of the run that this was; None for the whole."""
    is_whole: bool = True
    """Whether no tile is left for other shares, so that mosaics and lists show all of them."""
    table: Path | None = None
    """The table of a run over points."""
    preview: Path | None = None
    """The page that shows the embeddings; None where none was asked for, or it failed."""

    @classmethod
    def of(cls, out: Path, outcome: Outcome, stages: Mapping[str, float], seconds: float, **more: Any) -> Summary:
        """Return the result of a run whose tiles came to `outcome`."""
        return cls(
            out,
            outcome.results,
            more.pop("mosaics", ()),
            seconds,
            outcome.network,
            stages,
            left=outcome.left,
            stopped=outcome.stopped,
            resources=outcome.resources,
            **more,
        )

    def count(self, status: TileStatus) -> int:
        return sum(r.status == status for r in self.results)

    @property
    def pixels(self) -> int:
        return sum(r.pixels for r in self.results)

    @property
    def tokens(self) -> int:
        return sum(r.tokens or 0 for r in self.results)

    @property
    def encode_share(self) -> float | None:
        """Return the encoder's share of the time after the first tile was read; None if it was never at work."""
        after = self.seconds - self.stages.get("start", 0.0)
        return self.stages["encode"] / after if "encode" in self.stages and after > 0 else None

    def error(self) -> TesseraError | None:
        """Return the error the run ends with; None if every tile is present and there is anything to use."""
        failed = [r for r in self.results if r.error is not None]
        if self.stopped is not None:
            more = f" {len(failed)} of those that were tried failed: {failed[0].error}" if failed else ""
            return self.stopped.retold(f"{self.stopped}{more}")
        if failed:
            names = ", ".join(r.request.name for r in failed[:3]) + (", ..." if len(failed) > 3 else "")
            text = f"{len(failed)} of {len(self.results)} tiles failed ({names}). {failed[0].error}"
            codes = {r.error.exit_code for r in failed if r.error}
            if codes <= {69, 75, 77} and len(codes) == 1 and failed[0].error:
                return failed[0].error.retold(text)
            return PartialFailureError(text)
        if self.results and all(r.path is None for r in self.results) and self.shard is None:
            return NothingToEmbedError(
                "No pixel has enough clear observations. Check the window, or lower --min-s2 and --min-s1."
            )
        return self.weights_error

    def to_dict(self) -> dict[str, Any]:
        """Return the last line of `--json`."""
        error = self.error()
        embedded = self.embed_command is None
        line = {
            "type": "summary",
            "schema": SCHEMA,
            "out": str(self.out),
            "tiles": {status: self.count(status) for status in get_args(TileStatus)},
            "left": self.left,
            "shard": None if self.shard is None else str(self.shard),
            "is_whole": None if self.shard is None else self.is_whole,
            "pixels": self.pixels,
            "tokens": self.tokens if embedded else None,
            "seconds": round(self.seconds, 3),
            "stages": {stage: round(seconds, 3) for stage, seconds in self.stages.items()},
            "network": dict(self.network),
            "resources": dict(self.resources),
            "mosaics": [str(path) for path in self.mosaics] if embedded else None,
            "table": None if self.table is None else str(self.table),
            "preview": None if self.preview is None else str(self.preview),
            "exit_code": error.exit_code if error else 0,
            "embed_command": self.embed_command,
            "weights_error": None if self.weights_error is None else str(self.weights_error),
        }
        return {key: value for key, value in line.items() if value is not None}


class Progress(Protocol):
    """Callbacks of a run, called by more than one thread, one at a time."""

    def begin(self, tiles: int, pixels: int) -> None: ...
    def reading(self, tile: str, files: int, planned: int, bytes: int) -> None:
        """Show that `files` of the `planned` files of a tile are read; objects without this method are not told.

        `planned` falls once it is known which scenes win a pixel. `bytes` came from servers for all tiles so far.
        """

    def advance(self, pixels: int) -> None: ...
    def tile(self, result: TileResult) -> None: ...


class Silent:
    """Progress callbacks that do nothing."""

    def begin(self, tiles: int, pixels: int) -> None: ...
    def reading(self, tile: str, files: int, planned: int, bytes: int) -> None: ...
    def advance(self, pixels: int) -> None: ...
    def tile(self, result: TileResult) -> None: ...


def network_text(network: Mapping[str, Any]) -> str:
    """Return in one line how all planned reads ended; empty if there were none."""
    reads = ", ".join(f"{count:,} {outcome}" for outcome, count in network["reads"].items() if count)
    if not reads:
        return ""
    asked = (
        f"{network['requests']:,} requests, {network['bytes'] / 1e6:,.1f} MB" if network["requests"] else "no requests"
    )
    again = ", ".join(f"{cause} {count:,}" for cause, count in network["retries"].items())
    return f"files of scenes: {reads}; {asked}{f'; asked again: {again}' if again else ''}"


def stages_text(summary: Summary) -> str:
    """Return in one line how long each stage was at work."""
    share = summary.encode_share
    notes = {} if share is None else {"encode": f" ({share:.0%} of the time after the first tile was read)"}
    stages = {stage: seconds for stage, seconds in summary.stages.items() if stage != "start"}
    return ", ".join(f"{stage} {seconds:.1f} s{notes.get(stage, '')}" for stage, seconds in stages.items())
