"""How fast local files become d-pixels, alone and beside others that load everything."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from isal import isal_zlib
from rasterio.windows import Window as PixelWindow

from tessera_cli.bench.peers import Load, get_peer
from tessera_cli.bench.subjects import catalog_folder, read_items
from tessera_cli.catalog import MPC, Scene, Scenes, Sensor, by_date
from tessera_cli.dpixels.dpixel import SENSORS, DPixels
from tessera_cli.extent.aoi import Aoi
from tessera_cli.extent.grid import TileRequest
from tessera_cli.extent.tiling import tile_requests
from tessera_cli.imagery import OFFICIAL, Reader, read_dpixels, sentinel1, sentinel2
from tessera_cli.imagery.blocks import block_windows
from tessera_cli.imagery.files import Files
from tessera_cli.imagery.geotiff import GeoTiffFile
from tessera_cli.imagery.tiff import find_blocks
from tessera_cli.net import Client

CLOUD = 0.6
"""Mean share of cloud of the catalogue that is made if none is given."""

Frames = Mapping[str, Mapping[Any, np.ndarray]]
"""Sensor -> date -> values (H, W, bands) of a tile; 0 where there is none."""


def measure(catalog: Path | None = None, *, rounds: int = 5, baseline: str | None = None) -> dict[str, Any]:
    """Seconds from the files of a catalogue of `tessera simulate` to the d-pixels of its AOI; None: it is made first.

    With a `baseline`, our assembly takes turns with that one, in this process: per tile SCL and the ten bands of every
    Sentinel-2 scene and VV and VH of every radar scene are loaded onto the tile's grid, by `odc.stac.load` (`eager`:
    one file after the other, `odc-pool`: in threads, `odc-dask`: by Dask in threads) or by stackstac, and then come
    masks, mosaics, offset and decibels by numpy, by the same rules. Search and parsing of items are outside the clock
    for both. Both must give the same dates, the same masks and the same numbers in every pixel of the AOI; `agreement`
    counts the values that were compared and those that differ.

    Returns what JSON can hold; seconds are medians. Raises UsageError if there is no such catalogue, or if the baseline
    is not installed.
    """
    load = None if baseline is None else get_peer(baseline)
    with catalog_folder(catalog, cloud=CLOUD) as folder:
        jobs = _jobs(folder, parse=load is not None)
        clocked: dict[str, list[float]] = {"ours": [], "theirs": []}
        agreement = None
        for number in range(rounds):
            turns: list[tuple[str, Callable[[], Any]]] = [("ours", lambda: _read(jobs, Reader(Client())))]
            if load is not None:
                turns.append(("theirs", lambda: [_everything(job, load) for job in jobs]))
            made: dict[str, Any] = {}
            for name, work in turns if number % 2 == 0 else turns[::-1]:
                started = time.perf_counter()
                made[name] = work()
                clocked[name].append(time.perf_counter() - started)
            if load is not None and agreement is None:
                agreement = _agreement(jobs, made["ours"], made["theirs"])
        traced = _traced(jobs)
    ours, theirs = clocked["ours"], clocked["theirs"]
    seconds, pixels = statistics.median(ours), sum(int(job.request.pixels.sum()) for job in jobs)
    return {
        "tiles": len(jobs),
        "pixels": pixels,
        "scenes": sum(len(job.scenes) for job in jobs),
        "seconds": round(seconds, 4),
        "pixels_per_second": round(pixels / seconds, 1),
        "read_us": round(1e6 * seconds / traced["reads"], 1),
        **traced,
        "baseline": baseline,
        "baseline_seconds": round(statistics.median(theirs), 4) if theirs else None,
        "speedup_over_baseline": round(statistics.median(theirs) / seconds, 2) if theirs else None,
        "agreement": agreement,
        "rounds": [
            {"seconds": round(one, 4), **({"baseline_seconds": round(theirs[i], 4)} if theirs else {})}
            for i, one in enumerate(ours)
        ],
    }


@dataclass(frozen=True, eq=False)
class _Job:
    """One tile in one window."""

    request: TileRequest
    scenes: Scenes
    items: Mapping[str, Any]
    """Scene id -> pystac.Item, for others; empty if none takes part."""


def _jobs(folder: Path, *, parse: bool) -> list[_Job]:
    items, window = read_items(folder)
    for item in items:
        for asset in item["assets"].values():
            asset["href"] = str((folder / asset["href"]).resolve())
    scenes = Scenes.from_items(items, MPC)
    requests = tile_requests(Aoi.from_file(folder / "aoi.geojson"), [window])
    parsed: dict[str, Any] = {}
    if parse:
        import pystac

        parsed = {scene.id: pystac.Item.from_dict(dict(scene.item)) for scene in scenes.scenes}
    return [_Job(request, scenes.on(*request.on_grid()), parsed) for request in requests]


def _read(jobs: Sequence[_Job], reader: Reader) -> list[DPixels]:
    return [read_dpixels(job.scenes, job.request, reader) for job in jobs]


def _everything(job: _Job, load: Load) -> Frames:
    """All bands of all scenes, and then only what is clear."""
    (tile, _), source, wanted = job.request.on_grid(), MPC, job.request.pixels

    def loaded(scenes: Sequence[Scene], assets: Sequence[str], dtype: str) -> dict[str, np.ndarray]:
        how = dict.fromkeys(assets, source.s1_resampling if dtype == "float32" else "bilinear")
        how |= {source.scl_asset: "nearest"} if source.scl_asset in assets else {}
        return load([job.items[scene.id] for scene in scenes], assets, tile, dtype, how)

    optical = job.scenes.of(Sensor.S2)
    found = loaded(optical, [source.scl_asset, *source.s2_band_assets], "uint16")
    bands = np.stack([found[asset] for asset in source.s2_band_assets], axis=-1)
    clear = sentinel2.clear(found[source.scl_asset]) & wanted
    frames: dict[str, dict[Any, np.ndarray]] = {sensor: {} for sensor in SENSORS}
    number = 0
    for date, group in by_date(optical):
        frame, free = np.zeros(bands.shape[1:], bands.dtype), np.ones(wanted.shape, bool)
        for scene in group:
            won = clear[number] & free
            frame[won] = OFFICIAL.correct(bands[number], scene, source.scl_asset, source)[won]
            free &= ~won
            number += 1
        if not free.all():
            frames["s2"][date] = np.concatenate([frame, ~free[..., None]], axis=-1)
    for sensor, kind in (("s1_asc", Sensor.S1_ASC), ("s1_desc", Sensor.S1_DESC)):
        radar = job.scenes.of(kind)
        if not radar:
            continue
        assets = (source.s1_assets["VV"], source.s1_assets["VH"])
        found = loaded(radar, assets, "float32")
        power = np.stack([found[asset] for asset in assets], axis=-1)
        number = 0
        for date, group in by_date(radar):
            merged = np.zeros(power.shape[1:], np.int16)
            for _ in group:
                scaled = sentinel1.scale(power[number], source.s1_arithmetic)
                merged = np.where(merged == 0, scaled, merged)
                number += 1
            merged[~wanted] = 0
            if merged.any():
                frames[sensor][date] = merged
    return frames


def _agreement(jobs: Sequence[_Job], ours: Sequence[DPixels], theirs: Sequence[Frames]) -> dict[str, int]:
    compared = different = 0
    for job, dpixels, frames in zip(jobs, ours, theirs, strict=True):
        wanted = job.request.pixels
        for sensor in SENSORS:
            values, dates = getattr(dpixels, sensor), dpixels.dates[sensor].tolist()
            if sensor == "s2":
                values = np.concatenate([values, dpixels.s2_mask[..., None]], axis=-1, dtype=np.uint16)
            nothing = np.zeros(values.shape[1:], values.dtype)
            for date in {*dates, *frames[sensor]}:
                mine = values[dates.index(date)] if date in dates else nothing
                other = frames[sensor].get(date, nothing)
                compared += int(wanted.sum()) * values.shape[-1]
                different += int((mine[wanted] != other[wanted]).sum())
    return {"values": compared, "different": different}


def _traced(jobs: Sequence[_Job]) -> dict[str, Any]:
    """One more round with one file at a time: processor time per read by stage, and what decompressing alone takes.

    `headers`: finding out what the file is; `pixels`: reading and decoding its blocks (by GDAL if they are unusual);
    `rest`: the tile's grid, masks, mosaics, all that is done by numpy.
    """
    files = _TimedFiles(Client())
    reader = Reader(files.client, threads=1, files=files)
    started = time.process_time()
    _read(jobs, reader)
    seconds = time.process_time() - started
    reads = reader.client.stats.to_dict()["reads"]["read"]
    spent = {**files.seconds, "rest": seconds - sum(files.seconds.values())}
    floor, decoded = 0.0, 0
    for path, wanted in files.log:
        data = path.read_bytes()
        blocks = find_blocks(lambda start, length, data=data: data[start : start + length])  # type: ignore[misc]
        for n in blocks.written(wanted(blocks.block)) if blocks.deflated else ():
            stream = data[int(blocks.starts[n]) : int(blocks.starts[n] + blocks.lengths[n])]
            started = time.thread_time()
            decoded += len(isal_zlib.decompress(stream))
            floor += time.thread_time() - started
    return {
        "reads": reads,
        "megabytes_decoded": round(decoded / 1e6, 2),
        "cpu_us_per_read": {stage: round(1e6 * value / reads, 1) for stage, value in spent.items()},
        "decompressing_us_per_read": round(1e6 * floor / reads, 1),
    }


class _TimedFiles(Files):
    """For one thread."""

    def __init__(self, client: Client) -> None:
        super().__init__(client)
        self.seconds = {"headers": 0.0, "pixels": 0.0}
        self.log: list[tuple[Path, Callable[[tuple[int, int]], list[PixelWindow]]]] = []
        """Path, and block size -> the windows that were read."""

    def open(self, href: str, *, anew: bool = False) -> GeoTiffFile:
        with self.at("headers"):
            file = super().open(href, anew=anew)
        return _TimedFile(**vars(file), path=Path(href), files=self)

    @contextmanager
    def at(self, stage: str) -> Iterator[None]:
        started = time.thread_time()
        yield
        self.seconds[stage] += time.thread_time() - started


@dataclass(frozen=True, eq=False)
class _TimedFile(GeoTiffFile):
    path: Path
    files: _TimedFiles

    def pixels(self, window: PixelWindow, pixel_windows: np.ndarray | None = None) -> np.ndarray:
        self.files.log.append((self.path, lambda block: list(block_windows(pixel_windows, window, block))))
        with self.files.at("pixels"):
            return super().pixels(window, pixel_windows)
