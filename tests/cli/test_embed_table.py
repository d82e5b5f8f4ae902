"""`tessera embed --table`: what it writes, and what does not go with it."""

from __future__ import annotations

import csv
import json
import re

import pytest

import tessera_cli.api.embed_table as module
from tests.helpers.series import optical, write_rows


@pytest.fixture
def series(tmp_path):
    days = ("2023-02-01", "2023-05-01", "2023-08-01")
    rows = [optical(f"s{n}", day, 100 * n + 1, crop=f"c{n % 2}") for n in range(5) for day in days]
    return write_rows(tmp_path / "t.parquet", [*rows, optical("late", "2023-08-01", 7, crop="c0")])


def test_a_csv_has_a_row_for_each_sample(series, tessera, tmp_path):
    out = tmp_path / "v.csv"
    code, stdout, stderr = tessera("embed", "--table", series, "--model", "null", "--min-s2", 2, "--out", out, "--json")
    assert code == 0
    assert json.loads(stdout) == {
        "type": "table",
        "schema": 1,
        "path": str(out),
        "window": "20230201-20230801",
        "samples": 6,
        "embedded": 5,
        "notes": [],
    }
    assert "1 sample of 6 have too few observations" in stderr
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert [row["id"] for row in rows] == ["s0", "s1", "s2", "s3", "s4", "late"]
    assert [row["status"] for row in rows] == ["ok"] * 5 + ["none"]
    assert [row["s2"] for row in rows] == ["3"] * 5 + ["1"]
    assert [row["crop"] for row in rows] == ["c0", "c1", "c0", "c1", "c0", "c0"]
    assert rows[5]["Tessera_Band_0"] == rows[0]["lon"] == ""
    assert float(rows[0]["Tessera_Band_127"]) == float(rows[0]["Tessera_Band_7"])


def test_the_table_has_a_name_of_its_own(series, tessera, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert tessera("embed", "--table", series, "--model", "null", "--year", 2023)[1].split() == ["t_2023_null.parquet"]
    assert (tmp_path / "t_2023_null.parquet").exists()


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--bbox", 1, 2, 3, 4, "--preview"], 2, "--table holds all observations.*Leave out --bbox, --preview."),
        (["area.geojson"], 2, "Leave out AOI."),
        (["--format", "npy", "--workers", 2], 2, "Leave out --format, --workers."),
        (["--dpixels", "x", "--legacy-draw"], 2, "Leave out --dpixels, --legacy-draw."),
        (["--year", "2022,2023"], 2, "A table of series has one window, and 2 are given"),
        (["--year", 2021], 3, "none of its 16 rows between 2023-02-01 and 2023-08-01 has a value in 2021"),
        (["--columns", "B02=blue"], 2, "has no column blue"),
        (["--min-s2", 9], 3, "none of 6 samples has 9 or more observations of Sentinel-2"),
        (["--out", "v.gpkg"], 2, "names no format of tables"),
    ],
)
def test_one_clear_line(series, tessera, tmp_path, monkeypatch, options, code, said):

    monkeypatch.chdir(tmp_path)
    found, stdout, stderr = tessera("embed", "--table", series, "--model", "null", *options)
    assert (found, stdout) == (code, "")
    last = stderr.splitlines()[-1]
    assert re.search(said, last)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.parquet"]


def test_the_series_are_never_replaced(series, tessera):
    code, _, stderr = tessera("embed", "--table", series, "--model", "null", "--out", series)
    assert code == 2
    assert "would be replaced by the embeddings" in stderr
    assert tessera("embed", "--columns", "B02=x", "--bbox", 1, 2, 3, 4, "--year", 2023)[0] == 2


def test_progress_counts_samples(series, tmp_path):
    told = []
    made = module.embed_table(series, model="null", out=tmp_path / "v.parquet", progress=lambda *d: told.append(d))
    assert told[-1] == (6, 6)
    assert (made.samples, made.embedded) == (6, 6)
