"""`tessera change`: rasters against numpy and SciPy, and what cannot be compared."""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import numpy as np
import pyogrio
import pystac
import pytest
import rasterio
import shapely
from affine import Affine
from rio_cogeo.cogeo import cog_validate
from scipy import ndimage
from scipy.stats import false_discovery_control, norm

import tessera_cli
from tessera_cli import UsageError, change
from tessera_cli.changes import make
from tessera_cli.changes.pairs import Pair
from tessera_cli.embeddings.grid import Grid
from tessera_cli.extent.grid import ForeignTile, Tile
from tessera_cli.simulate import simulate
from tests.helpers.landscapes import YEARS, put
from tests.helpers.stac import validate

boxes_of = Grid.boxes
FILES = ["utm30n_change.json", "utm30n_changed.tif", "utm30n_patches.gpkg", "utm30n_scores.tif"]


@pytest.fixture(scope="module")
def years(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of two years, `2022` and `2023`, of which a part has changed, and `both` in one."""
    root = tmp_path_factory.mktemp("years")
    for year in (2022, 2023):
        made = simulate(root / f"c{year}", place="castile", size=90, year=year, seed=5, changes=0.15 * (year - 2022))
        for name, more in ((str(year), {"uncertainty": 1}), ("both", {})):
            done = tessera_cli.embed(
                made.aoi, year=year, catalog=str(made.items), model="demo", out=root / name, threads=1, **more
            )
            assert done.error() is None
    return root


def bands(folder: Path, name: str) -> np.ndarray:
    (path,) = folder.glob(f"*_{name}.tif")
    with rasterio.open(path) as file:
        return file.read()


def by_hand(one: Path, other: Path, *windows: int) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings (N, R) of the pixels that are there twice, in float64."""
    found = [
        tessera_cli.open_embeddings(folder, windows=window, chunks=None)["embedding"].values[0]
        for folder, window in zip((one, other), windows, strict=True)
    ]
    there = ~np.isnan(found[0][0]) & ~np.isnan(found[1][0])
    a, b = (each[:, there].T.astype(np.float64) for each in found)
    return a, b


def test_scores_are_what_they_are_called(years: Path, tmp_path: Path) -> None:
    made = change(years / "2022", years / "2023", out=tmp_path / "out", rate=0.3)
    a, b = by_hand(years / "2022", years / "2023", 2022, 2023)
    scores, changed = bands(tmp_path / "out", "scores"), bands(tmp_path / "out", "changed")[0]
    there = ~np.isnan(scores[0])
    assert there.sum() == len(a) == made.about["pixels"]
    cosine = 1 - (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    np.testing.assert_allclose(scores[0][there], cosine, atol=1e-6)
    np.testing.assert_allclose(scores[1][there], np.linalg.norm(a - b, axis=1), rtol=1e-5)
    z, p = scores[4][there], scores[5][there]
    np.testing.assert_allclose(p, norm.sf(z.astype(float)), rtol=1e-4, atol=1e-30)
    due = false_discovery_control(p.astype(float)) <= 0.3
    assert not ((changed[there] == 1) & ~due).any()
    assert made.about["changed"] == (changed == 1).sum() >= 0.9 * due.sum()
    assert due.any()
    assert ((changed == 255) == ~there).all()
    assert json.loads((tmp_path / "out" / "change.json").read_text()) == made.about
    for file in (each for each in made.files if each.suffix == ".tif"):
        assert cog_validate(file, quiet=True)[0]
        with rasterio.open(file) as dataset:
            assert dataset.crs.to_epsg() == 32630


def test_noise_is_the_sum_of_uncertainties(years: Path, tmp_path: Path) -> None:
    told = change(years / "2022", years / "2023", out=tmp_path / "told")
    found = [
        tessera_cli.open_embeddings(years / year, chunks=None)["uncertainty"].values[0] for year in ("2022", "2023")
    ]
    noise = bands(tmp_path / "told", "scores")[2]
    there = ~np.isnan(noise)
    due = (found[0] + found[1])[~np.isnan(by_place(years))]
    np.testing.assert_allclose(noise[there], due[~np.isnan(due)], rtol=1e-5)
    plain = change(years / "both", out=tmp_path / "plain")
    assert told.about["noise"] == "uncertainty"
    assert plain.about["noise"] is None
    assert np.isnan(bands(tmp_path / "plain", "scores")[2]).all()


def by_place(years: Path) -> np.ndarray:
    """NaN where a pixel is not there twice, on the grid of `open_embeddings`."""
    one, other = (
        tessera_cli.open_embeddings(years / year, chunks=None)["embedding"].values[0, 0] for year in ("2022", "2023")
    )
    return np.asarray(one + other)


def test_two_windows_of_one_folder_are_two_folders(years: Path, tmp_path: Path, tessera) -> None:
    change(years / "both", out=tmp_path / "one")
    code, out, err = tessera("change", years / "both", "--before", "2022", "--after", 2023, "-o", tmp_path / "two")
    assert code == 0
    assert [Path(line).name for line in out.splitlines()] == ["change.html", *FILES]
    assert "pixels have changed from 2022 to 2023 (false-discovery rate 0.05" in err
    for name in ("scores", "changed"):
        np.testing.assert_array_equal(bands(tmp_path / "one", name), bands(tmp_path / "two", name))
    a, b = by_hand(years / "both", years / "both", 2022, 2023)
    first, second = by_hand(years / "2022", years / "2023", 2022, 2023)
    assert (a == first).all()
    assert (b == second).all()


def test_patches_are_what_has_changed(years: Path, tmp_path: Path) -> None:
    made = change(years / "both", out=tmp_path / "out", rate=0.3, min_pixels=4)
    changed, scores = bands(tmp_path / "out", "changed")[0], bands(tmp_path / "out", "scores")
    numbers, _ = ndimage.label(changed == 1)
    sizes = np.bincount(numbers.ravel())
    large = np.flatnonzero(sizes >= 4)[1:]
    due = large[np.argsort(-ndimage.mean(scores[4], numbers, large))]
    meta, _, wkb, columns = pyogrio.raw.read(tmp_path / "out" / "utm30n_patches.gpkg")
    told = dict(zip(meta["fields"], columns, strict=True))
    assert made.about["patches"] == len(due) > 3
    assert told["pixels"].tolist() == sizes[due].tolist()
    assert told["pixels"].sum() == round(shapely.area(shapely.from_wkb(wkb)).sum() / 100)
    np.testing.assert_allclose(told["mean_z_score"], ndimage.mean(scores[4], numbers, due), atol=1e-3)
    np.testing.assert_allclose(told["max_z_score"], ndimage.maximum(scores[4], numbers, due), atol=1e-3)
    np.testing.assert_allclose(told["mean_cosine_distance"], ndimage.mean(scores[0], numbers, due), atol=1e-5)
    for name, window in (("dates_before", "2022"), ("dates_after", "2023")):
        opened = tessera_cli.open_embeddings(years / "both", windows=window, chunks=None)["counts"][0, 0]
        with rasterio.open(tmp_path / "out" / "utm30n_scores.tif") as file:
            (x, _), (_, y) = (file.xy(0, range(file.width)), file.xy(range(file.height), 0))
        counts = opened.sel(x=x, y=y).values
        np.testing.assert_allclose(told[name], ndimage.mean(counts, numbers, due), atol=0.05)


def test_the_item_says_where_and_when(years: Path, tmp_path: Path) -> None:
    made = change(years / "both", out=tmp_path / "out")
    (path,) = (file for file in made.files if file.name.endswith("_change.json"))
    item = pystac.Item.from_file(path)
    validate(item.to_dict(include_self_link=False, transform_hrefs=False))
    assert (item.common_metadata.start_datetime.year, item.common_metadata.end_datetime.year) == (2022, 2023)
    with rasterio.open(tmp_path / "out" / "utm30n_scores.tif") as file:
        assert item.properties["proj:shape"] == list(file.shape)
        assert item.properties["proj:transform"] == list(file.transform[:6])
        assert [band["name"] for band in item.assets["scores"].to_dict()["bands"]] == list(file.descriptions)
    for asset in item.get_assets().values():
        assert Path(asset.get_absolute_href()).exists()


def test_back_in_time_is_as_far(years: Path, tmp_path: Path) -> None:
    change(years / "both", out=tmp_path / "there", before=2022, after=2023)
    change(years / "both", out=tmp_path / "back", before=2023, after=2022)
    np.testing.assert_array_equal(bands(tmp_path / "there", "scores")[:2], bands(tmp_path / "back", "scores")[:2])


def test_what_is_the_same_has_not_changed(years: Path, tmp_path: Path) -> None:
    made = change(years / "2022", years / "2022", out=tmp_path / "out")
    assert made.about["changed"] == 0
    assert np.nanmax(bands(tmp_path / "out", "scores")[0]) < 1e-6


def test_what_cannot_be_compared_is_one_line(years: Path, tmp_path: Path, tessera) -> None:
    def refused(*arguments: object) -> str:
        code, _, err = tessera("change", *arguments)
        assert code == 2
        return err.splitlines()[-1]

    new = ["-o", tmp_path / "new"]
    assert "say which two to compare, as --before 2022 --after 2023" in refused(years / "2022", *new)
    assert "say which two" in refused(years / "both", "--before", 2022, *new)
    assert "are both 2022" in refused(years / "both", "--before", 2022, "--after", 2022, *new)
    assert "say which one with --after" in refused(years / "2022", years / "both", *new)
    assert "no embeddings of 2021" in refused(years / "both", "--before", 2021, "--after", 2022, *new)
    assert "--rate 0.0 is out of range" in refused(years / "both", "--rate", 0, *new)
    other = shutil.copytree(years / "2023", tmp_path / "other")
    for path in [*other.glob("*_2023.json"), other / "run.json"]:
        path.write_text(path.read_text().replace('"precision": "fp32"', '"precision": "bf16"'))
    assert "precision is" in refused(years / "2022", other, *new)
    assert not (tmp_path / "new").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    assert "holds something else, which stays" in refused(years / "both", "-o", tmp_path / "mine")
    assert (tmp_path / "mine" / "notes.txt").read_text() == "mine"


def test_an_earlier_comparison_is_replaced_and_a_failed_one_leaves_it(
    years: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(years / "both", out=tmp_path / "out", rate=0.01)
    (tmp_path / "out" / "notes.txt").write_text("mine")
    (tmp_path / "out" / "utm30n_scores.tif.aux.xml").write_text("<PAMDataset/>")
    made = change(years / "both", out=tmp_path / "out", rate=0.2)
    kept = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert json.loads(kept["change.json"]) == made.about
    assert sorted(kept) == sorted(["change.html", "change.json", "notes.txt", *FILES])

    def broken(*_: object) -> int:
        raise UsageError("as if it failed")

    monkeypatch.setattr("tessera_cli.changes.make._write_changed", broken)
    with pytest.raises(UsageError, match="as if"):
        change(years / "both", out=tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == kept
    (kept_there,) = tmp_path.glob("out.*.kept")  # to go on from
    assert sorted(tmp_path.iterdir()) == [tmp_path / "out", kept_there]
    monkeypatch.undo()
    change(years / "both", out=tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_interrupted_one_goes_on(years: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it ends, no box is read more often than is needed, and the bytes are those of one that was not ended."""
    monkeypatch.setattr("tessera_cli.changes.sample.BOXES", 2)
    monkeypatch.setattr("tessera_cli.embeddings.grid.Grid.boxes", small_boxes)
    whole = change(years / "both", out=tmp_path / "whole", rate=0.3)
    real, reads, left = Pair.pixels, [], [4]

    def read(pair: Pair, box: tuple[slice, slice]) -> object:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        reads.append(box)
        return real(pair, box)

    monkeypatch.setattr(Pair, "pixels", read)
    for _ in range(20):
        left[0] = 4
        try:
            made = change(years / "both", out=tmp_path / "out", rate=0.3)
            break
        except KeyboardInterrupt:
            assert not (tmp_path / "out").exists()
    boxes = len(list(small_boxes(whole_grid(whole))))
    assert 2 * boxes <= len(reads) <= 2 * boxes + boxes // 2 + 4  # each twice, and at most one again per interruption
    for file in (whole.page, *(each for each in whole.files if each.suffix != ".gpkg")):
        assert file.read_bytes() == (made.folder / file.name).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]


def test_what_is_kept_of_another_comparison_is_not_used(
    years: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = change(years / "both", out=tmp_path / "plain")
    for windows in ({"before": 2023, "after": 2022}, {}):  # back in time, and the same that is interrupted
        with monkeypatch.context() as patch:
            patch.setattr("tessera_cli.changes.make.page", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                change(years / "both", out=tmp_path / "out", **windows)
    kept = sorted(tmp_path.glob("out.*.kept"))
    assert len(kept) == 2
    for path in (file for folder in kept for file in folder.glob("*.npz")):
        path.write_bytes(path.read_bytes()[:100])  # as if the disk had been full
    change(years / "both", out=tmp_path / "out")
    np.testing.assert_array_equal(bands(tmp_path / "out", "scores"), bands(plain.folder, "scores"))
    assert len(list(tmp_path.glob("out.*.kept"))) == 1  # of the other one, which may go on


def test_two_at_once_do_not_mix(years: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that goes the other way, to the same place, while the first has yet to publish."""
    plain = change(years / "both", out=tmp_path / "plain", before=2023, after=2022)
    real, meanwhile = make._write_changed, []

    def write(*arguments: object) -> int:
        if not meanwhile:
            meanwhile.append(True)
            change(years / "both", out=tmp_path / "out", before=2022, after=2023)
        return real(*arguments)

    monkeypatch.setattr(make, "_write_changed", write)
    made = change(years / "both", out=tmp_path / "out", before=2023, after=2022)
    assert made.about == json.loads((tmp_path / "out" / "change.json").read_text()) == plain.about
    np.testing.assert_array_equal(bands(tmp_path / "out", "scores"), bands(plain.folder, "scores"))


def test_a_link_to_another_disk(years: Path, tmp_path: Path) -> None:
    if not Path("/dev/shm").is_dir() or Path("/dev/shm").stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no other disk")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere:
        (tmp_path / "link").symlink_to(elsewhere)
        made = change(years / "both", out=tmp_path / "link")
        assert sorted(path.name for path in Path(elsewhere).iterdir()) == sorted([*made.about["files"], "change.json"])


def test_a_geopackage_is_replaced_with_what_programs_left_beside_it(years: Path, tmp_path: Path) -> None:
    change(years / "both", out=tmp_path / "out", rate=0.3, min_pixels=2)
    path = tmp_path / "out" / "utm30n_patches.gpkg"
    before = pyogrio.read_info(path)["features"]
    with closing(sqlite3.connect(path)) as opened:  # as QGIS does, which was killed then
        opened.execute("PRAGMA journal_mode=WAL")
        opened.execute("CREATE TABLE notes (text TEXT)")
        opened.commit()
        wal = {ending: path.with_name(path.name + ending).read_bytes() for ending in ("-wal", "-shm")}
    for ending, content in wal.items():
        path.with_name(path.name + ending).write_bytes(content)
    change(years / "both", out=tmp_path / "out", rate=0.05, min_pixels=2)
    with closing(sqlite3.connect(path)) as opened:
        assert opened.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert not opened.execute("SELECT name FROM sqlite_master WHERE name = 'notes'").fetchall()
    assert pyogrio.read_info(path)["features"] < before


def test_tiles_in_degrees_are_one_lattice(tmp_path: Path) -> None:
    """Corners of tiles of a grid in degrees are no multiples of its step in floats."""
    step = 1e-4
    for column in range(3):
        tile = ForeignTile(
            f"t{column}", (60, 60), "EPSG:4326", Affine(step, 0, 5 + column * 60 * step, 0, -step, 51.003)
        )
        for window in YEARS:
            put(tmp_path / "degrees", tile, window, dims=6)
    made = change(tmp_path / "degrees", out=tmp_path / "out")
    assert made.about["pixels"] == 3 * 60 * 60
    assert len(list((tmp_path / "out").glob("*_scores.tif"))) == 1


def test_ground_in_common_alone_is_shown(tmp_path: Path) -> None:
    one, other = Tile(32631, 112, 1098), Tile(32631, 113, 1098)
    for tile in (one, other):
        put(tmp_path / "two", tile, YEARS[0], dims=6)
    put(tmp_path / "one", one, YEARS[1], dims=6)
    made = change(tmp_path / "two", tmp_path / "one", out=tmp_path / "out")
    assert made.about["pixels"] == 512 * 512
    assert '"width":512' in made.page.read_text()


def small_boxes(grid: Grid, side: int = 32):
    return boxes_of(grid, 32)


def whole_grid(made) -> Grid:
    with rasterio.open(next(file for file in made.files if file.name.endswith("_scores.tif"))) as file:
        return Grid(str(file.crs), file.transform, file.shape)
