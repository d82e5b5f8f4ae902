"""`tessera sample`: from a folder and a file of places to a table."""

import csv
import io
import json
import sys

import numpy as np
import pytest
import shapely

import tessera_cli as tessera_api
from tessera_cli.errors import NothingToEmbedError, UsageError
from tests.helpers.outputs import TILE, values
from tests.helpers.vectors import write_layer
from tests.tables.folders import DIMS, centre, in_degrees, put, random_tile

PIXELS = [(10, 10), (10, 300), (500, 20)]
BANDS = [f"Tessera_Band_{i}" for i in range(DIMS)]


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample") / "out"
    put(folder, TILE, random_tile(1), window="2022")
    put(folder, TILE, random_tile(2), window="2023")
    return folder


@pytest.fixture
def plots(tmp_path):
    """Three points on the tile, and one far from it."""
    shapes = [*(in_degrees(shapely.Point(centre(TILE, *pixel))) for pixel in PIXELS), shapely.Point(7, 50)]
    crops = ["wheat", "rye", "oats", "none"]
    return write_layer(tmp_path / "plots.gpkg", "plots", shapes, kind="Point", id=[7, 3, 5, 9], crop=crops)


def due(seed: int) -> np.ndarray:
    return values(random_tile(seed))[:, [r for r, _ in PIXELS], [c for _, c in PIXELS]].T


def read(text: str) -> tuple[list[dict[str, str]], np.ndarray]:
    rows = list(csv.DictReader(io.StringIO(text)))
    return rows, np.array([[row[band] or "nan" for band in BANDS] for row in rows]).astype(np.float32)


def test_a_table_on_standard_output(out, plots, tessera):
    code, text, told = tessera("sample", out, plots)
    assert code == 0
    rows, found = read(text)
    assert [(row["id"], row["window"], row["crop"]) for row in rows] == [
        (place, window, crop)
        for place, crop in [("7", "wheat"), ("3", "rye"), ("5", "oats"), ("9", "none")]
        for window in ("2022", "2023")
    ]
    np.testing.assert_array_equal(found[0:6:2], due(1))
    np.testing.assert_array_equal(found[1:6:2], due(2))
    assert {row["status"] for row in rows[6:]} == {"outside"}
    assert f"warning: {plots}: 2 of 8 rows lie on no tile of {out}" in told


def test_a_file_and_its_description(out, plots, tessera, tmp_path):
    table = tmp_path / "x" / "table.parquet"
    code, text, _ = tessera("sample", out, plots, "-o", table, "--year", "2023", "--json")
    described = json.loads(text)
    assert code == 0
    assert described | {"type": "sample", "schema": 1, "path": str(table), "places": 4, "kind": "point"} == described
    assert described["windows"] == ["2023"]
    statuses = described["statuses"]
    assert statuses["ok"] + statuses["none"] == 3
    assert (statuses["outside"], statuses["small"], described["rows"]) == (1, 0, 4)
    assert (
        tessera("sample", out, plots, "-o", tmp_path / "t.csv", "--window", "2023-01/2023-12")[1]
        == f"{tmp_path / 't.csv'}\n"
    )
    np.testing.assert_array_equal(read((tmp_path / "t.csv").read_text())[1][:3], due(2))


def test_neighbours_side_by_side(out, plots, tessera):
    rows, found = read(tessera("sample", out, plots, "--year", "2022", "--order", "hilbert")[1])
    assert sorted(row["id"] for row in rows) == ["3", "5", "7", "9"]
    at = {row["id"]: vector for row, vector in zip(rows, found, strict=True)}
    np.testing.assert_array_equal([at["7"], at["3"], at["5"]], due(1))
    assert [row["id"] for row in rows] != ["7", "3", "5", "9"]


