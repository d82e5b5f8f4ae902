"""Compare two folders of the same settings where both have pixels: runs over neighbouring areas share tiles.

Within one folder nothing overlaps: its tiles lie on a fixed grid, and a tile is there once.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tessera_cli.dpixels import describe
from tessera_cli.errors import IdentityError, TileError, UsageError, differences
from tessera_cli.folders.checks import Check
from tessera_cli.folders.folder import TileFolder
from tessera_cli.outputs.compare import Plane, compare, frames, planes
from tessera_cli.outputs.item import TileRecord
from tessera_cli.outputs.layers import RUN


def check_seams(path: Path, other: Path) -> Iterator[Check]:
    """Yield whether codes, scales and counts, or observations, are equal in each tile that both folders hold.

    UsageError or IdentityError where there is nothing to compare.
    """
    ours, theirs = TileFolder.open(path), TileFolder.open(other)
    for folder in (ours, theirs):
        if not folder.identity:
            raise UsageError(
                f"--seams: {folder.path} is no output folder: it has no {RUN}. Give one of `embed` or `fetch`."
            )
    if differing := differences(ours.identity, theirs.identity):
        told = "; ".join(differing[:4])
        raise IdentityError(f"--seams: {other} was made with other settings than {path}: {told}.")
    if path.resolve() == other.resolve():
        raise UsageError(f"--seams: {other} is the folder itself, whose tiles do not overlap. Give another one.")
    shared = 0
    for name in sorted(file.stem for file in path.glob("*.json") if (other / file.name).exists()):
        one, two = ours.record(name), theirs.record(name)
        if one is None or two is None or one.tile != two.tile:
            continue
        both = one.requested & two.requested
        if both.any():
            shared += 1
            yield _check(ours, one, theirs, two, both)
    if not shared:
        raise UsageError(f"--seams: {path} and {other} have no pixel in common: there is nothing to compare.")


def _check(ours: TileFolder, one: TileRecord, theirs: TileFolder, two: TileRecord, both: np.ndarray) -> Check:
    name, pixels = f"{one.name} in {theirs.path}", f"{int(both.sum()):,} pixels in common"
    if one.device != two.device:
        reason = f"{pixels}, not compared: made on {one.device} here and on {two.device} there"
        return Check(name, "beside", reason)
    try:
        difference = compare(*_pair(ours, one, theirs, two), both)
    except TileError as error:
        return Check(name, "damaged", str(error))
    if difference is None:
        return Check(name, "sound", f"{pixels}, all equal")
    return Check(name, "damaged", f"{pixels}, of which {difference}{_why(one, two)}")


def _pair(
    ours: TileFolder, one: TileRecord, theirs: TileFolder, two: TileRecord
) -> tuple[Iterator[Plane], Iterator[Plane]]:
    """Return what is to be compared of two tiles."""
    if one.holds_dpixels:
        ready = [describe(folder.path / record.store).read() for folder, record in ((ours, one), (theirs, two))]
        first, second = (dpixels.dates for dpixels in ready)
        # A date of which no pixel asked for was seen has no frame.
        dates = {sensor: np.union1d(first[sensor], second[sensor]) for sensor in first}
        return frames(ready[0], dates), frames(ready[1], dates)
    if one.status == two.status == "done":
        return _planes(ours, one), _planes(theirs, two)
    return _embedded(ours, one), _embedded(theirs, two)


def _planes(folder: TileFolder, record: TileRecord) -> Iterator[Plane]:
    return planes(record, {asset.role: folder.path / asset.name for asset in record.assets if asset.role})


def _embedded(folder: TileFolder, record: TileRecord) -> Iterator[Plane]:
    """Yield which pixels have an embedding: none of a tile that is empty, for which no file is written."""
    found = np.zeros(record.tile.shape, bool)
    if record.status == "done":
        last = {what: values for what, values in _planes(folder, record) if what in ("scales", "values")}
        found = ~np.isnan(next(iter(last.values())))
    yield "embeddings", found


def _why(one: TileRecord, two: TileRecord) -> str:
    if one.input_digest != two.input_digest:
        return ". They were made from other scenes: freeze them together, or run one of them again with --refresh"
    if one.missing_scenes != two.missing_scenes:
        return ". One of them lacks scenes that the other has"
    return ""
