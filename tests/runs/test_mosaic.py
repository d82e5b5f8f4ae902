"""One virtual raster per zone and window, and the folder that says what is in it."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.windows import Window as PixelWindow

from tessera_cli.errors import IdentityError, TileError
from tessera_cli.extent.grid import AnyTile, ForeignTile, Tile, TileRequest, pack_mask, tile_name
from tessera_cli.extent.window import Window
from tessera_cli.folders.failures import note_failure
from tessera_cli.folders.folder import TileFolder
from tessera_cli.inspection.info import describe as info
from tessera_cli.inspection.verify import verify
from tessera_cli.outputs import formats
from tessera_cli.runs import mosaic
from tessera_cli.runs.mosaic import write_mosaics
from tests.helpers import many_tiles
from tests.helpers.outputs import (
    GAP,
    NAME,
    NOWHERE,
    PLACED,
    TILE,
    WINDOW,
    around,
    arrays,
    encoded,
    foreign,
    identity,
    record,
    values,
    write_record,
)

# --- mosaics of a folder ----------------------------------------------------------------------------------------------


def folder_of(path: Path, tiles: list[Tile], *runs: dict[str, Any], dtype: str = "int8") -> TileFolder:
    """An output folder with finished tiles, and with runs that asked for what is said."""
    folder = TileFolder(path, identity(3, dtype))
    for number, run in enumerate(runs):
        folder.start_run(f"{number}", run, None)
    for seed, tile in enumerate(tiles):
        made = arrays(seed, 3)
        assets = formats.write(path, encoded(made, tile, dtype))
        pixels = int((~np.isnan(made["scales"])).sum())
        write_record(folder, record(tile=tile, identity=folder.identity, assets=assets, pixels=pixels))
    return folder


def asks(tiles: list[Tile], window: Window = WINDOW, **more: Any) -> dict[str, Any]:
    return {"names": [tile_name(tile, window) for tile in tiles], **more}


def mosaics(folder: TileFolder, *windows: Window, **more: Any) -> list[str]:
    return [path.name for path in write_mosaics(folder, windows or [WINDOW], **more)]


@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_a_mosaic_shows_what_all_runs_asked_for(tmp_path: Path, dtype: str) -> None:
    west, _, _, north = TILE.bounds
    folder = folder_of(
        tmp_path,
        GAP,
        asks(GAP[:2], areas={"32631": [west + 3000, north - 300, west + 6000, north - 100]}),
        asks(GAP[:1], areas={"32631": [west + 2000, north - 700, west + 2500, north - 690], "32632": [0, 0, 1, 1]}),
        {"names": [tile_name(GAP[2], Window.from_name("2022")), "field"]},
        dtype=dtype,
    )
    assert mosaics(folder) == ["utm31n_2023.vrt"]
    with rasterio.open(tmp_path / "utm31n_2023.vrt") as dataset:
        assert tuple(dataset.bounds) == (west + 2000, north - 700, west + 6000, north - 100)
        found = dataset.read()
    both = np.concatenate([values(arrays(0, 3)), values(arrays(1, 3))], axis=2)
    np.testing.assert_array_equal(found, both[:, 10:70, 200:600])
    assert mosaics(folder, Window.from_name("2022")) == []  # its only tile is not done


def test_a_mosaic_of_tiles_that_were_asked_for_as_they_are(tmp_path: Path) -> None:
    """Stored d-pixels have no AOI."""
    folder = folder_of(tmp_path, GAP, asks(GAP))
    assert mosaics(folder) == ["utm31n_2023.vrt"]
    with rasterio.open(tmp_path / "utm31n_2023.vrt") as dataset:
        assert tuple(dataset.bounds) == around(GAP)


def test_only_finished_tiles_are_in_a_mosaic(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, GAP[:2], asks(GAP))
    mosaics(folder)
    codes = tmp_path / "utm31n_2023_codes.vrt"
    text = codes.read_text()
    assert [tile.id in text for tile in GAP] == [True, True, False]
    folder.item_path(tile_name(GAP[0], WINDOW)).unlink()
    mosaics(folder)
    assert GAP[0].id not in codes.read_text()
    mosaics(folder, known=[tile_name(GAP[0], WINDOW)])  # the caller knows better
    assert codes.read_text() == text
    folder.item_path(tile_name(GAP[0], WINDOW)).unlink(missing_ok=True)
    folder.item_path(tile_name(GAP[1], WINDOW)).unlink()
    assert mosaics(folder) == []
    assert not list(tmp_path.glob("*.vrt"))


def test_pyramids_of_a_mosaic_go_when_a_tile_is_replaced(tmp_path: Path) -> None:
    """The VRT itself stays as it is: it only names the tiles."""
    folder = folder_of(tmp_path, GAP[:2], asks(GAP[:2]))
    mosaics(folder)
    path, pyramids = tmp_path / "utm31n_2023.vrt", tmp_path / "utm31n_2023.vrt.ovr"
    text = path.read_bytes()
    pyramids.touch()
    mosaics(folder)
    assert pyramids.exists()
    os.utime(tmp_path / f"{tile_name(GAP[1], WINDOW)}_emb.tif", ns=(0, pyramids.stat().st_mtime_ns + 1))
    mosaics(folder)
    assert not pyramids.exists()
    assert path.read_bytes() == text


def test_an_official_tile_is_in_no_mosaic(tmp_path: Path) -> None:
    """Even if it is called as a tile of the grid is."""
    folder = folder_of(tmp_path, [], asks([TILE]))
    made = foreign(PLACED, dims=3)
    tile = replace(PLACED, id=NAME)
    assets = formats.write(tmp_path, encoded(made, tile))
    own = record(tile=tile, window=None, identity=folder.identity, assets=assets, requested=made["requested"])
    write_record(folder, own)
    assert folder.record(NAME) is not None
    assert mosaics(folder) == []


def test_arrays_have_no_mosaic(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, GAP[:1], asks(GAP[:1]))
    assert mosaics(replace(folder, identity=identity(3, format="npy"))) == []


def of_one_name(folder: TileFolder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.path.glob("*.vrt")}


def test_a_mosaic_of_many_tiles_is_one_of_blocks(tmp_path: Path, monkeypatch: Any) -> None:
    """And what it is made of goes when it is no longer needed."""
    folder = folder_of(tmp_path, GAP, asks(GAP))
    assert mosaics(folder) == ["utm31n_2023.vrt"]
    before = of_one_name(folder)
    assert sorted(before) == ["utm31n_2023.vrt", "utm31n_2023_codes.vrt", "utm31n_2023_scales.vrt"]
    (tmp_path / "utm31n_2023_mine.vrt").touch()
    (tmp_path / "utm31n_2022_codes.vrt").touch()
    monkeypatch.setattr("tessera_cli.outputs.vrt.files.MAX_TILES", 2)
    assert mosaics(folder) == ["utm31n_2023.vrt"]
    blocks = set(of_one_name(folder)) - set(before) - {"utm31n_2023_mine.vrt", "utm31n_2022_codes.vrt"}
    assert blocks == {f"utm31n_2023_{part}_c0112_r1096.vrt" for part in ("codes", "scales")}
    monkeypatch.undo()
    assert mosaics(folder) == ["utm31n_2023.vrt"]
    assert of_one_name(folder) == before | {"utm31n_2023_mine.vrt": b"", "utm31n_2022_codes.vrt": b""}


def test_an_older_mosaic_is_replaced(tmp_path: Path) -> None:
    """Earlier versions wrote one file, with codes and scales inside it."""
    folder = folder_of(tmp_path, GAP, asks(GAP))
    mosaics(folder)
    now = of_one_name(folder)
    for name in now:
        (tmp_path / name).unlink()
    (tmp_path / "utm31n_2023.vrt").write_text(OLDER)
    (tmp_path / "utm31n_2023.vrt.aux.xml").touch()
    assert (info(tmp_path)["mosaics"], info(tmp_path / "utm31n_2023.vrt")["shape"]) == (["utm31n_2023.vrt"], [2, 3])
    told = {check.name: check.status for check in verify(tmp_path).checks}
    assert told["utm31n_2023.vrt"] == "stale"  # the tiles are sound
    assert not {name for name in told if name in now} - {"utm31n_2023.vrt"}
    mosaics(folder)
    assert of_one_name(folder) == now
    assert not (tmp_path / "utm31n_2023.vrt.aux.xml").exists()
    assert not {name for name in now if name in {check.name for check in verify(tmp_path).checks}}
    assert info(tmp_path)["mosaics"] == ["utm31n_2023.vrt"]
    assert [info(tmp_path / name)["dtype"] for name in sorted(now)] == ["float32", "int16", "float32"]


OLDER = """<VRTDataset rasterXSize="3" rasterYSize="2">
<SRS dataAxisToSRSAxisMapping="1,2">EPSG:32631</SRS>
<GeoTransform>573440, 10, 0, 5626880, 0, -10</GeoTransform>
<Metadata><MDI key="TESSERA_MODEL_NAME">v2-medium</MDI></Metadata>
<VRTRasterBand dataType="Float32" band="1" subClass="VRTDerivedRasterBand">
<Description>Tessera_Band_0</Description><NoDataValue>nan</NoDataValue><PixelFunctionType>mul</PixelFunctionType>
<SimpleSource><SourceFilename relativeToVRT="0"><![CDATA[<VRTDataset></VRTDataset>]]></SourceFilename></SimpleSource>
</VRTRasterBand></VRTDataset>
"""


def test_what_is_beside_codes_goes_with_them(tmp_path: Path) -> None:
    """Statistics of the product too, whose own XML stays the same."""
    folder = folder_of(tmp_path, GAP, asks(GAP))
    folder.item_path(tile_name(GAP[0], WINDOW)).rename(tmp_path / "aside")
    mosaics(folder)
    left = [tmp_path / f"utm31n_2023{part}.vrt.aux.xml" for part in ("", "_codes", "_scales")]
    for path in left:
        path.touch()
    mosaics(folder)
    assert all(path.exists() for path in left)
    product = (tmp_path / "utm31n_2023.vrt").read_bytes()
    (tmp_path / "aside").rename(folder.item_path(tile_name(GAP[0], WINDOW)))
    mosaics(folder)
    assert (tmp_path / "utm31n_2023.vrt").read_bytes() == product
    assert not any(path.exists() for path in left)


def test_a_run_that_ends_meanwhile_is_seen(tmp_path: Path, monkeypatch: Any) -> None:
    """Its tile is in the mosaic though its record was not there at first; other records are read once."""
    folder = folder_of(tmp_path, GAP, asks(GAP))
    late = folder.item_path(tile_name(GAP[0], WINDOW))
    late.rename(tmp_path / "aside")
    read, write = [], mosaic._write

    def record_of(self: TileFolder, name: str) -> Any:
        read.append(name)
        return original(self, name)

    def written(*args: Any) -> None:
        write(*args)
        if not late.exists():
            (tmp_path / "aside").rename(late)

    original = TileFolder.record
    monkeypatch.setattr(TileFolder, "record", record_of)
    monkeypatch.setattr(mosaic, "_write", written)
    mosaics(folder)
    assert GAP[0].id in (tmp_path / "utm31n_2023_codes.vrt").read_text()
    assert sorted(read) == sorted(tile_name(tile, WINDOW) for tile in GAP)


def test_very_many_tiles_are_shown(tmp_path: Path) -> None:
    """One in nine of which is read: of 8 bands, as the time goes into the making of the folder."""
    tiles = many_tiles.square(20)
    folder = many_tiles.folder_of(tmp_path, tiles, dims=8)
    start = time.monotonic()
    assert mosaics(folder) == ["utm31n_2023.vrt"]
    assert time.monotonic() - start < 10
    with rasterio.open(tmp_path / "utm31n_2023.vrt") as dataset:
        for number in range(0, len(tiles), 9):
            x, y = number % 20 * 512, (19 - number // 20) * 512
            found = dataset.read(window=PixelWindow(x, y, 8, 8))
            np.testing.assert_array_equal(found, many_tiles.values_of(number, 8))


# --- the folder -------------------------------------------------------------------------------------------------------


def test_another_identity_is_refused_by_name(tmp_path: Path) -> None:
    ours = identity(model_config={"sizes": (1, 2)})
    TileFolder(tmp_path / "new", ours).check_identity()
    folder = TileFolder(tmp_path, ours)
    folder.start_run("a", {"names": []}, None)
    folder.check_identity()
    with pytest.raises(IdentityError, match="dtype is 'int8' there and 'float32' here; format is 'geotiff' there"):
        TileFolder(tmp_path, ours | {"dtype": "float32", "format": "npy"}).check_identity()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.json", "runs"]  # no list of scenes


@pytest.mark.parametrize("tile", [TILE, PLACED, NOWHERE], ids=["grid", "placed", "nowhere"])
def test_a_tile_is_finished_for_what_it_covers(tmp_path: Path, tile: AnyTile) -> None:
    made = arrays(0) if tile is TILE else foreign(tile)
    own = identity(len(made["codes"]), format="npy")
    folder = TileFolder(tmp_path, own)
    ready = encoded(made, tile, format="npy", identity=own, pixels=int((~np.isnan(made["scales"])).sum()))
    name, requested = ready.record.name, made["requested"]
    folder.start_run("a", {"names": [name]}, None)
    assert folder.requested_names() == {name}
    request = TileRequest(tile, ready.record.window, pack_mask(requested))

    def finished(pixels: np.ndarray = requested, *, allow_missing: int = 1, inputs: str | None = None) -> Any:
        asked = replace(request, packed=pack_mask(pixels))
        return folder.finished(asked, allow_missing=allow_missing, inputs=inputs)

    assert finished() is None
    note_failure(tmp_path, "a", request, TileError("no network"), allow_missing=1)
    assert folder.failures() == {name: "no network"}

    assets = formats.write(tmp_path, ready)
    written = replace(ready.record, assets=assets, counts=made["counts"])
    write_record(folder, written)
    found = finished()
    assert found is not None
    assert found.to_item() == written.to_item()
    formats.read_back(tmp_path, found)
    assert folder.failures() == {}
    assert finished(inputs="ab" * 32)
    np.testing.assert_array_equal(folder.previously_requested(request), requested)
    smaller = requested.copy()
    smaller[np.argwhere(requested)[0][0]] = False
    assert finished(smaller)

    assert finished(allow_missing=0) is None  # it lacks a scene
    assert finished(inputs="cd" * 32) is None
    assert finished(np.ones(tile.shape, bool)) is None
    cut = TileRequest(ForeignTile(name, requested[:-1].shape), None, pack_mask(requested[:-1]))
    assert folder.finished(cut, allow_missing=1) is None  # the folder it is made of has changed
    assert folder.previously_requested(cut) is None
    copy = tmp_path / "copy.json"
    copy.write_bytes(folder.item_path(name).read_bytes())
    assert folder.record("copy") is None
    assert folder.previously_requested(replace(request, tile=ForeignTile("copy", tile.shape), window=None)) is None
    path = tmp_path / assets[0].name
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert folder.record(name)  # of the same size
    assert finished() is None
    folder.item_path(name).rename(tmp_path / f"{name}.json.stale")  # as earlier versions did before they replaced files
    assert folder.record(name) is None
    np.testing.assert_array_equal(folder.previously_requested(request), requested)


def test_a_folder_that_cannot_be_written_keeps_what_is_there(tmp_path, monkeypatch, caplog):
    folder = folder_of(tmp_path, [TILE], asks([TILE]))
    (product,) = write_mosaics(folder, [WINDOW])
    product.write_text("<VRTDataset/>")  # an earlier version's
    product.with_name("utm31n_2023_codes.vrt").unlink()
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}

    def refuse(path: Path, *_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(mosaic, "write_bytes", refuse)
    assert write_mosaics(folder, [WINDOW]) == (product,)
    assert "mosaics are not brought up to date" in caplog.text
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
