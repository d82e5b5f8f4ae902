"""Long tables -> ragged pixels: names, units, missing values, orbits, windows, any order; and what cannot be read."""

from __future__ import annotations

import datetime as dt
import json

import numpy as np
import pyarrow as pa
import pytest
import shapely
from pyarrow import parquet

from tessera_cli.dpixels.dpixel import S2_BANDS
from tessera_cli.errors import NothingToEmbedError, UsageError
from tessera_cli.extent.grid import from_utm
from tessera_cli.extent.window import Window
from tessera_cli.imagery.sentinel1 import scale
from tessera_cli.series.mapping import Columns
from tessera_cli.series.read import read_table
from tests.conftest import SHARED
from tests.helpers.series import WORLDCEREAL, optical, table_of, write_rows


def radar(sample, date, vv, vh=None, **more):
    return {"sample": sample, "date": date, "VV": vv, "VH": vh, **more}


def write(tmp_path, rows, name="t.parquet", **more):
    return write_rows(tmp_path / name, rows, **more)


THREE = [
    optical("b", "2023-05-01", 1000, crop="maize", site=7, lon=4.5, lat=52.0, ndays=1),
    radar("a", "2023-05-02", -10.0, -17.0, crop="wheat", site=8, lon=5.5, lat=51.0, ndays=2),
    optical("a", "2023-04-01", 2000, crop="wheat", site=8, lon=5.5, lat=51.0, ndays=1),
    optical("a", "2023-03-01", 3000, crop="wheat", site=8, lon=5.5, lat=51.0, ndays=1),
    radar("b", "2023-05-01", -8.0, None, crop="maize", site=7, lon=4.5, lat=52.0, ndays=1),
]


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_rows_in_any_order_become_series(tmp_path, ending):
    table = read_table(write(tmp_path, THREE, f"t.{ending}"))
    assert table.ids.tolist() == ["b", "a"]
    assert table.window == Window(dt.date(2023, 3, 1), dt.date(2023, 5, 2))
    s2, s1 = table.pixels.s2, table.pixels.s1
    assert s2.starts.tolist() == [0, 1, 3]
    assert s2.doy.tolist() == [121, 60, 91]
    assert s2.values[:, 0].tolist() == [1000, 3000, 2000]
    assert s2.values[0].tolist() == list(range(1000, 1010))
    assert (s2.values.dtype, s1.values.dtype) == (np.uint16, np.int16)
    due = scale(10.0 ** (np.array([[-8.0, np.nan], [-10.0, -17.0]]) / 10))
    np.testing.assert_array_equal(s1.values, due)
    assert s1.values[0, 1] == 0
    assert s1.values[1, 0] == 6000  # (2 x -10 + 50) x 200
    assert table.lonlat.tolist() == [[4.5, 52.0], [5.5, 51.0]]
    assert table.column("crop").tolist() == ["maize", "wheat"]
    assert table.column("site").tolist() == [7, 8]
    assert "all of it is taken for ascending" in table.notes[0]
    places = table.pixels.places
    assert places[:, 0].tolist() == [32631, 32631]
    assert (places[:, 1:] % 10 == 5).all()
    with pytest.raises(UsageError, match=r"ndays is not the same in all rows of a sample \(a has 2 and 1\)"):
        table.column("ndays")
    with pytest.raises(UsageError, match=r"no column yield. It has: crop, site"):
        table.column("yield")


def test_small_row_groups_and_an_unsorted_table_give_the_same(tmp_path):
    rng = np.random.default_rng(1)
    days = [str(np.datetime64("2023-01-01") + n) for n in range(60)]
    rows = [optical(f"s{n}", day, int(rng.integers(1, 9000))) for n in range(20) for day in days]
    first = read_table(write(tmp_path, rows))
    mixed = [rows[i] for i in rng.permutation(len(rows))]
    second = read_table(write(tmp_path, mixed, "m.parquet", row_group_size=17))
    order = [second.ids.tolist().index(name) for name in first.ids]
    again = second.pixels.take(np.array(order))
    for name in ("values", "doy", "starts"):
        np.testing.assert_array_equal(getattr(first.pixels.s2, name), getattr(again.s2, name))
    np.testing.assert_array_equal(first.pixels.keys, again.keys)
    assert len(set(again.keys.tolist())) == 20


