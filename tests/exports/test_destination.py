"""Where exports go: whole or not at all, and over nothing that is not an export of the same."""

from __future__ import annotations

import json
import os
import shutil
from collections import namedtuple

import pytest

import tessera_cli
from tessera_cli.errors import DiskFullError, IdentityError, NothingToEmbedError, TileError, UsageError
from tests.exports.folders import EAST, WEST, put
from tests.helpers.outputs import NOWHERE, foreign

TARGETS = ["cog", "zarr", "npy", "geotessera"]


@pytest.fixture
def folder(tmp_path):
    put(tmp_path / "f", WEST)
    return tmp_path / "f"


def files(path):
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


@pytest.mark.parametrize("to", TARGETS)
def test_an_export_is_replaced_by_the_same_made_again(folder, tmp_path, to):
    out = tmp_path / "deep" / "out"
    tessera_cli.export(folder, to=to, out=out)
    first = files(out)
    tessera_cli.export(folder, to=to, out=out)
    assert files(out) == first
    put(folder, EAST, seed=1)
    tessera_cli.export(folder, to=to, out=out)
    assert files(out) != first
    assert [path.name for path in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("to", TARGETS)
def test_an_export_with_files_of_others_in_it_is_kept(folder, tmp_path, to):
    out = tmp_path / "out"
    path = tessera_cli.export(folder, to=to, out=out).files[0]
    path.with_name(f"{path.name}.aux.xml").touch()  # as QGIS leaves it beside a raster
    tessera_cli.export(folder, to=to, out=out)
    (out / "map.qgz").write_text("mine")
    before = files(out)
    with pytest.raises(UsageError, match=r"holds map\.qgz, which the export did not write"):
        tessera_cli.export(folder, to=to, out=out)
    assert files(out) == before


def test_nor_where_they_come_while_it_is_written(folder, tmp_path):
    out = tmp_path / "out"
    tessera_cli.export(folder, to="npy", out=out)

    def progress(done, total):
        (out / "mine").write_text("mine")

    with pytest.raises(UsageError, match="holds mine"):
        tessera_cli.export(folder, to="npy", out=out, progress=progress)
    assert (out / "mine").read_text() == "mine"


@pytest.mark.parametrize("to", TARGETS)
def test_another_export_is_not(folder, tmp_path, to):
    tessera_cli.export(folder, to=to, out=tmp_path / "out")
    before = files(tmp_path / "out")
    put(tmp_path / "g", WEST, model="v1.1-mpc")
    with pytest.raises(IdentityError, match=r"identity\.model is 'v2-medium' there"):
        tessera_cli.export(tmp_path / "g", to=to, out=tmp_path / "out")
    with pytest.raises(IdentityError, match="to is"):
        tessera_cli.export(folder, to="npy" if to != "npy" else "cog", out=tmp_path / "out")
    assert files(tmp_path / "out") == before


@pytest.mark.parametrize("there", ["file", "folder", "embeddings", "json"])
def test_nothing_else_is_replaced(folder, tmp_path, there):
    out = tmp_path / "out"
    if there == "file":
        out.write_text("mine")
    elif there == "embeddings":
        out = folder
    else:
        out.mkdir()
        (out / ("export.json" if there == "json" else "mine")).write_text('{"to": "cog", "identity": {}}')
    with pytest.raises(UsageError, match="exists and is no export"):
        tessera_cli.export(folder, to="cog", out=out)
    if there != "embeddings":
        assert out.read_text() == "mine" if there == "file" else len(list(out.iterdir())) == 1


def test_an_empty_folder_is_taken(folder, tmp_path):
    (tmp_path / "out").mkdir()
    tessera_cli.export(folder, to="cog", out=tmp_path / "out")
    assert len(list((tmp_path / "out").iterdir())) == 2


@pytest.mark.parametrize("to", TARGETS)
def test_a_damaged_tile_leaves_what_was_there(folder, tmp_path, to):
    tessera_cli.export(folder, to=to, out=tmp_path / "out")
    before = files(tmp_path / "out")
    for raster in folder.glob("*_emb.tif"):
        data = bytearray(raster.read_bytes())
        data[8:400] = os.urandom(392)
        raster.write_bytes(data)
    with pytest.raises(TileError, match="cannot be read"):
        tessera_cli.export(folder, to=to, out=tmp_path / "out")
    assert files(tmp_path / "out") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f", "out"]


def test_a_disk_that_is_too_small_is_told_before_anything_is_written(folder, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1 << 40, 0, 1 << 20))
    with pytest.raises(DiskFullError, match=r"takes up to \d+\.\d GB .* and 0\.0 GB are free"):
        tessera_cli.export(folder, to="cog", out=tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_what_it_takes_is_not_underestimated(folder, tmp_path, monkeypatch):
    """By the bytes of what is written, uncompressed."""
    usage = namedtuple("usage", "total used free")
    for to in TARGETS:
        made = tessera_cli.export(folder, to=to, out=tmp_path / to, compress="none")
        monkeypatch.setattr(shutil, "disk_usage", lambda path, made=made: usage(1 << 40, 0, made.bytes // 2))
        with pytest.raises(DiskFullError):
            tessera_cli.export(folder, to=to, out=tmp_path / "again", compress="none")
        monkeypatch.undo()


def test_what_killed_runs_have_left_goes(folder, tmp_path):
    dead = tmp_path / "out.0123456789ab-1-1-01234567.part"
    others = tmp_path / "other.part"
    mine = tmp_path / "out.download.part"
    for path in (dead, others, mine):
        path.mkdir()
    from tessera_cli.parts import _machine

    gone = tmp_path / f"out.{_machine()}-{2**22 + 5:x}-5-01234567.part"
    gone.mkdir()
    tessera_cli.export(folder, to="npy", out=tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"f", "out", dead.name, others.name, mine.name}


def test_tiles_without_a_place_are_not_exported(tmp_path):
    made = foreign(NOWHERE)
    put(tmp_path / "f", NOWHERE, dims=5, requested=made["requested"], format="npy")
    with pytest.raises(UsageError, match="no place on the map"):
        tessera_cli.export(tmp_path / "f", to="npy", out=tmp_path / "out")


def test_progress_counts_pixels(folder, tmp_path):
    told = []
    tessera_cli.export(folder, to="cog", out=tmp_path / "out", progress=lambda done, total: told.append((done, total)))
    assert told[0] == (0, 200 * 470)
    assert told[-1] == (200 * 470, 200 * 470)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"to": "kml"}, UsageError),
        ({"to": "zarr", "dtype": "float32"}, UsageError),
        ({"to": "zarr", "crs": 3035}, UsageError),
        ({"to": "cog", "dtype": "int16"}, UsageError),
    ],
)
def test_settings(folder, tmp_path, given, error):
    with pytest.raises(error):
        tessera_cli.export(folder, out=tmp_path / "out", **given)


