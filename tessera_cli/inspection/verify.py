"""Read a folder, a tile, a store or a weights file in full and compare it with its record."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from tessera_cli.catalog import get_source
from tessera_cli.dpixels import describe, members
from tessera_cli.errors import NothingToEmbedError, PartialFailureError, TileError, UsageError
from tessera_cli.extent.grid import Tile, parse_tile_name, tile_name
from tessera_cli.folders.checks import SOUND, Check
from tessera_cli.folders.folder import SCENES, TileFolder
from tessera_cli.folders.owner import record_beside, record_listing
from tessera_cli.folders.run_record import checked_run, read_or_none
from tessera_cli.inspection.lists import check_lists
from tessera_cli.inspection.recompute import Recomputation
from tessera_cli.inspection.seams import check_seams
from tessera_cli.models.weights import describe_weights, is_weights
from tessera_cli.outputs import formats, stores
from tessera_cli.outputs.beside import beside, is_stale
from tessera_cli.outputs.layers import RUN, RUNS, file_names, tiles_of_file
from tessera_cli.outputs.vrt import of_mosaic, vrts
from tessera_cli.reading import is_there
from tessera_cli.runs.mosaic import content_of, described, mosaics

EXPECTED = (
    "Give a folder of `tessera embed` or `tessera fetch`, a tile's .json, one of its files, stored d-pixels, or a "
    "weights file."
)


@dataclass(frozen=True)
class Verification:
    """The results for everything at a path."""

    path: Path
    checks: tuple[Check, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Return status -> number of checks."""
        return dict(Counter(check.status for check in self.checks))

    def error(self) -> PartialFailureError | None:
        """Return the error to end with; None if everything is sound."""
        if all(check.is_sound for check in self.checks):
            return None
        counts = ", ".join(f"{count} {status}" for status, count in self.counts.items() if status not in SOUND)
        again = "Run the command that made it again"
        if is_weights(self.path):
            again = "Get it again"
        return PartialFailureError(f"{self.path} is not sound: {counts}. {again}.")

    def to_dict(self) -> dict[str, Any]:
        return {
            "path": str(self.path),
            "sound": self.error() is None,
            "checked": self.counts,
            "by_name": {
                check.name: {"status": check.status, **({"reason": check.reason} if check.reason else {})}
                for check in self.checks
            },
        }


def verify(
    path: Path,
    *,
    report: Callable[[Check], object] = lambda check: None,
    records_only: bool = False,
    recomputation: Recomputation | None = None,
    seams: Path | None = None,
) -> Verification:
    """Check everything at `path`; `report` is called with each result. Raises UsageError for what is not ours.

    `records_only`: of a folder, records, lists and the sizes of files: no raster is read. `recomputation` makes some
    tiles again; `seams` is another folder, with which this one must agree where both have pixels.
    """
    if not is_there(path):
        raise UsageError(f"{path}: no such file or folder. {EXPECTED}")
    checks = []
    if records_only and not is_folder(path):
        raise UsageError(f"--records-only: {path} is not the folder of a run. Leave it out.")
    of_path = _folder(path, records_only) if records_only else _checks(path)
    for found in chain(of_path, () if seams is None else check_seams(path, seams)):
        check = found if recomputation is None else recomputation.check(found)
        report(check)
        checks.append(check)
    return Verification(path, tuple(checks))


def is_folder(path: Path) -> bool:
    """Return whether `path` is the folder of a run."""
    return (path / RUN).exists()


def _checks(path: Path) -> Iterator[Check]:
    if is_folder(path):
        return _folder(path)
    if path.is_dir():
        found = list(members(path))
        if not found:
            raise UsageError(f"{path} is no output folder: it has no {RUN} (a plan alone writes none). {EXPECTED}")
        return map(_store, found)
    if is_weights(path):
        return iter([_weights(path)])
    return _tile_of(path)


def _folder(path: Path, records_only: bool = False) -> Iterator[Check]:
    """Check the lists of a folder, and every tile that a run asked for or that has a record."""
    folder, intact = TileFolder.open(path), True
    if not folder.identity:
        intact = False
        yield Check(RUN, "damaged", "it does not say which settings the folder belongs to")
    for file in sorted((path / RUNS).glob("*.json")):
        if checked_run(read_or_none(file)) is None:
            intact = False
            yield Check(f"{RUNS}/{file.name}", "damaged", "what the run asked for cannot be read")
    yield from _scene_list(folder)
    failures, sound = folder.failures(), True
    asked = folder.requested_names()
    others = {file.stem for file in path.glob("*.json") if file.stem not in asked and folder.read(file) is not None}
    names, done = sorted(asked | others), set[str]()
    if not names and intact:
        raise NothingToEmbedError(f"{path} holds no tile, and no run has asked for one: there is nothing to verify.")
    for name in names:
        tile = _tile(folder, name, failures.get(name), records_only)
        sound &= tile.is_sound
        done |= {name} if tile.status == "sound" else set()
        yield tile
    if sound:  # else the run that makes the tiles writes them anyway
        yield from _mosaics(folder, names, done)
        yield from check_lists(folder)
    yield from _beside(file for file in path.glob("*.tif") if tiles_of_file(file.name))
    yield from _beside(vrts(path))


