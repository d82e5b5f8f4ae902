"""Which tiles of a run are to be taken."""

from __future__ import annotations

from tessera_cli.extent.grid import TileRequest
from tessera_cli.runs.folder import TileFolder
from tessera_cli.runs.inputs import Inputs
from tessera_cli.runs.terms import Terms


def select(inputs: Inputs, folder: TileFolder, terms: Terms) -> list[TileRequest]:
    """Return the requests of the run that the terms choose, in their order."""
    return list(inputs.tile_requests)
