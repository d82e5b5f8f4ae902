"""Whether a run fits: the memory and disk it is likely to take, beside what there is, before the first pixel is read.

Bytes are counted from what is alive at the peak; `benchmarks/memory.py` compares them with runs.
"""

from __future__ import annotations

import heapq
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from tessera_cli import config
from tessera_cli.catalog import Scenes, Sensor
from tessera_cli.dpixels import Stored
from tessera_cli.dpixels.dpixel import S1_BANDS, S2_BANDS, SENSORS
from tessera_cli.errors import TesseraError
from tessera_cli.extent.grid import TileRequest
from tessera_cli.imagery.files import BLOCK_BYTES, DESCRIPTION_BYTES, HEADER_BYTES
from tessera_cli.imagery.reader import LOCAL_THREADS, THREADS
from tessera_cli.inference.uncertainty import AT_ONCE
from tessera_cli.net.address import is_url
from tessera_cli.planning.scene_counts import DatesByTile
from tessera_cli.runs.terms import Terms
from tessera_cli.timing import rss_mb

logger = logging.getLogger(__name__)

S2_BYTES, S1_BYTES, MASK_BYTES = 2 * len(S2_BANDS), 2 * len(S1_BANDS), 1
"""Of an observation."""
SIDE_BY_SIDE = 2
"""Tiles whose d-pixels are held at the same time: while one is at work, the next is read."""
PAGE = 4096
"""Memory is taken a page at a time."""
PAGE_IS_CLEAR = 6
"""A page holds 200 pixels: it is taken as if so many skies, each as clear as the scene, were laid side by side."""
FILE_BYTES = 6 << 20
"""Of a file that is being read: its blocks under a tile, packed and not, and the layer."""
LAYER_BYTES = 1 << 20
"""Of a layer that waits for its turn."""
LIBRARIES = 60 << 20
"""What libraries keep when they have been at work for a while: GDAL's caches, the arenas of malloc."""
STORED = 0.65
"""Size of stored observations against raw ones, those of clear pixels."""
LOOKED_AT = 8
"""Stores whose dates are counted."""
NEARLY = 0.9
"""Share of the memory that may be planned with: the kernel ends a process that takes more than all of it."""


@dataclass(frozen=True)
class Bulk:
    """How much the tiles of a run hold. Frames are those of the tile with most of them."""

    tiles: int
    pixels: int
    """Asked for, of all tiles."""
    largest: tuple[np.ndarray, ...]
    """bool (H, W): the pixels asked for of the tiles with most of them, as many as are held at the same time."""
    s2: int
    s1: int
    """Frames of both orbits."""
    clear: float = 1.0
    """Share of the Sentinel-2 observations that are clear."""
    written: float = 1.0
    """Share of the memory of Sentinel-2 frames that is ever written."""
    remote: bool = False
    """Whether files come from servers."""

    @property
    def counts(self) -> list[int]:
        """Return the numbers of pixels of the largest tiles."""
        return [int(pixels.sum()) for pixels in self.largest]

    def tile_bytes(self, pixels: np.ndarray) -> float:
        """Return the memory of the d-pixels of a tile."""
        s2 = _touched(pixels, S2_BYTES) * self.s2 * self.written
        return s2 + _touched(pixels, MASK_BYTES) * self.s2 + _touched(pixels, S1_BYTES) * self.s1

    @property
    def valid_bytes(self) -> int:
        """Return the memory of what says which observations of a tile are valid, and of their counts."""
        return self.largest[0].size * (2 * self.s2 + self.s1 + 12)

    @property
    def halves_bytes(self) -> int:
        """Return the memory of the observations of a portion of a tile, and of two halves of them."""
        radar, masks = self.s1 * S1_BYTES, self.s2 + self.s1
        each = self.s2 * S2_BYTES + 3 * radar + 2 * (2 * masks + self.s1)
        return min(self.counts[0], max(AT_ONCE.values())) * each

    @property
    def tiles_bytes(self) -> float:
        """Return the memory of the tiles that are held at the same time, and of what is on its way into them."""
        threads = THREADS if self.remote else LOCAL_THREADS
        caches = HEADER_BYTES + BLOCK_BYTES if self.remote else 0
        coming = caches + DESCRIPTION_BYTES + threads * (FILE_BYTES + 2 * LAYER_BYTES)
        return sum(map(self.tile_bytes, self.largest)) + coming + LIBRARIES


@dataclass(frozen=True)
class Workers:
    """Who takes the tiles."""

    where: Literal["here", "threads", "processes", "elsewhere"] = "here"
    """This thread, threads or processes beside it, or machines of which nothing is known here."""
    count: int = 1

    @classmethod
    def of(cls, terms: Terms) -> Workers:
        executor = terms.executor
        if executor is None:
            return cls()
        count = int(getattr(executor, "slots", 1))
        if getattr(executor, "elsewhere", False):
            return cls("elsewhere", count)
        return cls("threads" if isinstance(executor, ThreadPoolExecutor) else "processes", count)