def test_a_folder_without_embeddings(tmp_path):
    put(tmp_path / "f", WEST)
    for path in (tmp_path / "f").glob("utm*"):
        path.unlink()
    with pytest.raises((UsageError, NothingToEmbedError)):
        tessera_cli.export(tmp_path / "f", to="cog", out=tmp_path / "out")


def test_the_command(folder, tmp_path, tessera):
    code, out, err = tessera("export", folder, "--to", "cog", "-o", tmp_path / "a")
    assert (code, out) == (0, f"{tmp_path}/a/utm31n_2023.tif\n")
    assert "wrote" in err
    code, out, _ = tessera("export", folder, "--to", "zarr", "-o", tmp_path / "b.zarr", "--json", "-q")
    told = json.loads(out)
    assert (code, told["type"], told["to"], told["windows"]) == (0, "export", "zarr", ["2023"])
    assert told["bytes"] == sum(len(data) for data in files(tmp_path / "b.zarr").values())
    code, out, _ = tessera("export", folder, "--to", "geotessera", "-o", tmp_path / "c")
    assert (code, out) == (0, f"{tmp_path}/c\n")
    assert tessera("export", folder, "--to", "cog", "-o", tmp_path / "b.zarr")[0] == 5
    assert tessera("export", folder, "--to", "cog", "-o", folder)[0] == 2
    assert tessera("export", folder, "--to", "torchgeo", "-o", tmp_path / "d")[0] == 2
    code, _, err = tessera("export", folder, "--to", "cog", "-o", tmp_path / "d", "--window", "2019")
    assert (code, "no embeddings of 2019" in err) == (2, True)
    assert not (tmp_path / "d").exists()
