"""The page of `tessera change` in headless Chromium, without a network."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio

import tessera_cli as tessera_api
from tessera_cli.extent.grid import Tile
from tests.consumers.pages import visited
from tests.helpers.landscapes import YEARS, put

TILE = Tile(32631, 112, 1098)
HOLE = np.ones((512, 512), bool)
HOLE[:, :100] = False

HELPERS = """
def colour_at(column, row):
    "Red, green, blue of the canvas where a pixel of the picture is drawn."
    return page.evaluate('''([column, row]) => {
      const from = canvas, sharp = devicePixelRatio, copy = document.createElement("canvas");
      [copy.width, copy.height] = [from.width, from.height];
      copy.getContext("2d").drawImage(from, 0, 0);
      const [x, y] = [(view.x + (column + .5) * view.scale) * sharp, (view.y + (row + .5) * view.scale) * sharp];
      return [...copy.getContext("2d").getImageData(x, y, 1, 1).data.slice(0, 3)];
    }''', [column, row])

told["size"] = page.evaluate("[data.width, data.height]")
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("change") / "delft"
    for window in YEARS:
        put(folder, TILE, window, dims=8, requested=HOLE)
    return tessera_api.change(folder, out=folder.parent / "out", rate=0.2)


@pytest.fixture
def visit(consumer, made):
    return lambda steps: visited(consumer, made.page, HELPERS, steps)


def raster(made, name: str) -> np.ndarray:
    (path,) = (file for file in made.files if file.name.endswith(f"_{name}.tif"))
    with rasterio.open(path) as file:
        return file.read()


def test_what_has_changed_is_marked(visit, made):
    z, changed = raster(made, "scores")[4], raster(made, "changed")[0]
    assert 100 < (changed == 1).sum() < 100_000
    inside = np.zeros_like(changed, bool)
    inside[60:-60, 20:-60] = True  # not under what is written over it
    spots = [
        np.argwhere((changed == value) & inside & (np.abs(z - made.about["z_score"]) > 0.2))[7] for value in (1, 0)
    ]
    told = visit(f"""
(marked, plain), told["marks"] = {[each[::-1].tolist() for each in spots]}, {{}}
told["steps"] = page.evaluate("Array.from(scores)")
told["chosen"] = page.locator("#chosen").text_content()
told["marked"] = [colour_at(*marked), colour_at(*plain)]
page.locator("[name=layer][value='2']").check()
told["hidden"] = [colour_at(*marked), colour_at(*plain)]
page.locator("[name=layer][value='1']").check()
told["legend"] = page.locator("#legend").is_visible()
page.locator("[name=layer][value='0']").check()
page.locator("#least").fill("250")
told["none"] = [colour_at(*marked), page.locator("#chosen").text_content()]
page.screenshot(path=sys.argv[1] + ".png", full_page=True)
""")
    height, width = z.shape
    assert told["size"] == [width, height]
    steps = np.array(told["steps"]).reshape(height, width)
    assert ((steps == 0) == np.isnan(z)).all()
    there = steps > 0
    np.testing.assert_allclose((steps[there] - 1) / 10 - 2, z[there].clip(-2, 23.4), atol=0.1001)
    assert told["marked"][0] == [213, 62, 79]
    assert told["marked"][1] != [213, 62, 79]
    assert told["hidden"][0] != [213, 62, 79]
    assert told["none"][0] != [213, 62, 79]
    share = float(told["chosen"].partition("(")[2].partition(" %")[0]) / 100
    assert share == pytest.approx((changed == 1).sum() / there.sum(), rel=0.15)
    assert told["legend"]


def test_it_is_swiped_and_patches_are_looked_at(visit, made):
    told = visit("""
page.locator("[name=layer][value='2']").check()
middle = [data // 2 for data in told["size"]]
page.locator("#swipe").fill("1000")
told["before"] = colour_at(*middle)
page.locator("#swipe").fill("0")
told["after"] = colour_at(*middle)
page.locator("#picture").focus()
for _ in range(9):
    page.keyboard.press("]")
told["again"] = colour_at(*middle)
told["patches"] = page.locator("#patches li").count()
page.locator("#patches button").first.click()
told["looked"] = page.evaluate("({...chosen, x: (canvas.clientWidth / 2 - view.x) / view.scale})")
""")
    assert told["before"] == told["again"] != told["after"]
    assert told["patches"] == min(40, made.about["patches"]) > 0
    assert told["looked"]["x"] == pytest.approx((told["looked"]["left"] + told["looked"]["right"]) / 2, abs=1)
