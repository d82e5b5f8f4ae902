"""Tables of vectors: what is read, against pyarrow and numpy; what is refused, in one line."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import shapely
from pyarrow import parquet
from pyproj import Transformer

from tessera_cli.errors import TesseraError, UsageError
from tessera_cli.evaluation.table import read_vectors

RNG = np.random.default_rng(7)
N = 60
VECTORS = RNG.normal(size=(N, 12)).astype(np.float32)
CROPS = np.array(["wheat", "maize", "beet"], object)[np.arange(N) % 3]
LON, LAT = 5 + RNG.random(N) / 10, 50 + RNG.random(N) / 10


def columns(vectors=VECTORS, prefix="emb_"):
    """In a mixed order, as tables often are: emb_11 before emb_2."""
    return {f"{prefix}{number}": vectors[:, number] for number in sorted(range(vectors.shape[1]), key=str)}


def write_parquet(path: Path, own: dict, **metadata) -> Path:
    table = pa.table({name: pa.array(values) for name, values in own.items()})
    if metadata:
        table = table.replace_schema_metadata(metadata)
    parquet.write_table(table, path, row_group_size=17)
    return path


def write_csv(path: Path, own: dict, delimiter: str = ",") -> Path:
    rows = zip(
        *(
            ["" if v is None or v != v else repr(v) if isinstance(v, float) else str(v) for v in np.asarray(c).tolist()]
            for c in own.values()
        ),
        strict=True,
    )
    path.write_text("\n".join(delimiter.join(row) for row in [list(own), *map(list, rows)]) + "\n")
    return path


def write(path: Path, own: dict) -> Path:
    if path.suffix == ".parquet":
        return write_parquet(path, own)
    if path.suffix == ".npz":
        np.savez_compressed(
            path, **{name: np.asarray(v).astype(str) if np.asarray(v).dtype == object else v for name, v in own.items()}
        )
        return path
    return write_csv(path, own, "\t" if path.suffix == ".tsv" else ",")


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".tsv", ".npz"])
def test_a_table_is_read_whole(tmp_path, suffix):
    own = {"crop": CROPS, **columns(), "site": np.arange(N) // 4, "test": np.arange(N) % 5 == 0, "lon": LON, "lat": LAT}
    path = write(tmp_path / f"t{suffix}", own)
    found = read_vectors(path, features=["emb_"], column="crop", split="test", group="site")
    assert found.task == "classification"
    assert found.classes == ("beet", "maize", "wheat")
    assert [found.classes[each] for each in found.targets] == CROPS.tolist()
    (features,) = found.features
    assert features.name == "emb_"
    np.testing.assert_array_equal(features.values, VECTORS)
    np.testing.assert_array_equal(found.test, np.arange(N) % 5 == 0)
    np.testing.assert_array_equal(found.groups, np.arange(N) // 4)
    np.testing.assert_array_equal(found.parcels, np.arange(N))
    np.testing.assert_allclose(found.lonlat, np.stack([LON, LAT], axis=1))
    assert found.left_out == ()


def test_several_sets_and_the_bands_of_sample(tmp_path):
    bands = {f"Tessera_Band_{i}": VECTORS[:, i] for i in range(12)} | {
        f"Tessera_Band_{i}_std": 0 * LON for i in range(12)
    }
    path = write(tmp_path / "t.parquet", {**bands, "S2-B02": LON, "S2-B03": LAT, "class": CROPS})
    assert [each.name for each in read_vectors(path).features] == ["Tessera_Band_"]
    np.testing.assert_array_equal(read_vectors(path, features=["Tessera_Band_"]).features[0].values, VECTORS)
    found = read_vectors(path, features=["S2-", "Tessera_Band_1"])
    assert [(each.name, each.values.shape[1]) for each in found.features] == [("S2-", 2), ("Tessera_Band_1", 6)]
    np.testing.assert_array_equal(found.features[0].values, np.stack([LON, LAT], axis=1).astype(np.float32))


def test_geoparquet_gives_positions_in_degrees(tmp_path):
    x, y = Transformer.from_crs(4326, 3035, always_xy=True).transform(LON, LAT)
    geo = '{"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": {"encoding": "WKB", "crs": %s}}}'
    from pyproj import CRS

    own = {**columns(), "crop": CROPS, "geometry": shapely.to_wkb(shapely.points(x, y))}
    path = write_parquet(tmp_path / "t.parquet", own, geo=geo % CRS(3035).to_json())
    np.testing.assert_allclose(read_vectors(path, features=["emb"]).lonlat, np.stack([LON, LAT], axis=1), atol=1e-9)


def test_rows_at_one_position_stay_together(tmp_path):
    own = {**columns(), "crop": CROPS, "longitude": LON.round(1), "latitude": LAT.round(1)}
    found = read_vectors(write(tmp_path / "t.csv", own), features=["emb"])
    places = [tuple(each) for each in np.round(found.lonlat, 3)]
    assert len(set(found.groups.tolist())) == len(set(places)) < N
    assert len({*zip(places, found.groups.tolist(), strict=True)}) == len(set(places))
    assert len(set(found.parcels.tolist())) == N


def test_arrays_of_three_dimensions_and_latlon(tmp_path):
    series = RNG.normal(size=(N, 4, 3))
    np.savez(
        tmp_path / "t.npz",
        raw=np.asfortranarray(series),
        series=series,
        latlon=np.stack([LAT, LON], axis=1),
        target=np.arange(N) % 3,
        uid=np.array([f"a{i}" for i in range(N)]),
        other=np.zeros(3),
    )
    found = read_vectors(tmp_path / "t.npz", features=["series", "raw"], column="target", group="uid")
    for each in found.features:
        np.testing.assert_array_equal(each.values, series.reshape(N, 12).astype(np.float32))
    np.testing.assert_allclose(found.lonlat, np.stack([LON, LAT], axis=1))
    assert found.classes == ("0", "1", "2")


def test_a_folder_of_arrays_is_a_table(tmp_path):
    folder = tmp_path / "npy"
    folder.mkdir()
    np.save(folder / "v.npy", VECTORS)
    np.save(folder / "target.npy", LON)
    found = read_vectors(folder, features=["v"], column="target")
    assert found.task == "regression"
    np.testing.assert_array_equal(found.targets, LON)
    assert np.isnan(found.lonlat).all()


def test_lists_of_parquet_are_features(tmp_path):
    own = {
        "crop": CROPS.tolist(),
        "vec": VECTORS[:, :3].tolist(),
        "fix": pa.FixedSizeListArray.from_arrays(VECTORS.ravel(), 12),
    }
    own["vec"][4] = None
    parquet.write_table(pa.table(own), tmp_path / "t.parquet")
    found = read_vectors(tmp_path / "t.parquet", features=["vec", "fix"])
    kept = np.delete(np.arange(N), 4)
    np.testing.assert_array_equal(found.features[0].values, VECTORS[kept, :3])
    np.testing.assert_array_equal(found.features[1].values, VECTORS[kept])
    assert "1 row without any value of vec" in found.left_out[0]


def test_the_task_is_told_by_the_type(tmp_path):
    own = {
        **columns(),
        "truth": np.arange(N) % 2 == 0,
        "whole": np.arange(N) % 4,
        "many": np.arange(N) * 7,
        "yield": LON,
        "halves": np.where(np.arange(N) % 2, 1.5, np.nan),
        "holes": np.where(np.arange(N) % 3, np.arange(N) % 2, np.nan),
    }
    path = write(tmp_path / "t.parquet", own)

    def told(name, task=None):
        return read_vectors(path, features=["emb"], column=name, task=task)

    assert told("truth").classes == ("False", "True")
    assert told("whole").classes == ("0", "1", "2", "3")
    assert told("whole", "regression").targets.tolist() == (np.arange(N) % 4.0).tolist()
    assert told("yield").task == "regression"
    assert told("holes").classes == ("0", "1")
    assert told("holes").left_out == (f"{path}: 20 rows of 60 have no holes",)
    long = write(
        tmp_path / "l.parquet", {**{k: np.tile(v, 3) for k, v in columns().items()}, "count": np.arange(3 * N)}
    )
    assert read_vectors(long, features=["emb"], column="count").task == "regression"
    with pytest.raises(UsageError, match="fractions"):
        told("yield", "classification")
    with pytest.raises(UsageError, match=r"all 30 targets are 1\.5"):
        told("halves")


def test_rows_without_labels_or_features_are_counted(tmp_path):
    vectors, labels = VECTORS.copy(), LON.copy()
    vectors[3], vectors[5, 2], vectors[:, 7], labels[[8, 9]] = np.nan, np.nan, np.nan, np.nan
    vectors[6, 1] = np.inf
    path = write(tmp_path / "t.parquet", {**columns(vectors), "y": labels})
    found = read_vectors(path, features=["emb_"], column="y")
    kept = np.delete(np.arange(N), [3, 8, 9])
    due = np.delete(vectors, 7, axis=1)[kept]
    due[~np.isfinite(due)] = np.nan
    np.testing.assert_array_equal(found.features[0].values, due)
    text = "\n".join(found.left_out)
    assert "2 rows of 60 have no y" in text
    assert "without any value: emb_7" in text
    assert "1 row without any value of emb" in text


def test_a_choice_is_the_same_each_time_and_keeps_rare_classes(tmp_path):
    many = 5000
    kinds = np.where(np.arange(many) % 500 == 0, "rare", np.where(np.arange(many) % 4 == 0, "some", "most"))
    path = write(tmp_path / "t.parquet", {"v_0": np.arange(many, dtype=np.float32), "class": kinds.astype(object)})
    found = read_vectors(path, features=["v"], samples=400, seed=3)
    assert len(found) == 400
    counts = dict(zip(found.classes, np.bincount(found.targets).tolist(), strict=True))
    assert counts["rare"] >= 6
    assert counts["most"] / counts["some"] == pytest.approx(3, rel=0.05)
    rows = found.features[0].values[:, 0].astype(int)
    assert [found.classes[each] for each in found.targets] == kinds[rows].tolist()
    again = read_vectors(path, features=["v"], samples=400, seed=3)
    np.testing.assert_array_equal(again.keys, found.keys)
    other = read_vectors(path, features=["v"], samples=400, seed=4)
    assert not np.array_equal(other.keys, found.keys)


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".npz"])
@pytest.mark.parametrize("values", [["test", "Train"], [1, 0], [True, False], [1.0, 0.0], ["true", "false"]])
def test_a_split_may_be_said_in_several_ways(tmp_path, suffix, values):
    said = np.array(values, object if isinstance(values[0], str) else None)[np.arange(N) % 2]
    path = write(tmp_path / f"t{suffix}", {**columns(), "crop": CROPS, "part": said})
    np.testing.assert_array_equal(read_vectors(path, features=["emb"], split="part").test, np.arange(N) % 2 == 0)


def test_classes_in_one_group_are_left_out_but_not_with_a_split(tmp_path):
    kinds = np.array(["a", "b", "c"], object)[np.where(np.arange(N) < 5, 2, np.arange(N) % 2)]
    own = {
        **columns(),
        "crop": kinds,
        "site": np.where(np.arange(N) < 5, 0, np.arange(N)),
        "test": np.arange(N) % 3 == 0,
    }
    path = write(tmp_path / "t.parquet", own)
    found = read_vectors(path, features=["emb"], group="site")
    assert found.classes == ("a", "b")
    assert len(found) == N - 5
    assert "one group only, and cannot be tested: c (5)" in found.left_out[-1]
    assert read_vectors(path, features=["emb"], group="site", split="test").classes == ("a", "b", "c")


BAD = {
    "column": ({"column": "corp"}, "no column corp.*there are:.*crop"),
    "split column": ({"split": "tset"}, "no column tset.*There are"),
    "group column": ({"group": "sites"}, "no column sites.*There are"),
    "prefix": ({"features": ["vec"]}, r"no column that begins with 'vec'.*emb_ \(12 columns\)"),
    "no prefix": ({"features": []}, r"no columns Tessera_Band_0.*--features PREFIX.*emb_ \(12 columns\)"),
    "text features": ({"features": ["note"]}, "note.*holds no numbers"),
    "all missing": ({"features": ["empty"]}, "empty have no value in any row"),
    "NaN": ({"column": "nothing"}, "nothing has no value in any of 60 rows"),
    "mixed": ({"column": "mixed"}, "mixed mixes text and numbers"),
    "text as values": ({"task": "regression"}, "holds text such as"),
    "one class": ({"column": "one"}, "all 60 labelled samples are of the class same"),
    "too small": ({"column": "note"}, "too small"),
    "split words": ({"split": "crop"}, "should say test"),
    "split of one": ({"split": "one_side"}, "puts every row into train"),
    "twice": ({"features": ["emb_", "emb_"]}, "two sets are called emb_"),
}


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".npz"])
@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_used_is_said_in_one_line(tmp_path, case, suffix):
    own = {
        **columns(),
        "crop": CROPS,
        "note": np.array([f"n{i}" for i in range(N)], object),
        "empty_0": np.full(N, np.nan),
        "empty_1": np.full(N, np.nan),
        "nothing": np.full(N, np.nan),
        "one": np.array(["same"] * N, object),
        "mixed": np.array(["wheat", "1.5"] * (N // 2), object),
        "one_side": np.zeros(N, np.int64),
    }
    changes, message = BAD[case]
    if suffix == ".csv" and case in ("all missing",):
        message = "holds no numbers"  # of a CSV, an empty column may be anything
    path = write(tmp_path / f"t{suffix}", own)
    with pytest.raises(UsageError, match=message) as caught:
        read_vectors(path, **{"features": ["emb_"], "column": "crop", **changes})
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value) or "--features" in str(caught.value)


def test_names_of_classes_may_be_numbers_if_the_task_says_so(tmp_path):
    path = write(tmp_path / "t.csv", {**columns(), "code": np.array(["wheat", "1.5"] * (N // 2), object)})
    assert read_vectors(path, features=["emb"], column="code", task="classification").classes == ("1.5", "wheat")
    path = write(tmp_path / "u.csv", {**columns(), "code": np.array(["2a", "3"] * (N // 2), object)})
    assert read_vectors(path, features=["emb"], column="code").classes == ("2a", "3")


def _bytes_of(suffix: str, tmp_path: Path) -> bytes:
    return write(tmp_path / f"good{suffix}", {**columns(), "crop": CROPS}).read_bytes()


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".npz"])
def test_changed_bytes_are_read_or_refused_in_one_line(tmp_path, suffix):
    data, rng = _bytes_of(suffix, tmp_path), np.random.default_rng(0)
    path, refused = tmp_path / f"bad{suffix}", 0
    for number in range(80):
        changed = bytearray(data)
        for at in rng.integers(0, len(data), rng.integers(1, 6)).tolist():
            changed[at] = int(rng.integers(256))
        if number % 4 == 0:
            del changed[int(rng.integers(len(changed))) :]
        path.write_bytes(bytes(changed))
        said = complaint(path)
        refused += bool(said)
        assert "\n" not in said
    assert refused > 5


def complaint(path: Path) -> str:
    """What the error says; "" if there is none."""
    try:
        read_vectors(path, features=["emb"], column="crop")
    except TesseraError as error:
        return str(error)
    return ""


def test_archives_with_objects_or_of_lies_are_refused(tmp_path):
    np.savez(tmp_path / "o.npz", v=VECTORS, target=np.array([{}, []] * (N // 2), object))
    with pytest.raises(UsageError, match=r"o\.npz, array target, cannot be read: its header"):
        read_vectors(tmp_path / "o.npz", features=["v"], column="target")
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**11, 9)})
    with zipfile.ZipFile(tmp_path / "l.npz", "w") as archive:
        archive.writestr("v.npy", header.getvalue() + b"\0" * 64)
    with pytest.raises(UsageError, match=r"array v, cannot be read: its header speaks of 3,600,000,000,1.. bytes"):
        read_vectors(tmp_path / "l.npz", features=["v"], column="target")


PROGRAM = """
import pathlib, sys
import numpy as np
from tessera_cli.timing import peak_rss_mb
from tessera_cli.evaluation.table import read_vectors
found = read_vectors(pathlib.Path(sys.argv[1]), features=["emb"], column="crop", group="site", samples=50_000)
assert len(found) == 50_000 and found.features[0].values.shape == (50_000, 64)
rows = found.features[0].values[:, 0].astype(int)
assert (found.targets == rows % 8).all(), "rows and vectors belong together"
print(int(peak_rss_mb()))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the bar is for Linux")
def test_ten_million_rows_take_less_than_four_gigabytes(tmp_path):
    path, count, step = tmp_path / "t.parquet", 10_000_000, 500_000
    schema = pa.schema([("crop", pa.string()), ("site", pa.int64()), *((f"emb_{i}", pa.float32()) for i in range(64))])
    crops = pa.array([f"crop {i}" for i in range(8)])
    with parquet.ParquetWriter(path, schema, compression="none", use_dictionary=["crop"]) as writer:
        for start in range(0, count, step):
            rows = np.arange(start, start + step)
            values = [pa.array((rows + i).astype(np.float32)) for i in range(64)]
            writer.write_table(pa.table([crops.take(pa.array(rows % 8)), pa.array(rows // 100), *values], schema), step)
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 4000
