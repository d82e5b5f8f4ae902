"""Items, collection and catalogue follow the conventions whose names they use; the index holds the same items."""

from __future__ import annotations

import copy
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import shapely

from tessera_cli.catalog.tables import Table
from tessera_cli.errors import UsageError
from tessera_cli.extent.grid import Tile, tiles_touching, to_utm
from tessera_cli.extent.window import Window
from tessera_cli.files import json_bytes
from tessera_cli.outputs import formats, item_table
from tessera_cli.outputs.collection import Member, around, compose, digest_of
from tessera_cli.outputs.item import TileRecord
from tessera_cli.outputs.old_item import is_old
from tests.helpers.outputs import FORMATS, NOWHERE, PLACED, TILE, arrays, encoded, foreign, identity, record
from tests.helpers.stac import validate

OTHER = Tile(32632, 90, 1099)
OLD = Path(__file__).parent / "data/item_0_1_0.json"


def written(folder: Path, format: formats.Format, dtype: str) -> TileRecord:
    made = encoded(arrays(0), dtype=dtype, format=format)
    counts = {"counts": made.counts} if format == "npy" else {}
    return replace(made.record, assets=formats.write(folder, made), **counts)


def member(made: TileRecord, digest: str = "ab") -> Member:
    found = Member.of(made, digest)
    assert found is not None
    return found


# --- items ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("format", "dtype"), FORMATS)
def test_items_and_their_collection_are_valid(tmp_path: Path, format: formats.Format, dtype: str) -> None:
    made = written(tmp_path, format, dtype)
    item = json.loads(json.dumps(made.to_item()))
    validate(item)
    collection, catalog = compose(made.identity, "a note", [member(made)], ["utm31n_2023.vrt", "items.parquet"])
    validate(collection)
    validate(catalog)
    assert item["collection"] == collection["id"]
    assert {link["rel"]: link["href"] for link in item["links"]} == {
        "root": "./catalog.json",
        "parent": "./collection.json",
        "collection": "./collection.json",
    }
    assert collection["emb:type"] == "pixel"
    assert (collection["emb:dimensions"], collection["data_type"], collection["gsd"]) == (16, dtype, 10)
    assert collection["item_assets"].keys() == item["assets"].keys()
    for key, asset in collection["item_assets"].items():
        assert asset.items() <= item["assets"][key].items()
    assert "A note" in collection["description"]


@pytest.mark.parametrize(
    "change",
    [
        lambda item: item["properties"].update({"emb:dimensions": 16}),
        lambda item: item["properties"].update({"emb:identity": {}}),
        lambda item: item["properties"]["emb:quantization"].update({"formula": "x"}),
        lambda item: item["assets"].update({"embedding": item["assets"].pop("embeddings")}),
        lambda item: [asset.pop("raster:spatial_resolution") for asset in item["assets"].values()],
        lambda item: item["properties"].update({"proj:epsg": 32631}),
        lambda item: item["assets"]["scales"].update({"file:checksum": "xyz"}),
        lambda item: item["properties"].update({"processing:software": "0.1"}),
        lambda item: item["properties"].pop("start_datetime"),
    ],
)
def test_the_validator_refuses_what_the_conventions_do_not_have(change: Any) -> None:
    item = record().to_item()
    validate(item)
    item = copy.deepcopy(item)
    change(item)
    with pytest.raises(pystac.STACValidationError):
        validate(item)


def test_tiles_without_data_time_or_place_belong_to_no_collection() -> None:
    empty = record(status="empty", pixels=0, assets=())
    validate(empty.to_item())  # which declares no extension that wants assets
    made = foreign(NOWHERE)
    for left_out in (
        empty,
        record(tile=PLACED, window=None, requested=np.ones(PLACED.shape, bool), assets=()),
        record(tile=NOWHERE, requested=made["requested"], assets=()),
    ):
        assert Member.of(left_out, "ab") is None
        assert left_out.to_item()["links"] == []
        assert "collection" not in left_out.to_item()


def test_an_item_of_0_1_0_is_read() -> None:
    """As that version wrote it, kept as a file."""
    old = json.loads(OLD.read_text())
    assert is_old(old)
    found = TileRecord.from_item(old)
    due = replace(record(), software=old["properties"]["processing:software"]["tessera-embed"])
    assert found.to_item() == due.to_item()
    np.testing.assert_array_equal(found.requested, due.requested)
    assert not is_old(found.to_item())
    del old["properties"]["emb:status"]
    with pytest.raises(UsageError, match="not the record of a tile"):
        TileRecord.from_item(old)