def _beside(rasters: Iterable[Path]) -> Iterator[Check]:
    """Tell of the files that viewers left beside rasters whether these have changed since."""
    for raster in sorted(rasters):
        for path in beside(raster):
            if is_stale(path, described(raster) if raster.suffix == ".vrt" else [raster]):
                yield Check(path.name, "stale", f"it is older than what it describes, {raster.name}. Remove it.")
            else:
                yield Check(path.name, "beside", f"a viewer has left it, and {raster.name} has not changed since")


def _mosaics(folder: TileFolder, names: Iterable[str], done: Collection[str]) -> Iterator[Check]:
    """Check that the VRTs are those that a run would write; those that hold mosaics of their own are of 0.1.0."""
    if folder.holds_dpixels or not folder.identity:
        return
    windows = sorted({parsed[1] for parsed in map(parse_tile_name, names) if parsed is not None})
    for mosaic in mosaics(folder, windows, lambda tile, window: tile_name(tile, window) in done):
        if mosaic.tiles and "<![CDATA[" in (content_of(mosaic.product) or ""):
            yield Check(
                mosaic.product.name, "stale", "an earlier version has written it. Run again: no tile is made anew."
            )
            continue
        extra = set(of_mosaic(mosaic.product))
        for path, xml in mosaic.files(folder):
            extra.discard(path)
            if not path.exists():
                yield Check(path.name, "missing", "it shows the tiles as one. Run again: no tile is made anew.")
            elif content_of(path) != xml:
                reason = "it does not show the tiles as they are. Run again: no tile is made anew."
                yield Check(path.name, "damaged", reason)
        for path in sorted(extra):
            yield Check(path.name, "damaged", "it shows tiles that are not there. Run again.")


def _scene_list(folder: TileFolder) -> Iterator[Check]:
    """Check that the scene list, by which runs are resumed, holds the scenes of every run."""
    wanted = {scene for run in folder.runs() for scene in run.get("scenes", [])}
    source = folder.identity.get("source")
    if not wanted or source is None:
        return
    try:
        frozen = folder.all_frozen(get_source(source))
    except UsageError as error:
        yield Check(SCENES, "damaged", str(error))
        return
    if frozen is None:
        yield Check(SCENES, "missing", "runs have searched, and their scene list is gone")
    elif frozen.named(sorted(wanted)) is None:
        yield Check(SCENES, "damaged", "scenes of some runs are not in it")


def _tile(folder: TileFolder, name: str, failure: str | None, records_only: bool = False) -> Check:
    """Check a tile's record and files; `failure` is why a run could not make all that it was asked for.

    `records_only`: of the files only that they are there, in the recorded size.
    """
    file = folder.item_path(name)
    record = folder.read(file)
    if record is None:
        if failure is not None:
            return Check(name, "failed", failure)
        if file.exists():
            return Check(name, "damaged", f"{file} is not the record of a tile. Remove it and run again.")
        return Check(name, "missing", "no run has finished it")
    try:
        if record.name != name:
            raise TileError(f"{file} is the record of {record.name}. Remove it and run again.")
        if records_only:
            folder.check(record, recorded_at=time.time_ns())
        else:
            folder.check(record)
            (stores if record.holds_dpixels else formats).read_back(folder.path, record)
    except TileError as error:
        return Check(name, "damaged", str(error))
    if failure is not None:  # what is there is of a run that asked for less, or allowed more missing scenes
        return Check(name, "failed", failure)
    return Check(name, "empty" if record.status == "empty" else "sound")


def _tile_of(path: Path) -> Iterator[Check]:
    """Check the tile that a record or one of its files belongs to: files are sound only together."""
    folder = TileFolder.open(path.parent)
    if path.suffix == ".json":
        known, names = [path.stem] if folder.read(path) else [], [path.stem]
    else:
        record = record_listing(path)
        known, names = [record.name] if record else [], tiles_of_file(path.name)
    known += sorted(folder.requested_names() & set(names))
    if not known:
        raise UsageError(f"{path} is not ours, or no tile's .json beside it lists it. {EXPECTED}")
    yield _tile(folder, known[0], folder.failures().get(known[0]))
    yield from _beside(path.with_name(name) for name in file_names(known[0]))


def _store(path: Path) -> Check:
    """Check stored d-pixels anywhere. Without a record, damage that no checksum of theirs covers is not found."""
    record = record_beside(path)
    if record is not None:
        folder = TileFolder.open(path.absolute().parent)
        return _tile(folder, record.name, folder.failures().get(record.name))
    try:
        stored = describe(path)
        stored.read()
    except TileError as error:
        return Check(path.name, "damaged", str(error))
    ours = isinstance(stored.tile, Tile)
    checked = "its chunks have checksums of their own" if ours else "only the layout could be checked"
    return Check(path.name, "sound", f"no record lies beside it: {checked}")


def _weights(path: Path) -> Check:
    try:
        weights = describe_weights(path)  # reads every tensor
    except UsageError as error:
        return Check(path.name, "damaged", str(error))
    reason = f"the published {weights['name']}" if weights["published"] else "not a published file"
    return Check(path.name, "sound", reason)
