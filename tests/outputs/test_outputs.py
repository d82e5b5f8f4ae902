"""Files on disk: written whole, laid out as promised, read by other tools than ours."""

from __future__ import annotations

import ast
import datetime as dt
import errno
import gzip
import hashlib
import io
import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.enums import Interleaving
from rio_cogeo import cog_validate

from tessera_cli import __version__
from tessera_cli import files as atomic
from tessera_cli.errors import DiskFullError, TileError, UsageError
from tessera_cli.extent.grid import AnyTile, ForeignTile, Tile, parse_tile_name, tile_name
from tessera_cli.extent.window import Window
from tessera_cli.outputs import formats, geotiff
from tessera_cli.outputs.asset import Asset
from tessera_cli.outputs.layers import CODES, COUNTS, SCALES, VALUES, Layer, file_name, tiles_of_file
from tessera_cli.outputs.tags import window_tags
from tessera_cli.parts import remove_stale_parts
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
    tags,
    values,
    write,
)

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
    remove_stale_parts(tmp_path)
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


def tif(layer: Layer, data: np.ndarray, tags: Mapping[str, str], compress: formats.Compress = "zstd") -> bytes:
    with geotiff.encoded_tif(layer, data, len(data), TILE, tags, compress) as encoded:
        return bytes(encoded)


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
    data = tif(CODES, made["codes"], tags(), compress)
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
    with rasterio.open(tmp_path / file_name(NAME, "scales", "geotiff")) as dataset:
        assert (dataset.dtypes, np.isnan(dataset.nodata)) == (("float32",), True)
        np.testing.assert_array_equal(dataset.read(1), made["scales"])
    with rasterio.open(tmp_path / file_name(NAME, "counts", "geotiff")) as dataset:
        assert dataset.dtypes == ("uint16",) * 3
        assert dataset.descriptions == ("s2", "s1_asc", "s1_desc")
        counts = dataset.read(masked=True)
    np.testing.assert_array_equal(counts.mask, np.broadcast_to(~REQUESTED, counts.shape))
    np.testing.assert_array_equal(counts.data[:, REQUESTED], made["counts"][:, REQUESTED])


def test_nothing_takes_no_space() -> None:
    codes = np.full((128, 512, 512), -128, np.int8)
    assert len(tif(CODES, codes, tags(dims=128))) < 20_000  # 33.5 MB of pixels
    for layer in (SCALES, COUNTS):
        empty = np.full((len(layer.names), 512, 512), layer.nodata, layer.dtype)
        assert len(tif(layer, empty, tags())) < 4_000


def test_bytes_depend_on_the_data_alone() -> None:
    """Not on GDAL's threads, its cache, or the moment."""
    script = (
        "import hashlib, numpy as np; from tessera_cli.extent.grid import Tile;"
        "from tessera_cli.outputs import geotiff, layers;"
        "codes = np.random.default_rng(3).integers(-9, 9, (48, 512, 512), np.int8); codes[:, 256:] = -128\n"
        "with geotiff.encoded_tif(layers.CODES, codes, 48, Tile(32631, 112, 1098), {'A': 'b'}) as data:"
        " print(hashlib.sha256(data).hexdigest())"
    )
    codes = np.random.default_rng(3).integers(-9, 9, (48, 512, 512), np.int8)
    codes[:, 256:] = -128
    here = hashlib.sha256(tif(CODES, codes, {"A": "b"})).hexdigest()
    environment = os.environ | {"GDAL_NUM_THREADS": "ALL_CPUS", "GDAL_CACHEMAX": "1"}
    there = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert there.stdout.strip() == here


def test_tags(tmp_path: Path) -> None:
    write(tmp_path, **arrays(0, dims=3))
    with rasterio.open(tmp_path / file_name(NAME, "emb", "geotiff")) as dataset:
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
    demo = tags(model="oak", note="for demonstration only")  # the card says so, whatever the name
    assert (demo["TESSERA_NOTE"], demo["TESSERA_MODEL"]) == ("for demonstration only", "urn:tessera-embed:model:oak")
    assert not any("/home" in value for value in tags(model="/home/me/runs/oak").values())


