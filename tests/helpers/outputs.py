"""Tiles with made-up embeddings, their files and records, for tests of what lies on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from affine import Affine

from tessera_cli import __version__
from tessera_cli.dpixels.coverage import Coverage
from tessera_cli.extent.grid import AnyTile, ForeignTile, Tile, tile_name
from tessera_cli.extent.window import Window
from tessera_cli.files import write_json
from tessera_cli.folders.folder import TileFolder
from tessera_cli.outputs import formats
from tessera_cli.outputs.asset import Asset
from tessera_cli.outputs.encoded import EncodedTile
from tessera_cli.outputs.item import TileRecord
from tessera_cli.outputs.layers import file_name
from tessera_cli.outputs.tags import model_tags

TILE = Tile(32631, 112, 1098)
WINDOW = Window.from_name("2023")
NAME = tile_name(TILE, WINDOW)
REQUESTED = np.zeros((512, 512), bool)
REQUESTED[:200, 30:300] = True
PLACED = ForeignTile("field", (37, 500), "EPSG:32733", Affine(10, 0, 300010, 0, -10, 6200020))
NOWHERE = ForeignTile("Somewhere_else.2", (3, 4))
GAP = [Tile(32631, 112, 1098), Tile(32631, 113, 1098), Tile(32631, 113, 1097)]
"""Of a square of four tiles; the south-western one is missing."""
FORMATS: list[tuple[formats.Format, str]] = [
    (format, dtype) for format in get_args(formats.Format) for dtype in ("int8", "float32")
]


def around(tiles: Sequence[Tile]) -> tuple[float, float, float, float]:
    """West, south, east, north of the box around tiles."""
    west, south, east, north = zip(*(tile.bounds for tile in tiles), strict=True)
    return (min(west), min(south), max(east), max(north))


def arrays(seed: int, dims: int = 16, requested: np.ndarray = REQUESTED) -> dict[str, Any]:
    """Codes, scales and counts of a tile; some requested pixels have no embedding."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(-127, 128, (dims, *requested.shape), np.int8)
    scales = rng.uniform(0.001, 0.2, requested.shape).astype(np.float32)
    missing = ~requested | (rng.random(requested.shape) < 0.1)
    codes[:, missing], scales[missing] = -128, np.nan
    counts = rng.integers(0, 90, (3, *requested.shape), np.uint16)
    return {"codes": codes, "scales": scales, "counts": counts, "requested": requested}


def values(made: dict[str, Any]) -> np.ndarray:
    """The embeddings, float32 (R, H, W), NaN where there is none."""
    return made["codes"].astype(np.float32) * made["scales"]


def encoded(
    made: dict[str, Any], tile: AnyTile = TILE, dtype: str = "int8", format: str = "geotiff", **own: Any
) -> EncodedTile:
    """Made-up arrays as a tile that is ready to be written; `own` are fields of its record."""
    pixels = ~np.isnan(made["scales"])
    own = {"identity": identity(len(made["codes"]), dtype, format), "note": "", **own}
    window = WINDOW if isinstance(tile, Tile) else None
    return EncodedTile(
        record=record(tile=tile, window=window, requested=made["requested"], assets=(), **own),
        pixels=pixels,
        values=(made["codes"] if dtype == "int8" else values(made))[:, pixels].T,
        scales=made["scales"][pixels] if dtype == "int8" else None,
        counts=made["counts"],
    )


def foreign(tile: ForeignTile, seed: int = 0, dims: int = 5) -> dict[str, Any]:
    """Arrays of an official tile, of which every pixel was asked for but the first."""
    requested = np.ones(tile.shape, bool)
    requested[0, 0] = False
    return arrays(seed, dims, requested)


def identity(dims: int = 16, dtype: str = "int8", format: str = "geotiff", **changes: Any) -> dict[str, Any]:
    return {
        "format_version": 1,
        "model": "v2-medium",
        "weights_sha256": "ab" * 32,
        "model_config": {"latent": 110},
        "source": "mpc",
        "preprocessing": "official",
        "dims": dims,
        "dtype": dtype,
        "format": format,
        "precision": "fp32",
        "min_s2": 1,
        "min_s1": 0,
        "seed": 0,
        **changes,
    }


def tags(dims: int = 16, model: str = "v2-medium", source: str | None = "mpc", note: str = "") -> dict[str, str]:
    return model_tags(identity(dims, model=model, source=source), note)


def write(folder: Path, tile: Tile = TILE, seed: int = 0, dtype: str = "int8", **changes: Any) -> tuple[Asset, ...]:
    return formats.write(folder, encoded(arrays(seed) | changes, tile, dtype), compress="deflate")


def record(**changes: Any) -> TileRecord:
    dates = np.array(["2023-02-01", "2023-05-12", "2023-05-12", "2023-12-30"], "datetime64[D]")
    window = changes.get("window", WINDOW)
    made = TileRecord(
        tile=TILE,
        window=WINDOW,
        status="done",
        identity=identity(),
        device="cpu",
        software=__version__,
        pixels=int(np.int64(7)),
        requested=REQUESTED,
        note="for demonstration only",
        observations={"s2": Coverage.of(dates, window), "s1_asc": Coverage.of(dates[:0], window)},
        scenes=("S2A_1", "S2B_2"),
        input_digest="ab" * 32,
        missing_scenes={"S2B_2": "B04: 404"},
        warnings=("s2: gap of 232 days",),
        assets=(Asset.of("emb", file_name(NAME, "emb", "geotiff"), b"1"), Asset.of("scales", "s.tif", b"22")),
    )
    return replace(made, **changes)


def write_record(folder: TileFolder, record: TileRecord) -> None:
    """Write the record of a tile whose files are in place."""
    write_json(folder.item_path(record.name), record.to_item())
