"""The output folder of `embed` and `fetch`: its identity, what runs requested, which tiles are done."""

from __future__ import annotations

import base64
import functools
import json
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tessera_cli.catalog import Scenes, Source
from tessera_cli.errors import IdentityError, TileError, UsageError, differences
from tessera_cli.extent.grid import ForeignTile, TileRequest, pack_mask
from tessera_cli.files import claim_bytes, json_bytes, write_bytes, write_json, write_ndjson_gz
from tessera_cli.folders.failures import FAILED, noted_failures
from tessera_cli.folders.partial import partial_name, remove_overtaken
from tessera_cli.folders.run_record import checked_folder, checked_run, is_of_same_area, read_or_none
from tessera_cli.journal import MAX_MARKER, finish_begun, is_begun, replacement
from tessera_cli.outputs import formats, stores
from tessera_cli.outputs.beside import ENDINGS
from tessera_cli.outputs.item import TileRecord
from tessera_cli.outputs.layers import DPIXELS, RUN, RUNS, file_names
from tessera_cli.parts import remove_stale_parts
from tessera_cli.reading import read_file

logger = logging.getLogger(__name__)

SCENES = "scenes.ndjson.gz"
SETTLES = 2.0
"""Seconds within which another run has put its files in place."""
TOLD = 6
"""Settings whose values a message tells; of others that differ, the names."""


