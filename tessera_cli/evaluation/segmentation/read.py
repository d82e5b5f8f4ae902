"""What is asked of a segmentation -> labelled tiles and the sets of features that networks learn from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from tessera_cli.errors import UsageError
from tessera_cli.evaluation.asked import Asked
from tessera_cli.evaluation.segmentation.areas import Areas, read_areas, tiles_of
from tessera_cli.evaluation.segmentation.evaluate import Raster
from tessera_cli.evaluation.segmentation.kept import Kept
from tessera_cli.evaluation.tabular.open import is_table


def read_rasters(asked: Asked, *, block: float | None, folds: int) -> tuple[Areas, list[Raster]]:
    """Label the tiles of the first folder, and open the embeddings of all folders and the composites of d-pixels.

    Raises UsageError for what is no folder of `embed`, for folders whose tiles
    differ, and for options that segmentation does not have.
    """
    if tables := [path for path in asked.inputs if is_table(path)]:
        raise UsageError(f"{tables[0]} is a table, and segmentation takes areas. Give folders of `tessera embed`.")
    if asked.labels is None:
        raise UsageError("Labels are missing. Give --labels FILE: polygons or a raster of classes.")
    beside = {
        "--split": asked.split,
        "--group or --leave-out": asked.group,
        "--test": asked.test,
        "--features": asked.features,
        "--columns": asked.columns,
        "--unit": asked.unit,
        "--model": asked.models,
        "--beside": asked.beside,
    }
    if wrong := next((name for name, value in beside.items() if value), None):
        raise UsageError(f"{wrong} goes with samples, and segmentation divides ground into blocks. Leave it out.")
    areas = read_areas(
        asked.inputs[0],
        asked.labels,
        windows=asked.windows,
        column=asked.column,
        layer=asked.layer,
        block=block,
        folds=folds,
        seed=asked.seed,
    )
    kept = Kept()
    rasters = [Raster(asked.inputs[0].name, "decoder", areas.scenes(kept), _origin(areas), _identity(areas))]
    for path in asked.inputs[1:]:
        other = _with_tiles_of(areas, path, asked)
        name = path.name if path.name not in {each.name for each in rasters} else str(path)
        rasters.append(Raster(name, "decoder", other.scenes(kept), _origin(other), _identity(other)))
    if asked.dpixels:
        from tessera_cli.dpixels import find_stores

        stores = find_stores(asked.dpixels)
        digests = {stored.name: stored.input_digest for stored in stores}
        told = json.dumps(digests, sort_keys=True)
        rasters.append(
            Raster(
                "raw-seasonal", "unet", areas.composites(stores, kept), f"seasonal medians of {asked.dpixels[0]}", told
            )
        )
    return areas, rasters


def _with_tiles_of(areas: Areas, path: Path, asked: Asked) -> Areas:
    """Return the same labels with the tiles of another folder."""
    tiles = {tile.record.tile.id: tile for tile in tiles_of(path, asked.windows)}
    wanted = [tile.record.tile for tile in areas.tiles]
    lacking = [each.id for each in wanted if each.id not in tiles or tiles[each.id].record.tile.shape != each.shape]
    if lacking:
        raise UsageError(f"{path} has no tile {lacking[0]}, which {asked.inputs[0]} has. Embed the same area.")
    return replace(areas, tiles=tuple(tiles[each.id] for each in wanted))


def _origin(areas: Areas) -> str:
    first = areas.tiles[0]
    return f"{first.folder}, {first.record.window.name if first.record.window else 'no date'}"


def _identity(areas: Areas) -> str:
    return json.dumps([[asset.sha256 for asset in tile.record.assets] for tile in areas.tiles])
