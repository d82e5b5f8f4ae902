"""Training pixels from long tables, alone and beside stores."""

from __future__ import annotations

import dataclasses
import json

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
    chosen = table.select(config, 0).pixels
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
        build(find_inputs([scattered(tmp_path)]), DataConfig(min_s2=20, min_s1=0), tmp_path / "shards")
    assert find_inputs([]) == ()


def test_tables_without_radar_or_with_few_dates_say_what_to_do(tmp_path, caplog):
    inputs = find_inputs([scattered(tmp_path)])
    with pytest.raises(NothingToEmbedError, match=r"no radar: --set data\.min_s1=0 trains without it\.$"):
        build(inputs, DataConfig(min_s2=1), tmp_path / "shards")
    # 40 samples with 1 to 12 dates: their median is 6
    with pytest.raises(NothingToEmbedError, match=r"have 6 or fewer of Sentinel-2 and 0 or fewer"):
        build(inputs, DataConfig(min_s2=20, min_s1=0), tmp_path / "shards")
    assert "samples are trained on" not in caplog.text
    build(inputs, ALL.model_copy(update={"min_s2": 9}), tmp_path / "shards")
    assert "12 of 40 samples are trained on; the others have fewer observations than data.min_s2 9" in caplog.text


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


def fields(tmp_path, name, *, placed=False, count=300, **more):
    """Six samples a field, 20 m apart where they have places."""
    rows = [
        optical(f"{name}{n}", "2023-05-01", 50 + n, field=n // 6)
        | ({"lon": 4.0 + n * 0.0003, "lat": 50.0} if placed else {})
        | more
        for n in range(count)
    ]
    return write_rows(tmp_path / f"{name}.parquet", rows)


def held_out_of(shards):
    """The fields of the pixels that are held out, and of those that are trained on; places of all."""
    parts = shards.gather(np.arange(shards.pixels)), shards.holdout
    trained, held = ({(int(v) - 50) // 6 for v in each.s2.values[:, 0]} for each in parts)
    return held, trained


@pytest.mark.parametrize("placed", [True, False])
def test_groups_are_held_out_whole_in_all_tables(tmp_path, placed):
    """Names of samples differ in the two tables, and those of fields are the same."""
    paths = [fields(tmp_path, name, placed=placed and name == "a") for name in "ab"]
    config = ALL.model_copy(update={"holdout": 0.3, "holdout_block": 8})
    both = build(find_inputs(paths, {"group": "field"}), config, tmp_path / "both")
    held, trained = held_out_of(both)
    assert not held & trained
    assert held | trained == set(range(50))
    assert 5 < len(held) < 25
    loose = build(find_inputs(paths), config, tmp_path / "loose")
    held, trained = held_out_of(loose)
    assert held & trained  # without it fields are split
    with pytest.raises(IdentityError):
        open_or_build(find_inputs(paths), config, tmp_path / "both")


def test_where_groups_are_named_a_sample_without_one_is_by_itself(tmp_path):
    """And not with what lies near it: the same samples are held out with places and without."""
    held = []
    for placed in (True, False):
        (tmp_path / str(placed)).mkdir()
        path = fields(tmp_path / str(placed), "a", placed=placed, count=120, field=None)
        given = find_inputs([path], {"group": "field"})
        made = build(given, ALL.model_copy(update={"holdout": 0.3, "holdout_block": 8}), tmp_path / f"{placed}.shards")
        held.append(sorted(made.holdout.s2.values[:, 0].tolist()))
    assert held[0] == held[1]
    assert 20 < len(held[0]) < 55


def test_a_sample_without_a_place_is_held_out_in_every_year_or_in_none(tmp_path):
    paths = []
    for year in (2022, 2023):
        rows = [optical(f"s{n}", f"{year}-05-01", 50 + n) for n in range(300)]
        paths.append(write_rows(tmp_path / f"{year}.parquet", rows))
    shards = build(find_inputs(paths), ALL.model_copy(update={"holdout": 0.3}), tmp_path / "shards")
    trained, held = (
        (each.s2.values[:, 0] - 50).tolist() for each in (shards.gather(np.arange(shards.pixels)), shards.holdout)
    )
    assert sorted(held) == sorted([*set(held), *set(held)])
    assert not set(held) & set(trained)
    assert (shards.holdout.places[:, 0] == -1).all()


def test_a_group_that_changes_within_a_sample_is_refused(tmp_path):
    rows = [optical("s", f"2023-0{month}-01", 50, field=month) for month in (1, 2)]
    path = write_rows(tmp_path / "t.parquet", rows)
    with pytest.raises(UsageError, match="column field is not the same in all rows of a sample"):
        build(find_inputs([path], {"group": "field"}), ALL, tmp_path / "shards")


def test_the_whole_way_of_a_table_with_classes(tmp_path, tessera):
    """Ten-day series without radar and places: trained on, probed by their own column, and evaluated."""
    rows = [
        optical(
            f"s{n}", f"2023-{month:02}-{day}", 400 + 100 * (n // 3 % 2) + n % 7, crop="ab"[n // 3 % 2], field=n // 3
        )
        for n in range(120)
        for month in (3, 5, 7, 9)
        for day in (11, 21)
    ]
    path = write_rows(tmp_path / "dekads.parquet", rows)
    sizes = ["train.batch=16", "data.min_s1=0", "data.min_s2=4", "views.n_obs=4", "projector.width=16", "probe.folds=3"]
    options = [each for size in sizes for each in ("--set", size)]
    given = [path, "--columns", "group=field", "--preset", "tiny", "--steps", 2, *options, "--threads", 1]
    run = tmp_path / "run"
    code, _, stderr = tessera("pretrain", *given, "--probe", path, "--out", run)
    assert code == 0, stderr
    assert "neighbours" not in stderr
    assert 'group = "field"' in (run / "config.toml").read_text()
    last = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()][-1]
    assert last["probe_linear"] > 0.9
    assert tessera("pretrain", *given, "--probe", path, "--out", run)[0] == 0  # goes on
    short = write_rows(tmp_path / "short.csv", [{"id": f"s{n}", "crop": "ab"[n // 3 % 2]} for n in range(120)])
    code, _, stderr = tessera("pretrain", *given, "--probe", short, "--out", tmp_path / "short")
    assert code == 0, stderr  # a table of classes need not have the columns of what is trained on
    assert "neighbours" not in stderr  # folds are the groups that samples were trained with
    budget = ["--budgets", "100", "--adapter", "logistic", "--folds", 3, "--threads", 1]
    code, stdout, stderr = tessera(
        "evaluate", path, "--model", run, "--columns", "group=field", *budget, "--out", tmp_path / "report"
    )
    assert code == 0, stderr
    assert "adding raw-series to own" in stdout
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["split"]["kind"] == "grouped"
    assert {each["name"] for each in report["features"]} >= {"own", "own + raw-series"}
