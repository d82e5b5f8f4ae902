"""A page of ours in headless Chromium, without a network: what is done there, and what the page says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

OPEN = """
import json, sys
from playwright.sync_api import sync_playwright

told = {"messages": [], "requests": []}
with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
    size = {"width": 1200, "height": 1000}
    context = browser.new_context(viewport=size, offline=True, has_touch=True, accept_downloads=True)
    page = context.new_page()
    page.on("console", lambda message: told["messages"].append(message.text))
    page.on("pageerror", lambda error: told["messages"].append(str(error)))
    page.on("request", lambda request: told["requests"].append(request.url))
    page.goto("file://" + sys.argv[1])
    page.wait_for_selector("html[SHOWN]", state="attached", timeout=60_000)
    STEPS
    browser.close()
print(json.dumps(told).replace("NaN", "null"))
"""


def visited(consumer: Callable[..., Any], page: Path, helpers: str, steps: str, shown: str = "data-loaded") -> Any:
    """Open a page, wait until it has the attribute `shown`, and return what `steps` put into `told`.

    `helpers`: functions that the steps call. Fails if the page says anything on the console, or asks for anything.
    """
    code = f"{helpers.strip()}\n{steps.strip()}".replace("\n", "\n    ")
    told = consumer("browser", OPEN.replace("SHOWN", shown).replace("STEPS", code), page)
    assert told["messages"] == []
    assert [url for url in told["requests"] if not url.startswith("blob:")] == [page.as_uri()]  # what is saved
    return told
