"""Compare finished tiles with what comes out when they are made again: bytes first, and where they differ, values."""

from __future__ import annotations

import hashlib
import math
import random
import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from tessera_cli import __version__
from tessera_cli.dpixels import describe
from tessera_cli.errors import TileError, UsageError
from tessera_cli.extent.window import day_of_year
from tessera_cli.folders.checks import Check
from tessera_cli.folders.folder import TileFolder
from tessera_cli.inspection.remake import Remaker
from tessera_cli.outputs import formats
from tessera_cli.outputs.compare import compare, frames, planes
from tessera_cli.outputs.encoded import EncodedTile
from tessera_cli.outputs.geotiff import Compress, compression_of
from tessera_cli.outputs.item import TileRecord
from tessera_cli.outputs.layers import Role, layers_of


def draw(names: Sequence[str], share: str | int, seed: int) -> list[str]:
    """Return a random part of tiles, the same for the same seed: `1%` of them, at least one, or a number of them."""
    return sorted(random.Random(seed).sample(list(names), share_of(len(names), share)))


def share_of(count: int, share: str | int) -> int:
    """Return how many of `count` tiles a share is, rounded up; UsageError for what is no share."""
    text = str(share).strip()
    if match := re.fullmatch(r"(\d+(?:\.\d+)?) ?%", text):
        if 0 < float(match[1]) <= 100:
            return math.ceil(count * float(match[1]) / 100)
    elif re.fullmatch(r"[0-9]{1,9}", text) and int(text):
        return min(int(text), count)
    raise UsageError(f"--recompute {text} is no part of the tiles. Write 1%, or a number of tiles.")


@dataclass(frozen=True, eq=False)
class Recomputation:
    """The tiles of a folder that are made again, and how."""

    folder: TileFolder
    remaker: Remaker
    names: frozenset[str]

    def check(self, found: Check) -> Check:
        """Return what is to be said of a tile, `found` being what its files say of themselves."""
        if found.name not in self.names or not found.is_sound:
            return found
        record = self.folder.record(found.name)
        if record is None:
            return Check(found.name, "missing", "it was removed while it was looked at")
        try:
            return (self._stored if record.holds_dpixels else self._embedded)(record, found)
        except TileError as error:
            return Check(found.name, "failed", f"it cannot be made again: {error}")

    def _embedded(self, record: TileRecord, found: Check) -> Check:
        made = self.remaker.embeddings(record)
        if not isinstance(made, EncodedTile) or record.status == "empty":
            status = "done" if isinstance(made, EncodedTile) else "empty"
            if status == record.status:
                return Check(record.name, found.status, "made again, it is empty as well")
            return _damaged(record, f"it is {record.status}, and made again {status}")
        if made.record.pixels != record.pixels or not np.array_equal(made.record.requested, record.requested):
            return _damaged(record, f"it has {record.pixels:,} embeddings, and made again {made.record.pixels:,}")
        paths = {asset.role: self.folder.path / asset.name for asset in record.assets if asset.role}
        compress: Compress = compression_of(paths["emb"]) if record.format == "geotiff" else "none"
        digests = {asset.role: asset.sha256 for asset in record.assets}
        equal = True
        with ExitStack() as stack:
            files: dict[Role, memoryview] = {}
            for layer in layers_of(record.identity):
                data = stack.enter_context(formats.layer_bytes(layer, made, compress))
                files[layer.role] = data
                equal &= hashlib.sha256(data).hexdigest() == digests[layer.role]
            if equal and _same_counts(record, made.record):
                return Check(record.name, found.status, "made again, it is equal to the byte")
            difference = compare(planes(record, paths), planes(made.record, files))
        if difference is None:
            return Check(record.name, found.status, "made again, it has the same values, written by another GDAL")
        return _damaged(record, f"made again, {difference}")

    def _stored(self, record: TileRecord, found: Check) -> Check:
        there, made = describe(self.folder.path / record.store).read(), self.remaker.dpixels(record)
        for sensor, dates in made.dates.items():
            of_store = there.dates[sensor]
            if there.window is None:  # official folders know days of the year alone
                dates, of_store = day_of_year(dates), day_of_year(of_store)
            if not np.array_equal(dates, of_store):
                return _damaged(record, f"it has {len(of_store)} dates of {sensor}, and made again {len(dates)} others")
        difference = compare(frames(there), frames(made), record.requested)
        if difference is None:
            return Check(record.name, found.status, "made again, it has the same values")
        return _damaged(record, f"made again, {difference}")


def _same_counts(record: TileRecord, made: TileRecord) -> bool:
    """Return whether counts that stand in records are equal; those of GeoTIFFs are files."""
    return record.format == "geotiff" or (
        record.counts is not None and made.counts is not None and np.array_equal(record.counts, made.counts)
    )


def _damaged(record: TileRecord, why: str) -> Check:
    by = f"; version {record.software} made it, and this is {__version__}" if record.software != __version__ else ""
    return Check(record.name, "damaged", f"{why}{by}. Run again with --overwrite --tile {record.name}.")
