"""Samples as an xarray Dataset."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from tessera_cli.dpixels.dpixel import SENSORS
from tessera_cli.tables.places import Places
from tessera_cli.tables.samples import UNCERTAINTY, Samples, own_columns

if TYPE_CHECKING:
    import xarray


def to_dataset(places: Places, batches: Iterable[Samples]) -> xarray.Dataset:
    """Return the samples of all `places` in memory; the variables are those of `tessera_cli.sample`."""
    import xarray

    parts = list(batches)
    first = parts[0]

    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(part, name) for part in parts])

    each = ("place", "window")
    data = {
        "embedding": ((*each, "band"), joined("values")),
        **({"std": ((*each, "band"), joined("std"))} if first.std is not None else {}),
        "counts": ((*each, "sensor"), joined("counts")),
        **({UNCERTAINTY: (each, joined("uncertainty"))} if first.uncertainty is not None else {}),
        "pixels": (each, joined("pixels")),
        "status": (each, joined("status")),
        "tile": (each, joined("tiles")),
    }
    lon, lat = places.lonlat.T
    coordinates = {
        "place": places.ids,
        "window": list(first.windows),
        "band": [f"Tessera_Band_{i}" for i in range(first.values.shape[2])],
        "sensor": list(SENSORS),
        "lon": ("place", lon),
        "lat": ("place", lat),
    }
    taken = (*data, *coordinates)
    coordinates |= {name: ("place", values) for name, values in own_columns(places, taken).items()}
    return xarray.Dataset(data, coordinates)
