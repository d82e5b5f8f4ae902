"""The tiles of a plan as GeoJSON, to be looked at on a map."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tessera_cli.errors import TesseraError
from tessera_cli.extent.grid import TileRequest
from tessera_cli.files import write_bytes
from tessera_cli.outputs.georeference import footprint
from tessera_cli.planning.costs import Expected


def write_footprints(
    path: Path,
    requests: Sequence[TileRequest],
    expected: Expected,
    seconds: Sequence[float | None],
    shares: Sequence[int] | None,
) -> None:
    """Write a FeatureCollection in degrees (RFC 7946): a feature per tile and window, whole or not at all."""
    features = []
    for number, request in enumerate(requests):
        tile, window = request.on_grid()
        outline = footprint(tile)
        assert outline is not None  # every tile of the grid has its place
        properties: dict[str, Any] = {
            "name": request.name,
            "tile": tile.id,
            "window": window.name,
            "pixels": int(expected.pixels[number]),
            "s2_dates": int(expected.s2_dates[number]),
            "s1_dates": int(expected.s1_dates[number]),
            "encode_seconds": seconds[number],
            **({} if shares is None else {"shard": shares[number]}),
        }
        feature = {"type": "Feature", "bbox": outline[1], "geometry": outline[0], "properties": properties}
        features.append(json.dumps(feature))
    text = '{"type": "FeatureCollection", "features": [\n' + ",\n".join(features) + "\n]}\n"
    try:
        write_bytes(path, text.encode())
    except TesseraError as error:
        raise error.retold(str(error).replace("--out", "--footprints")) from error
