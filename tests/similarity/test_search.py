"""`tessera search`: similarity against numpy, patches against SciPy, and what cannot be searched."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from pyproj import Geod, Transformer
from rasterio.features import geometry_mask
from rio_cogeo.cogeo import cog_validate
from scipy import ndimage

import tessera_cli
from tessera_cli import NothingToEmbedError, UsageError, search
from tessera_cli.extent.grid import Tile
from tests.helpers.landscapes import YEARS, put

TILES = Tile(32631, 112, 1098), Tile(32631, 113, 1098)
DIMS = 12
HOLE = np.ones((512, 512), bool)
HOLE[30:90, 400:480] = False


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("search") / "delft"
    for tile, requested in zip(TILES, (HOLE, None), strict=True):
        put(made, tile, dims=DIMS, requested=requested)
    return made


def embeddings(folder: Path) -> np.ndarray:
    """float64 (R, H, W), on the grid of the rasters of `search`."""
    return tessera_cli.open_embeddings(folder, chunks=None)["embedding"].values[0].astype(np.float64)


def lonlat(rows: np.ndarray, columns: np.ndarray, tile: Tile = TILES[0]) -> np.ndarray:
    x, y = tile.transform * (np.asarray(columns) + 0.5, np.asarray(rows) + 0.5)
    return np.stack(Transformer.from_crs(32631, 4326, always_xy=True).transform(x, y), axis=-1)


def raster(folder: Path, name: str = "utm31n_similarity.tif") -> np.ndarray:
    with rasterio.open(folder / name) as file:
        return file.read(1)


def cosine(values: np.ndarray, query: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(values, axis=0) * np.linalg.norm(query)
    return np.tensordot(query, values, axes=(0, 0)) / lengths


def test_similarity_is_the_cosine_to_the_place(folder: Path, tmp_path: Path) -> None:
    (at,) = lonlat([200], [100])
    made = search(folder, at=at, out=tmp_path / "out", min_pixels=4)
    values, found = embeddings(folder), raster(tmp_path / "out")
    assert values[0].shape == found.shape == (512, 1024)
    np.testing.assert_allclose(found, cosine(values, values[:, 200, 100]), atol=1e-6)
    assert found[200, 100] == pytest.approx(1)
    assert (np.isnan(found[:, :512]) == ~HOLE).all()
    assert made.about["pixels"] == HOLE.sum() + 512 * 512
    assert np.nanmean(found >= made.about["similarity"]) == pytest.approx(0.01, rel=0.01)
    assert json.loads((tmp_path / "out" / "search.json").read_text()) == made.about
    assert cog_validate(tmp_path / "out" / "utm31n_similarity.tif", quiet=True)[0]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted([*made.about["files"], "search.json"])


def test_patches_are_where_it_is_most_similar(folder: Path, tmp_path: Path) -> None:
    (at,) = lonlat([200], [100])
    made = search(folder, at=at, out=tmp_path / "out", share=0.03, min_pixels=6, patches=5)
    found = raster(tmp_path / "out")
    numbers, count = ndimage.label(found >= np.float32(made.about["similarity"]))
    sizes = np.bincount(numbers.ravel())
    large = np.flatnonzero(sizes >= 6)[1:]
    assert made.about["patches_in_all"] == len(large) < count
    means = ndimage.mean(found, numbers, large)
    best = large[np.argsort(-means)][:5]
    meta, _, wkb, columns = pyogrio.raw.read(tmp_path / "out" / "utm31n_patches.gpkg")
    told = dict(zip(meta["fields"], columns, strict=True))
    assert meta["crs"] == "EPSG:32631"
    assert told["patch"].tolist() == [1, 2, 3, 4, 5]
    assert told["pixels"].tolist() == sizes[best].tolist()
    np.testing.assert_allclose(told["mean_similarity"], ndimage.mean(found, numbers, best), atol=1e-5)
    np.testing.assert_allclose(told["max_similarity"], ndimage.maximum(found, numbers, best), atol=1e-5)
    geod = Geod(ellps="WGS84")
    for number, outline, hectares, lon, lat in zip(
        best, shapely.from_wkb(wkb), told["hectares"], told["lon"], told["lat"], strict=True
    ):
        inside = ~geometry_mask([outline], found.shape, TILES[0].transform)
        assert (inside == (numbers == number)).all()
        degrees = shapely.transform(
            outline, Transformer.from_crs(32631, 4326, always_xy=True).transform, interleaved=False
        )
        assert hectares == pytest.approx(abs(geod.geometry_area_perimeter(degrees)[0]) / 1e4, abs=1e-4)
        assert degrees.contains(shapely.Point(lon, lat))


def test_examples_are_averaged_and_counterexamples_taken_away(folder: Path, tmp_path: Path) -> None:
    rows, columns = np.array([200, 210, 300]), np.array([100, 130, 400])
    places = lonlat(rows, columns)
    square = shapely.box(*lonlat([420], [40])[0], *lonlat([400], [60])[0])
    made = search(folder, at=places[0], like=places[1:], unlike=[square], out=tmp_path / "out", share=0.5)
    values = embeddings(folder)
    unit = values / np.linalg.norm(values, axis=0)
    transform = Transformer.from_crs(4326, 32631, always_xy=True).transform
    inside = ~geometry_mask(
        [shapely.transform(square, transform, interleaved=False)], values[0].shape, TILES[0].transform
    )
    assert inside.sum() > 300
    bad = values[:, inside].mean(axis=1)
    query = unit[:, rows, columns].mean(axis=1) - 0.25 * bad / np.linalg.norm(bad)
    np.testing.assert_allclose(raster(tmp_path / "out"), cosine(values, query), atol=2e-5)
    told = made.about["examples"]
    assert (told["like"], told["unlike"]) == (3, 1)
    np.testing.assert_allclose(told["like_at"], places, atol=1e-6)


def test_without_an_example_there_is_the_page(folder: Path, tmp_path: Path, tessera) -> None:
    code, out, err = tessera("search", folder, "-o", tmp_path / "out")
    assert code == 0
    assert out.splitlines() == [str(tmp_path / "out" / "search.html")]
    assert "in a browser" in err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["search.html", "search.json"]


def test_the_command_line_is_the_function(folder: Path, tmp_path: Path, tessera) -> None:
    ((lon, lat),) = lonlat([200], [100])
    search(folder, at=(lon, lat), out=tmp_path / "one")
    code, out, err = tessera("search", folder, "--at", lon, lat, "-o", tmp_path / "two", "--json")
    assert code == 0
    told = json.loads(out)
    assert told["page"] == str(tmp_path / "two" / "search.html")
    for name in ("utm31n_similarity.tif", "search.html", "search.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert "patches are kept" in err


def test_earlier_results_are_replaced_and_others_stay(folder: Path, tmp_path: Path) -> None:
    (at,) = lonlat([200], [100])
    out = tmp_path / "out"
    search(folder, at=at, out=out)
    (out / "notes.txt").write_text("mine")
    (out / "utm31n_similarity.tif.aux.xml").write_text("<PAMDataset/>")
    search(folder, out=out)
    assert sorted(path.name for path in out.iterdir()) == ["notes.txt", "search.html", "search.json"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "search.html").write_text("mine")
    with pytest.raises(UsageError, match="holds something else, which stays"):
        search(folder, out=tmp_path / "mine")
    assert not list(tmp_path.glob("*.part"))


def test_two_zones_have_files_of_their_own(tmp_path: Path) -> None:
    for tile in (TILES[0], Tile(32632, 112, 1098)):
        put(tmp_path / "two", tile, dims=DIMS)
    (at,) = lonlat([200], [100])
    made = search(tmp_path / "two", at=at, out=tmp_path / "out", share=0.02, patches=7, min_pixels=3)
    assert [file.name for file in made.files] == [
        "utm31n_patches.gpkg",
        "utm31n_similarity.tif",
        "utm32n_patches.gpkg",
        "utm32n_similarity.tif",
    ]
    counts = [pyogrio.read_info(file)["features"] for file in made.files if file.suffix == ".gpkg"]
    assert sum(counts) == made.about["patches"] == 7
    both = np.concatenate([raster(tmp_path / "out", f"utm{zone}n_similarity.tif").ravel() for zone in (31, 32)])
    assert (both >= made.about["similarity"]).mean() == pytest.approx(0.02, rel=0.01)


def test_what_cannot_be_searched_is_one_line(folder: Path, tmp_path: Path, tessera) -> None:
    def refused(*arguments: object, code: int = 2) -> str:
        found, _, err = tessera("search", *arguments, "-o", tmp_path / "new")
        assert found == code
        return err.splitlines()[-1]

    ((lon, lat),) = lonlat([50], [440])
    assert f"no embedding at {lon:.4f} E {lat:.4f} N." in refused(folder, "--at", lon, lat, code=3)
    ((lon, lat),) = lonlat([200], [100])
    assert "Are longitude and latitude swapped?" in refused(folder, "--at", lat, lon, code=3)
    (tmp_path / "p.csv").write_text(f"lon,lat\n{lon},{lat}\n")
    assert "says nothing alone. Give --at or --like" in refused(folder, "--unlike", tmp_path / "p.csv")
    assert "--layer chooses within the files" in refused(folder, "--layer", "a")
    assert "--share 0.0 is out of range" in refused(folder, "--share", 0)
    assert "no such file" in refused(folder, "--like", tmp_path / "absent.gpkg")
    both = shutil.copytree(folder, tmp_path / "both")
    put(both, TILES[0], YEARS[1], dims=DIMS)
    assert "holds 2023, 2024: say which one to search with --year" in refused(both)
    assert not (tmp_path / "new").exists()
    for wrong in ("4.3 52", (1, 2, 3)):
        with pytest.raises(UsageError, match="is no place"):
            search(folder, at=wrong, out=tmp_path / "new")
    with pytest.raises(NothingToEmbedError, match="no embedding at"):
        search(folder, at=(0, 0), out=tmp_path / "new")
