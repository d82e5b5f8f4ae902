"""The folder of a run: whose it is, what it was asked for, what is done."""

from __future__ import annotations

import base64
import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from tessera_cli.catalog import Scenes, Source
from tessera_cli.errors import IdentityError, UsageError
from tessera_cli.extent.grid import pack_mask, unpack_mask
from tessera_cli.files import write_json, write_ndjson_gz
from tessera_cli.outputs.asset import File
from tessera_cli.outputs.item import TileRecord
from tessera_cli.outputs.layers import RUN as RUN
from tessera_cli.outputs.layers import tiles_of_file

logger = logging.getLogger(__name__)

SCENES, RUNS = "scenes.ndjson.gz", "runs"


@dataclass(frozen=True, eq=False)
class Failure:
    """A tile that a run could not finish."""

    name: str
    requested: np.ndarray
    """bool (H, W): the pixels asked for."""
    reason: str
    allow_missing: int


class Record(Protocol):
    """What is known about one finished tile: provenance, manifest and done-marker."""

    @property
    def name(self) -> str: ...
    @property
    def identity(self) -> Mapping[str, Any]: ...
    @property
    def pixels(self) -> int: ...
    @property
    def requested(self) -> np.ndarray: ...
    @property
    def missing_scenes(self) -> Mapping[str, str]: ...
    @property
    def warnings(self) -> tuple[str, ...]: ...
    @property
    def input_digest(self) -> str: ...
    @property
    def assets(self) -> tuple[File, ...]: ...
    def to_item(self) -> dict[str, Any]: ...


