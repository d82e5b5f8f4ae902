"""What tables say of samples, a row each or many."""

import numpy as np
import pytest
import shapely

from tessera_cli.errors import UsageError
from tessera_cli.series.files import TableFile
from tessera_cli.series.places import names_of
from tessera_cli.series.told import read_samples
from tests.helpers.series import optical, write_rows


def read(path, *wanted, **more):
    return read_samples(TableFile.open(path), wanted, **more)


@pytest.mark.parametrize("name", ["t.parquet", "t.csv"])
def test_a_long_table_and_a_short_one_say_the_same(tmp_path, name):
    said = [{"lon": 4.0 + n, "lat": 50.0, "crop": "ab"[n % 2], "field": n // 2} for n in range(6)]
    long = [optical(f"s{n}", f"2023-0{m}-01", **more) for m in (3, 1) for n, more in enumerate(said)]
    short = [{"sample_id": f"s{n}", **more} for n, more in enumerate(said)]
    for number, rows in enumerate((long, short)):
        (tmp_path / str(number)).mkdir()
        found = read(write_rows(tmp_path / str(number) / name, rows), "crop", "field")
        assert found.ids is not None
        assert found.ids.tolist() == [f"s{n}" for n in range(6)]
        np.testing.assert_array_equal(found.lonlat, [[4.0 + n, 50] for n in range(6)])
        assert found.column("crop").tolist() == list("ababab")
        assert found.column("field").tolist() == [0, 0, 1, 1, 2, 2]


def test_rows_without_names_are_samples_and_places_may_be_geometries(tmp_path):
    import geopandas

    frame = geopandas.GeoDataFrame({"crop": ["a", "b"]}, geometry=shapely.points([[4, 50], [5, 51]]), crs=4326)
    frame.to_crs(3857).to_parquet(tmp_path / "g.parquet")
    found = read(tmp_path / "g.parquet", "crop")
    assert found.ids is None
    np.testing.assert_allclose(found.lonlat, [[4, 50], [5, 51]], atol=1e-9)
    plain = read(write_rows(tmp_path / "p.csv", [{"plot": "x", "crop": 1}, {"plot": "x", "crop": 1}]), "crop")
    assert len(plain.lonlat) == 2
    assert np.isnan(plain.lonlat).all()
    assert len(read(tmp_path / "p.csv", "crop", sample="plot").lonlat) == 1


def test_what_changes_within_a_sample_is_no_column_of_it(tmp_path):
    path = write_rows(tmp_path / "t.csv", [{"id": "x", "crop": "a"}, {"id": "x", "crop": "b"}])
    with pytest.raises(UsageError, match=r"not the same in all rows of a sample \(x has a and b\)"):
        read(path, "crop").column("crop")
    far = write_rows(tmp_path / "f.csv", [{"lon": 600000.0, "lat": 50.0, "crop": "a"}])
    with pytest.raises(UsageError, match="lon and lat are no degrees"):
        read(far, "crop")


def test_names_are_written_alike_whatever_their_type():
    assert names_of(np.array([7, 8])).tolist() == ["7", "8"]
    assert names_of(np.array([7.0, np.nan, 0.5])).tolist() == ["7", None, "0.5"]
    assert names_of(np.array([" a ", "", None], object)).tolist() == ["a", None, None]
