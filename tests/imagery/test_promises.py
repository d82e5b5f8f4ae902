"""Files that hold something else than their source promises are refused by name; unusual ones that keep it are read."""

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp

from tessera_cli.catalog import AWS
from tessera_cli.errors import TileError, UsageError
from tessera_cli.imagery import sentinel1
from tests.helpers.builders import block, mask_block, opera_item, read, s1_item, s2_item, tile_at

NOON = "2021-07-01T11:00:00Z"
_, ROW, COLUMN = tile_at()
HERE = np.s_[ROW : ROW + 4, COLUMN : COLUMN + 4]


def rewrite(item, asset, change=None, *, tags=None, bands=1, **profile):
    """Write the asset anew: `change` makes other values of (H, W), `bands` repeats them."""
    path = item["assets"][asset]["href"]
    with rasterio.open(path) as src:
        values, profile = src.read(1), {**src.profile, **profile}
    values = values if change is None else np.asarray(change(values))
    with rasterio.open(path, "w", **{**profile, "dtype": values.dtype, "count": bands}) as dst:
        for band in range(bands):
            dst.write(values, band + 1)
        if bands == 2:
            dst.colorinterp = [ColorInterp.gray, ColorInterp.alpha]
        if tags:
            dst.scales, dst.offsets = [tags[0]], [tags[1]]
    return item


def painted(item, asset):
    with rasterio.open(item["assets"][asset]["href"], "r+") as dst:
        dst.write_colormap(1, {n: (n, n, n) for n in range(12)})
    return item


def one_negative(dn):
    changed = dn.astype("int16")
    changed[1, 2] = -50
    return changed


UNFIT_BANDS = {
    "negative": (one_negative, {}, "B02 holds -50: negative reflectance"),
    "reflectance": (lambda dn: (dn / 10000).astype("float32"), {}, "B02 is float32: float reflectance"),
    "DN as float": (lambda dn: dn.astype("float64"), {}, "B02 is float64: float reflectance"),
    "too large": (lambda dn: dn.astype("uint32") + 70000, {}, "B02 holds 72000: another unit"),
    "complex": (lambda dn: dn.astype("complex64"), {}, "B02 is complex64: complex numbers"),
    "three bands": (None, {"bands": 3}, "B02 has 3 bands"),
    "alpha": (None, {"bands": 2}, "B02 has 2 bands"),
    "scaled": (None, {"tags": (2.75e-05, -0.2)}, r"B02 has the scale 2.75e-05 and the offset -0.2"),
}


@pytest.mark.parametrize("kind", UNFIT_BANDS)
def test_bands_that_are_no_dn_are_refused_by_name(tmp_path, kind):
    change, more, words = UNFIT_BANDS[kind]
    item = rewrite(s2_item(tmp_path, "A", NOON), "B02", change, **more)
    with pytest.raises(TileError, match=f"A: {words}") as error:
        read([item])
    assert "integer DN from 0 to 65535 are needed" in str(error.value)
    assert "--allow-missing 1" in str(error.value)


def test_a_picture_in_place_of_a_band_is_refused(tmp_path):
    item = rewrite(s2_item(tmp_path, "A", NOON), "B02", lambda dn: (dn // 250).astype("uint8"))
    with pytest.raises(TileError, match="B02 has a colour table: a picture"):
        read([painted(item, "B02")])


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "uint32"])
@pytest.mark.parametrize("tags", [None, (0.0001, -0.1), (float(np.float32(0.0001)), 0), (1, 0)])
def test_integers_of_any_type_that_are_dn_are_read(tmp_path, dtype, tags):
    dn = np.arange(16).reshape(4, 4) * 9 + 1
    expected = read([s2_item(tmp_path / "a", "A", NOON, {"B02": dn})])
    item = rewrite(s2_item(tmp_path / "b", "A", NOON, {"B02": dn}), "B02", lambda v: v.astype(dtype), tags=tags)
    assert np.array_equal(read([item]).s2, expected.s2)


