"""The example for Dask, as it stands, and on a cluster that somebody else has started."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.conftest import REQUIRED, hashes

pytestmark = [pytest.mark.integration, pytest.mark.slow]
ROOT = Path(__file__).resolve().parents[2]

if importlib.util.find_spec("distributed") is None and not REQUIRED:
    pytest.skip("Dask is not installed: pip install 'tessera-embed[dask]'", allow_module_level=True)


def run(folder: Path, *command: object) -> str:
    """Run a program of this Python in a folder; return what it prints."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What `make demo` makes, of a smaller landscape."""
    folder = tmp_path_factory.mktemp("dask")
    run(folder, "-m", "tessera_cli", "simulate", "demo/catalog", "--size", "24")
    area = ["--aoi", "demo/catalog/aoi.geojson", "--year", "2023", "--catalog", "demo/catalog/items.json"]
    run(folder, "-m", "tessera_cli", "embed", *area, "--model", "demo", "--out", "demo/out")
    return folder


@pytest.fixture(autouse=True)
def _anew(folder):
    shutil.rmtree(folder / "demo" / "on_dask", ignore_errors=True)


def test_workers_of_its_own(folder):
    assert "demo/on_dask/utm31n_2023.vrt" in run(folder, ROOT / "examples" / "on_dask.py")
    assert hashes(folder / "demo" / "on_dask") == hashes(folder / "demo" / "out")


def test_a_cluster_that_is_there(folder):
    """Any scheduler's address: what `dask scheduler` and `dask worker` of two machines give."""
    starting = "from distributed import LocalCluster; import sys\nif __name__ == '__main__':\n    "
    starting += "cluster = LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None)\n    "
    starting += "print(cluster.scheduler_address, flush=True); sys.stdin.read()"
    (folder / "cluster.py").write_text(starting)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, folder / "cluster.py"],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as cluster:
        assert cluster.stdin
        assert cluster.stdout
        address = cluster.stdout.readline().strip()
        assert address.startswith("tcp://127.0.0.1:")
        run(folder, ROOT / "examples" / "on_dask.py", address)
        cluster.stdin.close()
    assert hashes(folder / "demo" / "on_dask") == hashes(folder / "demo" / "out")
