"""What other libraries read from the environment, in processes of their own: they read it when they are imported."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import rasterio

from tessera_cli import environment

OWN = Path(rasterio.__file__).parent / "proj_data" / "proj.db"
wheel = pytest.mark.skipif(not OWN.exists(), reason="rasterio shares the system's PROJ")


def process(code, folder, remove=(), **variables):
    """Run Python code in a folder: what it prints as JSON."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PROJ_LIB", "PROJ_DATA", *remove)}
    path = os.pathsep.join(p for p in (str(Path(environment.__file__).parents[2]), kept.get("PYTHONPATH")) if p)
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**kept, "PYTHONPATH": path, **variables},
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def database(folder, minor):
    """A folder of PROJ data like our own, but of another layout."""
    folder.mkdir()
    shutil.copy(OWN, folder)
    db = sqlite3.connect(folder / "proj.db")
    db.execute("UPDATE metadata SET value = ? WHERE key = 'DATABASE.LAYOUT.VERSION.MINOR'", (str(minor),))
    db.commit()
    db.close()
    return folder


@wheel
@pytest.mark.parametrize("name", ["PROJ_LIB", "PROJ_DATA"])
@pytest.mark.parametrize("kind", ["older", "absent", "no database", "empty"])
def test_data_of_another_proj_is_left_out(tmp_path, name, kind):
    data = {"older": lambda: database(tmp_path / "proj", 1), "absent": lambda: "/nonexistent", "empty": lambda: ""}
    if kind == "no database":
        (tmp_path / "proj.db").write_text("no database")
    environ = {name: str(data.get(kind, lambda: tmp_path)()), "OTHER": "x"}
    environment.settle(environ)
    assert environ == {"OTHER": "x"}
    assert name in environment.SETTLED.pop()


@wheel
def test_data_that_proj_can_read_is_kept(tmp_path):
    """Somebody may have laid grids beside it."""
    given = {"PROJ_DATA": os.pathsep.join(["/nonexistent", str(database(tmp_path / "proj", 99))])}
    environment.settle(environ := dict(given))
    assert environ == given
    assert environment.SETTLED == []


@wheel
def test_gdal_s_own_data_is_used():
    environ = {"GDAL_DATA": "/opt/gdal/share", "GDAL_DRIVER_PATH": "/opt/gdal/plugins", "GDAL_CACHEMAX": "64"}
    environment.settle(environ)
    assert environ == {"GDAL_CACHEMAX": "64"}
    assert [environment.SETTLED.pop()[:9] for _ in range(2)] == ["GDAL_DRIV", "GDAL_DATA"]


def test_builds_without_data_of_their_own_need_the_variables(tmp_path, monkeypatch):
    package = tmp_path / "rasterio"
    package.mkdir()
    (package / "__init__.py").touch()
    code = (
        "import json, os, sys; sys.path.insert(0, os.getcwd()); import tessera_cli; "
        "print(json.dumps([os.environ.get(n) for n in ('PROJ_LIB', 'GDAL_DATA')]))"
    )
    assert process(code, tmp_path, PROJ_LIB="/usr/share/proj", GDAL_DATA="/usr/share/gdal") == [
        "/usr/share/proj",
        "/usr/share/gdal",
    ]


@wheel
def test_projections_work_beside_another_installation(tmp_path):
    """However the package is used: here from Python."""
    code = (
        "import json, tessera_cli; tessera_cli.open_dpixels; import rasterio.warp as w; "
        "print(json.dumps(w.transform('EPSG:4326', 'EPSG:32631', [3.0], [50.0])))"
    )
    wrong = {"PROJ_LIB": str(database(tmp_path / "proj", 1)), "GDAL_DATA": "/nonexistent"}
    assert process(code, tmp_path, **wrong) == [[pytest.approx(500_000)], [pytest.approx(5_538_630.7, abs=1)]]


@wheel
def test_a_command_says_what_it_left_out(catalog, tmp_path):
    command = [sys.executable, "-m", "tessera_cli", "embed", *catalog.options(tmp_path / "out"), "-v"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PROJ_LIB": "/nonexistent"})
    assert done.returncode == 0, done.stderr
    assert "PROJ_LIB=/nonexistent is ignored" in done.stderr


NOBODY = "import pwd\ndef unknown(uid): raise KeyError(uid)\npwd.getpwuid = unknown\nimport json\n"


def test_without_a_home_folder_nothing_is_written_here(tmp_path):
    """As in a container that runs as a user whom it does not know."""
    code = NOBODY + (
        "import tessera_cli; from tessera_cli.config import earthdata; from tessera_cli.models import hub, weights\n"
        "from huggingface_hub import constants; from planetary_computer.settings import Settings\n"
        "Settings.get(); weights.released()\n"
        "print(json.dumps([constants.HF_HUB_CACHE, earthdata({}).given]))"
    )
    home = ("HOME", "HF_HOME", "XDG_CACHE_HOME", "NETRC")
    assert process(code, tmp_path, home) == ["/nonexistent/.cache/huggingface/hub", False]
    assert process(code, tmp_path, home, HF_HOME="/weights")[0] == "/weights/hub"
    assert list(tmp_path.iterdir()) == []


def test_a_home_folder_of_nobody_in_a_path(tessera):
    code, _, stderr = tessera(
        *("plan", "--bbox", "3", "50", "3.01", "50.01", "--year", "2023", "--catalog", "~nobody-here/items.json")
    )
    assert code == 2
    assert "~nobody-here/items.json does not exist" in stderr


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_authorities_for_one_client_are_trusted_by_all(tmp_path, name):
    environ = {name: "/etc/authority.pem"}
    environment.settle(environ)
    assert environ["SSL_CERT_FILE"] == "/etc/authority.pem"
    assert environ.get("REQUESTS_CA_BUNDLE", environ.get("CURL_CA_BUNDLE")) == "/etc/authority.pem"


def test_what_the_user_set_for_a_client_stays(tmp_path):
    environ = {"SSL_CERT_FILE": "a.pem", "CURL_CA_BUNDLE": "b.pem"}
    environment.settle(environ)
    assert environ == {"SSL_CERT_FILE": "a.pem", "CURL_CA_BUNDLE": "b.pem"}
    environ = {"REQUESTS_CA_BUNDLE": str(tmp_path)}
    environment.settle(environ)
    assert environ == {"REQUESTS_CA_BUNDLE": str(tmp_path), "SSL_CERT_DIR": str(tmp_path)}