@pytest.mark.parametrize(
    ("model", "source", "version", "path", "variant"),
    [
        ("v1.0", "mpc", "1.0", "v1.0", "local-mpc"),
        ("v1.0-qat", "mpc", "1.0-qat", "v1.0", "local-mpc"),
        ("v1.1-mpc", "mpc", "1.1", "v1.1", "local-mpc"),
        ("v1.1-aws", "aws", "1.1", "v1.1", "local-aws"),
        ("v1.1-mpc", "aws", "1.1-mpc", "v1.1", "local-aws"),  # with --force-source
        ("v1.1-aws", None, "1.1-aws", "v1.1", "local-unknown"),
        ("v2-teacher", None, "2.0-teacher", "v2", "local-unknown"),
        ("oak", "mpc", "oak", "oak", "local-mpc"),
    ],
)
def test_what_does_not_belong_together_has_other_tags(
    model: str, source: str | None, version: str, path: str, variant: str
) -> None:
    """geotessera merges what has the same version and variant, and what has none."""
    found = tags(model=model, source=source)
    assert found["TESSERA_DATASET_VERSION"] == version
    assert found["TESSERA_DATASET_VERSION_PATH"] == path
    assert found["TESSERA_DATASET_VARIANT"] == variant
    assert found.get("TESSERA_SOURCE") == source
    if path != "oak":
        assert found["TESSERA_MODEL"] == f"https://geotessera.org/model/{version[:3]}"


def test_wrong_arrays_are_refused() -> None:
    with pytest.raises(ValueError, match="int8"):
        tif(CODES, np.zeros((4, 512, 512), np.int16), {})
    short = geotiff.encoded_tif(CODES, np.zeros((4, 512, 512), np.int8), 5, TILE, {})
    with pytest.raises(ValueError, match="shorter"), short:
        pass
    with pytest.raises(ValueError, match="512"):
        tif(SCALES, np.zeros((1, 512, 256), np.float32), {})


# --- reading back -----------------------------------------------------------------------------------------------------


def check(folder: Path, assets: tuple[Asset, ...], made: dict[str, Any] | None = None, **changes: Any) -> None:
    """Read files back against a record of `made`."""
    made = made or arrays(0)
    there = int((~np.isnan(made["scales"])).sum())
    defaults = {"assets": assets, "requested": made["requested"], "pixels": there}
    formats.read_back(folder, record(**defaults | changes))


def rewritten(folder: Path, assets: tuple[Asset, ...], role: str, data: bytes) -> tuple[Asset, ...]:
    """The assets after one file was replaced, with its new checksum: what only reading the pixels can tell."""
    old = next(asset for asset in assets if asset.role == role)
    (folder / old.name).write_bytes(data)
    return tuple(Asset.of(a.role, a.name, data) if a is old else a for a in assets)


def test_read_back_sees_damaged_files(tmp_path: Path) -> None:
    assets = write(tmp_path)
    check(tmp_path, assets)
    path = tmp_path / assets[0].name
    good = path.read_bytes()

    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    with pytest.raises(TileError, match=r"_emb\.tif is damaged: its SHA-256 is .*Remove it and run again"):
        check(tmp_path, assets)
    truncated = rewritten(tmp_path, assets, "emb", good[:5000])
    with pytest.raises(TileError, match="it cannot be read"):
        check(tmp_path, truncated)
    path.unlink()
    with pytest.raises(TileError, match="it cannot be read"):
        check(tmp_path, assets)
    with pytest.raises(TileError, match=r"files \[.*_counts\.tif', '.*_scales\.tif'\] recorded, not"):
        check(tmp_path, assets[1:])


def test_read_back_sees_a_record_that_says_something_else(tmp_path: Path) -> None:
    assets = write(tmp_path)
    for changes, what in (
        ({"pixels": 3}, r"it holds \d+ embeddings, and 3 are recorded"),
        ({"identity": identity(dims=8)}, "its bands is"),
        ({"identity": identity(dtype="float32")}, "recorded, not"),
        ({"identity": identity(format="npy")}, "recorded, not"),
        ({"tile": Tile(32631, 113, 1098)}, "recorded, not"),
        ({"status": "empty"}, "it says that the tile is empty"),
    ):
        with pytest.raises(TileError, match=what):
            check(tmp_path, assets, **changes)
    formats.read_back(tmp_path, record(status="empty", pixels=0, assets=()))


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
        with pytest.raises(TileError, match=f"its {what} is "):
            check(tmp_path, rewritten(tmp_path, assets, "emb", path.read_bytes()))


