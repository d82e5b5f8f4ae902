"""The page of a folder: pictures to pan and zoom, a switch of windows, counts, provenance. It loads nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from pyproj import CRS

from tessera_cli.embeddings.folder import EmbeddingFolder
from tessera_cli.embeddings.tile import StoredTile
from tessera_cli.errors import counted
from tessera_cli.extent.window import Window
from tessera_cli.outputs.layers import NOT_REQUESTED
from tessera_cli.outputs.tags import SOFTWARE
from tessera_cli.pages.document import facts
from tessera_cli.pictures.canvas import Canvas
from tessera_cli.pictures.colours import Colours
from tessera_cli.pictures.view import choice, encoded, header, packed, stage, viewer, where

HERE = Path(__file__)
NAMES = ("Sentinel-2", "Radar ascending", "Radar descending")
COLOURS = ("Red", "Green", "Blue")


@dataclass(frozen=True, eq=False)
class Shown:
    """What the page shows of a window."""

    name: str
    window: Window | None
    picture: bytes
    """PNG (h, w)."""
    counts: np.ndarray
    """uint16 (3, h, w)."""


def page(
    folder: EmbeddingFolder,
    tiles: Sequence[StoredTile],
    canvas: Canvas,
    colours: Colours,
    factor: int,
    windows: Iterable[Shown],
) -> bytes:
    """Return the page.

    Args:
        folder: The folder.
        tiles: Those of its tiles that are shown.
        canvas: The grid of the full pictures.
        colours: What their colours are.
        factor: How many pixels of the full picture a pixel of the page has along a side.
        windows: What to show of each, at least one.
    """
    shown, grid = list(windows), canvas.coarser(factor)
    return viewer(
        f"{folder.path.resolve().name}: TESSERA embeddings",
        HERE,
        _body(folder, tiles, canvas, colours, factor, shown),
        grid,
        sensors=NAMES,
        most=[int(max(_known(each.counts[k]).max(initial=0) for each in shown)) for k in range(len(NAMES))],
        windows=[
            {"name": each.name, "picture": f"data:image/png;base64,{encoded(each.picture)}", **_packed(each.counts)}
            for each in shown
        ],
    )


def _body(
    folder: EmbeddingFolder,
    tiles: Sequence[StoredTile],
    canvas: Canvas,
    colours: Colours,
    factor: int,
    shown: Sequence[Shown],
) -> str:
    identity, note = folder.first.identity, folder.first.note
    times = ", ".join(each.name for each in shown) if len(shown) < 4 else counted(len(shown), "window")
    lead = f"Embeddings by {identity['model']} \u00b7 {times}{where(canvas)}"
    layers = ["Embedding", *NAMES]
    shares = "".join(
        f'<li class="{name.lower()}"><i></i>{name} <b>{share:.0%}</b></li>'
        for name, share in zip(COLOURS, colours.explained, strict=False)
    )
    return (
        header(folder.path.resolve().name, lead, note)
        + '<main>\n<div class="choices">'
        + choice("Window", "window", [each.name for each in shown])
        + choice("Show", "layer", layers)
        + "</div>\n"
        + stage("Picture of the embeddings")
        + f'<div class="legend"><ul id="components" aria-label="Share of the variance">{shares}'
        "<li>of the variance</li></ul>\n"
        '<div id="ramp" hidden="hidden"><span id="least">0</span><i></i><span id="most"></span>'
        '<span id="what"></span></div></div>\n'
        f'<p class="meaning">{_meaning(tiles, canvas, factor)}</p>\n'
        '<p id="keys" class="keys">Drag or pinch to move, wheel or double click to zoom. Keys: arrows, <kbd>+</kbd> '
        "<kbd>\u2212</kbd>, <kbd>0</kbd> for all of it"
        + (", <kbd>[</kbd> <kbd>]</kbd> for the window before or after" if len(shown) > 1 else "")
        + ".</p>\n"
        "<h2>What made them</h2>\n"
        + facts(_facts(folder, tiles, canvas, colours, shown))
        + "<h2>Files</h2>\n<ul>"
        + "".join(
            f"<li><code>preview_{escape(each.name)}.tif</code>: this picture in full, a Cloud-Optimized GeoTIFF; "
            f"<code>preview_{escape(each.name)}.png</code>: a smaller copy.</li>"
            for each in shown
        )
        + "</ul>\n</main>\n"
    )


def _meaning(tiles: Sequence[StoredTile], canvas: Canvas, factor: int) -> str:
    told = [
        '<span id="colours">The colours are the first three principal components of the embeddings of all tiles and '
        "windows: where colours are alike, so are the embeddings, in one window or in two. A colour has no meaning of "
        "its own.</span>"
    ]
    others = sorted({_short(tile.record.tile.crs) for tile in tiles if tile.record.tile.crs != canvas.crs})
    if others:
        told.append(
            f"Tiles of {escape(', '.join(others))} are drawn in {escape(_short(canvas.crs))}: each pixel is the one "
            "that its centre lies in."
        )
    if canvas.crs is None:
        told.append("The tiles have no place on the map: they lie here side by side.")
    if factor > 1:
        told.append(
            f"A pixel here is the mean of {factor} x {factor} pixels of the full picture; "
            "counts are those of the one in their middle."
        )
    return " ".join(told)


def _facts(
    folder: EmbeddingFolder,
    tiles: Sequence[StoredTile],
    canvas: Canvas,
    colours: Colours,
    shown: Sequence[Shown],
) -> dict[str, object]:
    identity = folder.first.identity
    pixels = sum(tile.record.pixels for tile in tiles)
    places = {tile.record.tile.id for tile in tiles}
    unit = "" if canvas.crs is None else f", pixels of {canvas.transform.a:g} m"
    found: dict[str, object] = {
        "Model": identity["model"],
        "Weights": f"SHA-256 {str(identity['weights_sha256'])[:12]}\u2026",
        "Source": identity["source"] or "not recorded",
        "Preprocessing": identity["preprocessing"],
        "Windows": ", ".join(each.name if each.window is None else _dates(each.window) for each in shown),
        "Tiles": f"{len(places):,}",
        "Pixels": f"{pixels:,}" + (" in all windows" if len(shown) > 1 else ""),
        "Values": f"{identity['dims']} per pixel, {identity['dtype']}, computed in {identity['precision']}",
        "Coordinates": "none" if canvas.crs is None else f"{_short(canvas.crs)}{unit}",
        "Variance": f"{sum(colours.explained):.0%} shown",
        "Software": ", ".join(sorted({f"{SOFTWARE} {tile.record.software}" for tile in tiles})),
    }
    return found


def _short(crs: str | None) -> str:
    """Return the name of a coordinate system, which may be WKT."""
    return str(crs) if len(str(crs)) < 40 else CRS.from_user_input(crs).name


def _dates(window: Window) -> str:
    return window.name if window.is_year else f"{window.start} to {window.end}"


def _known(counts: np.ndarray) -> np.ndarray:
    return counts[counts != NOT_REQUESTED]


def _packed(counts: np.ndarray) -> dict[str, Any]:
    """Return counts as base64 of zlib, in one byte each where they fit; the largest number says that there is none."""
    small = _known(counts).max(initial=0) < 255
    raw = np.where(counts == NOT_REQUESTED, 255, counts).astype(np.uint8) if small else counts.astype("<u2")
    return {"counts": packed(raw.tobytes()), "bytes": raw.itemsize}
