"""Training pixels from long tables, alone and beside stores."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tessera_cli.errors import IdentityError, NothingToEmbedError, UsageError
from tessera_cli.pretraining.config import DataConfig
from tessera_cli.pretraining.data.build import build, open_or_build
from tessera_cli.pretraining.data.inputs import TableInput, find_inputs
from tessera_cli.series.mapping import Columns
from tests.helpers.series import optical, rows_of, write_rows
from tests.pretraining.test_shards import some, stored

ALL = DataConfig(min_s2=1, min_s1=0, holdout=0.0)


def scattered(tmp_path, count=40, name="t.parquet", **more):
    days = [f"2023-{month:02}-03" for month in range(1, 13)]
    rows = [optical(f"s{n}", day, 50 * n + m) | more for n in range(count) for m, day in enumerate(days[: 1 + n % 12])]
    return write_rows(tmp_path / name, rows)


def test_a_table_of_a_tile_gives_the_series_of_the_tile(tmp_path):
    tile = some("a", preprocessing="official")
    path = write_rows(tmp_path / "t.parquet", rows_of(tile))
    (table,) = find_inputs([path], {"radar": "scaled"}, tile.window)
    made = [build([each], ALL, tmp_path / str(n)) for n, each in enumerate((table, stored(tile)))]
    assert made[0].pixels == made[1].pixels > 400
    of_table, of_tile = (each.gather(np.arange(each.pixels)) for each in made)
    of_table, of_tile = (each.take(np.lexsort(each.places.T)) for each in (of_table, of_tile))
    for modality in ("s2", "s1"):
        for name in ("values", "doy", "streams", "starts"):
            one, other = (getattr(each.series(modality), name) for each in (of_table, of_tile))
            np.testing.assert_array_equal(one, other)


def test_samples_without_a_place_are_held_out_by_their_names(tmp_path):
    path = scattered(tmp_path, 400)
    config = DataConfig(min_s2=3, min_s1=0, holdout=0.25)
    shards = build(find_inputs([path]), config, tmp_path / "shards")
    counts = shards.header["counts"]
    assert counts["trained"] + counts["held_out"] == sum(1 + n % 12 >= 3 for n in range(400))
    assert 50 < counts["held_out"] < 110
    assert counts["left_out"] == 400 - counts["trained"] - counts["held_out"]
    (origin,) = shards.header["origins"]
    assert (origin["name"], origin["source"], origin["preprocessing"]) == ("t_20230103-20231203", None, None)
    assert shards.header["preprocessing"] == "unknown"
    fewer = build(find_inputs([path]), config.model_copy(update={"pixels_per_tile": 60}), tmp_path / "fewer")
    assert fewer.header["counts"]["left_out"] == 340


def test_a_cap_takes_all_degrees_of_greenness(tmp_path):
    rows = [optical(f"s{n}", "2023-05-01", 1000, B08=8000 if n < 5 else 1000) for n in range(200)]
    path = write_rows(tmp_path / "g.parquet", rows)
    config = ALL.model_copy(update={"pixels_per_tile": 10, "stratify": "greenness"})
    (table,) = find_inputs([path])
    assert isinstance(table, TableInput)
    chosen = table.select(config, 0)
    assert (chosen.s2.values[:, 3] == 8000).sum() == 5


def test_tables_stand_beside_stores(tmp_path, caplog):
    tile = some("a", preprocessing="official", source="mpc")
    table = find_inputs([scattered(tmp_path)])
    shards = build([stored(tile), *table], ALL, tmp_path / "shards")
    assert shards.header["preprocessing"] == "official"
    assert shards.header["sources"] == ["mpc"]
    assert "does not say its source" in caplog.text
    assert sorted(each["pixels"] for each in shards.header["origins"])[0] == 40
    same = open_or_build([stored(tile), *table], ALL, tmp_path / "shards")
    assert same.digest == shards.digest
    scattered(tmp_path, 41)
    with pytest.raises(IdentityError, match="tiles have changed since"):
        open_or_build([stored(tile), *find_inputs([tmp_path / "t.parquet"])], ALL, tmp_path / "shards")
    mapped = dataclasses.replace(table[0], columns=Columns.of({"missing": [1]}))
    assert mapped.input_digest != table[0].input_digest


def test_what_says_how_to_read_tables_needs_one(tmp_path):
    with pytest.raises(UsageError, match="--columns and --window say how to read tables"):
        find_inputs([tmp_path], {"B02": "blue"})
    with pytest.raises(NothingToEmbedError, match="None of the pixels"):
        build(find_inputs([scattered(tmp_path)]), DataConfig(min_s2=20), tmp_path / "shards")
    assert find_inputs([]) == ()


def test_the_command_trains_on_a_table(tmp_path, tessera):
    path = scattered(tmp_path, 60)
    sizes = ["train.batch=16", "data.min_s1=0", "data.min_s2=1", "views.n_obs=4", "projector.width=16"]
    options = [each for size in sizes for each in ("--set", size)]
    given = [path, "--preset", "tiny", "--steps", 2, *options, "--out", tmp_path / "run", "--threads", 1]
    code, _, stderr = tessera("pretrain", *given, "--window", "2023-01/2023-12")
    assert code == 0, stderr
    made = tmp_path / "v.csv"
    assert tessera("embed", "--table", path, "--model", tmp_path / "run", "--out", made)[0] == 0
    assert len(made.read_text().splitlines()) == 61