def test_places_that_are_all_elsewhere_end_with_3(out, tessera, tmp_path):
    (tmp_path / "far.csv").write_text("lon,lat\n7,50\n8,51\n")
    table = tmp_path / "t.csv"
    code, _, told = tessera("sample", out, tmp_path / "far.csv", "-o", table)
    assert code == 3
    assert f"none of 2 points lies on a tile of {out} (the first lies at 7.0000 E 50.0000 N)" in told
    assert "swapped" not in told
    assert not table.exists()
    lon, lat = in_degrees(shapely.Point(centre(TILE, 9, 9))).coords[0]
    (tmp_path / "swapped.csv").write_text(f"lon,lat\n{lat},{lon}\n")
    code, _, told = tessera("sample", out, tmp_path / "swapped.csv")
    assert code == 3
    assert "Longitude and latitude are swapped: longitude comes first." in told
    made = random_tile(3)
    empty = np.argwhere(np.isnan(made["scales"]))[0]
    put(tmp_path / "holes", TILE, made)
    x, y = in_degrees(shapely.Point(centre(TILE, *empty))).coords[0]
    (tmp_path / "none.csv").write_text(f"lon,lat\n{x},{y}\n")
    code, _, told = tessera("sample", tmp_path / "holes", tmp_path / "none.csv")
    assert code == 3
    assert "none of 1 point has an embedding" in told


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--json"], "--json describes the table that -o writes"),
        (["-o", "x.xlsx"], "names no format of tables"),
        (["--year", "2020"], "has no embeddings of 2020. Its windows: 2022, 2023."),
        (["--layer", "fields"], "has no layer fields with geometries. There are: plots."),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(out, plots, tessera, tmp_path, monkeypatch, more, told):
    monkeypatch.chdir(tmp_path)
    code, _, errors = tessera("sample", out, plots, *more)
    assert code == 2
    assert told in errors
    assert "Traceback" not in errors


def test_the_file_of_places_is_not_replaced(out, tessera, tmp_path):
    lon, lat = in_degrees(shapely.Point(centre(TILE, 9, 9))).coords[0]
    path = tmp_path / "x.csv"
    path.write_text(f"lon,lat\n{lon},{lat}\n")
    code, _, told = tessera("sample", out, path, "-o", path)
    assert code == 2
    assert "holds the places, and would be replaced" in told
    assert path.read_text().startswith("lon,lat\n")


def test_neither_torch_nor_pyarrow_is_needed_for_csv(out, plots, tessera, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert tessera("sample", out, plots)[0] == 0
    code, _, told = tessera("sample", out, plots, "-o", "x.parquet")
    assert code == 2
    assert 'pip install "tessera-embed[tables]"' in told


def test_a_dataset_in_a_notebook(out, plots):
    data = tessera_api.sample(out, places=plots)
    assert dict(data.sizes) == {"place": 4, "window": 2, "band": DIMS, "sensor": 3}
    np.testing.assert_array_equal(data["embedding"].sel(window="2023").values[:3], due(2))
    np.testing.assert_array_equal(data["embedding"].sel(place=3, window="2022"), due(1)[1])
    assert data["crop"].values.tolist() == ["wheat", "rye", "oats", "none"]
    assert data["status"].sel(place=9).values.tolist() == ["outside"] * 2
    assert data["counts"].sel(place=7, window="2022", sensor="s2") == random_tile(1)["counts"][0, 10, 10]
    square = shapely.box(*np.array(centre(TILE, 50, 50)) - 17, *np.array(centre(TILE, 50, 50)) + 17)
    averaged = tessera_api.sample(out, places=[in_degrees(square)], year=2022)
    part = values(random_tile(1))[:, 49:52, 49:52].reshape(DIMS, -1).astype(np.float64)
    np.testing.assert_allclose(averaged["std"].values[0, 0], np.nanstd(part, axis=1), rtol=1e-6)
    frame = data["embedding"].sel(window="2023").to_pandas()
    assert frame.loc[5, "Tessera_Band_1"] == due(2)[2, 1]


def test_arguments_that_are_wrong(out, plots, tmp_path):
    with pytest.raises(UsageError, match="--order random is not known"):
        tessera_api.sample(out, places=plots, order="random")
    with pytest.raises(UsageError, match="is no folder"):
        tessera_api.sample(tmp_path / "nothing", places=plots)
    with pytest.raises(NothingToEmbedError):
        tessera_api.sample(out, places=[shapely.Point(0, 0)])
