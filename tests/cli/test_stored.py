"""The verbs that read a folder agree on how one names it and its windows, and on what the environment may say."""

import json

import pytest
import shapely

from tests.helpers.outputs import TILE
from tests.tables.folders import centre, in_degrees, put, random_tile

NAME = "20230701-20240630"


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stored") / "out"
    for seed, window in enumerate(("2022", "2023", NAME)):
        put(folder, TILE, random_tile(seed), window=window)
    return folder


@pytest.fixture
def command(out, tmp_path):
    """The words of a verb that reads the folder, and writes to a place of its own."""
    point = in_degrees(shapely.Point(centre(TILE, 5, 5)))
    (tmp_path / "plots.csv").write_text(f"lon,lat\n{point.x},{point.y}\n")
    return {
        "sample": ["sample", out, tmp_path / "plots.csv", "-o", tmp_path / "table.csv"],
        "preview": ["preview", out, "-o", tmp_path / "pictures"],
        "export": ["export", out, "--to", "npy", "-o", tmp_path / "arrays"],
    }


def windows(verb: str, stdout: str) -> list[str]:
    told = json.loads(stdout)
    return sorted(told["pictures"] if verb == "preview" else told["windows"])


@pytest.mark.parametrize("verb", ["sample", "preview", "export"])
@pytest.mark.parametrize(
    ("words", "due"),
    [
        ((), ["2022", "2023", NAME]),
        (("--year", "2022"), ["2022"]),
        (("--year", "2022,2023"), ["2022", "2023"]),
        (("--window", "2023-07/2024-06"), [NAME]),
        (("--window", NAME), [NAME]),
        (("--window", f"2022,{NAME}"), ["2022", NAME]),
        (("--year", "2022", "--window", "2023-01/2023-12"), ["2022", "2023"]),
    ],
)
def test_windows_are_named_alike(tessera, command, verb, words, due):
    code, stdout, stderr = tessera(*command[verb], *words, "--json")
    assert code == 0, stderr
    assert windows(verb, stdout) == due


@pytest.mark.parametrize("verb", ["sample", "preview", "export"])
@pytest.mark.parametrize(("words", "told"), [(("--year", "2021"), "2021"), (("--window", "soon"), "'soon'")])
def test_a_window_that_is_not_there_is_told_in_one_line(tessera, command, verb, words, told):
    code, stdout, stderr = tessera(*command[verb], *words)
    assert (code, stdout, stderr.count("\n")) == (2, "", 1)
    assert told in stderr


@pytest.mark.parametrize("verb", ["preview", "export"])
def test_what_the_environment_says_of_embed_is_not_meant(tessera, command, tmp_path, monkeypatch, verb):
    """Else a preview, or an export, would land among the embeddings of another folder."""
    monkeypatch.setenv("TESSERA_OUT", str(tmp_path / "embeddings"))
    monkeypatch.setenv("TESSERA_YEAR", "2019")
    code, _, stderr = tessera(*command[verb][: None if verb == "export" else -2])
    assert code == 0, stderr
    assert not (tmp_path / "embeddings").exists()