# --- collections ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        ([(4, 50, 5, 51)], [4, 50, 5, 51]),
        ([(4, 50, 5, 51), (-3, 52, -2, 53)], [-3, 50, 5, 53]),
        ([(179, -18, 180, -17), (-180, -18, -179, -17)], [179, -18, -179, -17]),
        ([(179.5, -18, -179.5, -17)], [179.5, -18, -179.5, -17]),
        ([(179.5, -18, -179.5, -17), (170, -18, 171, -17)], [170, -18, -179.5, -17]),
        ([(179.5, -18, -179.5, -17), (-170, -18, -169, -17)], [179.5, -18, -169, -17]),
        ([(170, 0, -160, 1), (-175, 0, -170, 1)], [170, 0, -160, 1]),
        ([(170, 0, -160, 1), (-175, 0, -150, 1)], [170, 0, -150, 1]),
        ([(-170, 0, -169, 1), (10, 0, 11, 1), (100, 0, 101, 1)], [10, 0, -169, 1]),
        ([(float(x), 0, float(x + 60), 1) for x in range(-180, 180, 60)], [-180, 0, 180, 1]),
    ],
)
def test_the_box_around_all(boxes: list[Any], expected: list[float]) -> None:
    assert around(boxes) == expected
    assert around(boxes[::-1]) == expected


@pytest.mark.parametrize("seed", range(20))
def test_the_box_holds_every_box_and_nothing_narrower_does(seed: int) -> None:
    """Against trying every meridian as the western edge."""
    rng = np.random.default_rng(seed)
    west = rng.integers(-180, 180, rng.integers(1, 6))
    east = (west + rng.integers(1, 40, len(west)) + 180) % 360 - 180
    found = around([(int(w), 0, int(e), 1) for w, e in zip(west, east, strict=True)])

    def width(edge: int) -> float:
        return max(((w - edge) % 360) + ((e - w) % 360) for w, e in zip(west, east, strict=True))

    due = min(width(edge) for edge in range(-180, 180))
    if due < 360:
        assert (found[2] - found[0]) % 360 == due
        assert width(int(found[0])) == due
    else:
        assert (found[0], found[2]) == (-180, 180)


def test_a_collection_across_the_antimeridian(tmp_path: Path) -> None:
    point = shapely.Point(to_utm(32701).transform(-179.99, -17)).buffer(3000)
    members = [member(record(tile=tile)) for tile in tiles_touching(point, 32701)]
    collection, _ = compose(identity(), "", members, [])
    validate(collection)
    west, south, east, north = collection["extent"]["spatial"]["bbox"][0]
    assert west > 179.8
    assert east < -179.8
    assert -17.2 < south < north < -16.8


def test_a_collection_says_what_its_items_have() -> None:
    made = [
        record(),
        record(tile=OTHER, window=Window.from_name("20230701-20240630"), software="0.0.1"),
    ]
    collection, _ = compose(identity(), "", [member(each) for each in made], [])
    assert collection["extent"]["temporal"]["interval"] == [["2023-01-01T00:00:00Z", "2024-06-30T23:59:59Z"]]
    summaries = collection["summaries"]
    assert summaries["proj:code"] == ["EPSG:32631", "EPSG:32632"]
    assert summaries["tessera:windows"] == ["2023", "20230701-20240630"]
    assert summaries["processing:software"][0] == {"tessera-embed": "0.0.1"}
    links = [link["href"] for link in collection["links"] if link["rel"] == "item"]
    assert links == [f"./{each.name}.json" for each in made]
    rels = {link["rel"]: link["href"] for link in collection["links"]}
    assert rels["emb:model"] == "https://geotessera.org/model/2.0"
    assert rels["emb:source-data"].startswith("https://planetarycomputer.microsoft.com/")


