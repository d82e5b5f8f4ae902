"""STAC-GeoParquet catalogues: the same scenes and pixels as from JSON, whoever wrote the file."""

import datetime as dt
import json
import math
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
import stac_geoparquet.arrow

from tessera_cli.catalog import MPC, Scenes, search
from tessera_cli.catalog import tables as tables_module
from tessera_cli.catalog.tables import Table
from tessera_cli.errors import UsageError
from tessera_cli.extent.grid import Tile
from tessera_cli.extent.window import Window
from tessera_cli.imagery import Reader, read_dpixels
from tessera_cli.net import Client
from tests.helpers.builders import whole
from tests.helpers.servers import FileServer

YEAR = Window(dt.date(2021, 1, 1), dt.date(2021, 12, 31))
TILES = [Tile(32630, 116, 1132), Tile(32630, 117, 1132)]


def features(catalog):
    return json.loads(catalog.items.read_text())["features"]


def write(path, items, **options):
    """As the reference implementation writes it."""
    reader = stac_geoparquet.arrow.parse_stac_items_to_arrow(items)
    pq.write_table(reader.read_all(), path, **options)
    return path


def found(location, client=None):
    return search(TILES, [YEAR], MPC, client=client or Client(), catalog=str(location))


def items_of(scenes):
    return [dict(scene.item) for scene in scenes.scenes]


def test_a_table_gives_the_scenes_and_pixels_of_the_same_catalogue_as_json(catalog):
    table = write(catalog.folder / "items.parquet", features(catalog))
    from_json, from_table = found(catalog.items), found(table)
    assert items_of(from_table) == items_of(from_json)
    assert len(from_table) == 7
    assert from_table.digest == from_json.digest
    first, second = (
        read_dpixels(scenes.on(TILES[1], YEAR), whole(TILES[1], YEAR), Reader(Client()))
        for scenes in (from_json, from_table)
    )
    assert first.s2_mask.any()
    for name in ("s2", "s2_mask", "s2_dates", "s1_asc", "s1_asc_dates", "s1_desc", "s1_desc_dates"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert first.input_digest == second.input_digest


def test_a_table_on_a_server(catalog, tmp_path):
    absolute = items_of(found(catalog.items))
    write(tmp_path / "items.parquet", absolute)
    with FileServer(tmp_path) as server:
        scenes = items_of(found(f"{server.url}/items.parquet?sig=secret"))
        for asset in (asset for item in scenes for asset in item["assets"].values()):
            asset["href"] = asset["href"].removeprefix(server.url)  # a slash is the server's root, not this machine's
        assert scenes == absolute


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("2021-07-01T11:00:00.024000Z", "2021-07-01T11:00:00.123456Z"),
        ("2021-07-01T11:00:00.500000Z", "2021-07-01T11:00:00Z"),  # as text: a full second comes last
        ("2021-07-01T10:59:59Z", "2021-07-01T11:00:00.000001Z"),
    ],
)
def test_the_order_of_overlaps_is_that_of_the_json(catalog, first, second):
    items = [item for item in features(catalog) if item["collection"] == MPC.s2_collection][:2]
    for item, when in zip(items, (second, first), strict=True):
        item["properties"]["datetime"] = when
    scenes = Scenes.from_items(Table("t", write(catalog.folder / "t.parquet", items)), MPC)
    assert [scene.timestamp for scene in scenes.scenes] == [first, second]


def test_null_properties_and_assets_are_absent(catalog):
    items = features(catalog)
    spectral = next(item for item in items if item["collection"] == MPC.s2_collection)
    del spectral["assets"]["B05"], spectral["properties"]["s2:processing_baseline"]
    radar = next(item for item in items if item["collection"] == MPC.s1_collection)
    radar["properties"] |= {"start_datetime": "2021-03-05T17:41:00Z", "end_datetime": "2021-03-05T17:41:25.5Z"}
    radar["properties"]["datetime"] = None
    table = {item["id"]: item for item in Table("t", write(catalog.folder / "t.parquet", items))}
    assert table[spectral["id"]]["assets"] == spectral["assets"]
    assert table[spectral["id"]]["properties"] == spectral["properties"]
    assert table[radar["id"]]["properties"] == {**radar["properties"], "end_datetime": "2021-03-05T17:41:25.500000Z"}


