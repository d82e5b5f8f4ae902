"""Files on disk: written whole, laid out as promised, read by other tools than ours."""

from __future__ import annotations

import datetime as dt
import errno
import glob
import gzip
import hashlib
import importlib.util
import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
import shapely
from pystac.validation.stac_validator import JsonSchemaSTACValidator
from rasterio.enums import Interleaving
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window as Part
from rio_cogeo import cog_validate

from tessera_cli import __version__, atomic
from tessera_cli.coverage import Coverage
from tessera_cli.errors import DiskFullError, TileError, UsageError
from tessera_cli.grid import Tile, tiles_touching, to_utm
from tessera_cli.models import load_model, spec_named
from tessera_cli.outputs import geotiff, vrt
from tessera_cli.outputs.item import Asset, TileRecord
from tessera_cli.outputs.layers import COUNTS, EMB, SCALES, raster_name, tile_name, vrt_name
from tessera_cli.outputs.tags import model_tags, window_tags
from tessera_cli.settings import Settings
from tessera_cli.window import Window

TILE = Tile(32631, 112, 1098)
WINDOW = Window.from_name("2023")
REQUESTED = np.zeros((512, 512), bool)
REQUESTED[:200, 30:300] = True


def arrays(seed: int, dims: int = 16, requested: np.ndarray = REQUESTED) -> dict[str, Any]:
    """Codes, scales and counts of a tile; some requested pixels have no embedding."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(-127, 128, (dims, 512, 512), np.int8)
    scales = rng.uniform(0.001, 0.2, (512, 512)).astype(np.float32)
    missing = ~requested | (rng.random((512, 512)) < 0.1)
    codes[:, missing], scales[missing] = -128, np.nan
    counts = rng.integers(0, 90, (3, 512, 512), np.uint16)
    return {"codes": codes, "scales": scales, "counts": counts, "requested": requested}


def settings(dims: int = 16, model: str = "v2-medium", **changes: Any) -> Settings:
    """Settings with a model that has a name and no network."""
    spec = replace(spec_named("v2-medium"), name=model, config=None, **changes)
    return Settings(replace(load_model("null"), spec=spec, sha256="ab" * 32), "mpc", dims)


def tags(dims: int = 16, **changes: Any) -> dict[str, str]:
    return model_tags(settings(dims, **changes))


def write(folder: Path, tile: Tile = TILE, seed: int = 0, **changes: Any) -> tuple[Asset, ...]:
    made = arrays(seed) | changes
    return geotiff.write_rasters(folder, tile, WINDOW, **made, tags=tags(len(made["codes"])), compress="deflate")


def values(made: dict[str, Any]) -> np.ndarray:
    """The embeddings, float32 (R, H, W), NaN where there is none."""
    return made["codes"].astype(np.float32) * made["scales"]


# --- whole or not at all ----------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = shutil.which("mount")
    done = mount and subprocess.run([mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True)
    if not done or done.returncode:
        pytest.skip("mounting a tmpfs is not permitted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_mode_bits_follow_the_umask(tmp_path: Path) -> None:
    for umask, mode in ((0o022, 0o644), (0o027, 0o640), (0o002, 0o664)):
        before = os.umask(umask)
        try:
            atomic.write_bytes(tmp_path / "file", b"x")
        finally:
            os.umask(before)
        assert (tmp_path / "file").stat().st_mode & 0o777 == mode


def test_full_disk_leaves_the_old_file_and_nothing_else(small_disk: Path) -> None:
    atomic.write_bytes(small_disk / "a.tif", b"old")
    with pytest.raises(DiskFullError, match=r"a\.tif cannot be written: the disk is full\. Make room") as caught:
        atomic.write_bytes(small_disk / "a.tif", bytes(2**21))
    assert caught.value.exit_code == 4
    assert (small_disk / "a.tif").read_bytes() == b"old"
    assert [p.name for p in small_disk.iterdir()] == ["a.tif"]
    with pytest.raises(DiskFullError):
        write(small_disk)


def test_read_only_mount(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(UsageError, match=r"cannot be written: read-only\. Choose another --out\.") as caught:
        atomic.write_json(small_disk / "run.json", {})
    assert caught.value.exit_code == 2


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(UsageError, match="no permission"):
        atomic.write_bytes(tmp_path / "a", b"")
    tmp_path.chmod(0o755)


@pytest.mark.parametrize(
    ("code", "expected"),
    [(errno.ENOSPC, DiskFullError), (errno.EDQUOT, DiskFullError), (errno.EACCES, UsageError), (errno.EIO, TileError)],
)
def test_errors_of_the_system_become_ours(tmp_path: Path, monkeypatch: Any, code: int, expected: type) -> None:
    def fail(_: int) -> None:
        raise OSError(code, os.strerror(code))

    (tmp_path / "a").write_bytes(b"old")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(expected, match="cannot be written"):
        atomic.write_bytes(tmp_path / "a", b"new")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"a": b"old"}


def test_interrupt_leaves_no_part(tmp_path: Path, monkeypatch: Any) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        atomic.write_bytes(tmp_path / "a", b"new")
    assert not list(tmp_path.iterdir())


def test_two_writers_of_one_name_never_mix(tmp_path: Path) -> None:
    contents = [bytes([i]) * 300_000 for i in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(lambda i: atomic.write_bytes(tmp_path / "a", contents[i % 4]), range(40)):
            assert (tmp_path / "a").read_bytes() in contents
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_parts_of_killed_runs_are_swept_when_old(tmp_path: Path) -> None:
    for name, age in (("a.tif.1234.part", 90_000), ("b.tif.1234.part", 60), ("a.tif", 90_000)):
        (tmp_path / name).write_bytes(b"")
        os.utime(tmp_path / name, (0, (dt.datetime.now() - dt.timedelta(seconds=age)).timestamp()))
    assert atomic.remove_stale_parts(tmp_path) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tif", "b.tif.1234.part"]


def test_json_is_readable_and_lines_are_deterministic(tmp_path: Path) -> None:
    atomic.write_json(tmp_path / "a.json", {"b": "ü", "a": [1]})
    assert (tmp_path / "a.json").read_text() == '{\n "b": "ü",\n "a": [\n  1\n ]\n}\n'
    with pytest.raises(ValueError, match="JSON"):
        atomic.write_json(tmp_path / "a.json", float("nan"))

    rows = [{"id": "b"}, {"id": "ä", "n": 1}]
    for name in ("x.gz", "y.gz"):
        atomic.write_ndjson_gz(tmp_path / name, iter(rows))
    data = (tmp_path / "x.gz").read_bytes()
    assert data == (tmp_path / "y.gz").read_bytes()
    _, flags, mtime = struct.unpack("<3sBI", data[:8])
    assert (flags, mtime) == (0, 0)  # no name, no time
    assert [json.loads(line) for line in gzip.decompress(data).splitlines()] == rows


# --- rasters ----------------------------------------------------------------------------------------------------------


def tiff_fields(data: bytes) -> dict[int, tuple[int, ...]]:
    """The first directory of a classic little-endian TIFF, without GDAL; 0 is the directory's own end."""
    magic, version, start = struct.unpack_from("<2sHI", data)
    assert (magic, version) == (b"II", 42)
    (count,) = struct.unpack_from("<H", data, start)
    fields: dict[int, tuple[int, ...]] = {0: (start, start + 2 + 12 * count)}
    for i in range(count):
        entry = start + 2 + 12 * i
        tag, kind, n = struct.unpack_from("<HHI", data, entry)
        code = {3: "H", 4: "I"}.get(kind)
        if code:
            size = struct.calcsize(code) * n
            offset = entry + 8 if size <= 4 else struct.unpack_from("<I", data, entry + 8)[0]
            fields[tag] = struct.unpack_from(f"<{n}{code}", data, offset)
    return fields


