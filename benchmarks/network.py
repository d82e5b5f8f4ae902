"""What `tessera embed` asks of a server, and how long it waits for it.

    tessera simulate /tmp/cloudy --size 256 --cloud 0.7
    python -m benchmarks.network /tmp/cloudy --json benchmarks/results/$(date +%F)-network.json

The catalogue's files are served over HTTP on loopback. Bytes: those of Sentinel-2 files that a run received, against
those that reading every band of every scene over the same tiles costs, with the same reader and with GDAL's own HTTP
client (a WarpedVRT per file and tile, the way of stackstac and odc-stac). Time: a whole run, with
a wait before each answer, against the same run with one read at a time, and against the waits in a row.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import rasterio
from rasterio.vrt import WarpedVRT

from tessera_cli.catalog import MPC, Scenes, Sensor
from tessera_cli.extent.aoi import Aoi
from tessera_cli.extent.grid import Tile
from tessera_cli.extent.tiling import tile_requests
from tessera_cli.extent.window import Window
from tessera_cli.imagery import Reader
from tessera_cli.imagery.reader import Read, WarpOptions, as_it_is
from tessera_cli.net import Client
from tests.helpers.servers import Exchange, FileServer, served

EMBED = """
import functools, sys
import tessera_cli.imagery as imagery
imagery.Reader = functools.partial(imagery.Reader, threads=int(sys.argv[1]))
from tessera_cli.cli.app import run
sys.exit(run(sys.argv[2:]))
"""
MANY, ONE = 32, 1
"""Files read side by side: as always, and one after the other."""
BARS = {"bytes": 0.6, "time": 0.25}


def embed(catalog: Path, year: int, threads: int) -> tuple[float, dict]:
    """Wall time in seconds of a command in a process of its own, and its summary."""
    with tempfile.TemporaryDirectory() as out:
        command = [
            "embed",
            "--aoi",
            catalog / "aoi.geojson",
            "--year",
            year,
            "--catalog",
            catalog / "items.json",
            "--model",
            "null",
            "--out",
            out,
            "--json",
            "-q",
        ]
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", EMBED, *map(str, [threads, *command])], stdout=subprocess.PIPE, check=True, text=True
        )
        return time.monotonic() - started, json.loads(done.stdout.splitlines()[-1])


def every_band(catalog: Path, year: int) -> None:
    """Read all assets of all scenes of Sentinel-2 over the tiles of the area."""
    reader, window = Reader(Client()), Window.of_year(year)
    scenes = Scenes.from_items(json.loads((catalog / "items.json").read_text())["features"], MPC)
    for request in tile_requests(Aoi.from_file(catalog / "aoi.geojson"), [window]):
        optical = scenes.on(request.tile, window).of(Sensor.S2)
        wanted = [Read(scene, asset) for scene in optical for asset in MPC.s2_assets.values()]
        for _ in reader.layers(wanted, WarpOptions("nearest", "uint16"), request.tile, as_it_is):
            pass


def every_band_by_gdal(catalog: Path, year: int) -> None:
    """The same by GDAL alone, without listing folders, as those do who know it."""
    window, source = Window.of_year(year), MPC
    scenes = Scenes.from_items(json.loads((catalog / "items.json").read_text())["features"], source)

    def read(href: str, tile: Tile) -> None:
        with (
            rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR", CPL_VSIL_CURL_USE_HEAD="NO"),
            rasterio.open(href) as src,
            WarpedVRT(src, crs=tile.crs, transform=tile.transform, width=tile.shape[1], height=tile.shape[0]) as vrt,
        ):
            vrt.read(1)

    for request in tile_requests(Aoi.from_file(catalog / "aoi.geojson"), [window]):
        hrefs = [
            scene.item["assets"][asset]["href"]
            for scene in scenes.on(request.tile, window).of(Sensor.S2)
            for asset in source.s2_assets.values()
        ]
        with ThreadPoolExecutor(MANY) as threads:
            for _ in threads.map(functools.partial(read, tile=request.tile), hrefs):
                pass


def received(log: list[Exchange]) -> dict[str, int]:
    """Requests for files of Sentinel-2, and the bytes of their answers."""
    optical = [exchange for exchange in log if exchange.path.split("/")[1].startswith("S2")]
    return {"requests": len(optical), "bytes": sum(exchange.sent for exchange in optical)}


def measure(folder: Path, year: int, latency: float) -> dict:
    with tempfile.TemporaryDirectory() as scratch:
        catalog = Path(scratch) / "catalog"
        shutil.copytree(folder, catalog)
        with FileServer(catalog) as server:
            served(catalog / "items.json", server)
            _, summary = embed(catalog, year, MANY)
            ours = received(server.log)
            server.forget()
            every_band(catalog, year)
            everything = received(server.log)
            server.forget()
            every_band_by_gdal(catalog, year)
            by_gdal = received(server.log)
            server.latency = latency
            (seconds, waiting), (sequential, _) = (embed(catalog, year, threads) for threads in (MANY, ONE))
    requests = waiting["network"]["requests"]
    return {
        "pixels": summary["pixels"],
        "reads": summary["network"]["reads"],
        "sentinel2": {
            "run": ours,
            "every band": everything,
            "share": round(ours["bytes"] / everything["bytes"], 3),
            "every band by GDAL": by_gdal,
            "share of GDAL": round(ours["bytes"] / by_gdal["bytes"], 3),
        },
        "time": {
            "latency_ms": latency * 1000,
            "requests": requests,
            "run_s": round(seconds, 1),
            "one_at_a_time_s": round(sequential, 1),
            "waits_in_a_row_s": round(requests * latency, 1),
            "share": round(seconds / sequential, 3),
        },
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("catalog", type=Path)
    options.add_argument("--year", type=int, default=2023)
    options.add_argument("--latency", type=float, default=50.0, help="Milliseconds before each answer.")
    options.add_argument("--json", type=Path)
    args = options.parse_args()
    found = measure(args.catalog, args.year, args.latency / 1000)
    optical, waited = found["sentinel2"], found["time"]
    table = [
        ("Sentinel-2", "requests", "MB", "share", "bar"),
        ("every band of every scene", *_figures(optical["every band"]), "", ""),
        ("the same by GDAL's client", *_figures(optical["every band by GDAL"]), "", ""),
        ("a run", *_figures(optical["run"]), f"{optical['share']:.0%}", f"<= {BARS['bytes']:.0%}"),
        ("", "", "", f"{optical['share of GDAL']:.0%}", "of GDAL's"),
        ("", "", "", "", ""),
        (f"whole run, {args.latency:g} ms each", "requests", "s", "share", "bar"),
        ("one read at a time", waited["requests"], waited["one_at_a_time_s"], "", ""),
        ("a run", waited["requests"], waited["run_s"], f"{waited['share']:.0%}", f"<= {BARS['time']:.0%}"),
    ]
    for name, *columns in table:
        print(f"{name:28}" + "".join(f"{column!s:>10}" for column in columns))
    scenes = len(json.loads((args.catalog / "items.json").read_text())["features"])
    conditions = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "scenes": scenes,
    }
    if args.json:
        args.json.write_text(json.dumps({"conditions": conditions, **found}, indent=1) + "\n")


def _figures(counted: dict[str, int]) -> tuple[int, str]:
    return counted["requests"], f"{counted['bytes'] / 1e6:.2f}"


if __name__ == "__main__":
    main()
