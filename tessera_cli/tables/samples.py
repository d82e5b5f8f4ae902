"""Embeddings of places: what `sample` reads from a folder, `embed --points` makes from imagery, and tables hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tessera_cli.dpixels.dpixel import SENSORS
from tessera_cli.tables.places import Places

Status = Literal["ok", "small", "none", "outside"]
"""`small`: a polygon without the centre of a pixel, which has the pixel under it; `none`: there is no embedding, as
where none was asked for or nothing was observed; `outside`: no tile is there."""
RESERVED = ("id", "window", "status", "tile", "lon", "lat", "pixels", *SENSORS, "geometry", "bbox")


UNCERTAINTY = "uncertainty"
"""One more column, of folders that have it."""


@dataclass(frozen=True, eq=False)
class Samples:
    """The embeddings of P places in W windows; of polygons their mean over the pixels whose centre lies inside."""

    places: Places
    windows: tuple[str, ...]
    """Names; "" for that of tiles whose window is not known."""
    values: np.ndarray
    """float32 (P, W, R), NaN where there is none."""
    std: np.ndarray | None
    """float32 (P, W, R): standard deviation over the pixels (divided by their number); None for points."""
    counts: np.ndarray
    """float32 (P, W, 3): observations used, in the order of SENSORS, of polygons their mean; NaN where not known."""
    pixels: np.ndarray
    """int64 (P, W): pixels that have an embedding and were used."""
    status: np.ndarray
    """object (P, W): a `Status` each."""
    tiles: np.ndarray
    """object (P, W): name of the tile; of polygons, of the one that holds most of the pixels; "" if there is none."""
    uncertainty: np.ndarray | None = None
    """float32 (P, W): how far other dates would move the embedding, of polygons the mean of their pixels; NaN where it
    is not known. None of folders without uncertainties."""

    @property
    def rows(self) -> int:
        return self.pixels.size

    def columns(self) -> dict[str, np.ndarray]:
        """Return the table without its bands and geometries: name -> values (P * W,), place after place.

        The file's own columns follow ours; those that are called as one of ours are called `file_<name>`.
        """
        many = len(self.windows)
        lon, lat = self.places.lonlat.T
        counts = self.counts.reshape(-1, len(SENSORS)).T
        uncertainty = {} if self.uncertainty is None else {UNCERTAINTY: self.uncertainty.ravel()}
        own = own_columns(self.places, (*RESERVED, *uncertainty))
        return {
            "id": np.repeat(self.places.ids, many),
            "window": np.tile(np.array(self.windows, object), len(self.places)),
            "status": self.status.ravel(),
            "tile": self.tiles.ravel(),
            "lon": np.repeat(lon, many),
            "lat": np.repeat(lat, many),
            **({"pixels": self.pixels.ravel()} if self.std is not None else {}),
            **dict(zip(SENSORS, counts, strict=True)),
            **uncertainty,
            **{name: np.repeat(values, many) for name, values in own.items()},
        }

    def bands(self) -> dict[str, np.ndarray]:
        """Return name -> float32 (P * W,): `Tessera_Band_0` and so on, then `Tessera_Band_0_std` of polygons."""
        dims = self.values.shape[2]
        found = {f"Tessera_Band_{i}": self.values[..., i].ravel() for i in range(dims)}
        if self.std is not None:
            found |= {f"Tessera_Band_{i}_std": self.std[..., i].ravel() for i in range(dims)}
        return found


def own_columns(places: Places, reserved: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the columns of the file by the names that they have in a table: none twice, none that is `reserved`.

    Others get `file_` before them. Upper and lower case are held for equal, as many programs do.
    """
    taken = set(reserved)
    found: dict[str, np.ndarray] = {}
    for name, values in places.columns.items():
        free = name
        while free.lower() in taken or free.lower().startswith("tessera_band_"):
            free = f"file_{free}"
        taken.add(free.lower())
        found[free] = values
    return found
