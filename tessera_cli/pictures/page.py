"""The page of a folder: pictures to pan and zoom, a switch of windows, counts, provenance. It loads nothing."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from pyproj import Geod, Transformer

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
SENSORS = ("Sentinel-2", "Sentinel-1 ascending", "Sentinel-1 descending")
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


def write_page(
    path: Path,
    folder: EmbeddingFolder,
    tiles: Sequence[StoredTile],
    canvas: Canvas,
    colours: Colours,
    shown: Sequence[Shown],
) -> None:
    """Write the page; `canvas` is the grid of the full pictures, `tiles` are those that they show."""
    page = canvas.coarser(canvas.page)
    mesh = _mesh(page)
    height, width = page.shape
    most = [int(max(_known(each.counts[sensor]).max(initial=0) for each in shown)) for sensor in range(len(SENSORS))]
    data = {
        "width": width,
        "height": height,
        "metres": _metres(page),
        "mesh": mesh,
        "sensors": SENSORS,
        "most": most,
        "windows": [
            {"name": each.name, "picture": f"data:image/png;base64,{_base64(each.picture)}", **_packed(each.counts)}
            for each in shown
        ],
    }
    body = _body(folder, tiles, canvas, colours, shown, mesh)
    embedded = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")  # nothing in it ends the element
    body += f'<script type="application/json" id="data">{embedded}</script>\n'
    style, script = (HERE.with_suffix(suffix).read_text(encoding="utf-8") for suffix in (".css", ".js"))
    title = f"{folder.path.resolve().name}: TESSERA embeddings"
    path.write_bytes(document(title, style, body, script=script).encode(errors="backslashreplace"))


def _body(
    folder: EmbeddingFolder,
    tiles: Sequence[StoredTile],
    canvas: Canvas,
    colours: Colours,
    shown: Sequence[Shown],
    mesh: dict[str, Any] | None,
) -> str:
    identity, note = folder.first.identity, folder.first.note
    where = ""
    if mesh is not None:
        middle = MESH * MESH // 2
        where = f" around {position(mesh['lon'][middle], mesh['lat'][middle])}"
    lead = f"Embeddings by {identity['model']}, {counted(len(shown), 'window')}{where}"
    layers = ["Embedding", *SENSORS]
    shares = "".join(
        f'<li class="{name.lower()}"><i></i>{name} <b>{share:.0%}</b></li>'
        for name, share in zip(COLOURS, colours.explained, strict=False)
    )
    return (
        f"<header><h1>{escape(folder.path.resolve().name)}</h1><p>{escape(lead)}</p></header>\n"
        + (f'<p class="note" role="note">{escape(note)}</p>\n' if note else "")
        + '<main>\n<div class="choices">'
        + _choice("Window", "window", [each.name for each in shown])
        + _choice("Show", "layer", layers)
        + "</div>\n"
        '<div class="stage"><canvas id="picture" tabindex="0" role="img" aria-label="Picture of the embeddings" '
        'aria-describedby="keys">The picture needs JavaScript; the files beside this page do not.</canvas>\n'
        '<div class="zoom"><button id="in" aria-label="Zoom in">+</button>'
        '<button id="out" aria-label="Zoom out">\u2212</button>'
        '<button id="fit" aria-label="Show all of it">Fit</button></div>\n'
        '<div class="foot"><span id="scale" aria-hidden="true"></span><output id="where" aria-live="off"></output></div>'
        "</div>\n"
        f'<div class="legend"><ul id="components" aria-label="Share of the variance">{shares}'
        "<li>of the variance</li></ul>\n"
        '<div id="ramp" hidden="hidden"><span id="least">0</span><i></i><span id="most"></span>'
        "<span id=\"what\"></span></div></div>\n"
        '<p id="said" class="unseen" role="status"></p>\n'
        f'<p class="meaning">{_meaning(tiles, canvas)}</p>\n'
        '<p id="keys" class="keys">Drag or pinch to move, wheel or double click to zoom. Keys: arrows, <kbd>+</kbd> '
        "<kbd>\u2212</kbd>, <kbd>0</kbd> for all of it, <kbd>[</kbd> <kbd>]</kbd> for the window before and after.</p>\n"
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


def _meaning(tiles: Sequence[StoredTile], canvas: Canvas) -> str:
    told = [
        "The colours are the first three principal components of the embeddings of all tiles and windows: where colours "
        "are alike, so are the embeddings, in one window or in two. A colour has no meaning of its own."
    ]
    zones = sorted({str(tile.record.tile.crs) for tile in tiles} - {str(canvas.crs)})
    if zones:
        told.append(
            f"Tiles of {escape(', '.join(zone[:40] for zone in zones))} are drawn in {escape(str(canvas.crs)[:40])}: each pixel is the one "
            "that its centre lies in."
        )
    if canvas.crs is None:
        told.append("The tiles have no place on the map: they lie here side by side.")
    if canvas.page > 1:
        told.append(
            f"A pixel here is the mean of {canvas.page} x {canvas.page} pixels of the full picture; "
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
        "Pixels": f"{pixels:,} embedded, of all windows",
        "Values": f"{identity['dims']} per pixel, {identity['dtype']}, computed in {identity['precision']}",
        "Coordinates": "none" if canvas.crs is None else f"{canvas.crs[:40]}{unit}",
        "Variance shown": f"{sum(colours.explained):.0%}",
        "Software": ", ".join(sorted({f"{SOFTWARE} {tile.record.software}" for tile in tiles})),
    }
    return found


def _dates(window: Window) -> str:
    return window.name if window.is_year else f"{window.start} to {window.end}"


def _mesh(page: Canvas) -> dict[str, Any] | None:
    """Return longitudes and latitudes at MESH x MESH points from the north-west corner, row by row; None without any."""
    if page.crs is None:
        return None
    west, south, east, north = page.bounds
    x, y = np.meshgrid(np.linspace(west, east, MESH), np.linspace(north, south, MESH))
    lon, lat = Transformer.from_crs(page.crs, 4326, always_xy=True).transform(x.ravel(), y.ravel())
    lon = lon[0] + (lon - lon[0] + 180) % 360 - 180  # no leap at the antimeridian
    return {"side": MESH, "lon": lon.round(7).tolist(), "lat": lat.round(7).tolist()}


def _metres(page: Canvas) -> float | None:
    """Return the width of a pixel in the middle, on the ellipsoid."""
    if page.crs is None:
        return None
    west, south, east, north = page.bounds
    x, y = (west + east) / 2, (south + north) / 2
    half = page.transform.a / 2
    lon, lat = Transformer.from_crs(page.crs, 4326, always_xy=True).transform([x - half, x + half], [y, y])
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
