"""The lists of a folder: written at the end of runs, never behind what lies there, and compared by `verify`."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pystac
import pytest

from tessera_cli.catalog.documents import open_document
from tessera_cli.embeddings.folder import EmbeddingFolder
from tessera_cli.errors import UsageError
from tessera_cli.extent.grid import AnyTile, Tile
from tessera_cli.folders.folder import TileFolder
from tessera_cli.inspection.info import describe
from tessera_cli.inspection.verify import verify
from tessera_cli.outputs import formats, item_table
from tessera_cli.outputs.item import TileRecord
from tessera_cli.runs import collection as module
from tessera_cli.runs.collection import write_collection
from tessera_cli.runs.mosaic import write_mosaics
from tests.helpers.outputs import NOWHERE, PLACED, TILE, WINDOW, arrays, encoded, foreign, identity, write_record
from tests.helpers.stac import offline_validator, validate

OTHER, THIRD = Tile(32631, 113, 1098), Tile(32632, 90, 1099)
LISTS = ("collection.json", "catalog.json", "items.parquet")


def finish(folder: TileFolder, tile: AnyTile = TILE) -> TileRecord:
    made = arrays(0, 5) if isinstance(tile, Tile) else foreign(tile)
    own = folder.identity
    pixels = int((made["scales"] == made["scales"]).sum())
    ready = encoded(made, tile, own["dtype"], own["format"], identity=own, pixels=pixels)
    counts = {"counts": made["counts"]} if own["format"] == "npy" else {}
    written = replace(ready.record, assets=formats.write(folder.path, ready), **counts)
    write_record(folder, written)
    return written


@pytest.fixture(params=["geotiff", "npy"])
def folder(request: Any, tmp_path: Path) -> TileFolder:
    """An output folder with two finished tiles."""
    folder = TileFolder(tmp_path / "out", identity(5, "int8", request.param))
    folder.start_run("a", {"names": [f"{tile.id}_2023" for tile in (TILE, OTHER)]}, None)
    finish(folder)
    finish(folder, OTHER)
    write_mosaics(folder, [WINDOW])
    return folder


def as_0_1_0(folder: TileFolder, tile: Tile = TILE) -> Path:
    """Write the record of a tile as version 0.1.0 did; its path."""
    path = folder.item_path(f"{tile.id}_2023")
    item = json.loads(path.read_text())
    kept = ("emb:quantization", "emb:runtime_parameters")
    item["properties"] = {
        key.replace("tessera:", "emb:"): value
        for key, value in item["properties"].items()
        if key in kept or not key.startswith("emb:")
    } | {"emb:type": "pixel", "emb:dimensions": 5}
    item["assets"] = {key.replace("embeddings", "embedding"): asset for key, asset in item["assets"].items()}
    item["links"] = []
    del item["collection"]
    path.write_text(json.dumps(item))
    return path


def state(path: Path) -> dict[str, tuple[str, int]]:
    return {
        file.name: (hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_mtime_ns)
        for file in sorted(path.iterdir())
        if file.is_file()
    }


def listed(path: Path) -> list[str]:
    links = json.loads((path / "collection.json").read_text())["links"]
    return [link["href"] for link in links if link["rel"] == "item"]


def told(path: Path) -> dict[str, str]:
    return {check.name: check.status for check in verify(path).checks if check.name in LISTS}


# --- what is written --------------------------------------------------------------------------------------------------


def test_everything_is_found_from_the_catalogue(folder: TileFolder) -> None:
    (folder.path / "preview.html").touch()
    assert [path.name for path in write_collection(folder)] == list(LISTS)
    catalog = pystac.Catalog.from_file(str(folder.path / "catalog.json"))
    (collection,) = catalog.get_children()
    items = list(catalog.get_items(recursive=True))
    validator = offline_validator()
    for found in (catalog, collection, *items):
        assert found.validate(validator=validator)
    assert [item.id for item in items] == [f"{TILE.id}_2023", f"{OTHER.id}_2023"]
    for item in items:
        assert item.get_collection() is collection
        assert item.get_root() is catalog
        assert all(Path(asset.get_absolute_href() or "").is_file() for asset in item.assets.values())
    assert isinstance(collection, pystac.Collection)
    assert all(Path(asset.get_absolute_href() or "").is_file() for asset in collection.assets.values())
    mosaics = {path.name for path in folder.path.glob("*.vrt")}
    assert collection.assets.keys() == {"items", "preview.html", *mosaics}
    assert bool(mosaics) is (folder.identity["format"] == "geotiff")


def test_nothing_is_written_where_nothing_has_changed(folder: TileFolder, monkeypatch: Any) -> None:
    write_collection(folder)
    before = state(folder.path)

    def refuse(*_: object, **__: object) -> None:
        raise UsageError("read-only")

    for name in ("write_bytes", "write_json", "replacement"):
        monkeypatch.setattr(module, name, refuse)
    assert [path.name for path in write_collection(folder)] == list(LISTS)
    assert state(folder.path) == before


def test_a_folder_that_cannot_be_written_is_left_as_it_is(folder: TileFolder, monkeypatch: Any, caplog: Any) -> None:
    as_0_1_0(folder)
    before = state(folder.path)

    def refuse(*_: object, **__: object) -> None:
        raise UsageError("out cannot be written: read-only.")

    monkeypatch.setattr(module, "replacement", refuse)
    assert write_collection(folder) == ()
    assert "not brought up to date: out cannot be written" in caplog.text
    assert state(folder.path) == before


def test_other_readers_skip_the_lists(folder: TileFolder, tmp_path: Path) -> None:
    names = [tile.name for tile in EmbeddingFolder.open(folder.path).tiles]
    described = describe(folder.path)
    write_collection(folder)
    assert [tile.name for tile in EmbeddingFolder.open(folder.path).tiles] == names
    assert describe(folder.path) == described
    with pytest.raises(UsageError, match="is not the record of a tile"):
        describe(folder.path / "catalog.json")
    with pytest.raises(UsageError, match="no scenes"):
        open_document(str(folder.path), None)  # type: ignore[arg-type]
    (folder.path / "items.json").write_text('{"type": "FeatureCollection", "features": []}')
    assert open_document(str(folder.path), None).location.endswith("items.json")  # type: ignore[arg-type]


def test_lists_of_others_are_left_alone(folder: TileFolder, caplog: Any) -> None:
    theirs = folder.path / "catalog.json"
    theirs.write_text('{"type": "Catalog", "id": "mine"}')
    assert write_collection(folder) == ()
    assert "catalog.json is not ours" in caplog.text
    assert theirs.read_text() == '{"type": "Catalog", "id": "mine"}'
    assert told(folder.path) == {"catalog.json": "beside"}
    theirs.unlink()
    (folder.path / "items.parquet").write_bytes(b"mine")
    assert [path.name for path in write_collection(folder)] == ["collection.json", "catalog.json"]
    assert (folder.path / "items.parquet").read_bytes() == b"mine"
    assert told(folder.path) == {}


def test_tiles_without_time_or_place_are_told_and_left_out(tmp_path: Path, caplog: Any) -> None:
    caplog.set_level("INFO")
    folder = TileFolder(tmp_path / "out", identity(5, "int8", "npy"))
    folder.start_run("a", {"names": ["field", NOWHERE.id]}, None)
    finish(folder, PLACED)
    finish(folder, NOWHERE)
    assert write_collection(folder) == ()
    assert "2 tiles are in no STAC collection, since their time or place is not known" in caplog.text
    assert verify(folder.path).error() is None
    finish(folder, TILE)
    write_collection(folder)
    assert listed(folder.path) == [f"./{TILE.id}_2023.json"]
    folder.item_path(f"{TILE.id}_2023").unlink()
    assert write_collection(folder) == ()
    assert not [name for name in LISTS if (folder.path / name).exists()]


@pytest.mark.parametrize("name", ["collection", "catalog"])
def test_no_tile_may_have_the_name_of_a_list(name: str) -> None:
    with pytest.raises(UsageError, match="lists the folder's tiles"):
        formats.check_tile("npy", replace(PLACED, id=name))


# --- the index --------------------------------------------------------------------------------------------------------


def test_without_pyarrow_an_index_goes_when_it_is_behind(folder: TileFolder, monkeypatch: Any) -> None:
    write_collection(folder)
    monkeypatch.setattr(item_table, "can_write", lambda: False)
    assert [path.name for path in write_collection(folder)] == list(LISTS)
    finish(folder, THIRD)
    assert [path.name for path in write_collection(folder)] == ["collection.json", "catalog.json"]
    assert not (folder.path / "items.parquet").exists()
    assert "items" not in json.loads((folder.path / "collection.json").read_text())["assets"]
    assert told(folder.path) == {}
    monkeypatch.undo()
    assert [path.name for path in write_collection(folder)] == list(LISTS)


# --- many runs at once ------------------------------------------------------------------------------------------------


def test_a_list_that_was_overtaken_is_written_again(folder: TileFolder, monkeypatch: Any) -> None:
    """Another run finishes a tile and writes all lists while ours, which lack it, are on their way to the disk."""
    real, overtaken = module.write_bytes, []

    def slow(path: Path, data: bytes, **more: Any) -> None:
        if path.name not in overtaken and not any(overtaken):
            overtaken.append(path.name)
            finish(TileFolder(folder.path, folder.identity), THIRD)
            write_collection(TileFolder(folder.path, folder.identity))
        real(path, data, **more)

    for late in LISTS:
        for name in LISTS:
            (folder.path / name).unlink(missing_ok=True)
        for file in folder.path.glob(f"{THIRD.id}*"):
            file.unlink()
        overtaken.clear()

        def write(path: Path, data: bytes, late: str = late, **more: Any) -> None:
            (slow if path.name == late else real)(path, data, **more)

        monkeypatch.setattr(module, "write_bytes", write)
        write_collection(folder)
        assert overtaken == [late]
        assert listed(folder.path) == [f"./{tile.id}_2023.json" for tile in (TILE, OTHER, THIRD)]
        assert item_table.ids_in(folder.path / "items.parquet") == [f"{t.id}_2023" for t in (TILE, OTHER, THIRD)]
        assert told(folder.path) == {}


ONE_OF_MANY = """
import sys
from pathlib import Path
from tessera_cli.extent.grid import Tile
from tessera_cli.runs.collection import write_collection
from tessera_cli.folders.folder import TileFolder
from tests.runs.test_collection import finish
folder = TileFolder.open(Path(sys.argv[1]))
for row in range(2):
    finish(folder, Tile(32631, int(sys.argv[2]), row))
    write_collection(folder)
