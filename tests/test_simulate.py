"""The simulated catalogue against what is known of the products it stands for."""

from __future__ import annotations

import datetime as dt
import hashlib
import itertools
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pystac
import pytest
import rasterio
import rasterio.features
import shapely
from rasterio.errors import NotGeoreferencedWarning
from rio_cogeo import cog_validate

from tessera_cli.errors import UsageError
from tessera_cli.grid import tiles_touching, to_utm
from tessera_cli.simulate import Simulation, simulate
from tessera_cli.simulate.area import EPSG, Area, lonlat
from tessera_cli.simulate.catalog import write_cog
from tessera_cli.simulate.landscape import landscape
from tessera_cli.simulate.sentinel1 import passes, speckle
from tessera_cli.simulate.sentinel2 import datatakes, sky, write_datatake

WHEAT, MAIZE, RAPESEED, DECIDUOUS, EVERGREEN, WATER, TOWN = 1, 2, 3, 7, 8, 9, 10
S2_BANDS = {"B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12", "SCL"}
Item = dict[str, Any]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulated")
    ticks: list[tuple[int, int]] = []
    made = simulate(folder, size=32, progress=lambda done, total: ticks.append((done, total)))
    assert isinstance(made, Simulation)
    assert ticks == [(i + 1, len(ticks)) for i in range(len(ticks))]
    assert made.sentinel2_items + made.sentinel1_items == len(json.loads(made.items.read_text())["features"])
    assert made.parcel_count == len(json.loads((folder / "labels.geojson").read_text())["features"])
    assert made.aoi.is_file()
    assert made.labels.is_file()
    return folder


@pytest.fixture(scope="module")
def items(out: Path) -> list[Item]:
    return json.loads((out / "items.json").read_text())["features"]


@pytest.fixture(scope="module")
def s2(items: list[Item]) -> list[Item]:
    return sorted((i for i in items if i["collection"] == "sentinel-2-l2a"), key=when)


@pytest.fixture(scope="module")
def s1(items: list[Item]) -> list[Item]:
    return sorted((i for i in items if i["collection"] == "sentinel-1-rtc"), key=when)


def when(item: Item) -> dt.datetime:
    return dt.datetime.fromisoformat(item["properties"]["datetime"])


def read(out: Path, item: Item, key: str) -> np.ndarray:
    with rasterio.open(out / item["assets"][key]["href"]) as file:
        return file.read(1)


