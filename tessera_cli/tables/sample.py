"""Read the embeddings of places from a folder: the vector at each point, mean and deviation over each polygon."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np

from tessera_cli.dpixels.dpixel import SENSORS
from tessera_cli.embeddings.folder import EmbeddingFolder
from tessera_cli.embeddings.tile import StoredTile
from tessera_cli.errors import UsageError, counted
from tessera_cli.outputs.item import TileRecord
from tessera_cli.tables.lookup import TileIndex
from tessera_cli.tables.pixels import Block, Validity, blocks_of, chosen
from tessera_cli.tables.places import Places
from tessera_cli.tables.polygons import average
from tessera_cli.tables.samples import Samples

logger = logging.getLogger(__name__)

BATCH = 64 << 20
"""Bytes of the vectors that are in memory at a time."""


def sample(folder: EmbeddingFolder, places: Places) -> Iterator[Samples]:
    """Yield the embeddings of all places in all windows of the folder, some places at a time, in their order.

    A place is looked up in every coordinate system that the tiles have. Where tiles overlap, the first one that has an
    embedding there is used, those of the place's own UTM zone before others. A polygon that holds no centre of a pixel
    has the pixel under it. Memory: 64 MB for the vectors of a batch, and one block of a tile with its pixels as
    float32 (about 80 MB for 128 dimensions). Raises UsageError where no tile has a place on Earth, TileError for files
    that cannot be read.
    """
    placed = [tile for tile in folder.tiles if tile.record.tile.crs is not None]
    if not placed:
        raise UsageError(f"{folder.path}: its tiles have no CRS, so their place on Earth is unknown. Embed them anew.")
    if without := len(folder.tiles) - len(placed):
        logger.warning("%s: %s without a CRS cannot be sampled", folder.path, counted(without, "tile"))
    names = sorted(set(map(_window, placed)))
    indices = {name: TileIndex([tile for tile in placed if _window(tile) == name]) for name in names}
    empty = {name: TileIndex([tile for tile in folder.empty if _window(tile) == name]) for name in names}
    vectors = 4 if places.kind == "polygon" else 1  # mean and deviation, summed in float64
    step = max(1, BATCH // (4 * folder.first.dims * len(indices) * vectors))
    for start in range(0, len(places), step):
        part = places.take(slice(start, start + step))
        if start:
            logger.info("%s: %s of %s are done", places.origin, f"{start:,}", counted(len(places), "place"))
        samples = _empty(part, tuple(indices), folder.first)
        for number, (name, index) in enumerate(indices.items()):
            validity = Validity(index)
            points = part.kind == "point"
            at = np.arange(len(part)) if points else average(samples, number, index, validity)
            _at_points(samples, number, index, validity, at)
            _on_empty_tiles(samples, number, empty[name])
        yield samples


def outside_but_swapped(folder: EmbeddingFolder, places: Places) -> bool:
    """Return whether any place lies on a tile once its longitude and latitude are swapped."""
    lat, lon = places.lonlat[~np.isnan(places.lonlat[:, 0])].T
    return bool(len(TileIndex(folder.tiles).locate(np.stack([lon, lat], axis=-1)[np.abs(lat) <= 90]).numbers))


def _window(tile: StoredTile) -> str:
    return tile.record.window.name if tile.record.window is not None else ""


def _empty(places: Places, windows: tuple[str, ...], record: TileRecord) -> Samples:
    dims = record.dims
    shape = (len(places), len(windows))
    status = np.full(shape, "outside", object)
    return Samples(
        places=places,
        windows=windows,
        values=np.full((*shape, dims), np.nan, np.float32),
        std=np.full((*shape, dims), np.nan, np.float32) if places.kind == "polygon" else None,
        counts=np.full((*shape, len(SENSORS)), np.nan, np.float32),
        pixels=np.zeros(shape, np.int64),
        status=status,
        tiles=np.full(shape, "", object),
        uncertainty=np.full(shape, np.nan, np.float32) if record.identity.get("uncertainty") else None,
    )


def _at_points(samples: Samples, window: int, index: TileIndex, validity: Validity, numbers: np.ndarray) -> None:
    """Fill in the pixel under each of the places `numbers`."""
    lonlat = samples.places.lonlat[numbers]
    found = chosen(index.locate(lonlat), validity)
    small = samples.std is not None
    for tile, box, members in blocks_of(found):
        stored = index.tiles[tile]
        block = Block.read(stored, box)
        rows, columns, at = found.rows[members], found.columns[members], numbers[found.numbers[members]]
        vectors = block.vectors(rows, columns)
        there = ~np.isnan(vectors[:, 0])
        samples.values[at, window] = vectors
        samples.counts[at, window] = block.counts(rows, columns)
        if samples.uncertainty is not None:
            samples.uncertainty[at, window] = block.uncertainty(rows, columns)
        samples.pixels[at, window] = there
        samples.status[at, window] = np.where(there, "small" if small else "ok", "none")
        samples.tiles[at, window] = stored.record.tile.id
        if samples.std is not None:
            samples.std[at, window] = np.where(there[:, None], np.float32(0), np.float32(np.nan))


def _on_empty_tiles(samples: Samples, window: int, index: TileIndex) -> None:
    """Tell places that lie on a tile where nothing could be embedded from those that lie on no tile."""
    numbers = np.flatnonzero(samples.status[:, window] == "outside")
    hits = index.locate(samples.places.lonlat[numbers])
    at = numbers[hits.numbers]
    samples.status[at, window] = "none"
    samples.tiles[at, window] = np.array([tile.record.tile.id for tile in index.tiles], object)[hits.tiles]
