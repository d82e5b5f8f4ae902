"""The page of a folder: pictures to pan and zoom, a switch of windows, counts, provenance. It loads nothing."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from pyproj import CRS, Geod, Transformer

from tessera_cli.embeddings.folder import EmbeddingFolder
from tessera_cli.embeddings.tile import StoredTile
from tessera_cli.errors import counted
from tessera_cli.extent.place import position
from tessera_cli.extent.window import Window
from tessera_cli.outputs.layers import NOT_REQUESTED
from tessera_cli.outputs.tags import SOFTWARE
from tessera_cli.pages.document import document, facts
from tessera_cli.pictures.canvas import Canvas
from tessera_cli.pictures.colours import Colours

HERE = Path(__file__)
MESH = 33
"""Points along a side of the mesh by which the page knows longitude and latitude."""
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
    mesh = _mesh(grid)
    height, width = grid.shape
    most = [int(max(_known(each.counts[sensor]).max(initial=0) for each in shown)) for sensor in range(len(NAMES))]
    data = {
        "width": width,
        "height": height,
        "metres": _metres(grid),
        "mesh": mesh,
        "sensors": NAMES,
        "most": most,
        "windows": [
            {"name": each.name, "picture": f"data:image/png;base64,{_base64(each.picture)}", **_packed(each.counts)}
            for each in shown
        ],
    }
    body = _body(folder, tiles, canvas, colours, factor, shown, mesh)
    embedded = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")  # nothing in it ends the element
    body += f'<script type="application/json" id="data">{embedded}</script>\n'
    style, script = (HERE.with_suffix(suffix).read_text(encoding="utf-8") for suffix in (".css", ".js"))
    title = f"{folder.path.resolve().name}: TESSERA embeddings"
    return document(title, style, body, script=script).encode(errors="backslashreplace")


def _body(
    folder: EmbeddingFolder,
    tiles: Sequence[StoredTile],
    canvas: Canvas,
    colours: Colours,
    factor: int,
    shown: Sequence[Shown],
    mesh: dict[str, Any] | None,
) -> str:
    identity, note = folder.first.identity, folder.first.note
    where = ""
    if mesh is not None:
        middle = MESH * MESH // 2
        lon = (mesh["lon"][middle] + 180) % 360 - 180
        where = f" \u00b7 around {position(lon, mesh['lat'][middle])}"
    times = ", ".join(each.name for each in shown) if len(shown) < 4 else counted(len(shown), "window")
    lead = f"Embeddings by {identity['model']} \u00b7 {times}{where}"
    layers = ["Embedding", *NAMES]
    shares = "".join(
        f'<li class="{name.lower()}"><i></i>{name} <b>{share:.0%}</b></li>'
        for name, share in zip(COLOURS, colours.explained, strict=False)
    )
    return (
        f"<header><h1>{escape(folder.path.resolve().name)}</h1><p>{escape(lead)}</p></header>\n"
        + (f'<p class="note" role="note">Note on the model: {escape(note)}</p>\n' if note else "")
        + '<main>\n<div class="choices">'
        + _choice("Window", "window", [each.name for each in shown])
        + _choice("Show", "layer", layers)
        + "</div>\n"
        '<div class="stage"><canvas id="picture" tabindex="0" role="img" aria-label="Picture of the embeddings" '
        'aria-describedby="keys">The picture needs JavaScript; the files beside this page do not.</canvas>\n'
        '<div class="zoom"><button id="in" aria-label="Zoom in">+</button>'
        '<button id="out" aria-label="Zoom out">\u2212</button>'
        '<button id="fit" aria-label="Show all of it">Fit</button></div>\n'
        '<div class="foot"><span id="scale" aria-hidden="true"></span>'
        '<output id="where" aria-live="off"></output></div></div>\n'
        f'<div class="legend"><ul id="components" aria-label="Share of the variance">{shares}'
        "<li>of the variance</li></ul>\n"
        '<div id="ramp" hidden="hidden"><span id="least">0</span><i></i><span id="most"></span>'
        '<span id="what"></span></div></div>\n'
        '<p id="said" class="unseen" role="status"></p>\n'
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


def _choice(legend: str, name: str, labels: Sequence[str]) -> str:
    """Return radio buttons; empty where there is nothing to choose."""
    if len(labels) < 2:
        return ""
    buttons = "".join(
        f'<label><input type="radio" name="{name}" value="{number}"/><span>{escape(label)}</span></label>'
        for number, label in enumerate(labels)
    )
    return f"<fieldset><legend>{legend}</legend>{buttons}</fieldset>"


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


def _mesh(grid: Canvas) -> dict[str, Any] | None:
    """Return longitudes and latitudes of MESH x MESH points, row by row from the north-west; None if not known."""
    if grid.crs is None:
        return None
    west, south, east, north = grid.bounds
    x, y = np.meshgrid(np.linspace(west, east, MESH), np.linspace(north, south, MESH))
    lon, lat = Transformer.from_crs(grid.crs, 4326, always_xy=True).transform(x.ravel(), y.ravel())
    lon = lon[0] + (lon - lon[0] + 180) % 360 - 180  # no leap at the antimeridian
    return {"side": MESH, "lon": lon.round(7).tolist(), "lat": lat.round(7).tolist()}


def _metres(grid: Canvas) -> float | None:
    """Return the width of a pixel in the middle, on the ellipsoid."""
    if grid.crs is None:
        return None
    west, south, east, north = grid.bounds
    x, y = (west + east) / 2, (south + north) / 2
    half = grid.transform.a / 2
    lon, lat = Transformer.from_crs(grid.crs, 4326, always_xy=True).transform([x - half, x + half], [y, y])
    return round(float(Geod(ellps="WGS84").inv(lon[0], lat[0], lon[1], lat[1])[2]), 4)


def _known(counts: np.ndarray) -> np.ndarray:
    return counts[counts != NOT_REQUESTED]


def _packed(counts: np.ndarray) -> dict[str, Any]:
    """Return counts as base64 of zlib, in one byte each where they fit; the largest number says that there is none."""
    small = _known(counts).max(initial=0) < 255
    raw = np.where(counts == NOT_REQUESTED, 255, counts).astype(np.uint8) if small else counts.astype("<u2")
    return {"counts": _base64(zlib.compress(raw.tobytes(), 9)), "bytes": raw.itemsize}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
