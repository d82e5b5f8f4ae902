"""What became of the tiles that runs on a folder were asked for: finished, empty, failed or missing, and why.

`info`, its table, `info --watch` and a run that wants to know whether it is complete all count here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from tessera_cli.errors import UsageError
from tessera_cli.extent.grid import parse_tile_name
from tessera_cli.folders.asked import AskedReader, Failure, list_folder
from tessera_cli.folders.folder import TileFolder
from tessera_cli.outputs.item import TileRecord
from tessera_cli.outputs.packed import PackedMask

TileStatus = Literal["done", "empty", "failed", "missing"]
"""`empty`: no pixel could be embedded; `failed`: a run could not make it; `missing`: no run has finished it."""


@dataclass(frozen=True)
class TileState:
    """What became of one tile. Of a failed one, pixels and files are those of an earlier run that asked for less."""

    name: str
    status: TileStatus
    reason: str = ""
    """Why it failed or is missing."""
    pixels: int = 0
    """Pixels with an embedding; of d-pixels, those asked for."""
    missing_scenes: Mapping[str, str] = field(default_factory=dict)
    """Scene id -> why it could not be read."""
    warnings: tuple[str, ...] = ()
    main: str | None = None
    """The raster or array of embeddings, or the store, in the folder."""
    bytes: int = 0
    finished: float | None = None
    """When the record was written, in seconds since 1970."""

    @property
    def tile_and_window(self) -> tuple[str, str]:
        """Return the tile's id, and the name of its window; of official tile folders, which record none, nothing."""
        parsed = parse_tile_name(self.name)
        return (self.name, "") if parsed is None else (parsed[0].id, parsed[1].name)


@dataclass(frozen=True)
class Census:
    """The states of all tiles that runs on a folder were asked for, by name."""

    states: tuple[TileState, ...]

    @cached_property
    def counts(self) -> Mapping[TileStatus, int]:
        """Return status -> number of tiles; no key for those that no tile has."""
        return dict(Counter(state.status for state in self.states))

    @property
    def done(self) -> int:
        """Number of tiles that need nothing more."""
        return self.counts.get("done", 0) + self.counts.get("empty", 0)

    @property
    def is_complete(self) -> bool:
        """Return whether every tile is finished."""
        return self.done == len(self.states)

    @property
    def is_over(self) -> bool:
        """Return whether every tile is finished or failed."""
        return "missing" not in self.counts


@dataclass(frozen=True)
class _Kept:
    """What is kept of a record, until another file lies there."""

    inode: int
    state: TileState
    needs: tuple[str, ...]
    """Names in the folder without which the tile is not finished."""
    requested: PackedMask

    def covers(self, failure: Failure) -> bool:
        """Return whether the tile was finished, since it failed, for what was asked for then."""
        if len(self.state.missing_scenes) > failure.allow_missing:
            return False
        if self.requested.data == failure.requested.data:
            return True
        same = self.requested.shape == failure.requested.shape
        return same and not (failure.requested.array() & ~self.requested.array()).any()


@dataclass
class CensusTaker:
    """Counts the tiles of a folder, as often as asked: each folder is listed once a round, no file is read twice."""

    folder: TileFolder
    _records: dict[str, _Kept] = field(default_factory=dict)
    _asked: AskedReader | None = None
    listed: Mapping[str, int] = field(default_factory=dict)
    """What lay in the folder in the last round: name -> inode."""

    def take(self) -> Census:
        """Return what became of every tile, as it is now."""
        return Census(tuple(self.states()))

    def states(self) -> Iterator[TileState]:
        """Yield what became of each tile, by name, as its record is read."""
        self._asked = self._asked or AskedReader(self.folder.path)
        asked = self._asked.read()
        self.listed = list_folder(self.folder.path)
        for name in sorted(asked.names):
            yield self._state(name, asked.failures.get(name, ()))

    def _state(self, name: str, failures: Sequence[Failure]) -> TileState:
        kept = self._kept(name)
        state = TileState(name, "missing", "no run has finished it") if kept is None else kept.state
        if kept is not None and (gone := [need for need in kept.needs if need not in self.listed]):
            state = TileState(name, "missing", f"{gone[0]} is gone")
        is_there = kept is not None and state.status != "missing"
        open_ones = [failure for failure in failures if not (is_there and kept and kept.covers(failure))]
        return replace(state, status="failed", reason=open_ones[-1].reason) if open_ones else state

    def _kept(self, name: str) -> _Kept | None:
        """Return what the record of a tile says; None without one, or where its files are not those recorded."""
        inode = self.listed.get(f"{name}.json")
        before = self._records.get(name)
        if inode is None:
            self._records.pop(name, None)
            return None
        if before is not None and before.inode == inode:
            return before
        record = self.folder.record(name)
        if record is None:  # being replaced, or not whole: it is looked at again in the next round
            self._records.pop(name, None)
            return None
        self._records[name] = kept = _Kept(inode, _state_of(self.folder, record), _needs(record), record.packed)
        return kept


def census_taker(path: Path) -> CensusTaker:
    """Return who counts the tiles of the folder at `path`; UsageError if no run or plan has asked for any there."""
    folder = TileFolder.open(path)
    if not folder.requested_names():
        raise UsageError(
            f"{path}: no run or plan has asked for tiles there. Give a folder of `tessera embed` or `fetch`."
        )
    return CensusTaker(folder)


def _state_of(folder: TileFolder, record: TileRecord) -> TileState:
    if differing := folder.foreign(record):
        return TileState(record.name, "missing", f"it was made with other settings ({', '.join(differing)})")
    try:
        finished = folder.item_path(record.name).stat().st_mtime
    except OSError:  # replaced at this moment
        finished = None
    return TileState(
        record.name,
        record.status,
        "",
        record.pixels,
        dict(record.missing_scenes),
        record.warnings,
        record.main,
        sum(asset.size for asset in record.assets),
        finished,
    )


def _needs(record: TileRecord) -> tuple[str, ...]:
    return tuple({asset.name.partition("/")[0] for asset in record.assets})
