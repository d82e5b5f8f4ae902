"""The simulated catalogue against what is known of the products it stands for."""

from __future__ import annotations

import datetime as dt
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
from rio_cogeo import cog_validate

from tessera_cli.errors import UsageError
from tessera_cli.extent.grid import tiles_touching, to_utm
from tessera_cli.simulate import sentinel1, sentinel2, simulate
from tessera_cli.simulate.area import EPSG, aoi, area, lonlat
from tessera_cli.simulate.landscape import Landscape, landscape
from tessera_cli.simulate.scene import Scene

WHEAT, MAIZE, DECIDUOUS, EVERGREEN, WATER, TOWN = 1, 2, 7, 8, 9, 10
S2_BANDS = {"B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12", "SCL"}
AT_10_M = {"B02", "B03", "B04", "B08", "vv", "vh", "hh", "hv"}
Item = dict[str, Any]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("simulated")
    ticks: list[tuple[int, int]] = []
    made = simulate(folder, size=32, progress=lambda done, total: ticks.append((done, total)))
    assert ticks == [(i + 1, len(ticks)) for i in range(len(ticks))]
    assert made.sentinel2_items + made.sentinel1_items == len(json.loads(made.items.read_text())["features"])
    assert made.parcel_count == len(json.loads((folder / "labels.geojson").read_text())["features"])
    assert (made.aoi, made.labels) == (folder / "aoi.geojson", folder / "labels.tif")
    return folder


@pytest.fixture(scope="module")
def items(out: Path) -> list[Item]:
    return json.loads((out / "items.json").read_text())["features"]


@pytest.fixture(scope="module")
def s2(items: list[Item]) -> list[Item]:
    return sorted((i for i in items if i["collection"] == "sentinel-2-l2a"), key=lambda i: (when(i), i["id"]))


@pytest.fixture(scope="module")
def s1(items: list[Item]) -> list[Item]:
    return sorted((i for i in items if i["collection"] == "sentinel-1-rtc"), key=when)


def when(item: Item) -> dt.datetime:
    return dt.datetime.fromisoformat(item["properties"]["datetime"])


