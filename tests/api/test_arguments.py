"""Arguments in the forms that people give: years, windows, and the names of folders that nobody named."""

import json

import numpy as np
import pytest
import shapely

from tessera_cli.api.arguments import as_windows, default_out, make_request
from tessera_cli.errors import UsageError
from tessera_cli.net.address import AddressError
from tests.conftest import box_geojson


def names(year=None, window=None):
    return [window.name for window in as_windows(year, window)]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (2023, [2023]),
        ("2023", [2023]),
        ("2023,2021", [2021, 2023]),
        ("2021, 2023", [2021, 2023]),
        ("2017-2020", [2017, 2018, 2019, 2020]),
        ("2017-2019,2018-2020,2023", [2017, 2018, 2019, 2020, 2023]),
        (["2023", "2017-2018"], [2017, 2018, 2023]),
        ([2023, "2023"], [2023]),
        (range(2017, 2020), [2017, 2018, 2019]),
        (np.arange(2017, 2019), [2017, 2018]),
        ([2023.0], [2023]),
    ],
)
def test_years(given, expected):
    assert names(year=given) == list(map(str, expected))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("2023-2021", "Write 2021-2023"),
        ("2023/2024", "2017-2024"),
        ("23", "is no year"),
        ("2023,", "is no year"),
        ("", "is no year"),
        ("2013-2017", "2015"),
        (2023.5, "is no year"),
        ("2023-2999", "future|not over"),
    ],
)
def test_years_that_are_refused(given, told):
    with pytest.raises(UsageError, match=told) as error:
        as_windows(given, None)
    assert "\n" not in str(error.value)


def test_windows_with_commas():
    expected = ["20230101-20230630", "20240101-20240630"]
    assert names(window="2024-01/2024-06,2023-01/2023-06") == expected
    assert names(window=["2024-01/2024-06", "2023-01/2023-06"]) == expected


@pytest.mark.parametrize("words", ["--year 2021,2022", "--year 2021-2022", "--year 2021 --year 2022"])
def test_years_on_the_command_line(catalog, tessera, tmp_path, words):
    options = catalog.options(tmp_path / "out")
    del options[2:4]
    catalog.edit(lambda items: items + [later(item) for item in items])
    code, stdout, stderr = tessera("plan", *options, *words.split(), "--json")
    assert code == 0, stderr
    assert list(json.loads(stdout)["windows"]) == ["2021", "2022"]


def later(item):
    """The same item a year later."""
    return json.loads(json.dumps(item).replace("2021-", "2022-"))


# --- folders ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def embed(catalog, tessera, tmp_path, monkeypatch):
    """Run `embed` in an empty folder without --out; return the folders there and what was said."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    options = catalog.options(tmp_path)
    options = options[2 : options.index("--out")]

    def call(*where):
        code, _, stderr = tessera("embed", *where, *options)
        assert code == 0, stderr
        return sorted(path.name for path in here.iterdir()), stderr

    return call


@pytest.fixture
def boxes(catalog):
    """Two boxes in the middle of the catalogue, as words of --bbox."""
    middle = shapely.from_geojson(catalog.aoi.read_text()).centroid
    west, south = round(middle.x, 3), round(middle.y, 3)
    return [f"{west},{south},{west + 0.001:.3f},{south + edge:.6f}" for edge in (0.001, 0.001001)]


def test_boxes_have_folders_of_their_own(embed, boxes):
    found, _ = embed("--bbox", boxes[0])
    assert found == [f"bbox_{'_'.join(f'{float(edge):g}' for edge in boxes[0].split(','))}_2021_null"]
    found, stderr = embed("--bbox", boxes[1])
    assert len(found) == 2
    assert "another area" not in stderr


def test_boxes_across_the_antimeridian_have_names_of_their_own():
    def name(*box):
        given = {"source": None, "crs": None, "mask": None, "layer": None}
        return make_request(None, box, 2023, None, **given).name

    assert name(179.9, -17, -179.8, -16.9) == "bbox_179.9_-17_-179.8_-16.9_2023"
    assert name(179.7, -17, -179.8, -16.9) == "bbox_179.7_-17_-179.8_-16.9_2023"


def test_a_box_goes_on_in_the_folder_of_an_earlier_version(embed, boxes, tmp_path):
    ((name,), _) = embed("--bbox", boxes[0])
    (tmp_path / "here" / name).rename(tmp_path / "here" / "bbox_2021_null")
    found, stderr = embed("--bbox", boxes[0])
    assert found == ["bbox_2021_null"]
    assert "1 done before" in stderr
    assert len(embed("--bbox", boxes[1])[0]) == 2


def test_areas_from_standard_input_have_folders_of_their_own(embed, catalog, monkeypatch):
    import io

    west, north = catalog.origin
    for number, edge in enumerate((200, 300), start=1):
        text = json.dumps(box_geojson(west + 100, north - edge, west + 300, north - 100))
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        found, _ = embed("--aoi", "-")
        assert len(found) == number
        assert all(name.startswith("stdin_-1.5") for name in found)


def test_files_of_one_name_in_two_folders_are_told(embed, catalog, tmp_path):
    west, north = catalog.origin
    for number, edge in enumerate((200, 300)):
        path = tmp_path / str(number) / "field.geojson"
        path.parent.mkdir()
        path.write_text(json.dumps(box_geojson(west + 100, north - edge, west + 300, north - 100)))
        for again in range(2):  # the second time it is this area that the folder holds
            found, stderr = embed("--aoi", str(path))
            assert found == ["field_2021_null"]
            told = [line for line in stderr.splitlines() if "another area" in line]
            assert len(told) == (number == 1 and not again)
            assert all("--out" in line for line in told)


LONG = ("\u8349" * 200, "a" * 300, "+".join(["2023"] * 90))


@pytest.mark.parametrize("what", ["-x_2023", "..hidden", "a/b\\c:d*e?_2023", *LONG])
def test_names_that_any_disk_takes(tmp_path, what):
    path = default_out(what, "v2-medium")
    assert path.name == str(path)
    assert path.name[0] not in "-."
    assert len(path.name.encode()) <= 255
    assert not set(path.name) & set('/\\:*?"<>| ')
    (tmp_path / path).mkdir()
    assert default_out(what + "x", "v2-medium") != path


@pytest.mark.parametrize(
    ("catalogs", "reached"),
    [
        ({}, ()),
        ({"catalog": "https://stac.test"}, ()),
        ({"catalog": "http://127.0.0.1:8000/items.json"}, ("http://127.0.0.1:9", "http://localhost:9")),
        ({"radar_catalog": "http://10.1.1.1/search"}, ("http://10.1.1.2:9",)),
    ],
)
def test_the_client_of_a_run_reaches_what_the_user_named(catalogs, reached):
    given = {"layer": None, "source": "aws", "crs": None, "mask": None, **catalogs}
    request = make_request(None, (3, 50, 3.01, 50.01), 2023, None, **given)
    client = request.origin.client()
    request.origin.admit(client)
    for url in ("http://127.0.0.1:9", "http://localhost:9", "http://10.1.1.2:9", "http://169.254.169.254"):
        if url in reached:
            client.reach.check(url)
        else:
            with pytest.raises(AddressError, match="--allow-private-hosts"):
                client.reach.check(url)
