"""D-pixels to encode in a benchmark: synthetic ones with known numbers of observations, or stored ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tessera_cli.dpixels import find_stores
from tessera_cli.dpixels.dpixel import DPixels
from tessera_cli.errors import UsageError
from tessera_cli.extent.grid import ForeignTile
from tessera_cli.extent.window import Window
from tessera_cli.sampling import ObservationRule

S2_FRAMES, S1_FRAMES = 60, 30
"""Per pixel; of Sentinel-1, per orbit direction."""
CLEAR_SHARE = 0.15, 0.75
"""Least and largest share of clear Sentinel-2 frames of a pixel, with clouds."""
WINDOW = Window.from_name("2023")


@dataclass(frozen=True, eq=False)
class Workload:
    """The pixels to encode."""

    name: str
    dpixels: DPixels
    pixels: np.ndarray
    """bool (H, W)"""

    @property
    def size(self) -> int:
        return int(self.pixels.sum())

    @property
    def counts(self) -> np.ndarray:
        """Valid observations of each pixel, Sentinel-2 and Sentinel-1 of both orbits: int64 (N, 2)."""
        s2, asc, desc = self.dpixels.counts[:, self.pixels].astype(np.int64)
        return np.stack([s2, asc + desc], axis=-1)

    def lengths(self, rule: ObservationRule) -> np.ndarray:
        """Return the sequence lengths of both sensors, padding included: int64 (N, 2)."""
        distinct, which = np.unique(self.counts, axis=0, return_inverse=True)
        return np.array([rule.lengths(*row) for row in distinct.tolist()], np.int64)[which.reshape(-1)]

    def describe(self, rule: ObservationRule) -> dict[str, Any]:
        """Return the distribution of observations and of lengths, as plain JSON."""
        pairs, often = np.unique(self.lengths(rule), axis=0, return_counts=True)
        s2, s1 = ({"mean": float(n.mean()), "min": int(n.min()), "max": int(n.max())} for n in self.counts.T)
        return {
            "s2": s2,
            "s1": s1,
            "bins": {f"{s2}/{s1}": int(n) for (s2, s1), n in zip(pairs.tolist(), often, strict=True)},
        }


def synthetic(count: int, *, clouds: bool = False, seed: int = 0) -> Workload:
    """Return `count` pixels, each with 30 + 30 radar observations and 60 clear ones of Sentinel-2: bins 64/64.

    With `clouds`, 15 to 75 % of each pixel's 60 frames are clear, uniformly over that range, at random.
    """
    rng = np.random.default_rng(seed)
    shape = (1, count)
    clear = np.full(count, S2_FRAMES)
    if clouds:
        least, most = (round(share * S2_FRAMES) for share in CLEAR_SHARE)
        clear = rng.integers(least, most, count, endpoint=True)
    rank = rng.random((S2_FRAMES, count)).argsort(axis=0).argsort(axis=0)
    mask = (rank < clear).astype(np.uint8).reshape(S2_FRAMES, *shape)
    s2 = rng.integers(200, 6000, (S2_FRAMES, *shape, 10), dtype=np.uint16) * mask[..., None]
    asc, desc = (rng.integers(1500, 9000, (S1_FRAMES, *shape, 2), dtype=np.int16) for _ in range(2))
    dpixels = DPixels(
        tile=ForeignTile("made-up", shape),
        window=WINDOW,
        s2=s2,
        s2_mask=mask,
        s2_dates=_dates(S2_FRAMES, first=0),
        s1_asc=asc,
        s1_asc_dates=_dates(S1_FRAMES, first=3),
        s1_desc=desc,
        s1_desc_dates=_dates(S1_FRAMES, first=8),
        requested=np.ones(shape, bool),
        source="mpc",
        preprocessing="official",
    )
    return Workload("mixed clouds" if clouds else "all clear", dpixels, dpixels.requested)


def from_store(path: Path, rule: ObservationRule, most: int | None = None) -> Workload:
    """Return the first `most` pixels of a stored tile that have a clear Sentinel-2 observation (None: all)."""
    stores = find_stores([path])
    if len(stores) != 1:
        raise UsageError(f"{path} holds the d-pixels of {len(stores)} tiles. Give one of them.")
    dpixels = stores[0].read()
    numbers = np.flatnonzero(dpixels.embeddable(min_s2=1, min_s1=0) & rule.valid_pixels(dpixels))[:most]
    if not len(numbers):
        raise UsageError(f"{path} holds no pixel with a clear Sentinel-2 observation. Give another tile.")
    pixels = np.zeros(dpixels.requested.shape, bool)
    pixels.flat[numbers] = True
    return Workload(stores[0].name, dpixels, pixels)


def _dates(frames: int, *, first: int) -> np.ndarray:
    """Return datetime64[D] (frames,), evenly spread over the window from its `first` day on."""
    days = first + np.arange(frames) * (WINDOW.days - first) // frames
    return np.datetime64(WINDOW.start) + days.astype("timedelta64[D]")