@pytest.mark.parametrize(("compress", "number"), [("zstd", 50000), ("deflate", 8), ("none", 1)])
def test_layout_of_the_codes(tmp_path: Path, compress: geotiff.Compress, number: int) -> None:
    made = arrays(1)
    data = geotiff.encode_tif(EMB, made["codes"], TILE, tags(), compress)
    fields = tiff_fields(data)
    assert fields[259] == (number,)
    assert fields[284] == (2,)  # planes: one band after the other
    assert fields[322] == fields[323] == (256,)
    assert set(fields[339]) == {2}  # signed integers
    assert set(fields[258]) == {8}
    offsets, sizes = np.array(fields[324]), np.array(fields[325])
    assert fields[0][0] < offsets[offsets > 0].min()  # the directory lies in front
    lower = np.arange(len(offsets)).reshape(16, 2, 2)[:, 1]
    assert not sizes[lower].any()  # rows 256.. were not requested
    assert sizes[np.setdiff1d(np.arange(len(sizes)), lower)].all()

    (tmp_path / "a.tif").write_bytes(data)
    with rasterio.open(tmp_path / "a.tif") as dataset:
        assert dataset.interleaving == Interleaving.band
        assert (dataset.crs.to_epsg(), dataset.transform) == (32631, TILE.transform)
        assert (set(dataset.dtypes), dataset.nodata) == ({"int8"}, -128)
        assert not any(dataset.overviews(band) for band in dataset.indexes)
        assert dataset.descriptions == tuple(f"Tessera_Band_{i}" for i in range(16))
        assert dataset.tags() == {"AREA_OR_POINT": "Area"} | tags()
        np.testing.assert_array_equal(dataset.read(), made["codes"])