R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Folder(ABC, Generic[R]):
    """A folder of tiles that all have one identity.

    Window, zone and AOI are part of a tile's name, so years and areas share a folder.
    """

    path: Path
    identity: Mapping[str, Any]
    note: str = ""
    """What a user must know of the contents, such as that a model is for demonstration only."""

    @staticmethod
    @abstractmethod
    def parse(item: Mapping[str, Any]) -> R:
        """The record in parsed JSON; UsageError for any other JSON."""

    def check_identity(self) -> None:
        """Raises IdentityError naming the differing fields when the folder belongs to other settings."""
        found = read_json(self.path / RUN)
        if found is None:
            return
        theirs = found.get("identity") if isinstance(found, dict) else None
        if not isinstance(theirs, dict):
            raise UsageError(f"{self.path / RUN} is damaged. Restore it, or choose another --out.")
        ours = json.loads(json.dumps(self.identity))  # where tuples are lists
        there, here = (identity.get("content", "embeddings") for identity in (theirs, ours))
        if there != here:  # then nearly all else differs as well
            raise IdentityError(f"{self.path} holds {there}, not {here}. Choose another --out.")
        differing = [
            f"{name} is {theirs.get(name)!r} there and {ours.get(name)!r} here"
            for name in dict.fromkeys([*theirs, *ours])
            if theirs.get(name) != ours.get(name)
        ]
        if differing:
            raise IdentityError(
                f"{self.path} was made with other settings: {'; '.join(differing)}. Choose another --out."
            )

    def check_source(self, source: str) -> None:
        """Raises IdentityError when runs or plans have frozen scenes of another source: no list can hold both."""
        others = {run["source"] for run in self.runs() if run.get("source", source) != source}
        if others:
            raise IdentityError(
                f"{self.path} holds a scene list of source {', '.join(sorted(others))}, not {source}. "
                "Choose another --out."
            )

    # --- what was asked for ---------------------------------------------------------------------------------------

    def frozen_scenes(self, run: str, source: Source) -> Scenes | None:
        """The scenes frozen for the run of that digest; None if it was never begun or some of them are gone."""
        record = read_json(self._run_path(run))
        frozen = None if record is None else self.all_frozen(source)
        if record is None or frozen is None:
            return None
        scenes = frozen.named(record["scenes"])
        if scenes is None:  # another run, begun in the same moment, wrote its own list over ours
            logger.warning("%s lacks scenes of this run; searching again", self.path / SCENES)
            return None
        return Scenes(source, scenes.scenes, record.get("skipped", {}))

    def all_frozen(self, source: Source, *, damaged_ok: bool = False) -> Scenes | None:
        """The scenes of all runs; None if there are none. A damaged list is an error, or as good as none."""
        if not (self.path / SCENES).exists():
            return None
        try:
            return Scenes.from_ndjson(self.path / SCENES, source)
        except UsageError:
            if damaged_ok:
                return None
            raise

    @property
    def is_claimed(self) -> bool:
        """Whether it says whose it is: plans freeze scenes without choosing a model."""
        return (self.path / RUN).exists()

    def begin(self, run: str, record: Mapping[str, Any], scenes: Scenes | None) -> None:
        """Freeze request and scenes, if it is scenes that are read, before the first pixel is read.

        An identity that is not empty claims the folder. Raises UsageError if the folder is not writable.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / RUNS).mkdir(exist_ok=True)
        except OSError as error:
            raise UsageError(f"{self.path} cannot be created: {error.strerror}. Choose another --out.") from error
        if self.identity:
            note = {"note": self.note} if self.note else {}
            write_json(self.path / RUN, {"identity": dict(self.identity), **note})
        if scenes is not None:
            write_ndjson_gz(self.path / SCENES, scenes.to_ndjson())
        write_json(self._run_path(run), record)  # last: it says that the scenes are frozen

    def end(self, run: str, record: Mapping[str, Any], failures: Iterable[Failure]) -> None:
        """Note which tiles of the run failed, why, and for which pixels."""
        failed = {
            failure.name: {
                "reason": failure.reason,
                "shape": list(failure.requested.shape),
                "requested": base64.b64encode(pack_mask(failure.requested)).decode(),
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
            record = read_json(path)
            yield record if isinstance(record, dict) else {}

    def asked(self) -> set[str]:
        """The names of all tiles that runs asked for."""
        return {name for run in self.runs() for name in run.get("names", [])}

    def failures(self) -> Mapping[str, str]:
        """Tile -> why a run failed on it; without those that were finished for what that run asked."""
        reasons = {}
        for run in self.runs():
            for name, failed in run.get("failed", {}).items():
                height, width = failed["shape"]
                requested = unpack_mask(base64.b64decode(failed["requested"]), (height, width))
                if not self.finished(name, requested, allow_missing=failed["allow_missing"]):
                    reasons[name] = failed["reason"]
        return reasons

    # --- what is done ---------------------------------------------------------------------------------------------

    def item_path(self, name: str) -> Path:
        """`name` as `tile_name` gives it."""
        return self.path / f"{name}.json"

    def read(self, path: Path) -> R | None:
        """The record in a file; None if it is absent, not one of ours, or torn by another tool."""
        item = read_json(path)
        try:
            return None if item is None else self.parse(item)
        except UsageError:
            return None

    def record(self, name: str) -> R | None:
        """The record of a finished tile; None if there is none or if a file it lists is absent or has another size."""
        record = self._recorded(self.item_path(name), name)
        if record is None:
            return None
        for asset in record.assets:
            path = self.path / asset.name
            if not path.exists() or path.stat().st_size != asset.size:
                return None
        return record

    def finished(self, name: str, pixels: np.ndarray, *, allow_missing: int, inputs: str | None = None) -> R | None:
        """The record of the tile if it is whole, covers `pixels`, bool (H, W), with no more holes than allowed.

        Else None, also, with `inputs`, if it was made from something else than what has this digest.
        """
        record = self.record(name)
        if record is None or len(record.missing_scenes) > allow_missing or inputs not in (None, record.input_digest):
            return None
        if record.requested.shape != pixels.shape or (pixels & ~record.requested).any():
            return None
        if not all(asset.is_whole(self.path) for asset in record.assets):
            return None
        with suppress(OSError):  # left by a run that died right after it finished the tile
            self._stale_path(record.name).unlink()
        return record

    def previously_requested(self, name: str) -> np.ndarray | None:
        """bool (H, W): pixels that earlier runs asked for in the tile, even if its files were never finished."""
        record = self._recorded(self.item_path(name), name) or self._recorded(self._stale_path(name), name)
        return None if record is None else record.requested

    def invalidate(self, name: str) -> None:
        """Before a tile's files are replaced: its record must not vouch for files that change."""
        with suppress(FileNotFoundError):  # there was none, or another run on the folder was faster
            self.item_path(name).replace(self._stale_path(name))

    def finish(self, record: R) -> Path:
        """Write the tile's record: the done-marker."""
        path = self.item_path(record.name)
        write_json(path, record.to_item())
        self._stale_path(record.name).unlink(missing_ok=True)
        return path

    def _recorded(self, path: Path, name: str) -> R | None:
        record = self.read(path)
        return record if record is not None and record.name == name else None  # else it was copied from another tile

    def _run_path(self, run: str) -> Path:
        return self.path / RUNS / f"{run}.json"

    def _stale_path(self, name: str) -> Path:
        return self.path / f"{name}.json.stale"


class OutputFolder(Folder[TileRecord]):
    """Embeddings of one model, its weights, their source and settings."""

    @staticmethod
    def parse(item: Mapping[str, Any]) -> TileRecord:
        return TileRecord.from_item(item)


def record_listing(path: Path) -> TileRecord | None:
    """The record, in the same folder, of the tile that lists the file at `path`; None if there is none."""
    folder = OutputFolder(path.parent, {})
    for name in tiles_of_file(path.name):
        record = folder.read(folder.item_path(name))
        if record is not None and path.name in {asset.name for asset in record.assets}:
            return record
    return None


def read_json(path: Path) -> Any:
    """The parsed file; None if it is absent or not JSON (a torn write of another tool)."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}. Check its permissions.") from error
