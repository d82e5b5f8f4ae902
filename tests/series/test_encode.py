"""A long table gives the embeddings that a raster of the same observations gives."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pyarrow as pa
import pytest
import rasterio
import torch
from pyarrow import parquet

from tessera_cli.dpixels import write_store
from tessera_cli.extent.window import Window
from tessera_cli.inference.encode import encode
from tessera_cli.models import ModelConfig, load_model
from tessera_cli.sampling.ragged import RaggedPixels, RaggedSeries, no_pixels, starts_of
from tessera_cli.series.encode import encode_parts, encode_series, to_dpixels
from tessera_cli.series.read import read_table
from tests import reference
from tests.helpers.series import rows_of, table_of, write_rows
from tests.runs.test_embed_dpixels import fetched, weights_of


def loaded(folder, family):
    if family in ("demo", "null"):
        return load_model(family, device="cpu")
    config, tensors = reference.random_weights(family, 5, latent=4, layers=1)
    torch.save(reference.official_payload(family, config, tensors), folder / "w.pt")
    return load_model(weights=folder / "w.pt", model_config=ModelConfig(config), device="cpu").bind_source("mpc")


@pytest.mark.parametrize("family", ["demo", "null", "v1_0_qat", "v1_1", "v2_student", "v2_teacher"])
def test_codes_and_scales_are_the_bytes_of_the_tile(catalog, tmp_path, family):
    tile = fetched(catalog)[0]
    model = loaded(tmp_path, family)
    rows = rows_of(tile)
    order = np.random.default_rng(0).permutation(len(rows))
    path = write_rows(tmp_path / "series.parquet", [rows[i] for i in order], row_group_size=500)
    table = read_table(path, {"radar": "scaled"}, window=tile.window)
    quantiser = model.spec.quantiser
    made = encode_series(table.pixels, table.window, model, quantiser=quantiser, min_s1=1, seed=3)
    wanted = tile.embeddable(min_s2=1, min_s1=1) & model.spec.observations.valid_pixels(tile)
    due = encode(tile, model, wanted, quantiser=quantiser, seed=3)
    numbers = np.array([int(name.rpartition("-")[2]) for name in table.ids])
    assert set(np.flatnonzero(wanted)) == set(numbers[made.valid])
    assert made.valid.sum() > 500
    at = np.searchsorted(np.flatnonzero(wanted), numbers[made.valid])
    assert made.values[made.valid].tobytes() == due.values[at].tobytes()
    if quantiser is None:
        assert made.scales is None
    else:
        assert made.scales[made.valid].tobytes() == due.scales[at].tobytes()
    assert np.array_equal(made.counts, tile.counts.reshape(3, -1).T[numbers])


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_embed_table_writes_what_embed_writes(catalog, tessera, tmp_path, ending):
    stores = tmp_path / "stores"
    stores.mkdir()
    tiles = fetched(catalog)
    for tile in tiles:
        write_store(stores, tile)
    rows = [{**row, "crop": f"c{row['sample'][-1]}"} for tile in tiles for row in rows_of(tile)]
    series = write_rows(tmp_path / f"series.{ending}", rows)
    model = weights_of(tmp_path, "v2_student", latent=4, layers=1)
    assert tessera("embed", "--dpixels", stores, *model, "--out", tmp_path / "out", "--threads", 1)[0] == 0
    given = ["--table", series, "--columns", "radar=scaled", "--year", 2021, *model, "--threads", 1]
    code, stdout, _ = tessera("embed", *given, "--out", tmp_path / "vectors.parquet")
    assert (code, stdout.split()) == (0, [str(tmp_path / "vectors.parquet")])
    made = parquet.read_table(tmp_path / "vectors.parquet")
    values = np.stack([made.column(f"Tessera_Band_{i}").to_numpy() for i in range(128)], axis=1)
    assert made.column("crop").to_pylist() == [f"c{name[-1]}" for name in made.column("id").to_pylist()]
    for tile in tiles:
        with rasterio.open(tmp_path / "out" / f"{tile.name}_emb.tif") as file:
            codes = file.read().reshape(128, -1)
        with rasterio.open(tmp_path / "out" / f"{tile.name}_scales.tif") as file:
            scales = file.read(1).reshape(-1)
        for row, name in enumerate(made.column("id").to_pylist()):
            tile_id, _, number = name.rpartition("-")
            if tile_id == tile.tile.id:
                due = codes[:, int(number)].astype(np.float32) * scales[int(number)]
                np.testing.assert_array_equal(values[row], due)


def test_parts_of_any_size_give_the_same(catalog, tmp_path):
    tile = fetched(catalog)[0]
    table = read_table(write_rows(tmp_path / "a.parquet", rows_of(tile)), {"radar": "scaled"}, window=tile.window)
    model = loaded(tmp_path, "v1_0_qat")
    whole = encode_series(table.pixels, table.window, model, seed=1)
    parts = [made.values for _, made in encode_parts(table.pixels, table.window, model, seed=1, chunk=77)]
    np.testing.assert_array_equal(np.concatenate(parts), whole.values)


def test_pixels_with_too_few_observations_are_nan(tmp_path):
    days = [np.array([10]), np.arange(5, 20), np.empty(0, int)]
    doy = np.concatenate(days).astype(np.uint16)
    values = np.random.default_rng(0).integers(1, 5000, (len(doy), 10)).astype(np.uint16)
    s2 = RaggedSeries(values, doy, np.zeros(len(doy), np.uint8), starts_of([len(each) for each in days]))
    s1 = RaggedSeries(np.empty((0, 2), np.int16), np.empty(0, np.uint16), np.empty(0, np.uint8), np.zeros(4, np.int64))
    keys = np.arange(3, dtype=np.uint64)
    pixels = RaggedPixels(s2, s1, keys, np.zeros((3, 3), np.int32), np.zeros(3, np.int32))
    model, window = loaded(tmp_path, "v2_student"), Window.from_name("2023")
    made = encode_series(pixels, window, model, min_s2=2, quantiser="v2", dims=16)
    assert made.valid.tolist() == [False, True, False]
    assert made.values.shape == (3, 16)
    assert np.isnan(made.floats()[[0, 2]]).all()
    assert np.isfinite(made.floats()[1]).all()
    assert made.counts.tolist() == [[1, 0, 0], [15, 0, 0], [0, 0, 0]]
    assert not encode_series(pixels, window, model, min_s1=1).valid.any()
    assert encode_series(no_pixels(), window, model).values.shape == (0, 128)


def test_dates_of_a_window_across_years_keep_their_order(tmp_path):
    """2023-03-01 and 2024-02-29 are the same day of year, and the ends of one window."""
    dates = ["2023-03-01", "2023-12-31", "2024-01-01", "2024-02-29"]
    rows = [
        {"sample": "a", "date": dt.date.fromisoformat(each), "VV": -9.0 - i, "VH": -15.0}
        for i, each in enumerate(dates)
    ]
    parquet.write_table(table_of(rows[::-1]), tmp_path / "a.parquet")
    table = read_table(tmp_path / "a.parquet")
    assert table.window == Window(dt.date(2023, 3, 1), dt.date(2024, 2, 29))
    assert table.pixels.s1.doy.tolist() == [60, 365, 1, 60]
    ((_, dpixels),) = to_dpixels(table.pixels, table.window)
    assert dpixels.s1_asc_dates.astype(str).tolist() == dates
    assert np.all(np.diff(dpixels.s1_asc[:, 0, 0, 0].astype(int)) < 0)
    assert isinstance(table_of(rows), pa.Table)
