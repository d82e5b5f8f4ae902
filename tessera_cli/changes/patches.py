"""What has changed as patches, strongest first: how large, how far beyond the ordinary, how often seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio
from rasterio.windows import Window as RasterWindow

from tessera_cli.changes.pairs import Pair
from tessera_cli.changes.target import SCORES
from tessera_cli.embeddings.tile import Box
from tessera_cli.exports.patches import Patches

TOLD = ("z_score", "cosine_distance")
"""Bands of the scores that patches tell the mean of."""


def changed_patches(part: Path, pair: Pair, least: int) -> Patches:
    """Write `utm31n_patches.gpkg` beside the rasters of a zone, and return what it holds.

    Patches of fewer than `least` pixels are left out. Columns: `mean_z_score`, `max_z_score`, `mean_cosine_distance`,
    and `dates_before` and `dates_after`, the dates of Sentinel-2 that a pixel was seen at, on average.
    """
    bands = [SCORES.names.index(name) + 1 for name in TOLD]
    with (
        rasterio.open(part / f"{pair.name}_scores.tif") as scores,
        rasterio.open(part / f"{pair.name}_changed.tif") as changed,
    ):

        def mask(box: Box) -> np.ndarray:
            return np.asarray(changed.read(1, window=RasterWindow.from_slices(*box)) == 1)

        def read(box: Box) -> np.ndarray:
            told = scores.read(bands, window=RasterWindow.from_slices(*box))
            return np.concatenate([told, *(each.counts(box)[:1] for each in (pair.before, pair.after))])

        scratch = part / "mask.tif"
        found = Patches.of(pair.grid, mask, read, len(TOLD) + 2, scratch=scratch, least=least)
    ranked = found.take(np.argsort(-found.means[:, 0], kind="stable"))
    z, distance, before, after = ranked.means.T
    columns = {
        "mean_z_score": z.round(3),
        "max_z_score": ranked.most[:, 0].round(3),
        "mean_cosine_distance": distance.round(5),
        "dates_before": before.round(1),
        "dates_after": after.round(1),
    }
    ranked.write(part / f"{pair.name}_patches.gpkg", columns)
    return ranked
