"""What the search before a run says of the area: its place, its zones, whether its coordinates look swapped."""

from __future__ import annotations

import json
import logging

import pytest
import shapely
import shapely.affinity

import tessera_cli as tessera
from tests.conftest import box_geojson, make_catalog


@pytest.fixture
def told(caplog):
    caplog.set_level(logging.INFO, logger="tessera_cli")
    return lambda level: [record.getMessage() for record in caplog.records if record.levelname == level]


def of_grids(told):
    return [line for line in told("WARNING") if "grids" in line]


def planned(catalog, aoi, **more):
    return tessera.plan(aoi, year=2021, catalog=str(catalog.items), model="null", **more)


def test_the_place_is_the_first_thing_said(catalog, told):
    made = planned(catalog, catalog.aoi)
    west, south, east, north = shapely.geometry.shape(json.loads(catalog.aoi.read_text())).bounds
    assert (made.place.lon, made.place.lat) == pytest.approx(((west + east) / 2, (south + north) / 2), abs=1e-4)
    assert made.place.km2 == pytest.approx(made.pixels / 1e4, rel=0.05)
    assert told("INFO")[0] == f"aoi: 1 area around {made.place}"
    assert f"aoi: 1 area in EPSG:32630, {made.tiles} tiles" in told("INFO")
    assert not of_grids(told)


@pytest.mark.parametrize("verb", [tessera.embed, tessera.fetch])
def test_runs_say_the_place_first(catalog, tmp_path, told, verb):
    verb(catalog.aoi, year=2021, catalog=str(catalog.items), model="null", out=tmp_path / "out")
    assert told("INFO")[0].startswith("aoi: 1 area around 1.5463 W 52.3397 N, 0.11")


def test_a_plan_holds_place_and_zones(catalog):
    made = planned(catalog, catalog.aoi)
    asked = json.loads(json.dumps(made.to_dict()))
    assert asked["areas"] == 1
    assert asked["place"] == pytest.approx(
        {"lon": made.place.lon, "lat": made.place.lat, "km2": made.place.km2}, abs=1e-6
    )
    assert asked["zones"] == {"EPSG:32630": 2}
    assert asked["by_zone"] == {"EPSG:32630": {"areas": 1, "tiles": 2, "pixels": made.pixels}}


def test_swapped_coordinates_are_asked_for_where_there_is_nothing(catalog):
    geometry = shapely.geometry.shape(json.loads(catalog.aoi.read_text()))
    swapped = shapely.transform(geometry, lambda lon, lat: (lat, lon), interleaved=False)
    with pytest.raises(tessera.NothingToEmbedError) as error:
        planned(catalog, swapped)
    assert "Check the place (52.33" in str(error.value)
    assert "Are longitude and latitude swapped (1.54" in str(error.value)
    elsewhere = shapely.box(120.0, 5.0, 120.01, 5.01)  # no latitude is 120
    with pytest.raises(tessera.NothingToEmbedError) as error:
        planned(catalog, elsewhere)
    assert "swapped" not in str(error.value)


def test_fields_on_both_sides_of_a_zone_border_are_warned_about(tmp_path, told):
    catalog = make_catalog(tmp_path / "catalog")
    here = shapely.geometry.shape(json.loads(catalog.aoi.read_text()))
    there = shapely.geometry.shape(box_geojson(300000, 5800000, 300400, 5800400, epsg=32631))
    fields = {
        "type": "FeatureCollection",
        "features": [
            {"type": "Feature", "geometry": shapely.geometry.mapping(shape), "properties": {}}
            for shape in (here, shapely.affinity.scale(here, 0.5, 0.5), there)
        ],
    }
    made = planned(catalog, fields)
    (line,) = of_grids(told)
    assert "2 areas in EPSG:32630, 2 tiles; 1 area in EPSG:32631, 1 tile" in line
    assert "--crs EPSG:32631 puts all of it on one" in line or "--crs EPSG:32630 puts all of it on one" in line
    assert {crs: zone["areas"] for crs, zone in made.by_zone.items()} == {"EPSG:32630": 2, "EPSG:32631": 1}
    assert sum(zone["pixels"] for zone in made.by_zone.values()) == made.pixels


def test_crs_is_the_way_out_of_several_zones(tmp_path, told):
    catalog = make_catalog(tmp_path / "catalog")
    here = shapely.geometry.shape(json.loads(catalog.aoi.read_text()))
    there = shapely.geometry.shape(box_geojson(300000, 5800000, 300400, 5800400, epsg=32631))
    made = planned(catalog, shapely.union(here, there), crs="EPSG:32630")
    assert set(made.zones) == {"EPSG:32630"}
    assert not of_grids(told)


def test_crs_is_no_way_out_of_zones_far_apart(catalog, told):
    here = shapely.geometry.shape(json.loads(catalog.aoi.read_text()))
    far = shapely.affinity.translate(here, 60)
    fields = shapely.geometry.mapping(shapely.MultiPolygon([here]))
    features = [{"type": "Feature", "geometry": g, "properties": {}} for g in (fields, shapely.geometry.mapping(far))]
    planned(catalog, {"type": "FeatureCollection", "features": features})
    (line,) = of_grids(told)
    assert "2 grids" in line
    assert "--crs" not in line
