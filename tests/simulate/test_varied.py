"""Landscapes of several places: what climate, year, weather and mistaken labels are to make of them."""

from __future__ import annotations

import dataclasses
import datetime as dt
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely

from tessera_cli.errors import UsageError
from tessera_cli.extent.grid import tiles_touching, to_utm, utm_epsg
from tessera_cli.simulate import simulate, simulation
from tessera_cli.simulate.air import FAIR, Air
from tessera_cli.simulate.area import aoi, area, lonlat
from tessera_cli.simulate.landscape import landscape
from tessera_cli.simulate.mistakes import mistaken
from tessera_cli.simulate.scene import Scene
from tessera_cli.simulate.surface import reflectance
from tessera_cli.simulate.varied.build import varied_scene
from tessera_cli.simulate.varied.crops import CODES, CROPS, DECIDUOUS, EVERGREEN, NAMES, TOWN, WATER
from tessera_cli.simulate.varied.fields import Fields
from tessera_cli.simulate.varied.places import PLACES
from tessera_cli.simulate.varied.weather import weather

places = pytest.mark.parametrize("name", PLACES)
JANUARY, JULY = 15, 196
PLAIN_LABELS = [321, 531, 272, 67, 287, 86, 57, 373, 0, 77, 233]
PLAIN_PARCELS = 31519223
PLAIN_MEANS = [
    ("S1A_IW_GRDH_1SDH_20211109T174120_20211109T174145_000078_00004E_rtc", "hh", 0.08887),
    ("S1A_IW_GRDH_1SDV_20210504T055804_20210504T055829_000031_00001F_rtc", "vh", 0.01969),
    ("S1A_IW_GRDH_1SDV_20210928T173312_20210928T173337_000068_000044_rtc", "vh", 0.021938),
    ("S2A_MSIL2A_20210207T105631_R094_T31UES_20210207T165631", "B02", 552.090278),
    ("S2A_MSIL2A_20210714T104621_R051_T31UES_20210714T164621", "B02", 1942.662326),
    ("S2A_MSIL2A_20211214T105631_R094_T31UES_20211214T165631", "B02", 1755.860243),
    ("S2B_MSIL2A_20210420T104619_R051_T31UFS_20210420T164619", "B02", 1370.033482),
    ("S2B_MSIL2A_20210818T104619_R051_T31UFS_20210818T164619", "B02", 5334.46503),
    ("S2B_MSIL2A_20211219T105629_R094_T31UES_20211219T165629", "B02", 3611.375868),
]
"""Of `simulate(size=16, seed=3, year=2021, cloud=0.3)` before there were places: files on which others rest."""


def scene(name: str, year: int = 2023, seed: int = 0, size: int = 160, cloud: float | None = None) -> Scene:
    return varied_scene(PLACES[name], seed, size, year, cloud)


def fields(made: Scene) -> Fields:
    assert isinstance(made.ground.stands, Fields)
    return made.ground.stands


def ndvi(made: Scene, crop: str, day: int) -> float:
    """Mean over the parcels of a class, without haze and noise."""
    stands = fields(made)
    mean = stands.optics(day, 0)[0][stands.cover == CODES[crop]]
    return float(np.mean((mean[:, 6] - mean[:, 2]) / (mean[:, 6] + mean[:, 2])))


