"""The other kinds of figures: intervals, confusion matrices, maps, histograms."""

import math
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from tessera_cli.figures.curves import Level
from tessera_cli.figures.histogram import histogram
from tessera_cli.figures.intervals import Dot, intervals
from tessera_cli.figures.matrix import matrix
from tessera_cli.figures.places import MOST_DRAWN, amounts, categories


def texts(picture):
    return [text.text for text in ET.fromstring(picture.svg()).iter("text")]


def test_intervals_lie_at_their_values_a_row_each():
    rows = [
        ("a", [Dot(1.0, 0.5, 1.5, 0), Dot(2.0, None, None, 1)]),
        ("b", [Dot(math.nan, 0, 1)]),
        ("c", [Dot(3, 2, 4)]),
    ]
    picture = intervals("t", rows, "measure", kinds=["ridge", "forest"], zero=True)
    (plot,) = picture.figure.axes
    dots = [line.get_xydata().tolist() for line in plot.lines if line.get_gid() == "dot"]
    values = [dot[0][0] for dot in dots if len(dot) == 1]
    ends = [[place[0] for place in dot] for dot in dots if len(dot) == 2]
    assert values == [1.0, 2.0, 3]
    assert ends == [[0.5, 1.5], [2, 4]]
    assert [label.get_text() for label in plot.get_yticklabels()] == ["a", "c"]
    assert {"ridge", "forest", "measure"} <= set(texts(picture))
    assert plot.get_xlim()[0] < 0  # the line where nothing differs is within
    assert intervals("t", [("a", [])], "measure") is None


def test_a_matrix_shows_counts_and_shares_of_rows():
    counts = np.array([[30, 10, 0], [0, 5, 0], [0, 0, 0]])
    picture = matrix("t", counts, ("$a$ <b>", "b_1", "never seen"))
    said = texts(picture)
    assert {"30", "10", "5", "$a$ <b>", "b_1", "never seen", "true", "predicted"} <= set(said)
    assert said.count("$a$ <b>") == 2
    (plot,) = picture.figure.axes
    shown = {(patch.get_x() + 0.5, patch.get_y() + 0.5): patch.get_alpha() for patch in plot.patches}
    assert set(shown) == {(0, 0), (1, 0), (1, 1)}  # column, row: rows are true classes
    assert shown[0, 0] == pytest.approx(0.06 + 0.94 * 0.75)
    assert shown[1, 1] == 1


@pytest.mark.parametrize("size", [2, 20, 60])
def test_matrices_of_any_size(size):
    counts = np.arange(size * size).reshape(size, size)
    said = texts(matrix("t", counts, tuple(f"class {n}" for n in range(size))))
    assert ("class 1" in said) == (size <= 40)
    assert (str(size * size - 1) in said) == (size <= 16)


GRID = np.array([[4.0 + 0.01 * x, 51 + 0.005 * y] for y in range(20) for x in range(10)])


def points(picture):
    return np.concatenate([np.asarray(drawn.get_offsets()) for drawn in picture.figure.axes[0].collections])


def test_places_are_drawn_where_they_are_and_counted_by_group():
    group = np.arange(200) % 3
    group[:5] = -1
    lonlat = GRID.copy()
    lonlat[5] = np.nan
    picture = categories("t", lonlat, group, ["one", "two $x$", "three"])
    np.testing.assert_allclose(np.sort(points(picture), axis=0), np.sort(lonlat[6:], axis=0))
    counted = {f"{name} ({(group[6:] == n).sum()})" for n, name in enumerate(["one", "two $x$", "three"])}
    assert counted <= set(texts(picture))
    assert categories("t", np.full((3, 2), np.nan), np.zeros(3, int), ["one"]) is None


def test_maps_keep_the_shape_of_the_ground():
    picture = categories("t", GRID, np.zeros(200, int), ["one"])
    (plot,) = picture.figure.axes
    (x, y) = plot.transData.transform([[4.0, 51.05], [4.01, 51.06]]).T
    assert (x[1] - x[0]) / (y[1] - y[0]) == pytest.approx(math.cos(math.radians(51.0475)), rel=1e-3)


def test_places_on_both_sides_of_the_antimeridian_lie_side_by_side():
    lonlat = np.array([[179.9, -17.0], [-179.9, -17.0], [180.0, -17.1]])
    picture = categories("t", lonlat, np.zeros(3, int), ["one"])
    np.testing.assert_allclose(points(picture)[:, 0], [179.9, 180.1, 180.0])
    assert any(str(text).endswith(" W") for text in texts(picture))


@pytest.mark.parametrize("count", [1, MOST_DRAWN, MOST_DRAWN + 1])
def test_many_places_are_painted(count):
    lonlat = np.column_stack([np.linspace(4, 5, count), np.linspace(51, 52, count)])
    for picture in (
        categories("t", lonlat, np.zeros(count, int), ["one"]),
        amounts("t", lonlat, np.linspace(-1, 2, count), "error"),
    ):
        svg = picture.svg()
        assert ("data:image/png;base64," in svg) == (count > MOST_DRAWN or "error" in texts(picture))
        assert len(svg) < 500_000


def test_amounts_have_colours_from_a_neutral_0():
    picture = amounts("t", GRID, np.linspace(-3, 3, 200), "error $")
    (drawn,) = picture.figure.axes[0].collections
    low, high = drawn.get_clim()
    assert low == -high
    assert 2.9 < high <= 3
    assert (np.diff(np.abs(drawn.get_array())) >= 0).all()  # the largest lie on top
    assert "error $" in texts(picture)
    assert amounts("t", GRID, np.full(200, np.nan), "error") is None
    assert amounts("t", GRID, np.zeros(200), "error") is not None


def test_a_histogram_counts_all_values():
    values = np.array([0.0, 0.1, 0.1, 0.9, math.nan, 1.0])
    picture = histogram("t", values, "error", [Level("mean", 0.42, "bad")])
    (plot,) = picture.figure.axes
    assert sum(patch.get_height() for patch in plot.patches) == 5
    assert {"error", "mean", "samples"} <= set(texts(picture))
    assert histogram("t", np.array([math.nan]), "error") is None