def test_all_three_are_cloud_optimised(tmp_path: Path) -> None:
    assets = write(tmp_path)
    assert [asset.name for asset in assets] == [f"utm31n_c0112_r1098_2023_{r}.tif" for r in ("emb", "scales", "counts")]
    for asset in assets:
        assert cog_validate(tmp_path / asset.name, strict=True) == (True, [], [])
        with rasterio.open(tmp_path / asset.name) as dataset:
            assert dataset.interleaving == Interleaving.band


def test_scales_and_counts(tmp_path: Path) -> None:
    made = arrays(2)
    write(tmp_path, seed=2)
    with rasterio.open(tmp_path / raster_name(TILE, WINDOW, "scales")) as dataset:
        assert (dataset.dtypes, np.isnan(dataset.nodata)) == (("float32",), True)
        np.testing.assert_array_equal(dataset.read(1), made["scales"])
    with rasterio.open(tmp_path / raster_name(TILE, WINDOW, "counts")) as dataset:
        assert dataset.dtypes == ("uint16",) * 3
        assert dataset.descriptions == ("s2", "s1_asc", "s1_desc")
        counts = dataset.read(masked=True)
    np.testing.assert_array_equal(counts.mask, np.broadcast_to(~REQUESTED, counts.shape))
    np.testing.assert_array_equal(counts.data[:, REQUESTED], made["counts"][:, REQUESTED])


def test_nothing_takes_no_space() -> None:
    codes = np.full((128, 512, 512), -128, np.int8)
    assert len(geotiff.encode_tif(EMB, codes, TILE, tags(dims=128))) < 20_000  # 33.5 MB of pixels
    for layer in (SCALES, COUNTS):
        empty = np.full((len(layer.names), 512, 512), layer.nodata, layer.dtype)
        assert len(geotiff.encode_tif(layer, empty, TILE, tags())) < 4_000


def test_bytes_depend_on_the_data_alone() -> None:
    """Not on GDAL's threads, its cache, or the moment."""
    script = (
        "import hashlib, numpy as np; from tessera_cli.grid import Tile;"
        "from tessera_cli.outputs import geotiff, layers;"
        "codes = np.random.default_rng(3).integers(-9, 9, (48, 512, 512), np.int8); codes[:, 256:] = -128;"
        "data = geotiff.encode_tif(layers.EMB, codes, Tile(32631, 112, 1098), {'A': 'b'});"
        "print(hashlib.sha256(data).hexdigest())"
    )
    codes = np.random.default_rng(3).integers(-9, 9, (48, 512, 512), np.int8)
    codes[:, 256:] = -128
    here = hashlib.sha256(geotiff.encode_tif(EMB, codes, TILE, {"A": "b"})).hexdigest()
    environment = os.environ | {"GDAL_NUM_THREADS": "ALL_CPUS", "GDAL_CACHEMAX": "1"}
    there = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert there.stdout.strip() == here


