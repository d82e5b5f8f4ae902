"""Scenes + tile -> d-pixels: SCL first, then the bands of scenes that win a pixel, then radar."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import TypeVar

import numpy as np

from tessera_cli.catalog import Scene, Scenes, Sensor, by_date
from tessera_cli.dpixels.dpixel import S2_BANDS, DPixels, missing_scenes_text
from tessera_cli.errors import TileError, UsageError
from tessera_cli.extent.grid import Tile, TileRequest
from tessera_cli.imagery import promises, sentinel1, sentinel2
from tessera_cli.imagery.blocks import bounding_slices
from tessera_cli.imagery.lazy_zeros import lazy_zeros
from tessera_cli.imagery.preprocessing import OFFICIAL, Preprocessing
from tessera_cli.imagery.reader import MissingScene, Read, Reader, WarpOptions, as_it_is

ORBIT_TAG = "ORBIT_PASS_DIRECTION"
CLASSES, BANDS = WarpOptions("nearest", "uint8", promises.SCL), WarpOptions("bilinear", "uint16", promises.DN)

logger = logging.getLogger(__name__)

OnRead = Callable[[int, int], None]
"""Called with the numbers of files read and planned, the latter an upper bound until it is known which scenes win a
pixel."""
Frames = tuple[np.ndarray, np.ndarray]
T = TypeVar("T")


def read_dpixels(
    scenes: Scenes,
    request: TileRequest,
    reader: Reader,
    *,
    preprocessing: Preprocessing = OFFICIAL,
    allow_missing: int = 0,
    ascending: bool = True,
    reading: OnRead | None = None,
) -> DPixels:
    """Read the d-pixels of one tile, defined where pixels are requested.

    `scenes` are those of the tile in its window. Whole tiles are read whatever is requested, since GDAL's warp from a
    neighbour zone depends on the read window. `ascending`: False leaves out ascending passes. Raises TileError when
    more than `allow_missing` scenes are absent, broken or hold something else than the source promises, UsageError when
    all of several scenes do, as on other tiles most likely, and the errors of `Reader` where that is not certain.
    """
    (tile, window), pixels = request.on_grid(), request.pixels
    missing_scenes: dict[str, str] = {}
    while True:  # without a missing scene the next scene of the date takes over: start again
        doubted = reader.doubted
        try:
            listed = preprocessing.select(scenes.without(missing_scenes))
            frames = _Tile(listed, tile, pixels, reader, preprocessing, reading).read(ascending)
            if reader.doubted == doubted:
                break
            logger.info("%s: reading it once more, since bytes of a server were wrong", request.tile.id)
        except MissingScenesError as found:
            missing_scenes |= found.missing_scenes
            for scene, why in sorted(found.missing_scenes.items()):
                logger.debug("%s: missing scene %s: %s", request.tile.id, scene, why)
            if len(missing_scenes) > allow_missing:
                repair = "Repair them" if preprocessing is OFFICIAL else "Repair them, take --preprocessing official"
                text = (
                    f"{len(missing_scenes)} scene(s) cannot be read: {missing_scenes_text(missing_scenes)}. {repair}, "
                    f"or accept that with --allow-missing {len(missing_scenes)}."
                )
                if found.all_unfit:  # of other tiles it is no different
                    raise UsageError(f"{request.tile.id}: {text}") from found
                raise TileError(text) from found
            logger.warning("%s: going on without %s", request.tile.id, found)
    (s2, s2_mask, s2_dates), (s1_asc, s1_asc_dates), (s1_desc, s1_desc_dates) = frames
    return DPixels(
        tile=tile,
        window=window,
        s2=s2,
        s2_mask=s2_mask,
        s2_dates=s2_dates,
        s1_asc=s1_asc,
        s1_asc_dates=s1_asc_dates,
        s1_desc=s1_desc,
        s1_desc_dates=s1_desc_dates,
        requested=pixels,
        source=scenes.source.name,
        preprocessing=preprocessing.name,
        scenes=tuple(scene.id for scene in scenes.scenes),
        missing_scenes=missing_scenes,
        input_digest=scenes.digest,
    )


class MissingScenesError(Exception):
    """Raised with the scenes of a tile that are absent, broken or not interpretable: id -> reason.

    `all_unfit`: no scene of a sensor, of several, holds what its source promises.
    """

    def __init__(self, missing_scenes: Mapping[str, str], all_unfit: bool) -> None:
        super().__init__(missing_scenes_text(missing_scenes))
        self.missing_scenes, self.all_unfit = dict(missing_scenes), all_unfit


class _Tile:
    """Read one tile. All scenes are tried before the missing ones are raised together."""

    def __init__(
        self,
        scenes: Scenes,
        tile: Tile,
        pixels: np.ndarray,
        reader: Reader,
        preprocessing: Preprocessing,
        reading: OnRead | None,
    ) -> None:
        self.scenes, self.tile, self.pixels = scenes, tile, pixels
        self.reader, self.preprocessing, self.reading = reader, preprocessing, reading
        self.missing_scenes: dict[str, str] = {}
        self.files_read = self.files_planned = 0
        self.tried: dict[WarpOptions, set[str]] = {}
        """Ids of the scenes of which such assets were read."""
        self.unfit: set[str] = set()

    def read(self, ascending: bool) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], Frames, Frames]:
        for scene in self.scenes.scenes:
            if why := scene.defect or self.preprocessing.unusable(scene, self.scenes.source):
                self.missing_scenes[scene.id] = why
        self.scenes = self.scenes.without(self.missing_scenes)
        self.files_planned = self._most_files(ascending)
        optical, orbits = self._optical(), self._orbits()
        nothing = orbits[Sensor.S1_ASC][:0]
        upwards = self._radar(orbits[Sensor.S1_ASC] if ascending else nothing)
        downwards = self._radar(orbits[Sensor.S1_DESC])
        if self.missing_scenes:
            all_unfit = any(len(tried) > 1 and tried <= self.unfit for tried in self.tried.values())
            raise MissingScenesError(self.missing_scenes, all_unfit)
        return optical, upwards, downwards

    def _most_files(self, ascending: bool) -> int:
        """Return the number of files to read if every optical scene wins a pixel."""
        source, left_out = self.scenes.source, () if ascending else self.scenes.of(Sensor.S1_ASC)
        optical = len(self.scenes.of(Sensor.S2))
        return optical * len(source.s2_assets) + (len(self.scenes) - optical - len(left_out)) * len(source.s1_assets)

    def _optical(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        source, listed = self.scenes.source, self.scenes.of(Sensor.S2)
        frames: list[tuple[dt.date, tuple[Scene, ...], np.ndarray]] = []
        classes = self._layers([Read(scene, source.scl_asset, self.pixels) for scene in listed], CLASSES, as_it_is)
        for date, group in by_date(listed):
            winner = sentinel2.winners(list(islice(classes, len(group))), self.pixels)
            if (winner != sentinel2.NO_SCENE).any():
                frames.append((date, group, winner))

        shape = (len(frames), *self.tile.shape)
        bands, mask = lazy_zeros((*shape, len(S2_BANDS)), np.uint16), lazy_zeros(shape, np.uint8)
        places: dict[Read, tuple[int, int]] = {}
        """Read -> frame and band."""
        for t, (_, group, winner) in enumerate(frames):
            mask[t] = winner != sentinel2.NO_SCENE
            for index, scene in enumerate(group):
                if (here := winner == index).any():
                    reads = (Read(scene, asset, here) for asset in source.s2_band_assets)
                    places |= {read: (t, band) for band, read in enumerate(reads)}
        self.files_planned -= len(listed) * len(source.s2_band_assets) - len(places)

        def put(read: Read, layer: np.ndarray) -> None:  # of one date no two scenes win the same pixel
            (t, band), here = places[read], read.pixels
            assert here is not None
            box = bounding_slices(here)  # of small areas most of a tile is not asked for
            values = self.preprocessing.correct(layer[box], read.scene, read.asset, source)
            np.copyto(bands[t, :, :, band][box], values, where=True if here[box].all() else here[box])

        for _ in self._layers(list(places), BANDS, put):
            pass
        return bands, mask, _dates(date for date, _, _ in frames)

    def _orbits(self) -> Mapping[Sensor, tuple[Scene, ...]]:
        """Return radar scenes by orbit direction, read from the file where the item does not tell."""
        orbits = {sensor: self.scenes.of(sensor) for sensor in (Sensor.S1_ASC, Sensor.S1_DESC)}
        unknown = self.scenes.of(Sensor.S1)
        told = self.reader.tags([Read(scene, self.scenes.source.s1_assets["VV"]) for scene in unknown])
        known = {"ascending": Sensor.S1_ASC, "descending": Sensor.S1_DESC}
        for scene, tags in zip(unknown, told, strict=True):
            if isinstance(tags, MissingScene):
                self.missing_scenes[tags.scene] = tags.why
            elif (direction := tags.get(ORBIT_TAG, "").strip().lower()) in known:
                orbits[known[direction]] += (scene,)
            else:
                self.missing_scenes[scene.id] = f"does not say its orbit direction ({ORBIT_TAG})"
        return orbits

    def _radar(self, listed: tuple[Scene, ...]) -> Frames:
        source, pixels = self.scenes.source, np.flatnonzero(self.pixels)
        assets = (source.s1_assets["VV"], source.s1_assets["VH"])
        scaled = self._layers(
            [Read(scene, asset, self.pixels) for scene in listed for asset in assets],
            WarpOptions(source.s1_resampling, "float32", promises.POWER),
            lambda _, layer: sentinel1.scale(layer.take(pixels), source.s1_arithmetic),
        )
        days = list(by_date(listed))
        frames = lazy_zeros((len(days), *self.tile.shape, len(assets)), np.int16)
        dates: list[dt.date] = []
        for date, group in days:
            mosaic = sentinel1.mosaic(
                (np.stack([next(scaled) for _ in assets], axis=-1) for _ in group), (len(pixels), len(assets))
            )
            if mosaic.any():  # else the frame is left to the next date
                frames[len(dates)].reshape(-1, len(assets))[pixels] = mosaic
                dates.append(date)
        return frames[: len(dates)], _dates(dates)

    def _layers(self, reads: list[Read], options: WarpOptions, use: Callable[[Read, np.ndarray], T]) -> Iterator[T]:
        """Yield what `use` makes of (H, W) per scene and asset; of zeros for missing scenes, which are noted.

        `use` is called in the threads that read, several at once.
        """
        self.tried.setdefault(options, set()).update(read.scene.id for read in reads)
        for read, made in zip(reads, self.reader.layers(reads, options, self.tile, use), strict=True):
            self.files_read += 1
            if self.reading is not None:
                self.reading(self.files_read, self.files_planned)
            if isinstance(made, MissingScene):
                self.missing_scenes.setdefault(made.scene, made.why)
                self.unfit |= {made.scene} if made.unfit else set()
                yield use(read, np.zeros(self.tile.shape, options.dtype))
            else:
                yield made


def _dates(dates: Iterable[dt.date]) -> np.ndarray:
    return np.array(list(dates), dtype="datetime64[D]")
