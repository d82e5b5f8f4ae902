"""What reading one whole tile of a year costs, from local files and over HTTP with a wait before each answer.

    python -m benchmarks.reading --json benchmarks/results/$(date +%F)-reading.json
    python -m benchmarks.reading --against ../before              # another checkout, in turns

The files are those of `benchmarks.catalogs` (made unless FOLDER has them: a quarter of a gigabyte), all passes of a
year over one tile. Told are the seconds on the clock from scenes to d-pixels in memory, and the processor time of the
process that reads; each measurement has one of its own. The server is another process, whose processor time is told
beside, since it takes cores away. The d-pixels are compared: all must have the same checksum.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import multiprocessing
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from benchmarks import catalogs

SIZE = 1552
"""Pixels of the landscape: a tile wherever it lies, and something around it."""
CHILD = """
import json, resource, sys, time, zlib
from pathlib import Path
import numpy as np
from tessera_cli.catalog import MPC, Scenes
from tessera_cli.extent.aoi import Aoi
from tessera_cli.extent.tiling import tile_requests
from tessera_cli.extent.window import Window
from tessera_cli.imagery import Reader, read_dpixels
from tessera_cli.net import Client

items, aoi, base = sys.argv[1:]
features = json.loads(Path(items).read_text())["features"]
for item in features:
    for asset in item["assets"].values():  # a query makes files of different passes different ones
        asset["href"] = asset["href"].replace("./", base + "/", 1) + ("?" + item["id"] if "://" in base else "")
window = Window.of_year(2023)
(request,) = tile_requests(Aoi.from_file(Path(aoi)), [window])
scenes = Scenes.from_items(features, MPC).on(request.tile, window)
reader = Reader(Client())
wall, cpu = time.perf_counter(), time.process_time()
pixels = read_dpixels(scenes, request, reader)
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
digest = 0
for each in (pixels.s2, pixels.s2_mask, pixels.s2_dates, pixels.s1_asc, pixels.s1_desc):
    digest = zlib.crc32(np.ascontiguousarray(each).view(np.uint8).reshape(-1), digest)
stats = reader.client.stats
print(json.dumps({"seconds": wall, "cpu_seconds": cpu, **stats.to_dict(),
    "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6, "digest": digest}))
"""


class Slow(asyncio.Protocol):
    """An HTTP/1.1 server of the files of a folder, which waits before each answer."""

    def __init__(self, folder: Path, latency: float) -> None:
        self.folder, self.latency, self.waiting = folder, latency, b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.waiting += data
        while b"\r\n\r\n" in self.waiting:
            head, _, self.waiting = self.waiting.partition(b"\r\n\r\n")
            asyncio.get_running_loop().call_later(self.latency, self.answer, head.decode("latin-1"))

    def answer(self, head: str) -> None:
        name = unquote(head.split(" ", 2)[1].partition("?")[0]).lstrip("/")
        size, etag, opened = _opened(self.folder / name)
        span = re.search(r"(?im)^range: bytes=(\d+)-(\d+)", head)
        first, last = (int(span[1]), min(int(span[2]), size - 1)) if span else (0, size - 1)
        body = os.pread(opened, last - first + 1, first)
        status = f"206 Partial Content\r\nContent-Range: bytes {first}-{last}/{size}" if span else "200 OK"
        said = f"HTTP/1.1 {status}\r\nContent-Type: image/tiff\r\nETag: {etag}\r\nContent-Length: {len(body)}\r\n\r\n"
        self.transport.write(said.encode() + body)


@functools.lru_cache(None)
def _opened(path: Path) -> tuple[int, str, int]:
    return path.stat().st_size, f'"{path.stat().st_mtime_ns:x}"', os.open(path, os.O_RDONLY)


def serve(folder: Path, latency: float, told: Connection) -> None:
    """Serve until something is said, and answer with the processor time in seconds."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Slow(folder, latency), "127.0.0.1", backlog=512)
        told.send(server.sockets[0].getsockname()[1])
        while await loop.run_in_executor(None, told.recv):
            told.send(time.process_time())

    asyncio.run(run())


@contextlib.contextmanager
def server(folder: Path, latency: float) -> Iterator[tuple[str, Connection]]:
    """Yield the address of a server in a process of its own, and whom to ask for its processor time."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(folder, latency, there))
    process.start()
    try:
        yield f"http://127.0.0.1:{here.recv()}", here
    finally:
        here.send(False)
        process.join()


def read(code: Path, items: Path, aoi: Path, base: str) -> dict[str, Any]:
    """Read the tile in a process of its own, by the code in a folder."""
    environment = {**os.environ, "PYTHONPATH": str(code)}
    command = [sys.executable, "-c", CHILD, str(items), str(aoi), base]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, env=environment, cwd=code)
    return dict(json.loads(done.stdout))


def make(folder: Path, cloud: float) -> tuple[Path, Path]:
    """Return the items of a year and an area of one tile, made if they are not there."""
    if not (folder / "items.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        catalogs.SIZE = SIZE
        catalogs.make_few(folder)
    (folder / "tile.geojson").write_text(json.dumps(catalogs.square(folder, 1)))
    return catalogs.make_year(folder, cloud), folder / "tile.geojson"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder", type=Path, nargs="?")
    options.add_argument("--against", type=Path, help="another checkout of the code")
    options.add_argument("--cloud", type=float, default=0.3)
    options.add_argument("--latency", type=float, default=50.0, help="Milliseconds before each answer.")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--json", type=Path)
    args = options.parse_args()
    codes = {"ours": Path.cwd()} | ({"against": args.against.resolve()} if args.against else {})
    load, rounds = os.getloadavg(), []
    with tempfile.TemporaryDirectory() as scratch:
        folder = (args.folder or Path(scratch)).resolve()
        items, aoi = make(folder, args.cloud)
        with server(folder, args.latency / 1000) as (address, told):
            for number in range(args.rounds):
                for name, code in list(codes.items())[:: -1 if number % 2 else 1]:
                    for how, base in (("local", str(folder)), ("http", address)):
                        told.send(True)
                        before = told.recv()
                        row = {"code": name, "from": how, **read(code, items, aoi, base)}
                        told.send(True)
                        row["server_cpu_seconds"] = told.recv() - before
                        rounds.append(row)
                        print(json.dumps(row), file=sys.stderr, flush=True)
    if len({row["digest"] for row in rounds}) != 1:
        raise SystemExit("the d-pixels differ")
    medians = {
        f"{name} {how}": {
            key: statistics.median(row[key] for row in rounds if (row["code"], row["from"]) == (name, how))
            for key in ("seconds", "cpu_seconds", "server_cpu_seconds", "requests", "bytes", "peak_rss_mb")
        }
        for name in codes
        for how in ("local", "http")
    }
    conditions = {
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load_average": load,
        "latency_ms": args.latency,
        "cloud": args.cloud,
    }
    print(json.dumps(medians, indent=1))
    if args.json:
        args.json.write_text(
            json.dumps({"conditions": conditions, "medians": medians, "rounds": rounds}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
