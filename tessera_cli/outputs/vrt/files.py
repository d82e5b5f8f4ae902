"""The virtual rasters of a zone and window: which there are, and what each holds.

GDAL reads the XML of every source when it opens a VRT, 128 times per tile. So beyond MAX_TILES tiles a mosaic names
VRTs of blocks of tiles in place of tiles; those are opened when pixels of theirs are read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from tessera_cli.extent.grid import Tile, tile_name
from tessera_cli.extent.window import Window
from tessera_cli.outputs.layers import CODES, FORMULA, SCALES, VALUES, Dtype, Layer, file_name
from tessera_cli.outputs.tags import window_tags
from tessera_cli.outputs.vrt.frame import Bounds, Frame
from tessera_cli.outputs.vrt.mosaic import Source, mosaic_bands
from tessera_cli.outputs.vrt.names import part_name, product_name
from tessera_cli.outputs.vrt.product import product_bands

SIDE = 8
"""Side of a block, in tiles. Blocks lie at multiples of it, so a block stays as it is when the area grows."""
MAX_TILES = SIDE * SIDE
"""Most tiles of 128 codes that one VRT names: it opens in 0.12 s, and takes 2 ms per tile."""


def vrt_files(
    tiles: Sequence[Tile], window: Window, *, dims: int, dtype: Dtype, tags: Mapping[str, str], bounds: Bounds
) -> Iterator[tuple[str, str]]:
    """Yield (name, XML) of the virtual rasters of `tiles`, all of one zone; the one to be opened is the last.

    The tiles' rasters, of `dtype`, lie beside them. `bounds` are west, south, east, north of the AOI in metres, widened
    here to whole pixels. `tags` are the model's. One XML is held at a time: of at most 4 MB, or 1 KB per tile.
    """
    if len({tile.epsg for tile in tiles}) != 1:
        raise ValueError("a VRT takes the tiles of one zone, and at least one")
    frame, epsg, product = Frame.around(bounds), tiles[0].epsg, product_name(tiles[0], window)
    codes, scales = part_name(product, "codes"), part_name(product, "scales")
    tags = {**tags, **window_tags(window), "AREA_OR_POINT": "Area"}

    def mosaic(name: str, layer: Layer, tags: Mapping[str, str]) -> Iterator[tuple[str, str]]:
        sources = [_of_tile(tile, window, layer) for tile in tiles]
        if len(tiles) > MAX_TILES:
            blocks = _blocks(tiles)
            for first, block in blocks.items():
                within, sources = Frame.of_tiles(first, SIDE), [_of_tile(tile, window, layer) for tile in block]
                yield _block_name(name, first), within.dataset(epsg, tags, mosaic_bands(layer, dims, within, sources))
            sources = [
                Source(_block_name(name, first), Frame.of_tiles(first, SIDE), layer, is_vrt=True) for first in blocks
            ]
        yield name, frame.dataset(epsg, tags, mosaic_bands(layer, dims, frame, sources))

    if dtype == "float32":
        yield from mosaic(product, VALUES, tags)
        return
    yield from mosaic(codes, CODES, {**tags, "TESSERA_DEQUANTIZE": f"{FORMULA} (band 1 of {scales})"})
    yield from mosaic(scales, SCALES, tags)
    factors = Source(codes, frame, CODES, is_vrt=True), Source(scales, frame, SCALES, is_vrt=True)
    yield product, frame.dataset(epsg, tags, product_bands(dims, frame, *factors))


def _of_tile(tile: Tile, window: Window, layer: Layer) -> Source:
    return Source(file_name(tile_name(tile, window), layer.role, "geotiff"), Frame.of_tiles(tile), layer)


def _blocks(tiles: Sequence[Tile]) -> Mapping[Tile, Sequence[Tile]]:
    """Return the south-western tile of each block, there or not -> the tiles in it."""
    blocks: dict[Tile, list[Tile]] = defaultdict(list)
    for tile in tiles:
        blocks[Tile(tile.epsg, tile.column // SIDE * SIDE, tile.row // SIDE * SIDE)].append(tile)
    return blocks


def _block_name(mosaic: str, first: Tile) -> str:
    return part_name(mosaic, first.id.partition("_")[2])
