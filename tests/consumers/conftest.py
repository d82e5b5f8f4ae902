"""Programs of others, run as processes of their own on files of ours."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.consumers.setup import KNOWN, PLACE

HERE = Path(__file__).parent
REQUIRED = os.environ.get("TESSERA_CONSUMERS") == "required"
"""CI says so: a `quick` program that is not installed fails its tests in place of skipping them."""
CLEAN = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "GDAL_", "COVERAGE"))}
CLEAN["QT_QPA_PLATFORM"] = "offscreen"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.integration)


def program(name: str) -> list[str]:
    """Return the command that runs code in an installed program; without it the test is skipped, or fails."""
    place, entry = PLACE / name, KNOWN[name]
    if not (place / "installed").is_file() or (place / "installed").read_text() != repr(sorted(entry.items())):
        missing = pytest.fail if REQUIRED and entry.get("quick") else pytest.skip
        missing(f"{name} is not installed: python tests/consumers/setup.py {name}")
    return entry.get("run", [str(place / "bin/python"), "-c"])


@pytest.fixture
def consumer() -> Callable[..., Any]:
    """Return a function that runs code in a program of `environments.toml` and returns the JSON that it prints last.

    The code is Python, or whatever the entry's `run` takes; `arguments` are those of the process.
    """

    def run(name: str, code: str, *arguments: object, timeout: int = 300) -> Any:
        done = subprocess.run(
            [*program(name), code, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=timeout,
            env=CLEAN,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1])

    return run
