"""Labels of pixels, probes, stability and the evaluation made of them."""

import json
import logging
import sqlite3
import sys
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from affine import Affine
from pyproj import Transformer
from scipy import ndimage

from tessera_cli.errors import TesseraError, UsageError
from tessera_cli.extent.grid import from_utm, to_utm
from tessera_cli.labels import raster as raster_labels
from tessera_cli.labels.vector import read_labels
from tessera_cli.learning.folds import balanced_folds
from tessera_cli.pretraining.config import PretrainConfig, ProbeConfig
from tessera_cli.pretraining.evaluation import evaluate
from tessera_cli.pretraining.evaluation.labels import label_pixels
from tessera_cli.pretraining.evaluation.metrics import agreement, retrieval
from tessera_cli.sampling.draws import pixel_keys
from tessera_cli.sampling.ragged import RaggedPixels, RaggedSeries, concatenated, no_pixels
from tests.helpers.vectors import NOT_FINITE, TIN, write_layer, write_wkb

EAST, NORTH = 600000, 5620000


def ragged(places, *, s2=30, s1=24, seed=0):
    """Pixels at these places, each with `s2` and `s1` random observations and a key that its place decides."""
    rng, places = np.random.default_rng(seed), np.asarray(places, np.int32).reshape(-1, 3)
    n = len(places)

    def series(count, values, streams):
        doy = np.sort(rng.integers(1, 367, (n, count)), axis=1).astype(np.uint16).ravel()
        return RaggedSeries(values, doy, streams, np.arange(n + 1) * count)

    return RaggedPixels(
        series(s2, rng.integers(0, 9000, (n * s2, 10)).astype(np.uint16), np.zeros(n * s2, np.uint8)),
        series(
            s1,
            rng.integers(1, 9000, (n * s1, 2)).astype(np.int16),
            np.tile(np.sort(np.arange(s1) % 2), n).astype(np.uint8),
        ),
        pixel_keys(5, places.astype(np.int64)),
        places,
        np.zeros(n, np.int32),
    )


def block(columns, rows, *, epsg=32631, east=EAST, north=NORTH):
    """Places of the centres of a block of pixels."""
    x, y = np.meshgrid(east + 5 + 10 * np.arange(columns), north + 5 + 10 * np.arange(rows))
    return np.stack([np.full(x.size, epsg), x.ravel(), y.ravel()], axis=1)


def in_degrees(geometry, epsg=32631):
    return shapely.transform(geometry, from_utm(epsg).transform, interleaved=False)