def test_other_writers(tmp_path):
    """Dictionary-encoded text, milliseconds without a zone, a list as bbox, NaN for null, no footprint, nesting."""
    square = shapely.box(-1.5, 52, -1.4, 52.1)
    asset = {"href": "https://example.test/a.tif", "proj:shape": [4, 4], "title": None}
    rows = {
        "id": pa.array(["A", "B"]),
        "collection": pa.array(["sentinel-2-l2a"] * 2).dictionary_encode(),
        "geometry": pa.array([square.wkb, None], pa.binary()),
        "bbox": pa.array([list(square.bounds), None]),
        "assets": pa.array([{"SCL": asset, "B04": None}, {"SCL": None, "B04": asset}]),
        "datetime": pa.array([dt.datetime(2021, 7, 1, 11, 0, 0, 500_000), None], pa.timestamp("ms")),
        "start_datetime": pa.array([None, dt.datetime(2021, 7, 1)], pa.timestamp("ns", "Europe/Paris")),
        "eo:cloud_cover": pa.array([12.5, math.nan]),
        "x": pa.array([{"y": [1, None], "day": dt.date(2021, 7, 1)}, None]),
    }
    pq.write_table(pa.table(rows), tmp_path / "t.parquet")
    kept = {"href": "https://example.test/a.tif", "proj:shape": [4, 4]}
    assert list(Table("t", tmp_path / "t.parquet")) == [
        {
            "type": "Feature",
            "id": "A",
            "collection": "sentinel-2-l2a",
            "bbox": list(square.bounds),
            "geometry": json.loads(shapely.to_geojson(square)),
            "assets": {"SCL": kept},
            "properties": {
                "datetime": "2021-07-01T11:00:00.500000Z",
                "eo:cloud_cover": 12.5,
                "x": {"y": [1, None], "day": "2021-07-01"},
            },
        },
        {
            "type": "Feature",
            "id": "B",
            "collection": "sentinel-2-l2a",
            "assets": {"B04": kept},
            "properties": {"datetime": None, "start_datetime": "2021-07-01T00:00:00Z"},
        },
    ]


def test_a_table_is_read_in_pieces_and_more_than_once(catalog, monkeypatch):
    path = write(catalog.folder / "t.parquet", features(catalog), row_group_size=3)
    assert pq.ParquetFile(path).num_row_groups == 3
    monkeypatch.setattr(tables_module, "ROWS", 2)
    table = Table("t", path)
    first = next(iter(table))
    assert [item["id"] for item in table] == [item["id"] for item in features(catalog)]
    assert next(iter(table)) == first


def test_without_the_extra(catalog, monkeypatch):
    path = write(catalog.folder / "items.parquet", features(catalog))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UsageError, match=r'items\.parquet .*pip install "tessera-embed\[tables\]"'):
        found(path)


def test_tables_that_are_not_stac(tmp_path):
    pq.write_table(pa.table({"id": ["A"], "geometry": [b"not a geometry"]}), tmp_path / "wkb.parquet")
    pq.write_table(pa.table({"plot": [1]}), tmp_path / "plots.parquet")
    (tmp_path / "text.parquet").write_text("{}")
    (tmp_path / "empty.parquet").write_bytes(b"")
    for name in ("wkb", "plots", "text", "empty"):
        with pytest.raises(UsageError, match=rf"{name}\.parquet (cannot be read as Parquet|holds features that are)"):
            found(tmp_path / f"{name}.parquet")


def test_damaged_tables(catalog):
    """Data pages carry checksums, what describes them does not: flips there may be read as other items."""
    path = write(catalog.folder / "items.parquet", features(catalog), write_page_checksum=True)
    sound, whole_file = items_of(found(path)), path.read_bytes()
    rng = np.random.default_rng(0)
    for length in rng.integers(0, len(whole_file), 20):
        path.write_bytes(whole_file[:length])
        with pytest.raises(UsageError, match="cannot be read as Parquet"):
            found(path)
    caught = different = 0
    for place in rng.integers(0, len(whole_file), 80):
        damaged = bytearray(whole_file)
        damaged[place] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            different += items_of(found(path)) != sound
        except UsageError:
            caught += 1
    assert caught > 25
    assert different < caught / 5