def test_a_draw_of_samples_depends_on_their_names_alone(tmp_path):
    rows = [optical(f"s{n}", f"2023-05-{day:02}", 100 * n + 1) for n in range(30) for day in range(1, 4)]
    some = read_table(write(tmp_path, rows), most=10, seed=4)
    again = read_table(write(tmp_path, rows[::-1], "r.parquet"), most=10, seed=4)
    assert len(some) == 10
    assert set(some.ids) == set(again.ids)
    assert set(some.ids) != set(read_table(tmp_path / "t.parquet", most=10, seed=5).ids)
    whole = read_table(tmp_path / "t.parquet")
    at = np.array([whole.ids.tolist().index(name) for name in some.ids])
    np.testing.assert_array_equal(some.pixels.s2.values, whole.pixels.take(at).s2.values)


# --- names and units --------------------------------------------------------------------------------------------------


def test_usual_names_are_recognised(tmp_path):
    renamed = [
        {"sample_id": "x", "timestamp": dt.datetime(2023, 5, 1, 11, 30), "Longitude": 1.0, "latitude": 2.0}
        | {f"S2-L2A-{band}": 10 + i for i, band in enumerate(S2_BANDS)}
    ]
    table = read_table(write(tmp_path, renamed))
    assert table.pixels.s2.values.tolist() == [list(range(10, 20))]
    assert table.mapping.names["date"] == "timestamp"
    assert table.lonlat.tolist() == [[1.0, 2.0]]
    assert not table.columns


def test_columns_come_from_a_file_texts_and_mappings(tmp_path):
    row = {"plot": 3, "day": 20230501, "blue": 0.05, "p": 0.1, "q": 0.01, "way": "DESCENDING", "ok": 1}
    row |= {f"r{i}": 0.1 + i / 10 for i in range(9)}
    path = write(tmp_path, [row, row | {"day": 20230502, "ok": 0}])
    bands = {band: f"r{i}" for i, band in enumerate(b for b in S2_BANDS if b != "B02")}
    toml = tmp_path / "map.toml"
    lines = [f'{band} = "{name}"' for band, name in bands.items()]
    toml.write_text("\n".join(['sample = "plot"', 'date = "day"', 'optical = "reflectance"', *lines]))
    texts = [str(toml), "B02=blue", "VV=p", "VH=q", "radar=linear", "orbit=way", "clear=ok"]
    table = read_table(path, texts)
    both = {"sample": "plot", "date": "day", "optical": "reflectance", "B02": "blue", **bands}
    assert table.mapping.to_dict() == {**both, "VV": "p", "VH": "q", "orbit": "way", "clear": "ok", "radar": "linear"}
    assert table.pixels.s2.values[0].tolist() == [1000, 500, *range(2000, 9001, 1000)]
    assert len(table.pixels.s2.doy) == 1
    assert table.pixels.s1.streams.tolist() == [1, 1]
    np.testing.assert_array_equal(table.pixels.s1.values[0], scale(np.array([0.1, 0.01])))
    assert read_table(path, table.mapping.to_dict()).mapping == table.mapping


@pytest.mark.parametrize(
    ("settings", "value", "due"),
    [
        ({"radar": "db"}, -12.3, -12.3),
        ({"radar": "db", "radar_scale": 0.01}, -1230, -12.3),
        ({"radar": "linear"}, 10 ** (-1.23), -12.3),
        ({"radar": "amplitude"}, 10 ** (-0.615), -12.3),
        ({"radar": "amplitude", "radar_offset": -83}, 4615, 20 * np.log10(4615) - 83),
    ],
)
def test_radar_units(tmp_path, settings, value, due):
    table = read_table(write(tmp_path, [radar("a", "2023-05-01", value)]), settings)
    assert abs(int(table.pixels.s1.values[0, 0]) - (2 * due + 50) * 200) <= 1
    assert table.pixels.s1.values[0, 1] == 0


def test_optical_units_offset_and_missing(tmp_path):
    rows = [optical("a", "2023-05-01", 500), optical("a", "2023-05-02", 3000), optical("a", "2023-05-03", 0)]
    rows[2] = {**rows[2], **dict.fromkeys(S2_BANDS, 0)}
    rows += [optical("a", "2023-05-04", 3000, B11=65535), optical("a", "2023-05-05", 3000, B11=None)]
    rows += [{**rows[0], "date": "2023-05-06", **dict.fromkeys(S2_BANDS, 65535)}]
    table = read_table(write(tmp_path, rows), {"optical_offset": -1000})
    assert table.pixels.s2.values.tolist() == [[1] * 10, list(range(2000, 2010))]
    assert table.notes == ("2 rows lack some of the bands of Sentinel-2, and were left out as optical ones",)
    kept = read_table(tmp_path / "t.parquet", {"missing": []})
    assert len(kept.pixels.s2.doy) == 4


