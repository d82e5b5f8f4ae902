"""Simulate a year over a landscape, as a STAC catalogue of COGs with labels."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rasterio.features
import shapely
from shapely.geometry.base import BaseGeometry

from tessera_cli.errors import UsageError
from tessera_cli.extent.window import FIRST_YEAR
from tessera_cli.simulate import sentinel1, sentinel2
from tessera_cli.simulate.area import aoi, area, lonlat
from tessera_cli.simulate.catalog import Json, write_cog, write_features
from tessera_cli.simulate.landscape import landscape
from tessera_cli.simulate.mistakes import mistaken
from tessera_cli.simulate.scene import Scene
from tessera_cli.simulate.varied.build import varied_scene
from tessera_cli.simulate.varied.changes import NAMES as CHANGES
from tessera_cli.simulate.varied.places import find_place

OnProgress = Callable[[int, int], None]
_MARK = "simulated landscape"  # in our aoi.geojson: a folder that has it may be replaced


@dataclass(frozen=True)
class Simulation:
    """Paths of the catalogue, AOI and labels, and the numbers of items and parcels."""

    items: Path
    aoi: Path
    labels: Path
    sentinel2_items: int
    sentinel1_items: int
    parcel_count: int


def simulate(
    out: Path,
    *,
    seed: int = 0,
    size: int = 128,
    year: int = 2023,
    cloud: float | None = None,
    place: str | None = None,
    label_noise: float = 0.0,
    changes: float = 0.0,
    progress: OnProgress | None = None,
) -> Simulation:
    """Write a catalogue into `out`; one that is there already is replaced. The same arguments give the same bytes.

    Without `place` the landscape is a plain one at Brussels, whose classes are told apart with ease. A place has a
    climate, weather by year, crops and orbits of its own, and is hard: see docs/simulation.md.

    Args:
        out: Folder of the catalogue.
        seed: Of everything that is drawn but the weather, which depends on place and year.
        size: Pixels of 10 m per side of the AOI.
        year: Calendar year.
        cloud: Mean cloud cover 0..1. Default: 0.5, or that of the place.
        place: One of `varied.places.PLACES`.
        label_noise: Share of the parcels, 0..1, to which labels.tif and labels.geojson give a wrong class; the true one
            is in true_labels.tif and in the property `true_class`.
        changes: Share of the woods, 0..1, that were cleared since the year before, and of the fields that were built
            over; a place alone has them. changes.tif and the property `change` tell which.
        progress: Called with (passes done, passes in all).

    Raises:
        UsageError: A number is out of range, there is no such place, or `out` holds something else.
    """
    cover = 0.5 if cloud is None else cloud
    _check(out, seed=seed, size=size, year=year, cloud=cover, label_noise=label_noise, changes=changes)
    if changes and place is None:
        raise UsageError("--changes needs a landscape that has years: name one with --place.")
    if place is None:
        scene = _plain(seed, size, year, cover)
    else:
        scene = varied_scene(find_place(place), seed, size, year, cloud, changes)
    out.mkdir(parents=True, exist_ok=True)
    (out / "items.json").unlink(missing_ok=True)
    shutil.rmtree(out / "cogs", ignore_errors=True)
    write_features(
        out / "aoi.geojson", [_feature(aoi(scene.ground.grid), scene.site.epsg, name=_MARK)]
    )  # first: a cut-off run is ours too
    parcel_count = _write_truth(scene, out, label_noise, (*scene.key, 8))
    work: list[Callable[[], list[Json]]] = [
        *(partial(sentinel2.write_pass, scene, *one, out) for one in scene.optical),
        *(partial(sentinel1.write_pass, scene, *one, out) for one in scene.radar),
    ]
    items: list[Json] = []
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as threads:
        for done, written in enumerate(threads.map(lambda write: write(), work), 1):
            items += written
            if progress:
                progress(done, len(work))
    order = np.random.default_rng((*scene.key, 5)).permutation(len(items))  # so that nothing can rely on the order
    write_features(out / "items.json", [items[i] for i in order])
    optical = sum(item["collection"] == "sentinel-2-l2a" for item in items)
    paths = (out / "items.json", out / "aoi.geojson", out / "labels.tif")
    return Simulation(*paths, optical, len(items) - optical, parcel_count)


def _plain(seed: int, size: int, year: int, cloud: float) -> Scene:
    ground = landscape(area(size), np.random.default_rng((seed, 1)))
    return Scene(ground, (seed,), sentinel2.passes(seed, year, cloud), sentinel1.passes(year))


def _check(out: Path, **numbers: float) -> None:
    for name, low, high in (
        ("seed", 0, 2**32),
        ("size", 16, 10000),
        ("year", FIRST_YEAR, 2099),
        ("cloud", 0, 1),
        ("label_noise", 0, 1),
        ("changes", 0, 1),
    ):
        if not low <= numbers[name] <= high:
            raise UsageError(f"--{name.replace('_', '-')} {numbers[name]} is out of range. Give {low} to {high}.")
    ours = out.is_dir() and any(_MARK.encode() in file.read_bytes() for file in out.glob("aoi.geojson"))
    if out.exists() and not ours and (out.is_file() or any(out.iterdir())):
        raise UsageError(f"{out} holds something else, which stays. Name a new or empty folder.")


def _write_truth(scene: Scene, out: Path, noise: float, key: tuple[int, ...]) -> int:
    """Write class, parcel and biomass of each pixel and of each parcel; return the number of parcels."""
    ground, epsg = scene.ground, scene.site.epsg
    parcels, biomass, grid = ground.parcels, ground.biomass, ground.grid
    told, names = (
        mistaken(ground, noise, key),
        dict(zip(ground.stands.cover.tolist(), ground.stands.names, strict=True)),
    )
    write_cog(out / "labels.tif", np.where(parcels > 0, told[parcels] + 1, 0).astype(np.uint8), grid, 0)
    for name in ("true_labels.tif", "changes.tif"):
        (out / name).unlink(missing_ok=True)
    if scene.change is not None:
        write_cog(out / "changes.tif", np.where(parcels > 0, scene.change[parcels], 0).astype(np.uint8), grid, 255)
    if noise:
        write_cog(out / "true_labels.tif", ground.labels, grid, 0)
    write_cog(out / "parcels.tif", parcels, grid, 0)
    write_cog(out / "biomass.tif", biomass, grid, np.nan)
    polygons: dict[int, list[Json]] = {}
    for polygon, number in rasterio.features.shapes(parcels, mask=parcels > 0, transform=grid.affine):
        polygons.setdefault(int(number), []).append(shapely.geometry.shape(polygon))
    mean = np.bincount(parcels.ravel(), np.nan_to_num(biomass).ravel()) / np.maximum(np.bincount(parcels.ravel()), 1)
    features = []
    for number, parts in sorted(polygons.items()):
        tonnes = round(float(mean[number]), 3) or None  # null for water and town
        truth = {"parcel_id": number, "class": str(names[told[number]]), "biomass": tonnes}
        if noise:
            truth["true_class"] = str(ground.stands.names[number])
        if scene.change is not None:
            truth["change"] = CHANGES[scene.change[number]]
        features.append(_feature(shapely.union_all(parts), epsg, **truth))
    write_features(out / "labels.geojson", features)
    return len(features)


def _feature(geometry: BaseGeometry, epsg: int, **properties: Any) -> Json:
    """Return a GeoJSON feature of a geometry in metres."""
    return {"type": "Feature", "properties": properties, "geometry": shapely.geometry.mapping(lonlat(geometry, epsg))}
