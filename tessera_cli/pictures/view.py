"""What pages with a picture on a canvas share: to move and zoom it, its scale, places in degrees (`view.js`)."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from pyproj import Geod, Transformer

from tessera_cli.extent.place import position
from tessera_cli.pages.document import document
from tessera_cli.pictures.canvas import Canvas

HERE = Path(__file__)
MESH = 33
"""Points along a side of the mesh by which the page knows longitude and latitude."""
NO_SCRIPT = "The picture needs JavaScript; the files beside this page do not."


def viewer(title: str, page: Path, body: str, grid: Canvas, **data: Any) -> bytes:
    """Return a whole page.

    Args:
        title: Plain text.
        page: The page's module, beside which its script (`.js`) and its CSS (`.css`) lie.
        body: HTML that holds `stage` once.
        grid: The pixels of the picture.
        data: What the script finds in `data`, besides what `view.js` needs.
    """
    height, width = grid.shape
    told = {"width": width, "height": height, "metres": metres(grid), "mesh": mesh(grid), **data}
    embedded = json.dumps(told, separators=(",", ":")).replace("<", "\\u003c")  # nothing in it ends the element
    body += f'<script type="application/json" id="data">{embedded}</script>\n'
    style, script = (
        "".join(each.with_suffix(suffix).read_text(encoding="utf-8") for each in (HERE, page))
        for suffix in (".css", ".js")
    )
    return document(title, style, body, script=script).encode(errors="backslashreplace")


def stage(label: str) -> str:
    """Return the canvas, its buttons, its scale, and the place under the pointer."""
    return (
        f'<div class="stage"><canvas id="picture" tabindex="0" role="img" aria-label="{escape(label)}" '
        f'aria-describedby="keys">{NO_SCRIPT}</canvas>\n'
        '<div class="zoom"><button id="in" aria-label="Zoom in">+</button>'
        '<button id="out" aria-label="Zoom out">\u2212</button>'
        '<button id="fit" aria-label="Show all of it">Fit</button></div>\n'
        '<div class="foot"><span id="scale" aria-hidden="true"></span>'
        '<output id="where" aria-live="off"></output></div></div>\n'
        '<p id="said" class="unseen" role="status"></p>\n'
    )


def header(name: str, lead: str, note: str) -> str:
    """Return the head of the page: the folder's name, a line below it, and a note on the model, if any."""
    told = f'<p class="note" role="note">Note on the model: {escape(note)}</p>\n' if note else ""
    return f"<header><h1>{escape(name)}</h1><p>{escape(lead)}</p></header>\n{told}"


def choice(legend: str, name: str, labels: Sequence[str]) -> str:
    """Return radio buttons; empty where there is nothing to choose."""
    if len(labels) < 2:
        return ""
    buttons = "".join(
        f'<label><input type="radio" name="{name}" value="{number}"/><span>{escape(label)}</span></label>'
        for number, label in enumerate(labels)
    )
    return f"<fieldset><legend>{legend}</legend>{buttons}</fieldset>"


def where(grid: Canvas) -> str:
    """Return ` · around 4.3512 E 51.0123 N`; empty where the place is not known."""
    points = mesh(grid)
    if points is None:
        return ""
    middle = MESH * MESH // 2
    lon = (points["lon"][middle] + 180) % 360 - 180
    return f" \u00b7 around {position(lon, points['lat'][middle])}"


def mesh(grid: Canvas) -> dict[str, Any] | None:
    """Return longitudes and latitudes of MESH x MESH points, row by row from the north-west; None if not known."""
    if grid.crs is None:
        return None
    west, south, east, north = grid.bounds
    x, y = np.meshgrid(np.linspace(west, east, MESH), np.linspace(north, south, MESH))
    lon, lat = Transformer.from_crs(grid.crs, 4326, always_xy=True).transform(x.ravel(), y.ravel())
    lon = lon[0] + (lon - lon[0] + 180) % 360 - 180  # no leap at the antimeridian
    return {"side": MESH, "lon": lon.round(7).tolist(), "lat": lat.round(7).tolist()}


def metres(grid: Canvas) -> float | None:
    """Return the width of a pixel in the middle, on the ellipsoid."""
    if grid.crs is None:
        return None
    west, south, east, north = grid.bounds
    x, y = (west + east) / 2, (south + north) / 2
    half = grid.transform.a / 2
    lon, lat = Transformer.from_crs(grid.crs, 4326, always_xy=True).transform([x - half, x + half], [y, y])
    return round(float(Geod(ellps="WGS84").inv(lon[0], lat[0], lon[1], lat[1])[2]), 4)


def packed(raw: bytes, level: int = 9) -> str:
    """Return bytes as base64 of zlib, for `unpacked` of the script."""
    return encoded(zlib.compress(raw, level))


def encoded(data: bytes) -> str:
    """Return base64."""
    return base64.b64encode(data).decode()
