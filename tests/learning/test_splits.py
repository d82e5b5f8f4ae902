"""Splits: what belongs together is tested together; where the split is too weak, that is said."""

import numpy as np
import pytest
from pyproj import Geod, Transformer

from tessera_cli.errors import UsageError
from tessera_cli.learning import splits
from tessera_cli.learning.ground import centroids, nearest, positions, squares
from tessera_cli.learning.leaks import leaks
from tessera_cli.learning.variogram import block_size, label_range

UTM = Transformer.from_crs(32631, 4326, always_xy=True)


def lonlat_of(east, north):
    """Metres from a point in zone 31 -> degrees (N, 2)."""
    return np.stack(UTM.transform(500_000 + np.asarray(east, float), 5_600_000 + np.asarray(north, float)), axis=1)


def field(n=2000, extent=20_000, length=1500, seed=0):
    """Places and a random field of unit variance whose covariance is exp(-distance / length)."""
    rng = np.random.default_rng(seed)
    east, north = rng.uniform(0, extent, (2, n))
    distance = np.hypot(east[:, None] - east, north[:, None] - north)
    values = np.linalg.cholesky(np.exp(-distance / length) + 1e-9 * np.eye(n)) @ rng.normal(size=n)
    return lonlat_of(east, north), values


# --- ground -----------------------------------------------------------------------------------------------------------


def test_distances_on_the_ground():
    a, b = np.array([[5.0, 51.0], [-100.0, 0.0]]), np.array([[5.1, 51.2], [-100.5, 0.2], [80, -70]])
    found = nearest(a, b)
    geod = Geod(ellps="WGS84")
    assert found == pytest.approx([geod.inv(*a[i], *b[i])[2] for i in range(2)], rel=0.005)
    assert np.isnan(positions(np.array([[np.nan, 3.0]]))[:, :2]).all()


@pytest.mark.parametrize("lat", [0, 51, -72])
def test_squares_are_square_and_as_wide_as_asked(lat):
    rng = np.random.default_rng(0)
    lon, lats = rng.uniform(10, 10.3, 20_000), lat + rng.uniform(0, 0.1, 20_000)
    numbers = squares(np.stack([lon, lats], axis=1), 1000)
    for number in np.unique(numbers)[:200:7]:
        here = numbers == number
        assert np.ptp(lats[here]) * 111_195 < 1001
        assert np.ptp(lon[here]) * 111_195 * np.cos(np.radians(lats[here].mean())) < 1030
    area = 0.3 * 111_195 * np.cos(np.radians(lat + 0.05)) * 0.1 * 111_195
    assert len(np.unique(numbers)) == pytest.approx(area / 1e6, rel=0.2)


def test_squares_go_on_across_the_antimeridian():
    rng = np.random.default_rng(0)
    lon = rng.uniform(-0.05, 0.05, 4000)
    numbers = squares(np.stack([(lon + 360) % 360 - 180, np.full(4000, 1e-5)], axis=1), 2000)
    assert len(np.unique(numbers)) <= 7
    same = squares(np.array([[190.0, 3], [-170.0, 3], [np.nan, 3]]), 500)
    assert same[0] == same[1]
    assert same[2] == -1


def test_centroids_also_across_the_antimeridian():
    middles, members = centroids(
        np.array([[179.9, 10], [-179.9, 10], [5, 50], [5.2, 50], [np.nan, np.nan], [np.nan, 1]]),
        np.array([7, 7, 3, 3, 3, 9]),
    )
    assert members.tolist() == [1, 1, 0, 0, 0, 2]
    np.testing.assert_allclose(middles[0], [5.1, 50], atol=1e-4)
    np.testing.assert_allclose(np.abs(middles[1]), [180, 10], atol=1e-4)
    assert np.isnan(middles[2]).all()


# --- the range of labels ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [500, 1500])
def test_the_range_of_a_field_whose_covariance_is_known(length):
    """An exponential covariance reaches 95 % of its sill at 3 lengths."""
    found = [label_range(*field(900, length=length, seed=seed), classes=False) for seed in range(3)]
    assert 0.5 * 3 * length < np.median(found) < 1.6 * 3 * length


