"""d-pixels on disk: Zarr stores and official tile folders, whole and damaged."""

from __future__ import annotations

import dataclasses
import errno
import importlib
import json
import logging
import os
import pickle
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import xarray as xr
import zarr
from affine import Affine

from tessera_cli.dpixels import (
    find_stores,
    open_dpixels,
    read_folder,
    read_store,
    write_folder,
    write_store,
    zarr_store,
)
from tessera_cli.dpixels.dpixel import S1_BANDS, S2_BANDS, DPixels
from tessera_cli.errors import DiskFullError, TesseraError, TileError, UsageError
from tessera_cli.extent.grid import ForeignTile, Tile
from tessera_cli.extent.window import Window
from tests.helpers.tiles import GOLDEN

TILE = Tile(32631, 112, 1098)
NAME = "utm31n_c0112_r1098_2023"
GOLDEN_FOLDERS = sorted(folder for folder in GOLDEN.glob("*/*/tile/*") if folder.is_dir())
SPECIFIED = {"bytes", "blosc", "crc32c", "gzip", "transpose", "sharding_indexed"}
"""Codecs in the specification of Zarr v3."""


def sample(
    s2: int = 3, s1_asc: int = 2, s1_desc: int = 1, *, seed: int = 0, start: str = "2023-01-03", **changes: Any
) -> DPixels:
    """d-pixels with these numbers of frames, half of them cloudy, every fifth day."""
    rng = np.random.default_rng(seed)

    def repeated(frames: int, *bands: int, low: int, high: int, dtype: type = np.int16) -> np.ndarray:
        block = rng.integers(low, high, (frames, 16, 16, *bands), dtype=dtype)
        return np.tile(block, (1, TILE.shape[0] // 16, TILE.shape[1] // 16, *(1 for _ in bands)))

    mask = repeated(s2, low=0, high=2, dtype=np.uint8)

    def dates(frames: int) -> np.ndarray:
        return np.datetime64(start) + np.arange(frames) * np.timedelta64(5, "D")

    plain = DPixels(
        tile=TILE,
        window=Window.from_name("2023"),
        s2=repeated(s2, 10, low=1, high=10000, dtype=np.uint16) * mask[..., None],
        s2_mask=mask,
        s2_dates=dates(s2),
        s1_asc=repeated(s1_asc, 2, low=-5, high=9000),
        s1_asc_dates=dates(s1_asc),
        s1_desc=repeated(s1_desc, 2, low=-5, high=9000),
        s1_desc_dates=dates(s1_desc),
        requested=rng.random(TILE.shape) < 0.7,
        source="mpc",
        preprocessing="official",
        scenes=("S2A_b", "S2A_a", "S1A_ö"),
        missing_scenes={"S2A_a": "B04 is absent (404)"},
        input_digest="0123abcd",
    )
    return dataclasses.replace(plain, **changes)


def assert_same(found: DPixels, due: DPixels, *, but: tuple[str, ...] = ()) -> None:
    for field in dataclasses.fields(DPixels):
        a, b = getattr(found, field.name), getattr(due, field.name)
        if field.name in but:
            continue
        if isinstance(b, np.ndarray):
            assert a.dtype == b.dtype, field.name
            np.testing.assert_array_equal(a, b, err_msg=field.name)
        else:
            assert a == b, field.name


def tree(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def assert_one_line(error: BaseException) -> None:
    """what: why. what to do."""
    text = str(error)
    assert "\n" not in text
    assert text.endswith(".")
    assert text.count(". ") >= 1


@pytest.fixture(scope="module")
def dpixels() -> DPixels:
    return sample()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, dpixels: DPixels) -> Path:
    """A store that no test may change."""
    return write_store(tmp_path_factory.mktemp("written"), dpixels)


@pytest.fixture
def store(tmp_path: Path, written: Path) -> Path:
    """A store to damage."""
    return Path(shutil.copytree(written, tmp_path / written.name))


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> DPixels:
    """The d-pixels of a small official folder, 6 x 9 pixels."""
    folder = tmp_path_factory.mktemp("official")
    whole, part = sample(4, 3, 2), (slice(None), slice(6), slice(9))
    tile = ForeignTile("x0_y0_x9_y6", (6, 9), "EPSG:32631", Affine(10, 0, 500000, 0, -10, 5800000))
    cut = {name: getattr(whole, name)[part] for name in ("s2", "s2_mask", "s1_asc", "s1_desc")}
    return read_folder(
        write_folder(
            folder, dataclasses.replace(whole, tile=tile, window=None, **cut, requested=whole.requested[part[1:]])
        )
    )


@pytest.fixture
def folder(tmp_path: Path, official: DPixels) -> Path:
    """An official folder to damage."""
    return write_folder(tmp_path, official)


# Zarr stores ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [(3, 2, 1), (2, 0, 1), (2, 1, 0), (1, 0, 0), (0, 2, 2), (0, 0, 0)])
def test_a_store_gives_back_what_was_written(tmp_path: Path, frames: tuple[int, int, int]) -> None:
    due = sample(*frames)
    path = write_store(tmp_path, due)
    assert path == tmp_path / f"{NAME}.zarr"
    assert_same(read_store(path), due)
    assert names_in(tmp_path) == [path.name]


@pytest.mark.parametrize(
    "changes",
    [
        {"requested": np.zeros(TILE.shape, bool)},
        {"requested": np.ones(TILE.shape, bool)},
        {"window": Window.from_name("20221201-20230430")},
        {"tile": Tile(32733, 100, -3)},
        {"source": None, "scenes": (), "missing_scenes": {}, "input_digest": ""},
    ],
)
def test_descriptions_come_back(tmp_path: Path, changes: dict[str, Any]) -> None:
    due = sample(1, 1, 0, **changes)
    assert_same(read_store(write_store(tmp_path / "made" / "on the way", due)), due)


def test_what_lies_under_masks_is_stored_as_zero(tmp_path: Path, dpixels: DPixels) -> None:
    dirty = dataclasses.replace(
        dpixels, s2=dpixels.s2 + 7 * (1 - dpixels.s2_mask[..., None]), s2_mask=dpixels.s2_mask * 4
    )
    path = write_store(tmp_path, dirty)
    raw = np.asarray(zarr.open_group(path, mode="r")["s2"][...])
    assert not raw[dpixels.s2_mask == 0].any()
    assert_same(read_store(path), dpixels)


def test_zeros_cost_nothing_and_are_no_damage(tmp_path: Path, dpixels: DPixels) -> None:
    due = dataclasses.replace(dpixels, s2=np.zeros_like(dpixels.s2), s2_mask=np.zeros_like(dpixels.s2_mask))
    path = write_store(tmp_path, due)
    assert names_in(path / "s2") == ["zarr.json"]
    assert_same(read_store(path), due)


def test_equal_input_gives_equal_bytes(tmp_path: Path, dpixels: DPixels, written: Path) -> None:
    strided = dataclasses.replace(dpixels, s2=np.asfortranarray(dpixels.s2))
    assert tree(write_store(tmp_path, strided)) == tree(written)


def test_layout(written: Path) -> None:
    root = json.loads((written / "zarr.json").read_text())
    assert root.get("consolidated_metadata") is None  # zarr 3.0 writes the key
    assert root["attributes"]["format_version"] == 1
    assert root["attributes"]["transform"] == [10.0, 0.0, 573440.0, 0.0, -10.0, 5626880.0]
    arrays = {path.parent.name: json.loads(path.read_text()) for path in written.glob("*/zarr.json")}
    assert {name: (array["data_type"], *array["dimension_names"]) for name, array in arrays.items()} == {
        "s2": ("uint16", "s2_time", "y", "x", "band"),
        "s2_mask": ("uint8", "s2_time", "y", "x"),
        "s2_time": ("int64", "s2_time"),
        "s1_asc": ("int16", "s1_asc_time", "y", "x", "pol"),
        "s1_asc_time": ("int64", "s1_asc_time"),
        "s1_desc": ("int16", "s1_desc_time", "y", "x", "pol"),
        "s1_desc_time": ("int64", "s1_desc_time"),
        "roi": ("uint8", "y", "x"),
        "x": ("float64", "x"),
        "y": ("float64", "y"),
    }
    assert arrays["s2"]["attributes"] == {"bands": list(S2_BANDS)}
    assert arrays["s1_desc"]["attributes"] == {"pols": list(S1_BANDS)}
    for name, array in arrays.items():
        assert len([file for file in (written / name / "c").rglob("*") if file.is_file()]) == 1
        assert array["fill_value"] == 0
        codecs = list(array["codecs"])
        for codec in codecs:
            inner = codec.get("configuration", {})
            codecs += [*inner.get("codecs", []), *inner.get("index_codecs", [])]
        assert {codec["name"] for codec in codecs} <= SPECIFIED
        assert ("sharding_indexed" in {codec["name"] for codec in codecs}) == (len(array["shape"]) > 2)


def test_xarray_opens_a_store(written: Path, dpixels: DPixels) -> None:
    with xr.open_zarr(written, consolidated=False, chunks=None) as dataset:
        assert dict(dataset.sizes) == {
            "s2_time": 3,
            "s1_asc_time": 2,
            "s1_desc_time": 1,
            "y": 512,
            "x": 512,
            "band": 10,
            "pol": 2,
        }
        due = dpixels.to_xarray()
        for name in ("s2", "s2_mask", "s1_asc", "s1_desc"):
            assert dataset[name].dtype == due[name].dtype
            assert dataset[name].dims == due[name].dims
            np.testing.assert_array_equal(dataset[name], due[name])
        np.testing.assert_array_equal(dataset.roi != 0, due.roi)
        for name in ("s2_time", "s1_asc_time", "s1_desc_time", "x", "y"):
            np.testing.assert_array_equal(dataset[name], due[name])
        assert dataset.attrs["scenes"] == list(dpixels.scenes)
        assert dataset.attrs["holes"] == dpixels.missing_scenes


def test_xarray_opens_a_store_without_frames(tmp_path: Path) -> None:
    with xr.open_zarr(write_store(tmp_path, sample(0, 0, 0)), consolidated=False, chunks=None) as dataset:
        assert dataset.s2.shape == (0, 512, 512, 10)
        assert dataset.s1_asc_time.dtype.kind == "M"


@pytest.mark.parametrize(
    "changes",
    [
        {"tile": ForeignTile("x0_y0_x512_y512", (512, 512))},
        {"window": None},
        {"window": Window.from_name("2022")},
        {"s2_dates": np.array(["2023-01-03"] * 3, "datetime64[D]")},
        {"s2_dates": np.array(["2023-01-03", "2023-01-04", "NaT"], "datetime64[D]")},
        {"s2_dates": np.array(["2023-01-03", "2023-01-04"], "datetime64[D]")},
        {"s2": np.zeros((3, 512, 512, 10), np.float32)},
        {"s1_asc": np.zeros((2, 10, 10, 2), np.int16)},
        {"requested": np.ones(TILE.shape, np.uint8)},
    ],
)
def test_what_is_no_tile_of_ours_is_not_written(tmp_path: Path, dpixels: DPixels, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        write_store(tmp_path, dataclasses.replace(dpixels, **changes))
    assert not names_in(tmp_path)


@pytest.mark.parametrize("frames", [(3, 2, 1), (0, 1, 0)])
def test_open_dpixels_gives_the_arrays_with_names_dates_and_a_place(
    tmp_path: Path, frames: tuple[int, int, int]
) -> None:
    path = write_store(tmp_path, due := sample(*frames))
    dataset = open_dpixels(str(path))  # without a warning: they are errors here
    for name in ("s2", "s2_mask", "s1_asc", "s1_desc"):
        assert dataset[name].dtype == getattr(due, name).dtype
        np.testing.assert_array_equal(dataset[name], getattr(due, name))
    assert dataset.s2.dims == ("s2_time", "y", "x", "band")
    assert dataset.s1_desc.dims == ("s1_desc_time", "y", "x", "pol")
    assert (tuple(dataset.band.values), tuple(dataset.pol.values)) == (S2_BANDS, S1_BANDS)
    np.testing.assert_array_equal(dataset.roi, due.requested)
    np.testing.assert_array_equal(dataset.s1_asc_time, due.s1_asc_dates)
    assert (dataset.odc.crs.epsg, dataset.s2.odc.crs.epsg) == (32631, 32631)
    assert (dataset.x[0], dataset.x[-1], dataset.y[0]) == (112 * 5120 + 5, 113 * 5120 - 5, 1099 * 5120 - 5)
    assert {key: dataset.attrs[key] for key in ("tile", "window", "source", "preprocessing", "scenes")} == {
        "tile": TILE.id,
        "window": "2023",
        "source": "mpc",
        "preprocessing": "official",
        "scenes": list(due.scenes),
    }
    xr.testing.assert_identical(dataset.load(), read_store(path).to_xarray())


def test_the_crs_is_where_rioxarray_and_gdal_look(written: Path) -> None:
    """CF conventions: a coordinate `spatial_ref` without dimensions, the CRS in its attribute `crs_wkt`."""
    dataset = open_dpixels(written)
    assert dataset.spatial_ref.dims == ()
    assert rasterio.crs.CRS.from_wkt(dataset.spatial_ref.attrs["crs_wkt"]).to_epsg() == 32631
    assert [float(number) for number in dataset.spatial_ref.attrs["GeoTransform"].split()] == [
        573440.0,
        10.0,
        0.0,
        5626880.0,
        0.0,
        -10.0,
    ]
    if importlib.util.find_spec("rioxarray"):
        importlib.import_module("rioxarray")
        assert dataset.rio.crs.to_epsg() == 32631


def test_open_dpixels_reads_observations_when_they_are_used(store: Path, dpixels: DPixels) -> None:
    bytes_of(SHARD, flipped(0.5))(store)
    dataset = open_dpixels(store)
    np.testing.assert_array_equal(dataset.s2_mask[1, 7], dpixels.s2_mask[1, 7])
    with pytest.raises(ValueError, match="checksum"):
        dataset.s2.load()


def test_open_dpixels_in_chunks(written: Path, dpixels: DPixels) -> None:
    dataset = open_dpixels(written, chunks={"y": 128})
    assert dataset.s2.chunks == ((3,), (128,) * 4, (512,), (10,))
    assert int(dataset.s2.sum()) == int(dpixels.s2.sum())


def test_open_dpixels_of_an_official_folder(folder: Path, official: DPixels) -> None:
    dataset = open_dpixels(folder)
    np.testing.assert_array_equal(dataset.s2.sel(band="B8A"), np.load(folder / "bands.npy")[..., 4])
    np.testing.assert_array_equal(dataset.s2_time.dt.dayofyear, np.load(folder / "doys.npy"))
    assert (dataset.odc.crs.epsg, dataset.attrs["window"]) == (32631, None)
    xr.testing.assert_identical(dataset.load(), official.to_xarray().assign_attrs(dataset.attrs))


@pytest.mark.parametrize(
    ("damage", "error", "why"),
    [
        (lambda store: (store / SHARD).unlink(), TileError, "has no bytes"),  # Zarr would read zeros
        (lambda store: valued("s2_time", 0, 0)(store), TileError, "s2 has frames outside"),
        (lambda store: attributes(tile=None)(store), TileError, "the attribute tile is missing"),
        (lambda store: attributes(format=None)(store), UsageError, "other Zarr data"),
        (lambda store: attributes(format_version=2)(store), UsageError, "it has version 2 of the format"),
        (shutil.rmtree, UsageError, "neither a store of d-pixels nor an official tile folder"),
    ],
)
def test_open_dpixels_of_what_is_damaged_or_not_ours(
    store: Path, damage: Callable[[Path], Any], error: type[TesseraError], why: str
) -> None:
    damage(store)
    with pytest.raises(error, match=why) as caught:
        open_dpixels(store)
    assert_one_line(caught.value)


# Whole or not at all -------------------------------------------------------------------------------------------------


def test_a_store_is_replaced(store: Path) -> None:
    due = sample(1, 0, 2, seed=1)
    assert write_store(store.parent, due) == store
    assert_same(read_store(store), due)
    assert names_in(store.parent) == [store.name]


@pytest.mark.parametrize(
    ("code", "expected"),
    [(errno.ENOSPC, DiskFullError), (errno.EDQUOT, DiskFullError), (errno.EROFS, UsageError), (errno.EIO, TileError)],
)
def test_a_failed_write_leaves_the_old_store(
    store: Path, monkeypatch: pytest.MonkeyPatch, code: int, expected: type
) -> None:
    def fail(_: int) -> None:
        raise OSError(code, os.strerror(code))

    before = tree(store)
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(expected, match=r"\.zarr cannot be written: ") as caught:
        write_store(store.parent, sample(1, 0, 0))
    assert_one_line(caught.value)
    assert names_in(store.parent) == [store.name]
    assert tree(store) == before


@pytest.mark.parametrize("write", [write_store, write_folder])
def test_a_write_that_the_system_cuts_short_leaves_nothing(
    tmp_path: Path, dpixels: DPixels, write: Callable[[Path, DPixels], Path]
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(TileError, match="cannot be written: File too large") as caught:
            write(tmp_path, dpixels)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert_one_line(caught.value)
    assert not names_in(tmp_path)


@pytest.mark.parametrize("failing", [OSError(errno.EIO, "no"), KeyboardInterrupt()])
def test_a_failed_rename_puts_the_old_store_back(
    store: Path, monkeypatch: pytest.MonkeyPatch, failing: BaseException
) -> None:
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if target == store and (self / "roi").exists() and not failed:
            failed.append(self)
            raise failing
        return rename(self, target)

    failed: list[Path] = []
    before = tree(store)
    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(KeyboardInterrupt if isinstance(failing, KeyboardInterrupt) else TileError):
        write_store(store.parent, sample(1, 0, 0))
    assert names_in(store.parent) == [store.name]
    assert tree(store) == before


def test_a_file_in_the_way_is_kept(tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.zarr").write_text("mine")
    with pytest.raises(TileError, match="cannot be written"):
        write_store(tmp_path, sample(1, 0, 0))
    assert tree(tmp_path) == {f"{NAME}.zarr": b"mine"}


@pytest.mark.parametrize("moment", ["os.fsync", "zarr.core.attributes.Attributes.update", "zarr.Array.__setitem__"])
def test_a_killed_run_leaves_no_store(tmp_path: Path, moment: str) -> None:
    code = f"""
import os, signal, sys, zarr
from pathlib import Path
from tests.dpixels.test_stores import sample
from tessera_cli.dpixels import write_store
count = 0
def kill(*args, **kwargs):
    global count
    count += 1
    if count > {2 if moment == "os.fsync" else 0}:
        os.kill(os.getpid(), signal.SIGKILL)
{moment} = kill
write_store(Path(sys.argv[1]), sample(1, 1, 0))
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path], cwd=Path(__file__).parents[2], capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [name.startswith(f"{NAME}.zarr.") and name.endswith(".part") for name in names_in(tmp_path)] == [True]
    with pytest.raises(UsageError, match="has no d-pixels"):
        find_stores([tmp_path])
    write_store(tmp_path, sample(1, 1, 0))
    assert [found.name for found in find_stores([tmp_path])] == [NAME]


def test_writers_of_one_store_never_mix(tmp_path: Path) -> None:
    candidates = [sample(1, 0, 0, seed=seed) for seed in range(3)]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda dpixels: [write_store(tmp_path, dpixels) for _ in range(2)], candidates))
    assert names_in(tmp_path) == [f"{NAME}.zarr"]
    found = read_store(tmp_path / f"{NAME}.zarr")
    assert any(np.array_equal(found.s2, candidate.s2) for candidate in candidates)


@pytest.mark.parametrize("seed", [0, 5])
def test_a_store_that_is_replaced_while_it_is_read_is_not_returned(
    store: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    read, other = zarr_store._read_frames, sample(3, 2, 1, seed=seed)

    def replace(array: Any) -> np.ndarray:
        if array.name == "s2_mask":
            write_store(store.parent, other)
        return read(array)

    monkeypatch.setattr(zarr_store, "_read_frames", replace)
    with pytest.raises(TileError) as caught:
        read_store(store)
    assert_one_line(caught.value)


def test_stores_are_read_in_threads(written: Path, dpixels: DPixels) -> None:
    with ThreadPoolExecutor(3) as pool:
        for found in pool.map(read_store, [written] * 3):
            assert_same(found, dpixels)


# Damaged stores ------------------------------------------------------------------------------------------------------


def edit_json(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    obj = json.loads(file.read_text())
    change(obj)
    file.write_text(json.dumps(obj))


def attributes(**changes: Any) -> Callable[[Path], None]:
    """Change attributes of the store, as one of an earlier release without their digest; None removes one."""

    def damage(store: Path) -> None:
        def change(root: dict[str, Any]) -> None:
            root["attributes"] |= {"digest": None, **changes}
            root["attributes"] = {key: value for key, value in root["attributes"].items() if value is not None}

        edit_json(store / "zarr.json", change)

    return damage


def described(name: str, **changes: Any) -> Callable[[Path], None]:
    """Change the description of an array."""
    return lambda store: edit_json(store / name / "zarr.json", lambda array: array.update(changes))


def valued(name: str, where: Any, value: Any) -> Callable[[Path], None]:
    """Change values of an array, as somebody would who rewrote it well."""

    def damage(store: Path) -> None:
        zarr.open_group(store, mode="r+")[name][where] = value
        files = {str(file.relative_to(store)): file.stat().st_size for file in store.glob("*/c/**/*") if file.is_file()}
        attributes(sizes=files)(store)

    return damage


def bytes_of(file: str, change: Callable[[bytearray], Any]) -> Callable[[Path], None]:
    def damage(store: Path) -> None:
        data = bytearray((store / file).read_bytes())
        change(data)
        (store / file).write_bytes(data)

    return damage


def flipped(position: float) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        data[int(position * (len(data) - 1))] ^= 0x10

    return change


SHARD = "s2/c/0/0/0/0"
DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "root cut": (bytes_of("zarr.json", lambda data: data.__delitem__(slice(50, None))), "zarr.json is not JSON"),
    "root binary": (bytes_of("zarr.json", lambda data: data.__setitem__(0, 255)), "zarr.json is not JSON"),
    "shard cut": (bytes_of(SHARD, lambda data: data.__delitem__(slice(-100, None))), "has .* bytes, not"),
    "shard longer": (bytes_of(SHARD, lambda data: data.append(0)), "has .* bytes, not"),
    "shard empty": (bytes_of(SHARD, bytearray.clear), "has 0 bytes"),
    "shard gone": (lambda store: (store / SHARD).unlink(), "has no bytes"),
    "dates gone": (lambda store: (store / "s2_time/c/0").unlink(), "s2_time/c/0 has no bytes"),
    "shard too many": (lambda store: (store / "s2/c/0/0/0/1").write_bytes(b"x"), "has 1 bytes, not none"),
    "bit flipped, start": (bytes_of(SHARD, flipped(0)), "checksum"),
    "bit flipped, middle": (bytes_of(SHARD, flipped(0.5)), "checksum"),
    "bit flipped, index": (bytes_of(SHARD, flipped(1)), "checksum"),
    "bit flipped, radar": (bytes_of("s1_asc/c/0/0/0/0", flipped(0.3)), "checksum"),
    "bit flipped, roi": (bytes_of("roi/c/0/0", flipped(0.5)), "checksum"),
    "bit flipped, dates": (bytes_of("s2_time/c/0", flipped(0.5)), "checksum"),
    "array gone": (lambda store: shutil.rmtree(store / "s1_desc"), "the array s1_desc is missing"),
    "description gone": (lambda store: (store / "roi/zarr.json").unlink(), "the array roi is missing"),
    "description cut": (bytes_of("s2/zarr.json", lambda data: data.__delitem__(slice(50, None))), "damaged"),
    "description void": (lambda store: (store / "s2/zarr.json").write_text("{}"), "damaged"),
    "a group": (
        lambda store: (store / "s2/zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}'),
        "s2 is no array",
    ),
    "dtype": (described("s2", data_type="int16"), "s2 is int16"),
    "dtype unknown": (described("s2", data_type="uint17"), "uint17"),
    "dtype of dates": (described("s2_time", data_type="float64"), "s2_time is float64"),
    "dtype of roi": (described("roi", data_type="int8"), "roi is int8"),
    "shape": (described("s2", shape=[3, 512, 500, 10]), "s2 has the shape"),
    "huge": (described("s2_time", shape=[10**12]), "s2_time does not hold dates"),
    "dimensions": (described("s2_time", shape=[3, 1]), "damaged"),
    "frames disagree": (described("s2_mask", shape=[2, 512, 512]), "s2_mask has the shape"),
    "codec unknown": (described("s2", codecs=[{"name": "mine"}]), "damaged"),
    "unit of dates": (described("s2_time", attributes={"units": "hours since 1970-01-01"}), "does not hold dates"),
    "order of bands": (described("s2", attributes={"bands": sorted(S2_BANDS)}), "s2 holds other bands than B04, B02"),
    "tile missing": (attributes(tile=None), "the attribute tile is missing"),
    "tile wrong": (attributes(tile="x0_y0"), "is not a tile id"),
    "tile other": (attributes(tile="utm31n_c0113_r1098"), "its georeference is not"),
    "window missing": (attributes(window=None), "the attribute window is missing"),
    "window wrong": (attributes(window="20231301-20231401"), "damaged"),
    "window backwards": (attributes(window="20231231-20230101"), "not the name of a window"),
    "window other": (attributes(window="2022"), "s2 has frames outside 2022-01-01 to 2022-12-31"),
    "crs": (attributes(crs="EPSG:4326"), "its georeference is not"),
    "transform": (attributes(transform=[10.0, 0.0, 11.0, 0.0, -10.0, 0.0]), "its georeference is not"),
    "NaN": (attributes(transform=[10.0, 0.0, float("nan"), 0.0, -10.0, 0.0]), "zarr.json is not JSON"),
    "nested": (lambda store: (store / "zarr.json").write_text("[" * 100_000), "zarr.json is not JSON"),
    "nested array": (lambda store: (store / "s2/zarr.json").write_text('{"a":' * 100_000), "nested too deeply"),
    "attributes changed": (
        bytes_of("zarr.json", lambda data: data.__setitem__(slice(None), data.replace(b"S2A_b", b"S2A_c"))),
        "their digest does not fit",
    ),
    "small chunks": (
        described("s2", chunk_grid={"name": "regular", "configuration": {"chunk_shape": [1, 1, 1, 1]}}),
        "s2 is not stored as ours are .chunk_grid.",
    ),
    "small chunks of roi": (
        described("roi", chunk_grid={"name": "regular", "configuration": {"chunk_shape": [1, 1]}}),
        "roi is not stored as ours are .chunk_grid.",
    ),
    "fill value": (described("s2", fill_value=7), "s2 is not stored as ours are .fill_value."),
    "gzip": (
        described("roi", codecs=[{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "gzip"}]),
        "roi is not stored as ours are .codecs.",
    ),
    "zstd": (
        described("roi", codecs=[{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "zstd"}]),
        "roi is not stored as ours are .codecs.",
    ),
    "blosc claims 2 GB": (
        bytes_of("roi/c/0/0", lambda data: data.__setitem__(slice(4, 8), b"\xff\xff\xff\x7f")),
        "a chunk of roi claims other sizes than it has",
    ),
    "blosc claims 2 GB, inner": (
        bytes_of("s2/c/0/0/0/0", lambda data: data.__setitem__(slice(4, 8), b"\xff\xff\xff\x7f")),
        "a chunk of s2 claims other sizes than it has",
    ),
    "source": (attributes(source=3), "the attribute source is not a str"),
    "preprocessing": (attributes(preprocessing=None), "the attribute preprocessing is missing"),
    "scenes": (attributes(scenes="all"), "the attribute scenes is not a list"),
    "holes": (attributes(holes=["a"]), "the attribute holes is not a dict"),
    "input digest": (attributes(input_digest=None), "the attribute input_digest is missing"),
    "sizes": (attributes(sizes=None), "the attribute sizes is missing"),
    "date before": (valued("s2_time", 0, 0), "s2 has frames outside"),
    "date after": (valued("s1_desc_time", 0, 40000), "s1_desc has frames outside"),
    "date repeated": (valued("s1_asc_time", 1, 19360), "s1_asc are not in date order"),
    "dates unordered": (valued("s1_asc_time", slice(None), [19370, 19365]), "s1_asc are not in date order"),
    "axis NaN": (valued("x", 7, np.nan), "x does not hold the pixel centres"),
    "axis shifted": (valued("y", 7, 0.0), "y does not hold the pixel centres"),
    "mask": (valued("s2_mask", (0, 5, 5), 3), "s2_mask holds other values"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_store_fails_as_a_tile(store: Path, name: str) -> None:
    damage, why = DAMAGES[name]
    damage(store)
    with pytest.raises(TileError, match=why) as caught:
        read_store(store)
    assert str(caught.value).startswith(f"{store} is damaged: ")
    assert str(caught.value).endswith(". Fetch the tile again.")
    assert_one_line(caught.value)
    try:
        (stored,) = find_stores([store])
    except UsageError as error:  # its description is damaged already
        assert_one_line(error)
    else:
        with pytest.raises(TileError):
            stored.read()


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda store: shutil.rmtree(store), "there is no such folder"),
        (lambda store: (shutil.rmtree(store), store.write_text("x")), "there is no such folder"),
        (lambda store: (store / "zarr.json").unlink(), "it has no zarr.json"),
        (lambda store: (store / "zarr.json").write_text("[]"), "other Zarr data"),
        (lambda store: (store / "zarr.json").write_text('{"attributes": 1}'), "other Zarr data"),
        (attributes(format=None), "other Zarr data"),
        (attributes(format="embeddings"), "other Zarr data"),
        (attributes(format_version=2), "it has version 2 of the format"),
        (attributes(format_version=None), "it has version None of the format"),
    ],
)
def test_what_is_no_store_is_a_usage_error(store: Path, damage: Callable[[Path], Any], why: str) -> None:
    damage(store)
    for read in (read_store, lambda path: find_stores([path])):
        with pytest.raises(UsageError) as caught:
            read(store)
        assert str(store) in str(caught.value)
        assert_one_line(caught.value)
    with pytest.raises(UsageError, match=why):
        read_store(store)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_store_without_permission(store: Path) -> None:
    (store / SHARD).chmod(0)
    with pytest.raises(TileError, match="no permission"):
        read_store(store)


# Official folders ----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not GOLDEN_FOLDERS, reason="the golden tiles lie in ../shared, which is not here")
def test_golden_folders_are_read_as_they_are(tmp_path: Path) -> None:
    for folder in GOLDEN_FOLDERS:
        raw = {file.stem: np.load(file) for file in folder.glob("*.npy")}
        found = read_folder(folder)
        assert (found.name, found.tile.shape, found.window) == (folder.name, raw["bands"].shape[1:3], None)
        np.testing.assert_array_equal(found.s2, raw["bands"])
        np.testing.assert_array_equal(found.s2_mask, raw["masks"])
        np.testing.assert_array_equal(found.s2_doy, raw["doys"])
        np.testing.assert_array_equal(found.s1_asc, raw["sar_ascending"])
        np.testing.assert_array_equal(found.s1_asc_doy, raw["sar_ascending_doy"])
        np.testing.assert_array_equal(found.s1_desc, raw["sar_descending"])
        np.testing.assert_array_equal(found.s1_desc_doy, raw["sar_descending_doy"])
        copy = write_folder(tmp_path / folder.parents[2].name / folder.parents[1].name, found)
        assert_same(read_folder(copy), dataclasses.replace(found, tile=read_folder(copy).tile), but=("input_digest",))
        for name, due in raw.items():
            again = np.load(copy / f"{name}.npy")
            assert again.dtype == {"bands": "u2", "masks": "u1", "doys": "u2"}.get(name, "i2")
            np.testing.assert_array_equal(again, due)


@pytest.mark.parametrize("frames", [(3, 2, 1), (2, 0, 1), (2, 1, 0), (0, 0, 0)])
def test_a_folder_of_one_of_our_tiles(tmp_path: Path, frames: tuple[int, int, int]) -> None:
    due = sample(*frames)
    path = write_folder(tmp_path, due)
    assert path == tmp_path / NAME
    assert names_in(tmp_path) == [NAME]
    found = read_folder(path)
    assert found.tile == ForeignTile(NAME, TILE.shape, "EPSG:32631", TILE.transform)
    assert (found.window, found.source, found.preprocessing, found.name) == (None, None, "official", NAME)
    kept = ("s2", "s2_mask", "s1_asc", "s1_desc", "requested", "s2_doy", "s1_asc_doy", "s1_desc_doy")
    for name in kept:
        np.testing.assert_array_equal(getattr(found, name), getattr(due, name), err_msg=name)
    again = read_folder(write_folder(tmp_path / "again", found))
    assert_same(again, found, but=("input_digest",))
    assert {name: data for name, data in tree(path).items() if name != "roi.tiff"} == {
        name: data for name, data in tree(tmp_path / "again" / NAME).items() if name != "roi.tiff"
    }


def test_layout_of_a_written_folder(folder: Path, official: DPixels) -> None:
    due = {
        "bands": ("<u2", (4, 6, 9, 10)),
        "masks": ("|u1", (4, 6, 9)),
        "doys": ("<u2", (4,)),
        "sar_ascending": ("<i2", (3, 6, 9, 2)),
        "sar_ascending_doy": ("<i2", (3,)),
        "sar_descending": ("<i2", (2, 6, 9, 2)),
        "sar_descending_doy": ("<i2", (2,)),
    }
    assert names_in(folder) == sorted([*(f"{name}.npy" for name in due), "roi.tiff"])
    for name, (dtype, shape) in due.items():
        with (folder / f"{name}.npy").open("rb") as file:
            assert np.lib.format.read_magic(file) == (1, 0)
            found, fortran, kind = np.lib.format.read_array_header_1_0(file)
        assert (found, fortran, kind.str) == (shape, False, dtype)
    with rasterio.open(folder / "roi.tiff") as roi:
        assert (roi.dtypes, roi.count, roi.crs.to_epsg(), roi.transform) == (
            ("uint8",),
            1,
            32631,
            official.tile.transform,
        )
        np.testing.assert_array_equal(roi.read(1), official.requested)


def test_what_lies_under_masks_is_kept(folder: Path, official: DPixels) -> None:
    np.save(folder / "bands.npy", np.maximum(official.s2, 3))
    assert read_folder(folder).s2.min() == 3


def test_days_become_dates_of_a_leap_year(folder: Path) -> None:
    np.save(folder / "doys.npy", np.array([360, 1, 60, 366], np.int64))
    found = read_folder(folder)
    assert [str(date) for date in found.s2_dates] == ["2024-12-25", "2024-01-01", "2024-02-29", "2024-12-31"]
    assert found.s2_doy.tolist() == [360, 1, 60, 366]


def test_masks_of_other_values_are_clear_and_named_once(folder: Path, official: DPixels, caplog: Any) -> None:
    np.save(folder / "masks.npy", np.where(official.s2_mask, np.uint8(255), np.uint8(0)))
    with caplog.at_level(logging.WARNING):
        found = read_folder(folder)
    np.testing.assert_array_equal(found.s2_mask, official.s2_mask)
    assert found.s2_mask.dtype == np.uint8
    (record,) = caplog.records
    assert "whatever is not 0 is taken for clear" in record.getMessage()


def test_columns_in_front_are_read_into_rows(folder: Path, official: DPixels) -> None:
    np.save(folder / "bands.npy", np.asfortranarray(official.s2))
    found = read_folder(folder)
    assert found.s2.flags.c_contiguous
    np.testing.assert_array_equal(found.s2, official.s2)


def write_roi(folder: Path, roi: np.ndarray, **options: Any) -> None:
    profile = {"driver": "GTiff", "dtype": roi.dtype, "count": 1, "height": roi.shape[0], "width": roi.shape[1]}
    with rasterio.open(folder / "roi.tiff", "w", **profile, **options) as dataset:
        dataset.write(roi, 1)


NORTH_UP = Affine(10, 0, 500000, 0, -10, 5800000)


def test_roi_says_where_and_which(folder: Path) -> None:
    roi = np.zeros((6, 9), np.uint8)
    roi[2, 3:5] = (1, 255)
    crs = "+proj=laea +lat_0=52 +lon_0=10 +x_0=4321000 +y_0=3210123 +ellps=GRS80 +units=m"
    write_roi(folder, roi, crs=crs, transform=NORTH_UP)
    found = read_folder(folder)
    np.testing.assert_array_equal(found.requested, roi != 0)
    assert found.tile.transform == NORTH_UP
    assert found.tile.crs is not None
    assert found.tile.crs.startswith("PROJCS[")
    (again,) = find_stores([write_folder(folder / "again", found)])
    assert again.tile == found.tile
    write_roi(folder, roi, crs="EPSG:32733", transform=NORTH_UP)
    assert read_folder(folder).tile.crs == "EPSG:32733"


@pytest.mark.parametrize("options", [{}, {"crs": "EPSG:32631"}, {"transform": NORTH_UP}])
def test_roi_without_a_place(folder: Path, options: dict[str, Any]) -> None:
    write_roi(folder, np.eye(6, 9, dtype=np.uint8), **options)
    found = read_folder(folder)
    assert (found.tile.crs, found.tile.transform) == (None, None)
    assert found.requested.sum() == 6
    again = read_folder(write_folder(folder / "again", found))
    assert_same(again, found, but=("input_digest",))


def test_no_roi_means_all_pixels(folder: Path) -> None:
    (folder / "roi.tiff").unlink()
    found = read_folder(folder)
    assert found.requested.all()
    assert found.tile == ForeignTile(folder.name, (6, 9))


def test_inputs_tell_whether_a_folder_was_changed(folder: Path) -> None:
    first = read_folder(folder).input_digest
    assert find_stores([folder])[0].input_digest == first
    os.utime(folder / "doys.npy", ns=(1, 1))
    second = read_folder(folder).input_digest
    (folder / "roi.tiff").unlink()
    assert len({first, second, read_folder(folder).input_digest}) == 3


def saved(name: str, array: np.ndarray) -> Callable[[Path], None]:
    return lambda folder: np.save(folder / f"{name}.npy", array, allow_pickle=True)


def archived(folder: Path) -> None:
    np.savez(folder / "doys.npz", a=np.ones(4))
    (folder / "doys.npz").rename(folder / "doys.npy")


ROI = np.ones((6, 9), np.uint8)
MISFITS: dict[str, tuple[Callable[[Path], Any], str]] = {
    **{
        f"{name} missing": (lambda folder, name=name: (folder / f"{name}.npy").unlink(), f"{name}.npy is missing")
        for name in (
            "bands",
            "masks",
            "doys",
            "sar_ascending",
            "sar_ascending_doy",
            "sar_descending",
            "sar_descending_doy",
        )
    },
    "cut": (bytes_of("bands.npy", lambda data: data.__delitem__(slice(-1, None))), "bands.npy cannot be read"),
    "header cut": (bytes_of("bands.npy", lambda data: data.__delitem__(slice(20, None))), "bands.npy cannot be read"),
    "empty": (bytes_of("sar_ascending.npy", bytearray.clear), "sar_ascending.npy cannot be read"),
    "text": (lambda folder: (folder / "doys.npy").write_text("1 2 3"), "doys.npy cannot be read"),
    "pickle": (lambda folder: (folder / "doys.npy").write_bytes(pickle.dumps([1])), "doys.npy cannot be read"),
    "objects": (saved("doys", np.array([1, "a", None, 2], object)), "doys.npy cannot be read"),
    "archive": (archived, "doys.npy cannot be read"),
    "bands are float": (saved("bands", np.ones((4, 6, 9, 10), np.float32)), "it holds float32, not uint16"),
    "bands are signed": (saved("bands", np.ones((4, 6, 9, 10), np.int16)), "it holds int16, not uint16"),
    "radar is float": (saved("sar_ascending", np.ones((3, 6, 9, 2))), "it holds float64, not int16"),
    "days are float": (saved("doys", np.ones(4)), "it holds float64, not integers"),
    "masks are float": (saved("masks", np.ones((4, 6, 9))), "it holds float64, not integers"),
    "nine bands": (saved("bands", np.ones((4, 6, 9, 9), np.uint16)), "not (T, H, W, 10)"),
    "three polarisations": (saved("sar_descending", np.ones((2, 6, 9, 3), np.int16)), "not (T, 6, 9, 2)"),
    "bands are flat": (saved("bands", np.ones((4, 54, 10), np.uint16)), "not (T, H, W, 10)"),
    "no pixels": (saved("bands", np.ones((4, 0, 9, 10), np.uint16)), "it has no pixels"),
    "masks of fewer frames": (saved("masks", np.ones((3, 6, 9), np.uint8)), "not (4, 6, 9)"),
    "masks of other size": (saved("masks", np.ones((4, 9, 6), np.uint8)), "not (4, 6, 9)"),
    "fewer days": (saved("doys", np.ones(3, np.uint16)), "not (4,), one day for each frame"),
    "days in a column": (saved("doys", np.ones((4, 1), np.uint16)), "not (4,), one day for each frame"),
    "radar of other size": (saved("sar_ascending", np.ones((3, 9, 6, 2), np.int16)), "not (T, 6, 9, 2)"),
    "orbit as nothing": (saved("sar_ascending", np.ones(0, np.int16)), "not (T, 6, 9, 2)"),
    "day 0": (saved("doys", np.array([0, 1, 2, 3], np.uint16)), "days outside 1 to 366"),
    "day 367": (saved("sar_descending_doy", np.array([1, 367], np.int16)), "days outside 1 to 366"),
    "day -1": (saved("sar_descending_doy", np.array([1, -1], np.int16)), "days outside 1 to 366"),
    "roi of other size": (
        lambda folder: write_roi(folder, ROI.T, crs="EPSG:32631", transform=NORTH_UP),
        "it has 9 x 6 pixels",
    ),
    "roi rotated": (
        lambda folder: write_roi(folder, ROI, crs="EPSG:32631", transform=Affine(9.8, 1.7, 5, 1.7, -9.8, 5)),
        "it is not north up",
    ),
    "roi south up": (
        lambda folder: write_roi(folder, ROI, crs="EPSG:32631", transform=Affine(10, 0, 5, 0, 10, 5)),
        "it is not north up",
    ),
    "roi is text": (lambda folder: (folder / "roi.tiff").write_text("x"), "roi.tiff cannot be read"),
    "roi cut": (bytes_of("roi.tiff", lambda data: data.__delitem__(slice(100, None))), "roi.tiff cannot be read"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_a_damaged_folder_fails_as_a_tile(folder: Path, name: str) -> None:
    damage, why = MISFITS[name]
    damage(folder)
    with pytest.raises(TileError) as caught:
        read_folder(folder)
    assert why in str(caught.value)
    assert str(caught.value).startswith(str(folder))
    assert_one_line(caught.value)
    try:
        (stored,) = find_stores([folder])
    except UsageError as error:
        assert_one_line(error)
    else:
        with pytest.raises(TileError):
            stored.read()


def test_what_is_no_official_folder(tmp_path: Path) -> None:
    for path, why in ((tmp_path, "it has no bands.npy"), (tmp_path / "x", "there is no such folder")):
        with pytest.raises(UsageError, match=why) as caught:
            read_folder(path)
        assert_one_line(caught.value)


def test_a_folder_is_replaced_but_never_other_files(folder: Path, official: DPixels) -> None:
    changed = dataclasses.replace(official, s2=official.s2 + np.uint16(1))
    write_folder(folder.parent, changed)
    np.testing.assert_array_equal(read_folder(folder).s2, changed.s2)
    (folder / "labels.npy").write_bytes(b"mine")
    before = tree(folder)
    with pytest.raises(UsageError, match=r"files of another kind \(labels.npy\)") as caught:
        write_folder(folder.parent, official)
    assert_one_line(caught.value)
    assert tree(folder) == before
    assert names_in(folder.parent) == [folder.name]


@pytest.mark.parametrize("name", ["s2", "s2_mask", "s1_asc"])
def test_a_folder_of_other_types_is_not_written(tmp_path: Path, official: DPixels, name: str) -> None:
    with pytest.raises(ValueError, match="float32"):
        write_folder(tmp_path, dataclasses.replace(official, **{name: getattr(official, name).astype(np.float32)}))
    assert not names_in(tmp_path)


def test_a_failed_folder_leaves_nothing(tmp_path: Path, official: DPixels, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(DiskFullError):
        write_folder(tmp_path, official)
    assert not names_in(tmp_path)


# Discovery -----------------------------------------------------------------------------------------------------------


def test_a_mixed_folder(tmp_path: Path, dpixels: DPixels, official: DPixels, written: Path) -> None:
    west = dataclasses.replace(dpixels, tile=Tile(32631, 111, 1098))
    for made in (dpixels, west):
        write_store(tmp_path, made)
    write_folder(tmp_path, official)
    (tmp_path / "run.json").write_text("{}")
    (tmp_path / "notes").mkdir()
    shutil.copytree(written, tmp_path / "utm31n_c0113_r1098_2023.zarr.0a1b2c3d.part")
    found = find_stores([tmp_path])
    assert [stored.name for stored in found] == ["utm31n_c0111_r1098_2023", NAME, "x0_y0_x9_y6"]
    one = found[1]
    assert (one.path, one.tile, one.window, one.source) == (tmp_path / f"{NAME}.zarr", TILE, dpixels.window, "mpc")
    assert (one.preprocessing, one.input_digest) == ("official", dpixels.input_digest)
    for stored, due in zip(found, (west, dpixels, official), strict=True):
        np.testing.assert_array_equal(stored.pixels, due.requested)
        assert stored.pixels.dtype == bool
        assert_same(pickle.loads(pickle.dumps(stored)).read(), due, but=("input_digest",) if due is official else ())
    foreign = found[2]
    assert (foreign.tile, foreign.window, foreign.source) == (official.tile, None, None)


def test_paths_of_several_kinds(tmp_path: Path, dpixels: DPixels, official: DPixels) -> None:
    store = write_store(tmp_path / "a", dpixels)
    folder = write_folder(tmp_path / "b", official)
    assert [stored.path for stored in find_stores([folder, store])] == [store, folder]
    assert [stored.path for stored in find_stores([tmp_path / "a", folder])] == [store, folder]
    assert len(find_stores([store, tmp_path / "a", store.parent / "." / store.name])) == 1
    renamed = store.rename(tmp_path / "a" / "renamed")
    assert [stored.name for stored in find_stores([renamed])] == [NAME]


def test_descriptions_alone_are_read(written: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(zarr_store, "_read_frames", fail)
    monkeypatch.setattr("numpy.lib.format.read_array", fail)
    assert len(find_stores([written, folder])) == 2


@pytest.mark.parametrize("name", ["shard gone", "shard cut", "bit flipped, index", "array gone", "dates gone", "mask"])
def test_damaged_observations_do_not_hide_the_other_tiles(store: Path, folder: Path, name: str) -> None:
    DAMAGES[name][0](store)
    assert [stored.path for stored in find_stores([store.parent])] == [store, folder]


def test_the_same_name_twice(tmp_path: Path, written: Path) -> None:
    shutil.copytree(written, tmp_path / "copy.zarr")
    with pytest.raises(UsageError, match=f"are both {NAME}") as caught:
        find_stores([written, tmp_path])
    assert_one_line(caught.value)


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: None])
def test_nothing_there(tmp_path: Path, written: Path, make: Callable[[Path], Any]) -> None:
    path = tmp_path / "empty"
    make(path)
    with pytest.raises(UsageError, match=f"{path} has no d-pixels") as caught:
        find_stores([written, path])
    assert_one_line(caught.value)


def test_a_damaged_member_is_named(tmp_path: Path, written: Path, folder: Path) -> None:
    (folder / "doys.npy").unlink()
    with pytest.raises(UsageError, match=r"doys.npy is missing.* Or leave x0_y0_x9_y6 out") as caught:
        find_stores([written, tmp_path])
    assert isinstance(caught.value.__cause__, TesseraError)


def test_zarr_is_imported_only_when_a_store_is_touched() -> None:
    code = "import sys, tessera_cli.dpixels; print('zarr' in sys.modules, 'xarray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
