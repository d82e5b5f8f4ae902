"""The record of a tile: a STAC item that brings back all that is known."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
import re
import tracemalloc
import zlib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
import shapely
from affine import Affine
from pyproj import Transformer
from pystac.validation.stac_validator import JsonSchemaSTACValidator

from tessera_cli import __version__
from tessera_cli import files as atomic
from tessera_cli.errors import UsageError
from tessera_cli.extent.grid import ForeignTile, Tile, tile_name, tiles_touching, to_utm
from tessera_cli.extent.window import Window
from tessera_cli.outputs import formats
from tessera_cli.outputs.item import TileRecord
from tests.helpers.outputs import (
    FORMATS,
    NAME,
    NOWHERE,
    PLACED,
    REQUESTED,
    TILE,
    WINDOW,
    arrays,
    encoded,
    foreign,
    identity,
    record,
    write,
)

# --- the record -------------------------------------------------------------------------------------------------------


def validate(item: dict[str, Any]) -> pystac.Item:
    """Against the STAC 1.1.0 schema that pystac carries; no network."""
    JsonSchemaSTACValidator().validate_core(item, pystac.STACObjectType.ITEM, "1.1.0")
    return pystac.Item.from_dict(item, migrate=False)


def test_the_record_is_a_stac_item(tmp_path: Path) -> None:
    assets = write(tmp_path)
    path = tmp_path / f"{tile_name(TILE, WINDOW)}.json"
    atomic.write_json(path, record(assets=assets).to_item())
    validate(json.loads(path.read_text()))
    item = pystac.Item.from_file(path)
    assert item.id == "utm31n_c0112_r1098_2023"
    assert item.datetime is None
    assert item.common_metadata.start_datetime == dt.datetime(2023, 1, 1, tzinfo=dt.timezone.utc)
    assert item.common_metadata.end_datetime == dt.datetime(2023, 12, 31, 23, 59, 59, tzinfo=dt.timezone.utc)
    assert item.common_metadata.gsd == 10
    assert item.properties["processing:software"] == {"tessera-embed": __version__}
    assert item.properties["tessera:model"]["sha256"] == "ab" * 32
    assert item.properties["tessera:identity"] == identity()
    assert list(item.assets) == ["embeddings", "scales", "counts"]
    for key, asset in item.assets.items():
        file = Path(asset.get_absolute_href() or "")
        digest = bytes.fromhex(asset.ext.file.checksum or "")
        assert digest[:2] == bytes([0x12, 32])  # multihash: SHA-256
        assert digest[2:] == hashlib.sha256(file.read_bytes()).digest()
        assert asset.ext.file.size == file.stat().st_size
        with rasterio.open(file) as dataset:
            assert asset.extra_fields["data_type"] == dataset.dtypes[0]
            assert str(float(asset.extra_fields["nodata"])) == str(dataset.nodata)
            assert [band["name"] for band in asset.extra_fields["bands"]] == list(dataset.descriptions)
            projection = asset.ext.proj
            assert (projection.code, projection.shape) == (dataset.crs.to_string(), list(dataset.shape))
            assert (projection.transform, projection.bbox) == (list(dataset.transform)[:6], list(dataset.bounds)), key
        assert shapely.box(*item.bbox or ()).covers(shapely.geometry.shape(item.geometry))


def round_trip(made: TileRecord) -> dict[str, Any]:
    """The item of a record, after comparing what is read from it with the record."""
    item = json.loads(json.dumps(made.to_item(), allow_nan=False))
    back = TileRecord.from_item(item)
    assert back.to_item() == made.to_item()
    np.testing.assert_array_equal(back.requested, made.requested)
    for field in fields(TileRecord):
        if field.name not in ("requested", "counts"):
            assert getattr(back, field.name) == getattr(made, field.name)
    if made.counts is None:
        assert back.counts is None
    else:
        assert (back.counts.dtype, back.counts.shape) == (np.uint16, (3, *made.tile.shape))
        np.testing.assert_array_equal(back.counts[:, made.requested], made.counts[:, made.requested])
        assert (back.counts[:, ~made.requested] == 65535).all()
    return item


def test_the_record_survives_the_round_trip() -> None:
    for made in (
        record(),
        record(status="empty", pixels=0, assets=(), requested=np.eye(512, dtype=bool), scenes=(), missing_scenes={}),
        record(tile=Tile(32733, 90, 1200), window=Window.from_name("20230701-20240630")),
        record(identity=identity(source=None)),
    ):
        validate(round_trip(made))
    assert "tessera:note" not in record(note="").to_item()["properties"]


@pytest.mark.parametrize(("format", "dtype"), FORMATS)
def test_the_record_of_every_format(tmp_path: Path, format: formats.Format, dtype: str) -> None:
    made = arrays(0)
    assets = formats.write(tmp_path, encoded(made, dtype=dtype, format=format))
    item = round_trip(
        record(
            assets=assets,
            identity=identity(dtype=dtype, format=format),
            counts=made["counts"] if format == "npy" else None,
        )
    )
    validate(item)
    properties = item["properties"]
    assert ("emb:quantization" in properties) == (dtype == "int8")
    if dtype == "int8":
        assert properties["emb:quantization"]["quantized_dtype"] == "int8"
    assert ("tessera:counts" in properties) == (format == "npy")
    due = {"embeddings"} | ({"scales"} if dtype == "int8" else set()) | ({"counts"} if format == "geotiff" else set())
    assert item["assets"].keys() == due
    media = (
        {"image/tiff; application=geotiff; profile=cloud-optimized"}
        if format == "geotiff"
        else {"application/octet-stream"}
    )
    assert {asset["type"] for asset in item["assets"].values()} == media
    emb = item["assets"]["embeddings"]
    assert (emb["roles"], emb["data_type"], len(emb["bands"])) == (["data"], dtype, 16)
    assert emb.get("nodata") == {"float32": "nan", "int8": -128 if format == "geotiff" else None}[dtype]


def test_counts_in_a_record_as_the_documentation_says() -> None:
    made = arrays(0)
    item = record(counts=made["counts"], identity=identity(format="npy")).to_item()
    packed = zlib.decompress(base64.b64decode(item["properties"]["tessera:counts"]))
    counts = np.frombuffer(packed, "<u2").reshape(3, 512, 512)
    np.testing.assert_array_equal(counts[:, REQUESTED], made["counts"][:, REQUESTED])
    assert (counts[:, ~REQUESTED] == 65535).all()


def test_records_of_official_tiles() -> None:
    """They have no time, and some have no place; all that is known comes back."""
    made = foreign(PLACED)
    common = {"window": None, "identity": identity(5, format="npy"), "assets": (), "counts": made["counts"]}
    item = round_trip(record(tile=PLACED, requested=made["requested"], **common))
    properties = item["properties"]
    assert item["id"] == "field"
    assert (properties["datetime"], properties.get("start_datetime"), properties.get("end_datetime")) == (None,) * 3
    assert properties["proj:code"] == "EPSG:32733"
    assert properties["proj:shape"] == [37, 500]
    assert properties["proj:transform"] == [10, 0, 300010, 0, -10, 6200020]
    assert properties["proj:bbox"] == [300010, 6199650, 305010, 6200020]
    assert properties["gsd"] == 10
    assert properties["tessera:observations"]["s2"] == {
        "frames": 4,
        "first": None,
        "last": None,
        "longest_gap_days": None,
    }
    west, south, east, north = item["bbox"]
    for x, y in ((300010, 6200020), (305010, 6199650)):
        lon, lat = Transformer.from_crs(32733, 4326, always_xy=True).transform(x, y)
        assert west - 1e-7 <= lon <= east + 1e-7
        assert south - 1e-7 <= lat <= north + 1e-7
    validate(item | {"properties": properties | {"datetime": "2023-01-01T00:00:00Z"}})  # nothing but the time is amiss

    made = foreign(NOWHERE)
    item = round_trip(record(tile=NOWHERE, requested=made["requested"], **common | {"counts": made["counts"]}))
    assert item["id"] == "Somewhere_else.2"
    assert item["geometry"] is None
    assert "bbox" not in item
    assert [key for key in item["properties"] if key.startswith("proj:")] == ["proj:shape"]
    assert "gsd" not in item["properties"]
    validate(item | {"properties": item["properties"] | {"datetime": "2023-01-01T00:00:00Z"}})


def test_the_record_of_a_tile_in_another_projection() -> None:
    wkt = rasterio.CRS.from_proj4("+proj=laea +lat_0=52 +lon_0=10 +ellps=GRS80 +units=m").to_wkt()
    tile = ForeignTile("laea", (40, 30), wkt, Affine(10.5, 0, 1000.25, 0, -10.5, 2000.75))
    item = round_trip(record(tile=tile, window=None, requested=np.ones((40, 30), bool), assets=()))
    assert item["properties"]["proj:wkt2"] == wkt
    assert "proj:code" not in item["properties"]
    assert item["properties"]["proj:transform"] == [10.5, 0, 1000.25, 0, -10.5, 2000.75]
    lon, lat = shapely.geometry.shape(item["geometry"]).centroid.coords[0]
    assert abs(lon - 10.017) < 0.001
    assert abs(lat - 52.016) < 0.001


def test_official_tiles_may_be_called_anything() -> None:
    """Even as a tile of the grid is: one that we have fetched and written in the official way."""
    for tile in (replace(PLACED, id=NAME), replace(PLACED, id="a_2023")):
        round_trip(record(tile=tile, window=None, requested=np.ones(tile.shape, bool), assets=()))
        round_trip(record(tile=replace(tile, id="a"), requested=np.ones(tile.shape, bool), assets=()))


@pytest.mark.parametrize(("epsg", "lon", "lat"), [(32660, 179.99, -17.0), (32701, -179.99, -17.0), (32660, 179.99, 65)])
def test_tiles_on_the_antimeridian_are_cut_there(epsg: int, lon: float, lat: float) -> None:
    epsg = epsg if lat > 0 else 32700 + epsg % 100
    point = shapely.Point(to_utm(epsg).transform(lon, lat)).buffer(3000)
    crossing = 0
    for tile in tiles_touching(point, epsg):
        item = record(tile=tile).to_item()
        validate(item)
        west, south, east, north = item["bbox"]
        shape = shapely.geometry.shape(item["geometry"])
        assert shape.is_valid
        assert -180 <= west <= 180
        assert -180 <= east <= 180
        assert south < lat + 0.1 < north + 0.2
        parts = list(getattr(shape, "geoms", [shape]))
        assert all(part.exterior.is_ccw and part.bounds[2] - part.bounds[0] < 1 for part in parts)
        crossing += len(parts) == 2
        assert (west > east) == (len(parts) == 2)  # RFC 7946 5.2
        if west > east:
            assert sorted((part.bounds[0], part.bounds[2]) for part in parts) == [(-180, east), (west, 180)]
    assert crossing


@pytest.mark.parametrize(
    "damage",
    [
        lambda item: [],
        lambda item: "{",
        lambda item: item | {"id": "S2A_MSIL2A"},
        lambda item: {key: value for key, value in item.items() if key != "id"},
        lambda item: item | {"properties": {}},
        lambda item: item | {"properties": item["properties"] | {"tessera:requested": "eJw="}},
        lambda item: item | {"properties": item["properties"] | {"tessera:identity": None}},
        lambda item: item | {"properties": item["properties"] | {"tessera:identity": identity(format="zarr")}},
        lambda item: item | {"properties": item["properties"] | {"tessera:counts": "eJw="}},
        lambda item: item | {"assets": {"embeddings": {}}},
        *(
            lambda item, href=href: (
                item | {"assets": item["assets"] | {"embeddings": item["assets"]["embeddings"] | {"href": href}}}
            )
            for href in ("../x.tif", "/etc/passwd", "https://x.test/x.tif", "./a/../../x.tif", "/vsicurl/x", "x\0", "")
        ),
    ],
)
def test_other_json_is_no_record(damage: Any) -> None:
    with pytest.raises(UsageError, match="not the record of a tile"):
        TileRecord.from_item(damage(record().to_item()))


PROPERTIES = (
    *("proj:shape", "processing:software", "tessera:identity", "tessera:status", "tessera:pixels", "tessera:requested"),
    *("tessera:observations", "tessera:warnings", "tessera:scenes", "tessera:holes", "tessera:input_digest"),
    "emb:runtime_parameters",
)
ODD = [None, True, -1, 1.5, 10**250, "x", "\x00", [], [[]], [None], {}, {"a": []}, [1] * 9, "eJw=", {"s2": {}}]


@pytest.mark.parametrize("value", ODD, ids=str)
@pytest.mark.parametrize("key", PROPERTIES)
def test_a_record_has_the_types_that_it_was_written_with(key: str, value: Any) -> None:
    """Of whatever else, a record is made that can be written again, or it is none."""
    item = json.loads(json.dumps(record(tile=PLACED, window=None, requested=np.ones(PLACED.shape, bool)).to_item()))
    item["properties"][key] = value
    found = error = None
    try:
        found = TileRecord.from_item(item)
    except UsageError as raised:
        error = str(raised)
    if found is None:
        assert re.fullmatch("not the record of a tile: .+", error or "")
        return
    assert json.loads(json.dumps(found.to_item()))["properties"][key] == item["properties"][key]


@pytest.mark.parametrize(
    "change",
    [
        {"href": "../S.tif"},
        {"href": "./../s.tif"},
        {"href": "/etc/passwd"},
        {"href": "s.tif"},
        {"href": "./a/b.tif"},
        {"href": "./s.tif\n"},
        {"href": None},
        {"file:size": -1},
        {"file:size": "22"},
        {"file:size": 1.5},
        {"file:checksum": "1220ab"},
        {"file:checksum": None},
    ],
)
def test_a_record_lists_files_beside_it(change: dict[str, Any]) -> None:
    item = record().to_item()
    item["assets"]["scales"] = item["assets"]["scales"] | change
    with pytest.raises(UsageError, match=r"not the record of a tile: assets\.scales"):
        TileRecord.from_item(item)


@pytest.mark.parametrize(
    "change",
    [
        {"proj:code": "EPSG:999999"},
        {"proj:code": None},
        {"proj:transform": None},
        {"proj:transform": [0, 0, 300010, 0, -10, 6200020]},
        {"proj:transform": [10, 0, 300010, 0]},
        {"proj:transform": [10, 0, None, 0, -10, 6200020]},
        {"proj:transform": "north"},
        {"proj:shape": [37]},
        {"proj:shape": [0, 500]},
        {"proj:shape": ["37", "500"]},
        {"proj:shape": [37.5, 500]},
        {"start_datetime": 5},
        {"start_datetime": "2023-01-01T00:00:00Z"},  # then the window is a part of its name
    ],
)
def test_a_record_has_a_place(change: dict[str, Any]) -> None:
    item = record(tile=PLACED, window=None, requested=np.ones(PLACED.shape, bool)).to_item()
    item["properties"] = item["properties"] | change
    with pytest.raises(UsageError, match="not the record of a tile: "):
        TileRecord.from_item(item)


def test_records_of_thousands_of_tiles_fit_into_memory():
    """The masks of irregular areas are of 256 KB, the counts of arrays of 1.5 MB."""
    whole, items = np.tri(512, dtype=bool), []
    for number in range(100):
        requested = np.roll(whole, number, axis=1)
        counts = np.full((3, 512, 512), number, np.uint16)
        items.append(record(requested=requested, counts=counts, identity=identity(format="npy")).to_item())
    tracemalloc.start()
    records = [TileRecord.from_item(item) for item in items]
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 100 * 50_000 + 64 * 512 * 512 + 4 * 3 * 2 * 512 * 512  # each 50 KB, and what is kept unpacked
    for number, made in enumerate(records):
        assert np.array_equal(made.requested, np.roll(whole, number, axis=1))
        assert (made.counts == np.where(made.requested, number, 65535)).all()
