"""The look: colours that everybody tells apart, those of the pages, and nobody's matplotlib settings but ours."""

import itertools
import re
import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pytest

from tessera_cli.errors import UsageError
from tessera_cli.figures.curves import Curve, curves
from tessera_cli.figures.style import ROLES, SERIES, plain, style
from tessera_cli.pages.document import THEME

LIGHT, DARK = (
    dict(re.findall(r"--(\w+): (#[0-9a-f]{3,6})", part)) for part in THEME.split("prefers-color-scheme: dark", 1)
)
SIGHT = {  # Machado et al. 2009, severity 1, on linear RGB
    "all cones": np.eye(3),
    "no red cones": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "no green cones": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]
    ),
}


def linear(colour):
    full = colour if len(colour) == 7 else "#" + "".join(2 * digit for digit in colour[1:])
    values = np.array([int(full[start : start + 2], 16) for start in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ np.clip(rgb, 0, 1) / np.array([0.9505, 1, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("sight", SIGHT)
def test_series_are_told_apart_whatever_one_sees(theme, sight):
    seen = [lab(SIGHT[sight] @ linear(theme[name])) for name in SERIES]
    apart = [np.linalg.norm(a - b) for a, b in itertools.combinations(seen[:4], 2)]
    assert min(apart) > 15  # CIELAB; 2 is what an eye just sees
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 9


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_everything_stands_out_from_its_ground(theme):
    def light(name):
        return float(np.array([0.2126, 0.7152, 0.0722]) @ linear(theme[name]))

    for name, least in [("ink", 7), ("soft", 4.5), *((name, 2.7) for name in (*SERIES, "bad", "good"))]:
        low, high = sorted([light(name), light("card")])
        assert (high + 0.05) / (low + 0.05) > least, name


def test_the_colours_drawn_are_those_of_the_light_page():
    assert {name: LIGHT[name] for name in ROLES} | {"card": "#ffffff"} == ROLES
    assert set(ROLES) <= set(DARK)
    assert len(set(ROLES.values())) == len(ROLES)  # a page finds each by its value


def test_what_the_user_has_set_neither_counts_nor_changes(monkeypatch):
    first = curves("a", [Curve("b", [(0, 1), (1, 2)])])
    monkeypatch.setitem(mpl.rcParams, "font.size", 31)
    monkeypatch.setitem(mpl.rcParams, "axes.facecolor", "black")
    monkeypatch.setitem(mpl.rcParams, "svg.fonttype", "path")
    before = dict(mpl.rcParams)
    second = curves("a", [Curve("b", [(0, 1), (1, 2)])])
    assert second.svg() == first.svg()
    assert second.png() == first.png()
    assert dict(mpl.rcParams) == before


def test_text_of_others_is_one_line_that_can_be_drawn():
    assert plain("a\x00b\nc") == r"a\x00b\nc"
    assert len(plain("x" * 1000)) == 60
    assert plain("\ud800") == r"\ud800"


def test_without_matplotlib_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match=r'pip install "tessera-embed\[evaluate\]"'), style():
        pass


def test_modules_are_imported_without_matplotlib():
    names = "curves intervals matrix places histogram picture"
    code = (
        f"import sys, importlib\nfor name in '{names}'.split(): importlib.import_module('tessera_cli.figures.' + name)"
    )
    code += "\nprint('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_no_figure_is_left_with_pyplot():
    code = (
        "import sys\nfrom tessera_cli.figures.curves import Curve, curves\n"
        "curves('a', [Curve('b', [(0, 1)])]).png()\nprint('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
