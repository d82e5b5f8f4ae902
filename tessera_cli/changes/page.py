"""The page of a comparison: both windows to swipe between, and what has changed, from a score on that one chooses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from pyproj import Transformer
from rasterio.windows import Window as RasterWindow

from tessera_cli.changes.pairs import Pair
from tessera_cli.changes.target import SCORES
from tessera_cli.embeddings.tile import StoredTile
from tessera_cli.exports.patches import Patches
from tessera_cli.extent.grid import ForeignTile
from tessera_cli.pages.document import facts
from tessera_cli.pictures.canvas import Canvas
from tessera_cli.pictures.colours import Colours, sample_pixels
from tessera_cli.pictures.picture import png, read_picture, write_picture
from tessera_cli.pictures.view import choice, encoded, header, packed, stage, viewer, where

HERE = Path(__file__)
STEPS, LOWEST = 10, -2.0
"""Scores are shown in steps of a tenth, from LOWEST on: a byte each, 0 where there is none."""
LISTED = 40
"""Patches that the page lists."""


def page(part: Path, pairs: Sequence[Pair], patches: Sequence[Patches], about: Mapping[str, Any]) -> bytes:
    """Return the page.

    Args:
        part: The folder that holds the scores; pictures lie in it meanwhile.
        pairs: The zones.
        patches: Of each zone, strongest first.
        about: The record of the comparison.
    """
    sides = (
        [tile for pair in pairs for tile, _ in pair.before.tiles],
        [tile for pair in pairs for tile, _ in pair.after.tiles],
    )
    tiles = [*sides[0], *sides[1]]
    canvas, colours = Canvas.of(tiles, len(sides)), Colours.of(sample_pixels(tiles))
    grid = canvas.coarser(canvas.page)
    windows = (about["before"], about["after"])
    return viewer(
        f"{windows[0]} to {windows[1]}: what has changed",
        HERE,
        _body(pairs, canvas, about),
        grid,
        windows=[
            {"name": name, "picture": _picture(part, canvas, side, colours)}
            for name, side in zip(windows, sides, strict=True)
        ],
        scores=packed(_scores(part, pairs, grid).tobytes()),
        steps=STEPS,
        lowest=LOWEST,
        least=about["z_score"],
        patches=_listed(pairs, patches, grid),
    )


def _picture(part: Path, canvas: Canvas, tiles: Sequence[StoredTile], colours: Colours) -> str:
    """Return the picture of a window as a PNG in a data URL."""
    path = part / "picture.tif"
    write_picture(path, canvas, tiles, colours, {})
    found = png(read_picture(path, canvas, canvas.page))
    path.unlink()
    return f"data:image/png;base64,{encoded(found)}"


def _scores(part: Path, pairs: Sequence[Pair], grid: Canvas) -> np.ndarray:
    """Return the scores of the page's pixels, uint8 (h, w), as STEPS and LOWEST say."""
    found, band = np.zeros(grid.shape, np.uint8), SCORES.names.index("z_score") + 1
    for pair in pairs:
        tile = ForeignTile(pair.name, pair.grid.shape, pair.grid.crs, pair.grid.transform)
        with rasterio.open(part / f"{pair.name}_scores.tif") as raster:
            for box in pair.grid.boxes():
                z = raster.read(band, window=RasterWindow.from_slices(*box))
                steps = np.where(np.isnan(z), 0, 1 + np.floor((np.nan_to_num(z) - LOWEST) * STEPS).clip(0, 254))
                taken = grid.take(tile, box, steps.astype(np.uint8)[None], 0)
                if taken is not None:
                    place, values = taken
                    found[place] = np.where(values[0] > 0, values[0], found[place])
    return found


def _listed(pairs: Sequence[Pair], patches: Sequence[Patches], grid: Canvas) -> list[dict[str, float]]:
    """Return the strongest patches of all zones: where they lie on the picture, and what is known of them."""
    found = []
    for pair, each in zip(pairs, patches, strict=True):
        to_grid = Transformer.from_crs(pair.grid.crs, grid.crs, always_xy=True)
        some = each.take(np.arange(min(LISTED, len(each))))
        for outline, pixels, (z, _, before, after) in zip(some.outlines, some.pixels, some.means, strict=True):
            west, south, east, north = to_grid.transform_bounds(*shapely.bounds(outline))
            (left, top), (right, bottom) = ~grid.transform * (west, north), ~grid.transform * (east, south)
            found.append(
                {
                    "left": left,
                    "top": top,
                    "right": right,
                    "bottom": bottom,
                    "pixels": int(pixels),
                    "z": round(float(z), 2),
                    "dates": [None if np.isnan(dates) else round(float(dates)) for dates in (before, after)],
                }
            )
    return sorted(found, key=lambda each: -each["z"])[:LISTED]


def _body(pairs: Sequence[Pair], canvas: Canvas, about: Mapping[str, Any]) -> str:
    identity = about["embeddings"]
    before, after = about["before"], about["after"]
    note = pairs[0].before.tiles[0][0].record.note
    share = about["changed"] / max(about["pixels"], 1)
    lead = f"What has changed \u00b7 embeddings by {identity['model']}{where(canvas)}"
    return (
        header(f"{before} to {after}", lead, note)
        + '<main>\n<div class="choices">'
        + choice("Change", "layer", ["Over the pictures", "Scores", "Hidden"])
        + f'<label class="slider" for="swipe">{escape(before)} <input id="swipe" type="range" min="0" max="1000"/> '
        f"{escape(after)}</label>"
        '<label class="slider" for="least">Changed from a score of <input id="least" type="range" min="0" max="250"/>'
        '<output id="chosen"></output></label></div>\n'
        + stage("Picture of both windows and of what has changed")
        + '<div class="legend" id="legend" hidden="hidden"><span id="from"></span><i></i><span id="to"></span> '
        '<span class="soft">standard deviations beyond what is ordinary</span></div>\n'
        '<h2>Strongest patches</h2>\n<ol id="patches"></ol><p class="soft" id="none" hidden="hidden">None.</p>\n'
        '<p class="meaning">Left of the line is the window before, right of it the one after, in the same colours: '
        "where colours are alike, so are embeddings. The score says how many standard deviations further a pixel is "
        "from what has become of land that looked like it than such land usually is. It is no cause: look at what "
        "it is.</p>\n"
        '<p id="keys" class="keys">Drag or pinch to move, wheel or double click to zoom. Keys: arrows, <kbd>+</kbd> '
        "<kbd>\u2212</kbd>, <kbd>0</kbd> for all of it, <kbd>[</kbd> <kbd>]</kbd> to swipe.</p>\n"
        "<h2>What made them</h2>\n"
        + facts(
            {
                "Model": identity["model"],
                "Source": identity["source"] or "not recorded",
                "Pixels": f"{about['pixels']:,} in both windows",
                "Changed": f"{about['changed']:,} ({share:.2%})",
                "Rate": f"{about['false_discovery_rate']:g} of what is named has not changed, at most about",
            }
        )
        + "</main>\n"
    )