@dataclass(frozen=True)
class TileFolder:
    """The output folder of `embed` or `fetch`: tiles of embeddings or d-pixels that all have one identity.

    Window, zone and AOI are part of a tile's name, so years and areas share a folder.
    """

    path: Path
    identity: Mapping[str, Any] = field(default_factory=dict)
    """Empty for the folder of a plan, which freezes scenes without choosing a model."""
    note: str = ""
    """What a user must know of the contents, such as that a model is for demonstration only."""

    @classmethod
    def open(cls, path: Path) -> TileFolder:
        """Return the folder at `path` with the identity in its `run.json`, or none if that is absent or damaged."""
        run = checked_folder(read_or_none(path / RUN)) or {}
        return cls(path, run.get("identity", {}), run.get("note", ""))

    @property
    def holds_dpixels(self) -> bool:
        return self.identity.get("content") == DPIXELS

    def check_identity(self) -> None:
        """Raise IdentityError, naming the differing fields, when the folder was made with other settings."""
        run = read_or_none(self.path / RUN)
        if run is None:
            return
        if checked_folder(run) is None:
            raise UsageError(f"{self.path / RUN} is damaged. Restore it, or choose another --out.")
        theirs, ours = run["identity"], self.plain_identity
        there, here = (identity.get("content", "embeddings") for identity in (theirs, ours))
        if there != here:  # then nearly all else differs as well
            raise IdentityError(f"{self.path} holds {there}, not {here}. Choose another --out.")
        if differing := differences(theirs, ours):
            told, rest = differing[:TOLD], [each.partition(" is ")[0] for each in differing[TOLD:]]
            told += [f"{', '.join(rest)} differ{'s' if len(rest) == 1 else ''} as well"] if rest else []
            raise IdentityError(f"{self.path} was made with other settings: {'; '.join(told)}. Choose another --out.")

    def check_source(self, source: str) -> None:
        """Raise IdentityError when runs or plans have frozen scenes of another source: no list can hold both."""
        others = {run["source"] for run in self.runs() if run.get("source", source) != source}
        if others:
            raise IdentityError(
                f"{self.path} holds a scene list of source {', '.join(sorted(others))}, not {source}. "
                "Choose another --out."
            )

    def frozen_scenes(self, run: str, source: Source) -> Scenes | None:
        """Return the scenes frozen for a run, by its key; None if it was never started or some of them are gone."""
        record = checked_run(read_or_none(self._run_path(run)))
        wanted = None if record is None else record.get("scenes")
        frozen = None if wanted is None else self.all_frozen(source)
        if record is None or wanted is None or frozen is None:
            return None
        scenes = frozen.named(wanted)
        if scenes is None:  # another run, started in the same moment, wrote its own list over ours
            logger.warning("%s lacks scenes of this run; searching again", self.path / SCENES)
            return None
        return Scenes(source, scenes.scenes, record.get("skipped", {}))

    def frozen_run(self, run: str) -> Mapping[str, Any] | None:
        """Return the record of a run, by its key, whose scenes are frozen; they are not looked for in the list."""
        record = checked_run(read_or_none(self._run_path(run)))
        return record if record is not None and "scenes" in record and (self.path / SCENES).exists() else None

    def all_frozen(self, source: Source, *, damaged_ok: bool = False) -> Scenes | None:
        """Return the scenes of all runs; None if there are none. UsageError, or None, for a damaged list."""
        if not (self.path / SCENES).exists():
            return None
        try:
            return Scenes.from_ndjson(self.path / SCENES, source)
        except UsageError:
            if damaged_ok:
                return None
            raise

    def start_run(self, run: str, record: Mapping[str, Any], scenes: Scenes | None) -> None:
        """Write identity, request and scene list, before the first pixel is read. UsageError if that is impossible.

        `run` is the key of the run, `scenes` the new list; None if no scenes are read or they are frozen already. A run
        that is started again with frozen scenes writes nothing, so that a finished folder may be read-only.
        """
        claimed = not self.identity or (self.path / RUN).exists()
        if scenes is None and claimed and self._run_path(run).exists():
            return
        try:
            (self.path / RUNS).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"{self.path} cannot be created: {error.strerror}. Choose another --out.") from error
        self._claim()
        if scenes is not None:
            self._freeze(scenes)
        elif self._run_path(run).exists():  # of a plan: by what it says, other processes cut their shares
            return
        write_json(self._run_path(run), record)  # last: it says that the scenes are frozen

    def _claim(self) -> None:
        """Make the folder that of our identity; IdentityError if another run was faster and has another one."""
        if not self.identity:
            return
        note = {"note": self.note} if self.note else {}
        path, ours = self.path / RUN, json_bytes({"identity": dict(self.identity), **note})
        until = time.monotonic() + SETTLES
        while not claim_bytes(path, ours):
            before = read_file(path, MAX_MARKER) if path.exists() else b""
            if read_or_none(path) is not None:  # after `before`, so that what is judged damaged is what goes
                self.check_identity()
                return
            time.sleep(0.02)
            if time.monotonic() > until:  # nobody is writing it: it was damaged before
                with replacement(self.path, RUN, RUN) as new:
                    write_bytes(new.files / RUN, ours)
                    new.commit(replaces=before)

    def _freeze(self, scenes: Scenes) -> None:
        """Add scenes to the list; those that other runs add at the same moment stay."""
        path = self.path / SCENES
        while True:
            with replacement(self.path, SCENES, SCENES) as new:
                before = read_file(path, MAX_MARKER) if path.exists() else None
                others = self.all_frozen(scenes.source, damaged_ok=True)
                every = scenes if others is None else scenes.merged(others)
                write_ndjson_gz(new.files / SCENES, every.to_ndjson(), private=every.hold_queries)
                if new.commit(replaces=before):
                    return

    def tidy(self) -> None:
        """Finish what killed runs left in the middle, and remove what they left unfinished."""
        finish_begun(self.path)
        for folder in (self.path, self.path / RUNS, *(self.path / RUNS).glob(f"*{FAILED}")):
            remove_stale_parts(folder)
        remove_overtaken(self.path)

    def runs(self) -> Iterator[Mapping[str, Any]]:
        """Yield the records of all runs."""
        for path in sorted((self.path / RUNS).glob("*.json")):
            yield checked_run(read_or_none(path)) or {}

    def was_started(self, run: str) -> bool:
        """Return whether a run has this folder as its own, by its key."""
        return self._run_path(run).exists()

    def holds_other_area(self, record: Mapping[str, Any]) -> bool:
        """Return whether there are runs on the folder, and none of them on the area of this one, by its record."""
        runs = list(self.runs())
        return bool(runs) and not any(is_of_same_area(run, record) for run in runs)

    def requested_names(self) -> set[str]:
        """Return the names of all tiles that runs requested."""
        return {name for run in self.runs() for name in run.get("names", [])}

    def failures(self) -> Mapping[str, str]:
        """Return tile -> why a run failed on it, without the tiles that were finished since for what it asked."""
        reasons = {}
        for name, failed in noted_failures(self.path):
            height, width = failed["shape"]
            request = TileRequest(ForeignTile(name, (height, width)), None, base64.b64decode(failed["requested"]))
            if not self.finished(request, allow_missing=failed["allow_missing"]):
                reasons[name] = failed["reason"]
        return reasons

    def item_path(self, name: str) -> Path:
        """Return the path of a tile's record; `name` is that of `tile_name`."""
        return self.path / f"{name}.json"

    def read(self, path: Path) -> TileRecord | None:
        """Return the record in a file; None if it is absent, not one of ours, or torn by another tool."""
        item = read_or_none(path)
        try:
            record = None if item is None else TileRecord.from_item(item)
        except UsageError:
            return None
        return None if record and self.identity and record.holds_dpixels != self.holds_dpixels else record

    def record(self, name: str) -> TileRecord | None:
        """Return the record of a finished tile; None without one, or if a file of it is absent or has another size."""
        record = self._record_of(self.item_path(name), name)
        return None if record is None or self.incomplete(record) else record

    def incomplete(self, record: TileRecord) -> Path | None:
        """Return the first file of a tile that is absent or has another size than recorded; None if all are there."""
        for asset in record.assets:
            path = self.path / asset.name
            if not path.is_file() or path.stat().st_size != asset.size:
                return path
        return None

    def foreign(self, record: TileRecord) -> list[str]:
        """Return the settings of the folder that a tile was not made with."""
        ours = self.plain_identity
        return [key for key in ours if ours[key] != record.identity.get(key)]

    def tell_foreign(self, names: Iterable[str]) -> None:
        """Warn of tiles that were made with other settings than the folder's."""
        for name in names:
            record = self._record_of(self.item_path(name), name)
            if record is not None and (differing := self.foreign(record)):
                logger.warning("%s was made with other settings (%s); it is made again", name, ", ".join(differing))

    def check(self, record: TileRecord, *, recorded_at: int | None = None) -> None:
        """Raise TileError unless a tile is of the folder's settings and has all its files, with the bytes recorded.

        This is what `verify` and the next run mean by done. With `recorded_at`, the time of the record in nanoseconds,
        files of the recorded size that are no newer are not read: so a run looks at ten thousand tiles.
        """
        where = self.item_path(record.name)
        if differing := self.foreign(record):
            raise TileError(f"{where} belongs to other settings: {', '.join(differing)}. Remove it and run again.")
        if is_begun(self.path, record.name):
            raise TileError(f"{where} is being replaced, or the run that did so has died. Run again.")
        (stores if record.holds_dpixels else formats).check_files(self.path, record, recorded_at=recorded_at)

    def finished(self, request: TileRequest, *, allow_missing: int, inputs: str | None = None) -> TileRecord | None:
        """Return the record of a tile that need not be made again, else None.

        Its files are unchanged by their sizes and times, it covers the pixels, lacks no more scenes than allowed, and,
        with `inputs`, was made from what has this digest.
        """
        path = self.item_path(request.name)
        try:
            recorded_at = path.stat().st_mtime_ns  # before it is read: who replaces it meanwhile makes it newer
        except OSError:
            return None
        record = self._record_of(path, request.name)
        if record is None or len(record.missing_scenes) > allow_missing or inputs not in (None, record.input_digest):
            return None
        if record.packed.shape != request.tile.shape:
            return None
        if record.packed.data != request.packed and (request.pixels & ~record.requested).any():
            return None
        try:
            self.check(record, recorded_at=recorded_at)
        except TileError:
            return None
        with suppress(OSError):  # left by a run that died right after it finished the tile
            self._stale_path(record.name).unlink()
        return record

    def previously_requested(self, request: TileRequest) -> np.ndarray | None:
        """Return bool (H, W): pixels that earlier runs asked for in the tile, even if its files were never finished.

        None if there are none, or if an official tile folder had another size then.
        """
        name = request.name
        record = self._record_of(self.item_path(name), name) or self._record_of(self._stale_path(name), name)
        return record.requested if record and record.requested.shape == request.tile.shape else None

    def united(self, request: TileRequest) -> TileRequest:
        """Return the request with the pixels that earlier runs asked for added to its own."""
        before = self.previously_requested(request)
        if before is None:
            return request
        return TileRequest(request.tile, request.window, pack_mask(request.pixels | before))

    def replace(self, name: str, write: Callable[[Path], TileRecord]) -> TileRecord | None:
        """Write a tile's files and record, which makes it done, in place of what is there; return the record.

        `write` writes the files into the folder that it is given, and returns the record. What is there stays valid
        until they are complete. None if another run has finished the tile for pixels that they lack, or finishes it
        at this moment: the tile must be taken again. Errors as those of `write_bytes`.
        """
        path = self.item_path(name)
        with replacement(self.path, name, path.name) as new:
            record = write(new.files)
            if self.identity and not (self.path / RUN).exists():
                raise TileError(f"{self.path} cannot be written: its {RUN} is gone. Is the disk there? Then run again.")
            before = path.read_bytes() if path.exists() else None
            if self._is_overtaken(record):
                return None
            write_json(new.files / path.name, record.to_item())
            gone = [] if record.holds_dpixels else self._replaced(record)
            if not new.commit(replaces=before, remove=[self._stale_path(name).name, partial_name(name), *gone]):
                return None
        until = time.monotonic() + SETTLES
        while self.incomplete(record) and self.record(name) is None:  # else another run has replaced it
            if time.monotonic() > until:
                raise TileError(f"{self.incomplete(record)} was removed while it was written. Run again.")
            time.sleep(0.02)
        return record

    def _is_overtaken(self, record: TileRecord) -> bool:
        """Return whether there is a tile for pixels that `record` lacks."""
        before = self.previously_requested(TileRequest(record.tile, record.window, b""))
        return before is not None and bool((before & ~record.requested).any())

    def _replaced(self, record: TileRecord) -> list[str]:
        """Return the files that a tile of embeddings has no longer, and what viewers may have left beside any."""
        files = file_names(record.name)
        listed = {asset.name for asset in record.assets}
        return [file for file in files if file not in listed] + [file + end for file in files for end in ENDINGS]

    def _record_of(self, path: Path, name: str) -> TileRecord | None:
        record = self.read(path)
        return record if record is not None and record.name == name else None  # else it was copied from another tile

    @functools.cached_property
    def plain_identity(self) -> Mapping[str, Any]:
        """Return the identity as it is read back from JSON, where tuples are lists."""
        return json.loads(json.dumps(self.identity))

    def _run_path(self, run: str) -> Path:
        return self.path / RUNS / f"{run}.json"

    def _stale_path(self, name: str) -> Path:
        """Return where earlier versions put a record while they replaced the files."""
        return self.path / f"{name}.json.stale"
