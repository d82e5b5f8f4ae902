"""The page of `tessera preview` in headless Chromium, without a network."""

from __future__ import annotations

import numpy as np
import pytest
import rasterio
from pyproj import Transformer

import tessera_cli as tessera_api
from tessera_cli.extent.grid import Tile
from tests.consumers.pages import visited
from tests.helpers.landscapes import YEARS, put

TILE = Tile(32631, 112, 1098)
REQUESTED = np.zeros((512, 512), bool)
REQUESTED[100:300, 50:300] = True
"""So the picture is 250 pixels wide and 200 high."""

HELPERS = """
def shown(what):
    page.wait_for_selector(f"html[data-shown='{what}']", state="attached", timeout=20_000)

def pixels():
    "The means of red, green, blue and alpha over the canvas; where nothing is drawn they are 0."
    return page.evaluate('''() => {
      const from = document.getElementById("picture"), c = document.createElement("canvas");
      [c.width, c.height] = [from.width, from.height];
      c.getContext("2d").drawImage(from, 0, 0);
      const all = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
      const sum = [0, 0, 0, 0];
      for (let i = 0; i < all.length; i++) sum[i % 4] += all[i];
      return sum.map((value) => value / (all.length / 4));
    }''')

def scale():
    return page.locator("#scale").text_content()

def where(x, y):
    "What the page says of a place of the picture, x and y from 0 to 1, when all of it is shown."
    fit = page.evaluate("({...view, width: data.width, height: data.height})")
    box = page.locator("#picture").bounding_box()
    page.mouse.move(1, 1)
    page.wait_for_function("!document.getElementById('where').textContent")
    page.mouse.move(box["x"] + fit["x"] + x * fit["width"] * fit["scale"],
                    box["y"] + fit["y"] + y * fit["height"] * fit["scale"])
    page.wait_for_function("document.getElementById('where').textContent")
    return page.locator("#where").text_content()

shown("0/0")
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("preview") / "field"
    for window in YEARS:
        put(folder, TILE, window, requested=REQUESTED, note='</script><script>document.title = "taken over"</script>')
    return tessera_api.preview(folder)


@pytest.fixture
def visit(consumer, made):
    return lambda steps: visited(consumer, made.page, HELPERS, steps, shown="data-shown")


def test_windows_and_counts_are_drawn(visit, made):
    told = visit("""
told["title"] = page.title()
told["first"] = pixels()
told["colours"] = page.locator("#colours").is_visible()
page.locator("[name=window][value='1']").check()
shown("1/0")
told["second"] = pixels()
for layer in (1, 2, 3):
    page.locator(f"[name=layer][value='{layer}']").check()
    shown(f"1/{layer}")
    told[f"colours {layer}"] = page.locator("#colours").is_visible()
    told[f"counts {layer}"] = [pixels(), page.locator("#most").text_content(), where(75.5 / 250, 140.5 / 200)]
told["status"] = page.locator("#said").text_content()
page.locator("#picture").focus()
page.keyboard.press("[")
shown("0/3")
told["earlier"] = pixels()
""")
    assert told["title"] == "field: TESSERA embeddings"
    for name, window in (("first", "2023"), ("second", "2024")):
        with rasterio.open(made.pictures[window]) as src:
            colours = src.read()
        share = told[name][3] / 255  # of the canvas
        assert 0.3 < share < 0.9
        assert np.allclose(np.array(told[name][:3]) / share, colours.mean(axis=(1, 2)), atol=1.5)
    assert np.abs(np.subtract(told["first"], told["second"])).max() > 0.5
    assert told["colours"]
    for layer in (1, 2, 3):
        assert not told[f"colours {layer}"]  # what principal components mean is not said of counts
        with rasterio.open(made.page.parent / f"{TILE.id}_2024_counts.tif") as src:
            value = src.read(layer)[100 + 140, 50 + 75]
        drawn, most, said = told[f"counts {layer}"]
        assert drawn[3] == pytest.approx(told["first"][3])
        assert said.endswith(f"{value} observations")
        assert int(most) >= value
    assert told["status"].startswith("Window 2024, observations of Radar descending")
    assert told["counts 3"][0][:3] != told["earlier"][:3]  # in 2024 there was none


def test_it_is_moved_and_zoomed(visit):
    told = visit("""
told["corner"] = where(0.5 / 250, 0.5 / 200)
told["scales"] = [scale()]
page.locator("#in").click()
page.locator("#in").click()
page.locator("#in").click()
told["scales"] += [scale()]
told["zoomed"] = page.evaluate("({...view})")
page.locator("#picture").focus()
page.keyboard.press("0")
told["fit"] = page.evaluate("({...view})")
told["scales"] += [scale()]
box = page.locator("#picture").bounding_box()
x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
page.mouse.move(x + 40, y - 20)
page.mouse.wheel(0, -500)
told["wheel"] = page.evaluate("({...view})")
page.mouse.down()
page.mouse.move(x + 70, y + 10)
page.mouse.up()
told["dragged"] = page.evaluate("({...view})")
page.keyboard.press("ArrowLeft")
told["keyed"] = page.evaluate("({...view})")
page.keyboard.press("0")
told["after"] = page.evaluate("({...view})")
fire = '''([kind, id, x, y]) => document.getElementById("picture").dispatchEvent(
    new PointerEvent(kind, {pointerId: id, clientX: x, clientY: y, pointerType: "touch"}))'''
page.evaluate("HTMLCanvasElement.prototype.setPointerCapture = () => {}")
page.evaluate(fire, ["pointerdown", 11, x - 20, y])
page.evaluate(fire, ["pointerdown", 12, x + 20, y])
page.evaluate(fire, ["pointermove", 12, x + 60, y])
page.evaluate(fire, ["pointerup", 11, x, y])
page.evaluate(fire, ["pointerup", 12, x, y])
told["pinched"] = page.evaluate("({...view})")
page.set_viewport_size({"width": 390, "height": 800})
page.wait_for_timeout(300)
told["narrow"] = page.evaluate("document.documentElement.scrollWidth")
""")
    fit, wheel, dragged = told["fit"], told["wheel"], told["dragged"]
    due = Transformer.from_crs(32631, 4326, always_xy=True).transform(*(TILE.transform * (50.5, 100.5)))
    lon, east, lat, north = told["corner"].split()
    assert (float(lon), float(lat)) == pytest.approx(due, abs=5e-5)  # pointers move by whole pixels of the screen
    assert (east, north) == ("E", "N")
    assert told["scales"][0] == told["scales"][2] == "200 m"
    assert told["scales"][1] == "100 m"
    assert told["zoomed"]["scale"] == pytest.approx(1.5**3 * fit["scale"])
    assert wheel["scale"] == pytest.approx(fit["scale"] * 1.0015**500, rel=1e-6)
    assert dragged["x"] - wheel["x"] == pytest.approx(30, abs=0.6)
    assert dragged["y"] - wheel["y"] == pytest.approx(30, abs=0.6)
    assert told["keyed"]["x"] > dragged["x"]
    assert told["after"] == fit
    assert told["pinched"]["scale"] == pytest.approx(2 * fit["scale"])
    assert told["narrow"] == 390  # nothing is wider than the screen
