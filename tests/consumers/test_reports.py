"""The pages of `tessera evaluate` and `tessera pretrain` in headless Chromium, without a network."""

from __future__ import annotations

import pytest

from tessera_cli.evaluation.report.page import compose
from tessera_cli.pretraining.report.page import report
from tests.evaluation.example_report import classification, regression

VISIT = """
import json, sys
from playwright.sync_api import sync_playwright

told = {"messages": [], "requests": []}
with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
    context = browser.new_context(viewport={"width": 1200, "height": 900}, offline=True, color_scheme=sys.argv[2])
    page = context.new_page()
    page.on("console", lambda message: told["messages"].append(message.text))
    page.on("pageerror", lambda error: told["messages"].append(str(error)))
    page.on("request", lambda request: told["requests"].append(request.url))
    page.goto("file://" + sys.argv[1])
    told["titles"] = page.locator("figure > h3").all_text_contents()
    told["boxes"] = page.evaluate('''() => [...document.querySelectorAll("figure > svg")].map((svg) => {
      const outer = svg.getBoundingClientRect(), card = svg.parentElement.getBoundingClientRect();
      const said = [...svg.querySelectorAll("text")].map((text) => text.getBoundingClientRect());
      return {
        width: outer.width, height: outer.height, shapes: svg.querySelectorAll("path, use, image").length,
        beyond: said.filter((box) => box.left < card.left || box.right > card.right || box.top < card.top).length,
        ids: [...svg.querySelectorAll("use")].filter((use) => !document.querySelector(use.getAttribute("href"))).length,
      };
    })''')
    told["colours"] = page.evaluate('''() => {
      const curve = document.querySelector("figure > svg path[style*='--c1']");
      const text = document.querySelector("figure > svg text");
      return [getComputedStyle(curve).stroke, getComputedStyle(text).fill, getComputedStyle(document.body).color];
    }''')
    told["wide"] = page.evaluate("document.documentElement.scrollWidth")
    for unfolded in page.locator("summary").all():
        unfolded.click()
    page.set_viewport_size({"width": 390, "height": 800})
    told["narrow"] = page.evaluate("document.documentElement.scrollWidth")
    told["least"] = page.evaluate('''() => Math.min(...[...document.querySelectorAll("figure > svg text")]
      .map((text) => text.getBoundingClientRect()).map((box) => Math.max(box.height, box.width))
      .filter((size) => size > 0))''')
    browser.close()
print(json.dumps(told))
"""


def trained() -> str:
    rows = [
        {"kind": "train", "step": step, "loss": 40 + 100 / step, "offdiag_rms": 0.2, "lr": 1e-3}
        for step in range(1, 300)
    ]
    return report(rows, {"model": {"name": "an_encoder $x$"}}, {"Data": "x" * 300})


def long_names() -> dict:
    found = classification()
    found["verdicts"].append("x" * 400)
    found["inputs"] = {"embeddings": "/".join(["a_long_name_of_a_folder"] * 20)}
    return found


PAGES = {
    "classification": lambda: compose(classification()).html,
    "long names": lambda: compose(long_names()).html,
    "regression": lambda: compose(regression()).html,
    "pretraining": trained,
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", PAGES)
def test_a_report_opens_and_shows_its_figures(consumer, tmp_path, kind, scheme):
    path = tmp_path / "report.html"
    path.write_text(PAGES[kind]())
    told = consumer("browser", VISIT, path, scheme)
    assert told["messages"] == []
    assert [url for url in told["requests"] if not url.startswith("data:image/png")] == [path.as_uri()]
    assert len(told["titles"]) == len(told["boxes"]) >= 3
    for title, box in zip(told["titles"], told["boxes"], strict=True):
        assert box["width"] > 300, title
        assert box["height"] > 80, title
        assert box["shapes"] > 5, title
        assert box["beyond"] == 0, title
        assert box["ids"] == 0, title
    curve, _, ink = told["colours"]
    assert curve == {"light": "rgb(36, 103, 176)", "dark": "rgb(110, 174, 240)"}[scheme]
    assert ink == {"light": "rgb(28, 28, 26)", "dark": "rgb(236, 235, 230)"}[scheme]
    assert told["wide"] == 1200
    assert told["narrow"] == 390  # nothing is wider than the screen
    assert told["least"] > 5
