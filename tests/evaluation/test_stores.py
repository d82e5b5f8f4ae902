"""Observations of places from stored d-pixels."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from affine import Affine
from pyproj import Transformer

from tessera_cli.dpixels import find_stores, write_folder, write_store
from tessera_cli.errors import NothingToEmbedError, UsageError
from tessera_cli.evaluation import stores as module
from tessera_cli.evaluation.stores import read_places
from tessera_cli.extent.grid import ForeignTile, from_utm, pixel_positions
from tessera_cli.extent.window import Window
from tessera_cli.series.encode import encode_series
from tests.helpers.checkpoints import VARIANTS
from tests.helpers.encoders import random_model
from tests.helpers.tiles import made_up
from tests.runs.test_embed_dpixels import fetched


def centres(tile, numbers):
    places = pixel_positions(tile, numbers)
    return np.stack(from_utm(int(places[0, 0])).transform(*places[:, 1:].T), axis=1)


@pytest.fixture
def two(catalog, tmp_path):
    folder = tmp_path / "dpixels"
    folder.mkdir()
    tiles = fetched(catalog)
    for tile in tiles:
        write_store(folder, tile)
    return tiles, folder


def test_observations_of_places_are_those_of_their_pixels(two, monkeypatch):
    tiles, folder = two
    rng = np.random.default_rng(0)
    asked = [rng.permutation(np.flatnonzero(tile.requested))[:40] for tile in tiles]
    lonlat = np.concatenate([centres(tile.tile, numbers) for tile, numbers in zip(tiles, asked, strict=True)])
    shuffled = rng.permutation(80)
    lonlat = np.concatenate([lonlat[shuffled], [[np.nan, 1.0], [0.0, 0.0]]])
    read = []
    real = module._read
    monkeypatch.setattr(
        module, "_read", lambda stored, dataset, y, x: read.append((y, x)) or real(stored, dataset, y, x)
    )
    told = []
    pixels, window, found = read_places(find_stores([folder]), lonlat, progress=lambda *done: told.append(done))
    assert window == Window.from_name("2021")
    assert found.tolist() == [True] * 80 + [False] * 2
    assert pixels.s2.counts[80:].tolist() == pixels.s1.counts[80:].tolist() == [0, 0]
    assert len(read) < 10  # blocks of 32 x 32 that hold places, of 512 blocks
    assert told[-1] == (4, 4)
    for row, source in enumerate(shuffled.tolist()):
        tile, number = tiles[source // 40], asked[source // 40][source % 40]
        one = pixels.take(np.array([row]))
        clear = np.flatnonzero(tile.s2_mask.reshape(len(tile.s2), -1)[:, number])
        np.testing.assert_array_equal(one.s2.values, tile.s2.reshape(len(tile.s2), -1, 10)[clear, number])
        np.testing.assert_array_equal(one.s2.doy, tile.s2_doy[clear])
        assert one.s1.counts.tolist() == [int(tile.counts.reshape(3, -1)[1:, number].sum())]
        assert one.places.tolist() == pixel_positions(tile.tile, np.array([number])).tolist()
    assert len(set(pixels.keys[:80].tolist())) == 80
    model = random_model(VARIANTS["v2-student"].config)
    assert encode_series(pixels, window, model).valid.tolist() == (pixels.s2.counts > 0).tolist()


def test_windows_must_be_told_apart(two, tmp_path):
    tiles, folder = two
    where = centres(tiles[0].tile, np.flatnonzero(tiles[0].requested)[:2])
    later = dataclasses.replace(tiles[0], window=Window.from_name("2022"))
    shifted = {
        f"{s}_dates": getattr(tiles[0], f"{s}_dates") + np.timedelta64(365, "D") for s in ("s2", "s1_asc", "s1_desc")
    }
    write_store(folder, dataclasses.replace(later, **shifted))
    found = find_stores([folder])
    with pytest.raises(UsageError, match="several windows: 2021, 2022"):
        read_places(found, where)
    assert read_places(found, where, Window.from_name("2022"))[1].name == "2022"
    with pytest.raises(UsageError, match="no d-pixels of 2019, but of 2021, 2022"):
        read_places(found, where, Window.from_name("2019"))
    with pytest.raises(NothingToEmbedError, match="None of 1 samples lies on the d-pixels"):
        read_places(found, np.array([[100.0, 10.0]]), Window.from_name("2021"))


def test_official_folders_have_days_of_a_nominal_year(tmp_path):
    tile = ForeignTile("a", (40, 50), "EPSG:32631", Affine(10, 0, 500_000, 0, -10, 5_800_000))
    rng = np.random.default_rng(0)
    plain = dataclasses.replace(made_up(rng.integers(0, 4, (2000, 3)), 0, (40, 50)), tile=tile, window=None)
    write_folder(tmp_path, plain)
    (stored,) = find_stores([tmp_path])
    numbers = np.array([0, 33, 777, 1999])
    metres = np.array([[500_005, 5_799_995], [500_335, 5_799_995], [500_275, 5_799_845], [500_495, 5_799_605]])
    lonlat = np.stack(Transformer.from_crs(32631, 4326, always_xy=True).transform(*metres.T), axis=1)
    pixels, window, found = read_places([stored], lonlat)
    assert window.name == "2024"
    assert found.all()
    assert pixels.s2.counts.tolist() == (plain.s2_mask.reshape(-1, 2000)[:, numbers] != 0).sum(axis=0).tolist()
