"""The page of a search: click a place, see what is like it. It holds a code per pixel, and loads nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from pyproj import Transformer

from tessera_cli.embeddings.folder import EmbeddingFolder
from tessera_cli.embeddings.grid import pixels_in
from tessera_cli.embeddings.tile import StoredTile
from tessera_cli.extent.place import position
from tessera_cli.pages.document import facts
from tessera_cli.pictures.canvas import Canvas
from tessera_cli.pictures.colours import blocks
from tessera_cli.pictures.view import choice, header, packed, stage, viewer, where
from tessera_cli.similarity.codes import Codes
from tessera_cli.similarity.examples import UNLIKE, Examples

HERE = Path(__file__)
PIXELS = 1 << 22
"""Of the page, at most: of a larger area every second, third, ... pixel of each row and column."""
SHOWN = 50
"""Examples that are listed one by one; more of them are shown as their mean."""


@dataclass(frozen=True, eq=False)
class Coded:
    """What the page knows of the pixels."""

    grid: Canvas
    factor: int
    """How many pixels of 10 m lie along a side of one of the page."""
    codes: np.ndarray
    """int8 (K, h, w), all 0 where there is no embedding."""


def coded(tiles: Sequence[StoredTile], codes: Codes, report: Callable[[int], object]) -> Coded:
    """Read the codes of an area; memory is that of the page, and of a block of a tile."""
    canvas = Canvas.of(tiles, 1)
    height, width = canvas.shape
    factor = math.ceil(math.sqrt(height * width / PIXELS))
    grid = replace(canvas, shape=(-(-height // factor) * factor, -(-width // factor) * factor)).coarser(factor)
    found = np.zeros((len(codes.axes), *grid.shape), np.int8)
    for tile in tiles:
        for box in blocks(tile):
            taken = grid.take(tile.record.tile, box, codes.encode(*tile.stored(box)), 0)
            if taken is not None:
                (rows, columns), values = taken
                there = found[:, rows, columns]
                there[...] = np.where(values.any(axis=0), values, there)
            report(pixels_in(box))
    first = next((tile.record.tile for tile in tiles if tile.record.tile.crs == grid.crs), None)
    if first is not None and first.transform is not None:
        factor = round(grid.transform.a / first.transform.a)  # very large areas are coarser from the beginning
    return Coded(grid, factor, found)


def page(folder: EmbeddingFolder, pixels: Coded, codes: Codes, examples: Examples | None, share: float) -> bytes:
    """Return the page; `examples` are there when it opens, and `share` of the pixels is coloured."""
    name = folder.path.resolve().name
    colours = (1, 2, 3) if len(codes.axes) > 3 else tuple(range(len(codes.axes)))
    return viewer(
        f"{name}: search by example",
        HERE,
        _body(folder, pixels, codes),
        pixels.grid,
        planes=[packed(plane.tobytes(), 6) for plane in pixels.codes],
        colours=[{"plane": each, "low": float(codes.low[each]), "high": float(codes.high[each])} for each in colours],
        examples=[] if examples is None else _listed(examples, codes, pixels.grid),
        unlike=UNLIKE,
        share=share,
    )


def _listed(examples: Examples, codes: Codes, grid: Canvas) -> list[dict[str, Any]]:
    """Return the examples as the page's script has them."""
    vectors = codes.project(examples.vectors)
    found = []
    for like in (True, False):
        rows = np.flatnonzero(examples.like == like)
        if len(rows) > SHOWN:
            mean = vectors[rows].mean(axis=0).round(6).tolist()
            name = f"the mean of {len(rows):,} places"
            found.append({"vector": mean, "like": like, "name": name, "weight": len(rows)})
            continue
        lon, lat = examples.lonlat[rows].T
        x, y = Transformer.from_crs(4326, grid.crs, always_xy=True).transform(lon, lat)
        columns, lines = ~grid.transform * (np.asarray(x), np.asarray(y))
        found += [
            {
                "vector": vectors[row].round(6).tolist(),
                "like": like,
                "name": position(*examples.lonlat[row]),
                "column": float(column),
                "row": float(line),
            }
            for row, column, line in zip(rows, columns, lines, strict=True)
        ]
    return found


