"""Which tiles a run takes: `--tile`, `--retry-failed` and `--overwrite`, alone and together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

WEST, EAST = "utm30n_c0116_r1132", "utm30n_c0117_r1132"


@pytest.fixture
def run(tessera, catalog, tmp_path):
    """Embed the small area with more options: (exit code, tile -> status, last object, messages)."""

    def call(*more, verb="embed", years=("--year", "2021")):
        where = ["--aoi", catalog.aoi, *years, "--catalog", catalog.items, "--out", tmp_path / verb, "--model", "null"]
        threads = ["--threads", "1"] if verb == "embed" else []
        code, text, err = tessera(verb, "--json", *where, *threads, *more)
        lines = [json.loads(line) for line in text.splitlines()]
        statuses = {f"{line['tile']}_{line['window']}": line["status"] for line in lines if line["type"] == "tile"}
        return code, statuses, lines[-1] if lines else {}, err

    return call


@pytest.fixture
def break_tile(catalog):
    """Take away the files of a scene; the function that is returned puts them back."""

    def broken():
        band = sorted((catalog.folder / "cogs").rglob("*B02*"))[0]
        away = band.rename(band.with_suffix(".away"))
        return lambda: away.rename(band)

    return broken


def made(folder: Path) -> dict[str, int]:
    """Return tile -> number of the file that is its record: another one each time the tile is made."""
    return {path.stem: path.stat().st_ino for path in folder.glob("utm30n_c*.json")}


@pytest.mark.parametrize("verb", ["embed", "fetch"])
def test_one_tile_and_later_the_others(run, tmp_path, verb, tessera):
    code, statuses, last, err = run("--tile", EAST, verb=verb)
    assert (code, statuses) == (0, {f"{EAST}_2021": "done"})
    assert (last["tiles"]["done"], last["left"]) == (1, 0)
    assert "1 of 2 tiles are left as they are" in err
    folder = tmp_path / verb
    found = json.loads(tessera("info", "--json", folder)[1])
    assert found["tiles"] == {"missing": 1, "done": 1}
    if verb == "embed":  # the mosaic shows what is there
        shown = "".join(path.read_text() for path in folder.glob("*.vrt"))
        assert f"{EAST}_2021_emb.tif" in shown
        assert f"{WEST}_2021" not in shown
    kept = made(folder)
    code, statuses, _, _ = run(verb=verb)
    assert (code, statuses) == (0, {f"{WEST}_2021": "done", f"{EAST}_2021": "present"})
    assert kept.items() <= made(folder).items()
    assert tessera("verify", folder)[0] == 0


def test_an_id_is_all_windows_and_a_name_is_one(run):
    years = ("--window", "2021-01/2021-06", "--window", "2021-05/2021-10")
    names = [f"{EAST}_20210101-20210630", f"{EAST}_20210501-20211031"]
    assert list(run("--tile", names[1], years=years)[1]) == names[1:]
    assert run("--tile", EAST, years=years)[1] == {names[0]: "done", names[1]: "present"}
    both = run("--tile", EAST, "--tile", f"{WEST}_20210101-20210630", years=years)[1]
    assert sorted(both) == [f"{WEST}_20210101-20210630", *names]


def test_an_unknown_tile_is_an_error_before_anything_is_written(run, tmp_path):
    for wrong, near in {
        "utm30n_c0119_r1132": f"{EAST}_2021, {WEST}_2021",
        f"{EAST}_2022": f"{EAST}_2021, {WEST}_2021",
        "utm30n_c0117_r113": EAST,
        "nothing": WEST,
    }.items():
        code, _, _, err = run("--tile", EAST, "--tile", wrong)
        assert code == 2
        assert f"--tile {wrong} is no tile of this run" in err
        assert near in err
    assert not (tmp_path / "embed").exists()


def test_failed_tiles_alone_are_taken_again(run, break_tile, tmp_path, catalog):
    mend = break_tile()
    code, statuses, _, _ = run("--tile", EAST)
    assert (code, statuses) == (4, {f"{EAST}_2021": "failed"})
    mend()
    code, statuses, _, _ = run("--retry-failed")
    assert (code, statuses) == (0, {f"{EAST}_2021": "done"})
    assert set(made(tmp_path / "embed")) == {f"{EAST}_2021"}
    code, statuses, last, _ = run("--retry-failed")  # none has failed any more
    assert (code, statuses, sum(last["tiles"].values())) == (0, {}, 0)


def test_failed_and_named(run, break_tile):
    mend = break_tile()
    assert run()[0] == 4
    mend()
    assert run("--retry-failed", "--tile", WEST)[1] == {f"{WEST}_2021": "done"}
    assert run("--retry-failed", "--overwrite")[1] == {f"{EAST}_2021": "done"}


def test_finished_tiles_are_made_again(run, tmp_path):
    assert run()[0] == 0
    folder = tmp_path / "embed"
    before, rasters = made(folder), {path.name: path.read_bytes() for path in folder.glob("*.tif")}
    assert run()[1] == {f"{WEST}_2021": "present", f"{EAST}_2021": "present"}
    assert made(folder) == before
    code, statuses, _, _ = run("--overwrite", "--tile", WEST)
    assert (code, statuses) == (0, {f"{WEST}_2021": "done"})
    after = made(folder)
    assert after[f"{WEST}_2021"] != before[f"{WEST}_2021"]
    assert after[f"{EAST}_2021"] == before[f"{EAST}_2021"]
    assert {path.name: path.read_bytes() for path in folder.glob("*.tif")} == rasters
    assert run("--overwrite")[1] == {f"{WEST}_2021": "done", f"{EAST}_2021": "done"}


def test_overwriting_keeps_pixels_that_others_asked_for(run, catalog, tmp_path, tessera):
    assert run()[0] == 0
    folder = tmp_path / "embed"
    before = {path.name: path.read_bytes() for path in folder.glob("*.tif")}
    x, y = catalog.origin
    from tests.conftest import box_geojson

    few = tmp_path / "few.geojson"
    few.write_text(json.dumps(box_geojson(x + 41, y - 99, x + 79, y - 61)))
    where = ["--aoi", few, "--year", "2021", "--catalog", catalog.items, "--model", "null", "--threads", "1"]
    assert tessera("embed", *where, "--out", folder, "--overwrite")[0] == 0
    assert {path.name: path.read_bytes() for path in folder.glob("*.tif")} == before
