"""A patch of real acquisitions, made into a catalogue, against its netCDF originals: every date, every pixel.

The tool and the real patch lie in ../shared, which a user of the project does not have; a made-up patch of the same
structure stands in for the real one where only the tool is there. What is expected is computed here from the originals
alone, after the specification of the official preprocessing; nothing of it comes from the package.
"""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import shapely
from pyproj import Transformer

from tessera_cli.catalog import Sensor, get_source, search
from tessera_cli.extent.aoi import Aoi
from tessera_cli.extent.grid import Tile
from tessera_cli.extent.tiling import tile_requests
from tessera_cli.extent.window import Window
from tessera_cli.imagery import Reader, read_dpixels
from tessera_cli.net import Client
from tests.conftest import SHARED

TOOL = SHARED / "tools" / "make_real_catalog.py"
DATA = SHARED / "data" / "WorldCereal+worldcereal-classification"
S2_FINE, S2_COARSE, S1, LABELS = LAYERS = ("S2_L2A_10m", "S2_L2A_20m", "S1_GRD-ASCENDING", "OUTPUT_POLY")

BANDS = ("B04", "B02", "B03", "B08", "B8A", "B05", "B06", "B07", "B11", "B12")
FINE, COARSE = ("B04", "B02", "B03", "B08"), ("B8A", "B05", "B06", "B07", "B11", "B12")
NOT_CLEAR = (0, 1, 2, 3, 8, 9)
LAST_DAY_WITHOUT_OFFSET = "2022-01-25"


@dataclass(frozen=True)
class Patch:
    """The netCDF files, and the catalogue that the tool made of them."""

    folder: Path
    catalog: Path
    layers: Mapping[str, Any]
    """Prefix of the file name -> xarray dataset of the stored values."""
    years: tuple[int, ...]
    """All that have an acquisition."""
    best_year: int
    """The one with most Sentinel-2 acquisitions."""
    least: int
    """A check that compares fewer observations than this has missed its subject."""


@dataclass(frozen=True)
class Record:
    """What the requested pixels (P) of one tile saw."""

    s2_dates: list[str]
    s2_mask: np.ndarray
    """bool (T, P)"""
    s2: np.ndarray
    """(T, P, 10), in the order of BANDS"""
    s1_dates: list[str]
    s1: np.ndarray
    """(T, P, 2): VV, VH"""


@dataclass(frozen=True)
class Comparison:
    """One tile in one year: the package's d-pixels and those that the originals call for."""

    tile: Tile
    year: int
    pixels: np.ndarray
    got: Record
    want: Record