def test_tags(tmp_path: Path) -> None:
    write(tmp_path, **arrays(0, dims=3))
    with rasterio.open(tmp_path / raster_name(TILE, WINDOW, "emb")) as dataset:
        written = dataset.tags()
    assert written == {
        "AREA_OR_POINT": "Area",
        "TESSERA_YEAR": "2023",
        "TESSERA_WINDOW": "2023-01-01/2023-12-31",
        "TESSERA_MODEL": "https://geotessera.org/model/2.0",
        "TESSERA_MODEL_NAME": "v2-medium",
        "TESSERA_SOURCE": "mpc",
        "TESSERA_BANDS": "0,1,2",
        "TESSERA_BUILD_VERSION": __version__,
        "TESSERA_DATASET_VERSION": "2.0-medium",
        "TESSERA_DATASET_VERSION_PATH": "v2",
        "TESSERA_DATASET_VARIANT": "local-mpc",
        "TESSERA_PREPROCESSING": "official",
        "TESSERA_DEQUANTIZE": "value = code * scale (band 1 of utm31n_c0112_r1098_2023_scales.tif)",
    }
    assert tags(model="v1.1-mpc")["TESSERA_MODEL"] == "https://geotessera.org/model/1.1"
    assert tags(model="v1.1-mpc")["TESSERA_DATASET_VERSION"] == "1.1"
    demo = tags(model="oak", demonstration_only=True)  # the card says so, whatever the name
    assert (demo["TESSERA_NOTE"], demo["TESSERA_MODEL"]) == ("for demonstration only", "urn:tessera-embed:model:oak")
    assert not any("/home" in value for value in tags(model="/home/me/runs/oak").values())


def test_wrong_arrays_are_refused() -> None:
    with pytest.raises(ValueError, match="int8"):
        geotiff.encode_tif(EMB, np.zeros((4, 512, 512), np.int16), TILE, {})
    with pytest.raises(ValueError, match="512"):
        geotiff.encode_tif(SCALES, np.zeros((1, 512, 256), np.float32), TILE, {})


# --- reading back -----------------------------------------------------------------------------------------------------


def check(folder: Path, assets: tuple[Asset, ...], requested: np.ndarray = REQUESTED) -> None:
    geotiff.read_back(folder, TILE, WINDOW, dims=16, requested=requested, assets=assets)


def test_read_back_sees_damaged_files(tmp_path: Path) -> None:
    assets = write(tmp_path)
    check(tmp_path, assets)
    path = tmp_path / assets[0].name
    good = path.read_bytes()

    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(TileError, match=r"_emb\.tif is not sound: its SHA-256 is .*Remove it and run again"):
        check(tmp_path, assets)
    path.write_bytes(good[:5000])
    truncated = (Asset.of("emb", path.name, good[:5000]), *assets[1:])
    with pytest.raises(TileError, match="it cannot be read"):
        check(tmp_path, truncated)
    path.unlink()
    with pytest.raises(TileError, match="it cannot be read"):
        check(tmp_path, assets)
    with pytest.raises(TileError, match=r"rasters \['counts', 'scales'\] recorded"):
        check(tmp_path, assets[1:])


def test_read_back_sees_another_layout(tmp_path: Path) -> None:
    assets = write(tmp_path)
    path = tmp_path / assets[0].name
    with rasterio.open(path) as dataset:
        profile, data, names = dataset.profile, dataset.read(), dataset.descriptions
    for change, what in (
        ({"interleave": "pixel"}, "interleave"),
        ({"nodata": 0}, "nodata"),
        ({"dtype": "int16"}, "type"),
        ({"crs": "EPSG:32632"}, "CRS"),
        ({"transform": Tile(32631, 113, 1098).transform}, "position"),
    ):
        with rasterio.open(path, "w", **profile | change) as dataset:
            dataset.descriptions = names
            dataset.write(data.astype(dataset.dtypes[0]))
        changed = (Asset.of("emb", path.name, path.read_bytes()), *assets[1:])
        with pytest.raises(TileError, match=f"its {what} is "):
            check(tmp_path, changed)


