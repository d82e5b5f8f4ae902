"""Sources and files of labels -> samples: against what rasterio reads and shapely finds."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from affine import Affine
from pyproj import Transformer
from scipy import ndimage

from tessera_cli.errors import UsageError
from tessera_cli.evaluation.choice import choose
from tessera_cli.evaluation.labelled import from_labels, with_prefixes
from tessera_cli.evaluation.sources.open import open_source, open_sources
from tessera_cli.simulate import simulation
from tests.evaluation.rasters import EAST, NORTH, TRANSFORM, box_of, lonlat_of, write_geojson, write_tiff
from tests.helpers.outputs import TILE
from tests.helpers.vectors import write_layer
from tests.tables.folders import put, random_tile

RNG = np.random.default_rng(5)
SIDE = 120
NUMBERED = (
    np.arange(SIDE * SIDE, dtype=np.float32).reshape(1, SIDE, SIDE) + np.array([0, 0.5], np.float32)[:, None, None]
)
"""An embedding that says which pixel it is."""
FIELDS = [(row, column) for row in range(0, SIDE, 20) for column in range(0, SIDE, 20)]
CROPS = ["wheat", "maize", "beet"]


@pytest.fixture
def emb(tmp_path) -> Path:
    return write_tiff(tmp_path / "emb.tif", NUMBERED)


def fields(path: Path, labels=None, **columns) -> Path:
    """Fields of 18 x 18 pixels with a verge around."""
    boxes = [box_of(slice(row + 1, row + 19), slice(column + 1, column + 19)) for row, column in FIELDS]
    return write_geojson(path, boxes, crop=labels or [CROPS[i % 3] for i in range(len(boxes))], **columns)


def pixels(samples) -> tuple[np.ndarray, np.ndarray]:
    return np.divmod(samples.features[0].values[:, 0].astype(int), SIDE)


def number_of_field(rows, columns) -> np.ndarray:
    return rows // 20 * (SIDE // 20) + columns // 20


def test_polygons_label_the_pixels_in_them(emb, tmp_path):
    found = from_labels(open_source(emb), fields(tmp_path / "f.geojson"), column="crop")
    rows, columns = pixels(found)
    assert (found.task, found.unit, found.classes) == ("classification", "pixel", ("beet", "maize", "wheat"))
    assert len(found) == len(set(zip(rows, columns, strict=True))) == 36 * 18 * 18
    assert ((rows % 20 >= 1) & (rows % 20 < 19) & (columns % 20 >= 1) & (columns % 20 < 19)).all()
    numbers = number_of_field(rows, columns)
    assert [found.classes[each] for each in found.targets] == [CROPS[number % 3] for number in numbers]
    np.testing.assert_array_equal(found.parcels, numbers)
    np.testing.assert_array_equal(found.groups, numbers)
    np.testing.assert_allclose(found.lonlat, lonlat_of(rows, columns), atol=1e-9)
    assert found.features[0].kind == "embedding"
    assert found.left_out == ()


def test_parcels_are_means_of_their_pixels(emb, tmp_path):
    found = from_labels(open_source(emb), fields(tmp_path / "f.geojson"), column="crop", unit="parcel")
    assert (found.unit, len(found)) == ("parcel", 36)
    whole = NUMBERED[0]
    for number, mean, lonlat in zip(found.parcels, found.features[0].values[:, 0], found.lonlat, strict=True):
        row, column = FIELDS[number]
        every = whole[row + 1 : row + 19, column + 1 : column + 19]
        assert every.min() < mean < every.max()
        assert abs(mean - every.mean()) < 3 * every.std() * np.sqrt((1 - 256 / 324) / 256)  # 256 of 324 pixels
        assert np.abs(lonlat - lonlat_of(row + 9.5, column + 9.5)).max() < 2e-4
        assert found.classes[found.targets[number]] == CROPS[number % 3]
    small = write_geojson(tmp_path / "s.geojson", [box_of(slice(r, r + 4), slice(c, c + 5)) for r, c in FIELDS],
                          crop=[CROPS[i % 3] for i in range(36)])  # fmt: skip
    exact = from_labels(open_source(emb), small, column="crop", unit="parcel")
    due = [whole[r : r + 4, c : c + 5].mean() for r, c in FIELDS]
    np.testing.assert_allclose(exact.features[0].values[:, 0], due, rtol=1e-6)
    np.testing.assert_allclose(exact.lonlat, [lonlat_of(r + 1.5, c + 2.0) for r, c in FIELDS], atol=1e-8)


def test_values_are_regression_and_points_of_a_pixel_stay_together(emb, tmp_path):
    rows, columns = RNG.integers(0, SIDE, (2, 40))
    rows[1], columns[1] = rows[0], columns[0]
    points = [shapely.Point(*each) for each in lonlat_of(rows + RNG.uniform(-0.3, 0.3, 40), columns)]
    points[5] = None
    values = (RNG.permutation(40) / 7).round(3).tolist()
    values[7] = None
    path = write_geojson(tmp_path / "p.geojson", points, height=values)
    found = from_labels(open_source(emb), path, column="height")
    kept = np.delete(np.arange(40), [5, 7])
    assert (found.task, found.unit, found.classes) == ("regression", "point", ())
    due = {values[i]: (rows[i], columns[i]) for i in kept}
    assert dict(zip(found.targets, zip(*pixels(found), strict=True), strict=True)) == due
    assert len(np.unique(found.parcels)) == 38
    by_target = dict(zip(found.targets, found.groups, strict=True))
    assert by_target[values[0]] == by_target[values[1]]
    assert len(set(found.groups.tolist())) == len({*zip(rows[kept], columns[kept], strict=True)})
    assert any("1 of 40 points have no geometry" in line for line in found.left_out)
    assert any("1 of 40 points have no label" in line for line in found.left_out)


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".gpkg", ".geojson"])
def test_points_may_come_in_any_format(emb, tmp_path, suffix):
    rows, columns = np.array(FIELDS).T
    lonlat = lonlat_of(rows, columns)
    crops = [CROPS[i % 3] for i in range(36)]
    path = tmp_path / f"p{suffix}"
    if suffix == ".csv":
        lines = [f"{lon:.9f},{lat:.9f},{crop}" for (lon, lat), crop in zip(lonlat, crops, strict=True)]
        path.write_text("\n".join(["lon,lat,crop", *lines]))
    elif suffix == ".parquet":
        import pyarrow as pa
        from pyarrow import parquet

        parquet.write_table(pa.table({"x": lonlat[:, 0], "y": lonlat[:, 1], "crop": crops}), path)
    elif suffix == ".gpkg":
        metres = Transformer.from_crs(4326, 32632, always_xy=True).transform(*lonlat.T)
        pyogrio.raw.write(path, shapely.to_wkb(shapely.points(*metres)), [np.array(crops, object)], ["crop"],
                          geometry_type="Point", crs="EPSG:32632")  # fmt: skip
    else:
        write_geojson(path, list(shapely.points(lonlat)), crop=crops)
    found = from_labels(open_source(emb), path)
    assert {(r, c): found.classes[t] for r, c, t in zip(*pixels(found), found.targets, strict=True)} == dict(
        zip(FIELDS, crops, strict=True)
    )


def test_polygons_of_geoparquet_and_of_layers(emb, tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    boxes = [box_of(slice(row + 1, row + 19), slice(column + 1, column + 19)) for row, column in FIELDS]
    crops = [CROPS[i % 3] for i in range(36)]
    geo = {"version": "1.1.0", "primary_column": "g", "columns": {"g": {"encoding": "WKB", "geometry_types": []}}}
    table = pa.table({"crop": crops, "g": shapely.to_wkb(np.array(boxes))})
    parquet.write_table(table.replace_schema_metadata({"geo": json.dumps(geo)}), tmp_path / "f.parquet")
    due = from_labels(open_source(emb), fields(tmp_path / "f.geojson"), column="crop")
    layers = tmp_path / "f.gpkg"
    for name, part in (("north", slice(0, 18)), ("south", slice(18, 36))):
        write_layer(layers, name, boxes[part], crop=crops[part])
    write_layer(layers, "notes", [boxes[0].centroid], kind="Point")
    for path in (tmp_path / "f.parquet", layers):
        found = from_labels(open_source(emb), path, column="crop")
        assert dict(zip(found.keys, found.targets, strict=True)) == dict(zip(due.keys, due.targets, strict=True))
    south = from_labels(open_source(emb), layers, column="crop", layer="south")
    assert pixels(south)[0].min() == 61
    write_layer(tmp_path / "p.gpkg", "one", [boxes[0].centroid], kind="Point", crop=["a"])
    write_layer(tmp_path / "p.gpkg", "two", [boxes[9].centroid], kind="Point", crop=["b"])
    assert "several layers of points: one, two. Choose one with --layer" in refused(emb, tmp_path / "p.gpkg")


def test_rasters_label_pixels_and_touching_ones_are_a_parcel(emb, tmp_path):
    classes = np.kron(RNG.integers(0, 4, (12, 12)), np.ones((10, 10), int)).astype(np.uint8)
    found = from_labels(open_source(emb), write_tiff(tmp_path / "l.tif", classes))
    rows, columns = pixels(found)
    assert len(found) == (classes > 0).sum()
    assert [int(found.classes[each]) for each in found.targets] == classes[rows, columns].tolist()
    due = np.zeros(classes.shape, int)
    for kind in (1, 2, 3):
        numbers, _ = ndimage.label(classes == kind)
        due[numbers > 0] = numbers[numbers > 0] + due.max()
    pairs = np.unique(np.stack([found.parcels, due[rows, columns]]), axis=1)
    assert pairs.shape[1] == len(np.unique(found.parcels)) == len(np.unique(due[classes > 0]))


def test_rasters_of_values_and_the_part_that_is_near(emb, tmp_path):
    heights = RNG.normal(10, 3, (900, 900)).astype(np.float32)
    heights[:50] = np.nan
    transform = TRANSFORM * Affine.translation(-400, -400)
    found = from_labels(open_source(emb), write_tiff(tmp_path / "h.tif", heights, transform=transform), samples=500)
    rows, columns = pixels(found)
    assert (found.task, len(found)) == ("regression", 500)
    np.testing.assert_array_equal(found.targets, heights[rows + 400, columns + 400].astype(float))
    forced = np.zeros((SIDE, SIDE), np.uint8)
    forced[::2] = 3
    whole = from_labels(open_source(emb), write_tiff(tmp_path / "w.tif", forced), task="regression")
    assert sorted(set(whole.targets)) == [0, 3]


def test_all_sources_see_the_same_places(tmp_path):
    first = write_tiff(tmp_path / "a.tif", NUMBERED)
    lacking = NUMBERED.copy()
    lacking[:, :, :30] = np.nan
    other = write_tiff(tmp_path / "b.tif", lacking * 10, transform=TRANSFORM)
    coarse = np.arange(60 * 60, dtype=np.float32).reshape(1, 60, 60)
    third = write_tiff(tmp_path / "c.tif", coarse, transform=TRANSFORM * Affine.scale(2))
    found = from_labels(open_sources([first, other, third]), fields(tmp_path / "f.geojson"), column="crop")
    rows, columns = pixels(found)
    assert columns.min() == 30
    np.testing.assert_array_equal(found.features[1].values, 10 * found.features[0].values)
    np.testing.assert_array_equal(found.features[2].values[:, 0], coarse[0, rows // 2, columns // 2])
    assert [each.name for each in found.features] == ["a", "b", "c"]
    assert any("not all sources have (b: 2,916)" in line for line in found.left_out), found.left_out


def test_the_choice_follows_from_places_alone(emb, tmp_path):
    path = fields(tmp_path / "f.geojson", ["wheat"] * 6 + ["maize"] * 30)
    found = from_labels(open_source(emb), path, column="crop", samples=720, seed=1)
    assert len(found) == 720
    counts = Counter(found.classes[each] for each in found.targets)
    assert counts == {"wheat": 120, "maize": 600}
    assert set(np.bincount(found.parcels)) == {20}  # evenly from all parcels
    turned = write_tiff(
        tmp_path / "turned.tif", NUMBERED[:, ::-1], transform=Affine(10, 0, EAST, 0, 10, NORTH - 10 * SIDE)
    )
    again = from_labels(open_source(turned), path, column="crop", samples=720, seed=1)
    assert set(zip(*pixels(again), strict=True)) == set(zip(*pixels(found), strict=True))
    keys = dict(zip(found.features[0].values[:, 0], found.keys, strict=True))
    assert all(keys[value] == key for value, key in zip(again.features[0].values[:, 0], again.keys, strict=True))
    other = from_labels(open_source(emb), path, column="crop", samples=720, seed=2)
    assert set(zip(*pixels(other), strict=True)) != set(zip(*pixels(found), strict=True))
    assert any("720 pixels of 11,664 that have labels are used" in line for line in found.left_out)


def test_splits_and_groups_of_the_file(emb, tmp_path):
    path = fields(
        tmp_path / "f.geojson",
        part=["test" if i < 12 else "train" for i in range(36)],
        farm=[i // 9 for i in range(36)],
    )
    found = from_labels(open_source(emb), path, column="crop", split="part", group="farm")
    numbers = number_of_field(*pixels(found))
    np.testing.assert_array_equal(found.test, numbers < 12)
    np.testing.assert_array_equal(found.groups, numbers // 9)
    np.testing.assert_array_equal(found.parcels, numbers)
    points = write_geojson(tmp_path / "p.geojson", [shapely.Point(*lonlat_of(r, c)) for r, c in FIELDS],
                           crop=[CROPS[i % 3] for i in range(36)], part=[i % 2 == 0 for i in range(36)])  # fmt: skip
    found = from_labels(open_source(emb), points, column="crop", split="part")
    np.testing.assert_array_equal(found.test, number_of_field(*pixels(found)) % 2 == 0)


def test_classes_of_one_parcel_are_left_out(emb, tmp_path):
    path = fields(tmp_path / "f.geojson", ["rare", *["wheat", "maize"] * 17, "wheat"])
    found = from_labels(open_source(emb), path, column="crop")
    assert found.classes == ("maize", "wheat")
    assert "one parcel only, and cannot be tested: rare (324)" in found.left_out[-1]


def test_polygons_of_no_use_are_counted(emb, tmp_path):
    boxes = [box_of(slice(r, r + 9), slice(c, c + 9)) for r, c in FIELDS[:6]]
    boxes += [None, shapely.Polygon(), shapely.transform(boxes[0], lambda xy: xy + 1)]
    path = write_geojson(tmp_path / "f.geojson", [*boxes, boxes[0]], crop=["a", "b"] * 4 + ["a", None])
    text = "\n".join(from_labels(open_source(emb), path, column="crop").left_out)
    assert "1 of 10 polygons have no label" in text
    assert "2 of 10 polygons have no geometry" in text
    assert "1 of 7 polygons hold no pixel with an embedding" in text


def test_a_folder_and_its_prefixes(tmp_path):
    wanted = np.zeros((512, 512), bool)
    wanted[:SIDE, :SIDE] = True
    made = random_tile(1, wanted)
    put(tmp_path / "out", TILE, made)
    classes = np.kron(RNG.integers(1, 4, (12, 12)), np.ones((10, 10), int)).astype(np.uint8)
    labels = write_tiff(tmp_path / "l.tif", classes, transform=TILE.transform)
    found = with_prefixes(from_labels(open_source(tmp_path / "out"), labels), (2, 5, 99))
    assert [each.name for each in found.features] == ["out", "out:2"]
    there = ~np.isnan(made["scales"][:SIDE, :SIDE])
    assert len(found) == there.sum()
    due = (made["codes"].astype(np.float32) * made["scales"])[:, :SIDE, :SIDE][:, there].T
    order = lambda rows: rows[np.lexsort(rows.T)]  # noqa: E731
    np.testing.assert_array_equal(order(found.features[0].values), order(due))
    np.testing.assert_array_equal(found.features[1].values, found.features[0].values[:, :2])


def test_labels_of_the_simulated_landscape(tmp_path):
    made = simulation._plain(0, 64, 2023, 0.5)
    simulation._write_truth(made, tmp_path, 0, made.key)  # without the imagery, which takes a while
    with rasterio.open(tmp_path / "labels.tif") as src:
        classes, transform, crs = src.read(1), src.transform, src.crs
    with rasterio.open(tmp_path / "parcels.tif") as src:
        parcels = src.read(1)
    with rasterio.open(tmp_path / "biomass.tif") as src:
        biomass = src.read(1)
    stored = np.stack([np.arange(classes.size).reshape(classes.shape), biomass * 0]).astype(np.float32)
    stored[1] = 1
    (source,) = open_source(write_tiff(tmp_path / "emb.tif", stored, transform=transform, crs=crs))
    found = from_labels([source], tmp_path / "labels.geojson", column="class")
    at = np.divmod(found.features[0].values[:, 0].astype(int), classes.shape[1])
    named = np.unique(np.stack([classes[at], found.targets]), axis=1)
    assert named.shape[1] == len(found.classes) > 2  # each class of the raster is one of the polygons
    pairs = np.unique(np.stack([parcels[at], found.parcels]), axis=1)
    assert pairs.shape[1] == len(np.unique(found.parcels))
    values = from_labels([source], tmp_path / "labels.geojson", column="biomass", unit="parcel")
    assert values.task == "regression"
    assert any("have no label" in line for line in values.left_out)  # water and town
    same = from_labels([source], tmp_path / "biomass.tif")
    at = np.divmod(same.features[0].values[:, 0].astype(int), classes.shape[1])
    np.testing.assert_array_equal(same.targets, biomass[at].astype(float))


# --- what cannot be used ----------------------------------------------------------------------------------------------


def refused(emb: Path, path: Path, **options) -> str:
    with pytest.raises(UsageError) as caught:
        from_labels(open_source(emb), path, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_labels_elsewhere_say_where_both_lie(emb, tmp_path):
    far = [
        shapely.transform(box_of(slice(r, r + 9), slice(c, c + 9)), lambda xy: xy + np.array([3, 1])) for r, c in FIELDS
    ]
    text = refused(emb, write_geojson(tmp_path / "f.geojson", far, crop=CROPS * 12), column="crop")
    assert "labels no pixel of" in text
    assert "the labels lie in 7.416 51.7" in text
    assert "the embeddings in 4.416 50.7" in text
    swapped = [shapely.Point(*lonlat_of(r, c)[::-1]) for r, c in FIELDS]
    text = refused(emb, write_geojson(tmp_path / "s.geojson", swapped, crop=CROPS * 12), column="crop")
    assert "Longitude and latitude are swapped" in text
    elsewhere = write_tiff(
        tmp_path / "l.tif", np.ones((50, 50), np.uint8), transform=Affine(10, 0, EAST + 9e4, 0, -10, NORTH)
    )
    assert "the labels lie in 5.6" in refused(emb, elsewhere)


@pytest.mark.parametrize(
    ("columns", "options", "words"),
    [
        ({"crop": ["same"] * 36}, {}, "are of the class same"),
        ({"crop": [f"k{i}" for i in range(36)]}, {}, "its classes are too small"),
        ({"crop": ["a"] * 35 + ["b"]}, {}, "its classes are too small.*only a lies in several"),
        ({"crop": [float("nan")] * 36}, {}, "the column crop has no value in any of 36 rows"),
        ({"crop": ["wheat", 3] * 18}, {}, "mixes text and numbers"),
        ({"crop": [1.5] * 36}, {}, "all .* targets are 1.5"),
        ({"crop": [1.5, 2] * 18}, {"task": "classification"}, "holds fractions"),
        ({"crop": ["a", "b"] * 18}, {"task": "regression"}, "holds text"),
        ({"kind": ["a", "b"] * 18}, {}, "has no column crop.*there are: kind"),
        ({"crop": ["a", "b"] * 18}, {"split": "part"}, "no column part.*There are: crop"),
        ({"crop": ["a", "b"] * 18, "part": ["x", "y"] * 18}, {"split": "part"}, "should say test"),
        ({"crop": ["a", "b"] * 18}, {"unit": "point"}, "holds no points"),
        ({"crop": ["a", "b"] * 18}, {"layer": "third"}, "no layers"),
    ],
)  # fmt: skip
def test_what_polygons_cannot_teach(emb, tmp_path, columns, options, words):
    boxes = [box_of(slice(r + 1, r + 19), slice(c + 1, c + 19)) for r, c in FIELDS]
    path = write_geojson(tmp_path / "f.geojson", boxes, **columns)
    assert re.search(words, refused(emb, path, **{"column": "crop", **options}))


def test_geometries_that_are_none(emb, tmp_path):
    path = write_geojson(tmp_path / "f.geojson", [None] * 3, crop=["a", "b", "a"])
    assert "no row has a geometry" in refused(emb, path, column="crop")
    path = write_geojson(tmp_path / "g.geojson", [shapely.Polygon()] * 3, crop=["a", "b", "a"])
    assert "geometry" in refused(emb, path, column="crop")
    assert "no such file" in refused(emb, tmp_path / "gone.gpkg")
    points = write_geojson(
        tmp_path / "p.geojson", [shapely.Point(*lonlat_of(r, c)) for r, c in FIELDS], crop=CROPS * 12
    )
    assert "cover no parcels" in refused(emb, points, column="crop", unit="parcel")
    raster = write_tiff(tmp_path / "l.tif", np.ones((9, 9), np.uint8))
    assert "no columns or layers. Leave out --column" in refused(emb, raster, column="crop")


# --- the choice, and memory -------------------------------------------------------------------------------------------


def test_strata_get_their_share_and_rare_ones_some():
    strata = np.repeat([0, 1, 2], [100_000, 10_000, 12])
    keys = RNG.integers(0, 2**63, len(strata)).astype(np.uint64)
    counts = np.bincount(strata[choose(keys, strata, 3000)])
    assert counts.sum() == 3000
    assert counts[2] == 12
    assert counts[0] / counts[1] == pytest.approx(10, rel=0.2)
    many = np.arange(50)
    assert len(choose(keys[:50], many, 20)) == 20
    order = RNG.permutation(len(strata))
    assert set(keys[order][choose(keys[order], strata[order], 3000)]) == set(keys[choose(keys, strata, 3000)])


PROGRAM = """
import pathlib, sys, time
from tessera_cli.timing import peak_rss_mb
from tessera_cli.evaluation.labelled import from_labels
from tessera_cli.evaluation.sources.open import open_source
start = time.monotonic()
found = from_labels(open_source(pathlib.Path(sys.argv[1])), pathlib.Path(sys.argv[2]), unit=sys.argv[3])
assert found.features[0].values.shape[1] == 16
print(int(peak_rss_mb()), len(found), time.monotonic() - start)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the bar is for Linux")
def test_ten_million_labelled_pixels_take_less_than_four_gigabytes(tmp_path):
    side = 3200
    profile = {"driver": "GTiff", "count": 16, "height": side, "width": side, "dtype": "float32", "crs": 32631}
    with rasterio.open(tmp_path / "e.tif", "w", **profile, transform=TRANSFORM, tiled=True) as dst:
        for band in range(16):
            dst.write(np.full((side, side), band, np.float32), band + 1)
    classes = np.kron(RNG.integers(1, 9, (side // 10, side // 10)), np.ones((10, 10), int)).astype(np.uint8)
    labels = write_tiff(tmp_path / "l.tif", classes)
    for unit in ("pixel", "parcel"):
        command = [sys.executable, "-c", PROGRAM, str(tmp_path / "e.tif"), str(labels), unit]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert int(done.stdout.split()[0]) < 4000, done.stdout
        assert int(done.stdout.split()[1]) == 50_000