"""


def test_many_processes_on_one_folder_end_with_a_collection_of_all(tmp_path: Path) -> None:
    folder = TileFolder(tmp_path / "out", identity(5))
    folder.start_run("a", {"names": []}, None)
    runs = [
        subprocess.Popen([sys.executable, "-c", ONE_OF_MANY, str(folder.path), str(column)])
        for column in range(100, 104)
    ]
    assert [run.wait(timeout=120) for run in runs] == [0] * 4
    names = sorted(f"{Tile(32631, column, row).id}_2023" for column in range(100, 104) for row in range(2))
    assert listed(folder.path) == [f"./{name}.json" for name in names]
    assert item_table.ids_in(folder.path / "items.parquet") == names
    assert not list(folder.path.glob("*.part"))


# --- older folders ----------------------------------------------------------------------------------------------------


def test_records_of_0_1_0_are_brought_up_to_date(folder: TileFolder) -> None:
    expected = folder.item_path(f"{TILE.id}_2023").read_bytes()
    path = as_0_1_0(folder)
    assert EmbeddingFolder.open(folder.path).tiles[0].name == path.stem
    assert told(folder.path) == {}
    assert verify(folder.path).error() is None
    before = state(folder.path)
    write_collection(folder)
    after = state(folder.path)
    assert path.read_bytes() == expected
    validate(json.loads(expected))
    assert {name for name in before if before[name] != after[name]} == {path.name}
    assert after.keys() - before.keys() == set(LISTS)
    assert verify(folder.path).error() is None
    assert told(folder.path) == {}


def test_a_record_that_another_run_replaces_is_not_overwritten(folder: TileFolder, monkeypatch: Any) -> None:
    path = as_0_1_0(folder)
    real = module.write_json

    def overtaken(new: Path, item: Any) -> None:
        real(new, item)
        write_record(folder, replace(TileRecord.from_item(item), input_digest="cd" * 32))

    monkeypatch.setattr(module, "write_json", overtaken)
    write_collection(folder)
    assert json.loads(path.read_text())["properties"]["tessera:input_digest"] == "cd" * 32
    monkeypatch.undo()
    assert told(folder.path) == {}


# --- verify -----------------------------------------------------------------------------------------------------------


def changed(path: Path, change: Any) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda path: (path / "collection.json").unlink(), {"collection.json": "missing"}),
        (lambda path: (path / "catalog.json").unlink(), {"catalog.json": "missing"}),
        (lambda path: (path / "items.parquet").unlink(), {"items.parquet": "missing"}),
        (lambda path: (path / "items.parquet").write_bytes(b"PAR1"), {"items.parquet": "damaged"}),
        (lambda path: (path / "collection.json").write_text("{"), {"collection.json": "damaged"}),
        (
            lambda path: changed(path / "collection.json", lambda content: content["links"].pop()),
            {"collection.json": "damaged"},
        ),
        (
            lambda path: changed(path / "catalog.json", lambda content: content["links"].pop()),
            {"catalog.json": "damaged"},
        ),
        (lambda path: (path / "preview.png").touch(), {"collection.json": "stale"}),
    ],
)
def test_verify_compares_the_lists(folder: TileFolder, damage: Any, expected: dict[str, str]) -> None:
    write_collection(folder)
    assert told(folder.path) == {}
    damage(folder.path)
    assert told(folder.path) == expected
    assert (verify(folder.path).error() is None) is ("stale" in expected.values())
    write_collection(folder)
    assert told(folder.path) == {}


def test_verify_reads_the_ids_of_the_index(folder: TileFolder) -> None:
    """One that claims to be made from these items, and holds others."""
    write_collection(folder)
    path = folder.path / "items.parquet"
    digest = item_table.digest_in(path)
    assert digest is not None
    items = [json.loads(folder.item_path(f"{TILE.id}_2023").read_text())]
    path.write_bytes(item_table.to_bytes(items, digest))
    assert told(folder.path) == {"items.parquet": "damaged"}
