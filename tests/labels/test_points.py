"""Points as labels: the pixel under each, on grids that begin anywhere."""

from pathlib import Path

import numpy as np
import pytest
import rasterio.transform
import shapely
from affine import Affine

from tessera_cli.errors import UsageError
from tessera_cli.extent.grid import from_utm, to_utm
from tessera_cli.labels.points import PointLabels
from tessera_cli.labels.vector import read_labels
from tests.helpers.vectors import write_layer
from tests.pretraining.test_evaluation import write_geojson

EAST, NORTH = 600000, 5620000


def points(x, y, values, epsg=32631):
    lonlat = np.stack(from_utm(epsg).transform(x, y), axis=1)
    values = np.asarray(values)
    return PointLabels(lonlat, values, tuple("abcdef"), "classification")


@pytest.mark.parametrize("phase", [(0, 0), (3, 7)])
@pytest.mark.parametrize("epsg", [32631, 32632])
def test_the_pixel_under_each_point_is_the_one_that_rasterio_finds(phase, epsg):
    """Also in a neighbouring zone, whose grid is turned against that of the points."""
    rng = np.random.default_rng(0)
    left, top = to_utm(epsg).transform(*from_utm(32631).transform(EAST, NORTH))
    left, top = (round(each, -1) + shift for each, shift in zip((left, top), phase, strict=True))
    transform = Affine(10, 0, left, 0, -10, top)
    x, y = EAST + rng.uniform(0, 400, 300), NORTH - rng.uniform(0, 400, 300)
    labels = points(x, y, np.arange(300) % 2)
    rows, columns = (each.ravel() for each in np.mgrid[:40, :40])
    centres = np.stack([left + 10 * columns + 5, top - 10 * rows - 5], axis=1)
    places = np.column_stack([np.full(1600, epsg), np.floor(centres).astype(int)])
    there = to_utm(epsg).transform(*labels.lonlat.T)
    due = {}
    for number, (row, column) in enumerate(zip(*rasterio.transform.rowcol(transform, *there), strict=True)):
        if 0 <= row < 40 and 0 <= column < 40:
            due.setdefault(row * 40 + column, []).append(number)
    whole = {pixel: held for pixel, held in due.items() if len({each % 2 for each in held}) == 1}
    assert 100 < len(whole) < len(due)
    hits = labels.at(places)
    assert hits.numbers.tolist() == sorted(whole)
    assert hits.parcels.tolist() == [whole[each][0] for each in sorted(whole)]
    assert (hits.values == hits.parcels % 2).all()


def test_pixels_of_two_windows_have_the_same_label_and_unknown_places_none():
    place = [32631, EAST + 5, NORTH + 5]
    hits = points([EAST + 5.0], [NORTH + 5.0], [3]).at(np.array([place, [0, 5, 5], place, [-1, 5, 5]]))
    assert (hits.numbers.tolist(), hits.values.tolist()) == ([0, 2], [3, 3])
    assert not len(points([EAST + 5.0], [NORTH + 5.0], [3]).at(np.empty((0, 3), int)).numbers)


def test_on_a_border_a_point_belongs_to_the_east_and_the_south():
    square = np.array([[32631, EAST + dx, NORTH + dy] for dy in (5, -5) for dx in (-5, 5)])
    labels = points([float(EAST)], [float(NORTH)], [1])
    # where no rounding of degrees moves it
    object.__setattr__(labels, "lonlat", np.array(from_utm(32631).transform(EAST + 1e-6, NORTH - 1e-6))[None])
    assert labels.at(square).numbers.tolist() == [3]


def test_files_of_points(tmp_path: Path):
    spots = [shapely.Point(4.4 + n / 100, 50.7) for n in range(4)]
    path = write_geojson(tmp_path / "p.geojson", spots, crop=["a", "b", None, "a"])
    found = read_labels(path)
    assert isinstance(found, PointLabels)
    assert [found.name(int(each)) for each in found.values] == ["a", "b", "a"]
    np.testing.assert_allclose(found.places(np.array([1]))[0, 1:], to_utm(32631).transform(4.41, 50.7))
    write_layer(tmp_path / "two.gpkg", "one", spots, kind="Point", crop=list("abab"))
    write_layer(tmp_path / "two.gpkg", "other", spots, kind="Point", crop=list("abab"))
    with pytest.raises(UsageError, match="several layers of points: one, other"):
        read_labels(tmp_path / "two.gpkg")
    assert isinstance(read_labels(tmp_path / "two.gpkg", layer="one"), PointLabels)
    mixed = write_geojson(tmp_path / "m.geojson", [spots[0], spots[1].buffer(0.001)], crop=["a", "b"])
    with pytest.raises(UsageError, match=r"holds a Point \(feature 1\); an area is needed"):
        read_labels(mixed)