def test_scene_classes_and_orbits(tmp_path):
    rows = [optical("a", f"2023-05-{n + 1:02}", 100 * n + 1, SCL=n) for n in range(12)]
    assert (read_table(write(tmp_path, rows)).pixels.s2.values[:, 0] // 100).tolist() == [4, 5, 6, 7, 10, 11]
    rows = [radar("a", "2023-05-01", -5.0 - n, orbit=way) for n, way in enumerate(["desc", "ASCENDING", None])]
    table = read_table(write(tmp_path, rows, "o.parquet"))
    assert table.pixels.s1.streams.tolist() == [0, 1]  # the third repeats the date of the second
    assert table.notes == ("1 row repeated a date of a sample: the first was kept",)
    table = read_table(tmp_path / "o.parquet", {"default_orbit": "descending"})
    assert table.pixels.s1.values[:, 0].tolist() == [7600, 8000]


def test_an_absent_band_can_be_substituted(tmp_path):
    rows = [optical("a", "2023-05-01", 1000, B8A=65535)]
    path = write(tmp_path, rows)
    with pytest.raises(UsageError, match=r"holds no B8A.*--columns substitute.B8A=B08"):
        read_table(path, [])
    table = read_table(path, ["substitute.B8A=B08"])
    assert table.pixels.s2.values[0, S2_BANDS.index("B8A")] == 1003
    assert table.notes == ("B8A has no values: B08 stands for it",)
    without = write(tmp_path, [{name: value for name, value in rows[0].items() if name != "B8A"}], "w.parquet")
    with pytest.raises(UsageError, match="holds no B8A"):
        read_table(without)
    again = read_table(without, {"substitute": {"B8A": "B08"}})
    np.testing.assert_array_equal(again.pixels.s2.values, table.pixels.s2.values)


def test_geometries_give_places_where_no_columns_do(tmp_path):
    rows = [optical(name, f"2023-05-0{day}", 50) for day in (1, 2) for name in ("b", "a")]
    table = table_of(rows).append_column(
        "geometry", pa.array([shapely.to_wkb(shapely.Point(*at)) for at in [(600000, 5800000), (610000, 5810000)] * 2])
    )
    column = {"encoding": "WKB", "crs": "EPSG:32631"}
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
    parquet.write_table(table.replace_schema_metadata({"geo": json.dumps(geo)}), tmp_path / "g.parquet")
    found = read_table(tmp_path / "g.parquet")
    due = np.stack(from_utm(32631).transform([600000, 610000], [5800000, 5810000]), axis=1)
    np.testing.assert_allclose(found.lonlat, due, atol=1e-9)
    assert (np.abs(found.pixels.places - [[32631, 600000, 5800000], [32631, 610000, 5810000]]) <= 5).all()
    column["crs"] = None
    parquet.write_table(table.replace_schema_metadata({"geo": json.dumps(geo)}), tmp_path / "g.parquet")
    with pytest.raises(UsageError, match="are no degrees"):
        read_table(tmp_path / "g.parquet")


def test_a_window_chooses_rows(tmp_path):
    rows = [optical("a", f"202{y}-0{m}-15", 1000 * y + m) for y in (2, 3) for m in range(1, 10)]
    path = write(tmp_path, rows)
    with pytest.raises(
        UsageError, match=r"spans 609 days, from 2022-01-15 to 2023-09-15; .*--window 2022-01-15/2023-01-14"
    ):
        read_table(path)
    found = read_table(path, window=Window.parse("2022-08/2023-02"))
    assert found.pixels.s2.values[:, 0].tolist() == [2008, 2009, 3001, 3002]
    assert found.pixels.s2.doy.tolist() == [227, 258, 15, 46]
    with pytest.raises(NothingToEmbedError, match="none of its 18 rows between 2022-01-15 and 2023-09-15"):
        read_table(path, window=Window.from_name("2021"))


# --- what cannot be read ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "settings", "said"),
    [
        ([{"date": "2023-01-01", "B02": 1}], {}, "no column that tells the sample. Name it with --columns sample=NAME"),
        ([{"sample": 1, "B02": 1}], {}, "no column that tells the date"),
        ([{"sample": 1, "date": "2023-01-01", "ndvi": 1}], {}, "no bands of Sentinel-2.*It has: sample, date, ndvi"),
        ([optical("a", "2023-01-01")], {"VV": "vv9"}, "has no column vv9"),
        ([optical("a", "someday")], {}, '"someday" is no date'),
        ([optical("a", None), optical("a", "2023-01-01")], {}, "rows without a date"),
        ([optical(None, "2023-01-01"), optical("a", "2023-01-01")], {}, "rows without the name of their sample"),
        ([optical("a", "2023-01-01", 0.1) | dict.fromkeys(S2_BANDS, 0.2)], {}, "they are no DN.*optical=reflectance"),
        ([optical("a", "2023-01-01")], {"optical": "reflectance"}, "no reflectance from 0 to 1"),
        ([radar("a", "2023-01-01", 0.1, 0.02)], {}, "between 0.02 and 0.1, which are no decibels"),
        ([radar("a", "2023-01-01", 4600, 1200)], {}, "no decibels"),
        ([radar("a", "2023-01-01", -9.0, orbit="north")], {}, '"north". Write ascending or descending'),
        ([optical("a", "2023-01-01", B02="much")], {}, "column B02 holds what is no number"),
        ([optical("a", "2023-01-01", lon=500000.0, lat=6.0)], {}, "lon and lat are no degrees"),
        (
            [optical("a", f"2023-01-0{n}", lon=float(n), lat=6.0) for n in (1, 2)],
            {},
            "one place, but column lon changes",
        ),
        ([optical("a", "2023-01-01", clear="perhaps")], {}, "Write true or false"),
    ],
)
def test_one_clear_line(tmp_path, rows, settings, said):
    path = write(tmp_path, rows)
    with pytest.raises(UsageError, match=said) as caught:
        read_table(path, settings)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["B99=x"], '"B99" is no column of a series'),
        (["optical=percent"], "Choose one of: dn, reflectance"),
        (["radar_offset=much"], "which is no number"),
        (["substitute.B8A=B99"], 'names "B99"'),
        (["nowhere.toml"], "nowhere.toml cannot be read: No such file"),
        ({"missing": "none"}, "which is no number"),
        ({"substitute": "B08"}, "Write substitute.B8A=B08"),
        ({"B02": 3}, "Give the name of a column"),
    ],
)
def test_a_mapping_that_cannot_be(given, said):
    with pytest.raises(UsageError, match=said):
        Columns.of(given)


