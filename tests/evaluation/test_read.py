"""All that a command names, read together: embeddings, labels, d-pixels, models, another year, another table."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
import shapely
from pyarrow import parquet

from tessera_cli.dpixels import write_store
from tessera_cli.errors import NothingToEmbedError, UsageError
from tessera_cli.evaluation.asked import Asked
from tessera_cli.evaluation.baselines import embedding_features, raw_features
from tessera_cli.evaluation.raw.components import principal_components
from tessera_cli.evaluation.read import read
from tessera_cli.extent.grid import Tile, from_utm
from tessera_cli.extent.window import Window
from tests.evaluation.rasters import lonlat_of, write_geojson, write_tiff
from tests.helpers.checkpoints import VARIANTS
from tests.helpers.encoders import random_model
from tests.helpers.landscapes import put
from tests.helpers.series import optical, write_rows
from tests.helpers.tiles import TILE, made_up

SIDE = 24
CORNER = TILE.transform
NUMBERS = np.arange(SIDE * SIDE, dtype=np.float32).reshape(1, SIDE, SIDE)
EMBEDDING = np.concatenate([NUMBERS, NUMBERS + 0.5])
CORNERS = [(row, column) for row in range(0, SIDE, 6) for column in range(0, SIDE, 6)]
LAYERS = ("s2", "s2_mask", "s1_asc", "s1_desc")
RAW = ["raw-series", "raw-pca", "raw-seasonal", "raw-metrics"]


def stored(small, tile):
    """These d-pixels in the upper left corner of a tile, on dates in order."""
    arrays = {name: whole(getattr(small, name)) for name in LAYERS}
    dates = {
        f"{name}_dates": np.datetime64("2024-02-01") + 30 * np.arange(len(getattr(small, name)))
        for name in ("s2", "s1_asc", "s1_desc")
    }
    return dataclasses.replace(small, tile=tile, requested=np.ones((512, 512), bool), **arrays, **dates)


def whole(values):
    """The tile that has these values, (T, H, W, ...), in its upper left corner."""
    made = np.zeros((len(values), 512, 512, *values.shape[3:]), values.dtype)
    made[:, :SIDE, :SIDE] = values
    return made


def around(rows, columns):
    """The polygon in degrees around pixels of the tile."""
    left, top = CORNER * (columns.start, rows.start)
    right, bottom = CORNER * (columns.stop, rows.stop)
    return shapely.transform(shapely.box(left, bottom, right, top), from_utm(32631).transform, interleaved=False)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """An embedding that says which pixel it is, fields of 5 x 5 pixels, and observations that say it, too."""
    folder = tmp_path_factory.mktemp("place")
    write_tiff(folder / "emb.tif", EMBEDDING, transform=CORNER, tags={"TESSERA_MODEL_NAME": "one"})
    boxes = [around(slice(r, r + 5), slice(c, c + 5)) for r, c in CORNERS]
    write_geojson(folder / "fields.geojson", boxes, crop=[("beet", "oats", "rye")[i % 3] for i in range(len(boxes))])
    small = made_up(np.tile([[6, 2, 2]], (SIDE * SIDE, 1)), 1, (SIDE, SIDE))
    small.s2[..., 0] = NUMBERS[0].astype(np.uint16) + 1  # B04 in DN
    small.s2_mask[:, 0] = small.s1_asc[:, 0] = small.s1_desc[:, 0] = 0  # the first row was not observed
    (folder / "dpixels").mkdir()
    write_store(folder / "dpixels", stored(small, TILE))
    return folder


def asked(place, **more):
    return Asked(**{"inputs": (place / "emb.tif",), "labels": place / "fields.geojson", "column": "crop", **more})


def test_embeddings_baselines_and_models_are_of_the_same_pixels(place):
    model = random_model(VARIANTS["v2-student"].config)
    found = read(asked(place, dpixels=(place / "dpixels",), models=(model,)))
    samples, observed = found.samples, found.observed
    assert observed is not None
    alone = ["emb", "random", "random weights", *RAW]
    assert [each.name for each in samples.features] == [*alone, "emb + raw-series", "random + raw-series"]
    kinds = ["embedding", "embedding", "random", *["raw"] * 4, "both", "both"]
    assert [each.kind for each in samples.features] == kinds
    pixel = samples.features[0].values[:, 0].astype(int)
    assert (pixel >= SIDE).all()  # those without observations are left out for all
    assert len(pixel) == 16 * 25 - 4 * 5
    assert "20 pixels without observations in the d-pixels" in samples.left_out
    bands = observed.pixels.s2.values[observed.pixels.s2.starts[:-1], 0]
    np.testing.assert_array_equal(bands, pixel + 1)
    np.testing.assert_allclose(samples.lonlat, lonlat_of(pixel // SIDE, pixel % SIDE, CORNER), atol=1e-9)
    crops = np.array(["beet", "oats", "rye"])
    field = pixel // SIDE // 6 * 4 + pixel % SIDE // 6
    assert (np.array(samples.classes)[samples.targets] == crops[field % 3]).all()
    sets = {each.name: each for each in samples.features}
    np.testing.assert_array_equal(
        sets["random"].values, embedding_features(observed.pixels, observed.window, model)[0].values
    )
    for each in raw_features(observed.pixels, observed.window):
        np.testing.assert_array_equal(sets[each.name].values, each.values)
    assert samples.keys is not None
    assert len(np.unique(samples.keys)) == len(samples)
    alone = read(asked(place)).samples  # draws of labels are the same with and without baselines
    assert alone.keys is not None
    assert set(samples.keys.tolist()) < set(alone.keys.tolist())


def test_points_on_one_pixel_stay_with_their_observations_when_a_class_is_left_out(place, tmp_path):
    """The class `rare` loses all its places but one, and this one shares its pixel with a point of another class."""
    spots = [(row, column) for row in range(2, 20, 2) for column in range(0, 24, 3)]
    where = [*spots, *spots[:10], spots[5], (0, 4)]
    crops = [("beet", "oats")[i % 2] for i in range(len(where) - 2)] + ["rare", "rare"]
    shapes = [shapely.Point(*lonlat_of(*spot, CORNER)) for spot in where]
    labels = write_geojson(tmp_path / "points.geojson", shapes, crop=crops)
    found = read(asked(place, labels=labels, dpixels=(place / "dpixels",)))
    samples, observed = found.samples, found.observed
    assert observed is not None
    assert samples.classes == ("beet", "oats")
    assert len(samples) == len(observed.pixels) == len(where) - 2
    pixel = samples.features[0].values[:, 0].astype(int)
    np.testing.assert_array_equal(observed.pixels.s2.values[observed.pixels.s2.starts[:-1], 0], pixel + 1)
    np.testing.assert_array_equal(observed.pixels.s2.counts, 6)


def test_another_year_is_tested_at_the_same_places(place, tmp_path):
    later = EMBEDDING + 1000
    later[:, :6] = np.nan
    write_tiff(tmp_path / "later.tif", later, transform=CORNER, tags={"TESSERA_MODEL_NAME": "one"})
    samples = read(asked(place, test=(tmp_path / "later.tif",), beside=True)).samples
    (features,) = samples.features
    assert len(samples) == 12 * 25
    assert "100 pixels without an embedding in what --test names" in samples.left_out
    np.testing.assert_array_equal(features.tested, features.values + 1000)
    assert features.origin.endswith("later.tif, one, float32")


def vectors(path, *, shift=0.0, classes=("a", "b"), count=40, **more):
    names = [classes[i % len(classes)] for i in range(count)]
    columns = {f"e_{i}": np.arange(count) + i + shift for i in range(3)}
    parquet.write_table(pa.table({**columns, "crop": names, "site": np.arange(count) // 4, **more}), path)
    return path


def test_rows_of_another_table_are_the_test(tmp_path):
    one = vectors(tmp_path / "one.parquet")
    other = vectors(tmp_path / "other.parquet", shift=1000, classes=("b", "c", "a"), count=31)
    samples = read(Asked(inputs=(one,), features=("e_",), column="crop", group="site", test=(other,))).samples
    assert samples.test is not None
    assert samples.classes == ("a", "b", "c")
    tested = samples.features[0].values[:, 0] >= 1000
    np.testing.assert_array_equal(samples.test, tested)
    assert (len(samples), tested.sum()) == (71, 31)
    row = samples.features[0].values[:, 0].astype(int) % 1000
    names = [("b", "c", "a")[r % 3] if t else ("a", "b")[r % 2] for r, t in zip(row, tested, strict=True)]
    assert [samples.classes[each] for each in samples.targets] == names
    assert not set(samples.groups[tested]) & set(samples.groups[~tested])
    assert samples.keys is not None
    assert len(np.unique(samples.keys)) == 71
    assert len(np.unique(samples.parcels)) == 71


def series(path, year, *, radar, count=12):
    rows = [
        optical(
            f"s{n}", f"{year}-{month:02d}-10", 300 * (n % 2) + 40 * month + n + year % 100, lon=4 + n / 50, lat=52.0
        )
        | ({"VV": -10.0 - n, "VH": -16.0} if radar else {})
        | {"crop": ("a", "b")[n % 2]}
        for n in range(count)
        for month in (2, 5, 8, 11)
    ]
    return write_rows(path, rows)


def test_raw_features_of_two_tables_of_series_mean_the_same(tmp_path):
    """Principal components are of both, and radar that the test lacks is missing there."""
    one, other = (series(tmp_path / f"{y}.parquet", y, radar=y == 2022) for y in (2022, 2023))
    found = read(Asked(inputs=(one,), column="crop", test=(other,)))
    samples, observed = found.samples, found.observed
    assert observed is not None
    assert samples.test is not None
    sets = {each.name: each.values for each in samples.features}
    assert list(sets) == RAW
    assert all(len(each) == 24 == len(samples) for each in sets.values())
    np.testing.assert_array_equal(sets["raw-pca"], principal_components(sets["raw-series"]))
    alone = {each.name: each.values for each in read(Asked(inputs=(one,), column="crop")).samples.features}
    for name in ("raw-series", "raw-seasonal", "raw-metrics"):
        np.testing.assert_array_equal(sets[name][:12], alone[name])
    optical_part = 24 * 10
    assert np.isfinite(sets["raw-series"][:12]).all()
    assert np.isfinite(sets["raw-series"][12:, :optical_part]).all()
    assert np.isnan(sets["raw-series"][12:, optical_part:]).all()
    assert observed.window.name == "20230210-20231110"  # of what is tested
    assert (observed.pixels.s1.counts > 0).tolist() == [True] * 12 + [False] * 12


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"inputs": ()}, "Nothing is given"),
        ({"inputs": ("absent",)}, "no such file"),
        ({"inputs": ("fields.geojson",), "labels": None}, "neither embeddings nor a table"),
        ({"labels": None}, "Labels are missing"),
        ({"features": ("a",)}, "names columns of a table"),
        ({"columns": ("sample=a",)}, "--columns says how to read time series"),
        ({"models": (object(),)}, "--model encodes"),
        ({"test": ("absent",)}, "no such file"),
        ({"test": ("emb.tif", "emb.tif")}, "holds 2 sets of embeddings, for 1"),
        ({"test": ("wide.tif",)}, "has 1 dimensions.*same model"),
        ({"test": ("other.tif",)}, "of the model two.*of one.*same model"),
        ({"test": ("far.tif",)}, "No labelled place has an embedding"),
        ({"test": ("emb.tif",), "dpixels": ("dpixels",)}, "--dpixels are of one window and --test"),
        ({"test": ("table.csv",)}, "is a table, and .* is none"),
        ({"inputs": ("emb.tif", "table.csv")}, "is a table, which holds its labels"),
        ({"inputs": ("table.csv",), "labels": None, "test": ("emb.tif",)}, "is no table"),
        ({"inputs": ("table.csv",), "labels": None, "dpixels": ("dpixels",)}, "--dpixels goes with folders"),
        ({"inputs": ("table.csv",), "labels": None, "unit": "parcel"}, "rows are the samples"),
        ({"inputs": ("table.csv",), "labels": None, "models": (object(),)}, "holds vectors"),
        ({"unit": "parcel", "dpixels": ("dpixels",)}, "--unit parcel takes the mean"),
    ],
)
def test_what_does_not_go_together(place, tmp_path, more, words):
    write_tiff(tmp_path / "wide.tif", NUMBERS, transform=CORNER)
    write_tiff(tmp_path / "other.tif", EMBEDDING, transform=CORNER, tags={"TESSERA_MODEL_NAME": "two"})
    write_tiff(tmp_path / "far.tif", EMBEDDING)
    (tmp_path / "table.csv").write_text("Tessera_Band_0,crop\n" + "1,beet\n2,oats\n" * 5)
    for name in ("emb.tif", "fields.geojson", "dpixels"):
        (tmp_path / name).symlink_to(place / name)
    paths = {
        key: tuple(tmp_path / each for each in value) if key in ("inputs", "test", "dpixels") else value
        for key, value in more.items()
    }
    with pytest.raises(UsageError, match=words) as caught:
        read(asked(tmp_path, **paths))
    assert "\n" not in str(caught.value)


def test_dpixels_of_elsewhere_or_of_another_year(place, tmp_path):
    small = made_up(np.ones((SIDE * SIDE, 3), int), 1, (SIDE, SIDE))
    write_store(tmp_path, stored(small, Tile(32631, 140, 1098)))
    with pytest.raises(NothingToEmbedError, match="samples lies on the d-pixels of "):
        read(asked(place, dpixels=(tmp_path,)))
    put(tmp_path / "emb", TILE, Window.from_name("2023"))
    where = [shapely.Point(*lonlat_of(row, column, CORNER)) for row in range(1, 20, 2) for column in range(1, 20)]
    labels = write_geojson(tmp_path / "points.geojson", where, crop=["beet", "oats"] * 95)
    with pytest.raises(UsageError, match="holds d-pixels of 2024, and the embeddings are of 2023"):
        read(asked(place, inputs=(tmp_path / "emb",), labels=labels, dpixels=(place / "dpixels",)))


def test_a_folder_of_arrays_is_a_table(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "emb.npy", rng.normal(size=(20, 4)).astype(np.float32))
    np.save(tmp_path / "crop.npy", np.array(["a", "b"] * 10))
    samples = read(Asked(inputs=(tmp_path,), features=("emb_",), column="crop")).samples
    np.testing.assert_array_equal(samples.features[0].values, np.load(tmp_path / "emb.npy"))
