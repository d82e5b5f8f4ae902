"""The page of `tessera search` in headless Chromium, without a network."""

from __future__ import annotations

import base64
import json
import re
import zlib
from pathlib import Path

import numpy as np
import pytest

import tessera_cli as tessera_api
from tessera_cli.extent.grid import Tile
from tests.consumers.pages import visited
from tests.helpers.landscapes import put

TILES = [Tile(32631, 112 + column, 1098 - row) for row in range(2) for column in range(2)]
SIDE = 1024
"""Rows and columns of the page: a million pixels."""
HOLE = np.ones((512, 512), bool)
HOLE[100:140, 200:260] = False
"""Of the first tile."""

HELPERS = """
told["took"] = []

def spot(column, row):
    "Where a pixel of the picture lies in the window."
    box, view = page.locator("#picture").bounding_box(), page.evaluate("({...view})")
    return box["x"] + view["x"] + column * view["scale"], box["y"] + view["y"] + row * view["scale"]

def click(column, row):
    page.mouse.click(*spot(column, row))

def searched(action):
    "Do it, wait until the map is drawn, and note how many milliseconds pass between the event and the picture."
    page.evaluate('''() => {
      const before = performance.now();
      window.drawn = new Promise((done) => canvas.addEventListener("pointerup", () => {
        const began = performance.now();
        requestAnimationFrame(() => setTimeout(() => done(performance.now() - began)));
      }, { once: true, capture: true }));
    }''')
    action()
    told["took"].append(page.evaluate("window.drawn"))
    return page.evaluate("Array.from(similarity.filter((_, i) => i % 331 === 0))")

def examples():
    return page.evaluate("examples.map(({ column, row, like }) => [column, row, like])")

def saved(button):
    with page.expect_download() as waiting:
        page.locator(button).click()
    return json.loads(open(waiting.value.path()).read()), waiting.value.suggested_filename
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("search") / "delft"
    for number, tile in enumerate(TILES):
        put(made, tile, dims=24, requested=HOLE if number == 0 else None, note="</script><script>alert(1)</script>")
    return made


@pytest.fixture(scope="module")
def page(folder: Path) -> Path:
    return tessera_api.search(folder, out=folder.parent / "found").page


@pytest.fixture
def visit(consumer):
    return lambda page, steps: visited(consumer, page, HELPERS, steps)


def codes_of(page: Path) -> np.ndarray:
    """Unit vectors of the page's codes, float64 (pixels, 16); NaN where there is none."""
    data = json.loads(re.search(r'id="data">(.*?)</script>', page.read_text(), re.DOTALL)[1])
    planes = [np.frombuffer(zlib.decompress(base64.b64decode(each)), np.int8) for each in data["planes"]]
    assert (data["width"], data["height"]) == (SIDE, SIDE)
    codes = np.stack(planes, axis=-1).astype(np.float64)
    with np.errstate(invalid="ignore"):
        return codes / np.linalg.norm(codes, axis=1, keepdims=True)


def due(codes: np.ndarray, examples: list) -> np.ndarray:
    rows = {
        like: [codes[int(row) * SIDE + int(column)] for column, row, is_like in examples if is_like == like]
        for like in (True, False)
    }
    query = np.mean(rows[True], axis=0) - (0.25 * np.mean(rows[False], axis=0) if rows[False] else 0)
    return (codes @ (query / np.linalg.norm(query)))[::331]


def test_a_click_shows_what_is_like_it(visit, page):
    told = visit(
        page,
        """
told["first"] = searched(lambda: click(300, 400))
told["examples"] = [examples()]
told["second"] = searched(lambda: click(700, 620))
told["examples"].append(examples())
page.locator("[name=mode][value='1']").check()
told["third"] = searched(lambda: click(800, 100))
told["examples"].append(examples())
click(230, 120)
told["hole"] = [len(examples()), page.locator("#said").text_content()]
page.screenshot(path=sys.argv[1] + ".png")
x, y = spot(300.5, 400.5)
page.mouse.move(x, y)
told["where"] = page.locator("#where").text_content()
page.locator("#examples button").nth(2).click()
told["back"] = page.evaluate("Array.from(similarity.filter((_, i) => i % 331 === 0))")
page.locator("#clear").click()
told["none"] = [len(examples()), page.evaluate("map === null")]
""",
    )
    codes = codes_of(page)
    for name, marked in zip(("first", "second", "third"), told["examples"], strict=True):
        found = np.array(told[name], float)
        expected = due(codes, marked)
        assert (np.isnan(found) == np.isnan(expected)).all()
        assert np.isnan(found).any()
        np.testing.assert_allclose(found, expected, atol=1e-3)
        assert np.nanmin(found) < 0.5
    assert [len(each) for each in told["examples"]] == [1, 2, 3]
    assert told["hole"] == [3, "There is no embedding at that place."]
    assert "similarity 0." in told["where"]
    assert told["back"] == told["second"]
    assert told["none"] == [0, True]
    assert max(told["took"]) < 300, told["took"]


