"""The area of a command: an argument, an option, or GeoJSON on standard input."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from tessera_cli.api.arguments import as_windows
from tessera_cli.errors import UsageError, reason
from tessera_cli.reading import MB


def read_area(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments with AOI and --aoi as one `aoi`; `-` is read from standard input."""
    more = dict(given)
    areas = [area for area in (more.pop("area"), more.pop("aoi")) if area is not None]
    if len(areas) > 1:
        raise UsageError("Exactly one area is needed: AOI and --aoi are the same. Leave one of them out.")
    aoi = areas[0] if areas else None
    if aoi == "-" and not more.get("dpixels"):
        if more.get("layer") is not None:
            raise UsageError("--layer chooses a layer of a file, and standard input has none. Leave it out.")
        for other in ("bbox", "points"):
            if more.get(other) is not None:
                raise UsageError(f"Exactly one area is needed: standard input or --{other}. Leave one of them out.")
        as_windows(more["year"], more["window"])  # cheap and often wrong: before waiting for standard input
        from tessera_cli.extent.aoi import Aoi
        from tessera_cli.extent.vector import MAX_GEOJSON

        try:
            # bytes: its encoding is not the terminal's
            text = b"" if sys.stdin is None else sys.stdin.buffer.read(MAX_GEOJSON + 1)
        except OSError as error:
            raise UsageError(f"Standard input cannot be read: {reason(error)}. Give GeoJSON there.") from error
        if len(text) > MAX_GEOJSON:
            raise UsageError(f"Standard input holds more than {MAX_GEOJSON / MB:,.0f} MB. Give a GeoPackage as a file.")
        aoi = Aoi.from_geojson(text, name="stdin", origin="standard input")
    return {"aoi": aoi, **more}
