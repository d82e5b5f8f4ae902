"""Estimate what a run would read, write and cost, from the scene search alone: no pixel is read."""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tessera_cli.catalog import Scene, Scenes, Sensor, Source
from tessera_cli.dpixels.coverage import Coverage
from tessera_cli.dpixels.dpixel import S2_BANDS
from tessera_cli.extent.grid import TILE_SIZE
from tessera_cli.extent.place import Place
from tessera_cli.extent.window import Window
from tessera_cli.imagery import OFFICIAL, Preprocessing
from tessera_cli.models.spec import ModelSpec
from tessera_cli.net.address import AddressError, local_path
from tessera_cli.runs.fit import embeddings_bytes
from tessera_cli.runs.folder import TileFolder
from tessera_cli.runs.scene_counts import DatesByTile
from tessera_cli.runs.scene_search import SceneSearch

FINE_BANDS = ("B02", "B03", "B04", "B08")
S2_TILE_BYTES = {band: 2 * (TILE_SIZE if band in FINE_BANDS else TILE_SIZE // 2) ** 2 for band in S2_BANDS}
SCL_TILE_BYTES = (TILE_SIZE // 2) ** 2
S1_TILE_BYTES = TILE_SIZE**2 * 4
"""Of one band, on one tile."""
S2_PACKED, S1_PACKED = 0.65, 0.8
"""Typical size of compressed blocks against raw pixels."""
MATMUL_SHARE = 0.8
"""Share of the matrix-product rate that encoding reaches on a CPU: a planning figure. AMD: more."""


@dataclass(frozen=True)
class SensorPlan:
    """Scenes that the catalogue lists for one sensor (and orbit) in one window."""

    scenes: int
    by_month: dict[str, int]
    """`2023-01` -> dates"""
    coverage: Coverage
    """The dates, each counted once."""

    @classmethod
    def of(cls, scenes: Sequence[Scene], window: Window) -> SensorPlan:
        dates = sorted({s.date for s in scenes})
        return cls(len(scenes), dict(Counter(f"{d:%Y-%m}" for d in dates)), Coverage.of(dates, window))

    def to_dict(self) -> dict[str, Any]:
        seen = self.coverage.to_dict()
        return {"scenes": self.scenes, "dates": seen.pop("frames"), **seen, "by_month": self.by_month}


@dataclass(frozen=True)
class Plan:
    """Estimate of `tessera plan`: tiles, scenes, bytes and time of a run."""

    tiles: int
    pixels: int
    areas: int
    """Features of the AOI."""
    place: Place
    """Where the area lies, and how large it is."""
    zones: dict[str, int]
    """CRS -> tiles"""
    by_zone: dict[str, dict[str, int]]
    """CRS -> `areas` or `points`, `tiles`, `pixels`"""
    windows: dict[str, dict[str, SensorPlan]]
    """Window -> sensor -> what is listed"""
    tile_dates: dict[str, dict[str, DatesByTile]]
    """Window -> sensor (s2, s1) -> the dates of its tiles: the fewest, and the tiles without any."""
    skipped: dict[str, int]
    incomplete: dict[str, str]
    """Scene id -> why it cannot be used, as far as its item tells: a missing scene before anything is read."""
    read_bytes: int
    """An upper bound, reached if every listed scene is needed; no file counts for more than it holds."""
    write_bytes: int
    free_bytes: int
    encode_seconds: float | None
    """On this machine's CPU; None for a model without a network."""
    tokens_per_pixel: float
    missing_credentials: tuple[str, ...] = ()
    points: int = 0
    """Points, in place of areas."""

    def to_dict(self) -> dict[str, Any]:
        windows = {
            window: {name: sensor.to_dict() for name, sensor in sensors.items()}
            for window, sensors in self.windows.items()
        }
        return {**dataclasses.asdict(self), "place": self.place.to_dict(), "windows": windows}


def plan(
    search: SceneSearch,
    spec: ModelSpec,
    dims: int,
    out: Path,
    *,
    freeze: bool = False,
    preprocessing: Preprocessing = OFFICIAL,
    threads: int = 1,
    missing_credentials: tuple[str, ...] = (),
) -> Plan:
    """Count and estimate. `out` tells which disk is meant; with `freeze`, the scene list is written there as well."""
    request, scenes = search.request, preprocessing.select(search.scenes)
    if freeze:
        TileFolder(out).start_run(request.digest, search.record(), search.to_freeze)
    tiles = list(dict.fromkeys(tile_request.tile for tile_request in search.tile_requests))
    pixels = sum(tile_request.count for tile_request in search.tile_requests)
    reads: Counter[str] = Counter()
    tokens = [0.0, 0.0]
    for tile_request in search.tile_requests:
        on_tile = scenes.on(*tile_request.on_grid())
        optical = on_tile.of(Sensor.S2)
        radar = on_tile.of(*_radar(request.source))
        reads.update(scene.id for scene in (*optical, *radar))
        share = tile_request.count / max(pixels, 1)
        tokens[0] += share * _expected_clear(optical)
        tokens[1] += share * len({(s.date, s.sensor) for s in radar})
    return Plan(
        tiles=len(tiles),
        pixels=pixels,
        areas=len(request.aoi.features),
        place=request.place,
        by_zone=search.zones,
        zones=dict(Counter(str(tile.crs) for tile in tiles)),
        windows={w.name: _by_sensor(scenes, w) for w in request.windows},
        tile_dates={window: dict(sensors) for window, sensors in search.tile_dates.items()},
        skipped=dict(scenes.skipped),
        incomplete={
            scene.id: why
            for scene in scenes.scenes
            if (why := scene.defect or preprocessing.unusable(scene, request.source))
        },
        read_bytes=round(sum(_read_bytes(scene, reads[scene.id], scenes.source) for scene in scenes.scenes)),
        write_bytes=round(embeddings_bytes(pixels, dims)),
        free_bytes=shutil.disk_usage(_existing(out)).free,
        encode_seconds=_seconds(spec, tokens, pixels, threads),
        tokens_per_pixel=round(sum(tokens), 1),
        missing_credentials=missing_credentials,
        points=0 if request.aoi.features else len(request.aoi.points),
    )


def _read_bytes(scene: Scene, tiles: int, source: Source) -> float:
    """Return what reading a scene on so many tiles takes, of each file at most its size."""
    if scene.sensor is not Sensor.S2:
        one = S1_PACKED * S1_TILE_BYTES / (9 if source.granules else 1)  # 30 m
        expected = dict.fromkeys(source.s1_assets.values(), one)
    else:
        expected = {source.scl_asset: S2_PACKED * SCL_TILE_BYTES}
        if (scene.cloud_cover or 0) < 99:
            expected |= {source.s2_assets[band]: S2_PACKED * size for band, size in S2_TILE_BYTES.items()}
    assets = scene.item["assets"]
    return sum(min(tiles * one, _size(assets[key])) for key, one in expected.items() if key in assets)


def _size(asset: Mapping[str, Any]) -> float:
    """Return the size of a file that the catalogue tells or this machine holds; infinity if it is not known."""
    if isinstance(size := asset.get("file:size"), int) and size > 0:
        return size
    with suppress(OSError, AddressError):
        return Path(local_path(asset["href"])).stat().st_size
    return math.inf


def _by_sensor(scenes: Scenes, window: Window) -> dict[str, SensorPlan]:
    within = scenes.within(window)
    sensors = (Sensor.S2, *_radar(scenes.source))
    return {sensor.value: SensorPlan.of(within.of(sensor), window) for sensor in sensors}


def _radar(source: Source) -> tuple[Sensor, ...]:
    """Return the radar sensors that a catalogue tells apart: by orbit direction, unless only the files tell it."""
    return (Sensor.S1,) if source.granules else (Sensor.S1_ASC, Sensor.S1_DESC)


def _expected_clear(scenes: Iterable[Scene]) -> float:
    """Return the clear observations of a pixel to expect from the scenes' cloud cover."""
    best: dict[Any, float] = {}
    for scene in scenes:
        best[scene.date] = max(best.get(scene.date, 0.0), 1 - (scene.cloud_cover or 0) / 100)
    return sum(best.values())


def _seconds(spec: ModelSpec, tokens: Sequence[float], pixels: int, threads: int) -> float | None:
    if spec.config is None:
        return None
    from tessera_cli.models.precision import matmul_rate, torch_settings

    rule = spec.observations
    flop = pixels * rule.repeats * spec.config.flop_per_pixel(*rule.lengths(*tokens))
    with torch_settings(1):
        rate = matmul_rate("fp32", "cpu", 768)
    return round(flop / (MATMUL_SHARE * threads * rate), 1)


def _existing(path: Path) -> Path:
    path = path.resolve()
    return path if path.exists() else _existing(path.parent)
