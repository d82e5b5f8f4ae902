"""Areas: GeoJSON and GeoPackage, to the tiles and pixels that they ask for."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pyogrio
import shapely

from tessera_cli.extent.aoi import Aoi
from tessera_cli.extent.place import Place
from tessera_cli.extent.tiling import areas_by_zone, tile_requests
from tessera_cli.extent.window import Window
from tests.fuzz.mutate import damaged
from tests.fuzz.target import Target, write

SQUARE = shapely.box(4.1, 50.6, 4.101, 50.601)
LARGE = 1e8
"""Square metres from which on an area takes longer to be cut than a mutant should."""


def build_geojson(folder: Path) -> None:
    square = shapely.geometry.mapping(SQUARE)
    feature = {"type": "Feature", "id": 1, "properties": {"name": "x", "n": 1}, "geometry": square}
    group = {"type": "GeometryCollection", "geometries": [square, {"type": "Point", "coordinates": [4, 50]}]}
    crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}}
    features = [feature, {**feature, "geometry": group}]
    write(folder / "aoi.geojson", {"type": "FeatureCollection", "crs": crs, "features": features})
    hole = SQUARE.difference(shapely.box(4.1002, 50.6002, 4.1004, 50.6004))
    write(folder / "multi.geojson", shapely.geometry.mapping(shapely.MultiPolygon([hole])))
    metres = {"type": "name", "properties": {"name": "EPSG:32631"}}
    box = shapely.geometry.mapping(shapely.box(577000, 5606000, 577100, 5606100))
    write(folder / "metres.geojson", {**box, "crs": metres})


def build_geopackage(folder: Path) -> None:
    wkb = np.array([shapely.to_wkb(SQUARE)] * 3, object)
    names = np.array(["a", "b", "c"], object)
    about = {"geometry_type": "Polygon", "crs": "EPSG:4326"}
    pyogrio.raw.write(folder / "aoi.gpkg", wkb, field_data=[names], fields=["name"], **about)


def damaged_page(path: Path, data: bytes, rng: Random) -> bytes:
    """Damage one of the pages of a SQLite file, most of which are empty."""
    at = rng.choice([at for at in range(0, len(data), 4096) if any(data[at : at + 4096])])
    made = damaged(data[at : at + 4096], rng, head=256)
    return data[:at] + (made if rng.random() < 0.2 else made[:4096].ljust(4096, b"\0")) + data[at + 4096 :]


def use(folder: Path, changed: Path) -> None:
    aoi = Aoi.from_file(changed)
    assert aoi.digest
    zones = areas_by_zone(aoi)
    str(Place.of(zones))
    if sum(zone.area for zone in zones.values()) < LARGE:
        tile_requests(aoi, [Window.from_name("2021")])


TARGETS = (Target("geojson", build_geojson, use), Target("geopackage", build_geopackage, use, damaged_page))
