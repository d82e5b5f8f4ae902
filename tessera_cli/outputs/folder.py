"""The output folder: whose it is, what it was asked for, what is done."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tessera_cli.atomic import write_json, write_ndjson_gz
from tessera_cli.catalog import Scenes, Source
from tessera_cli.errors import IdentityError, UsageError
from tessera_cli.grid import Tile, TileRequest
from tessera_cli.outputs.item import TileRecord
from tessera_cli.outputs.layers import tile_name
from tessera_cli.window import Window

FORMAT_VERSION = 1
RUN, SCENES, RUNS = "run.json", "scenes.ndjson.gz", "runs"


@dataclass(frozen=True, eq=False)
class Failure:
    """A tile that a run could not finish."""

    request: TileRequest
    window: Window
    reason: str
    allow_missing: int


@dataclass(frozen=True)
class OutputFolder:
    """A folder of embeddings that all have one identity: model, weights, source, settings.

    Window, zone and AOI are part of a tile's name, so years and areas share a folder.
    """

    path: Path
    identity: Mapping[str, Any]
    note: str = ""
    """What a user must know of the model, such as that it is for demonstration only."""

    def check_identity(self) -> None:
        """Raises IdentityError naming the differing fields when the folder belongs to other settings."""
        found = read_json(self.path / RUN)
        if found is None:
            return
        theirs, ours = found.get("identity", {}), self.identity
        differing = [
            f"{name} is {theirs.get(name)!r} there and {ours.get(name)!r} here"
            for name in dict.fromkeys([*theirs, *ours])
            if theirs.get(name) != ours.get(name)
        ]
        if differing:
            raise IdentityError(
                f"{self.path} was made with other settings: {'; '.join(differing)}. Choose another --out."
            )

    # --- what was asked for ---------------------------------------------------------------------------------------

    def frozen_scenes(self, source: Source, run: str | None = None) -> Scenes | None:
        """All scenes frozen in the folder; with `run`, None unless the run of that digest was begun."""
        record = read_json(self._run_path(run)) if run else {}
        if record is None or not (self.path / SCENES).exists():
            return None
        scenes = Scenes.thaw(self.path / SCENES, source)
        return Scenes(source, scenes.scenes, record.get("skipped", {}))

    def begin(self, run: str, record: Mapping[str, Any], scenes: Scenes) -> None:
        """Freeze scenes and request before the first pixel is read. Raises UsageError if the folder is not writable."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / RUNS).mkdir(exist_ok=True)
        except OSError as error:
            raise UsageError(f"{self.path} cannot be created: {error.strerror}. Choose another --out.") from error
        note = {"note": self.note} if self.note else {}
        write_json(self.path / RUN, {"format_version": FORMAT_VERSION, "identity": dict(self.identity), **note})
        write_ndjson_gz(self.path / SCENES, scenes.freeze_lines())
        write_json(self._run_path(run), record)  # last: it says that the scenes are frozen

    def end(self, run: str, record: Mapping[str, Any], failures: Iterable[Failure]) -> None:
        """Note which tiles of the run failed, why, and for which pixels."""
        failed = {
            tile_name(failure.request.tile, failure.window): {
                "reason": failure.reason,
                "requested": base64.b64encode(failure.request.packed).decode(),
                "allow_missing": failure.allow_missing,
            }
            for failure in failures
        }
        record = {**record, "failed": failed}
        if read_json(self._run_path(run)) != json.loads(json.dumps(record)):
            write_json(self._run_path(run), record)

    def runs(self) -> Iterator[Mapping[str, Any]]:
        """The records of all runs."""
        for path in sorted((self.path / RUNS).glob("*.json")):
            yield read_json(path) or {}

    def asked(self) -> set[str]:
        """The names of all tiles that runs asked for."""
        return {
            tile_name(Tile.from_id(tile_id), Window.from_name(window))
            for run in self.runs()
            for window in run.get("windows", [])
            for tile_id in run.get("tiles", [])
        }

    def failures(self) -> Mapping[str, str]:
        """Tile -> why a run failed on it; without those that were finished for what that run asked."""
        reasons = {}
        for run in self.runs():
            for name, failed in run.get("failed", {}).items():
                tile_id, window = name.rsplit("_", 1)
                request = TileRequest(Tile.from_id(tile_id), base64.b64decode(failed["requested"]))
                if not self.finished(request, Window.from_name(window), allow_missing=failed["allow_missing"]):
                    reasons[name] = failed["reason"]
        return reasons

    # --- what is done ---------------------------------------------------------------------------------------------

    def item_path(self, name: str) -> Path:
        """`name` as `tile_name` gives it."""
        return self.path / f"{name}.json"

    def record(self, name: str) -> TileRecord | None:
        """The record of a finished tile; None if there is none or if a file it lists is absent or has another size."""
        record = self._parse(self.item_path(name))
        if record is None:
            return None
        for asset in record.assets:
            path = self.path / asset.name
            if not path.exists() or path.stat().st_size != asset.size:
                return None
        return record

    def finished(self, request: TileRequest, window: Window, *, allow_missing: int) -> TileRecord | None:
        """The record of the finished tile if it covers the request with no more holes than allowed, else None."""
        record = self.record(tile_name(request.tile, window))
        if record is None or len(record.holes) > allow_missing:
            return None
        return None if (request.pixels & ~record.requested).any() else record

    def asked_before(self, name: str) -> np.ndarray | None:
        """bool (H, W): pixels that earlier runs asked for in the tile, even if its files were never finished."""
        record = self._parse(self.item_path(name)) or self._parse(self._stale_path(name))
        return None if record is None else record.requested

    def set_aside(self, name: str) -> None:
        """Before a tile's rasters are replaced: its record must not vouch for files that change."""
        with suppress(FileNotFoundError):  # there was none, or another run on the folder was faster
            self.item_path(name).replace(self._stale_path(name))

    def finish(self, record: TileRecord) -> Path:
        """Write the tile's record: the done-marker."""
        path = self.item_path(record.name)
        write_json(path, record.to_item())
        self._stale_path(record.name).unlink(missing_ok=True)
        return path

    def _run_path(self, run: str) -> Path:
        return self.path / RUNS / f"{run}.json"

    def _stale_path(self, name: str) -> Path:
        return self.path / f"{name}.json.stale"

    @staticmethod
    def _parse(path: Path) -> TileRecord | None:
        item = read_json(path)
        try:
            return None if item is None else TileRecord.from_item(item)
        except UsageError:  # not one of ours, or torn by another tool
            return None


def read_json(path: Path) -> Any:
    """The parsed file; None if it is absent or not JSON (a torn write of another tool)."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}. Check its permissions.") from error
