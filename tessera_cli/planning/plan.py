"""Estimate what a run would read, write and cost, from the scene search alone: no pixel is read."""

from __future__ import annotations

import dataclasses
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tessera_cli.catalog import Scene, Scenes, Sensor, Source
from tessera_cli.dpixels.coverage import Coverage
from tessera_cli.extent.place import Place
from tessera_cli.extent.window import Window
from tessera_cli.folders.folder import TileFolder
from tessera_cli.imagery import OFFICIAL, Preprocessing
from tessera_cli.models.spec import ModelSpec
from tessera_cli.planning.costs import Expected, frozen_costs, reads
from tessera_cli.planning.footprints import write_footprints
from tessera_cli.planning.overlaps import Overlaps
from tessera_cli.planning.scene_counts import DatesByTile
from tessera_cli.planning.scene_search import SceneSearch
from tessera_cli.planning.shard import shares_of
from tessera_cli.planning.volumes import Volumes, embeddings_bytes

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
class ShardPlan:
    """What one share of a run costs."""

    tiles: int
    """In each window."""
    pixels: int
    read_bytes: int
    """At most, as that of the whole; what shares read of the same file counts for each."""
    encode_seconds: float | None
    """On this machine's CPU."""


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
    shards: tuple[ShardPlan, ...] = ()
    """What each share of `--shard` costs, where it was asked for."""

    def to_dict(self) -> dict[str, Any]:
        windows = {
            window: {name: sensor.to_dict() for name, sensor in sensors.items()}
            for window, sensors in self.windows.items()
        }
        made = {**dataclasses.asdict(self), "place": self.place.to_dict(), "windows": windows}
        shards = [{"shard": f"{n}/{len(self.shards)}", **each} for n, each in enumerate(made.pop("shards"), start=1)]
        return {**made, **({"shards": shards} if shards else {})}


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
    shards: int | None = None,
    footprints: Path | None = None,
) -> Plan:
    """Count and estimate. `out` tells which disk is meant; with `freeze`, the scene list is written there as well.

    `shards`: also for each of so many shares. `footprints`: where to write the tiles as GeoJSON.
    """
    request, scenes = search.request, preprocessing.select(search.scenes)
    if freeze:
        TileFolder(out).start_run(request.digest, search.record(), search.to_freeze)
    requests, out_exists = search.tile_requests, _existing(out)
    tiles = list(dict.fromkeys(tile_request.tile for tile_request in requests))
    overlaps = search.overlaps if scenes is search.scenes else Overlaps.of(scenes, requests)
    expected, volumes, encoding = Expected.of(overlaps, requests), Volumes.of(scenes), _Encoding(spec, threads)
    shares = None if shards is None else shares_of(_costs(search, out), shards)
    if footprints is not None:
        seconds = [encoding.seconds(expected.tokens([n]), request.count) for n, request in enumerate(requests)]
        write_footprints(footprints, requests, expected, seconds, shares)

    def share(number: int | None) -> ShardPlan:
        """Return what one share costs; of None, the whole."""
        chosen = np.flatnonzero(np.array(shares) == number) if number else np.arange(len(requests))
        pixels, tokens = int(expected.pixels[chosen].sum()), expected.tokens(chosen)
        counts = reads(overlaps, [requests[n] for n in chosen])
        return ShardPlan(len(chosen), pixels, volumes.bytes(counts), encoding.seconds(tokens, pixels))

    whole, tokens = share(None), expected.tokens(np.arange(len(requests)))
    pixels = whole.pixels
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
        read_bytes=whole.read_bytes,
        write_bytes=round(embeddings_bytes(pixels, dims)),
        free_bytes=shutil.disk_usage(out_exists).free,
        encode_seconds=whole.encode_seconds,
        tokens_per_pixel=round(sum(tokens), 1),
        missing_credentials=missing_credentials,
        points=0 if request.aoi.features else len(request.aoi.points),
        shards=tuple(share(number + 1) for number in range(shards or 0)),
    )


def _by_sensor(scenes: Scenes, window: Window) -> dict[str, SensorPlan]:
    within = scenes.within(window)
    sensors = (Sensor.S2, *_radar(scenes.source))
    return {sensor.value: SensorPlan.of(within.of(sensor), window) for sensor in sensors}


def _radar(source: Source) -> tuple[Sensor, ...]:
    """Return the radar sensors that a catalogue tells apart: by orbit direction, unless only the files tell it."""
    return (Sensor.S1,) if source.granules else (Sensor.S1_ASC, Sensor.S1_DESC)


def _costs(search: SceneSearch, out: Path) -> list[int]:
    """Return what the tiles cost, by which a run into `out` cuts its shares."""
    costs = frozen_costs(TileFolder(out), search.request.digest) or search.costs
    return [costs[request.name] for request in search.tile_requests]


class _Encoding:
    """How long encoding takes on this machine's CPU."""

    def __init__(self, spec: ModelSpec, threads: int) -> None:
        from tessera_cli.models.precision import matmul_rate, torch_settings

        self._spec = spec
        if spec.config is not None:
            with torch_settings(1):
                self._rate = MATMUL_SHARE * threads * matmul_rate("fp32", "cpu", 768)

    def seconds(self, tokens: tuple[float, float], pixels: int) -> float | None:
        """Return the time for pixels with so many observations of each sensor; None without a network."""
        if self._spec.config is None:
            return None
        rule = self._spec.observations
        flop = pixels * rule.repeats * self._spec.config.flop_per_pixel(*rule.lengths(*tokens))
        return round(flop / self._rate, 1)


def _existing(path: Path) -> Path:
    path = path.resolve()
    return path if path.exists() else _existing(path.parent)
