"""Plots in place of an area: the pixels to embed for them, and the table of a run over them."""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tessera_cli.errors import NothingToEmbedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Collection

    from tessera_cli.extent.aoi import Aoi
    from tessera_cli.extent.window import Window
    from tessera_cli.tables.places import AnyPlaces, Places

logger = logging.getLogger(__name__)

TABLE = "points"
"""Name of the table in the folder of a run over plots, without its ending."""


def refuse_beside_points(**given: object) -> None:
    """Raise UsageError for options that choose pixels, or files, of an area."""
    names = [f"--{name.replace('_', '-')}" for name, value in given.items() if value]
    if names:
        raise UsageError(f"--points asks for single pixels and writes their vectors. Leave out {', '.join(names)}.")


@dataclass(frozen=True, eq=False)
class Plots:
    """The places that a run is over."""

    places: Places
    name: str
    """That of their file, else `points`."""
    file: str | None
    """Where they were read, if it was a file."""

    @classmethod
    def of(cls, given: AnyPlaces, *, layer: str | None = None) -> Plots:
        """Return what the argument `points` gives; errors are those of `Places.of`."""
        from tessera_cli.tables.places import Places

        places = Places.of(given, layer=layer)
        if not isinstance(given, str | Path):
            return cls(places, TABLE, None)
        return cls(places, Path(given).stem if layer is None else f"{Path(given).stem}-{layer}", str(given))

    def aoi(self) -> Aoi:
        """Return the area whose pixels give the rows of the places, as `sample` reads them.

        Of points these are the pixels that hold them; of polygons the pixels whose centre lies inside, and the one
        under a point inside, which stands for polygons without any.
        """
        import numpy as np
        from pyproj import CRS
        from shapely import is_missing

        from tessera_cli.extent.aoi import Aoi
        from tessera_cli.extent.features import Features

        origin, lonlat = self.places.origin, self.places.lonlat
        points = Aoi.from_points(lonlat[np.isfinite(lonlat).all(axis=1)], name=self.name, origin=origin)
        if self.places.kind == "point":
            return points
        layer = Features(origin, CRS(4326), self.places.geometries[~is_missing(self.places.geometries)])
        areas = Aoi.from_layers([layer], name=self.name, origin=origin)
        return dataclasses.replace(areas, points=points.points)

    def write_table(self, folder: Path, windows: Collection[Window | None]) -> Path | None:
        """Write a row per place and window, and return the path; None if no tile of these windows holds embeddings.

        It is `points.parquet` in the folder, without pyarrow `points.csv`, and holds these places alone. Warns of
        places without an embedding.
        """
        from tessera_cli.embeddings.folder import EmbeddingFolder
        from tessera_cli.tables.outcome import Tally
        from tessera_cli.tables.sample import sample
        from tessera_cli.tables.write import write_table

        endings = (".parquet", ".csv") if importlib.util.find_spec("pyarrow") else (".csv", ".parquet")
        path, other = (folder / f"{TABLE}{ending}" for ending in endings)
        try:
            every = EmbeddingFolder.open(folder)
        except NothingToEmbedError:  # the run itself tells why
            return None
        opened = dataclasses.replace(every, tiles=tuple(t for t in every.tiles if t.record.window in windows))
        if not opened.tiles:
            return None
        try:
            write_table(path, Tally(opened, self.places).watch(sample(opened, self.places)))
        except NothingToEmbedError as error:  # places of earlier runs have some
            logger.warning("%s", error)
            write_table(path, sample(opened, self.places))
        with suppress(OSError):  # of a run that had pyarrow, or had not
            other.unlink()
        return path
