"""Sources of embeddings: the vectors that rasterio and numpy read at the same places."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine

from tessera_cli.api.export import export
from tessera_cli.errors import NothingToEmbedError, UsageError
from tessera_cli.evaluation.sources.open import open_source, open_sources
from tessera_cli.extent.grid import ForeignTile, Tile, from_utm
from tests.evaluation.rasters import EAST, NORTH, TRANSFORM, lonlat_of, write_tiff
from tests.helpers.outputs import TILE, values
from tests.tables.folders import DIMS, constant_tile, put, random_tile

RNG = np.random.default_rng(3)
NEXT = Tile(32631, 113, 1098)


def gathered(source) -> np.ndarray:
    return np.concatenate([centres.places for centres in source.centres()])


def in_order(places: np.ndarray) -> np.ndarray:
    return places[np.lexsort(places.T)]


# --- folders ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["int8", "float32"])
@pytest.mark.parametrize("format", ["geotiff", "npy", "vectors"])
def test_a_folder_gives_what_its_tiles_hold(tmp_path, dtype, format):
    made = {tile: random_tile(number) for number, tile in enumerate((TILE, NEXT))}
    for tile, arrays in made.items():
        put(tmp_path / "out", tile, arrays, dtype=dtype, format=format)
    (source,) = open_source(tmp_path / "out")
    assert (source.name, source.dims, source.kind) == ("out", DIMS, "embedding")
    rows, columns = RNG.integers(0, 512, (2, 300))
    for tile, arrays in made.items():
        due = values(arrays)[:, rows, columns].T
        np.testing.assert_array_equal(source.at(lonlat_of(rows, columns, tile.transform)), due)
    due = []
    for tile, arrays in made.items():
        there = np.nonzero(~np.isnan(arrays["scales"]))
        x, y = tile.transform * (there[1] + 0.5, there[0] + 0.5)
        due.append(np.stack([np.full(len(x), 32631.0), x, y], axis=1))
    np.testing.assert_array_equal(in_order(gathered(source)), in_order(np.concatenate(due)))
    west, south, east, north = source.bounds
    lon, lat = lonlat_of([0, 511], [0, 511], TILE.transform).T
    assert west <= lon.min() < lon.max() <= east
    assert south <= lat.min() < lat.max() <= north
    assert np.isnan(source.at(np.array([[0.0, 0.0]]))).all()


def test_windows_are_sources_of_their_own(tmp_path):
    for number, window in enumerate(("2022", "2023")):
        put(tmp_path / "out", TILE, constant_tile(number + 1), window=window)
    sources = open_source(tmp_path / "out")
    assert [source.name for source in sources] == ["out 2022", "out 2023"]
    place = lonlat_of([3], [4], TILE.transform)
    assert [source.at(place)[0, 0] for source in sources] == [1, 2]
    assert [source.name for source in open_source(tmp_path / "out", 2023)] == ["out"]
    with pytest.raises(UsageError, match="has no embeddings of 2021"):
        open_source(tmp_path / "out", 2021)


def test_pixels_of_overlapping_tiles_come_once(tmp_path):
    corner = Affine(10, 0, 300000, 0, -10, 6200000)
    one = ForeignTile("one", (20, 30), "EPSG:32733", corner)
    other = ForeignTile(
        "other",
        (20, 30),
        "EPSG:32733",
        Affine(10, 0, 300100, 0, -10, 6199950),
    )
    whole = np.ones((20, 30), bool)
    for number, tile in enumerate((one, other)):
        arrays = constant_tile(number + 1, whole)
        arrays["counts"] = arrays["counts"][:, :20, :30]
        put(tmp_path / "out", tile, arrays, window=None)
    (source,) = open_source(tmp_path / "out")
    places = gathered(source)
    assert len(places) == len(np.unique(places, axis=0)) == 2 * 600 - 15 * 20
    lonlat = np.stack(from_utm(32733).transform(*places[:, 1:].T), axis=-1)
    assert np.bincount(source.at(lonlat)[:, 0].astype(int)).tolist() == [0, 600, 300]


def test_a_folder_of_several_models_is_refused(tmp_path):
    put(tmp_path / "out", TILE, constant_tile(1))
    put(tmp_path / "out", NEXT, constant_tile(1), dtype="float32")
    with pytest.raises(UsageError, match="mixes tiles of 2 settings"):
        open_source(tmp_path / "out")


def test_what_is_no_source(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        open_source(tmp_path / "gone")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(UsageError, match="no raster of embeddings"):
        open_source(tmp_path / "a.txt")
    with pytest.raises((UsageError, NothingToEmbedError), match="holds no embeddings"):
        open_source(tmp_path)
    (tmp_path / "b.tif").write_text("x")
    with pytest.raises(UsageError, match=r"b\.tif cannot be read"):
        open_source(tmp_path / "b.tif")


def test_no_two_sources_have_one_name(tmp_path):
    for parent in "ab":
        (tmp_path / parent).mkdir()
        write_tiff(tmp_path / parent / "emb.tif", np.ones((2, 8, 8), np.float32))
    paths = [tmp_path / "a" / "emb.tif", tmp_path / "b" / "emb.tif", tmp_path / "b" / "emb.tif"]
    assert [source.name for source in open_sources(paths)] == ["a/emb", "b/emb", "b/emb (2)"]


# --- rasters ----------------------------------------------------------------------------------------------------------


def test_float32_with_nodata_and_off_the_grid(tmp_path):
    stored = RNG.normal(size=(6, 70, 90)).astype(np.float32)
    stored[:, 5, 6], stored[2, 7, 8], stored[:, 9, 10] = np.nan, np.nan, -9999
    transform = Affine(12.5, 1.5, EAST + 3, 1, -11, NORTH + 7)  # turned, of another size
    path = write_tiff(tmp_path / "e.tif", stored, transform=transform, nodata=-9999)
    (source,) = open_source(path)
    assert (source.name, source.dims) == ("e", 6)
    rows, columns = np.indices((70, 90)).reshape(2, -1)
    due = stored.reshape(6, -1).T.copy()
    absent = np.isnan(due).any(axis=1) | (due == -9999).any(axis=1)
    due[absent] = np.nan
    np.testing.assert_array_equal(source.at(lonlat_of(rows, columns, transform)), due)
    x, y = transform * (columns + 0.5, rows + 0.5)
    np.testing.assert_allclose(
        in_order(gathered(source)),
        in_order(np.stack([np.full(len(x), 32631.0), x, y], axis=1)[~absent]),
    )


def test_codes_with_scales_beside_and_scales_of_bands(tmp_path):
    codes = RNG.integers(-127, 128, (4, 40, 50)).astype(np.int8)
    scales = RNG.uniform(0.01, 0.2, (40, 50)).astype(np.float32)
    scales[3, 4] = np.nan
    place = lonlat_of(*np.indices((40, 50)).reshape(2, -1))
    path = write_tiff(tmp_path / "x_codes.tif", codes, nodata=-128)
    with pytest.raises(UsageError, match=r"holds codes \(int8\), and no scales"):
        open_source(path)
    write_tiff(tmp_path / "x_scales.tif", scales)
    (source,) = open_source(path)
    np.testing.assert_array_equal(source.at(place), (codes * scales).reshape(4, -1).T)
    assert len(gathered(source)) == 40 * 50 - 1
    write_tiff(tmp_path / "x_scales.tif", scales[:20])
    with pytest.raises(UsageError, match="is no band of scales on the pixels of"):
        open_source(path)
    other = write_tiff(tmp_path / "y.tif", codes, scales=[0.5, 2, 3, 4], offsets=[1, 0, 0, -1])
    factors, offsets = np.array([0.5, 2, 3, 4])[:, None], np.array([1, 0, 0, -1])[:, None]
    np.testing.assert_allclose(open_source(other)[0].at(place), (codes.reshape(4, -1) * factors + offsets).T)


@pytest.mark.parametrize("bottom_up", [False, True])
def test_alphaearth_by_the_formula_of_google(tmp_path, bottom_up):
    codes = RNG.integers(-127, 128, (64, 30, 30)).astype(np.int8)
    codes[:, 3, 4] = -128
    height = 30
    transform = Affine(10, 0, EAST, 0, 10, NORTH - 10 * height) if bottom_up else TRANSFORM
    path = write_tiff(tmp_path / "a.tif", codes, transform=transform, nodata=-128)
    (source,) = open_source(path)
    rows, columns = np.indices((30, 30)).reshape(2, -1)
    due = (np.sign(codes.astype(float)) * (codes / 127.5) ** 2).reshape(64, -1).T
    due[3 * 30 + 4] = np.nan
    np.testing.assert_allclose(source.at(lonlat_of(rows, columns, transform)), due, rtol=1e-6)
    assert len(gathered(source)) == 899
    with rasterio.open(path) as src:  # and where rasterio finds the same pixel
        x, y = from_utm(32631).transform(*lonlat_of([7], [9], transform)[0], direction="INVERSE")
        assert next(src.sample([(x, y)])).tolist() == codes[:, 7, 9].tolist()


def test_a_folder_of_rasters_is_one_source_and_overlaps_come_once(tmp_path):
    for number, left in enumerate((0, 30)):
        stored = np.full((3, 40, 40), number + 1, np.float32)
        stored[:, :5] = np.nan if not number else 7
        write_tiff(tmp_path / f"t{number}.tif", stored, transform=TRANSFORM * Affine.translation(left, 0))
    (source,) = open_source(tmp_path)
    row = lonlat_of(np.full(70, 20), np.arange(70))
    assert source.at(row)[:, 0].tolist() == [1] * 40 + [2] * 30
    top = source.at(lonlat_of(np.full(70, 2), np.arange(70)))[:, 0]
    assert np.isnan(top[:30]).all()
    assert top[30:].tolist() == [7] * 40
    places = gathered(source)
    assert len(places) == len(np.unique(places, axis=0)) == 35 * 70 + 5 * 40


def test_years_and_models_of_rasters(tmp_path):
    for year in (2022, 2023):
        write_tiff(tmp_path / f"grid_4.45_50.75_{year}.tiff", np.full((3, 8, 8), year, np.float32))
    sources = open_source(tmp_path)
    assert [source.name for source in sources] == [f"{tmp_path.name} 2022", f"{tmp_path.name} 2023"]
    assert [source.at(lonlat_of([1], [1]))[0, 0] for source in sources] == [2022, 2023]
    write_tiff(tmp_path / "other_2023.tif", np.ones((3, 8, 8), np.float32), tags={"TESSERA_MODEL_NAME": "v1.1"})
    with pytest.raises(UsageError, match="mixes embeddings of different models or settings: TESSERA_MODEL_NAME"):
        open_source(tmp_path)
    write_tiff(tmp_path / "other_2023.tif", np.ones((4, 8, 8), np.float32))
    with pytest.raises(UsageError, match=r"bands 3 in .* and 4 in"):
        open_source(tmp_path)


def test_a_raster_without_a_place_is_refused(tmp_path):
    with pytest.raises(UsageError, match="has no CRS"):
        open_source(write_tiff(tmp_path / "e.tif", np.ones((2, 8, 8), np.float32), crs=None))


# --- geotessera -------------------------------------------------------------------------------------------------------


def test_a_download_of_geotessera_gives_what_the_folder_gave(tmp_path):
    wanted = np.zeros((512, 512), bool)
    wanted[100:160, 30:300] = True
    put(tmp_path / "out", TILE, random_tile(1, wanted))
    export(tmp_path / "out", to="geotessera", out=tmp_path / "tree")
    (own,), (source,) = open_source(tmp_path / "out"), open_source(tmp_path / "tree")
    assert source.dims == DIMS
    rows, columns = np.indices((512, 512)).reshape(2, -1)
    place = lonlat_of(rows, columns, TILE.transform)[::7]
    np.testing.assert_array_equal(source.at(place), own.at(place))
    np.testing.assert_array_equal(in_order(gathered(source)), in_order(gathered(own)))


def tree(root: Path, codes: np.ndarray, scales: np.ndarray, transform: Affine, year: int = 2024) -> Path:
    name = "grid_4.45_50.75"
    folder = root / "global_0.1_degree_representation" / str(year) / name
    folder.mkdir(parents=True)
    (root / "global_0.1_degree_tiff_all").mkdir(exist_ok=True)
    np.save(folder / f"{name}.npy", codes)
    np.save(folder / f"{name}_scales.npy", scales)
    write_tiff(
        root / "global_0.1_degree_tiff_all" / f"{name}.tiff", np.ones(codes.shape[:2], np.uint8), transform=transform
    )
    return folder


def test_published_cells_lie_on_the_grid_that_their_landmask_is_off(tmp_path):
    codes = RNG.integers(-127, 128, (20, 30, 8)).astype(np.int8)
    scales = RNG.uniform(0.01, 0.2, codes.shape[:2]).astype(np.float32)
    bad = {(0, 0): np.nan, (1, 1): np.inf, (2, 2): 0, (3, 3): 9e5}
    for at, value in bad.items():
        scales[at] = value
    tree(tmp_path / "t", codes, scales, Affine(10, 0, EAST + 6.3, 0, -10, NORTH - 2.8))
    (source,) = open_source(tmp_path / "t")
    assert source.name == "t"
    due = codes * scales[..., None]
    for at in bad:
        due[at] = np.nan
    found = source.at(lonlat_of(*np.indices((20, 30)).reshape(2, -1)))
    np.testing.assert_array_equal(found, due.reshape(-1, 8))
    assert len(gathered(source)) == 596


def test_scales_of_each_dimension_and_years(tmp_path):
    codes = RNG.integers(-127, 128, (20, 30, 8)).astype(np.int8)
    for year in (2021, 2022):
        tree(tmp_path / "t", codes, np.full(codes.shape, year, np.float32) / 10_000, TRANSFORM, year)
    sources = open_source(tmp_path / "t")
    assert [source.name for source in sources] == ["t 2021", "t 2022"]
    np.testing.assert_array_equal(sources[0].at(lonlat_of([4], [5]))[0], codes[4, 5] * np.float32(0.2021))


def test_broken_downloads_are_told(tmp_path):
    codes, scales = np.ones((20, 30, 8), np.int8), np.ones((20, 30), np.float32)
    folder = tree(tmp_path / "t", codes, scales[:5], TRANSFORM)
    with pytest.raises(UsageError, match="are no int8"):
        open_source(tmp_path / "t")
    (folder / "grid_4.45_50.75.npy").write_bytes(b"\x93NUMPY....")
    with pytest.raises(UsageError, match=r"grid_4\.45_50\.75\.npy cannot be read"):
        open_source(tmp_path / "t")
    (folder / "grid_4.45_50.75.npy").unlink()
    with pytest.raises(UsageError, match="holds no cell of geotessera that is whole"):
        open_source(tmp_path / "t")