def test_files_that_are_no_tables(tmp_path):
    for name, said in (
        ("a.gpkg", "no such file"),
        ("b.gpkg", "no table of time series"),
        ("c.parquet", "cannot be read"),
    ):
        if name != "a.gpkg":
            (tmp_path / name).write_bytes(b"PAR1 not")
        with pytest.raises(UsageError, match=said):
            read_table(tmp_path / name)
    (tmp_path / "d.csv").write_text("sample,date,VV\na,2023-01-01\n")
    with pytest.raises(UsageError, match="cannot be read as a table"):
        read_table(tmp_path / "d.csv")
    (tmp_path / "e.csv").write_text("")
    with pytest.raises(UsageError, match="cannot be read as a table"):
        read_table(tmp_path / "e.csv")


@pytest.mark.skipif(not (SHARED / "data" / WORLDCEREAL).exists(), reason="needs ../shared/data")
def test_worldcereal_extractions_are_read_by_their_names():
    table = read_table(SHARED / "data" / WORLDCEREAL, ["substitute.B8A=B08"], window=Window.from_name("2023"))
    raw = parquet.read_table(SHARED / "data" / WORLDCEREAL).to_pylist()
    rows = [row for row in raw if row["sample_id"] == table.ids[7] and row["timestamp"].year == 2023]
    seen = [row for row in rows if row["S2-L2A-B02"] != 65535]
    one = table.pixels.take(np.array([7]))
    assert one.s2.values[:, S2_BANDS.index("B11")].tolist() == [row["S2-L2A-B11"] for row in seen]
    assert one.s2.values[:, S2_BANDS.index("B8A")].tolist() == [row["S2-L2A-B08"] for row in seen]
    db = 20 * np.log10([row["S1-SIGMA0-VV"] for row in rows if row["S1-SIGMA0-VV"] != 65535]) - 83
    np.testing.assert_allclose(one.s1.values[:, 0], (2 * db + 50) * 200, atol=1)
    assert len(table) == 500
    assert table.column("ewoc_code").dtype.kind == "i"
