"""StoredTile: what was written comes back, whole or in part, from every format."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tessera_cli.embeddings.folder import EmbeddingFolder
from tessera_cli.errors import TileError
from tessera_cli.folders.folder import TileFolder
from tessera_cli.outputs import formats
from tests.helpers.outputs import FORMATS, arrays, encoded, values, write_record

BOX = (slice(190, 205), slice(20, 41))


@pytest.fixture(params=FORMATS, ids="-".join)
def written(request, tmp_path):
    format, dtype = request.param
    made = arrays(1, 5)
    tile = encoded(made, dtype=dtype, format=format)
    counts = {} if format == "geotiff" else {"counts": made["counts"]}
    assets = formats.write(tmp_path, tile, compress="deflate")
    write_record(TileFolder(tmp_path, {}), replace(tile.record, assets=assets, **counts))
    return made, EmbeddingFolder.open(tmp_path).tiles[0]


def test_values(written):
    made, tile = written
    np.testing.assert_array_equal(tile.values(), values(made))
    np.testing.assert_array_equal(tile.values(BOX, bands=[4, 1]), values(made)[[4, 1], *BOX])


def test_stored(written):
    made, tile = written
    stored, scales = tile.stored(BOX)
    if tile.record.dtype == "float32":
        assert scales is None
        return
    there = ~np.isnan(made["scales"][BOX])
    np.testing.assert_array_equal(stored[:, there], made["codes"][:, *BOX][:, there])
    np.testing.assert_array_equal(scales, made["scales"][BOX])


def test_counts(written):
    made, tile = written
    due = np.where(made["requested"], made["counts"], 65535)
    np.testing.assert_array_equal(tile.counts(), due)
    np.testing.assert_array_equal(tile.counts(BOX), due[:, *BOX])


def test_a_torn_file_is_named(written):
    _, tile = written
    path = tile.folder / tile.record.assets[0].name
    path.write_bytes(b"no raster")
    with pytest.raises(TileError, match=path.name):
        tile.values()