def write_geojson(path, geometries, **columns):
    features = [
        {
            "type": "Feature",
            "properties": {name: values[i] for name, values in columns.items()},
            "geometry": shapely.geometry.mapping(geometry),
        }
        for i, geometry in enumerate(geometries)
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def strips(path, names, *, width=80, height=400, step=10):
    """Parcels from west to east, `width` metres wide, with these classes; the edges lie between pixel centres."""
    boxes = [
        shapely.box(EAST + i * width, NORTH, EAST + (i + 1) * width - step, NORTH + height) for i in range(len(names))
    ]
    return write_geojson(path, [in_degrees(one) for one in boxes], **{"class": names})


SMALL = ProbeConfig(block=8, folds=2)
FIELDS = ["wheat", "maize", "wheat", "maize", "beet", "beet"]


def outcome(found):
    """Place -> (class, group)."""
    return {
        tuple(place): (found.names[number], group)
        for place, number, group in zip(found.pixels.places.tolist(), found.classes, found.groups.tolist(), strict=True)
    }


# --- labels -----------------------------------------------------------------------------------------------------------


def test_polygons_label_the_pixels_whose_centre_lies_within(tmp_path):
    rng = np.random.default_rng(1)
    centres = rng.uniform((EAST, NORTH), (EAST + 600, NORTH + 600), (14, 2))
    areas = [
        in_degrees(shapely.Point(c).buffer(r, quad_segs=3))
        for c, r in zip(centres, rng.uniform(30, 130, 14), strict=True)
    ]
    kinds = [["a", "b", "c", None, ""][i % 5] for i in range(14)]
    path = write_geojson(tmp_path / "fields.geojson", areas, Crop=kinds, other=list(range(14)))
    places = block(60, 60)

    found = outcome(label_pixels([ragged(places, s2=1, s1=1)], SMALL.model_copy(update={"pixels": 10**6}), path))

    squares = {}
    for place in places.tolist():
        lonlat = shapely.Point(*from_utm(place[0]).transform(*place[1:]))
        inside = [i for i, area in enumerate(areas) if kinds[i] and area.contains(lonlat)]
        classes = {kinds[i] for i in inside}
        if len(classes) == 1:
            name, group = found.pop(tuple(place))
            assert name == classes.pop()
            centre = to_utm(32631).transform(areas[inside[0]].centroid.x, areas[inside[0]].centroid.y)
            squares.setdefault(tuple(np.floor_divide(centre, 80)), set()).add(group)
    assert not found  # no pixel of two classes, without a class or outside
    assert len(squares) > 4
    assert all(len(groups) == 1 for groups in squares.values())
    assert len({*map(tuple, squares.values())}) == len(squares)


def test_polygons_may_come_in_any_projection_and_with_numbers_as_classes(tmp_path):
    boxes = [shapely.box(EAST + i * 100, NORTH, EAST + i * 100 + 90, NORTH + 300) for i in range(4)]
    lambert = [
        shapely.transform(b, Transformer.from_crs(32631, 3035, always_xy=True).transform, interleaved=False)
        for b in boxes
    ]
    numbers = np.array([7, 12, 12, 7])
    expected = None
    for suffix in ("gpkg", "shp"):
        path = tmp_path / f"fields.{suffix}"
        pyogrio.raw.write(
            path,
            shapely.to_wkb(np.array(lambert)),
            [numbers, np.array([0.5] * 4)],
            ["LABEL", "area"],
            geometry_type="Polygon",
            crs="EPSG:3035",
        )
        part = ragged(block(40, 30), s2=1, s1=1)
        found = label_pixels([part], SMALL, path)
        assert found.names == ("7", "12")
        inside = {
            (32631, x, y): str(numbers[(x - EAST) // 100])
            for _, x, y in block(40, 30).tolist()
            if (x - EAST) % 100 < 90
        }
        assert {place: name for place, (name, _) in outcome(found).items()} == inside
        assert expected is None or outcome(found) == expected
        expected = outcome(found)
        with pytest.raises(UsageError, match="column area holds fractions"):
            label_pixels([part], SMALL.model_copy(update={"column": "area"}), path)


def test_whole_numbers_with_nulls_stay_whole(tmp_path):
    path = strips(tmp_path / "f.geojson", [1, 2, None, 1, 2])
    assert label_pixels([ragged(block(40, 40))], SMALL, path).names == ("1", "2")


def test_parcels_are_never_split_even_between_zones(tmp_path):
    """On the border of zones 31 and 32 the same field has pixels in both."""
    east, north = (round(v, -1) for v in to_utm(32631).transform(6.0, 50.7))
    near = tuple(round(v, -1) for v in to_utm(32632).transform(6.0, 50.7))
    places = np.concatenate(
        [
            block(20, 40, east=int(east) - 200, north=int(north) - 200),
            block(20, 40, epsg=32632, east=int(near[0]), north=int(near[1]) - 200),
        ]
    )
    edges = np.linspace(50.6985, 50.7015, 7)
    areas = [shapely.box(5.9975, south, 6.0025, north) for south, north in pairwise(edges)]
    path = write_geojson(tmp_path / "f.geojson", areas, label=["a", "b"] * 3)
    found = label_pixels([ragged(places)], ProbeConfig(block=1, folds=2), path)
    zones = {}
    for place, (_, group) in outcome(found).items():
        zones.setdefault(group, set()).add(place[0])
    assert len(zones) == 6
    assert all(both == {32631, 32632} for both in zones.values())


@pytest.mark.parametrize("drawn", ["on", "back", "jumping", "cut"])
def test_parcels_across_the_antimeridian(tmp_path, drawn):
    """With longitudes up to 180.008, from -180.012 on, as points that jump from 180 to -180, or in two parts."""
    west = -180.012 if drawn == "back" else 179.988
    areas = [shapely.box(west, -17 - 0.002 * i, west + 0.02, -17.0015 - 0.002 * i) for i in range(4)]
    if drawn == "jumping":
        areas = [shapely.transform(a, lambda xy: np.where(xy > 180, xy - 360, xy)) for a in areas]
    if drawn == "cut":
        sides = [(179.988, 180), (-180, -179.992)]
        areas = [shapely.MultiPolygon([shapely.box(w, a.bounds[1], e, a.bounds[3]) for w, e in sides]) for a in areas]
    path = write_geojson(tmp_path / "f.geojson", areas, label=["a", "b", "b", "a"])
    rows = -17.0005 - 0.002 * np.arange(4)
    places = [(32701, *np.floor(to_utm(32701).transform(-179.995, row)).astype(int)) for row in rows]
    places += [(32760, *np.floor(to_utm(32760).transform(179.995, row)).astype(int)) for row in rows]
    places += [(32701, *np.floor(to_utm(32701).transform(-179.95, row)).astype(int)) for row in rows]
    found = outcome(label_pixels([ragged(places)], ProbeConfig(block=1, folds=2), path))
    assert [found[place][0] for place in places[:8]] == ["a", "b", "b", "a"] * 2
    assert [found[place][1] for place in places[:4]] == [found[place][1] for place in places[4:8]]
    assert len(found) == 8
    assert set(read_labels(path).centroids[:, 0]) == {32760}


def write_raster(path, values, *, transform, crs, nodata=None):
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=values.shape[1],
        height=values.shape[0],
        count=1,
        dtype=values.dtype,
        crs=crs,
        transform=transform,
        nodata=nodata,
        tiled=True,
        blockxsize=16,
        blockysize=16,
    ) as dst:
        dst.write(values, 1)
    return path


@pytest.mark.parametrize("crs", [32631, 4326])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_rasters_label_pixels_with_the_value_at_their_centre(tmp_path, monkeypatch, crs, dtype):
    monkeypatch.setattr(raster_labels, "WINDOW", 16)  # several windows, also cut ones
    values = np.random.default_rng(3).integers(0, 5, (45, 37)).astype(dtype)
    west, north = EAST + 45.5, NORTH + 500.5
    transform = Affine(11, 0, west, 0, -11, north)
    if crs == 4326:
        lon, lat = from_utm(32631).transform(west, north)
        transform = Affine(1.6e-4, 2e-6, lon, 1e-6, -1e-4, lat)  # slightly turned
    path = write_raster(tmp_path / "classes.tif", values, transform=transform, crs=f"EPSG:{crs}", nodata=4)
    places = np.concatenate([block(60, 60), [(0, 5, 5)]])
    found = outcome(label_pixels([ragged(places, s2=1, s1=1)], ProbeConfig(block=8, folds=3), path))

    move = Transformer.from_crs(32631, crs, always_xy=True)
    parcels = np.zeros(values.shape, object)
    for kind in (1, 2, 3):
        numbers, count = ndimage.label(values == kind)
        for number in range(1, count + 1):
            row, column = ndimage.center_of_mass(numbers == number)
            centre = transform * (column + 0.5, row + 0.5)
            east, north = move.transform(*centre, direction="INVERSE")
            parcels[numbers == number] = f"{east // 80} {north // 80}"
    groups = {}
    for place in block(60, 60).tolist():
        column, row = ~transform * move.transform(*place[1:])
        there = 0 <= column < 37 and 0 <= row < 45
        value = int(values[int(row), int(column)]) if there else 0
        if value in (1, 2, 3):
            name, group = found.pop(tuple(place))
            assert name == str(value)
            groups.setdefault(parcels[int(row), int(column)], set()).add(group)
    assert not found
    assert len(groups) > 20
    assert len({g for one in groups.values() for g in one}) == len(groups) == sum(map(len, groups.values()))


def test_the_choice_of_pixels_is_even_and_does_not_depend_on_the_shards(tmp_path):
    path = strips(tmp_path / "f.geojson", ["a", "a", "a", "a", "b", "b", "c", "c"], width=50)
    whole = ragged(block(40, 40))  # a: 640, b: 320, c: 320 pixels
    order = np.random.default_rng(0).permutation(len(whole))
    cut = [whole.take(part) for part in np.array_split(order, 3)]
    config = ProbeConfig(block=4, folds=3, pixels=600)
    one, three = label_pixels([whole], config, path), label_pixels([*cut, no_pixels()], config, path)
    assert np.array_equal(one.pixels.keys, three.pixels.keys)
    assert np.array_equal(one.pixels.s2.values, three.pixels.s2.values)
    assert np.array_equal(one.pixels.s1.starts, three.pixels.s1.starts)
    assert np.array_equal(one.classes, three.classes)
    assert np.array_equal(one.groups, three.groups)
    assert np.bincount(one.classes).tolist() == [200, 200, 200]
    more = label_pixels([whole], config.model_copy(update={"pixels": 1000}), path)
    assert np.bincount(more.classes).tolist() == [360, 320, 320]
    assert set(one.pixels.keys.tolist()) < set(more.pixels.keys.tolist())
    assert one.pixels.s2.values[: one.pixels.s2.starts[1]].tolist() in [
        whole.s2.values[a:b].tolist() for a, b in pairwise(whole.s2.starts)
    ]


def test_only_some_classes(tmp_path):
    path = strips(tmp_path / "f.geojson", FIELDS)
    part = ragged(block(60, 40))
    assert label_pixels([part], SMALL.model_copy(update={"classes": ("wheat", "beet")}), path).names == (
        "beet",
        "wheat",
    )
    with pytest.raises(UsageError, match=r"the class rye of probe.classes. There are: beet, maize, wheat"):
        label_pixels([part], SMALL.model_copy(update={"classes": ("wheat", "rye")}), path)


def test_classes_within_one_square_are_left_out(tmp_path, caplog):
    path = strips(tmp_path / "f.geojson", ["wheat", "maize", "wheat", "maize", "town"])
    assert label_pixels([ragged(block(60, 40))], SMALL, path).names == ("maize", "wheat")
    assert "left out: town" in caplog.text


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.geojson", None, "no such file"),
        ("gone.tif", None, "no such file"),
        (
            "empty.geojson",
            "",
            r"cannot be read as vector data: .*\. Give",
        ),
        ("empty.tif", "", "cannot be read"),
        (
            "text.gpkg",
            "hello",
            r"cannot be read as vector data: .*\. Give",
        ),
        (
            "none.geojson",
            '{"type": "FeatureCollection", "features": []}',
            "no column called class, label, crop or name",
        ),
    ],
)
def test_files_without_labels(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(UsageError, match=message) as error:
        label_pixels([ragged(block(4, 4))], SMALL, path)
    assert "\n" not in str(error.value)


def test_polygons_that_are_no_use(tmp_path):
    part = ragged(block(60, 40))
    boxes = [in_degrees(shapely.box(EAST + i * 100, NORTH, EAST + i * 100 + 90, NORTH + 90)) for i in range(4)]

    def fails(message, geometries=boxes, config=SMALL, pixels=part, **columns):
        path = write_geojson(tmp_path / "f.geojson", geometries, **columns)
        with pytest.raises(UsageError, match=message):
            label_pixels([pixels], config, path)

    fails("no column called class.*there are: kind, n", kind=list("abab"), n=[1, 2, 3, 4])
    fails("no column crops.*there are: crop", config=SMALL.model_copy(update={"column": "crops"}), crop=list("abab"))
    fails("column crop has no value in any of 4 rows", crop=[None] * 4)
    fails(
        r"holds a LineString \(feature 1\); points or polygons",
        [shapely.LineString(b.exterior) for b in boxes],
        crop=list("abab"),
    )
    fails("not longitudes and latitudes", [shapely.box(EAST, NORTH, EAST + 9, NORTH + 9)] * 2, crop=["a", "b"])
    fails(
        "labels no pixel of the d-pixels. Give labels of the same place, around longitude 4.4., latitude 50.7",
        [shapely.transform(b, lambda xy: xy + 1) for b in boxes],
        crop=list("abab"),
    )
    fails("do not say where they lie", pixels=ragged([(0, 1, 1)]), crop=list("abab"))
    fails("lie in 4 squares of 8 pixels, too few for 5 folds", config=ProbeConfig(block=8), crop=list("abab"))
    fails("all labelled pixels are of the class a", crop=list("aaaa"))
    fails("every class lies in one square", crop=list("abcd"))


def test_no_crs_is_an_error(tmp_path):
    boxes = shapely.to_wkb(np.array([shapely.box(EAST, NORTH, EAST + 90, NORTH + 90)]))
    with pytest.warns(UserWarning, match="crs"):
        pyogrio.raw.write(tmp_path / "f.shp", boxes, [np.array(["a"], object)], ["crop"], geometry_type="Polygon")
    transform = Affine(10, 0, EAST, 0, -10, NORTH)
    bare = write_raster(tmp_path / "bare.tif", np.ones((16, 16), np.uint8), transform=transform, crs=None)
    fractions = np.full((16, 16), 1.5, np.float32)
    broken = write_raster(
        tmp_path / "f.tif", fractions, transform=Affine(99, 0, EAST, 0, -99, NORTH + 999), crs="EPSG:32631"
    )
    for path, message in (
        (tmp_path / "f.shp", "no CRS"),
        (bare, "no CRS"),
        (broken, "fractions, which are no classes"),
    ):
        with pytest.raises(UsageError, match=message):
            label_pixels([ragged(block(9, 9))], SMALL, path)


def test_broken_polygons_are_repaired(tmp_path):
    tie = in_degrees(
        shapely.Polygon([(EAST, NORTH), (EAST + 200, NORTH + 200), (EAST + 200, NORTH), (EAST, NORTH + 200)])
    )
    box = in_degrees(shapely.box(EAST + 210, NORTH, EAST + 390, NORTH + 200))
    path = write_layer(tmp_path / "f.gpkg", "parcels", [tie, box], crop=["a", "b"])
    hits = read_labels(path).at(block(40, 20))
    x, y = (block(40, 20)[:, 1:] - (EAST + 100, NORTH + 100)).T
    labels_a = np.isin(np.arange(800), hits.numbers[hits.values == 0])
    assert labels_a[(np.abs(y) < np.abs(x)) & (np.abs(x) < 100)].all()  # both triangles
    assert not labels_a[(np.abs(y) > np.abs(x)) | (np.abs(x) > 100)].any()


def parcels(*numbers, width=100):
    return [in_degrees(shapely.box(EAST + i * 100, NORTH, EAST + i * 100 + width, NORTH + 100)) for i in numbers]


def labelled(path, *arguments, places=None):
    """Column of 10 parcels -> class, of the pixels of the lowest row."""
    read = read_labels(path, "", *arguments)
    hits = read.at(block(40, 1) if places is None else places)
    return {int(number) // 10: read.name(int(value)) for number, value in zip(hits.numbers, hits.values, strict=True)}


@pytest.mark.parametrize("kind", ["gpkg", "folder"])
def test_all_layers_of_labels_are_used_or_the_one_that_is_named(tmp_path, caplog, kind):
    caplog.set_level(logging.INFO, logger="tessera_cli")
    if kind == "gpkg":
        path = write_layer(tmp_path / "f.gpkg", "first", parcels(0, 1), crop=["a", "b"])
        write_layer(path, "second", parcels(2, 3), label=["c", "a"], crop_code=[1, 2])
        write_layer(path, "samples", [parcels(0)[0].centroid], kind="Point")
        assert labelled(path, "second") == {2: "c", 3: "a"}
        with pytest.raises(UsageError, match=r"no layer third with geometries. There are: first, second, samples\."):
            labelled(path, "third")
    else:
        path = tmp_path / "f"
        path.mkdir()
        write_geojson(path / "first.geojson", parcels(0, 1), crop=["a", "b"])
        write_geojson(path / "second.geojson", parcels(2, 3), crop=["c", "a"])
    assert labelled(path) == {0: "a", 1: "b", 2: "c", 3: "a"}
    assert "first, second" in caplog.text or "first.geojson, second.geojson" in caplog.text


def test_layers_of_labels_that_do_not_go_together(tmp_path):
    path = write_layer(tmp_path / "f.gpkg", "text", parcels(0, 1), crop=["a", "b"])
    write_layer(path, "numbers", parcels(2, 3), crop=[1, 2])
    with pytest.raises(UsageError, match=r"differ in CRS or in the type of their labels. Choose one with --layer"):
        labelled(path)
    write_layer(tmp_path / "g.gpkg", "classes", parcels(0, 1), crop=["a", "b"])
    write_layer(tmp_path / "g.gpkg", "none", parcels(2, 3))
    with pytest.raises(UsageError, match="layer none has no column called class"):
        labelled(tmp_path / "g.gpkg")


def test_labels_without_a_geometry_are_counted(tmp_path, caplog):
    path = write_layer(tmp_path / "f.gpkg", "c", [*parcels(0), None, shapely.Polygon()], crop=["a", "b", "c"])
    assert labelled(path) == {0: "a"}
    assert "left out without a geometry: 2 of 3 features" in caplog.text


def test_labels_that_hold_no_pixel_are_counted(tmp_path, caplog):
    kinds = [*"abababab", "a"]
    path = write_geojson(tmp_path / "f.geojson", [*parcels(*range(8)), *parcels(3, width=4)], crop=kinds)
    label_pixels([ragged(block(80, 40))], ProbeConfig(block=4, pixels=99), path)
    assert "1 of 9 polygons hold no pixel of the d-pixels and label nothing" in caplog.text


@pytest.mark.parametrize(
    ("wkb", "kind", "words"),
    [(TIN, "TIN", "holds a TIN"), (NOT_FINITE, "POLYGON", "feature 1 has the position")],
)
def test_labels_that_no_parcel_can_be(tmp_path, wkb, kind, words):
    path = write_wkb(tmp_path / "f.gpkg", wkb, kind)
    with sqlite3.connect(path) as db:
        db.execute("alter table c add column crop text")
        db.execute("update c set crop = 'a'")
    with pytest.raises(UsageError, match=words):
        labelled(path)


def test_labels_with_a_byte_order_mark_and_too_deep_ones(tmp_path):
    path = write_geojson(tmp_path / "f.geojson", parcels(0, 1), crop=["a", "b"])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert labelled(path) == {0: "a", 1: "b"}
    path.write_text('{"type": "Polygon", "coordinates": ' + "[" * 100_000 + "]" * 100_000 + "}")
    with pytest.raises(UsageError, match=r"vector data: (.*nesting too deep|Failed to read GeoJSON)"):
        labelled(path)


def test_collections_of_polygons_are_parcels(tmp_path):
    path = write_geojson(
        tmp_path / "f.geojson", [shapely.GeometryCollection(parcels(0, 2)), *parcels(1)], crop=["a", "b"]
    )
    assert labelled(path) == {0: "a", 1: "b", 2: "a"}


def test_a_polygon_without_area_labels_nothing(tmp_path):
    line = in_degrees(shapely.Polygon([(EAST, NORTH), (EAST + 300, NORTH + 300), (EAST + 600, NORTH + 600)]))
    box = in_degrees(shapely.box(EAST, NORTH, EAST + 100, NORTH + 100))
    path = write_geojson(tmp_path / "f.geojson", [line, box], crop=["a", "b"])
    hits = read_labels(path).at(block(60, 60))
    assert set(hits.values) == {1}
    assert len(hits.values) == 100


def test_polygons_that_enclose_nothing_are_counted(tmp_path, caplog):
    flat = shapely.Polygon([(5.0, 51.0), (5.1, 51.1), (5.0, 51.0)])
    path = write_layer(tmp_path / "f.gpkg", "c", [flat, *parcels(0)], crop=["a", "b"])
    assert labelled(path) == {0: "b"}
    assert "left out since nothing is enclosed: 1 feature" in caplog.text
    with pytest.raises(UsageError, match="holds no polygon with a label"):
        labelled(write_layer(tmp_path / "g.gpkg", "c", [flat], crop=["a"]))


# --- stability --------------------------------------------------------------------------------------------------------


def test_stability_by_hand():
    rng = np.random.default_rng(0)
    first = rng.normal(size=(50, 7)) + 3
    second = (first + rng.normal(size=(50, 7))).astype(np.float32)
    first = first.astype(np.float32)
    mean = np.mean(first.astype(float), axis=0)
    cosine = [
        [(a - mean) @ (b - mean) / np.linalg.norm(a - mean) / np.linalg.norm(b - mean) for b in second] for a in first
    ]
    assert agreement(first, second) == pytest.approx(np.trace(cosine) / 50, abs=1e-12)
    found = np.mean([max(range(50), key=row.__getitem__) == i for i, row in enumerate(cosine)])
    assert 0.2 < found < 0.95
    assert retrieval(first, second) == found


def test_what_embeddings_share_does_not_count_as_agreement():
    rng = np.random.default_rng(0)
    first, second = (rng.normal(size=(2000, 64)).astype(np.float32) + 20 for _ in range(2))
    assert (first * second).sum(1).mean() / np.linalg.norm(first, axis=1).mean() ** 2 > 0.99
    assert abs(agreement(first, second)) < 0.01
    assert retrieval(first, second) < 0.005
    assert agreement(first, first) == pytest.approx(1)
    assert retrieval(first, first) == 1
    assert agreement(first, 2 * first.mean(axis=0) - first) == pytest.approx(-1)
    assert abs(agreement(first, first + 1000)) < 0.1  # another place altogether, not the opposite


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e4])
def test_a_collapsed_encoder_neither_agrees_nor_finds(constant):
    same = np.full((500, 8), constant, np.float32)
    assert agreement(same, same) == pytest.approx(0, abs=1e-6)
    assert retrieval(same, same) == 1 / 500