@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_rasters_that_disagree_are_not_accepted(tmp_path: Path, dtype: str) -> None:
    made = arrays(0)
    assets = write(tmp_path, dtype=dtype)
    row, column = np.argwhere(~np.isnan(made["scales"]))[0]
    emb, layer = (made["codes"], CODES) if dtype == "int8" else (values(made), VALUES)
    counts = np.where(REQUESTED, made["counts"], np.uint16(65535))
    scales = made["scales"][None]
    cases = [
        ("emb", layer, emb, (3, row, column), layer.nodata, "a part of the bands"),
        ("emb", layer, emb, np.s_[:, row, column], layer.nodata, "exactly where codes" if dtype == "int8" else "holds"),
        ("emb", layer, emb, np.s_[:, 500, 500], 1, "outside the requested"),
        ("counts", COUNTS, counts, (0, row, column), 65535, "counts are not present"),
        ("counts", COUNTS, counts, (0, 500, 500), 0, "counts are not present"),
    ]
    if dtype == "int8":
        cases += [
            ("scales", SCALES, scales, (0, row, column), 0, "finite and positive"),
            ("scales", SCALES, scales, (0, row, column), np.inf, "finite and positive"),
            ("scales", SCALES, scales, (0, row, column), np.nan, "missing exactly where codes are"),
            ("scales", SCALES, scales, (0, 500, 500), 1, "missing exactly where codes are"),
        ]
    else:
        cases += [("emb", layer, emb, (3, row, column), -np.inf, "some values are infinite")]
    for role, kind, array, where, value, what in cases:
        copy = array.copy()
        copy[where] = value
        data = tif(kind, copy, {})
        good = next(tmp_path / asset.name for asset in assets if asset.role == role).read_bytes()
        with pytest.raises(TileError, match=what):
            check(tmp_path, rewritten(tmp_path, assets, role, data), identity=identity(dtype=dtype))
        rewritten(tmp_path, assets, role, good)


@pytest.mark.parametrize(("format", "dtype"), FORMATS)
def test_what_cannot_be_stored_leaves_nothing(tmp_path: Path, format: formats.Format, dtype: str) -> None:
    made = arrays(0)
    pixels = ~np.isnan(made["scales"])
    row, column = np.argwhere(pixels)[0]
    unasked = REQUESTED.copy()
    unasked[row, column] = False
    bad = [encoded(made | {"requested": unasked}, dtype=dtype, format=format)]
    good = encoded(made, dtype=dtype, format=format)
    if dtype == "int8":
        scales = made["scales"][pixels]
        for value in (0, np.inf, np.nan, -1):
            bad.append(replace(good, scales=np.where(np.arange(len(scales)) == 5, np.float32(value), scales)))
    else:
        for where, value in (((5, 3), np.nan), ((5, 0), np.nan), (5, np.nan), ((5, 3), np.inf)):
            numbers = good.values.copy()
            numbers[where] = value
            bad.append(replace(good, values=numbers))
    if (format, dtype) == ("geotiff", "int8"):  # -128 means that there is none
        for where in ((5, 3), 5):
            codes = good.values.copy()
            codes[where] = -128
            bad.append(replace(good, values=codes))
    for tile in bad:
        with pytest.raises(TileError, match="is damaged"):
            formats.write(tmp_path, tile)
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [DiskFullError, KeyboardInterrupt])
@pytest.mark.parametrize(("format", "last"), [("geotiff", "_counts.tif"), ("npy", "_scales.npy")])
def test_what_is_not_written_to_the_end_leaves_nothing(
    tmp_path: Path, monkeypatch: Any, error: type, format: formats.Format, last: str
) -> None:
    def fail_at_the_last(path: Path, data: bytes) -> None:
        if path.name.endswith(last):
            raise error
        atomic.write_bytes(path, data)

    # By an earlier run: without its record it is worth nothing.
    formats.write(tmp_path, encoded(arrays(0), format=format))
    assert (tmp_path / f"{NAME}{last}").exists()
    monkeypatch.setattr(formats, "write_bytes", fail_at_the_last)
    with pytest.raises(error):
        formats.write(tmp_path, encoded(arrays(1), format=format))
    assert not list(tmp_path.iterdir())