def test_the_range_of_classes_in_fields_is_that_of_the_fields():
    rng = np.random.default_rng(0)
    east, north = rng.uniform(0, 20_000, (2, 3000))
    kinds = rng.integers(0, 4, (40, 40))
    classes = kinds[(east // 500).astype(int), (north // 500).astype(int)]
    assert 250 < label_range(lonlat_of(east, north), classes, classes=True) < 900


def test_labels_that_resemble_no_neighbour_have_no_range():
    rng = np.random.default_rng(0)
    places = lonlat_of(*rng.uniform(0, 20_000, (2, 2500)))
    assert label_range(places, rng.integers(0, 3, 2500), classes=True) < 700
    assert label_range(places, np.zeros(2500), classes=False) < 100
    assert label_range(places[:1].repeat(9, axis=0), np.arange(9), classes=True) == 20


def test_blocks_stay_small_enough_for_the_folds():
    places, values = field(600, extent=3000, length=5000)
    size = block_size(places, values, classes=False, folds=5)
    assert len(np.unique(squares(places, size))) >= 18  # 20 before rounding
    assert size == float(f"{size:.2g}")


# --- splits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [500.0, None])
def test_blocks_and_groups_lie_in_one_fold(size):
    rng = np.random.default_rng(0)
    middle = rng.uniform(0, 8000, (300, 2))
    groups = np.repeat(np.arange(300) * 3 + 5, 4)
    places = middle[(groups - 5) // 3] + rng.normal(0, 150, (1200, 2))  # parcels reach into other blocks
    classes = rng.integers(0, 4, 300)[(groups - 5) // 3]
    lonlat = lonlat_of(*places.T)
    split = splits.blocked(lonlat, groups, classes, size=size, folds=5, seed=1)
    assert split.kind == "blocked"
    assert split.count == 5
    assert size is None or split.size == size
    for kind in (groups, split.blocks):
        for one in np.unique(kind):
            assert len(np.unique(split.folds[kind == one])) == 1
    middles, members = centroids(lonlat, groups)
    by_square = np.stack([squares(middles, split.size)[members], split.blocks])
    assert len(np.unique(by_square, axis=1).T) == len(np.unique(split.blocks))
    table = np.stack([np.bincount(classes[split.folds == fold], minlength=4) for fold in range(5)])
    assert (table > 0.1 * table.sum(axis=0)).all()
    other = splits.blocked(lonlat, groups, classes, size=size, folds=5, seed=2)
    assert not np.array_equal(other.folds, split.folds)


def test_train_and_test_of_draws():
    split = splits.Split("grouped", np.array([0, 1, 2, 1, -1]), np.arange(5))
    assert split.test(4).tolist() == [1, 3]
    assert split.train(4).tolist() == [True, False, True, False, True]


def test_without_places_samples_are_divided_by_groups():
    groups = np.arange(60) // 2
    split = splits.blocked(np.full((60, 2), np.nan), groups, np.arange(60) % 3, size=100, folds=5)
    assert split.kind == "grouped"
    assert split.size is None
    assert np.array_equal(split.blocks, groups)
    same = splits.blocked(np.ones((60, 2)), groups, np.arange(60) % 3, size=None, folds=5)
    assert same.kind == "grouped"


def test_samples_without_a_place_are_their_own_blocks():
    rng = np.random.default_rng(0)
    lonlat = lonlat_of(*rng.uniform(0, 5000, (2, 100)))
    lonlat[90:] = np.nan
    split = splits.blocked(lonlat, np.arange(100), np.arange(100) % 2, size=1000, folds=5)
    assert len(np.unique(split.blocks[90:])) == 10
    assert not set(split.blocks[90:]) & set(split.blocks[:90])


def test_too_few_blocks_or_groups_are_an_error():
    lonlat = lonlat_of([0, 10, 20], [0, 10, 20])
    with pytest.raises(UsageError, match=r"lie in \d blocks of 5e\+06 m, too few for 5 folds. Give smaller blocks"):
        splits.blocked(lonlat, np.arange(3), np.arange(3), size=5e6, folds=5)
    with pytest.raises(UsageError, match="There are 2 groups, too few for 3 folds"):
        splits.grouped(np.array([4, 4, 9]), np.arange(3), 3)
    with pytest.raises(UsageError, match="test samples only"):
        splits.given(np.ones(3, bool), np.arange(3))
    with pytest.raises(UsageError, match="training samples only"):
        splits.given(np.zeros(3, bool), np.arange(3))
    with pytest.raises(UsageError, match="one region"):
        splits.regions(np.zeros(3, int))


def test_random_folds_share_every_class_and_know_no_order():
    rng = np.random.default_rng(0)
    classes, keys = rng.integers(0, 3, 1000), rng.integers(0, 2**60, 1000)
    split = splits.random(classes, 5, seed=3, keys=keys)
    for one in range(3):
        assert np.ptp(np.bincount(split.folds[classes == one], minlength=5)) <= 1
    order = rng.permutation(1000)
    assert np.array_equal(splits.random(classes[order], 5, seed=3, keys=keys[order]).folds, split.folds[order])
    values = splits.random(rng.normal(size=1000), 4)
    assert np.bincount(values.folds).tolist() == [250] * 4


def test_given_splits_and_regions():
    split = splits.given(np.array([True, False, True]), np.array([5, 6, 7]))
    assert split.count == 1
    assert split.test(9).tolist() == [0, 2]
    assert split.train(9).tolist() == [False, True, False]
    region = splits.regions(np.array([40, 20, 40, 30]))
    assert region.count == 3
    assert region.folds.tolist() == [2, 0, 2, 1]
    assert splits.regions(np.array([40, 20]), np.array([1, 2])).blocks.tolist() == [1, 2]


# --- leaks ------------------------------------------------------------------------------------------------------------


def sound(n=200):
    """Test samples far from the training samples, and nothing in common."""
    rng = np.random.default_rng(0)
    test = np.arange(n) % 2 == 0
    lonlat = lonlat_of(rng.uniform(0, 1000, n) + 50_000 * test, rng.uniform(0, 1000, n))
    x = rng.normal(size=(n, 5)).astype(np.float32)
    return splits.given(test, np.arange(n)), {"a": x, "b": x + 1}, lonlat, np.arange(n)


def test_a_sound_split_is_not_warned_about():
    split, features, lonlat, groups = sound()
    assert leaks(split, features=features, lonlat=lonlat, groups=groups, reach=3000) == ()
    assert leaks(split, features=features, lonlat=np.full_like(lonlat, np.nan), groups=groups, reach=3000) == ()


def test_each_leak_is_named():
    split, features, lonlat, groups = sound()
    features["b"][0] = features["b"][1] = 0
    features["b"][0, 2] = -0.0
    (line,) = leaks(split, features=features, lonlat=lonlat, groups=groups)
    assert line.startswith("1 of 100 test samples have exactly the features (b) of a training sample")

    split, features, lonlat, groups = sound()
    lonlat[[0, 2]] = lonlat[1]
    (line,) = leaks(split, features=features, lonlat=lonlat, groups=groups)
    assert line.startswith("2 of 100 test samples lie at the place of a training sample")

    split, features, lonlat, groups = sound()
    (line,) = leaks(split, features=features, lonlat=lonlat, groups=groups // 2)
    assert line.startswith("100 groups lie on both sides")

    split, features, lonlat, groups = sound()
    near = splits.random(np.zeros(200, int))
    (line,) = leaks(
        splits.Split("given", near.folds, near.blocks), features=features, lonlat=lonlat, groups=groups, reach=3000
    )
    assert "labels resemble each other up to 3000 m" in line
    assert leaks(near, features=features, lonlat=lonlat, groups=groups, reach=3000) == ()  # known to leak


@pytest.mark.parametrize(("columns", "lines"), [(1, 0), (3, 0), (4, 1)])
def test_few_columns_of_equal_values_are_no_leak(columns, lines):
    """One band of a few values, and sets that do not vary, are alike by nature."""
    split, _, lonlat, groups = sound()
    flat = np.ones((200, 6), np.float32)
    flat[:, :columns] = np.arange(200)[:, None] // 2
    assert len(leaks(split, features={"flat": flat}, lonlat=lonlat, groups=groups)) == lines


def test_blocks_of_ground_do_not_leak():
    rng = np.random.default_rng(0)
    lonlat = lonlat_of(*rng.uniform(0, 10_000, (2, 2000)))
    split = splits.blocked(lonlat, np.arange(2000), rng.integers(0, 2, 2000), size=1000, folds=5)
    x = rng.normal(size=(2000, 3)).astype(np.float32)
    assert leaks(split, features={"x": x}, lonlat=lonlat, groups=np.arange(2000)) == ()


def test_random_pixels_inside_fields_against_blocks():
    """Features that name the field, and classes dealt to fields by chance: memory is worth nothing, but looks so."""
    from tessera_cli.learning.adapters import fit

    rng = np.random.default_rng(1)
    fields = np.repeat(np.arange(60), 20)
    classes = rng.integers(0, 2, 60)[fields]
    x = (rng.normal(size=(60, 40))[fields] + 0.01 * rng.normal(size=(1200, 40))).astype(np.float32)
    lonlat = lonlat_of(
        500 * (fields % 10) + rng.uniform(0, 400, 1200), 500 * (fields // 10) + rng.uniform(0, 400, 1200)
    )
    right = []
    for split in (splits.random(classes), splits.blocked(lonlat, fields, classes, size=500, folds=5)):
        train, test = split.train(0), split.test(0)
        fitted = fit("knn", "classification", x[train], classes[train], fields[train], classes=2, seed=0)
        right.append((fitted.predict(x[test]) == classes[test]).mean())
    assert right[0] > right[1] + 0.2
