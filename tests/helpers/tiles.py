"""Small d-pixels for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tessera_cli.dpixels.dpixel import DPixels
from tessera_cli.extent.grid import AnyTile, Tile
from tessera_cli.extent.window import Window

SHARED = Path(__file__).parents[3] / "shared"
GOLDEN = SHARED / "golden"
TILE = Tile(32631, 112, 1098)


def dates_of(doys: np.ndarray) -> np.ndarray:
    """Dates of the leap year 2024 with these days of year, datetime64[D] (T,)."""
    return np.datetime64("2024-01-01") + (np.asarray(doys).astype(np.int64) - 1).astype("timedelta64[D]")


def dpixels(
    s2: np.ndarray,
    s2_mask: np.ndarray,
    s2_doy: np.ndarray,
    s1_asc: np.ndarray,
    s1_asc_doy: np.ndarray,
    s1_desc: np.ndarray,
    s1_desc_doy: np.ndarray,
    *,
    tile: AnyTile = TILE,
) -> DPixels:
    """d-pixels of any size, in place of a tile's 512 x 512."""
    return DPixels(
        tile=tile,
        window=Window.from_name("2024"),
        s2=s2,
        s2_mask=s2_mask,
        s2_dates=dates_of(s2_doy),
        s1_asc=s1_asc,
        s1_asc_dates=dates_of(s1_asc_doy),
        s1_desc=s1_desc,
        s1_desc_dates=dates_of(s1_desc_doy),
        requested=np.ones(s2.shape[1:3], bool),
        source="mpc",
        preprocessing="official",
    )


def made_up(counts: np.ndarray, seed: int, shape: tuple[int, int] | None = None) -> DPixels:
    """Random d-pixels with these numbers of valid observations, int (N, 3): S2, S1 ascending, S1 descending."""
    rng = np.random.default_rng(seed)
    height, width = shape or (1, len(counts))
    streams = []
    for column in range(3):
        frames = int(counts[:, column].max())
        # Each pixel's valid frames are a random choice.
        rank = rng.random((frames, len(counts))).argsort(axis=0).argsort(axis=0)
        streams.append((rank < counts[:, column]).reshape(frames, height, width))
    s2_valid, asc_valid, desc_valid = streams
    s2 = rng.integers(0, 10000, (*s2_valid.shape, 10), dtype=np.uint16)
    asc, desc = (
        rng.integers(1, 9000, (*valid.shape, 2), dtype=np.int16) * valid[..., None] for valid in (asc_valid, desc_valid)
    )
    doys = (rng.integers(1, 367, len(valid)) for valid in streams)
    s2_doy, asc_doy, desc_doy = doys
    return dpixels(s2, s2_valid.astype(np.uint8), s2_doy, asc, asc_doy, desc, desc_doy)