@dataclass(frozen=True)
class Needs:
    """What a run is likely to take."""

    memory: float
    """Of each process, besides what it holds before its first tile."""
    disk: float
    """Of the output folder, for the tiles that are to do."""
    device: float = 0.0
    """Of a GPU at least, besides the weights."""
    device_free: float | None = None
    """None without a GPU."""
    threads: bool = False
    """Whether fewer threads would take less memory."""

    def shortfalls(self, folder: Path, workers: Workers, *, memory: int, held: float) -> Iterator[str]:
        """Yield a line for whatever does not suffice, with what to do.

        `memory` is granted to this process and its workers, and `held` is what it holds now: as much as each process
        of theirs will hold when it begins.
        """
        own = held + self.memory
        total = {"here": held, "threads": held, "processes": held + workers.count * held}.get(workers.where)
        total = None if total is None else total + workers.count * self.memory
        if total is not None and total > NEARLY * memory:
            several = workers.where == "processes" or workers.count > 1
            parts = f" ({workers.count} processes of {_gb(own)})" if workers.where == "processes" else ""
            advice = ["give the job more memory"]
            advice += ["use fewer --workers"] if several else ["use fewer --threads"] if self.threads else []
            yield (
                f"the run may take {_gb(total)} of memory{parts}, and {_gb(memory)} are granted: "
                f"{' or '.join(advice)}, or it may be killed"
            )
        existing = next(each for each in (folder, *folder.absolute().parents) if each.exists())
        free = shutil.disk_usage(existing).free
        if self.disk > free:
            yield (
                f"the tiles may take {_gb(self.disk)}, and {_gb(free)} are free on the disk of {folder}: make room, or "
                "choose another --out"
            )
        if self.device_free is not None and self.device > self.device_free:
            yield (
                f"the smallest batch takes {_gb(self.device)} of the GPU's memory, and {_gb(self.device_free)} are "
                "free: end what else runs there, or choose another --device"
            )


def tell_shortfalls(needs: Needs | None, folder: Path, terms: Terms) -> None:
    """Warn, before the first pixel is read, of memory or disk that is not likely to suffice."""
    if needs is None:
        return
    held = rss_mb() * 1e6
    logger.debug("each process may take %.0f MB beside the %.0f MB of this one now", needs.memory / 1e6, held / 1e6)
    for text in needs.shortfalls(folder, Workers.of(terms), memory=config.memory(), held=held):
        logger.warning("%s", text)


def packed_bytes(bulk: Bulk, pixels: int) -> float:
    """Return the bytes of packed stores of so many pixels."""
    return pixels * (bulk.s2 * (bulk.clear * S2_BYTES * STORED + 0.1) + bulk.s1 * S1_BYTES * STORED)


def array_bytes(bulk: Bulk) -> float:
    """Return the bytes of stores that are bare arrays of whole tiles."""
    return bulk.tiles * bulk.largest[0].size * (bulk.s2 * (S2_BYTES + MASK_BYTES) + bulk.s1 * S1_BYTES)


def bulk_of_scenes(
    requests: Sequence[TileRequest], dates: Mapping[str, Mapping[str, DatesByTile]], scenes: Scenes
) -> Bulk:
    """Return how much tiles hold that are read from scenes; `dates` are those of the tiles of each window."""
    windows = {request.on_grid()[1].name for request in requests}
    clear = np.array([1 - (scene.cloud_cover or 0) / 100 for scene in scenes.of(Sensor.S2)])
    return Bulk(
        tiles=len(requests),
        pixels=sum(request.count for request in requests),
        largest=tuple(request.pixels for request in _largest(requests, SIDE_BY_SIDE)),
        s2=max(dates[window]["s2"].most for window in windows),
        s1=max(dates[window]["s1"].most for window in windows),
        clear=float(clear.mean()) if len(clear) else 1.0,
        written=float((1 - (1 - clear) ** PAGE_IS_CLEAR).mean()) if len(clear) else 1.0,
        remote=any(is_url(asset["href"]) for scene in scenes.scenes[:1] for asset in scene.item["assets"].values()),
    )


def bulk_of_stores(requests: Sequence[TileRequest]) -> Bulk:
    """Return how much stored tiles hold: whole arrays, read from a disk."""
    largest, frames = _largest(requests, LOOKED_AT), [(0, 0)]
    for each in largest:
        if isinstance(each, Stored):
            with suppress(TesseraError):  # which the tile fails with
                s2, *s1 = (len(each.dates[sensor]) for sensor in SENSORS)
                frames.append((s2, sum(s1)))
    s2, s1 = map(max, zip(*frames, strict=True))
    whole = tuple(np.ones(request.tile.shape, bool) for request in largest[:SIDE_BY_SIDE])
    return Bulk(len(requests), sum(request.count for request in requests), whole, s2, s1)


def _largest(requests: Sequence[TileRequest], count: int) -> list[TileRequest]:
    return heapq.nlargest(count, requests, key=lambda request: request.count)


def _gb(size: float) -> str:
    return f"{size / 1e9:,.1f} GB"


def _touched(pixels: np.ndarray, size: int) -> int:
    """Return the bytes of the pages that these pixels of a frame lie on, at so many bytes each."""
    first = np.flatnonzero(pixels) * size
    return PAGE * len(np.unique(np.concatenate([first, first + size - 1]) // PAGE))
