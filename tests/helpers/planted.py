"""Small d-pixels in which each parcel's class can be told from its seasons, as official tile folders, with labels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import shapely
from affine import Affine

from tessera_cli.dpixels import write_folder
from tessera_cli.dpixels.dpixel import DPixels
from tessera_cli.extent.grid import ForeignTile, from_utm

EPSG, EAST, NORTH = 32631, 500_000, 5_800_000
PARCEL = 6
"""Side of a parcel in pixels."""
CLASSES = ("spring", "summer", "autumn", "never")


def planted(name: str = "a", size: int = 24, *, frames: int = 24, seed: int = 0) -> DPixels:
    """`size` x `size` pixels in parcels of `PARCEL`; half of all optical observations are cloudy."""
    rng = np.random.default_rng((seed, *name.encode()))
    classes = np.kron(parcels(size), np.ones((PARCEL, PARCEL), int))
    year = np.datetime64("2023-01-01")
    dates = {
        sensor: year + (np.linspace(offset, 355 + offset, count)).astype("timedelta64[D]")
        for sensor, count, offset in (("s2", frames, 3), ("s1_asc", frames // 2, 5), ("s1_desc", frames // 2, 9))
    }
    arrays = {}
    for sensor, bands in (("s2", 10), ("s1_asc", 2), ("s1_desc", 2)):
        days = (dates[sensor] - year).astype(int)[:, None, None]
        season = np.cos(2 * np.pi * (days - 100 - 70 * classes) / 365) * (classes < 3)
        slope = np.random.default_rng(7).uniform(-600, 600, bands)
        values = 2500 + season[..., None] * slope + rng.normal(0, 250, (*season.shape, bands))
        arrays[sensor] = values.clip(1, 10_000).astype(np.uint16 if sensor == "s2" else np.int16)
    mask = (rng.random(arrays["s2"].shape[:3]) < 0.5).astype(np.uint8)
    offset = (ord(name[0]) - ord("a")) * size * 10
    tile = ForeignTile(name, (size, size), f"EPSG:{EPSG}", Affine(10, 0, EAST + offset, 0, -10, NORTH))
    return DPixels(
        tile=tile,
        window=None,
        s2=arrays["s2"] * mask[..., None],
        s2_mask=mask,
        s2_dates=dates["s2"],
        s1_asc=arrays["s1_asc"],
        s1_asc_dates=dates["s1_asc"],
        s1_desc=arrays["s1_desc"],
        s1_desc_dates=dates["s1_desc"],
        requested=np.ones((size, size), bool),
        source=None,
        preprocessing="official",
    )


def parcels(size: int) -> np.ndarray:
    """int (size / PARCEL, size / PARCEL): the class of each parcel; every class is everywhere."""
    rows, columns = np.indices((size // PARCEL, size // PARCEL))
    return (rows + 2 * columns) % len(CLASSES)


def write_planted(folder: Path, names: str = "a", size: int = 24, **more: int) -> Path:
    """One official tile folder per letter; returns `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        write_folder(folder, planted(name, size, **more))
    return folder


def write_labels(path: Path, size: int = 24) -> Path:
    """The parcels of the tile `a` as GeoJSON."""
    features = []
    for (row, column), number in np.ndenumerate(parcels(size)):
        west, north = EAST + column * PARCEL * 10, NORTH - row * PARCEL * 10
        square = shapely.box(west, north - PARCEL * 10, west + PARCEL * 10, north)
        lonlat = shapely.transform(square, from_utm(EPSG).transform, interleaved=False)
        properties = {"class": CLASSES[number], "parcel": f"{row}/{column}"}
        features.append({"type": "Feature", "properties": properties, "geometry": shapely.geometry.mapping(lonlat)})
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path