def test_rasters_that_disagree_are_not_accepted(tmp_path: Path) -> None:
    made = arrays(0)
    row, column = np.argwhere(~np.isnan(made["scales"]))[0]

    def changed(name: str, where: Any, value: float) -> dict[str, Any]:
        copy = made[name].copy()
        copy[where] = value
        return {name: copy}

    for change, what in (
        (changed("scales", (row, column), 0), "finite and positive"),
        (changed("scales", (row, column), np.inf), "finite and positive"),
        (changed("scales", (row, column), np.nan), "missing exactly where codes are"),
        (changed("scales", (500, 500), 1), "missing exactly where codes are"),
        (changed("codes", (3, row, column), -128), "a part of the bands"),
        (changed("requested", (row, column), False), "outside the requested"),
        (changed("counts", (0, row, column), 65535), "counts are not present"),
    ):
        with pytest.raises(TileError, match=what):
            write(tmp_path, **change)
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [DiskFullError, KeyboardInterrupt])
def test_what_is_not_written_to_the_end_leaves_nothing(tmp_path: Path, monkeypatch: Any, error: type) -> None:
    def fail_at_counts(path: Path, data: bytes) -> None:
        if path.name.endswith("_counts.tif"):
            raise error
        atomic.write_bytes(path, data)

    write(tmp_path)  # by an earlier run: without the record, which was set aside, they are worth nothing
    monkeypatch.setattr(geotiff, "write_bytes", fail_at_counts)
    with pytest.raises(error):
        write(tmp_path, seed=1)
    assert not list(tmp_path.iterdir())


# --- the record -------------------------------------------------------------------------------------------------------


def record(**changes: Any) -> TileRecord:
    dates = np.array(["2023-02-01", "2023-05-12", "2023-05-12", "2023-12-30"], "datetime64[D]")
    made = TileRecord(
        tile=TILE, window=WINDOW, status="done", identity=settings().identity(), device="cpu", software=__version__,
        pixels=int(np.int64(7)), requested=REQUESTED, note="for demonstration only",
        observations={"s2": Coverage.of(dates, WINDOW), "s1_asc": Coverage.of(dates[:0], WINDOW)},
        scenes=("S2A_1", "S2B_2"), input_digest="ab" * 32,
        holes={"S2B_2": "B04: 404"}, warnings=("s2: gap of 232 days",),
        assets=(Asset.of("emb", raster_name(TILE, WINDOW, "emb"), b"1"), Asset.of("scales", "s.tif", b"22")),
    )  # fmt: skip
    return replace(made, **changes)


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
    assert item.properties["emb:model"]["sha256"] == "ab" * 32
    assert item.properties["emb:identity"] == settings().identity()
    assert list(item.assets) == ["embedding", "scales", "counts"]
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


def test_the_record_survives_the_round_trip() -> None:
    for made in (
        record(),
        record(status="empty", pixels=0, assets=(), requested=np.eye(512, dtype=bool), scenes=(), holes={}),
        record(tile=Tile(32733, 90, 1200), window=Window.from_name("20230701-20240630")),
    ):
        item = json.loads(json.dumps(made.to_item()))
        validate(item)
        back = TileRecord.from_item(item)
        assert back.to_item() == made.to_item()
        np.testing.assert_array_equal(back.requested, made.requested)
        for field in fields(TileRecord):
            if field.name != "requested":
                assert getattr(back, field.name) == getattr(made, field.name)
    assert "emb:note" not in record(note="").to_item()["properties"]


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
        lambda item: item | {"id": "S2A_MSIL2A_2023"},
        lambda item: item | {"properties": {}},
        lambda item: item | {"properties": item["properties"] | {"emb:requested": "eJw="}},
        lambda item: item | {"properties": item["properties"] | {"emb:identity": None}},
        lambda item: item | {"assets": {"embedding": {}}},
    ],
)
def test_other_json_is_no_record(damage: Any) -> None:
    with pytest.raises(UsageError, match="not the record of a tile"):
        TileRecord.from_item(damage(record().to_item()))