def test_a_tile_of_wrong_arrays_is_not_made() -> None:
    made = encoded(arrays(0))
    for change, what in (
        ({"values": made.values[:-1]}, "values"),
        ({"values": made.values[:, 0]}, "values"),
        ({"values": made.values.astype(np.int16)}, "values"),
        ({"scales": None}, "values"),
        ({"scales": made.scales.astype(np.float64)}, "scales"),
        ({"counts": made.counts[:2]}, "counts"),
        ({"record": replace(made.record, requested=REQUESTED[:, :500])}, "requested"),
        ({"record": replace(made.record, identity=identity(8))}, "values"),
        ({"pixels": made.pixels.astype(np.uint8)}, "pixels"),
    ):
        with pytest.raises(ValueError, match=f"{what}: "):
            replace(made, **change)


# --- float32 and official tiles ---------------------------------------------------------------------------------------


def test_float32_rasters(tmp_path: Path) -> None:
    made = arrays(3)
    assets = formats.write(tmp_path, encoded(made, dtype="float32"))
    assert [asset.name for asset in assets] == [f"{NAME}_emb.tif", f"{NAME}_counts.tif"]
    assert len(list(tmp_path.iterdir())) == 2
    for asset in assets:
        assert cog_validate(tmp_path / asset.name, strict=True) == (True, [], [])
    with rasterio.open(tmp_path / assets[0].name) as dataset:
        assert (set(dataset.dtypes), np.isnan(dataset.nodata)) == ({"float32"}, True)
        assert dataset.interleaving == Interleaving.band
        assert dataset.descriptions == tuple(f"Tessera_Band_{i}" for i in range(16))
        assert "TESSERA_DEQUANTIZE" not in dataset.tags()
        assert dataset.tags()["TESSERA_YEAR"] == "2023"
        np.testing.assert_array_equal(dataset.read(), values(made))
        np.testing.assert_array_equal(dataset.read(1, masked=True).mask, np.isnan(made["scales"]))
    sizes = np.array(tiff_fields((tmp_path / assets[0].name).read_bytes())[325]).reshape(16, 2, 2)
    assert not sizes[:, 1].any()  # rows 256.. were not requested
    check(tmp_path, assets, made, identity=identity(dtype="float32"))


def test_rasters_are_those_of_the_arrays(tmp_path: Path) -> None:
    """Byte for byte what the layers give that are put together here, pixel by pixel."""
    made = arrays(5)
    write(tmp_path, **made)
    own = tags() | window_tags(WINDOW) | {"TESSERA_DEQUANTIZE": f"value = code * scale (band 1 of {NAME}_scales.tif)"}
    counts = made["counts"].copy()
    counts[:, ~REQUESTED] = 65535
    for role, layer, array in (
        ("emb", CODES, made["codes"]),
        ("scales", SCALES, made["scales"][None]),
        ("counts", COUNTS, counts),
    ):
        data = tif(layer, array, own, "deflate")
        assert (tmp_path / f"{NAME}_{role}.tif").read_bytes() == data


@pytest.mark.parametrize("compress", ["zstd", "deflate", "none"])
@pytest.mark.parametrize("dtype", ["int8", "float32"])
@pytest.mark.parametrize("shape", [(3, 4), (37, 500), (500, 500), (257, 16)])
def test_rasters_of_official_tiles(
    tmp_path: Path, shape: tuple[int, int], dtype: str, compress: formats.Compress
) -> None:
    tile = replace(PLACED, shape=shape)
    made = foreign(tile)
    assets = formats.write(tmp_path, encoded(made, tile, dtype), compress=compress)
    assert assets[0].name == "field_emb.tif"
    for asset in assets:
        assert cog_validate(tmp_path / asset.name, strict=True) == (True, [], [])
        with rasterio.open(tmp_path / asset.name) as dataset:
            assert (dataset.shape, dataset.crs.to_epsg(), dataset.transform) == (shape, 32733, tile.transform)
            assert dataset.interleaving == Interleaving.band
            assert not {"TESSERA_YEAR", "TESSERA_WINDOW"} & dataset.tags().keys()
    with rasterio.open(tmp_path / assets[0].name) as dataset:
        np.testing.assert_array_equal(dataset.read(), made["codes"] if dtype == "int8" else values(made))
    own = record(tile=tile, window=None, identity=identity(5, dtype), assets=assets)
    check(tmp_path, assets, made, tile=tile, window=None, identity=own.identity)