@pytest.mark.parametrize("source", ["mpc", "aws", None])
def test_collections_of_every_source_and_of_d_pixels_are_valid(source: str | None) -> None:
    said = identity(source=source, model="../my model.safetensors")
    collection, catalog = compose(said, "", [member(record(identity=said))], [])
    validate(collection)
    validate(catalog)
    assert "/" not in collection["id"]
    stored = {"content": "d-pixels", "source": source, "preprocessing": "official", "format": "zarr"}
    collection, catalog = compose(stored, "", [member(record())], [])
    validate(collection)
    assert not [key for key in collection if key.startswith("emb:")]
    assert not [url for url in collection["stac_extensions"] if "embeddings" in url]


def test_other_settings_make_another_collection_and_the_same_ones_the_same_bytes() -> None:
    members = [member(record())]
    one, again = (compose(identity(), "", members, ["b.vrt", "a.vrt"]) for _ in range(2))
    assert json_bytes(one) == json_bytes(again)
    other, _ = compose(identity(seed=1), "", members, [])
    assert one[0]["id"] != other["id"]
    assert digest_of(members) != digest_of([member(record(), "cd")])


# --- the index --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("format", "dtype"), FORMATS)
def test_the_index_holds_the_items(tmp_path: Path, format: formats.Format, dtype: str) -> None:
    """Read by our own reader of catalogues, by stac-geoparquet and by geopandas."""
    import geopandas
    import stac_geoparquet.arrow
    from pyarrow import parquet

    first = written(tmp_path, format, dtype)
    items = [first.to_item(), replace(first, tile=OTHER, window=Window.from_name("2024")).to_item()]
    data = item_table.to_bytes(items, "abc")
    assert data == item_table.to_bytes(items, "abc")
    path = tmp_path / "items.parquet"
    path.write_bytes(data)
    assert item_table.digest_in(path) == "abc"
    assert item_table.ids_in(path) == [item["id"] for item in items]

    kept = [
        {**item, "properties": {k: v for k, v in item["properties"].items() if k not in item_table.LEFT_OUT}}
        for item in items
    ]
    ours = list(Table("index", path))
    theirs = list(stac_geoparquet.arrow.stac_table_to_items(parquet.read_table(path)))
    for item, own, other in zip(kept, ours, theirs, strict=True):
        assert own["geometry"] == shapely.geometry.mapping(shapely.geometry.shape(item["geometry"])) or shapely.equals(
            shapely.geometry.shape(own["geometry"]), shapely.geometry.shape(item["geometry"])
        )
        assert {**own, "geometry": 0} == {**item, "geometry": 0}
        times = {"start_datetime": None, "end_datetime": None, "datetime": None}
        assert other["properties"] | times == item["properties"] | times
        assert other["assets"].keys() == item["assets"].keys()
        assert list(other["bbox"]) == item["bbox"]
        assert pystac.Item.from_dict(other).common_metadata.start_datetime is not None

    frame = geopandas.read_parquet(path)
    assert frame.crs == "OGC:CRS84"
    assert frame.total_bounds.tolist() == around([item["bbox"] for item in items])
    west, south, _, _ = items[1]["bbox"]
    assert geopandas.read_parquet(path, bbox=(west, south, west + 0.01, south + 0.01))["id"].tolist() == [
        items[1]["id"]
    ]


def test_an_index_of_many_items_is_written_in_pieces() -> None:
    from pyarrow import parquet

    items = [record(tile=Tile(32631, column, 1000)).to_item() for column in range(item_table.ROWS + 3)]
    with parquet.ParquetFile(io.BytesIO(item_table.to_bytes(iter(items), "abc"))) as file:
        assert file.metadata.num_rows == len(items)
        assert file.num_row_groups == 2


@pytest.mark.parametrize("content", [b"", b"PAR1", b"x" * 100])
def test_what_is_no_index_has_no_digest(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "items.parquet"
    assert item_table.digest_in(path) is None
    path.write_bytes(content)
    assert item_table.digest_in(path) is None
    assert item_table.ids_in(path) is None


def test_wholly_written_geometry_metadata(tmp_path: Path) -> None:
    from pyarrow import parquet

    path = tmp_path / "items.parquet"
    path.write_bytes(item_table.to_bytes([record(tile=TILE).to_item()], "abc"))
    geo = json.loads(parquet.read_schema(path).metadata[b"geo"])
    assert geo["columns"][geo["primary_column"]]["covering"]["bbox"]["xmin"] == ["bbox", "xmin"]
