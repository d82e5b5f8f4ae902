"""Search a folder: similarity of every pixel, the most similar patches, and a page to go on with."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.windows import Window as RasterWindow

from tessera_cli import __version__
from tessera_cli.embeddings.folder import EmbeddingFolder
from tessera_cli.embeddings.grid import pixels_in
from tessera_cli.embeddings.tile import Box
from tessera_cli.errors import NothingToEmbedError
from tessera_cli.exports.mosaic import Mosaic, mosaics
from tessera_cli.exports.patches import Patches
from tessera_cli.exports.raster import check_size
from tessera_cli.exports.results import Kind, Results, check, replacing
from tessera_cli.files import check_space, write_json
from tessera_cli.outputs.tags import SOFTWARE
from tessera_cli.pictures.colours import sample_pixels
from tessera_cli.similarity.codes import Codes
from tessera_cli.similarity.examples import Examples
from tessera_cli.similarity.page import PIXELS, SHOWN, coded, page
from tessera_cli.similarity.scores import Ranks, write_similarity

PAGE = "search.html"
KIND = Kind("search", "search.json", re.compile(r"search\.html|[a-z0-9-]+_(similarity\.tif|patches\.gpkg)"))


def search(
    folder: EmbeddingFolder,
    examples: Examples | None,
    out: Path,
    *,
    share: float,
    patches: int,
    min_pixels: int,
    seed: int = 0,
    progress: Any = None,
) -> Results:
    """Write the page and, of examples, the similarity of all pixels of a window and where it is greatest.

    Memory is that of a box of 512 x 512 pixels and of the page, of 16 bytes a pixel. Earlier results are replaced once
    all new ones are there.

    Args:
        folder: Of one window.
        examples: What to look for; None for the page alone.
        out: The folder to write.
        share: Share of the pixels, the most similar ones, that make up patches, above 0 and at most 1.
        patches: How many to keep, the most similar ones.
        min_pixels: Pixels of a patch, at least.
        seed: Of the sample that the page's codes are learnt from.
        progress: Has `start(total)` and `advance(count)`, in pixels.

    Raises:
        UsageError: Something else is in the place of the folder, or tiles have no place on the map.
        NothingToEmbedError: No pixel has an embedding.
        DiskFullError: There is no room.
    """
    out, zones = out.absolute(), mosaics(folder)
    check(out, KIND)
    for zone in zones:
        check_size(zone.grid, 1)
    total = sum(zone.grid.pixels for zone in zones)
    if progress:
        progress.start((2 * total if examples else 0) + sum(pixels_in(tile.whole) for tile in folder.tiles))
    advance = progress.advance if progress else _ignore
    pixels = sum(zone.pixels for zone in zones)
    check_space(out, round((10 * pixels if examples else 0) + 22 * min(pixels, PIXELS)))
    sample = sample_pixels(folder.tiles, seed=seed)
    if not len(sample):
        raise NothingToEmbedError(f"{folder.path}: no pixel holds an embedding, so there is nothing to search.")
    with replacing(out, KIND) as part:
        told = _searched(part, zones, examples, share, patches, min_pixels, advance) if examples else {}
        codes = Codes.of(sample, seed=seed)
        (part / PAGE).write_bytes(page(folder, coded(folder.tiles, codes, advance), codes, examples, share))
        about = {
            "type": KIND.type,
            "schema": 1,
            "window": zones[0].window_name,
            "examples": None if examples is None else _counted(examples),
            **told,
            "codes": {
                "bytes_per_pixel": len(codes.axes),
                "squared_length_kept": round(codes.kept, 6),
                "mean_difference": round(codes.difference[0], 6),
                "difference_99": round(codes.difference[1], 6),
            },
            "files": sorted(file.name for file in part.iterdir()),
            "embeddings": dict(folder.first.identity),
            "seed": seed,
            "software": f"{SOFTWARE} {__version__}",
        }
        write_json(part / KIND.record, about)
    return Results.of(out, PAGE, about)


def _searched(
    part: Path,
    zones: Sequence[Mosaic],
    examples: Examples,
    share: float,
    most: int,
    least_pixels: int,
    advance: Any,
) -> dict[str, Any]:
    """Write rasters and patches; return what the record says of them."""
    ranks, query = Ranks(), examples.query
    for zone in zones:
        write_similarity(_raster(part, zone), zone, query, ranks, advance)
    least = ranks.least(share)
    found = [_patches(part, zone, least, least_pixels) for zone in zones]
    means = np.concatenate([each.means[:, 0] for each in found])
    best = np.argsort(-means, kind="stable")[:most]
    starts = np.cumsum([0, *map(len, found)])
    for zone, each, start, end in zip(zones, found, starts, starts[1:], strict=False):
        ranked = each.take(best[(best >= start) & (best < end)] - start)
        columns = {"mean_similarity": ranked.means[:, 0].round(5), "max_similarity": ranked.most[:, 0].round(5)}
        ranked.write(part / f"{zone.name}_patches.gpkg", columns)
        advance(zone.grid.pixels)
    return {
        "pixels": ranks.pixels,
        "share": share,
        "similarity": least,
        "min_pixels": least_pixels,
        "patches": len(best),
        "patches_in_all": len(means),
    }


def _patches(part: Path, zone: Mosaic, least: float, least_pixels: int) -> Patches:
    """Return the patches of a zone, from its raster."""
    with rasterio.open(_raster(part, zone)) as raster:

        def read(box: Box) -> np.ndarray:
            return np.asarray(raster.read(window=RasterWindow.from_slices(*box)))

        return Patches.of(
            zone.grid,
            lambda box: read(box)[0] >= np.float32(least),
            read,
            1,
            scratch=part / "mask.tif",
            least=least_pixels,
        )


def _counted(examples: Examples) -> dict[str, Any]:
    """Return how many examples there are, and where the first of them lie, in degrees."""
    first = {"like": examples.lonlat[examples.like], "unlike": examples.lonlat[~examples.like]}
    places = {f"{kind}_at": each[:SHOWN].round(7).tolist() for kind, each in first.items()}
    return {**{kind: len(each) for kind, each in first.items()}, **places}


def _raster(part: Path, zone: Mosaic) -> Path:
    return part / f"{zone.name}_similarity.tif"


def _ignore(pixels: int) -> None:
    pass
