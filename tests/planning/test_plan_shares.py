"""Plans of shares, and the map of a plan's tiles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import shapely
import shapely.geometry

import tessera_cli
from tessera_cli.extent.grid import Tile
from tests.helpers import many_scenes

COLUMNS, ROWS = 6, 4


@pytest.fixture(scope="module")
def area(tmp_path_factory: Any) -> dict[str, Any]:
    aoi, catalog = many_scenes.write_catalog(tmp_path_factory.mktemp("area"), COLUMNS, ROWS)
    return {"aoi": aoi, "year": 2023, "catalog": str(catalog), "threads": 1}


def test_shares_add_up_to_the_whole(area: dict[str, Any], tmp_path: Path) -> None:
    made = tessera_cli.plan(**area, model="v2-nano", shards=5)
    assert [sum(getattr(each, key) for each in made.shards) for key in ("tiles", "pixels")] == [24, made.pixels]
    assert made.encode_seconds is not None
    assert sum(each.encode_seconds or 0 for each in made.shards) == pytest.approx(made.encode_seconds, rel=0.01)
    assert sum(each.read_bytes for each in made.shards) == pytest.approx(made.read_bytes, rel=1e-6)  # no sizes listed
    assert max(each.tiles for each in made.shards) - min(each.tiles for each in made.shards) <= 2
    said = made.to_dict()["shards"]
    assert [each["shard"] for each in said] == ["1/5", "2/5", "3/5", "4/5", "5/5"]
    assert "shards" not in tessera_cli.plan(**area, model="null").to_dict()


def test_footprints_are_geojson_of_the_tiles(area: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "tiles.geojson"
    made = tessera_cli.plan(**area, model="v2-nano", shards=3, footprints=path)
    features = json.loads(path.read_text())["features"]
    assert len(features) == len({feature["properties"]["name"] for feature in features}) == made.tiles == 24
    for feature in features:
        about, shape = feature["properties"], shapely.geometry.shape(feature["geometry"])
        outline = Tile.from_id(about["tile"]).outline
        assert shape.symmetric_difference(outline).area < 1e-5 * outline.area  # seven digits
        assert shape.exterior.is_ccw  # RFC 7946, 3.1.6
        assert feature["bbox"] == list(shape.bounds)
        assert (about["name"], about["window"]) == (f"{about['tile']}_2023", "2023")
        assert about["s2_dates"] == 73
        assert about["encode_seconds"] > 0
    assert sum(feature["properties"]["pixels"] for feature in features) == made.pixels
    shards = [feature["properties"]["shard"] for feature in features]
    assert shards == sorted(shards)
    assert [shards.count(n) for n in (1, 2, 3)] == [each.tiles for each in made.shards]


def test_footprints_across_the_antimeridian_are_cut(tmp_path: Path) -> None:
    lonlat = shapely.box(179.93, 0.4, 180.07, 0.45)
    item = next(many_scenes.items(1, 1))
    around = shapely.geometry.mapping(shapely.box(179, 0, 181, 1))
    places = [{**item, "id": item["id"] + str(n), "geometry": around, "bbox": None} for n in range(2)]
    radar = next(each for each in many_scenes.items(1, 1) if "rtc" in each["collection"])
    places.append({**radar, "geometry": around, "bbox": None})
    (tmp_path / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": places}))
    path = tmp_path / "tiles.geojson"
    tessera_cli.plan(
        shapely.geometry.mapping(lonlat),
        year=2023,
        catalog=str(tmp_path / "items.json"),
        crs="EPSG:32660",
        model="null",
        footprints=path,
    )
    shapes = [shapely.geometry.shape(each["geometry"]) for each in json.loads(path.read_text())["features"]]
    assert all(shape.bounds[0] >= -180 and shape.bounds[2] <= 180 for shape in shapes)
    assert any(shape.geom_type == "MultiPolygon" for shape in shapes)
    assert sum(shape.area for shape in shapes) < 0.05


def test_footprints_that_cannot_be_written_say_so(area: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "no" / "tiles.geojson"
    with pytest.raises(tessera_cli.TesseraError, match=str(path)):
        tessera_cli.plan(**area, model="null", footprints=path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shards", [0, -1, 100_001])
def test_numbers_of_shares_are_checked(area: dict[str, Any], shards: int) -> None:
    with pytest.raises(tessera_cli.TesseraError, match="--shards"):
        tessera_cli.plan(**area, model="null", shards=shards)


def test_plans_and_shares_on_the_command_line(area: dict[str, Any], tessera: Any, tmp_path: Path) -> None:
    given = ["--aoi", area["aoi"], "--year", 2023, "--catalog", area["catalog"], "--model", "null", "--threads", 1]
    code, stdout, _ = tessera("plan", *given, "--shards", 3, "--footprints", tmp_path / "tiles.geojson")
    assert code == 0
    assert "by shard     1/3: 8 tiles, " in stdout
    assert f"footprints   {tmp_path / 'tiles.geojson'}"[:60] in stdout
