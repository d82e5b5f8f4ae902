"""`preview` and `embed --preview`, as functions and commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tessera_cli as tessera_api
from tessera_cli.errors import TileError
from tests.helpers.landscapes import YEARS, put
from tests.helpers.outputs import PLACED

GIVEN = {"year": 2021, "model": "null", "threads": 1}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("preview*"))


def test_the_function_stays_one_after_it_was_called(tmp_path):
    put(tmp_path, PLACED)
    made = tessera_api.preview(tmp_path)
    assert isinstance(made, tessera_api.Preview)
    assert callable(tessera_api.preview)  # no package of that name takes its place
    assert tessera_api.preview(str(tmp_path), window="2023-01/2023-12") == made


def test_the_command_prints_paths_or_one_object(tmp_path, tessera):
    for window in YEARS:
        put(tmp_path, PLACED, window, dims=3)
    code, stdout, stderr = tessera("preview", tmp_path)
    files = ["preview.html", *(f"preview_{year}.{end}" for year in (2023, 2024) for end in ("tif", "png"))]
    assert code == 0
    assert stdout.splitlines() == [str(tmp_path / file) for file in files]
    assert names(tmp_path) == sorted(files)
    assert f"next: open {tmp_path / 'preview.html'} in a browser" in stderr
    code, stdout, _ = tessera("preview", tmp_path, "--year", "2024", "--json", "-o", tmp_path / "elsewhere")
    told = json.loads(stdout)
    assert (told["type"], told["schema"]) == ("preview", 1)
    assert told["page"] == str(tmp_path / "elsewhere" / "preview.html")
    assert told["pictures"] == {"2024": str(tmp_path / "elsewhere" / "preview_2024.tif")}
    assert told["pngs"] == {"2024": str(tmp_path / "elsewhere" / "preview_2024.png")}
    assert told["crs"] == PLACED.crs
    assert sum(told["explained"]) == pytest.approx(1, abs=1e-3)
    code, _, stderr = tessera("preview", tmp_path / "absent")
    assert code == 2
    assert "is no folder" in stderr


def test_embed_makes_it_at_once_and_nothing_takes_it_for_a_tile(catalog, tessera, tmp_path):
    out = tmp_path / "out"
    code, stdout, stderr = tessera("embed", *catalog.options(out), "--preview")
    assert code == 0
    assert stdout.splitlines()[-1] == str(out / "preview.html")
    assert f"in QGIS, or open {out / 'preview.html'} in a browser" in stderr
    assert names(out) == ["preview.html", "preview_2021.png", "preview_2021.tif"]
    listed = {asset["href"] for asset in json.loads((out / "collection.json").read_text())["assets"].values()}
    assert {f"./{name}" for name in names(out)} <= listed
    before = {name: (out / name).read_bytes() for name in names(out)}
    code, stdout, _ = tessera("verify", out, "-v")
    assert code == 0
    assert "preview" not in stdout
    code, stdout, _ = tessera("info", out, "--json")
    told = json.loads(stdout)
    assert told["tiles"] == {"done": 2}
    assert told["bytes"] == sum(path.stat().st_size for path in out.glob("utm*.tif"))
    assert tessera("info", out / "preview_2021.tif")[0] == 0
    summary = tessera_api.embed(catalog.aoi, catalog=str(catalog.items), out=out, preview=True, **GIVEN)
    assert [result.status for result in summary.results] == ["present", "present"]
    assert summary.preview == out / "preview.html"
    assert summary.to_dict()["preview"] == str(out / "preview.html")
    assert {name: (out / name).read_bytes() for name in names(out)} == before


@pytest.mark.parametrize("error", [TileError("It cannot be drawn."), RuntimeError("of a library"), MemoryError()])
def test_a_preview_that_fails_is_a_warning(catalog, tmp_path, monkeypatch, caplog, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("tessera_cli.pictures.make.make_preview", fail)
    out = tmp_path / "out"
    summary = tessera_api.embed(catalog.aoi, catalog=str(catalog.items), out=out, preview=True, **GIVEN)
    assert summary.error() is None
    assert summary.preview is None
    assert "preview" not in summary.to_dict()
    (told,) = [record.getMessage() for record in caplog.records if "not their preview" in record.getMessage()]
    assert str(error).rstrip(".") in told
