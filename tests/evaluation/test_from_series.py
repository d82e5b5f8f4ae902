"""A labelled long table -> samples with embeddings, random weights and raw features of the same observations."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tessera_cli.errors import NothingToEmbedError, UsageError
from tessera_cli.evaluation.from_series import read_series
from tessera_cli.extent.window import Window
from tessera_cli.models import load_model
from tests.conftest import SHARED
from tests.helpers.checkpoints import VARIANTS
from tests.helpers.encoders import random_model
from tests.helpers.series import WORLDCEREAL, optical, write_rows

DATA = SHARED / "data" / WORLDCEREAL


def table(tmp_path, *, samples=24, days=("2023-02-01", "2023-05-01", "2023-08-01"), name="t.parquet", **columns):
    """Samples of three crops; what a function of their number gives in each further column."""
    crops = ("maize", "wheat", "beet")
    rows = [
        optical(f"s{n}", day, 100 * (n % 3 + 1) + 10 * i + n, lon=4 + n / 100, lat=52.0)
        | {"crop": crops[n % 3], "yield": n * 1.5}
        | {name: say(n) for name, say in columns.items()}
        for n in range(samples)
        for i, day in enumerate(days)
    ]
    return write_rows(tmp_path / name, rows)


def test_samples_and_observations_go_together(tmp_path):
    model = random_model(VARIANTS["v2-student"].config)
    path = table(tmp_path, fold=lambda n: "test" if n > 15 else "train", site=lambda n: n // 2)
    told = []
    made = read_series(
        path, column="crop", split="fold", group="site", models=[model, model], progress=lambda *d: told.append(d)
    )
    samples = made.samples
    assert (samples.task, samples.unit, samples.classes) == ("classification", "point", ("beet", "maize", "wheat"))
    assert [(each.name, each.kind) for each in samples.features] == [
        ("random", "embedding"),
        ("random 2", "embedding"),
        ("random weights", "random"),
        *((name, "raw") for name in ("raw-series", "raw-pca", "raw-seasonal", "raw-metrics")),
    ]
    assert told[-1] == (72, 72)
    assert samples.test.tolist() == [n > 15 for n in range(24)]
    assert samples.groups.tolist() == [n // 2 for n in range(24)]
    assert samples.lonlat[:, 0].tolist() == [4 + n / 100 for n in range(24)]
    for number, name in enumerate(made.ids):
        n = int(name[1:])
        assert samples.classes[samples.targets[number]] == ("maize", "wheat", "beet")[n % 3]
        assert made.pixels.take(np.array([number])).s2.values[0, 0] == 100 * (n % 3 + 1) + n
    np.testing.assert_array_equal(made.pixels.keys, samples.keys)


def test_values_missing_labels_and_small_classes_are_told(tmp_path):
    path = table(tmp_path, kind=lambda n: None if n == 3 else "rare" if n == 4 else f"k{n % 2}")
    samples = read_series(path, column="kind").samples
    assert samples.classes == ("k0", "k1")
    assert len(samples) == 22
    assert [line.removeprefix(f"{path}: ") for line in samples.left_out] == [
        "1 sample of 24 have no kind",
        "classes that lie in one parcel only, and cannot be tested: rare (1)",
    ]
    values = read_series(path, column="yield").samples
    assert (values.task, values.classes) == ("regression", ())
    assert values.targets.tolist() == [1.5 * n for n in range(24)]
    few = read_series(path, column="crop", samples=9, seed=1)
    assert np.bincount(few.samples.targets).tolist() == [3, 3, 3]
    assert "9 of 24 samples are used" in few.samples.left_out[0]
    again = read_series(path, column="crop", samples=9, seed=1)
    assert few.ids.tolist() == again.ids.tolist()


def test_too_few_observations_leave_samples_out(tmp_path):
    path = table(tmp_path)
    rows = parquet.read_table(path).to_pylist()
    path = write_rows(tmp_path / "u.parquet", [row for row in rows if row["sample"] != "s7" or row["date"] < "2023-03"])
    made = read_series(path, column="crop", min_s2=2, models=[load_model("null")])
    assert len(made.samples) == 23
    assert "s7" not in made.ids
    assert made.samples.left_out == (f"{path}: 1 sample of 24 have too few observations in 20230201-20230801",)
    assert [each.kind for each in made.samples.features] == ["embedding", "raw", "raw", "raw", "raw"]
    with pytest.raises(NothingToEmbedError, match="no labelled sample has 1 or more observations of Sentinel-2 and 1"):
        read_series(path, column="crop", min_s1=1)


def test_a_later_window_holds_the_same_samples(tmp_path):
    days = ("2023-01-15", "2023-05-01", "2024-01-20")
    made = read_series(table(tmp_path, days=days), column="crop", window=Window.from_name("2023"))
    assert made.pixels.s2.counts.tolist() == [2] * 24
    pixels, window = made.shifted(30)
    assert str(window.start), str(window.end) == ("2023-01-31", "2024-01-30")
    assert pixels.s2.doy.tolist() == [121, 20] * 24
    np.testing.assert_array_equal(pixels.keys, made.pixels.keys)
    assert made.shifted(1000) is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"column": "speed"}, "has no column speed.*there are: .*crop"),
        ({"column": "crop", "split": "nofold"}, "has no column nofold"),
        ({"column": "when"}, "when is not the same in all rows of a sample"),
        ({"column": "one"}, "all 24 labelled samples are of the class x"),
        ({"column": "crop", "task": "regression"}, "holds text"),
    ],
)
def test_one_clear_line(tmp_path, given, said):
    path = table(tmp_path, one=lambda n: "x")
    whole = parquet.read_table(path)
    whole = whole.append_column("when", whole.column("date"))
    parquet.write_table(whole, path)
    with pytest.raises(UsageError, match=said):
        read_series(path, **given)


# --- real data --------------------------------------------------------------------------------------------------------


def grouped(tmp_path):
    """The WorldCereal extraction, with `group_class`: the first digits of the code that have 20 samples or more."""
    whole = parquet.read_table(DATA)
    codes = dict(
        zip(whole.column("sample_id").to_pylist(), map(str, whole.column("ewoc_code").to_pylist()), strict=True)
    )
    group: dict[str, str] = {}
    for digits in (6, 4, 2):
        left = {each: code[:digits] for each, code in codes.items() if each not in group}
        names, counts = np.unique(list(left.values()), return_counts=True)
        large = set(names[counts >= 20].tolist())
        group |= {each: code for each, code in left.items() if code in large}
    names = [f"g{group[each]}" if each in group else None for each in whole.column("sample_id").to_pylist()]
    made = whole.append_column("group_class", pa.array(names, pa.string()))
    parquet.write_table(made, tmp_path / "grouped.parquet")
    return made


def plain_series(rows):
    """numpy alone: reflectance and decibels of 2023 on half months, linear in time."""
    grid = (np.arange(24) + 0.5) * 365 / 24 - 0.5
    bands = ["B04", "B02", "B03", "B08", "B08", "B05", "B06", "B07", "B11", "B12"]
    columns = [*(f"S2-L2A-{band}" for band in bands), "S1-SIGMA0-VV", "S1-SIGMA0-VH"]
    rows = sorted(rows, key=lambda row: row["timestamp"])
    optical_rows = [row for row in rows if all(row[name] != 65535 for name in columns[:10])]
    made = []
    for number, name in enumerate(columns):
        some = optical_rows if number < 10 else [row for row in rows if row[name] != 65535]
        days = [(np.datetime64(row["timestamp"], "D") - np.datetime64("2023-01-01")).astype(int) for row in some]
        values = np.array([row[name] for row in some], float)
        values = values / 10000 if number < 10 else 20 * np.log10(values) - 83
        made.append(np.interp(grid, days, values) if len(days) else np.full(24, np.nan))
    return np.stack(made, axis=1).ravel()


@pytest.mark.skipif(not DATA.exists(), reason="needs ../shared/data")
def test_raw_series_of_real_points_score_as_in_scikit_learn_alone(tmp_path):
    whole = grouped(tmp_path).to_pylist()
    made = read_series(
        tmp_path / "grouped.parquet",
        ["substitute.B8A=B08"],
        column="group_class",
        window=Window.from_name("2023"),
        models=[load_model("demo", device="cpu")],
    )
    samples = made.samples
    assert np.bincount(samples.targets).min() >= 19
    assert len(samples) > 450
    assert any("B8A has no values: B08 stands for it" in line for line in samples.left_out)
    by_sample = {}
    for row in whole:
        if row["timestamp"].year == 2023:
            by_sample.setdefault(row["sample_id"], []).append(row)
    plain = np.stack([plain_series(by_sample[name]) for name in made.ids.tolist()])
    labels = np.array([by_sample[name][0]["group_class"] for name in made.ids.tolist()])
    assert [samples.classes[each] for each in samples.targets] == labels.tolist()
    sets = {each.name: each.values for each in samples.features}
    assert set(sets) == {"demo", "random", "raw-series", "raw-pca", "raw-seasonal", "raw-metrics"}

    def accuracy(values, test):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
        filled = np.where(np.isfinite(values), values, np.nanmean(values[~test], axis=0))
        return model.fit(filled[~test], labels[~test]).score(filled[test], labels[test])

    rng = np.random.default_rng(0)
    splits = [rng.random(len(labels)) < 0.4 for _ in range(4)]
    ours, theirs = (np.mean([accuracy(each, test) for test in splits]) for each in (sets["raw-series"], plain))
    assert ours == pytest.approx(theirs, abs=0.01)
    assert theirs > np.bincount(samples.targets).max() / len(labels) + 0.2