# --- the virtual raster -----------------------------------------------------------------------------------------------

GAP = [Tile(32631, 112, 1098), Tile(32631, 113, 1098), Tile(32631, 113, 1097)]  # the south-western one is missing


def around(tiles: list[Tile]) -> vrt.Bounds:
    west, south, east, north = zip(*(tile.bounds for tile in tiles), strict=True)
    return (min(west), min(south), max(east), max(north))


def make_vrt(
    folder: Path, tiles: list[Tile], bounds: vrt.Bounds | None = None, dims: int = 3
) -> tuple[Path, np.ndarray]:
    """Files of some tiles and their VRT; its path and what the box around the tiles should hold, (R, H, W)."""
    west, north = min(tile.column for tile in tiles), max(tile.row for tile in tiles)
    height = 512 * (north - min(tile.row for tile in tiles) + 1)
    width = 512 * (max(tile.column for tile in tiles) - west + 1)
    expected = np.full((dims, height, width), np.nan, np.float32)
    for seed, tile in enumerate(tiles):
        requested = np.random.default_rng(seed).random((512, 512)) < 0.8
        made = arrays(seed, dims, requested)
        write(folder, tile, **made)
        row, column = (north - tile.row) * 512, (tile.column - west) * 512
        expected[:, row : row + 512, column : column + 512] = values(made)
    path = folder / vrt_name(tiles[0], WINDOW)
    xml = vrt.embedding_vrt(tiles, WINDOW, dims=dims, tags=tags(dims), bounds=bounds or around(tiles))
    atomic.write_bytes(path, xml.encode())
    return path, expected


