"""Which tiles of a run are to be taken."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Sequence

from tessera_cli.errors import UsageError
from tessera_cli.extent.grid import Tile, TileRequest, parse_tile_name
from tessera_cli.folders.folder import TileFolder
from tessera_cli.runs.inputs import Inputs
from tessera_cli.runs.shares import share_of
from tessera_cli.runs.terms import Terms

logger = logging.getLogger(__name__)

NEAR = 3
"""Tiles that a message names in place of one that is not known."""


def select(inputs: Inputs, folder: TileFolder, terms: Terms) -> list[TileRequest]:
    """Return the requests of the run that the terms choose, in their order: those that meet all that is said.

    Whether a tile is finished is not asked here. UsageError as `check_tiles`.
    """
    share = chosen = list(inputs.tile_requests) if terms.shard is None else share_of(inputs, folder, terms.shard)
    if terms.tiles:
        check_tiles(inputs, terms)
        chosen = [request for request in chosen if not _names(request).isdisjoint(terms.tiles)]
    if terms.retry_failed:
        failed = folder.failures()
        chosen = [request for request in chosen if request.name in failed]
    if left := len(share) - len(chosen):
        logger.info("%d of %d tiles are left as they are", left, len(share))
    return chosen


def check_tiles(inputs: Inputs, terms: Terms) -> None:
    """Raise UsageError, which names tiles near by, where one that was named is not of this run."""
    if not terms.tiles:
        return
    known = set[str]().union(*map(_names, inputs.tile_requests))
    for name in terms.tiles:
        if name not in known:
            near = ", ".join(_near(name, inputs.tile_requests))
            raise UsageError(
                f"--tile {name} is no tile of this run. Near it are {near}; `tessera plan --footprints` shows all."
            )


def _names(request: TileRequest) -> set[str]:
    """Return what a tile may be called by: with its window, or without for all windows."""
    return {request.name, request.tile.id}


def _near(name: str, requests: Sequence[TileRequest]) -> list[str]:
    """Return the tiles next to one of the grid; of other names, those that are spelled like it."""
    asked = parse_tile_name(name) or parse_tile_name(f"{name}_2023")
    if asked is not None and (on_grid := [each for each in requests if _distance(asked[0], each) is not None]):
        return [each.name for each in sorted(on_grid, key=lambda each: _distance(asked[0], each) or 0)[:NEAR]]
    names = [each.name for each in requests]
    return difflib.get_close_matches(name, names, NEAR) or names[:NEAR]


def _distance(tile: Tile, request: TileRequest) -> int | None:
    """Return how many tiles lie between two; None if they are not on one grid."""
    other = request.tile
    if not isinstance(other, Tile) or other.epsg != tile.epsg:
        return None
    return max(abs(other.column - tile.column), abs(other.row - tile.row))
