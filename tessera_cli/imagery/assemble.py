"""Scenes + tile -> d-pixels: SCL first, then the bands of scenes that win a pixel, then radar."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Iterable
from itertools import islice

import numpy as np

from tessera_cli.catalog import Scene, Scenes, Sensor, by_date
from tessera_cli.dpixel import S2_BANDS, DPixels
from tessera_cli.errors import TileError
from tessera_cli.grid import Tile, TileRequest
from tessera_cli.imagery import sentinel1, sentinel2
from tessera_cli.imagery.reader import BandSet, HoleError, Reader
from tessera_cli.window import Window

PREPROCESSING = "official"

log = logging.getLogger(__name__)

Frames = tuple[np.ndarray, np.ndarray]


def read_dpixels(
    scenes: Scenes, request: TileRequest, window: Window, reader: Reader, *, allow_missing: int = 0
) -> DPixels:
    """The d-pixels of one tile (`official` preprocessing), defined where pixels were requested.

    `scenes` are those of the tile. Whole tiles are read whatever is requested, since GDAL's warp from a neighbour
    zone depends on the read window. Raises TileError when more than `allow_missing` scenes are absent or broken.
    """
    holes: dict[str, str] = {}
    while True:
        usable, pixels = scenes.without(holes), request.pixels
        try:
            optical, optical_mask, optical_dates = _optical(usable, request.tile, pixels, reader)
            ascending = _radar(usable, Sensor.S1_ASC, request.tile, pixels, reader)
            descending = _radar(usable, Sensor.S1_DESC, request.tile, pixels, reader)
            break
        except HoleError as found:  # the next scene of the date takes over, so start again without
            holes |= found.holes
            if len(holes) > allow_missing:
                why = "; ".join(f"{scene}: {reason}" for scene, reason in sorted(holes.items()))
                raise TileError(
                    f"{len(holes)} scene(s) cannot be read: {why}. Repair them, or accept them as "
                    f"holes with --allow-missing {len(holes)}."
                ) from found
            log.warning("%s: going on without %s", request.tile.id, found)
    return DPixels(
        tile=request.tile, window=window,
        s2=optical, s2_mask=optical_mask, s2_dates=optical_dates,
        s1_asc=ascending[0], s1_asc_dates=ascending[1],
        s1_desc=descending[0], s1_desc_dates=descending[1],
        requested=pixels, source=scenes.source.name, preprocessing=PREPROCESSING,
        scenes=tuple(scene.id for scene in scenes.scenes), holes=holes, input_digest=scenes.digest,
    )  # fmt: skip


def _optical(
    scenes: Scenes, tile: Tile, pixels: np.ndarray, reader: Reader
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    source, listed = scenes.source, scenes.of(Sensor.S2)
    frames: list[tuple[dt.date, tuple[Scene, ...], np.ndarray]] = []
    classes = reader.read(listed, BandSet((source.scl_asset,), "uint8", "nearest"), tile)
    for date, group in by_date(listed):
        winner = sentinel2.winners([layer[0] for layer in islice(classes, len(group))], pixels)
        if (winner != sentinel2.NO_SCENE).any():
            frames.append((date, group, winner))

    shape = (len(frames), *tile.shape)
    bands, mask = np.zeros((*shape, len(S2_BANDS)), np.uint16), np.zeros(shape, np.uint8)
    won = [
        (t, scene, winner == index)
        for t, (_, group, winner) in enumerate(frames)
        for index, scene in enumerate(group)
        if (winner == index).any()
    ]
    layers = reader.read([scene for _, scene, _ in won], BandSet(source.s2_band_assets, "uint16", "bilinear"), tile)
    for (t, scene, here), layer in zip(won, layers, strict=True):
        dn = sentinel2.remove_offset(layer, scene.date, source.offset_after)
        bands[t][here] = dn[:, here].T
        mask[t][here] = 1
    return bands, mask, _dates(date for date, _, _ in frames)


def _radar(scenes: Scenes, orbit: Sensor, tile: Tile, pixels: np.ndarray, reader: Reader) -> Frames:
    listed = scenes.of(orbit)
    layers = reader.read(listed, BandSet(tuple(scenes.source.s1_assets.values()), "float32", "nearest"), tile)
    frames, dates = [], []
    for date, group in by_date(listed):
        scaled = (np.moveaxis(sentinel1.scale(layer), 0, -1) for layer in islice(layers, len(group)))
        frame = sentinel1.mosaic(scaled, pixels)
        if frame.any():
            frames.append(frame)
            dates.append(date)
    stacked = np.stack(frames) if frames else np.zeros((0, *tile.shape, 2), np.int16)
    return stacked, _dates(dates)


def _dates(dates: Iterable[dt.date]) -> np.ndarray:
    return np.array(list(dates), dtype="datetime64[D]")