def raster(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read(1)


def read(out: Path, item: Item, key: str) -> np.ndarray:
    return raster(out / item["assets"][key]["href"])


def whole(s2: list[Item]) -> list[Item]:
    return [item for item in s2 if item["assets"]["B02"]["proj:shape"] == [64, 64]]


def metres(lonlat: dict[str, Any]) -> shapely.Geometry:
    return shapely.transform(shapely.geometry.shape(lonlat), to_utm(EPSG).transform, interleaved=False)


def ground(size: int, seed: int) -> Landscape:
    return landscape(area(size), np.random.default_rng((seed, 1)))


def test_items_are_stac_with_the_keys_of_planetary_computer(out: Path, items: list[Item]) -> None:
    parsed = pystac.ItemCollection.from_dict(json.loads((out / "items.json").read_text()))
    assert len(parsed.items) == len(items) == len({item.id for item in parsed.items})
    assert {item.collection_id for item in parsed.items} == {"sentinel-2-l2a", "sentinel-1-rtc"}
    for item in items:
        assert item["properties"]["proj:epsg"] == EPSG
        assert item["properties"]["datetime"].startswith("2023-")
        assert len(item["properties"]["datetime"]) == len("2023-01-03T10:56:31.024000Z")
        assert tuple(item["bbox"]) == shapely.geometry.shape(item["geometry"]).bounds
        assert all(asset["href"].startswith("./cogs/") for asset in item["assets"].values())
    assert [when(i) for i in items] != sorted(when(i) for i in items)


def test_properties_of_the_products(s2: list[Item], s1: list[Item]) -> None:
    for item in s2:
        p = item["properties"]
        assert set(item["assets"]) == S2_BANDS
        satellite, _, sensed, orbit, mgrs, _ = item["id"].split("_")
        assert dt.datetime.strptime(sensed + "+0000", "%Y%m%dT%H%M%S%z") == when(item).replace(microsecond=0)
        assert (orbit, mgrs) == (f"R{p['sat:relative_orbit']:03d}", "T" + p["s2:mgrs_tile"])
        assert p["platform"] == f"Sentinel-{satellite[1:]}"
        assert p["s2:processing_baseline"] == "05.10"
        assert 0 <= p["eo:cloud_cover"] < 100
    for item in s1:
        p = item["properties"]
        assert set(item["assets"]) == {polarisation.lower() for polarisation in p["sar:polarizations"]}
        assert when(item).hour in {"ascending": range(17, 19), "descending": range(5, 7)}[p["sat:orbit_state"]]
    modes = [tuple(item["properties"]["sar:polarizations"]) for item in s1]
    assert modes.count(("VV",)) == modes.count(("HH", "HV")) == 1


def test_files_are_cogs_on_the_grid_of_the_item(out: Path, s2: list[Item], s1: list[Item]) -> None:
    for item in [*s2[::23], *s1[::29]]:
        for key, asset in item["assets"].items():
            assert cog_validate(out / asset["href"], quiet=True) == (True, [], [])
            with rasterio.open(out / asset["href"]) as file:
                grid = asset if "proj:shape" in asset else item["properties"]
                assert list(file.shape) == grid["proj:shape"]
                assert list(file.transform)[:6] == grid["proj:transform"][:6]
                assert file.crs.to_epsg() == EPSG
                assert file.transform.c % 20 == file.transform.f % 20 == 0
                assert file.res[0] == (10 if key in AT_10_M else 20)
                assert file.dtypes[0] == ("float32" if item in s1 else "uint8" if key == "SCL" else "uint16")
                assert file.nodata in ((-32768,) if item in s1 else (0, None))
    for name in ("labels.tif", "parcels.tif", "biomass.tif"):
        assert cog_validate(out / name, quiet=True)[0]


def test_each_sentinel2_orbit_returns_every_5_days(s2: list[Item]) -> None:
    for orbit in (94, 51):
        track = [i for i in s2 if i["properties"]["sat:relative_orbit"] == orbit]
        platforms = {when(i).date(): i["properties"]["platform"] for i in track}
        assert len(platforms) == 73
        for a, b in itertools.pairwise(sorted(platforms)):
            assert (b - a).days == 5
            assert platforms[a] != platforms[b]


def test_one_sentinel1_orbit_is_missing_for_a_season(s1: list[Item]) -> None:
    gaps = {}
    for state in ("ascending", "descending"):
        days = [when(i).date() for i in s1 if i["properties"]["sat:orbit_state"] == state]
        gaps[state] = sorted((b - a).days for a, b in itertools.pairwise(days))
    assert set(gaps["ascending"]) == {6}
    assert set(gaps["descending"][:-1]) == {12}
    assert 60 < gaps["descending"][-1] < 110


@pytest.mark.parametrize("year", [2017, 2020, 2024])
def test_any_year_is_covered_to_both_ends(year: int) -> None:
    for found in (sentinel2.passes(0, year, 0.5), sentinel1.passes(year)):
        first, *_, last = (overpass.when for overpass, _ in found)
        assert dt.datetime(year, 1, 1) <= first < dt.datetime(year, 1, 7)
        assert dt.datetime(year, 12, 25) < last < dt.datetime(year + 1, 1, 1)


def test_vegetation_index_tells_the_crop_calendar(out: Path, s2: list[Item]) -> None:
    labels = raster(out / "labels.tif")
    seen: dict[tuple[int, int], list[float]] = defaultdict(list)
    for item in whole(s2):
        scl = np.kron(read(out, item, "SCL"), np.ones((2, 2)))
        red, nir = (read(out, item, key).astype(float) - 1000 for key in ("B04", "B08"))
        for code in (WHEAT, MAIZE, DECIDUOUS, EVERGREEN, WATER, TOWN):
            clear = (labels == code) & np.isin(scl, (4, 5, 6))
            if clear.sum() > 10:
                seen[code, when(item).month].append(np.mean((nir - red)[clear] / (nir + red)[clear]))
    ndvi = {key: float(np.median(values)) for key, values in seen.items()}
    assert ndvi[WHEAT, 5] > 0.75 > 0.45 > ndvi[WHEAT, 8]
    assert ndvi[MAIZE, 4] < 0.3 < 0.7 < ndvi[MAIZE, 7]
    assert ndvi[DECIDUOUS, 2] < 0.6 < 0.75 < ndvi[DECIDUOUS, 7]
    assert all(ndvi[EVERGREEN, month] > 0.7 for month in (2, 7))
    assert all(ndvi[WATER, month] < 0 for month in (4, 7, 9))
    assert all(ndvi[TOWN, month] < 0.5 for month in (4, 7, 9))


def test_scene_classification_and_bands_match_the_sky(out: Path, s2: list[Item]) -> None:
    brightness: dict[int, list[float]] = defaultdict(list)
    for item in whole(s2):
        scl, narrow = read(out, item, "SCL"), read(out, item, "B8A") / 1e4 - 0.1
        blue, nir = (read(out, item, key).reshape(32, 2, 32, 2).mean(axis=(1, 3)) / 1e4 - 0.1 for key in ("B02", "B08"))
        for code in np.unique(scl):
            value = narrow if code in (3, 6) else blue
            brightness[int(code)] += value[scl == code].tolist()
        seen = scl > 0
        share = 100 * np.isin(scl[seen], (8, 9, 10)).mean()
        assert item["properties"]["eo:cloud_cover"] == pytest.approx(share, abs=0.01)
        if share < 5:  # 20 m bands see the same ground as those of 10 m
            assert np.corrcoef(nir[seen], narrow[seen])[0, 1] > 0.97
    assert set(brightness) == {0, 3, 4, 5, 6, 7, 8, 9, 10}
    mean = {code: np.mean(values) for code, values in brightness.items()}
    assert 0.7 > mean[9] > 0.45 > mean[8] > 0.2 > mean[7] > mean[10] > mean[5] > mean[4] > 0
    assert mean[6] < 0.05 < mean[3] < 0.2


def test_clouds_are_coherent_and_cast_shadows_northwards() -> None:
    cloud, cirrus, shadow = sentinel2.sky(np.random.default_rng(1), (200, 200), 0.4)
    covered = (cloud >= 0.25) | (cirrus >= 0.3)
    assert covered.mean() == pytest.approx(0.4, abs=0.01)
    assert (covered[:, 1:] == covered[:, :-1]).mean() > 0.9  # 0.52 for pixels drawn independently
    spectrum = np.fft.fft2(shadow) * np.conj(np.fft.fft2(cloud))
    row, column = np.unravel_index(np.argmax(np.fft.ifft2(spectrum).real), cloud.shape)
    assert -160 < row - 200 < column - 200 < 0


@pytest.mark.parametrize("cloud", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_mean_cloudiness_is_as_asked(cloud: float) -> None:
    covers = np.array([cover for _, cover in sentinel2.passes(3, 2023, cloud)])
    assert np.mean(covers) == pytest.approx(cloud, abs=0.02)
    if cloud == 0.5:  # most scenes are nearly clear or overcast
        assert np.mean((covers < 0.2) | (covers > 0.8)) > 0.6


def test_offset_starts_with_baseline_4(tmp_path: Path) -> None:
    dates = [overpass for overpass, _ in sentinel2.passes(0, 2022, 0.0) if overpass.number in (0, 40)]
    scene = Scene(ground(16, 0), (0,), [], [])
    (old,), (new,) = (sentinel2.write_pass(scene, one, 0.0, tmp_path) for one in dates)
    assert old["properties"]["s2:processing_baseline"] < "04.00" <= new["properties"]["s2:processing_baseline"]
    assert np.median(read(tmp_path, old, "B02")) < 900 < 1000 < np.median(read(tmp_path, new, "B02")) < 2000
    assert min(read(tmp_path, old, key).min() for key in S2_BANDS) > 0  # 0 stays the mark of no data


def test_a_pass_may_have_two_granules_that_overlap_in_a_strip(out: Path, s2: list[Item]) -> None:
    pairs = [(a, b) for a, b in itertools.pairwise(s2) if when(a) == when(b) and a["id"][:38] != b["id"][:38]]
    assert len(pairs) >= 10
    for west, east in pairs:
        for key in ("B03", "SCL"):
            left, right = read(out, west, key), read(out, east, key)
            step, _, start = east["assets"][key]["proj:transform"][:3]
            strip = left.shape[1] - int((start - west["assets"][key]["proj:transform"][2]) / step)
            assert 0 < strip < left.shape[1]
            assert np.array_equal(left[:, -strip:], right[:, :strip])


def test_one_date_is_there_in_two_processings(out: Path, s2: list[Item]) -> None:
    ((first, second),) = [(a, b) for a, b in itertools.pairwise(s2) if a["id"][:38] == b["id"][:38]]
    assert first["properties"]["s2:generation_time"] < second["properties"]["s2:generation_time"]
    assert not np.array_equal(read(out, first, "B03"), read(out, second, "B03"))
    assert np.array_equal(read(out, first, "SCL"), read(out, second, "SCL"))


def test_footprints_bound_the_data_and_some_files_have_no_nodata_tag(out: Path, s2: list[Item], s1: list[Item]) -> None:
    partial, untagged = {"sentinel-2-l2a": 0, "sentinel-1-rtc": 0}, 0
    for item in [*s2, *s1]:
        with rasterio.open(out / list(item["assets"].values())[-1]["href"]) as file:
            valid, transform = file.read(1) != (0 if item in s2 else -32768), file.transform
            untagged += file.nodata is None
        rows, columns = np.indices(valid.shape) + 0.5
        x, y = transform.c + transform.a * columns, transform.f + transform.e * rows
        footprint = metres(item["geometry"])
        assert shapely.contains_xy(footprint.buffer(0.5), x[valid], y[valid]).all()
        assert not shapely.contains_xy(footprint.buffer(-0.5), x[~valid], y[~valid]).any()
        if not valid.all():
            partial[item["collection"]] += 1
            assert 0.1 < valid.mean() < 0.9
            if item in s2:
                assert np.array_equal(read(out, item, "B02") > 0, np.kron(valid, np.ones((2, 2))))
    assert min(partial.values()) >= 5
    assert 0.1 < untagged / len(s2) < 0.2


def test_speckle_has_4_point_4_looks_and_overlapping_neighbours() -> None:
    values = sentinel1.speckle(np.random.default_rng(0), (400, 400))
    assert values.mean() == pytest.approx(1, abs=0.01)
    assert values.mean() ** 2 / values.var() == pytest.approx(4.4, rel=0.03)
    centred = values - values.mean()
    assert (centred[:, 1:] * centred[:, :-1]).mean() / values.var() == pytest.approx(0.5, abs=0.03)


def test_backscatter_of_the_classes(out: Path, s1: list[Item]) -> None:
    labels = raster(out / "labels.tif")
    power = {key: np.stack([read(out, i, key) for i in s1 if {"vv", "vh"} <= set(i["assets"])]) for key in ("vv", "vh")}
    power = {key: np.where(values == -32768, np.nan, values) for key, values in power.items()}
    assert all((values[np.isfinite(values)] > 0).all() for values in power.values())

    def decibel(key: str, code: int) -> float:
        return 10 * np.log10(np.nanmean(power[key][:, labels == code]))

    assert -13 < decibel("vv", WHEAT) < -8
    assert -20 < decibel("vh", WHEAT) < -14
    assert decibel("vh", MAIZE) > decibel("vh", WHEAT)
    assert decibel("vv", WATER) == pytest.approx(-22, abs=1.5)
    assert decibel("vv", TOWN) > -8


def test_labels_parcels_and_biomass_agree(out: Path) -> None:
    labels, parcels, biomass = (raster(out / f"{name}.tif") for name in ("labels", "parcels", "biomass"))
    assert (labels.dtype, parcels.dtype, biomass.dtype) == (np.uint8, np.int32, np.float32)
    assert np.array_equal(labels > 0, parcels > 0)
    assert 0.6 < (labels > 0).mean() < 0.98
    assert np.array_equal(np.isfinite(biomass), (labels > 0) & (labels < WATER))
    features = json.loads((out / "labels.geojson").read_text())["features"]
    assert sorted(f["properties"]["parcel_id"] for f in features) == np.unique(parcels[parcels > 0]).tolist()
    codes = defaultdict(set)
    for p in (feature["properties"] for feature in features):
        pixels = parcels == p["parcel_id"]
        codes[p["class"]] |= set(labels[pixels].tolist())
        if p["biomass"] is None:
            assert p["class"] in ("water", "town")
        else:
            assert p["biomass"] == pytest.approx(biomass[pixels].mean(), rel=1e-3)
            assert p["biomass"] > 80 if "forest" in p["class"] else 2 < p["biomass"] < 40
    assert all(len(code) == 1 for code in codes.values())
    shapes = [(metres(f["geometry"]), f["properties"]["parcel_id"]) for f in features]
    with rasterio.open(out / "parcels.tif") as file:
        burnt = rasterio.features.rasterize(shapes, file.shape, transform=file.transform, dtype="int32")
    assert np.array_equal(burnt, parcels)


def test_default_landscape_has_every_class_in_fields_of_1_to_6_ha() -> None:
    made = ground(128, 0)
    assert set(np.unique(made.labels)) == set(range(11))
    numbers, pixels = np.unique(made.parcels[made.parcels > 0], return_counts=True)
    assert 1 < np.median(pixels / 100) < 4
    assert np.mean((pixels > 60) & (pixels < 700)) > 0.85
    assert np.bincount(made.stands.cover[numbers], minlength=10)[:6].min() >= 3
    assert np.mean(made.labels != ground(128, 1).labels) > 0.3  # another seed, another landscape


@pytest.mark.parametrize("size", [16, 33, 128, 500])
def test_aoi_crosses_a_tile_border_inside_the_imagery(size: int) -> None:
    grid = area(size)
    polygon = metres(shapely.geometry.mapping(lonlat(aoi(grid))))
    west, east = tiles_touching(polygon, EPSG)
    assert (west.row, west.column + 1) == (east.row, east.column)
    assert 0.2 < polygon.intersection(shapely.box(*west.bounds)).area / polygon.area < 0.5
    assert 0.8 < polygon.area / (100 * size**2) < 1
    assert grid.extent.geom.buffer(-100).contains(polygon)


def test_same_arguments_same_bytes_even_over_another_simulation(out: Path, tmp_path: Path) -> None:
    (tmp_path / "cogs" / "stale.tif").mkdir(parents=True)
    (tmp_path / "aoi.geojson").write_bytes((out / "aoi.geojson").read_bytes())  # a simulation that was cut off
    simulate(tmp_path, size=32)
    made, expected = (sorted(p.relative_to(root) for p in root.rglob("*.*")) for root in (tmp_path, out))
    assert made == expected
    assert all((tmp_path / name).read_bytes() == (out / name).read_bytes() for name in made)


def test_wrong_arguments_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    for name, value in (("size", 15), ("cloud", -0.1), ("cloud", 1.1), ("cloud", np.nan), ("year", 1999), ("seed", -1)):
        with pytest.raises(UsageError, match=name):
            simulate(tmp_path / "new", **{name: value})
    assert not (tmp_path / "new").exists()


def test_folders_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "aoi.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    for folder in (tmp_path, tmp_path / "aoi.geojson"):
        with pytest.raises(UsageError, match="something else"):
            simulate(folder, size=16)
    assert [path.name for path in tmp_path.iterdir()] == ["aoi.geojson"]