# --- the patches ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["made-up-2018", "made-up-2022", pytest.param("real", marks=pytest.mark.slow)])
def patch(request, tmp_path_factory) -> Patch:
    if not TOOL.exists():
        pytest.skip("../shared/tools/make_real_catalog.py is absent")
    pytest.importorskip("h5netcdf")
    pytest.importorskip("h5py")  # h5netcdf 1.8 no longer requires it
    if request.param == "real":
        folder, least = real_patch(), 50_000
        if folder is None:
            pytest.skip(f"../shared/data/{DATA.name} is absent or holds no patch")
    else:
        folder, least = tmp_path_factory.mktemp("patch"), 1_500
        make_up(folder, int(request.param[-4:]))
    catalog = tmp_path_factory.mktemp("catalog")
    done = subprocess.run([sys.executable, TOOL, folder, catalog], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    layers = {prefix: stored(folder, prefix) for prefix in LAYERS}
    per_year = Counter(int(stamp[:4]) for stamp in stamps(layers[S2_FINE]))
    years = set(per_year) | {int(stamp[:4]) for stamp in stamps(layers[S1])}
    return Patch(folder, catalog, layers, tuple(sorted(years)), per_year.most_common(1)[0][0], least)


def real_patch() -> Path | None:
    """The first folder that holds all four files."""
    folders = sorted({path.parent for path in DATA.rglob(f"{S2_FINE}*.nc")})
    return next((f for f in folders if all(len(list(f.glob(f"{prefix}*.nc"))) == 1 for prefix in LAYERS)), None)


def stored(folder: Path, prefix: str) -> Any:
    import xarray as xr

    (path,) = folder.glob(f"{prefix}*.nc")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what xarray thinks of the files' attributes
        with xr.open_dataset(path, mask_and_scale=False, engine="h5netcdf") as layer:
            return layer.load()


def make_up(folder: Path, year: int, *, size: int = 30) -> None:
    """A patch across the corner of four tiles, with all that decides a value: clouds, gaps, two passes a day.

    Its first and last acquisitions lie a blink outside the year.
    """
    rng = np.random.default_rng(year)
    west, north = 110 * 5120 - 140, 1104 * 5120 + 160
    optical = [f"{year - 1}-12-31T23:59:59.900", f"{year}-01-01T00:00:00.000"]
    optical += [f"{year}-{when}T10:56:31.024" for when in ("01-25", "01-26", "03-02", "05-11", "06-30", "08-04")]
    optical += [f"{year}-07-20T10:56:29.024", f"{year}-07-20T10:46:21.500"]  # the earlier of one day comes last
    optical += [f"{year}-10-08T10:46:21.000", f"{year}-12-31T23:59:59.900", f"{year + 1}-01-01T00:00:00.000"]
    radar = [f"{year}-{when}T17:33:02.120" for when in ("01-04", "04-10", "07-03", "09-19", "12-30")]
    radar += [f"{year}-04-10T17:33:27.120", f"{year}-04-10T17:33:27.120", f"{year + 1}-01-05T17:33:02.000"]

    def dn(edge: int) -> np.ndarray:
        values = rng.integers(1, 5000, (len(optical), edge, edge))
        return (values * (rng.random(values.shape) > 0.06)).astype("uint16")

    share = [*[0.025] * 4, *[0.15] * 4, *[0.075] * 4]
    classes = rng.choice(12, (len(optical), size // 2, size // 2), p=share)
    classes[optical.index(f"{year}-08-04T10:56:31.024")] = 9
    decibels = np.round(rng.normal(-14, 5, (2, len(radar), size // 2, size // 2)) * 1e4).astype("int32")
    decibels[rng.random(decibels.shape) < 0.2] = 0
    decibels[:, 0, 4:7, 4:7] = 600_000  # beyond what int16 holds
    labels = rng.integers(0, 5, (size, size)).astype("uint16")

    coarse = {**{band: dn(size // 2) for band in COARSE}, "SCL": classes.astype("uint8")}
    write_layer(folder / f"{S2_FINE}_made-up.nc", {band: dn(size) for band in FINE}, west, north, optical)
    write_layer(folder / f"{S2_COARSE}_made-up.nc", coarse, west, north, optical)
    write_layer(folder / f"{S1}_made-up.nc", dict(zip(("VV", "VH"), decibels, strict=True)), west, north, radar)
    write_layer(folder / f"{LABELS}_made-up.nc", {"CT": labels}, west, north)


def write_layer(
    path: Path, variables: Mapping[str, np.ndarray], west: float, north: float, when: list[str] | None = None
) -> None:
    """As the real files are laid out; the extent is always that of 10 m pixels."""
    import xarray as xr

    edge = next(iter(variables.values())).shape[-1]
    step = 300 / edge
    dims = ("timestamp", "y", "x") if when else ("y", "x")
    coords: dict[str, Any] = {"x": west + step * (np.arange(edge) + 0.5), "y": north - step * (np.arange(edge) + 0.5)}
    encoding: dict[str, Any] = {name: {"zlib": True} for name in variables}
    if when:
        coords["timestamp"] = np.array(when, "datetime64[ns]")
        encoding["timestamp"] = {"units": "milliseconds since 1970-01-01", "dtype": "int64"}
    layer = xr.Dataset(
        {name: (dims, values) for name, values in variables.items()}, coords, attrs={"epsg": 32631, "tile": "31UES"}
    )
    layer.to_netcdf(path, engine="h5netcdf", encoding=encoding)


# --- what is expected, from the originals -----------------------------------------------------------------------------


def stamps(layer: Any) -> list[str]:
    """The acquisitions' times as the catalogue spells them."""
    return np.datetime_as_string(layer.timestamp.values, unit="ms").tolist()


def optical_days(layer: Any, year: int) -> dict[str, list[int]]:
    """UTC date -> acquisitions, in the order in which they win: datetime string ascending.

    Ids say no more than the second, so there is one scene per second: the one written last.
    """
    when = stamps(layer)
    scenes = {stamp[:19]: i for i, stamp in enumerate(when)}
    return group(sorted(scenes.values(), key=lambda i: when[i]), when, year)


def radar_days(layer: Any, year: int) -> dict[str, list[int]]:
    """UTC date -> acquisitions, in the order in which they win: datetime descending, id (ends in i) descending."""
    when = stamps(layer)
    return group(sorted(range(len(when)), key=lambda i: (when[i], i), reverse=True), when, year)


def group(ordered: list[int], when: list[str], year: int) -> dict[str, list[int]]:
    days: dict[str, list[int]] = {}
    for i in ordered:
        if when[i].startswith(str(year)):
            days.setdefault(when[i][:10], []).append(i)
    return dict(sorted(days.items()))


def position(layer: Any, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row and column in the layer's grid, in pixels from its corner, of points in metres."""
    step = float(layer.x[1] - layer.x[0])
    return (float(layer.y[0]) + step / 2 - y) / step, (x - float(layer.x[0]) + step / 2) / step


def nearest(layer: Any, name: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(T, P): the pixels that hold the points."""
    row, column = (np.floor(p).astype(int) for p in position(layer, x, y))
    return layer[name].values[:, row, column]


def closed_form(layer: Any, band: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(T, P): bilinear from 20 m to 10 m where 0 is nodata: own cell 9, next row 3, next column 3, diagonal 1.

    Neighbours that are 0 or outside the file are dropped, the rest is renormalised; an own cell of 0 stays 0.
    """
    row, column = position(layer, x, y)
    assert set(np.round(row % 1, 6)) | set(np.round(column % 1, 6)) == {0.25, 0.75}
    values = np.pad(layer[band].values.astype(np.float64), ((0, 0), (1, 1), (1, 1)))
    r, c = np.floor(row).astype(int) + 1, np.floor(column).astype(int) + 1
    up, left = np.where(row % 1 < 0.5, -1, 1), np.where(column % 1 < 0.5, -1, 1)
    corners = [
        (values[:, r, c], 9),
        (values[:, r + up, c], 3),
        (values[:, r, c + left], 3),
        (values[:, r + up, c + left], 1),
    ]
    total = sum(weight * value for value, weight in corners)
    weights = sum(weight * (value != 0) for value, weight in corners)
    return np.where(corners[0][0] == 0, 0, np.floor(total / np.maximum(weights, 1) + 0.5))


def expected_optical(patch: Patch, year: int, x: np.ndarray, y: np.ndarray) -> tuple[list[str], np.ndarray, np.ndarray]:
    fine, coarse = patch.layers[S2_FINE], patch.layers[S2_COARSE]
    clear = ~np.isin(nearest(coarse, "SCL", x, y), NOT_CLEAR)
    dn = np.stack(
        [nearest(fine, band, x, y) if band in FINE else closed_form(coarse, band, x, y) for band in BANDS], axis=-1
    ).astype(np.int64)
    dates, masks, frames = [], [], []
    for date, scenes in optical_days(fine, year).items():
        mask = clear[scenes].any(axis=0)
        if mask.any():
            winner = np.array(scenes)[clear[scenes].argmax(axis=0)]
            frame = dn[winner, np.arange(x.size)]
            if date > LAST_DAY_WITHOUT_OFFSET:
                frame = np.where(frame >= 1000, frame - 1000, frame)
            dates.append(date)
            masks.append(mask)
            frames.append(frame)
    return dates, np.reshape(masks, (-1, x.size)).astype(bool), np.reshape(frames, (-1, x.size, len(BANDS)))


def expected_radar(patch: Patch, year: int, x: np.ndarray, y: np.ndarray) -> tuple[list[str], np.ndarray]:
    layer = patch.layers[S1]
    scaled = []
    for pol in ("VV", "VH"):
        stored_db = nearest(layer, pol, x, y)
        power = np.where(stored_db == 0, 0, 10.0 ** (stored_db * 1e-5)).astype(np.float32).astype(np.float64)
        usable = np.isfinite(power) & (power > 0)
        decibel = 20 * np.log10(np.where(usable, power, 1))
        scaled.append(np.where(usable, np.trunc(np.clip((decibel + 50) * 200, 0, 32767)), 0).astype(np.int64))
    passes = np.stack(scaled, axis=-1)
    dates, frames = [], []
    for date, scenes in radar_days(layer, year).items():
        first = (passes[scenes] != 0).argmax(axis=0)  # per pixel and polarisation
        frame = np.take_along_axis(passes[scenes], first[None], axis=0)[0]
        if frame.any():
            dates.append(date)
            frames.append(frame)
    return dates, np.reshape(frames, (-1, x.size, 2))


# --- the checks -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def comparisons(patch) -> list[Comparison]:
    return list(compare(patch))


def compare(patch: Patch) -> Iterator[Comparison]:
    """Every tile in every year; of the tile's arrays only the requested pixels are kept."""
    source = get_source("mpc")
    for year in patch.years:
        window = Window.of_year(year)
        requests = tile_requests(Aoi.from_file(patch.catalog / "aoi.geojson"), [window])
        scenes = search(
            [r.tile for r in requests], [window], source, client=Client(), catalog=str(patch.catalog / "items.json")
        )
        for sensor, days in (
            (Sensor.S2, optical_days(patch.layers[S2_FINE], year)),
            (Sensor.S1_ASC, radar_days(patch.layers[S1], year)),
        ):
            assert len(scenes.of(sensor)) == sum(map(len, days.values()))
        for request in requests:
            tile, pixels = request.tile, request.pixels
            dpixels = read_dpixels(scenes.on(tile, window), request, Reader(Client()))
            assert not dpixels.s1_desc.size
            got = Record(
                np.datetime_as_string(dpixels.s2_dates, unit="D").tolist(),
                dpixels.s2_mask[:, pixels] == 1,
                dpixels.s2[:, pixels],
                np.datetime_as_string(dpixels.s1_asc_dates, unit="D").tolist(),
                dpixels.s1_asc[:, pixels],
            )
            rows, columns = np.nonzero(pixels)
            x, y = tile.bounds[0] + 10 * (columns + 0.5), tile.bounds[3] - 10 * (rows + 0.5)
            want = Record(*expected_optical(patch, year, x, y), *expected_radar(patch, year, x, y))
            yield Comparison(tile, year, pixels, got, want)


def test_the_pixels_are_those_inside_the_area(patch, comparisons):
    """Of all 10 m pixels of the patch, those whose centre lies in the polygon."""
    fine = patch.layers[S2_FINE]
    (feature,) = json.loads((patch.catalog / "aoi.geojson").read_text())["features"]
    lon, lat = Transformer.from_crs(int(fine.attrs["epsg"]), 4326, always_xy=True).transform(
        *np.meshgrid(fine.x.values, fine.y.values)
    )
    inside = shapely.contains_xy(shapely.geometry.shape(feature["geometry"]), lon, lat)
    for year in patch.years:
        assert sum(int(c.pixels.sum()) for c in comparisons if c.year == year) == inside.sum() > inside.size / 4


def test_dates_and_masks(patch, comparisons):
    for c in comparisons:
        assert c.got.s2_dates == c.want.s2_dates
        np.testing.assert_array_equal(c.got.s2_mask, c.want.s2_mask)
    masks = [c.want.s2_mask for c in comparisons]
    assert sum(mask.size for mask in masks) > sum(int(mask.sum()) for mask in masks) > patch.least


@pytest.mark.parametrize("bands", [FINE, COARSE], ids=["10m", "20m"])
def test_reflectances(patch, comparisons, bands):
    """10 m bands unchanged, 20 m bands by the closed form, wherever a date has a clear scene."""
    chosen = [BANDS.index(band) for band in bands]
    compared = 0
    for c in comparisons:
        got, want = c.got.s2[c.want.s2_mask][:, chosen], c.want.s2[c.want.s2_mask][:, chosen]
        np.testing.assert_array_equal(got, want, err_msg=f"{c.tile.id} {c.year}")
        compared += int(np.count_nonzero(want))
    assert compared > patch.least * len(bands) * 0.9


def test_radar(patch, comparisons):
    compared = 0
    for c in comparisons:
        assert c.got.s1_dates == c.want.s1_dates
        np.testing.assert_array_equal(c.got.s1, c.want.s1, err_msg=f"{c.tile.id} {c.year}")
        compared += int(np.count_nonzero(c.want.s1))
    assert compared > patch.least


def test_embed(patch, comparisons, tessera, tmp_path, monkeypatch):
    """The command of the README on the catalogue: every pixel seen clear at least once has an embedding."""
    monkeypatch.chdir(patch.catalog)
    code, stdout, stderr = tessera(
        "embed",
        "--aoi",
        "aoi.geojson",
        "--year",
        patch.best_year,
        "--catalog",
        "items.json",
        "--model",
        "demo",
        "--out",
        tmp_path / "out",
        "--json",
    )
    assert code == 0, stderr
    tiles = [c for c in comparisons if c.year == patch.best_year]
    seen = [c.want.s2_mask.sum(axis=0) for c in tiles]
    summary = json.loads(stdout.splitlines()[-1])
    assert summary["tiles"] == {"done": len(tiles), "empty": 0, "failed": 0, "present": 0}
    assert summary["pixels"] == sum(np.count_nonzero(s) for s in seen) > 0
    for c, s2 in zip(tiles, seen, strict=True):
        stem = f"{c.tile.id}_{c.year}"
        codes, scales, counts = (read_raster(tmp_path / "out" / f"{stem}_{r}.tif") for r in ("emb", "scales", "counts"))
        radar = c.want.s1.any(axis=-1).sum(axis=0)
        np.testing.assert_array_equal(counts[:, c.pixels], [s2, radar, np.zeros_like(radar)])
        embedded = np.zeros(c.pixels.shape, bool)
        embedded[c.pixels] = s2 > 0
        np.testing.assert_array_equal(codes != -128, np.broadcast_to(embedded, codes.shape))
        np.testing.assert_array_equal(np.isfinite(scales[0]), embedded)
        assert (scales[0][embedded] > 0).all()
        assert (np.abs(codes[:, embedded].astype(int)).max(axis=0) == 127).all()
        assert len(np.unique(codes[:, embedded], axis=1).T) > embedded.sum() / 2


def read_raster(path: Path) -> np.ndarray:
    with rasterio.open(path) as src:
        return src.read()
