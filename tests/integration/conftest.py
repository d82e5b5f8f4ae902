"""The servers, once per session, and a catalogue on them; see README.md."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import SmallCatalog, make_catalog
from tests.integration.gate import Gate, gate
from tests.integration.planetary import crowd, in_year, shipped, without_datetime
from tests.integration.processes import Unavailable, own, server_folder
from tests.integration.stac_api import Database, database, stac_api
from tests.integration.storage import Storage, storage

REQUIRED = os.environ.get("TESSERA_INTEGRATION") == "required"
"""CI says so: what cannot start fails the tests in place of skipping them."""
OPEN, SIGNED, TIMELESS, CROWDED, LOSSY = 2021, 2020, 2019, 2018, 2017
"""The years of the catalogue: plain files, signed files, no datetime, 640 scenes, one file that is not there."""
LOST = "S2A_2017-07-01"


@dataclass(frozen=True)
class World:
    """A STAC API, and the storage that its items point to."""

    local: SmallCatalog
    database: Database
    storage: Storage
    gate: Gate
    made: dict[tuple[Any, ...], dict[str, str]] = field(default_factory=dict)
    """Rasters of the local files, once they are made."""

    def items(self, year: int) -> list[dict[str, Any]]:
        """The scenes of a year with paths of local files."""
        return in_year(json.loads(self.local.items.read_text())["features"], year)

    def options(self, year: int, out: Path, catalog: str | Path | None = None) -> list[str]:
        """The options of `embed` for the whole small area, from the API unless told otherwise."""
        where = ["--aoi", str(self.local.aoi), "--year", str(year), "--catalog", str(catalog or self.gate.url)]
        return [*where, "--model", "null", "--out", str(out), "--threads", "1"]

    def on_disk(self, items: Sequence[dict[str, Any]], name: str) -> Path:
        """An ItemCollection beside the local files."""
        path = self.local.folder / f"{name}.json"
        path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
        return path


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(server_folder())
            local = make_catalog(tmp_path_factory.mktemp("small"))
            files = stack.enter_context(storage(folder))
            publish(local, files.files)
            planet = stack.enter_context(database(folder))
            planet.create("planet")
            made = World(local, planet, files, stack.enter_context(_gate(stack, planet)))
            planet.load("planet", catalogue(made))
        except Unavailable as reason:
            if REQUIRED:
                pytest.fail(f"no servers: {reason}")
            pytest.skip(str(reason))
        yield made


def _gate(stack: contextlib.ExitStack, planet: Database) -> contextlib.AbstractContextManager[Gate]:
    return gate(stack.enter_context(stac_api(planet, "planet")))


def publish(local: SmallCatalog, files: Path) -> None:
    shutil.copytree(local.folder / "cogs", files, dirs_exist_ok=True)
    for path in (files, *files.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
        own(path)


def catalogue(made: World) -> list[dict[str, Any]]:
    base = f"{made.storage.url}/open"
    lossy = copy.deepcopy(shipped(made.items(LOSSY), base))
    next(item for item in lossy if item["id"] == LOST)["assets"]["B08"]["href"] = f"{base}/lost/B08.tif"
    return [
        *shipped(made.items(OPEN), base),
        *shipped(made.items(SIGNED), f"{made.storage.url}/signed"),
        *shipped(without_datetime(made.items(TIMELESS)), base),
        *crowd(made.local.origin),
        *lossy,
    ]


@pytest.fixture(autouse=True)
def _fresh(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits are short, and nothing is left of the test before. Real servers need longer than a hundredth."""
    monkeypatch.setattr("tessera_cli.net.retries.TIME_SCALE", 0.1)
    if "world" in request.fixturenames:
        request.getfixturevalue("world").gate.reset()


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of the rasters."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.tif"))}


def error_line(stderr: str) -> str:
    """The one error, at the end; before it stand lines of the log alone, and no traceback."""
    *log, line = stderr.splitlines()
    assert line.startswith("tessera: error: "), stderr
    assert all(re.match(r"\d\d:\d\d:\d\d tessera: ", said) for said in log), stderr
    return line


@pytest.fixture
def expected(world, tessera, tmp_path):
    """The rasters that the local files give, by year and items; made once."""

    def run(year: int, items: Sequence[dict[str, Any]] | None = None) -> dict[str, str]:
        items = items or world.items(year)
        key = (year, *(item["id"] for item in items))
        if key not in world.made:
            out = tmp_path / "expected"
            code, _, stderr = tessera("embed", *world.options(year, out, world.on_disk(items, "local")))
            assert code == 0, stderr
            world.made[key] = hashes(out)
            assert len(world.made[key]) == 6
        return world.made[key]

    return run