def raster(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return file.read(1)


def test_the_plain_landscape_is_what_it_was(tmp_path: Path) -> None:
    made = simulate(tmp_path, size=16, seed=3, year=2021, cloud=0.3)
    assert (made.sentinel2_items, made.sentinel1_items, made.parcel_count) == (165, 86, 18)
    labels, parcels = raster(tmp_path / "labels.tif"), raster(tmp_path / "parcels.tif")
    assert np.bincount(labels.ravel()).tolist() == PLAIN_LABELS
    assert int((parcels.astype(np.int64) * np.arange(parcels.size).reshape(parcels.shape)).sum()) == PLAIN_PARCELS
    assert not (tmp_path / "true_labels.tif").exists()
    items = sorted(json.loads(made.items.read_text())["features"], key=lambda item: item["id"])
    found = []
    for item in items[::31]:
        key = sorted(item["assets"])[0]
        found.append((item["id"], key, float(raster(tmp_path / item["assets"][key]["href"]).astype(float).mean())))
    assert [(name, key) for name, key, _ in found] == [(name, key) for name, key, _ in PLAIN_MEANS]
    np.testing.assert_allclose([mean for *_, mean in found], [mean for *_, mean in PLAIN_MEANS], rtol=1e-4)


@places
def test_places_lie_in_their_zone_across_a_tile_border(name: str) -> None:
    place = PLACES[name]
    grid = area(64, place.site)
    polygon = lonlat(aoi(grid), place.site.epsg)
    assert utm_epsg(polygon.centroid.x, polygon.centroid.y) == place.site.epsg
    assert (polygon.centroid.y < 0) == place.south == (place.site.epsg > 32700)
    metres = shapely.transform(polygon, to_utm(place.site.epsg).transform, interleaved=False)
    west, east = tiles_touching(metres, place.site.epsg)
    assert (west.row, west.column + 1) == (east.row, east.column)
    assert sum(grown.share for grown in place.crops.values()) == pytest.approx(1)
    assert set(place.crops) <= set(CODES)


def test_places_are_in_several_zones_and_latitudes() -> None:
    assert len({place.site.epsg for place in PLACES.values()}) >= 5
    assert {place.south for place in PLACES.values()} == {True, False}


@places
def test_passes_come_at_the_solar_time_of_their_orbits(name: str) -> None:
    made = scene(name, size=32)
    centre = lonlat(aoi(made.ground.grid), made.site.epsg).centroid
    local = {each: each.when + dt.timedelta(hours=centre.x / 15) for each, _ in [*made.optical, *made.radar]}
    for each, when in local.items():
        hour = when.hour + when.minute / 60
        due = {"S2": 10.9, "S1ascending": 18.0, "S1descending": 6.3}[
            each.satellite[:2] + (each.state if each.satellite == "S1A" else "")
        ]
        assert abs(hour - due) < 0.75, each
    for track in {each.relative for each, _ in made.optical}:
        days = sorted(each.when for each, _ in made.optical if each.relative == track)
        assert {(b - a).days for a, b in itertools.pairwise(days)} <= {4, 5}
        assert len(days) == 73


def test_the_same_arguments_give_the_same_bytes_and_others_do_not(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        simulate(tmp_path / name, place="castile", size=16, seed=seed, label_noise=0.2)
    a, b, c = (
        {p.relative_to(tmp_path / name): p.read_bytes() for p in (tmp_path / name).rglob("*.*")} for name in "abc"
    )
    assert a == b
    assert a[Path("labels.tif")] != c[Path("labels.tif")]
    items = json.loads((tmp_path / "a" / "items.json").read_text())["features"]
    assert {item["properties"]["proj:epsg"] for item in items} == {32630}
    assert {item["properties"].get("s2:mgrs_tile") for item in items} == {"30TUM", "30TVM", None}
    with rasterio.open(tmp_path / "a" / "labels.tif") as file:
        assert file.crs.to_epsg() == 32630


def test_southern_seasons_are_half_a_year_apart() -> None:
    north, south = scene("iowa"), scene("pampas")
    for crop in ("deciduous forest", "maize", "soybean"):
        assert ndvi(north, crop, JULY) > ndvi(north, crop, JANUARY) + 0.2, crop
        assert ndvi(south, crop, JANUARY + 15) > ndvi(south, crop, JULY - 30) + 0.2, crop
    wheat = [ndvi(south, "winter wheat", day) for day in range(1, 366, 10)]
    assert 270 < 10 * int(np.argmax(wheat)) < 335  # October, November


def test_calendars_follow_the_place() -> None:
    def half_grown(name: str) -> float:  # averaged over years, so that early springs do not decide
        return float(
            np.mean(
                [
                    np.median(fields(scene(name, year)).seasons[1].growths[0, 0][fields(scene(name, year)).cover == 0])
                    for year in range(2018, 2024)
                ]
            )
        )

    assert half_grown("castile") + 8 < half_grown("flanders") + 4 < half_grown("mazovia")


def test_clouds_follow_the_seasons_of_the_place() -> None:
    def cloud(name: str, months: set[int]) -> float:
        found = [
            cover
            for year in range(2018, 2024)
            for each, cover in scene(name, year, size=32).optical
            if each.when.month in months
        ]
        return float(np.mean(found))

    assert cloud("malwa", {7, 8}) > 0.7 > 0.4 > cloud("malwa", {12, 1, 2, 3})
    assert cloud("castile", {12, 1, 2}) > cloud("castile", {7, 8}) + 0.25
    assert cloud("flanders", set(range(1, 13))) > cloud("castile", set(range(1, 13))) + 0.15


@pytest.mark.parametrize("asked", [0.2, 0.5, 0.8])
def test_mean_cloudiness_is_as_asked(asked: float) -> None:
    found = [
        np.mean([cover for _, cover in scene("malwa", year, size=32, cloud=asked).optical])
        for year in range(2018, 2026)
    ]
    assert np.mean(found) == pytest.approx(asked, abs=0.05)


def test_weather_depends_on_place_and_year_alone() -> None:
    one, same = fields(scene("mazovia", seed=1)).weather, fields(scene("mazovia", seed=2)).weather
    assert np.array_equal(one.rain, same.rain)
    assert one.spring == same.spring
    springs = [weather(PLACES["mazovia"], year).spring for year in range(2000, 2040)]
    assert 6 < np.std(springs) < 12
    assert abs(np.corrcoef(springs, [weather(PLACES["iowa"], year).spring for year in range(2000, 2040)])[0, 1]) < 0.4
    droughts = [weather(PLACES["mazovia"], year).stress.max() > 0.2 for year in range(2000, 2100)]
    assert 0.2 < np.mean(droughts) < 0.5


@places
def test_rain_is_that_of_the_month_and_wets_the_soil(name: str) -> None:
    years = [weather(PLACES[name], year) for year in range(1950, 2010)]
    days = np.minimum(np.arange(366) // 30.5, 11).astype(int)
    wet = np.mean([each.rain > 0 for each in years], axis=0)
    found = np.bincount(days, wet) / np.bincount(days)
    np.testing.assert_allclose(found, PLACES[name].rain, atol=0.09)
    moist = np.mean([each.moisture for each in years], axis=0)
    monthly = np.bincount(days, moist) / np.bincount(days)
    assert np.corrcoef(monthly, PLACES[name].rain)[0, 1] > 0.8
    assert all((each.moisture >= 0).all() and (each.moisture <= 1).all() for each in years)


def test_drought_withers_what_is_not_irrigated() -> None:
    made = fields(scene("castile"))
    calm = dataclasses.replace(made, weather=dataclasses.replace(made.weather, stress=np.zeros(366)))
    dry, wet = made.canopy(220)[0], calm.canopy(220)[0]
    irrigated, rainfed = made.cover == CODES["maize"], made.cover == CODES["sunflower"]
    assert dry[irrigated].mean() > 0.85 * wet[irrigated].mean()
    assert dry[rainfed].mean() < 0.7 * wet[rainfed].mean()


def test_new_year_is_no_break() -> None:
    before, after = fields(scene("flanders", 2022)), fields(scene("flanders", 2023))
    assert (before.weather.stress[-1], after.weather.stress[0]) == (0, 0)
    green, dry = (np.abs(a - b) for a, b in zip(before.canopy(366), after.canopy(1), strict=True))
    assert max(green.max(), dry.max()) < 0.05
    changed = before.cover != after.cover  # fields rotate, meadows and woods stay
    assert 0.3 < changed.mean() < 0.9
    stay = np.isin(before.cover, [CODES[crop] for crop in ("grassland", "deciduous forest", "water", "town")])
    assert not changed[stay].any()
    assert np.array_equal(scene("flanders", 2022).ground.parcels, scene("flanders", 2023).ground.parcels)


def test_canopies_are_shares_of_the_ground_all_year() -> None:
    for name in PLACES:
        made = fields(scene(name, 2024, size=64))
        for day in range(1, 367, 7):
            green, dry = made.canopy(day)
            assert green.min() >= 0
            assert dry.min() >= 0
            assert (green + dry).max() <= 1 + 1e-9
            mean, _ = made.optics(day, 1)
            assert mean.min() > 0
            assert mean.max() < 0.75


def test_wet_soil_is_darker_and_echoes_more() -> None:
    made = fields(scene("iowa"))
    dry, wet = (
        dataclasses.replace(made, weather=dataclasses.replace(made.weather, moisture=np.full(366, m)))
        for m in (0.0, 1.0)
    )
    bare = (made.cover == CODES["maize"]) & (made.canopy(110)[0] < 0.1)
    assert bare.any()
    assert 0.4 < np.mean(wet.optics(110, 0)[0][bare] / dry.optics(110, 0)[0][bare]) < 0.8
    rise = 10 * np.log10(wet.radar(110, 0)[0][:, bare] / dry.radar(110, 0)[0][:, bare])
    assert 3 < rise.mean() < 5.5
    town = made.cover == CODES["town"]
    assert np.allclose(wet.radar(110, 0)[0][:, town], dry.radar(110, 0)[0][:, town])


def test_rice_stands_in_water_before_it_grows() -> None:
    made = fields(scene("malwa", size=256))
    rice = np.flatnonzero(made.cover == CODES["rice"])
    up = made.seasons[1].growths[0, 0, rice]
    day = int(np.median(up)) - 10
    flooded = made.flooded(day)
    assert flooded[rice].mean() > 0.4
    assert not flooded[made.cover != CODES["rice"]].any()
    mean = made.optics(day, 0)[0]
    assert mean[flooded, 8].mean() < 0.6 * mean[rice[~flooded[rice]], 8].mean()


def test_borders_are_mixed() -> None:
    made = scene("flanders", size=64)
    plain = reflectance(dataclasses.replace(made.ground, mixing=0.0), 150)
    mixed = reflectance(made.ground, 150)
    inner = plain[:, 1:-1, 1:-1]
    around = plain[:, :-2, 1:-1] + plain[:, 2:, 1:-1] + plain[:, 1:-1, :-2] + plain[:, 1:-1, 2:]
    share = made.ground.mixing
    np.testing.assert_allclose(mixed[:, 1:-1, 1:-1], (1 - share) * inner + share / 4 * around, rtol=1e-4)
    np.testing.assert_allclose(mixed.sum(axis=(1, 2)), plain.sum(axis=(1, 2)), rtol=1e-4)


def test_air_veils_and_overlooks_as_much_as_it_says() -> None:
    rng = np.random.default_rng(0)
    clear = np.full((10, 80, 80), 0.3, np.float32)
    clear[:4] = 0.04
    assert FAIR.veil(clear, rng) is clear
    above = [clear[0]]
    assert FAIR.noticed(above, rng) is above
    hazes = [Air(haze=0.1).veil(clear.copy(), rng).mean(axis=(1, 2)) - clear[:, 0, 0] for _ in range(300)]
    spread = np.std(hazes, axis=0)
    assert spread[0] > 3 * spread[7]  # blue sees more haze than near infrared
    assert spread[0] == pytest.approx(0.1 * (0.49 / 0.55) ** -1.3 * (0.09 - 0.35 * 0.04), rel=0.35)
    thin, thick = np.full((80, 80), 0.3), np.full((80, 80), 0.9)
    seen_thin, seen_thick = Air(missed=0.12).noticed([thin, thick], rng)
    assert np.mean(seen_thin == 0) == pytest.approx(0.12, abs=0.02)
    assert (seen_thick == thick).all()


@pytest.mark.parametrize("share", [0.05, 0.3])
def test_mistaken_labels_have_the_share_asked_for(share: float) -> None:
    made = scene("flanders", size=400)
    there = np.unique(made.ground.parcels[made.ground.parcels > 0])
    told = mistaken(made.ground, share, (1, 2))
    wrong = told[there] != made.ground.stands.cover[there]
    assert wrong.sum() == round(share * len(there))
    assert set(told[there].tolist()) <= set(made.ground.stands.cover[there].tolist())
    assert mistaken(made.ground, 0, ()) is made.ground.stands.cover


@pytest.mark.parametrize("place", [None, "pampas"])
def test_the_truth_is_kept_beside_mistaken_labels(tmp_path: Path, place: str | None) -> None:
    made = simulation._plain(1, 64, 2023, 0.5) if place is None else scene(place, size=64)
    simulation._write_truth(made, tmp_path, 0.25, (1,))
    labels, truth, parcels = (raster(tmp_path / f"{name}.tif") for name in ("labels", "true_labels", "parcels"))
    assert np.array_equal(labels > 0, truth > 0)
    features = json.loads((tmp_path / "labels.geojson").read_text())["features"]
    wrong = 0
    for p in (feature["properties"] for feature in features):
        here = parcels == p["parcel_id"]
        assert NAMES[labels[here] - 1].tolist() == [p["class"]] * here.sum()
        assert NAMES[truth[here] - 1].tolist() == [p["true_class"]] * here.sum()
        wrong += p["class"] != p["true_class"]
    assert wrong == round(0.25 * len(features))


def test_a_catalogue_without_mistakes_has_no_second_truth(tmp_path: Path) -> None:
    made = varied_scene(PLACES["iowa"], 0, 32, 2023, None, changes=0.5)
    simulation._write_truth(made, tmp_path, 0.5, (1,))
    assert (tmp_path / "true_labels.tif").exists()
    assert (tmp_path / "changes.tif").exists()
    simulation._write_truth(scene("iowa", size=32), tmp_path, 0, (1,))
    assert not (tmp_path / "true_labels.tif").exists()
    assert not (tmp_path / "changes.tif").exists()
    assert "true_class" not in (tmp_path / "labels.geojson").read_text()
    assert "change" not in (tmp_path / "labels.geojson").read_text()


def changed_scene(year: int, share: float = 0.2) -> Scene:
    return varied_scene(PLACES["flanders"], 0, 400, year, None, changes=share)


def test_woods_are_cleared_and_fields_are_built_over() -> None:
    before, after = fields(scene("flanders", 2022, size=400)), changed_scene(2023)
    change, cover = after.change, fields(after).cover
    assert change is not None
    wood = (before.cover == DECIDUOUS) | (before.cover == EVERGREEN)
    field = ~wood & (before.cover != WATER) & (before.cover != TOWN)
    field[0] = False
    assert (change == 1).sum() == round(0.2 * wood.sum())
    assert (change == 2).sum() == round(0.2 * field.sum())
    assert wood[change == 1].all()
    assert field[change == 2].all()
    assert (cover[change == 1] == CODES["clearing"]).all()
    assert (cover[change == 2] == TOWN).all()
    assert not (cover[change == 0] == CODES["clearing"]).any()
    assert ((cover == TOWN) == ((before.cover == TOWN) | (change == 2))).all()
    same = fields(scene("flanders", 2023, size=400)).cover
    assert (cover[change == 0] == same[change == 0]).all()


def test_what_has_changed_stays_so() -> None:
    one, later = changed_scene(2023), changed_scene(2024)
    assert one.change is not None
    assert later.change is not None
    assert (one.change == later.change).all()
    more = changed_scene(2023, 0.4).change
    assert more is not None
    assert (more[one.change > 0] == one.change[one.change > 0]).all()
    assert changed_scene(2023, 0).change is None


def test_a_cleared_wood_is_bare_and_a_built_field_is_grey() -> None:
    made, before = changed_scene(2023), scene("flanders", 2023, size=400)
    assert made.change is not None
    for kind, least in ((1, 0.15), (2, 0.05)):
        here = made.change == kind
        green, was = (fields(each).canopy(JULY)[0][here].mean() for each in (made, before))
        assert green < was - least


def test_changes_are_written(tmp_path: Path) -> None:
    made = changed_scene(2023)
    assert made.change is not None
    simulation._write_truth(made, tmp_path, 0, ())
    changes, parcels = raster(tmp_path / "changes.tif"), raster(tmp_path / "parcels.tif")
    assert (changes == np.where(parcels > 0, made.change[parcels], 0)).all()
    told = {
        feature["properties"]["parcel_id"]: feature["properties"]["change"]
        for feature in json.loads((tmp_path / "labels.geojson").read_text())["features"]
    }
    assert told == {number: ("none", "cleared", "built")[made.change[number]] for number in told}


def test_codes_of_shared_classes_are_those_of_the_plain_landscape() -> None:
    plain = landscape(area(128), np.random.default_rng((0, 1)))
    assert set(zip(plain.stands.cover.tolist(), plain.stands.names.tolist(), strict=True)) <= set(
        enumerate(NAMES.tolist())
    )
    assert len(CROPS) < 256


def test_wrong_places_and_shares_are_one_line(tmp_path: Path, tessera) -> None:
    for name, value in (("label_noise", 1.5), ("label_noise", -0.1), ("cloud", 2.0), ("changes", 1.1)):
        with pytest.raises(UsageError, match=f"--{name.replace('_', '-')} {value} is out of range"):
            simulate(tmp_path / "new", place="iowa", **{name: value})
    with pytest.raises(UsageError, match="--changes needs a landscape that has years: name one with --place"):
        simulate(tmp_path / "new", changes=0.1)
    code, _, said = tessera("simulate", tmp_path / "new", "--place", "atlantis")
    assert code == 2
    assert "There is no place 'atlantis'" in said
    assert all(name in said for name in PLACES)
    assert not (tmp_path / "new").exists()
    code, out, _ = tessera("simulate", "--help")
    assert code == 0
    assert all(name in out for name in PLACES)