def test_a_raster_in_another_projection(tmp_path: Path) -> None:
    """A CRS without a code comes back from the file in other words, and is still the same."""
    crs = rasterio.CRS.from_proj4("+proj=laea +lat_0=52 +lon_0=10.5 +x_0=4321000 +y_0=3210000 +ellps=GRS80 +units=m")
    tile = ForeignTile("laea", (40, 30), crs.to_wkt(), Affine(10.5, 0, 4321000.25, 0, -10.5, 3210000.75))
    made = foreign(tile)
    assets = formats.write(tmp_path, encoded(made, tile, "float32"))
    with rasterio.open(tmp_path / assets[0].name) as dataset:
        assert dataset.crs == crs
        assert dataset.transform == tile.transform


def test_a_thousand_bands(tmp_path: Path) -> None:
    made = foreign(PLACED, dims=1024)
    assets = formats.write(tmp_path, encoded(made, PLACED, "float32"))
    assert cog_validate(tmp_path / assets[0].name, strict=True)[0]
    with rasterio.open(tmp_path / assets[0].name) as dataset:
        assert (dataset.count, dataset.descriptions[-1]) == (1024, "Tessera_Band_1023")
        np.testing.assert_array_equal(dataset.read(1024), values(made)[1023])


def test_what_lies_nowhere_is_no_geotiff(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"needs a georeference \(roi\.tiff\)\. Use --format npy"):
        formats.write(tmp_path, encoded(foreign(NOWHERE), NOWHERE))
    for format in ("geotiff", "npy"):
        with pytest.raises(UsageError, match=r"run\.json holds"):
            formats.check_tile(format, replace(PLACED, id="run"))
    formats.check_tile("npy", NOWHERE)
    assert not list(tmp_path.iterdir())


# --- arrays -----------------------------------------------------------------------------------------------------------


def npy_header(path: Path) -> tuple[bytes, dict[str, Any]]:
    """Magic string with version, and the header of an .npy file, without numpy."""
    data = path.read_bytes()
    (length,) = struct.unpack_from("<H", data, 8)
    assert (10 + length) % 64 == 0
    return data[:8], ast.literal_eval(data[10 : 10 + length].decode("latin1"))


@pytest.mark.parametrize("tile", [NOWHERE, PLACED, TILE], ids=["3x4", "37x500", "grid"])
def test_arrays_of_codes(tmp_path: Path, tile: AnyTile) -> None:
    made = arrays(4) if tile is TILE else foreign(tile)
    name, missing = (NAME if tile is TILE else tile.id), np.isnan(made["scales"])
    assets = formats.write(tmp_path, encoded(made, tile, format="npy"))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(a.name for a in assets)
    assert [asset.name for asset in assets] == [f"{name}.npy", f"{name}_scales.npy"]
    for asset, kind, shape in zip(assets, ("|i1", "<f4"), ((*tile.shape, len(made["codes"])), tile.shape), strict=True):
        magic, header = npy_header(tmp_path / asset.name)
        assert magic == b"\x93NUMPY\x01\x00"
        assert header == {"descr": kind, "fortran_order": False, "shape": shape}
    codes, scales = (np.load(tmp_path / asset.name, allow_pickle=False) for asset in assets)
    np.testing.assert_array_equal(scales, made["scales"])
    np.testing.assert_array_equal(codes[~missing], np.moveaxis(made["codes"], 0, -1)[~missing])
    assert not codes[missing].any()  # as in the official files


@pytest.mark.parametrize("tile", [NOWHERE, TILE], ids=["3x4", "grid"])
def test_arrays_of_float32(tmp_path: Path, tile: AnyTile) -> None:
    made = arrays(4) if tile is TILE else foreign(tile)
    (asset,) = formats.write(tmp_path, encoded(made, tile, "float32", format="npy"))
    assert [path.name for path in tmp_path.iterdir()] == [asset.name]
    magic, header = npy_header(tmp_path / asset.name)
    assert magic == b"\x93NUMPY\x01\x00"
    assert header == {"descr": "<f4", "fortran_order": False, "shape": (*tile.shape, len(made["codes"]))}
    np.testing.assert_array_equal(np.load(tmp_path / asset.name), np.moveaxis(values(made), 0, -1))
    again = tmp_path / "again"
    again.mkdir()
    assert formats.write(again, encoded(made, tile, "float32", format="npy")) == (asset,)


