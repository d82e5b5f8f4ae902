"""Tables as the labels of a probe: found by name or by place, in groups that are never split."""

import numpy as np
import pytest

from tessera_cli.errors import UsageError
from tessera_cli.extent.grid import from_utm
from tessera_cli.pretraining.config import DataConfig, ProbeConfig
from tessera_cli.pretraining.data.build import build
from tessera_cli.pretraining.data.inputs import find_inputs
from tessera_cli.pretraining.evaluation.labels import label_pixels
from tests.helpers.series import optical, write_rows
from tests.pretraining.test_evaluation import EAST, NORTH, block, ragged

ALL = DataConfig(min_s2=1, min_s1=0, holdout=0.0)
PROBE = ProbeConfig(block=8, folds=2)
CROPS = ("oats", "rye", "beet")


def crop(n):
    return CROPS[n // 4 % 3]


def rows(count=120, *, placed=False):
    """Two dates of each sample, four samples a field; the value tells the sample."""
    for n in range(count):
        where = {}
        if placed:
            lon, lat = from_utm(32631).transform(EAST + 40.0 * n + 5, NORTH + 5.0)
            where = {"lon": lon, "lat": lat}
        for date in ("2023-03-01", "2023-07-01"):
            yield optical(f"s{n}", date, 100 + 20 * n, field=f"f{n // 4}", crop=crop(n), **where)


def trained(tmp_path, columns=None, **more):
    path = write_rows(tmp_path / "series.parquet", list(rows(**more)))
    shards = build(find_inputs([path], columns), ALL, tmp_path / "shards")
    return path, shards, [each["name"] for each in shards.header["origins"]]


def labelled(shards, path, origins, config=PROBE):
    found = label_pixels((*shards.train, shards.holdout), config, path, origins)
    samples = (found.pixels.s2.values[found.pixels.s2.starts[:-1], 0].astype(int) - 100) // 20
    return found, dict(zip(samples.tolist(), [found.names[each] for each in found.classes], strict=True)), samples


def groups_of(found, samples):
    """The samples of each group."""
    return {tuple(sorted(samples[found.groups == each].tolist())) for each in np.unique(found.groups)}


@pytest.mark.parametrize("kind", ["the table itself", "a plain one"])
def test_samples_are_found_by_name_and_a_column_keeps_them_together(tmp_path, caplog, kind):
    path, shards, origins = trained(tmp_path)
    if kind == "a plain one":  # in another order, and of some alone
        some = [{"plot": f"s{n}", "crop": crop(n), "farm": f"f{n // 4}"} for n in range(119, 3, -1)]
        path = write_rows(tmp_path / "labels.csv", [*some, {"plot": "elsewhere", "crop": "rye", "farm": "x"}])
        config = PROBE.model_copy(update={"sample": "plot", "group": "farm"})
    else:
        config = PROBE.model_copy(update={"group": "field"})
    found, classes, samples = labelled(shards, path, origins, config)
    first = 4 if kind == "a plain one" else 0
    assert classes == {n: crop(n) for n in range(first, 120)}
    assert groups_of(found, samples) == {tuple(range(n, n + 4)) for n in range(first, 120, 4)}
    assert "neighbours" not in caplog.text


def test_the_group_that_was_trained_with_is_kept_where_labels_name_none(tmp_path, caplog):
    path, shards, origins = trained(tmp_path, {"group": "field"})
    found, _, samples = labelled(shards, path, origins)
    assert groups_of(found, samples) == {tuple(range(n, n + 4)) for n in range(0, 120, 4)}
    assert "neighbours" not in caplog.text


def test_without_place_and_group_each_sample_is_by_itself_and_that_is_said(tmp_path, caplog):
    path, shards, origins = trained(tmp_path)
    found, _, samples = labelled(shards, path, origins)
    assert groups_of(found, samples) == {(n,) for n in range(120)}
    assert "120 of 120 labelled samples have neither a place nor a group" in caplog.text
    assert "--columns group=NAME" in caplog.text


@pytest.mark.parametrize("named", [True, False])
def test_with_a_place_groups_are_squares_whether_found_by_name_or_by_place(tmp_path, caplog, named):
    path, shards, origins = trained(tmp_path, placed=True)
    if not named:
        table = [{key: row[key] for key in ("lon", "lat", "crop")} for row in rows(placed=True)]
        path = write_rows(tmp_path / "points.csv", table)
    found, classes, samples = labelled(shards, path, origins)
    assert classes == {n: crop(n) for n in range(120)}
    # 40 m apart in squares of 80 m
    assert groups_of(found, samples) == {(n, n + 1) for n in range(0, 120, 2)}
    assert "labelled samples" not in caplog.text


def test_a_name_that_lies_far_away_is_another_ones(tmp_path, caplog):
    """Running numbers name samples of anybody; half of these lie where they should."""
    _, shards, origins = trained(tmp_path, placed=True)
    table = [{key: row[key] for key in ("sample", "lon", "lat", "crop")} for row in rows(placed=True)][::2]
    for row in table[60:]:
        row["lat"] += 0.2
    _, classes, _ = labelled(shards, write_rows(tmp_path / "others.csv", table), origins)
    assert classes == {n: crop(n) for n in range(60)}
    assert "60 pixels bear the name of a sample that lies more than 1 km away; they are not taken for it" in caplog.text
    for row in table:
        row["lat"] += 0.2
    with pytest.raises(
        UsageError, match=r"120 pixels bear the name of a sample far away\. Name the column of the samples"
    ):
        labelled(shards, write_rows(tmp_path / "all.csv", table), origins)


def test_a_table_of_points_labels_the_pixels_of_stored_tiles(tmp_path):
    part = ragged(block(60, 40))
    lon, lat = from_utm(32631).transform(EAST + 5 + 40.0 * np.arange(15), np.full(15, NORTH + 25.0))
    table = [{"id": f"q{n}", "lon": lon[n], "lat": lat[n], "crop": "ab"[n // 2 % 2]} for n in range(15)]
    found = label_pixels([part], PROBE, write_rows(tmp_path / "p.parquet", table), ["a_tile"])
    due = {(32631, EAST + 5 + 40 * n, NORTH + 25): "ab"[n // 2 % 2] for n in range(15)}
    places = [tuple(each) for each in found.pixels.places.tolist()]
    assert {place: found.names[each] for place, each in zip(places, found.classes, strict=True)} == due
    assert len(np.unique(found.groups)) == 8


def test_tables_that_label_nothing(tmp_path):
    _, shards, origins = trained(tmp_path)

    def fails(message, table, name="l.csv", **more):
        with pytest.raises(UsageError, match=message) as error:
            labelled(shards, write_rows(tmp_path / name, table), origins, PROBE.model_copy(update=more))
        assert "\n" not in str(error.value)

    others = [{"id": f"t{n}", "crop": crop(n)} for n in range(9)]
    fails("no sample of it is found there by name. Name the column of the samples with --set probe.sample", others)
    fails("neither names nor places of its rows", [{"plot": "s1", "crop": "a"}, {"plot": "s2", "crop": "b"}])
    fails("no column called class, label, crop.*probe.column=NAME", [{"id": "s1", "x": 1}])
    fails("has no column farm", others, group="farm")
    fails("has no layers. Leave out probe.layer", others, layer="a")
    fails("all labelled pixels are of the class oats", [{"id": f"s{n}", "crop": "oats"} for n in range(9)])
    fails(
        "lie in 1 groups, too few for 2 folds. Make probe.folds smaller, or give labels of more groups",
        [{"id": f"s{n}", "crop": crop(n), "farm": 1} for n in range(12)],
        group="farm",
    )
    changing = [{"id": "s1", "crop": "a"}, {"id": "s1", "crop": "b"}]
    fails("column crop is not the same in all rows of a sample", changing)
    (tmp_path / "f.geojson").write_text("{}")
    with pytest.raises(UsageError, match=r"is no table, and probe\.group names a column"):
        labelled(shards, tmp_path / "f.geojson", origins, PROBE.model_copy(update={"group": "farm"}))
