"""Describe the output folder of `embed` or `fetch`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import shapely

from tessera_cli.errors import UsageError
from tessera_cli.extent.grid import parse_tile_name
from tessera_cli.extent.place import Place
from tessera_cli.folders.folder import TileFolder
from tessera_cli.folders.partial import encoded_pixels
from tessera_cli.inspection.census import CensusTaker, TileState
from tessera_cli.outputs.item import TileRecord
from tessera_cli.outputs.layers import DPIXELS, RUN
from tessera_cli.outputs.vrt import products


def describe_folder(path: Path, expected: str) -> Mapping[str, Any]:
    """Return what lies in a folder, and what became of each tile; UsageError, with what is expected, if it is none."""
    folder = TileFolder.open(path)
    identity, note = folder.identity, folder.note
    if not identity:
        raise UsageError(f"{path} is no output folder: it has no {RUN} (a plan alone writes none). {expected}")
    census = CensusTaker(folder).take()
    windows = {parsed[1] for state in census.states if (parsed := parse_tile_name(state.name)) is not None}
    return {
        "folder": str(path),
        **({"content": DPIXELS} if folder.holds_dpixels else {"model": identity.get("model")}),
        **({"note": note} if note else {}),
        "windows": [window.name for window in sorted(windows)],
        **({"place": place} if (place := _place(folder.runs())) else {}),
        "tiles": dict(census.counts),
        "pixels": sum(state.pixels for state in census.states),
        "bytes": sum(state.bytes for state in census.states),
        **({} if folder.holds_dpixels else {"mosaics": products(path)}),
        "identity": dict(identity),
        "by_tile": {state.name: _told(state, path) for state in census.states},
    }


def _told(state: TileState, folder: Path) -> dict[str, Any]:
    told: dict[str, Any] = {"status": state.status}
    if state.reason:
        told["reason"] = state.reason
    if state.finished is not None:
        told["pixels"] = state.pixels
    elif encoded := encoded_pixels(folder, state.name):
        told["encoded"] = encoded
    return {**told, **remarks(state)}


def remarks(of: TileState | TileRecord) -> dict[str, Any]:
    """Return the scenes that a tile lacks, and its warnings; no key for what there is nothing of."""
    found = {"holes": dict(of.missing_scenes), "warnings": list(of.warnings)}
    return {key: value for key, value in found.items() if value}


def _place(runs: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Return longitude and latitude of the middle of what runs asked for, in degrees; nothing if it is not known."""
    boxes = [(int(epsg), shapely.box(*box)) for run in runs for epsg, box in run.get("areas", {}).items()]
    if not boxes:
        return {}
    place = Place.of({epsg: shapely.union_all([box for zone, box in boxes if zone == epsg]) for epsg, _ in boxes})
    return {"lon": round(place.lon, 4), "lat": round(place.lat, 4)}