def test_a_negative_number_for_no_data_is_none(tmp_path):
    item = rewrite(s2_item(tmp_path, "A", NOON), "B02", lambda dn: one_negative(dn) * 1, nodata=-50)
    found = block(read([item]), "B02")
    assert (found == np.where(one_negative(np.full((4, 4), 2000)) < 0, 0, 2000)).all()


def test_pixels_that_are_not_used_may_be_anything(tmp_path):
    pixels = np.ones(tile_at()[0].shape, bool)
    pixels[ROW + 1, COLUMN + 2] = False
    item = rewrite(s2_item(tmp_path / "a", "A", NOON), "B02", one_negative)
    assert (block(read([item], pixels=pixels), "B02").ravel() == 2000).sum() == 15
    cloudy = rewrite(s2_item(tmp_path / "b", "A", NOON, scl=[[4, 9], [4, 4]]), "B02", one_negative)
    assert mask_block(read([cloudy])).sum() == 12


UNFIT_CLASSES = {
    "float": (lambda scl: scl.astype("float32"), "SCL is float32: scaled classes"),
    "stretched": (lambda scl: (scl * 23).astype("uint8"), "SCL holds 92: scaled classes"),
    "negative": (lambda scl: -scl.astype("int16"), "SCL holds -4: scaled classes"),
}


@pytest.mark.parametrize("kind", UNFIT_CLASSES)
def test_a_classification_without_classes_is_refused_by_name(tmp_path, kind):
    change, words = UNFIT_CLASSES[kind]
    with pytest.raises(TileError, match=f"A: {words}"):
        read([rewrite(s2_item(tmp_path, "A", NOON), "SCL", change)])


def test_classes_with_a_colour_table_or_another_value_for_no_data_are_read(tmp_path):
    item = painted(s2_item(tmp_path / "a", "A", NOON, scl=[[4, 5], [6, 9]]), "SCL")
    assert mask_block(read([item]))[::2, ::2].tolist() == [[1, 1], [1, 0]]
    item = s2_item(tmp_path / "b", "A", NOON, scl=[[4, 5], [6, 255]], nodata=255)
    assert mask_block(read([item]))[::2, ::2].tolist() == [[1, 1], [1, 0]]


def decibels(power):
    return (10 * np.log10(power)).astype("float32")


UNFIT_RADAR = {
    "decibels": (decibels, "vv holds -10: decibels"),
    "decibels, float64": (lambda power: decibels(power).astype("float64"), "vv holds -10: decibels"),
    "decibels among missing ones": (
        lambda power: np.where(np.eye(4), -32768, decibels(power)).astype("float32"),
        "vv holds -10: decibels",
    ),
    "scaled decibels": (lambda power: (decibels(power) * 100).astype("int16"), "vv is int16: scaled decibels"),
    "amplitude": (lambda power: (power * 2000).astype("uint16"), "vv is uint16: amplitude"),
    "amplitude as float": (lambda power: power * 2000, "vv holds 200: amplitude"),
    "scaled": (None, "vv has the scale 0.01 and the offset 0"),
}


@pytest.mark.parametrize("kind", UNFIT_RADAR)
def test_radar_that_is_no_power_is_refused_by_name(tmp_path, kind):
    change, words = UNFIT_RADAR[kind]
    item = s1_item(tmp_path, "R", NOON, {"vv": 0.1, "vh": 0.02})
    more = {"tags": (0.01, 0)} if kind == "scaled" else {"nodata": 0} if kind == "amplitude" else {}
    rewrite(item, "vv", change, **more)
    with pytest.raises(TileError, match=f"R: {words}.*linear power as float is needed"):
        read([item])


def test_decibels_in_bursts_at_30_m_are_refused_by_name(tmp_path):
    item = opera_item(tmp_path, "R", NOON, {"0_VV": -9.5, "0_VH": -16.0})
    key = next(iter(item["assets"]))
    item["assets"] = {AWS.s1_assets["VV"]: item["assets"][key], AWS.s1_assets["VH"]: item["assets"]["0_VH"]}
    with pytest.raises(TileError, match=r"holds -9\.5: decibels"):
        read([item], source=AWS)


