"""Curves: where points lie, what axes say, and what is left out."""

import math
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from tessera_cli.figures.curves import MOST_POINTS, Axes, Curve, Level, curves


def parts(picture, gid):
    (plot,) = picture.figure.axes
    return [part for part in (*plot.lines, *plot.collections) if part.get_gid() == gid]


def labels(picture, along):
    """What an axis says within its limits -> where it says so."""
    (plot,) = picture.figure.axes
    low, high = sorted(getattr(plot, f"get_{along}lim")())
    axis = getattr(plot, f"{along}axis")
    places = [place for place in axis.get_majorticklocs() if low <= place <= high]
    return dict(zip(axis.get_major_formatter().format_ticks(places), places, strict=True))


def as_number(text):
    return float(text.replace(",", "").replace("\u2212", "-"))


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("low", [1e-6, 0.03, 0.97, 40, 123456])
@pytest.mark.parametrize("ratio", [1, 1.01, 3, 40, 1e5])
def test_axes_say_where_they_are_and_hold_all_points(low, ratio, log):
    values = low * np.array([1, ratio, ratio**0.5])
    picture = curves("a", [Curve("c", list(zip([300, 700, 1234], values, strict=True)))], axes=Axes(log_y=log))
    (line,) = parts(picture, "curve")
    np.testing.assert_array_equal(line.get_xydata(), np.column_stack([[300, 700, 1234], values]))
    (plot,) = picture.figure.axes
    bottom, top = plot.get_ylim()
    assert bottom <= values.min() <= values.max() <= top
    for along in ("x", "y"):
        said = labels(picture, along)
        assert len(said) >= 1 if log and ratio < 1.1 else len(said) >= 2
        for text, place in said.items():
            assert as_number(text) == pytest.approx(place, rel=1e-5, abs=1e-12)
            if log and along == "y" and ratio >= 40:
                assert f"{place:.0e}"[0] in "125"


def test_steps_are_whole():
    picture = curves("a", [Curve("c", [(1, 0.1), (2, 0.2), (3, 0.3)])])
    assert set(labels(picture, "x")) == {"0", "1", "2", "3"}


def test_shares_of_labels_on_a_logarithmic_axis():
    axes = Axes(x="labels", log_x=True, x_places=[(0.01, "1 %"), (0.1, "10 %"), (1.0, "100 %")])
    picture = curves("a", [Curve("c", [(0.01, 1), (0.1, 2), (1.0, 3), (0.0, 4)])], axes=axes)
    assert labels(picture, "x") == {"1 %": 0.01, "10 %": 0.1, "100 %": 1.0}
    (plot,) = picture.figure.axes
    across = plot.transData.transform([[0.01, 1], [0.1, 1], [1.0, 1]])[:, 0]
    assert across[1] - across[0] == pytest.approx(across[2] - across[1])


def test_what_cannot_be_drawn_is_left_out_and_its_band_with_it():
    points = [(1, 1.0), (2, math.nan), (3, 3.0), (math.inf, 4.0)]
    curve = Curve("c", points, band=[(0.5, 1.5), (0, 9), (2.5, 3.5), (0, 9)])
    picture = curves("a", [curve, Curve("empty", [(1, math.nan)])])
    (line,) = parts(picture, "curve")
    np.testing.assert_array_equal(line.get_xydata(), [[1, 1], [3, 3]])
    (band,) = parts(picture, "band")
    corners = band.get_paths()[0].vertices
    assert corners[:, 1].max() == 3.5
    assert curves("a", [Curve("empty", [(1, math.nan)])]) is None
    assert curves("a", [Curve("c", [(1, 0.0), (2, -1.0)])], axes=Axes(log_y=True)) is None


def test_a_band_may_lack_ends():
    curve = Curve("c", [(1, 1.0), (2, 2.0)], band=[(math.nan, math.nan), (1.5, 2.5)])
    assert "<path" in curves("a", [curve]).svg()


def test_levels_lie_at_their_value_and_within_the_axes():
    picture = curves("a", [Curve("c", [(0, 0.1), (9, 0.2)])], [Level("collapse", 0.5, "bad")], Axes(zero=True))
    (level,) = parts(picture, "level")
    assert set(level.get_ydata()) == {0.5}
    (plot,) = picture.figure.axes
    assert plot.get_ylim()[0] == 0
    assert plot.get_ylim()[1] >= 0.5


def test_long_curves_are_thinned_and_end_where_they_end():
    values = [(float(step), step / 5000) for step in range(1, 5001)]
    (line,) = parts(curves("a", [Curve("c", values)]), "curve")
    data = line.get_xydata()
    assert 400 < len(data) <= MOST_POINTS
    assert data[-1].tolist() == [5000, 1]
    assert list(line.get_markevery()) == [len(data) - 1]


def test_the_legend_names_curves_and_levels_as_they_are():
    names = ["$x_1$ & <b>", "a_b^2", r"\frac{1}{2}", "\u65b0"]
    lines = [Curve(name, [(0, n), (1, n)], f"c{n + 1}") for n, name in enumerate(names)]
    root = ET.fromstring(curves("t", lines, [Level("level $", 1.5, "bad")]).svg())
    assert {*names, "level $"} <= {text.text for text in root.iter("text")}
    bare = ET.fromstring(curves("t", lines, legend=False).svg())
    assert not {*names} & {text.text for text in bare.iter("text")}


def test_an_axis_that_is_given_is_kept():
    picture = curves("a", [Curve("c", [(0, 1), (1, 900)])], axes=Axes(y_range=(0, 10)))
    assert picture.figure.axes[0].get_ylim() == (0, 10)


def test_nothing_that_is_said_reaches_beyond_the_picture():
    lines = [Curve(f"features {n}", [(1000 * n, 1e-5 * n), (20000, 1e5)], f"c{n + 1}") for n in range(8)]
    picture = curves("a", lines, [Level("a level", 3.0, "good")], Axes(y="a measure", log_y=True))
    from matplotlib.text import Text

    whole = picture.figure.bbox
    for text in picture.figure.findobj(Text):
        if text.get_visible() and text.get_text():
            box = text.get_window_extent()
            if box.width and "tick" not in str(text.get_gid()):
                assert box.x0 >= whole.x0 - 1, text
                assert box.x1 <= whole.x1 + 1, text


def test_svg_stands_within_a_page():
    text = curves("A <title> & more", [Curve("c", [(0, 1), (1, 2)])]).svg()
    root = ET.fromstring(text)
    assert root.tag == "svg"
    assert root.get("aria-label") == "A <title> & more"
    assert "http" not in text
    assert not re.search(r"#[0-9a-f]{6}\b(?!-)", re.sub(r'(id="|href="#|url\(#)[^")]*', "", text))
    assert not list(root.iter("style"))
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    assert used == set(re.findall(r' id="([^"]*)"', text))
    other = curves("another", [Curve("c", [(0, 1), (1, 2)])]).svg()
    assert not used & set(re.findall(r' id="([^"]*)"', other))


def test_png_is_a_picture_on_white_with_nothing_about_its_maker(tmp_path):
    from matplotlib.image import imread

    data = curves("a", [Curve("c", [(0, 1), (1, 2)])]).png()
    path = tmp_path / "a.png"
    path.write_bytes(data)
    pixels = imread(path)
    assert pixels.shape[:2] == pytest.approx((520, 920), abs=1)  # old matplotlib rounds down
    assert (pixels[0, 0] == 1).all()
    assert pixels.min() < 0.5
    assert b"tEXt" not in data
