"""What came of sampling: how many places have embeddings, and what a person must know of those that have none."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np

from tessera_cli.embeddings.folder import EmbeddingFolder
from tessera_cli.errors import NothingToEmbedError, counted
from tessera_cli.extent.place import position
from tessera_cli.tables.places import Places
from tessera_cli.tables.sample import outside_but_swapped
from tessera_cli.tables.samples import Samples, Status

logger = logging.getLogger(__name__)

MEANING: Mapping[str, str] = {
    "outside": "lie on no tile of {folder}",
    "none": "lie on pixels without an embedding",
    "small": "hold no centre of a pixel, and have the pixel under them",
}


@dataclass(frozen=True)
class Sampled:
    """The result of a `sample` that wrote a table."""

    path: Path | None
    """The table; None if it went to a stream."""
    places: int
    kind: str
    """`point` or `polygon`."""
    windows: tuple[str, ...]
    rows: int
    statuses: Mapping[Status, int] = field(default_factory=dict)
    """`ok`, `small`, `none`, `outside` -> number of rows."""

    def to_dict(self) -> dict[str, Any]:
        """Return the line of `--json`."""
        return {
            "type": "sample",
            "schema": 1,
            "path": None if self.path is None else str(self.path),
            "places": self.places,
            "kind": self.kind,
            "windows": list(self.windows),
            "rows": self.rows,
            "statuses": dict(self.statuses),
        }


class Tally:
    """Counts the rows that pass, and tells in the end what they lack."""

    def __init__(self, folder: EmbeddingFolder, places: Places) -> None:
        self.folder, self.places = folder, places
        self.statuses: Counter[Any] = Counter(dict.fromkeys(get_args(Status), 0))
        self.windows: tuple[str, ...] = ()

    def watch(self, batches: Iterable[Samples]) -> Iterator[Samples]:
        """Yield the batches. After the last one, warn of places without embeddings.

        Raises NothingToEmbedError where no place has any.
        """
        for samples in batches:
            self.statuses.update(samples.status.ravel().tolist())
            self.windows = samples.windows
            yield samples
        self._tell()

    def outcome(self, path: Path | None) -> Sampled:
        rows = self.statuses.total()
        return Sampled(path, len(self.places), self.places.kind, self.windows, rows, dict(self.statuses))

    def _tell(self) -> None:
        origin, rows = self.places.origin, self.statuses.total()
        if self.statuses["outside"] == rows:
            lon, lat = self.places.lonlat[~np.isnan(self.places.lonlat[:, 0])][0]
            hint = "Give places in its area, or the folder of theirs."
            if outside_but_swapped(self.folder, self.places):
                hint = "Longitude and latitude are swapped: longitude comes first."
            raise NothingToEmbedError(
                f"{origin}: none of {counted(len(self.places), self.places.kind)} lies on a tile of {self.folder.path} "
                f"(the first lies at {position(lon, lat)}). {hint}"
            )
        if self.statuses["ok"] + self.statuses["small"] == 0:
            raise NothingToEmbedError(
                f"{origin}: none of {counted(len(self.places), self.places.kind)} has an embedding in "
                f"{self.folder.path}: nothing was asked for or observed there. Embed an area that holds them."
            )
        for status, meaning in MEANING.items():
            if count := self.statuses[status]:
                what = meaning.format(folder=self.folder.path)
                logger.warning("%s: %s of %s %s", origin, f"{count:,}", counted(rows, "row"), what)
