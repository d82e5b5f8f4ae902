"""The share of a run that a process takes, and who writes what shows all of it."""

from __future__ import annotations

import logging
import os

from tessera_cli.extent.grid import TileRequest
from tessera_cli.folders.failures import failed_names
from tessera_cli.folders.folder import TileFolder
from tessera_cli.planning.costs import frozen_costs
from tessera_cli.planning.shard import Shard
from tessera_cli.runs.inputs import Inputs

logger = logging.getLogger(__name__)


def share_of(inputs: Inputs, folder: TileFolder, shard: Shard) -> list[TileRequest]:
    """Return the requests in a share: every tile of the run is in one, and all processes cut alike.

    Costs are those frozen with the scenes, so that no library of another machine decides about them.
    """
    requests = inputs.tile_requests
    costs = frozen_costs(folder, inputs.key) or inputs.costs
    chosen = list(requests[shard.of([costs.get(request.name, 1) for request in requests])])
    if chosen:
        logger.info("share %s: %d of %d tiles", shard, len(chosen), len(requests))
    else:
        logger.info("share %s holds none of the %d tiles: there is nothing to do", shard, len(requests))
    return chosen


def ends_last(inputs: Inputs, folder: TileFolder, shard: Shard | None) -> bool:
    """Return whether mosaics and lists are for this process to write: if no tile is left for other shares.

    Of shares that end at once, each has its own tiles in place before it looks, so the last one sees all.
    """
    if shard is None:
        return True
    there = {entry.name.removesuffix(".json") for entry in os.scandir(folder.path)}
    left = {request.name for request in inputs.tile_requests} - there - failed_names(folder.path, inputs.key)
    if left:
        logger.info("%d tiles are left to other shares, and mosaics and lists to the one that ends last", len(left))
    return not left
