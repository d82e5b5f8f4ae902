"""The files of a comparison: two rasters per zone and a record."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from tessera_cli.errors import UsageError
from tessera_cli.outputs.layers import Layer
from tessera_cli.reading import read_json

RECORD = "change.json"
_OURS = re.compile(r"[a-z0-9-]+_(scores|changed)\.tif")
SCORES = Layer(
    "map",
    "scores",
    "Change",
    "float32",
    float("nan"),
    ("data",),
    ("cosine_distance", "euclidean_distance", "noise", "z_score", "p_value"),
)
CHANGED = Layer("map", "changed", "Changed", "uint8", 255, ("data",), ("changed",))
COLOURS = {0: (230, 230, 230, 255), 1: (213, 62, 79, 255), 255: (0, 0, 0, 0)}


def check(out: Path, names: Collection[str] = ()) -> list[str]:
    """Return the names of the rasters of an earlier comparison in the folder.

    UsageError unless it is new, empty, or holds one, and where one of `names` is there that is none of its rasters.
    """
    if out.is_symlink() and not out.exists():
        raise UsageError(f"{out} is a link that leads nowhere. Choose another --out.")
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return []
    try:
        found = read_json(out / RECORD)
    except (OSError, ValueError, UsageError):
        found = None
    if not isinstance(found, dict) or found.get("type") != "change":
        raise UsageError(f"{out} holds something else, which stays. Choose another --out.")
    files = found.get("files")
    earlier = [each for each in (files if isinstance(files, list) else []) if isinstance(each, str)]
    earlier = [each for each in earlier if _OURS.fullmatch(each)]
    for name in names:
        if name not in earlier and (out / name).exists():
            raise UsageError(f"{out / name} is none of an earlier comparison, and stays. Choose another --out.")
    return earlier