# --- evaluation -------------------------------------------------------------------------------------------------------


HEADER = {"origins": [{"name": "made up"}]}


def flat(view):
    """One row per pixel: mean bands of each sensor, number of observations, whether radar was seen."""
    rows = np.zeros((sum(len(s.members) for s in view["s2"]), 15), np.float32)
    for sequences in view["s2"]:
        rows[sequences.members, :10] = sequences.values.mean(axis=1)
        rows[sequences.members, 13] = sequences.doy.shape[1]
    for sequences in view["s1"]:
        rows[sequences.members, 10:12] = sequences.values.mean(axis=1)
        rows[sequences.members, 12] = (sequences.doy > 0).any(axis=1)
        rows[sequences.members, 14] = sequences.doy.shape[1]
    return rows


@pytest.fixture
def made(tmp_path):
    """Shards of 2400 pixels, three parts of training and one held out, with labels; classes show in the values."""
    places = block(60, 40)
    path = strips(tmp_path / "f.geojson", FIELDS)
    whole = ragged(places, s2=30, s1=26)
    kinds = np.unique([*FIELDS, "verge", "verge"], return_inverse=True)[1][(places[:, 1] - EAST) // 80]
    brighter = 1500 * np.eye(10, dtype=np.uint16)[kinds]  # each class in a band of its own
    values = whole.s2.values // 9 + np.repeat(brighter, 30, axis=0)
    whole = replace(whole, s2=replace(whole.s2, values=values))
    parts = [whole.take(np.arange(i, 2400, 4)) for i in range(4)]
    config = PretrainConfig(
        views={"n_obs": 12, "drop_s1": 0.5, "drop_season": 0.3, "drop_orbit": 0.3},
        probe={"labels": str(path), "block": 8, "folds": 3, "pixels": 500},
    )
    return SimpleNamespace(train=tuple(parts[:3]), holdout=parts[3], header=HEADER), config


def test_an_evaluation_measures_the_same_each_time(made, monkeypatch):
    shards, config = made
    seen = []

    def embed(view):
        seen.append(view)
        return flat(view)

    evaluation = evaluate.Evaluation.of(shards, config)
    found = evaluation.measure(embed)
    assert set(found) == {
        "retrieval",
        "agreement",
        "rank_me",
        "drift_5",
        "drift_10",
        "drift_20",
        "drift_no_radar",
        "probe_knn",
        "probe_linear",
    }
    assert all(type(value) is float for value in found.values())
    assert found["probe_linear"] > 0.9  # the class shows in the mean of the bands
    assert found["retrieval"] > 10 / 500
    assert evaluation.measure(embed) == found
    half = len(seen) // 2
    for one, other in zip(seen[:half], seen[half:], strict=True):
        for sensor in ("s1", "s2"):
            assert all(np.array_equal(a.values, b.values) for a, b in zip(one[sensor], other[sensor], strict=True))
    monkeypatch.setattr(evaluate, "CHUNK", 37)
    assert evaluate.Evaluation.of(shards, config).measure(flat) == found
    assert (
        evaluate.Evaluation.of(
            shards, config.model_copy(update={"train": config.train.model_copy(update={"seed": 4})})
        ).measure(flat)["agreement"]
        != found["agreement"]
    )


def test_probes_predict_out_of_fold_with_the_models_of_evaluate(made):
    """Against scikit-learn: nearest neighbours of standardised features in other folds; ridge cannot be far off."""
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.preprocessing import StandardScaler

    shards, config = made
    evaluation = evaluate.Evaluation.of(shards, config)
    known = evaluation.labelled
    rng = np.random.default_rng(0)
    noisy = rng.normal(size=(len(known.classes), 12)) + 1.2 * np.eye(12)[known.classes]
    embeddings = noisy.astype(np.float32)
    folds = balanced_folds(known.groups, known.classes, config.probe.folds)
    predicted = np.empty_like(known.classes)
    for fold in range(config.probe.folds):
        train = folds != fold
        scale = StandardScaler().fit(embeddings[train])
        model = KNeighborsClassifier(20).fit(scale.transform(embeddings[train]), known.classes[train])
        predicted[~train] = model.predict(scale.transform(embeddings[~train]))
    expected = balanced_accuracy_score(known.classes, predicted)
    assert evaluation._probe(embeddings, "knn", {"k": 20}) == pytest.approx(expected, abs=0.02)  # ties
    assert 0.4 < expected < 0.95
    assert evaluation._probe(embeddings, "ridge") > 0.4
    of_noise = rng.normal(size=embeddings.shape).astype(np.float32)
    for adapter in ("knn", "ridge"):
        assert abs(evaluation._probe(of_noise, adapter) - 1 / 3) < 0.12


def test_a_probe_without_scikit_learn_names_the_extra(made, monkeypatch):
    shards, config = made
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(
        UsageError, match=r'--probe needs another package. Run: pip install "tessera-embed\[evaluate\]"'
    ):
        evaluate.Evaluation.of(shards, config)
    bare = config.model_copy(update={"probe": config.probe.model_copy(update={"labels": ""})})
    assert "retrieval" in evaluate.Evaluation.of(shards, bare).measure(flat)


def test_what_the_views_show(made):
    """No view of the probes and of retrieval misses a sensor, although training drops them; drift shows fewer dates."""
    shards, config = made
    evaluation = evaluate.Evaluation.of(shards, config)
    assert len(evaluation.holdout) == len(evaluation.labelled.pixels) == 500
    rows = []

    def embed(view):
        rows.append(flat(view))
        return rows[-1]

    evaluation.measure(embed)
    lengths = [(set(r[:, 13]), set(r[:, 14]), set(r[:, 12])) for r in rows]
    dates = [({n}, {n}, {1}) for n in (12, 12, None, 5, 10, 20, None, 12)]
    for i in (0, 1, 3, 4, 5, 7):
        assert lengths[i] == dates[i]
    assert lengths[2] == ({32}, {32}, {1})  # all 30 and 26 of them, in bins
    assert lengths[6] == ({32}, {1}, {0})
    assert not np.array_equal(rows[0], rows[1])


def test_drift_tells_what_an_encoder_depends_on(made):
    shards, config = made
    evaluation = evaluate.Evaluation.of(shards, config)
    found = evaluation.measure(lambda view: flat(view)[:, :10])  # means of the optical bands
    assert found["drift_no_radar"] == pytest.approx(1)
    assert found["drift_5"] < found["drift_10"] < found["drift_20"] < 1
    blind = evaluation.measure(lambda view: flat(view)[:, 10:12])
    assert blind["drift_no_radar"] < 0.5


def test_without_held_out_pixels_or_labels(made, caplog):
    shards, config = made
    shards.holdout = no_pixels()
    evaluation = evaluate.Evaluation.of(shards, config)
    assert [r.levelno for r in caplog.records if "held out" in r.message] == [logging.WARNING]
    assert set(evaluation.measure(flat)) == {"probe_knn", "probe_linear"}
    bare = config.model_copy(update={"probe": config.probe.model_copy(update={"labels": ""})})
    assert evaluate.Evaluation.of(shards, bare).measure(flat) == {}


def test_pixels_without_radar_cannot_lose_it(made):
    shards, config = made
    whole, dark = shards.holdout, ragged(shards.holdout.places, s1=0)
    evaluation = evaluate.Evaluation.of(SimpleNamespace(train=shards.train, holdout=dark, header=HEADER), config)
    assert "drift_no_radar" not in evaluation.measure(flat)
    both = SimpleNamespace(train=shards.train, holdout=concatenated([whole, dark]), header=HEADER)
    seeing = evaluate.Evaluation.of(both, config)
    held = seeing.holdout.s1.counts > 0
    assert 0 < held.sum() < len(held)
    assert seeing.measure(lambda view: flat(view)[:, :10])["drift_no_radar"] == pytest.approx(1)


def test_few_observations_are_not_repeated_for_the_drift(made):
    shards, config = made
    few = SimpleNamespace(train=shards.train, holdout=ragged(shards.holdout.places, s2=7, s1=3), header=HEADER)
    lengths = []

    def embed(view):
        lengths.append(({s.doy.shape[1] for s in view["s2"]}, {s.doy.shape[1] for s in view["s1"]}))
        return flat(view)

    evaluate.Evaluation.of(few, config).measure(embed)
    assert lengths[3:6] == [({5}, {3}), ({7}, {3}), ({7}, {3})]


def test_a_diverged_encoder_is_named(made):
    shards, config = made
    with pytest.raises(TesseraError, match="not finite"):
        evaluate.Evaluation.of(shards, config).measure(lambda view: np.nan * flat(view))


def test_the_best_checkpoint_is_chosen_by_the_probe():
    assert evaluate.selection({"retrieval": 0.3, "probe_knn": 0.6}) == 0.6
    assert evaluate.selection({"retrieval": 0.3}) == 0.3
    assert evaluate.selection({}) is None