def test_vrt_of_one_tile(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    west, _, _, north = TILE.bounds
    path, expected = make_vrt(
        tmp_path, [TILE], bounds=(west + 503, north - 4001, west + 2500, north - 100.0000001), dims=128
    )
    assert path.name == "utm31n_2023.vrt"
    with rasterio.open(path) as dataset:
        assert (dataset.count, set(dataset.dtypes)) == (128, {"float32"})
        assert all(np.isnan(nodata) for nodata in dataset.nodatavals)
        assert dataset.descriptions == tuple(f"Tessera_Band_{i}" for i in range(128))
        assert dataset.crs.to_epsg() == 32631
        assert tuple(dataset.bounds) == (west + 500, north - 4010, west + 2500, north - 100)
        assert dataset.tags() == tags(dims=128) | window_tags(WINDOW) | {"AREA_OR_POINT": "Area"}
        np.testing.assert_array_equal(dataset.read(), expected[:, 10:401, 50:250])
    assert not caplog.records


def test_vrt_of_three_tiles_and_a_gap(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "made").mkdir()
    path, expected = make_vrt(tmp_path / "made", GAP)
    path = (tmp_path / "made").rename(tmp_path / 'moved & "quoted"') / path.name
    monkeypatch.chdir("/")
    with rasterio.open(path) as dataset:
        assert dataset.shape == (1024, 1024)
        np.testing.assert_array_equal(dataset.read(), expected)
        for part in ((500, 20, 500, 20), (0, 1, 0, 1024), (700, 100, 100, 300), (511, 2, 511, 2)):
            row, height, column, width = part
            np.testing.assert_array_equal(
                dataset.read(window=Part(column, row, width, height)),
                expected[:, row : row + height, column : column + width],
            )
        assert np.isnan(dataset.read(1, window=Part(0, 512, 512, 512))).all()  # between the tiles
        np.testing.assert_array_equal(dataset.read(2, masked=True).mask, np.isnan(expected[1]))


def test_vrt_bounds_beyond_and_within_tiles(tmp_path: Path) -> None:
    west, _, _, north = TILE.bounds
    path, expected = make_vrt(tmp_path, GAP[:2], bounds=(west - 1000, north - 200, west + 5200, north + 300))
    with rasterio.open(path) as dataset:
        assert dataset.shape == (50, 620)
        found = dataset.read()
    assert np.isnan(found[:, :30]).all()
    assert np.isnan(found[:, :, :100]).all()
    np.testing.assert_array_equal(found[:, 30:, 100:], expected[:, :20, :520])


def test_vrt_through_a_warp_and_at_low_resolution(tmp_path: Path) -> None:
    path, expected = make_vrt(tmp_path, GAP)
    with rasterio.open(path) as dataset:
        same = WarpedVRT(dataset, crs=dataset.crs, transform=dataset.transform, width=1024, height=1024)
        np.testing.assert_allclose(same.read(), expected, rtol=2.0**-23)  # older GDAL warps in another precision
        with WarpedVRT(dataset, crs="EPSG:3857") as warped:
            found = warped.read(1)
        small = dataset.read(1, out_shape=(256, 256))
    nearest = expected[0][np.isfinite(expected[0])]
    gaps = [np.abs(nearest - value).min() for value in np.unique(found[np.isfinite(found)])[::997]]
    assert max(gaps) < 1e-5
    assert 0.3 < np.isnan(found).mean() < 0.6
    assert np.isin(small[~np.isnan(small)], expected).all()
    assert np.isnan(small[128:, :128]).all()


def test_vrt_of_sixteen_tiles_opens_at_once() -> None:
    """No file is touched before pixels are read, so none need exist."""
    tiles = [Tile(32631, 112 + i % 4, 1098 + i // 4) for i in range(16)]
    xml = vrt.embedding_vrt(tiles, WINDOW, dims=128, tags=tags(dims=128), bounds=around(tiles))
    assert len(xml) < 2_000_000
    start = dt.datetime.now()
    with rasterio.open(xml) as dataset:
        assert (dataset.count, dataset.shape) == (128, (2048, 2048))
    assert (dt.datetime.now() - start).total_seconds() < 1


def test_vrt_takes_one_zone() -> None:
    with pytest.raises(ValueError, match="one zone"):
        vrt.embedding_vrt([TILE, Tile(32632, 112, 1098)], WINDOW, dims=1, tags={}, bounds=TILE.bounds)
    with pytest.raises(ValueError, match="at least one"):
        vrt.embedding_vrt([], WINDOW, dims=1, tags={}, bounds=TILE.bounds)


NEWER_GDAL = """
import ctypes as c, sys
import numpy as np, pyogrio
gdal = c.CDLL(sys.argv[1])
gdal.GDALVersionInfo.restype = c.c_char_p
if int(gdal.GDALVersionInfo(b"VERSION_NUM")) < 3120000:
    sys.exit(77)
gdal.GDALAllRegister()
gdal.GDALOpen.restype = gdal.GDALGetRasterBand.restype = c.c_void_p
gdal.GDALGetRasterBand.argtypes = [c.c_void_p, c.c_int]
gdal.GDALRasterIO.argtypes = [c.c_void_p] + [c.c_int] * 5 + [c.c_void_p] + [c.c_int] * 5
band = gdal.GDALGetRasterBand(gdal.GDALOpen(sys.argv[2].encode(), 0), 2)
found = np.zeros((1024, 1024), np.float32)
assert gdal.GDALRasterIO(band, 0, 0, 0, 1024, 1024, found.ctypes.data, 1024, 1024, 6, 0, 0) == 0
np.save(sys.argv[3], found)
"""


def test_vrt_in_newer_gdal(tmp_path: Path) -> None:
    """GDAL 3.12 leaves nodata factors out of a product unless told otherwise; pyogrio brings such a GDAL along."""
    spec = importlib.util.find_spec("pyogrio")
    assert spec
    assert spec.origin
    libraries = glob.glob(str(Path(spec.origin).parents[1] / "pyogrio.libs" / "libgdal*"))  # noqa: PTH207
    if not libraries:
        pytest.skip("pyogrio has no GDAL of its own here")
    path, expected = make_vrt(tmp_path, GAP)
    command = [sys.executable, "-c", NEWER_GDAL, libraries[0], path, tmp_path / "found.npy"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 77:
        pytest.skip("pyogrio's GDAL is older than 3.12")
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "found.npy"), expected[1])
