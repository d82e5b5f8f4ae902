"""Estimate what a run would read, write and cost, from the scene search alone: no pixel is read."""

from __future__ import annotations

import dataclasses
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tessera_cli.catalog import Scene, Scenes, Sensor, Source
from tessera_cli.dpixels.coverage import Coverage
from tessera_cli.extent.grid import TILE_SIZE
from tessera_cli.extent.place import Place
from tessera_cli.extent.window import Window
from tessera_cli.imagery import OFFICIAL, Preprocessing
from tessera_cli.models.spec import ModelSpec
from tessera_cli.runs.folder import TileFolder
from tessera_cli.runs.scene_search import SceneSearch

S2_TILE_BYTES = (4 * TILE_SIZE**2 + 6 * (TILE_SIZE // 2) ** 2) * 2
SCL_TILE_BYTES = (TILE_SIZE // 2) ** 2
S1_TILE_BYTES = 2 * TILE_SIZE**2 * 4
S2_PACKED, S1_PACKED = 0.65, 0.8
"""Typical size of compressed blocks against raw pixels."""
MATMUL_SHARE = 0.8
"""Share of the matrix-product rate that encoding reaches on a CPU: a planning figure. AMD: more."""
OUTPUT_PACKED = 0.9


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
    """CRS -> `areas`, `tiles`, `pixels`"""
    windows: dict[str, dict[str, SensorPlan]]
    """Window -> sensor -> what is listed"""
    skipped: dict[str, int]
    incomplete: dict[str, str]
    """Scene id -> why it cannot be used, as far as its item tells: a missing scene before anything is read."""
    read_bytes: int
    """An upper bound, reached if every listed scene is needed."""
    write_bytes: int
    free_bytes: int
    encode_seconds: float | None
    """On this machine's CPU; None for a model without a network."""
    tokens_per_pixel: float
    missing_credentials: tuple[str, ...] = ()

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
    read, tokens = 0.0, [0.0, 0.0]
    for tile_request in search.tile_requests:
        on_tile = scenes.on(*tile_request.on_grid())
        optical = on_tile.of(Sensor.S2)
        radar = on_tile.of(*_radar(request.source))
        useful = [s for s in optical if (s.cloud_cover or 0) < 99]
        read += S2_PACKED * (len(optical) * SCL_TILE_BYTES + len(useful) * S2_TILE_BYTES)
        read += S1_PACKED * len(radar) * S1_TILE_BYTES / (9 if request.source.granules else 1)  # 30 m
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
        skipped=dict(scenes.skipped),
        incomplete={
            scene.id: why
            for scene in scenes.scenes
            if (why := scene.defect or preprocessing.unusable(scene, request.source))
        },
        read_bytes=round(read),
        write_bytes=round(pixels * (dims * OUTPUT_PACKED + 10)),
        free_bytes=shutil.disk_usage(_existing(out)).free,
        encode_seconds=_seconds(spec, tokens, pixels, threads),
        tokens_per_pixel=round(sum(tokens), 1),
        missing_credentials=missing_credentials,
    )


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