def raster(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read(1)


def is_whole(item: Item) -> bool:
    return item["assets"]["B02"]["proj:shape"] == [64, 64]


def fine(coarse: np.ndarray) -> np.ndarray:
    return coarse.repeat(2, axis=0).repeat(2, axis=1)


# --- the catalogue -------------------------------------------------------------------------------------------------


def test_items_are_stac_with_the_keys_of_planetary_computer(out: Path, items: list[Item]) -> None:
    parsed = pystac.ItemCollection.from_dict(json.loads((out / "items.json").read_text()))
    assert len(parsed.items) == len(items) == len({item.id for item in parsed.items})
    assert {item.collection_id for item in parsed.items} == {"sentinel-2-l2a", "sentinel-1-rtc"}
    for item in items:
        assert item["stac_version"] == "1.0.0"
        assert item["properties"]["proj:epsg"] == EPSG
        assert item["properties"]["datetime"].startswith("2023-")
        assert len(item["properties"]["datetime"]) == len("2023-01-03T10:56:31.024000Z")
        assert shapely.geometry.shape(item["geometry"]).is_valid
        assert tuple(item["bbox"]) == shapely.geometry.shape(item["geometry"]).bounds
        for asset in item["assets"].values():
            assert asset["href"].startswith("./cogs/")
            assert (out / asset["href"]).is_file()
    assert [when(i) for i in items] != sorted(when(i) for i in items)


def test_sentinel2_properties(s2: list[Item]) -> None:
    for item in s2:
        p = item["properties"]
        assert set(item["assets"]) == S2_BANDS
        satellite, _, sensed, orbit, mgrs, processed = item["id"].split("_")
        assert dt.datetime.strptime(sensed + "+0000", "%Y%m%dT%H%M%S%z") == when(item).replace(microsecond=0)
        assert (orbit, mgrs) == (f"R{p['sat:relative_orbit']:03d}", "T" + p["s2:mgrs_tile"])
        assert p["platform"] == f"Sentinel-{satellite[1:]}"
        assert p["s2:datatake_id"].startswith(f"G{satellite}_{sensed}_")
        absolute = int(p["s2:datatake_id"].split("_")[2])  # ESA's own rule from absolute to relative orbit
        assert p["sat:relative_orbit"] == (absolute + 2 if satellite == "S2A" else absolute - 27) % 143 + 1
        assert p["s2:processing_baseline"] == "05.10"
        assert processed in p["s2:product_uri"]
        assert 0 <= p["eo:cloud_cover"] < 100
        assert len(item["assets"]["B8A"]["eo:bands"]) == 1
        assert "eo:bands" not in item["assets"]["SCL"]


def test_sentinel1_properties(s1: list[Item]) -> None:
    for item in s1:
        p = item["properties"]
        assert set(item["assets"]) == {polarisation.lower() for polarisation in p["sar:polarizations"]}
        absolute = int(item["id"].split("_")[6])
        assert item["id"].endswith(f"_{absolute:06d}_{int(p['s1:datatake_id']):06X}_rtc")
        assert (absolute - 73) % 175 + 1 == p["sat:relative_orbit"]
        assert p["start_datetime"] < p["datetime"] < p["end_datetime"]
        hours = {"ascending": range(17, 19), "descending": range(5, 7)}
        assert when(item).hour in hours[p["sat:orbit_state"]]
    modes = [tuple(item["properties"]["sar:polarizations"]) for item in s1]
    assert modes.count(("VV",)) == modes.count(("HH", "HV")) == 1


def test_files_are_cogs_on_the_grid_of_the_item(out: Path, s2: list[Item], s1: list[Item]) -> None:
    for item in [*s2[::23], *s1[::29]]:
        for key, asset in item["assets"].items():
            path = out / asset["href"]
            assert cog_validate(path, quiet=True) == (True, [], [])
            with rasterio.open(path) as file:
                grid = asset if "proj:shape" in asset else item["properties"]
                assert list(file.shape) == grid["proj:shape"]
                assert list(file.transform)[:6] == grid["proj:transform"][:6]
                assert file.crs.to_epsg() == EPSG
                assert file.transform.c % 20 == file.transform.f % 20 == 0
                assert file.res[0] == (20 if key in {"B05", "B06", "B07", "B8A", "B11", "B12", "SCL"} else 10)
                kinds = {"SCL": "uint8", "vv": "float32", "vh": "float32", "hh": "float32", "hv": "float32"}
                assert file.dtypes[0] == kinds.get(key, "uint16")
                assert file.nodata in ((-32768,) if item in s1 else (0, None))
    for name in ("labels.tif", "parcels.tif", "biomass.tif"):
        assert cog_validate(out / name, quiet=True)[0]


def test_large_files_are_cogs_too(tmp_path: Path) -> None:
    write_cog(tmp_path / "a.tif", np.arange(700 * 600, dtype=np.float32).reshape(700, 600), Area(16).transform(), None)
    valid, errors, warnings = cog_validate(tmp_path / "a.tif", quiet=True)
    assert (valid, errors) == (True, [])
    assert all("overviews" in warning for warning in warnings)


def test_some_scenes_have_no_nodata_tag(out: Path, s2: list[Item]) -> None:
    tagged = []
    for item in s2:
        with rasterio.open(out / item["assets"]["B04"]["href"]) as file:
            tagged.append(file.nodata == 0)
    assert 0.1 < 1 - np.mean(tagged) < 0.2


# --- when --------------------------------------------------------------------------------------------------------


def test_each_sentinel2_orbit_returns_every_5_days(s2: list[Item]) -> None:
    for orbit in (94, 51):
        track = [i for i in s2 if i["properties"]["sat:relative_orbit"] == orbit]
        dates = sorted({when(i).date() for i in track})
        assert {(b - a).days for a, b in itertools.pairwise(dates)} == {5}
        assert len(dates) == 73
        assert all(when(i).hour == 10 for i in track)
    platforms = {when(i).date(): i["properties"]["platform"] for i in s2 if i["properties"]["sat:relative_orbit"] == 94}
    assert all(platforms[a] != platforms[b] for a, b in itertools.pairwise(sorted(platforms)))


def test_one_sentinel1_orbit_is_missing_for_a_season(s1: list[Item]) -> None:
    gaps = {}
    for state in ("ascending", "descending"):
        days = [when(i).date() for i in s1 if i["properties"]["sat:orbit_state"] == state and "vh" in i["assets"]]
        gaps[state] = [(b - a).days for a, b in itertools.pairwise(days)]
    assert set(gaps["ascending"]) == {6}
    assert sorted(set(gaps["descending"]))[0] == 12
    assert 60 < max(gaps["descending"]) < 110


@pytest.mark.parametrize("year", [2017, 2020, 2024])
def test_any_year_is_covered_to_both_ends(year: int) -> None:
    for found in ([d.overpass for d in datatakes(0, year, 0.5)], [overpass for overpass, _ in passes(year)]):
        assert {overpass.when.year for overpass in found} == {year}
        assert min(overpass.when for overpass in found) < dt.datetime(year, 1, 7)
        assert max(overpass.when for overpass in found) > dt.datetime(year, 12, 25)


# --- Sentinel-2 --------------------------------------------------------------------------------------------------


def test_vegetation_index_tells_the_crop_calendar(out: Path, s2: list[Item]) -> None:
    labels = raster(out / "labels.tif")
    seen: dict[tuple[int, int], list[float]] = defaultdict(list)
    for item in filter(is_whole, s2):
        scl = fine(read(out, item, "SCL"))
        red, nir = (read(out, item, key).astype(float) - 1000 for key in ("B04", "B08"))
        for code in (WHEAT, MAIZE, DECIDUOUS, EVERGREEN, WATER, TOWN):
            clear = (labels == code) & np.isin(scl, (4, 5, 6))
            if clear.sum() > 10:
                seen[code, when(item).month].append(np.mean((nir - red)[clear] / (nir + red)[clear]))
    ndvi = {key: float(np.median(values)) for key, values in seen.items()}
    assert ndvi[WHEAT, 5] > 0.75 > 0.45 > ndvi[WHEAT, 8]
    assert ndvi[MAIZE, 4] < 0.3 < 0.7 < ndvi[MAIZE, 7]
    assert ndvi[DECIDUOUS, 2] < 0.6 < 0.75 < ndvi[DECIDUOUS, 7]
    assert ndvi[EVERGREEN, 2] > 0.7
    assert ndvi[EVERGREEN, 7] > 0.7
    assert all(ndvi[WATER, month] < 0 for month in (4, 7, 9))
    assert all(ndvi[TOWN, month] < 0.5 for month in (4, 7, 9))


def test_reflectance_is_plausible_once_1000_is_removed(out: Path, s2: list[Item]) -> None:
    for item in filter(is_whole, s2[::9]):
        scl = read(out, item, "SCL")
        blue, red_edge, nir = (read(out, item, key).astype(float) / 1e4 - 0.1 for key in ("B02", "B06", "B8A"))
        plants = scl == 4
        if plants.sum() > 10:
            assert 0.005 < blue[::2, ::2][plants].mean() < 0.12
            assert 0.08 < red_edge[plants].mean() < nir[plants].mean() < 0.55


def test_scene_classification_matches_the_sky(out: Path, s2: list[Item]) -> None:
    brightness: dict[int, list[float]] = defaultdict(list)
    for item in filter(is_whole, s2):
        scl, nir = read(out, item, "SCL"), read(out, item, "B8A") / 1e4 - 0.1
        blue = read(out, item, "B02").reshape(32, 2, 32, 2).mean(axis=(1, 3)) / 1e4 - 0.1
        for code in np.unique(scl):
            value = nir if code in (3, 6) else blue
            brightness[int(code)] += value[scl == code].tolist()
        seen = scl > 0
        assert item["properties"]["eo:cloud_cover"] == pytest.approx(
            100 * np.isin(scl[seen], (8, 9, 10)).mean(), abs=0.01
        )
    assert set(brightness) == {0, 3, 4, 5, 6, 7, 8, 9, 10, 11}
    mean = {code: np.mean(values) for code, values in brightness.items()}
    assert mean[9] > 0.45 > mean[8] > 0.2 > mean[7] > mean[10] > mean[5] > mean[4] > 0
    assert mean[11] > 0.4
    assert mean[6] < 0.05
    assert mean[3] < 0.2


def test_coarse_bands_are_means_of_the_ground_at_10_m(out: Path, s2: list[Item]) -> None:
    for item in (i for i in s2 if is_whole(i) and i["properties"]["eo:cloud_cover"] < 5):
        inside = read(out, item, "SCL") > 0
        nir, narrow = read(out, item, "B08").reshape(32, 2, 32, 2).mean(axis=(1, 3)), read(out, item, "B8A")
        assert np.corrcoef(nir[inside], narrow[inside])[0, 1] > 0.97


def test_clouds_are_coherent_and_cast_shadows_away_from_the_sun() -> None:
    rng = np.random.default_rng(1)
    cloud, cirrus, shadow = sky(rng, (200, 200), 0.4, 172)
    covered = (cloud >= 0.25) | (cirrus >= 0.3)
    assert covered.mean() == pytest.approx(0.4, abs=0.01)
    same = covered[:, 1:] == covered[:, :-1]
    assert same.mean() > 0.9  # 0.52 for pixels drawn independently
    # The morning sun stands south-south-east: shadows lie to the north, a little west, and longer in winter.
    spectrum = np.fft.fft2(shadow) * np.conj(np.fft.fft2(cloud))
    row, column = np.unravel_index(np.argmax(np.fft.ifft2(spectrum).real), cloud.shape)
    assert (row - 200, column - 200) < (0, 0)
    assert -100 < row - 200 < column - 200 < 0


@pytest.mark.parametrize("cloud", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_mean_cloudiness_is_as_asked(cloud: float) -> None:
    takes = datatakes(3, 2023, cloud)
    assert np.mean([take.cloud for take in takes]) == pytest.approx(cloud, abs=0.02)
    if cloud == 0.5:  # most scenes are nearly clear or overcast
        assert np.mean([not 0.2 < take.cloud < 0.8 for take in takes]) > 0.6


def test_cloudiness_of_the_items_is_that_of_their_datatakes(s2: list[Item]) -> None:
    drawn = {take.overpass.when: take.cloud for take in datatakes(0, 2023, 0.5)}
    found = [i["properties"]["eo:cloud_cover"] / 100 for i in s2]
    assert np.mean(found) == pytest.approx(0.5, abs=0.05)
    error = [f - drawn[when(i).replace(tzinfo=None)] for f, i in zip(found, s2, strict=True) if is_whole(i)]
    assert abs(np.mean(error)) < 0.015


def test_snow_lies_in_a_few_winter_scenes_only(out: Path, s2: list[Item]) -> None:
    snowy = [i for i in s2 if (read(out, i, "SCL") == 11).any()]
    assert 1 <= len(snowy) <= 6
    assert all(when(i).month <= 3 for i in snowy)


def test_offset_starts_with_baseline_4(tmp_path: Path) -> None:
    ground = landscape(Area(16), 0)
    takes = [t for t in datatakes(0, 2022, 0.0) if t.number % 10 != 6]
    (old,) = write_datatake(ground, next(t for t in takes if t.overpass.when < dt.datetime(2022, 1, 26)), 0, tmp_path)
    (new,) = write_datatake(ground, next(t for t in takes if t.overpass.when > dt.datetime(2022, 3, 20)), 0, tmp_path)
    assert old["properties"]["s2:processing_baseline"] < "04.00" <= new["properties"]["s2:processing_baseline"]
    assert np.median(read(tmp_path, old, "B02")) < 900 < 1000 < np.median(read(tmp_path, new, "B02")) < 2000
    assert min(read(tmp_path, old, key).min() for key in S2_BANDS) > 0  # 0 stays the mark of no data


# --- granules and swaths -----------------------------------------------------------------------------------------


def test_granules_of_one_datatake_overlap_in_a_strip(out: Path, s2: list[Item]) -> None:
    takes: dict[str, dict[str, Item]] = defaultdict(dict)
    for item in s2:
        takes[item["properties"]["s2:datatake_id"]].setdefault(item["properties"]["s2:mgrs_tile"], item)
    pairs = [tiles for tiles in takes.values() if len(tiles) == 2]
    assert len(pairs) >= 10
    for tiles in pairs:
        west, east = tiles["31UES"], tiles["31UFS"]
        assert west["properties"]["datetime"] == east["properties"]["datetime"]
        for key in ("B03", "SCL"):
            left, right = read(out, west, key), read(out, east, key)
            start = (east["assets"][key]["proj:transform"][2] - west["assets"][key]["proj:transform"][2]) / (
                east["assets"][key]["proj:transform"][0]
            )
            strip = left.shape[1] - int(start)
            assert 0 < strip < left.shape[1]
            assert np.array_equal(left[:, -strip:], right[:, :strip])


def test_one_date_is_there_in_two_processings(out: Path, s2: list[Item]) -> None:
    copies = defaultdict(list)
    for item in s2:
        copies[item["properties"]["s2:datatake_id"], item["properties"]["s2:mgrs_tile"]].append(item)
    ((first, second),) = [sorted(c, key=lambda i: i["id"]) for c in copies.values() if len(c) > 1]
    assert first["id"][:38] == second["id"][:38]
    assert first["properties"]["s2:generation_time"] < second["properties"]["s2:generation_time"]
    assert not np.array_equal(read(out, first, "B03"), read(out, second, "B03"))
    assert np.array_equal(read(out, first, "SCL"), read(out, second, "SCL"))


def test_footprints_bound_the_data(out: Path, s2: list[Item], s1: list[Item]) -> None:
    partial = 0
    for item in [*s2, *s1]:
        footprint = shapely.transform(
            shapely.geometry.shape(item["geometry"]), to_utm(EPSG).transform, interleaved=False
        )
        for key in list(item["assets"])[-1:]:
            with rasterio.open(out / item["assets"][key]["href"]) as file:
                values, transform = file.read(1), file.transform
            valid = values != (0 if item in s2 else -32768)
            rows, columns = np.indices(values.shape) + 0.5
            x, y = transform.c + transform.a * columns, transform.f + transform.e * rows
            assert shapely.contains_xy(footprint.buffer(0.5), x[valid], y[valid]).all()
            assert not shapely.contains_xy(footprint.buffer(-0.5), x[~valid], y[~valid]).any()
            partial += not valid.all()
            if item in s2 and not valid.all():
                assert np.array_equal(read(out, item, "B02") > 0, fine(valid))
                assert 0.1 < valid.mean() < 0.9
    assert partial >= 15


# --- Sentinel-1 --------------------------------------------------------------------------------------------------


def test_speckle_has_4_point_4_looks() -> None:
    values = speckle(np.random.default_rng(0), (400, 400))
    assert values.mean() == pytest.approx(1, abs=0.01)
    assert values.mean() ** 2 / values.var() == pytest.approx(4.4, rel=0.03)
    centred = values - values.mean()
    assert (centred[:, 1:] * centred[:, :-1]).mean() / values.var() == pytest.approx(0.5, abs=0.03)
    assert abs((centred[:, 2:] * centred[:, :-2]).mean()) / values.var() < 0.03


def test_backscatter_of_the_classes(out: Path, s1: list[Item]) -> None:
    labels, parcels = raster(out / "labels.tif"), raster(out / "parcels.tif")
    power = {key: np.stack([read(out, i, key) for i in s1 if {"vv", "vh"} <= set(i["assets"])]) for key in ("vv", "vh")}
    power = {key: np.where(values == -32768, np.nan, values) for key, values in power.items()}
    assert all((values[np.isfinite(values)] > 0).all() for values in power.values())

    def decibel(key: str, code: int) -> float:
        return 10 * np.log10(np.nanmean(power[key][:, labels == code]))

    assert -13 < decibel("vv", WHEAT) < -8
    assert -20 < decibel("vh", WHEAT) < -14
    assert decibel("vh", MAIZE) > decibel("vh", WHEAT)
    assert decibel("vv", WATER) == pytest.approx(-22, abs=1.5)
    assert decibel("vv", TOWN) > -7
    assert np.nanmax(power["vv"][:, labels == TOWN].mean(axis=0)) > 0.6  # -2 dB: corner reflectors

    lake = parcels == np.bincount(parcels[labels == WATER]).argmax()
    looks = [np.nanmean(v[lake]) ** 2 / np.nanvar(v[lake]) for v in power["vv"] if np.isfinite(v[lake]).sum() > 50]
    assert np.median(looks) == pytest.approx(4.4, rel=0.2)


# --- the ground --------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings(f"ignore::{NotGeoreferencedWarning.__module__}.{NotGeoreferencedWarning.__name__}")
def test_labels_parcels_and_biomass_agree(out: Path) -> None:
    labels, parcels, biomass = (raster(out / f"{name}.tif") for name in ("labels", "parcels", "biomass"))
    assert (labels.dtype, parcels.dtype, biomass.dtype) == (np.uint8, np.int32, np.float32)
    assert np.array_equal(labels > 0, parcels > 0)
    assert 0.6 < (labels > 0).mean() < 0.98
    assert np.array_equal(np.isfinite(biomass), (labels > 0) & (labels < WATER))
    features = json.loads((out / "labels.geojson").read_text())["features"]
    assert sorted(f["properties"]["parcel_id"] for f in features) == np.unique(parcels[parcels > 0]).tolist()
    names: dict[str, set[int]] = defaultdict(set)
    shapes = []
    for feature in features:
        p = feature["properties"]
        pixels = parcels == p["parcel_id"]
        (code,) = np.unique(labels[pixels])
        names[p["class"]].add(int(code))
        if p["biomass"] is None:
            assert p["class"] in ("water", "town")
        else:
            assert p["biomass"] == pytest.approx(biomass[pixels].mean(), rel=1e-3)
            assert p["biomass"] > 100 if "forest" in p["class"] else 2 < p["biomass"] < 40
        outline = shapely.transform(
            shapely.geometry.shape(feature["geometry"]), to_utm(EPSG).transform, interleaved=False
        )
        shapes.append((outline, p["parcel_id"]))
    assert all(len(codes) == 1 for codes in names.values())
    with rasterio.open(out / "parcels.tif") as file:
        burnt = rasterio.features.rasterize(shapes, file.shape, transform=file.transform, dtype="int32")
    assert np.array_equal(burnt, parcels)


def test_default_landscape_has_every_class_in_fields_of_1_to_6_ha() -> None:
    ground = landscape(Area(128), 0)
    assert set(np.unique(ground.labels)) == set(range(11))
    hectares = np.bincount(ground.parcels.ravel())[1:] / 100
    assert 1 < np.median(hectares) < 4
    assert np.mean((hectares > 0.7) & (hectares < 7)) > 0.85
    crops = [np.sum(ground.stands.cover[1:] == code) for code in range(6)]
    assert min(crops) >= 3


@pytest.mark.parametrize("size", [16, 33, 128, 500])
def test_aoi_crosses_a_tile_border(size: int) -> None:
    aoi = lonlat(Area(size).aoi(np.random.default_rng(0)))
    metres = shapely.transform(aoi, to_utm(EPSG).transform, interleaved=False)
    west, east = tiles_touching(metres, EPSG)
    assert (west.row, west.column + 1) == (east.row, east.column)
    assert 0.2 < metres.intersection(shapely.box(*west.bounds)).area / metres.area < 0.5
    assert 0.8 < metres.area / (100 * size**2) < 1
    assert Area(size).outline().buffer(-100).contains(metres)


def test_written_aoi_lies_inside_the_imagery(out: Path, items: list[Item]) -> None:
    collection = json.loads((out / "aoi.geojson").read_text())
    (feature,) = collection["features"]
    aoi = shapely.geometry.shape(feature["geometry"])
    assert aoi.geom_type == "Polygon"
    assert aoi.is_valid
    assert shapely.union_all([shapely.geometry.shape(i["geometry"]) for i in items]).contains(aoi)


# --- seeds and folders -------------------------------------------------------------------------------------------


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_same_arguments_same_bytes_even_over_another_simulation(out: Path, tmp_path: Path) -> None:
    (tmp_path / "cogs" / "stale").mkdir(parents=True)
    (tmp_path / "aoi.geojson").write_bytes((out / "aoi.geojson").read_bytes())  # a simulation that was cut off
    simulate(tmp_path, size=32)
    assert digests(tmp_path) == digests(out)
    assert not (tmp_path / "cogs" / "stale").exists()


def test_a_scene_does_not_depend_on_the_scenes_before_it(out: Path, tmp_path: Path) -> None:
    for item in write_datatake(landscape(Area(32), 0), datatakes(0, 2023, 0.5)[75], 0, tmp_path):
        for asset in item["assets"].values():
            assert (tmp_path / asset["href"]).read_bytes() == (out / asset["href"]).read_bytes()


def test_another_seed_is_another_landscape_under_another_sky(out: Path) -> None:
    ground = landscape(Area(32), 1)
    assert np.mean(ground.labels != raster(out / "labels.tif")) > 0.3
    assert [t.cloud for t in datatakes(1, 2023, 0.5)] != [t.cloud for t in datatakes(0, 2023, 0.5)]


@pytest.mark.parametrize(
    "wrong", [{"size": 15}, {"cloud": -0.1}, {"cloud": 1.1}, {"cloud": float("nan")}, {"year": 1999}, {"seed": -1}]
)
def test_wrong_arguments_are_refused_before_anything_is_written(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        simulate(tmp_path / "new", **wrong)
    assert not (tmp_path / "new").exists()


def test_folders_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "aoi.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    with pytest.raises(UsageError, match="other files"):
        simulate(tmp_path, size=16)
    with pytest.raises(UsageError, match="is a file"):
        simulate(tmp_path / "aoi.geojson", size=16)
    assert [path.name for path in tmp_path.iterdir()] == ["aoi.geojson"]
