"""The text of a plan: units that people think in, lines of 80 columns, a warning where the disk is too small."""

import json
import re
import shutil
from collections import namedtuple

import pytest

from tessera_cli.cli.plan import lines
from tessera_cli.cli.units import duration, size
from tessera_cli.dpixels.coverage import Coverage
from tessera_cli.extent.place import Place
from tessera_cli.planning.plan import Plan, SensorPlan
from tessera_cli.planning.scene_counts import DatesByTile


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999.6, "1 kB"), (51e6, "51 MB"), (2.5e11, "250 GB"), (999.6e9, "1.0 TB"), (3.25e15, "3,250.0 TB")],
)
def test_sizes(count, text):
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1, "1 second"),
        (89, "89 seconds"),
        (120, "2 minutes"),
        (5399, "90 minutes"),
        (3 * 3600 + 1800, "3.5 hours"),
        (100 * 3600, "4.2 days"),
        (4000 * 86400, "4,000.0 days"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.fixture
def made():
    import datetime as dt

    by_month = {f"2023-{month:02d}": 31 for month in range(1, 13)}
    seen = SensorPlan(99_999, by_month, Coverage(365, dt.date(2023, 1, 1), dt.date(2023, 12, 31), 9))
    scene = "S2B_MSIL2A_20231226T104619_R051_T31UES_20231226T1646{:02d}"
    tile = "utm34n_c{:04d}_r1302"
    return Plan(
        tiles=123_456,
        pixels=32_000_000_000,
        areas=70_000,
        place=Place(15.0, 50.0, 3_200_000.0),
        zones={f"EPSG:326{zone}": 20_000 for zone in range(28, 36)},
        by_zone={f"EPSG:326{zone}": {"areas": 9_000, "tiles": 20_000, "pixels": 10**9} for zone in range(28, 36)},
        windows={"20230701-20240630": {"s2": seen, "s1_asc": seen, "s1_desc": seen}},
        skipped={f"for the reason number {number}": 3 for number in range(12)},
        tile_dates={
            "20230701-20240630": {
                "s2": DatesByTile(
                    123_456, 0, tile.format(7), 90, 71.5, tuple(map(tile.format, range(9))), (tile.format(9),)
                ),
                "s1": DatesByTile(123_456, 3, tile.format(8), 80, 61.0, (), tuple(map(tile.format, range(900)))),
            }
        },
        incomplete={scene.format(number): "asset B8A is not listed" for number in range(60)},
        read_bytes=int(7.5e13),
        write_bytes=int(4.2e12),
        free_bytes=int(83e9),
        encode_seconds=40 * 86400.0,
        tokens_per_pixel=155.0,
    )


def test_a_large_plan_is_read_at_80_columns(made):
    text = lines(made, None)
    assert max(map(len, text)) <= 80
    assert len(text) < 60
    whole = "\n".join(text)
    assert "75.0 TB" in whole
    assert "4.2 TB, 83 GB free: too little" in whole
    assert "40.0 days" in whole
    assert "and 7 more (--json)" in whole
    assert "and 55 more (--json)" in whole
    assert whole.count("23-12:31") == 3


def test_a_disk_that_is_too_small_is_warned_of(catalog, tessera, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10_000, 9_900, 100))
    code, stdout, stderr = tessera("plan", *catalog.options(tmp_path / "out"), "--json")
    assert code == 0
    assert json.loads(stdout)["free_bytes"] == 100
    assert re.search(r"warning: about \d+ kB do not fit: 100 B are free", stderr)


@pytest.mark.parametrize("told", [False, True])
def test_no_more_is_read_than_the_files_hold(catalog, tessera, tmp_path, told):
    """By the size of local files, or what the catalogue says of files elsewhere."""
    files = sum(path.stat().st_size for path in (catalog.folder / "cogs").rglob("*.tif"))

    def elsewhere(items):
        for item in items:
            for asset in item["assets"].values():
                asset["file:size"] = 7
                asset["href"] = f"http://127.0.0.1:9/{asset['href']}"
        return items

    if told:
        catalog.edit(elsewhere)
        files = 7 * (4 * 11 + 3 * 2)
    code, stdout, _ = tessera("plan", *catalog.options(tmp_path / "out"), "--json")
    assert code == 0
    assert 0 < json.loads(stdout)["read_bytes"] <= files


def test_without_sizes_the_estimate_is_of_tiles(catalog, tessera, tmp_path):
    def elsewhere(items):
        for item in items:
            for asset in item["assets"].values():
                asset["href"] = f"http://127.0.0.1:9/{asset['href']}"
        return items

    catalog.edit(elsewhere)
    planned = json.loads(tessera("plan", *catalog.options(tmp_path / "out"), "--json")[1])
    optical = 0.65 * (256**2 + 2 * (4 * 512**2 + 6 * 256**2))
    radar = 0.8 * 2 * 4 * 512**2
    assert planned["read_bytes"] == pytest.approx(2 * (4 * optical + 3 * radar))
