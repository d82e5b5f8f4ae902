"""Compare two windows: learn what is ordinary, score every pixel, and name what has changed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.windows import Window as RasterWindow

from tessera_cli import __version__
from tessera_cli.changes.discoveries import Discoveries
from tessera_cli.changes.item import item
from tessera_cli.changes.kept import Kept, digest_of
from tessera_cli.changes.ordinary import Ordinary
from tessera_cli.changes.page import page
from tessera_cli.changes.pairs import Pair
from tessera_cli.changes.patches import changed_patches
from tessera_cli.changes.sample import sampled
from tessera_cli.changes.target import CHANGED, COLOURS, KIND, PAGE, SCORES
from tessera_cli.embeddings.tile import Box
from tessera_cli.errors import NothingToEmbedError
from tessera_cli.exports.raster import Raster, check_size, write_raster
from tessera_cli.exports.results import Results, check, replacing
from tessera_cli.files import check_space, write_json
from tessera_cli.outputs.tags import SOFTWARE, derived_tags

FEW = 50_000
"""Pixels with fewer of which it is warned: five square kilometres."""
logger = logging.getLogger(__name__)


def compare(
    pairs: Sequence[Pair],
    out: Path,
    *,
    rate: float = 0.05,
    min_pixels: int = 10,
    seed: int = 0,
    progress: Any = None,
) -> Results:
    """Write scores of all pixels that are there in both windows, which of them have changed, and a page.

    Memory is that of a sample, of a box of 512 x 512 pixels, of the patches and of the page. What an interrupted
    comparison has found so far lies in `<out>.<digest>.kept`, from where the next one of the same goes on. Files of an
    earlier comparison are replaced once all new ones are there, the record last; others in the folder stay.

    Args:
        pairs: Two windows of each zone.
        out: The folder to write.
        rate: Share of what is named that has not changed, expected (false-discovery rate).
        min_pixels: Pixels of a patch, at least.
        seed: Of the sample and of the kinds of land.
        progress: Has `start(total)` and `advance(count)`, in pixels.

    Raises:
        UsageError: Something else is in the place of the folder.
        NothingToEmbedError: No pixel is there in both windows.
        DiskFullError: There is no room.
    """
    out = out.absolute()
    check(out, KIND)
    total = sum(pair.grid.pixels for pair in pairs)
    for pair in pairs:
        check_size(pair.grid, len(SCORES.names))
    if progress:
        progress.start(3 * total)
    advance = progress.advance if progress else _ignore
    pixels = sum(min(pair.before.pixels, pair.after.pixels) for pair in pairs)
    check_space(out, round(2.5 * pixels * (4 * len(SCORES.names) + 1)))
    kept, found = Kept(out, digest_of(pairs, seed)), Discoveries()
    ordinary = _learnt(pairs, kept, seed, advance)
    with replacing(out, KIND) as part:
        for pair in pairs:
            _write_scores(part, pair, ordinary, kept, found, advance)
        least = found.threshold(rate)
        changed = sum(_write_changed(part, pair, least, advance) for pair in pairs)
        patches = [changed_patches(part, pair, min_pixels) for pair in pairs]
        about = _about(pairs, ordinary, found, rate, least, changed, sum(map(len, patches)), min_pixels, seed)
        for pair in pairs:
            write_json(part / f"{pair.name}_change.json", item(pair, about))
        (part / PAGE).write_bytes(page(part, pairs, patches, about))
        about["files"] = sorted(file.name for file in part.iterdir())
        write_json(part / KIND.record, about)
    kept.remove()
    return Results.of(out, PAGE, about)


def _learnt(pairs: Sequence[Pair], kept: Kept, seed: int, advance: Any) -> Ordinary:
    """Return what is ordinary; NothingToEmbedError where no pixel is there twice."""
    known = kept.get("ordinary")
    if known is not None:
        advance(sum(pair.grid.pixels for pair in pairs))
        return Ordinary(**known)
    before, after, pixels = sampled(pairs, kept, seed, advance)
    if not pixels:
        raise NothingToEmbedError("No pixel has an embedding in both windows, so there is nothing to compare.")
    if pixels < FEW:
        logger.warning("%d pixels are too few to tell what is ordinary: do not trust what is named", pixels)
    found = Ordinary.of(before, after, pixels=pixels, seed=seed)
    kept.put("ordinary", **vars(found))
    return found


def _write_scores(part: Path, pair: Pair, ordinary: Ordinary, kept: Kept, found: Discoveries, advance: Any) -> None:
    """Write the scores of a zone, and count its p-values."""

    def read(box: Box) -> np.ndarray | None:
        name = f"{pair.name}_{box[0].start}_{box[1].start}"
        known = kept.get(name)
        if known is None:
            scored = _scored(pair, box, ordinary)
            if scored is None:
                return None
            there, values = scored
            kept.put(name, there=np.packbits(there), values=values)
        else:
            shape = box[0].stop - box[0].start, box[1].stop - box[1].start
            there = np.unpackbits(known["there"], count=shape[0] * shape[1]).astype(bool).reshape(shape)
            values = known["values"]
        found.add(values[SCORES.names.index("p_value")])
        bands = np.full((len(SCORES.names), *there.shape), np.nan, np.float32)
        bands[:, there] = values
        return bands

    tags = _tags(pair, "scores")
    write_raster(part / f"{pair.name}_scores.tif", Raster(pair.grid, SCORES, 0, tags), read, advance)


def _scored(pair: Pair, box: Box, ordinary: Ordinary) -> tuple[np.ndarray, np.ndarray] | None:
    """Return which pixels of a box are there twice, bool (h, w), and their scores, float32 (6, N); None for none."""
    from scipy.special import ndtr

    pixels = pair.pixels(box)
    if pixels is None:
        return None
    residual, z = ordinary.scores(pixels.before, pixels.after)
    values = np.stack([pixels.distance, pixels.euclidean, pixels.noise, residual, z, ndtr(-z)])
    return pixels.there, values.astype(np.float32)


def _write_changed(part: Path, pair: Pair, least: float, advance: Any) -> int:
    """Write which pixels have p-values of at most `least` (above 0); return how many."""
    count = 0
    with rasterio.open(part / f"{pair.name}_scores.tif") as scores:

        def read(box: Box) -> np.ndarray | None:
            nonlocal count
            p = scores.read(SCORES.names.index("p_value") + 1, window=RasterWindow.from_slices(*box))
            if np.isnan(p).all():
                return None
            changed = (p <= np.float32(least)) & (least > 0)
            count += int(changed.sum())
            return np.where(np.isnan(p), np.uint8(255), changed.astype(np.uint8))[None]

        raster = Raster(pair.grid, CHANGED, 0, _tags(pair, "changed"), "deflate", COLOURS)
        write_raster(part / f"{pair.name}_changed.tif", raster, read, advance)
    return count


def _tags(pair: Pair, what: str) -> dict[str, str]:
    """Return what a raster says of itself."""
    return {
        **derived_tags(pair.before.tiles[0][0].record.identity),
        "TESSERA_CHANGE": what,
        "TESSERA_BEFORE": pair.before.window_name,
        "TESSERA_AFTER": pair.after.window_name,
    }


def _about(
    pairs: Sequence[Pair],
    ordinary: Ordinary,
    found: Discoveries,
    rate: float,
    least: float,
    changed: int,
    patches: int,
    min_pixels: int,
    seed: int,
) -> dict[str, Any]:
    """Return the record, without the names of the files."""
    from scipy.special import ndtri

    first = pairs[0]
    identity = first.before.tiles[0][0].record.identity
    return {
        "type": "change",
        "schema": 1,
        "before": first.before.window_name,
        "after": first.after.window_name,
        "pixels": found.tests,
        "changed": changed,
        "false_discovery_rate": rate,
        "p_value": least,
        "z_score": -float(ndtri(least)) if least > 0 else None,
        "patches": patches,
        "min_pixels": min_pixels,
        "kinds": [
            {"usual_distance": float(usual), "unchanged": float(share)}
            for usual, share in zip(ordinary.usual, ordinary.unchanged, strict=True)
        ],
        "noise": "uncertainty" if all(pair.noise_is_known for pair in pairs) else None,
        "embeddings": dict(identity),
        "seed": seed,
        "software": f"{SOFTWARE} {__version__}",
    }


def _ignore(pixels: int) -> None:
    pass
