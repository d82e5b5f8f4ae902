"""A simulated year over a simulated landscape, as a STAC catalogue of COGs with labels."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import rasterio.features
import shapely

from tessera_cli.errors import UsageError
from tessera_cli.simulate.area import Area, lonlat
from tessera_cli.simulate.catalog import Json, write_cog, write_features
from tessera_cli.simulate.landscape import Landscape, landscape
from tessera_cli.simulate.noise import stream
from tessera_cli.simulate.phenology import COVERS
from tessera_cli.simulate.sentinel1 import passes, write_pass
from tessera_cli.simulate.sentinel2 import datatakes, write_datatake
from tessera_cli.window import FIRST_YEAR

Progress = Callable[[int, int], None]
_MARK = "tessera:simulation"
"""Member of our GeoJSON files that holds the parameters."""


@dataclass(frozen=True)
class Simulation:
    """What was written: the catalogue, the polygon to embed, the truth, and how much there is of everything."""

    items: Path
    aoi: Path
    labels: Path
    sentinel2_items: int
    sentinel1_items: int
    parcel_count: int


def simulate(
    out: Path, *, seed: int = 0, size: int = 128, year: int = 2023, cloud: float = 0.5, progress: Progress | None = None
) -> Simulation:
    """Write a catalogue into `out`; one that is there already is replaced. The same arguments give the same bytes.

    `size`: pixels of 10 m per side of the AOI; `cloud`: mean cloud cover 0..1; `progress(done, total)` in passes.
    """
    _check(out, seed, size, year, cloud)
    parameters: Json = {_MARK: {"seed": seed, "size": size, "year": year, "cloud": cloud}}
    ground = landscape(Area(size), seed)
    out.mkdir(parents=True, exist_ok=True)
    (out / "items.json").unlink(missing_ok=True)
    polygon = shapely.geometry.mapping(lonlat(ground.area.aoi(stream(seed, 5))))
    aoi = {"type": "Feature", "properties": {"name": "simulated landscape"}, "geometry": polygon}
    write_features(out / "aoi.geojson", [aoi], **parameters)  # first, as it marks the folder as ours
    shutil.rmtree(out / "cogs", ignore_errors=True)
    parcel_count = _write_truth(ground, out)

    work: list[Callable[[], list[Json]]] = [
        *(partial(write_datatake, ground, one, seed, out) for one in datatakes(seed, year, cloud)),
        *(partial(write_pass, ground, one, seed, out) for one in passes(year)),
    ]
    items: list[Json] = []
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as threads:
        for done, written in enumerate(threads.map(lambda write: write(), work), 1):
            items += written
            if progress:
                progress(done, len(work))
    shuffled = [items[i] for i in stream(seed, 6).permutation(len(items))]  # nobody may rely on the order of a file
    write_features(out / "items.json", shuffled, **parameters)
    optical = sum(item["collection"] == "sentinel-2-l2a" for item in items)
    paths = (out / "items.json", out / "aoi.geojson", out / "labels.tif")
    return Simulation(*paths, optical, len(items) - optical, parcel_count)


def _check(out: Path, seed: int, size: int, year: int, cloud: float) -> None:
    for wrong, message in (
        (seed < 0, f"--seed {seed} is negative. Give 0 or more."),
        (size < 16, f"--size {size} is too small for a landscape. Give 16 pixels or more."),
        (not FIRST_YEAR <= year < 2100, f"--year {year} has no Sentinel-2. Give {FIRST_YEAR} to 2099."),
        (not 0 <= cloud <= 1, f"--cloud {cloud} is not a share. Give 0 (always clear) to 1 (always overcast)."),
        (out.exists() and not out.is_dir(), f"{out} is a file. Name a folder."),
        (out.is_dir() and not _is_ours(out), f"{out} holds other files, which stay. Name a new or empty folder."),
    ):
        if wrong:
            raise UsageError(message)


def _is_ours(out: Path) -> bool:
    """Whether the folder is empty or holds a simulation, be it an unfinished one."""
    mark = out / "aoi.geojson"
    return not any(out.iterdir()) or (mark.is_file() and f'"{_MARK}"'.encode() in mark.read_bytes())


def _write_truth(ground: Landscape, out: Path) -> int:
    """Class, parcel and biomass of each pixel and of each parcel; returns the number of parcels."""
    parcels, biomass, transform = ground.parcels, ground.biomass, ground.area.transform()
    write_cog(out / "labels.tif", ground.labels, transform, 0)
    write_cog(out / "parcels.tif", parcels, transform, 0)
    write_cog(out / "biomass.tif", biomass, transform, np.nan)
    polygons: dict[int, list[Json]] = {}
    for polygon, number in rasterio.features.shapes(parcels, mask=parcels > 0, transform=transform):
        polygons.setdefault(int(number), []).append(shapely.geometry.shape(polygon))
    mean = np.bincount(parcels.ravel(), np.nan_to_num(biomass).ravel()) / np.maximum(np.bincount(parcels.ravel()), 1)
    features = []
    for number, parts in sorted(polygons.items()):
        name, tonnes = COVERS[ground.stands.cover[number]].name, round(float(mean[number]), 3)
        properties = {"parcel_id": number, "class": name, "biomass": tonnes or None}  # null for water and town
        geometry = shapely.geometry.mapping(lonlat(shapely.union_all(parts)))
        features.append({"type": "Feature", "properties": properties, "geometry": geometry})
    write_features(out / "labels.geojson", features)
    return len(features)