def _body(folder: EmbeddingFolder, pixels: Coded, codes: Codes) -> str:
    identity, note = folder.first.identity, folder.first.note
    window = f" \u00b7 {folder.windows[0].name}" if folder.windows else ""
    lead = f"Search by example \u00b7 embeddings by {identity['model']}{window}{where(pixels.grid)}"
    return (
        header(folder.path.resolve().name, lead, note)
        + '<main>\n<div class="choices">'
        + choice("A click marks", "mode", ["Like this", "Not like this", "Label"])
        + choice("Show", "layer", ["Similarity", "Embedding"])
        + '<label class="slider" for="share">Most similar <input id="share" type="range" min="0" max="300" step="1"/>'
        '<output id="coloured"></output></label></div>\n'
        + stage("Map of the area: click a place to see what is like it")
        + '<div class="legend" id="legend" hidden="hidden"><span id="least"></span><i></i><span id="most"></span> '
        '<span class="soft">similarity (cosine); what is grey is less similar than that</span></div>\n'
        '<div class="columns"><section aria-labelledby="of-examples"><h2 id="of-examples">Examples</h2>\n'
        '<p id="hint">Click a place on the map to see what is like it.</p><ul id="examples"></ul>\n'
        '<p class="buttons"><button id="clear" disabled="disabled">Clear</button>'
        '<button id="save-like" disabled="disabled">Save examples</button>'
        '<button id="save-unlike" disabled="disabled">Save counterexamples</button></p></section>\n'
        '<section aria-labelledby="of-labels"><h2 id="of-labels">Labels</h2>\n'
        '<p><label for="class">Class</label> <input id="class" list="classes" value="field" autocomplete="off"/>'
        '<datalist id="classes"></datalist></p>\n<p class="soft">Choose \u201cLabel\u201d above, click the corners of '
        "an area, and close it with Enter or a click on the first corner. One corner alone labels that pixel.</p>"
        '<ul id="labels"></ul>\n<p class="buttons"><button id="undo" disabled="disabled">Undo</button>'
        '<button id="save" disabled="disabled">Save labels</button></p></section></div>\n'
        f'<p class="meaning">{_meaning(pixels, codes)}</p>\n'
        '<p id="keys" class="keys">Drag or pinch to move, wheel to zoom. Keys: arrows, <kbd>+</kbd> <kbd>\u2212</kbd>, '
        "<kbd>0</kbd> for all of it, <kbd>Enter</kbd> to mark the middle, or to close an area, <kbd>Backspace</kbd> to "
        "take the last mark back.</p>\n<h2>What made them</h2>\n"
        + facts(
            {
                "Model": identity["model"],
                "Source": identity["source"] or "not recorded",
                "Preprocessing": identity["preprocessing"],
                "Values": f"{identity['dims']} per pixel, here {len(codes.axes)} bytes",
                "Squared length": f"{codes.kept:.1%} kept",
            }
        )
        + "</main>\n"
    )


def _meaning(pixels: Coded, codes: Codes) -> str:
    mean, far = codes.difference
    told = [
        "Similarity is the cosine between a pixel's embedding and the mean of the examples, less a quarter of the mean "
        "of what it should not be like. It says that places looked alike all year round to the satellites, not that "
        "they are the same.",
        f"The page has {len(codes.axes)} bytes a pixel in place of {escape(str(codes.axes.shape[1]))} numbers: its "
        f"similarities are off by {mean:.3f} on average, in 99 of 100 cases by less than {far:.3f}. "
        "<code>tessera search</code> writes exact ones.",
    ]
    if pixels.factor > 1:
        told.append(
            f"The area is large: a pixel here stands for {pixels.factor} x {pixels.factor}, of which it is one."
        )
    return " ".join(told)