def test_arrays_that_disagree_are_not_accepted(tmp_path: Path) -> None:
    made = arrays(0)
    there = ~np.isnan(made["scales"])
    row, column = np.argwhere(there)[0]

    def refused(dtype: str, role: str, change: Any, what: str, **record_changes: Any) -> None:
        assets = formats.write(tmp_path, encoded(made, dtype=dtype, format="npy"))
        path = next(tmp_path / asset.name for asset in assets if asset.role == role)
        data = change(np.load(path))
        assets = rewritten(tmp_path, assets, role, data if isinstance(data, bytes) else saved(data))
        own = {"identity": identity(dtype=dtype, format="npy"), "counts": made["counts"]}
        with pytest.raises(TileError, match=what):
            check(tmp_path, assets, made, **own | record_changes)

    def put(where: Any, value: float) -> Any:
        def change(array: np.ndarray) -> np.ndarray:
            array[where] = value
            return array

        return change

    def saved(array: np.ndarray, version: tuple[int, int] = (1, 0)) -> bytes:
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, array, version)
        return buffer.getvalue()

    for value in (0, -1, np.inf):
        refused("int8", "scales", put((row, column), value), "finite and positive")
    refused("int8", "scales", put((row, column), np.nan), "without an embedding hold values")
    refused("int8", "scales", put((500, 500), 1), "outside the requested")
    refused("int8", "emb", put((500, 500, 3), 1), "without an embedding hold values")
    refused("float32", "emb", put((500, 500, 3), 1), "without an embedding hold values")
    refused("float32", "emb", put((500, 500), 1), "outside the requested")
    refused("float32", "emb", put((row, column, 3), np.nan), "some values are not finite")
    refused("float32", "emb", put((row, column, 3), np.inf), "some values are not finite")
    refused("float32", "emb", put((row, column), np.nan), "it holds .* embeddings")
    refused("int8", "emb", lambda array: array[:, :-1], "its shape is")
    refused("int8", "emb", lambda array: array.astype(np.uint8), "its type is")
    refused("int8", "emb", lambda array: saved(np.asfortranarray(array)), "its order is Fortran")
    refused("int8", "emb", lambda array: saved(array, (2, 0)), r"its version is \(2, 0\)")
    refused("int8", "emb", lambda array: b"no array", "it cannot be read")
    refused("int8", "emb", lambda array: saved(array)[:-1], "it cannot be read")
    refused("int8", "emb", lambda array: b"", "it cannot be read")
    refused("float32", "emb", lambda array: array, "lacks counts", counts=None)
    counts = np.where(REQUESTED, made["counts"], np.uint16(65535))
    counts[0, row, column] = 65535
    refused("float32", "emb", lambda array: array, "lacks counts", counts=counts)
    check(
        tmp_path,
        formats.write(tmp_path, encoded(made, format="npy")),
        made,
        identity=identity(format="npy"),
        counts=np.where(REQUESTED, made["counts"], np.uint16(65535)),
    )


def test_remove_takes_all_formats_and_nothing_else(tmp_path: Path) -> None:
    for format, dtype in FORMATS:
        formats.write(tmp_path, encoded(arrays(0), dtype=dtype, format=format))
    (tmp_path / f"{NAME}.json").write_text("{}")
    formats.write(tmp_path, encoded(foreign(NOWHERE), NOWHERE, format="npy"))
    formats.remove(tmp_path, NAME)
    formats.remove(tmp_path, "none")
    kept = {f"{NAME}.json", "Somewhere_else.2.npy", "Somewhere_else.2_scales.npy"}
    assert {path.name for path in tmp_path.iterdir()} == kept


def test_names_of_files_and_tiles() -> None:
    assert file_name("a", "emb", "npy") == "a.npy"
    assert tiles_of_file("a_scales.npy") == ["a_scales", "a"]
    assert tiles_of_file("a_counts.tif") == ["a"]
    assert tiles_of_file("a.json") == []
    assert parse_tile_name(NAME) == (TILE, WINDOW)
    window = Window.from_name("20230701-20240630")
    assert parse_tile_name(tile_name(TILE, window)) == (TILE, window)
    for name in ("field", "utm31n_c0112_r1098", "utm31n_c0112_r1098_23", "field_2023", ""):
        assert parse_tile_name(name) is None
