"""The area of a command: an argument, an option, or GeoJSON on standard input."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from tessera_cli.api.arguments import as_windows
from tessera_cli.errors import UsageError, reason


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
        if more.get("bbox") is not None:
            raise UsageError("Exactly one area is needed: standard input or --bbox. Leave one of them out.")
        as_windows(more["year"], more["window"])  # cheap and often wrong: before waiting for standard input
        from tessera_cli.extent.aoi import Aoi

        try:
            text = b"" if sys.stdin is None else sys.stdin.buffer.read()  # bytes: its encoding is not the terminal's
        except OSError as error:
            raise UsageError(f"Standard input cannot be read: {reason(error)}. Give GeoJSON there.") from error
        aoi = Aoi.from_geojson(text, name="stdin", origin="standard input")
    return {"aoi": aoi, **more}