def test_what_is_coloured_is_the_share(visit, page):
    told = visit(
        page,
        """
searched(lambda: click(300, 400))
for place in (100, 200, 300):
    page.locator("#share").fill(str(place))
    told[str(place)] = page.evaluate('''() => {
      const least = Math.min(leastOf(share()), most - 1e-6);
      const table = new Set(Array.from({ length: 256 }, (_, i) => colour(i / 255).join()));
      const pixels = sheet.data;
      let coloured = 0, there = 0;
      for (let i = 0; i < size; i++) {
        if (!pixels[4 * i + 3]) continue;
        there++;
        if (similarity[i] >= least && table.has([...pixels.slice(4 * i, 4 * i + 3)].join())) coloured++;
      }
      return coloured / there;
    }''')
told["end"] = page.locator("#coloured").text_content()
page.mouse.click(*spot(500, 500), button="right")
told["examples"] = len(examples())
page.locator("[name=layer][value='1']").check()
told["legend"] = page.locator("#legend").is_visible()
""",
    )
    assert told["100"] == pytest.approx(0.01, rel=0.1)
    assert told["200"] == pytest.approx(0.1, rel=0.1)
    assert told["300"] == 1
    assert told["end"] == "100 %"
    assert told["examples"] == 1
    assert not told["legend"]


def test_labels_drawn_are_labels_of_a_map(visit, page, folder, tmp_path):
    told = visit(
        page,
        """
page.locator("[name=mode][value='2']").check()
fields = [("wheat", 100, 600), ("maize", 500, 600), ("wheat", 800, 300), ("maize", 300, 900)]
for name, column, row in fields:
    page.locator("#class").fill(name)
    for dx, dy in ((0, 0), (60, 0), (60, 50), (0, 50)):
        click(column + dx, row + dy)
    if column == 100:
        click(column, row)  # closes it
    else:
        page.locator("#picture").press("Enter")
click(700, 700)
page.locator("#picture").press("Enter")  # one pixel
click(10, 10)
page.locator("#undo").click()
told["count"] = page.locator("#labels li").count()
told["saved"], told["name"] = saved("#save")
page.locator("[name=mode][value='0']").check()
searched(lambda: click(300, 400))
page.locator("[name=mode][value='1']").check()
searched(lambda: click(700, 400))
told["like"], told["unlike"] = saved("#save-like")[0], saved("#save-unlike")[0]
told["examples"] = examples()
""",
    )
    assert told["count"] == 5
    assert told["name"] == "labels.geojson"
    labels = tmp_path / "labels.geojson"
    labels.write_text(json.dumps(told["saved"]))
    made = tessera_api.map(folder, labels=labels, out=tmp_path / "map.tif", adapter="knn")
    assert [each["name"] for each in made.about["classes"]] == ["maize", "wheat"]
    assert made.about["labels"]["parcels"] == 5
    assert 2 * 60 * 50 * 0.9 < made.about["classes"][1]["samples"] < 2 * 60 * 50 * 1.1
    for shape in told["saved"]["features"]:
        ring = np.array(shape["geometry"]["coordinates"][0])
        assert (ring[0] == ring[-1]).all()
        assert ((ring[1:, 0] - ring[:-1, 0]) * (ring[1:, 1] + ring[:-1, 1])).sum() < 0  # counterclockwise
    for name in ("like", "unlike"):
        (tmp_path / f"{name}.geojson").write_text(json.dumps(told[name]))
    files = {name: tmp_path / f"{name}.geojson" for name in ("like", "unlike")}
    again = tessera_api.search(folder, out=tmp_path / "again", **files)
    assert (again.about["examples"]["like"], again.about["examples"]["unlike"]) == (1, 1)
    shown = visit(again.page, "told['examples'] = examples()")
    np.testing.assert_allclose(np.array(shown["examples"], float), np.array(told["examples"], float), atol=0.02)


def test_it_is_used_by_keys_alone(visit, page):
    told = visit(
        page,
        """
page.locator("#picture").focus()
page.keyboard.press("Enter")
told["one"] = examples()
page.keyboard.press("ArrowRight")
page.keyboard.press("Enter")
told["two"] = examples()
page.keyboard.press("Backspace")
told["less"] = examples()
""",
    )
    assert len(told["one"]) == 1
    assert told["one"][0][:2] == pytest.approx([SIDE / 2, SIDE / 2], abs=1.5)
    assert told["two"][1][0] > told["two"][0][0] + 50
    assert told["less"] == told["one"]