def test_power_with_noise_gaps_and_strong_targets_is_read_as_before(tmp_path):
    power = np.full((4, 4), 0.1, "float32")
    power[0] = -0.001, -0.9, -9999, 0
    power[1] = 1e6, 300, np.nan, np.inf
    power[2] = -7, 1e6, 1e6, 1e6
    power[3] = 1e6
    item = s1_item(tmp_path, "R", NOON, {"vv": power, "vh": 0.02})
    assert np.array_equal(read([item]).s1_asc[0][HERE][..., 0], sentinel1.scale(power))
    rewrite(item, "vv", lambda values: values.astype("float64"))
    assert np.array_equal(read([item]).s1_asc[0][HERE][..., 0], sentinel1.scale(power))


# --- scenes -----------------------------------------------------------------------------------------------------------


def passes(tmp_path, count, unfit):
    items = []
    for day in range(1, count + 1):
        orbit = "ascending" if day % 2 else "descending"
        items.append(s1_item(tmp_path, f"R{day}", f"2021-07-0{day}T11:00:00Z", {"vv": 0.1, "vh": 0.02}, orbit))
        if day <= unfit:
            rewrite(items[-1], "vv", decibels)
    return items


def test_an_unfit_scene_is_a_missing_one(tmp_path):
    items = passes(tmp_path, 3, unfit=1)
    with pytest.raises(TileError, match=r"1 scene.*R1: vv holds -10: decibels.*--allow-missing 1"):
        read(items)
    dpixels = read(items, allow_missing=1)
    assert [str(day) for day in (*dpixels.s1_asc_dates, *dpixels.s1_desc_dates)] == ["2021-07-03", "2021-07-02"]
    assert list(dpixels.missing_scenes) == ["R1"]


def test_a_source_without_any_fit_scene_ends_the_run(tmp_path):
    items = passes(tmp_path, 3, unfit=3)
    with pytest.raises(UsageError, match=r"3 scene.*R1: vv holds -10: decibels.*--allow-missing 3"):
        read([*items, s2_item(tmp_path, "A", NOON)])
    dpixels = read([*items, s2_item(tmp_path, "A", NOON)], allow_missing=3)
    assert (dpixels.s2.shape[0], len(dpixels.s1_asc), len(dpixels.missing_scenes)) == (1, 0, 3)


def test_an_unfit_file_is_read_once(tmp_path, caplog):
    caplog.set_level("INFO")
    with pytest.raises(TileError):
        read(passes(tmp_path, 1, unfit=1))
    assert "reading it once more" not in caplog.text


@pytest.mark.parametrize("verb", ["fetch", "embed"])
def test_a_run_on_such_a_source_ends_at_its_first_tile_and_writes_none(catalog, tessera, verb):
    for path in catalog.folder.glob("cogs/S1A*/*.tif"):
        rewrite({"assets": {"x": {"href": str(path)}}}, "x", lambda power: 10 * np.log10(power))
    out = catalog.folder.parent / "out"
    code, _, errors = tessera(verb, *catalog.options(out)[:-2])
    assert code == 2
    assert "decibels? linear power as float is needed" in errors
    assert "Traceback" not in errors
    assert not [path for path in out.rglob("*") if path.suffix in (".tif", ".zarr", ".npy")]


def test_negative_reflectance_fails_the_tile_by_name(catalog, tessera):
    path = next(catalog.folder.glob("cogs/S2A_2021-07-01/B04.tif"))
    rewrite({"assets": {"x": {"href": str(path)}}}, "x", lambda dn: np.full(dn.shape, -50, "int16"))
    out = catalog.folder.parent / "out"
    code, _, errors = tessera("fetch", *catalog.options(out)[:-2])
    assert code == 4
    assert "S2A_2021-07-01: B04 holds -50: negative reflectance" in errors
    assert not list(out.rglob("*.zarr"))
