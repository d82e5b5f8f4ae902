"""What `tessera info FOLDER` says first, and what it keeps for -v."""

import json
import re

import numpy as np
import pytest


@pytest.fixture
def out(catalog, tessera, tmp_path):
    assert tessera("embed", *catalog.options(tmp_path / "out"))[0] == 0
    return tmp_path / "out"


def test_a_folder_in_the_words_of_a_person(out, tessera):
    code, text, _ = tessera("info", out)
    assert code == 0
    lines = dict(line.split(maxsplit=1) for line in text.splitlines() if not line.startswith(" "))
    assert list(lines)[:3] == ["folder", "holds", "place"]
    assert lines["folder"] == str(out)
    assert lines["holds"] == "embeddings by null"
    assert lines["place"] == "around 1.5463 W 52.3397 N"
    assert lines["time"] == "2021"
    assert lines["tiles"] == "2 done; complete"
    assert "km2), 128 bands, int8" in lines["pixels"]
    assert str(out / "utm30n_2021.vrt") in text
    assert f'open_embeddings("{out}")' in text
    for anatomy in ("weights_sha256", "format_version", "model_config", "by_tile", "utm30n_c0117"):
        assert anatomy not in text
    whole = tessera("info", "-v", out)[1]
    for anatomy in ("weights_sha256", "format_version", "by_tile", "utm30n_c0117"):
        assert anatomy in whole


def test_the_place_is_that_of_the_catalogue(out, tessera, catalog):
    import shapely

    middle = shapely.from_geojson(catalog.aoi.read_text()).centroid
    place = json.loads(tessera("info", "--json", out)[1])["place"]
    assert place["lon"] == pytest.approx(middle.x, abs=1e-3)
    assert place["lat"] == pytest.approx(middle.y, abs=1e-3)


def test_a_folder_that_is_not_complete_says_why(catalog, tessera, tmp_path):
    out = tmp_path / "out"
    broken = next((catalog.folder / "cogs").rglob("B02.tif"), None) or next((catalog.folder / "cogs").rglob("*B02*"))
    broken.unlink()
    assert tessera("embed", *catalog.options(out))[0] == 4
    text = tessera("info", out)[1]
    assert "2 failed; not complete" in text
    assert text.count("failed utm30n_") == 2
    assert "absent" in text


def test_a_folder_of_d_pixels_names_the_next_command(catalog, tessera, tmp_path):
    options = catalog.options(tmp_path / "out")
    assert tessera("fetch", *options[: options.index("--threads")])[0] == 0
    text = tessera("info", tmp_path / "out")[1]
    assert "d-pixels, source mpc" in text
    assert "tessera embed --dpixels" in text
    assert "preprocessing" not in text


def test_arrays_are_opened_with_numpy(catalog, tessera, tmp_path):
    assert tessera("embed", *catalog.options(tmp_path / "out"), "--format", "npy")[0] == 0
    told = " ".join(tessera("info", tmp_path / "out")[1].split())
    values, scales = re.search(r"numpy\.load of (\S+) \(and of (\S+)\)", told).groups()
    assert np.load(values).dtype == np.int8
    assert np.load(tmp_path / "out" / scales).dtype == np.float32


def test_middles_across_the_antimeridian():
    from tessera_cli.extent.grid import to_utm
    from tessera_cli.inspection.folder_info import _place

    east, west = to_utm(32760).transform(179.9, -17.0), to_utm(32701).transform(-179.9, -17.0)
    runs = [{"areas": {"32760": [*east, *east]}}, {"areas": {"32701": [*west, *west]}}]
    place = _place(runs)
    assert abs(place["lon"]) == pytest.approx(180, abs=1e-3)
    assert place["lat"] == pytest.approx(-17, abs=1e-3)
    assert _place([{"names": []}]) == {}
