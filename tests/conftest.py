"""Fixtures: a small real catalogue on disk, and an environment without the user's settings."""

from __future__ import annotations

import json
import logging
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import shapely

from tessera_cli.extent.grid import from_utm
from tests.helpers.builders import EPSG, s1_item, s2_item

os.environ["OMP_NUM_THREADS"] = "1"
"""Read once, when torch and NumPy are imported: on cores that other tests use, their threads wait for each other."""
SHARED = Path(__file__).resolve().parents[2] / "shared"


SETTINGS = ("OMP_NUM_THREADS", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch):
    for name in os.environ:
        if name.startswith(("TESSERA_", "EARTHDATA_", "PC_SDK_", "SLURM_")) or name in SETTINGS:
            monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", os.devnull)


@dataclass(frozen=True)
class SmallCatalog:
    """A handful of scenes over 40 x 40 pixels that cross a tile border, in 2021."""

    folder: Path
    origin: tuple[float, float]

    @property
    def items(self) -> Path:
        return self.folder / "items.json"

    @property
    def aoi(self) -> Path:
        return self.folder / "aoi.geojson"

    def edit(self, change) -> None:
        """Rewrite the item list through `change(list of items)`."""
        collection = json.loads(self.items.read_text())
        collection["features"] = change(collection["features"])
        self.items.write_text(json.dumps(collection))

    def options(self, out: Path) -> list[str]:
        """The options of `embed` for the whole small area."""
        where = ["--aoi", str(self.aoi), "--year", "2021", "--catalog", str(self.items)]
        return [*where, "--model", "null", "--out", str(out), "--threads", "1"]


def box_geojson(west: float, south: float, east: float, north: float, epsg: int = EPSG) -> dict:
    """A box in metres as a GeoJSON geometry in degrees."""
    square = shapely.box(west, south, east, north)
    return shapely.geometry.mapping(shapely.transform(square, from_utm(epsg).transform, interleaved=False))


def make_catalog(folder: Path, *, tile_columns: float = 117.0, size: int = 40) -> SmallCatalog:
    """Scenes around the west border of tile column 117: half of the area lies on either side."""
    folder.mkdir(parents=True, exist_ok=True)
    origin = (tile_columns * 5120 - size * 10 / 2, 5800020.0)
    rng = np.random.default_rng(0)
    items = []
    for index, day in enumerate(("2021-02-10", "2021-05-20", "2021-07-01", "2021-09-15")):
        dn = {band: rng.integers(200, 4000, (size, size)) for band in ("B02", "B04", "B08")}
        scl = np.where(rng.random((size // 2, size // 2)) < 0.3, 9, 4)
        name = f"S2A_{day}"
        items.append(s2_item(folder / "cogs", name, f"{day}T10:56:31.02400{index}Z", dn, scl, size=size, origin=origin))
    for day, orbit in (("2021-03-05", "ascending"), ("2021-06-06", "descending"), ("2021-10-05", "ascending")):
        power = {"vv": rng.gamma(4, 0.02, (size, size)), "vh": rng.gamma(4, 0.004, (size, size))}
        items.append(s1_item(folder / "cogs", f"S1A_{day}", f"{day}T17:41:00Z", power, orbit, size=size, origin=origin))
    for item in items:
        for asset in item["assets"].values():
            asset["href"] = "./" + str(Path(asset["href"]).relative_to(folder))
    west, north = origin
    edge = size * 10
    (folder / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items[::-1]}))
    (folder / "aoi.geojson").write_text(
        json.dumps(box_geojson(west + 32, north - edge + 31, west + edge - 33, north - 32))
    )
    return SmallCatalog(folder, origin)


@pytest.fixture
def catalog(tmp_path) -> SmallCatalog:
    return make_catalog(tmp_path / "catalog")


@pytest.fixture(autouse=True)
def _logging_of_its_own():
    """Take away the logging of a command that a fixture of the module has run in this process."""
    root = logging.getLogger()
    if any(type(handler).__name__ == "_ConsoleHandler" for handler in root.handlers):
        root.handlers[:] = [each for each in root.handlers if type(each).__name__ != "_ConsoleHandler"]
        root.setLevel(logging.WARNING)
        logging.getLogger("tessera_cli").setLevel(logging.NOTSET)


@pytest.fixture
def tessera(capsys):
    """Run a command line in this process: (exit code, stdout, stderr). Its logging ends with the test."""
    from tessera_cli.cli.app import run

    loggers, shown = [logging.getLogger(name) for name in (None, "tessera_cli")], warnings.showwarning
    handlers, levels = loggers[0].handlers[:], [logger.level for logger in loggers]

    def call(*arguments: object) -> tuple[int, str, str]:
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    yield call
    loggers[0].handlers[:], warnings.showwarning = handlers, shown
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
