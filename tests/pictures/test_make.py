"""Previews of folders: what lies there afterwards, judged by rasterio, rio-cogeo and the arrays that were put there."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
import sys
import zlib
from collections import namedtuple
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import rasterio
from pyproj import Transformer
from rio_cogeo.cogeo import cog_validate

import tessera_cli as tessera_api
from tessera_cli.embeddings.folder import EmbeddingFolder
from tessera_cli.errors import DiskFullError, NothingToEmbedError, UsageError
from tessera_cli.extent.grid import ForeignTile, Tile
from tessera_cli.pictures import make as module
from tests.helpers.landscapes import YEARS, put, repeat
from tests.helpers.outputs import PLACED, values

WEST, EAST = Tile(32631, 112, 1098), Tile(32631, 113, 1098)
REQUESTED = np.zeros((512, 512), bool)
REQUESTED[100:300, 30:512] = True


@pytest.fixture
def folder(tmp_path):
    """Two tiles in one window, the western alone in another."""
    out = tmp_path / "out"
    for tile, window in ((WEST, YEARS[0]), (EAST, YEARS[0]), (WEST, YEARS[1])):
        put(out, tile, window, requested=REQUESTED)
    return out


def data_of(page: Path) -> dict:
    """What the page draws."""
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.S)
    return json.loads(found)


def picture_of(window: dict) -> np.ndarray:
    png = base64.b64decode(window["picture"].removeprefix("data:image/png;base64,"))
    with rasterio.MemoryFile(png) as memory, memory.open() as opened:
        return opened.read()


def counts_of(data: dict, window: dict) -> np.ndarray:
    dtype = {1: "u1", 2: "<u2"}[window["bytes"]]
    raw = np.frombuffer(zlib.decompress(base64.b64decode(window["counts"])), dtype)
    return raw.reshape(3, data["height"], data["width"])


def test_pictures_show_the_first_three_components_in_the_same_colours_everywhere(folder):
    made = tessera_api.preview(folder)
    assert made.crs == "EPSG:32631"
    assert list(made.pictures) == ["2023", "2024"]
    every = {}
    for window in YEARS:
        with rasterio.open(made.pictures[window.name]) as src:
            assert (src.crs, src.nodatavals, src.dtypes) == ("EPSG:32631", (0, 0, 0), ("uint8",) * 3)
            assert [each.name for each in src.colorinterp] == ["red", "green", "blue"]
            assert src.transform * (0, 0) == WEST.transform * (30, 100)
            assert src.descriptions[0].startswith("Component 1, ")
            tags = src.tags()
            assert (tags["TESSERA_MODEL_NAME"], tags["TESSERA_YEAR"]) == ("v2-medium", window.name)
            assert not {"TESSERA_BANDS", "TESSERA_DATASET_VERSION"} & set(tags)  # it is no embedding
            every[window] = src.read()
    west, east = every[YEARS[0]][:, :, :482], every[YEARS[0]][:, :, 512:994]
    assert (every[YEARS[0]][:, :, 482:512] == 0).all()  # the eastern tile was asked for from its column 30 on
    assert (every[YEARS[1]][:, :, 482:] == 0).all()
    # one linear map from embeddings to colours fits all of them, where they do not reach the ends
    box = (slice(None), slice(100, 300), slice(30, 512))
    known = {}
    later = every[YEARS[1]][:, :, :482]
    for name, tile, window, colours in (
        ("west", WEST, YEARS[0], west), ("east", EAST, YEARS[0], east), ("later", WEST, YEARS[1], later)
    ):  # fmt: skip
        arrays = put(folder.with_name("again"), tile, window, requested=REQUESTED)
        known[name] = values(arrays)[box].reshape(8, -1).T, colours[:, :200].reshape(3, -1).T
    vectors = np.concatenate([vector for vector, _ in known.values()]).astype(np.float64)
    centred = vectors - vectors.mean(axis=0)
    scores = centred @ np.linalg.svd(centred, full_matrices=False)[2][:3].T
    colours = np.concatenate([colour for _, colour in known.values()]).astype(np.float64)
    assert colours.min() == 1
    for score, colour in zip(scores.T, colours.T, strict=True):
        inner = (colour > 1) & (colour < 255)
        assert 0.9 < inner.mean() < 0.99  # 2 to 98 %
        slope, offset = np.polyfit(score[inner], colour[inner], 1)
        # the sample's axes are turned a little against those of all pixels
        assert np.sqrt(np.mean((slope * score[inner] + offset - colour[inner]) ** 2)) < 4


def test_the_raster_is_a_valid_cog_with_overviews(tmp_path):
    for column in range(3):
        put(tmp_path, Tile(32631, 112 + column, 1098), dims=3)
    made = tessera_api.preview(tmp_path)
    valid, errors, warnings = cog_validate(made.pictures["2023"], strict=True)
    assert (valid, errors, warnings) == (True, [], [])
    with rasterio.open(made.pictures["2023"]) as src:
        assert src.overviews(1) == [2, 4]
        assert (src.compression.name, src.block_shapes[0]) == ("deflate", (512, 512))


def test_counts_of_the_page_are_those_of_the_files(folder):
    data = data_of(tessera_api.preview(folder).page)
    assert (data["height"], data["width"]) == (200, 994)
    for window, name in zip(data["windows"], ("2023", "2024"), strict=True):
        counts, picture = counts_of(data, window), picture_of(window)
        with rasterio.open(folder / f"{WEST.id}_{name}_counts.tif") as src:
            due = src.read(window=((100, 300), (30, 512)))
        assert np.array_equal(counts[:, :, :482], due)
        assert (counts[:, :, 482:512] == 255).all()
        with rasterio.open(folder / f"preview_{name}.tif") as src:
            assert np.array_equal(picture[:3], src.read())
        assert np.array_equal(picture[3] > 0, counts[0] != 255)
    every = np.stack([counts_of(data, window) for window in data["windows"]])
    assert data["most"] == np.where(every == 255, 0, every).max(axis=(0, 2, 3)).tolist()


def test_large_counts_take_two_bytes(tmp_path):
    arrays = put(tmp_path, PLACED, format="npy")
    name = f"{PLACED.id}_2023.json"
    (tile,) = EmbeddingFolder.open(tmp_path).tiles
    counts = tile.record.counts.copy()
    counts[0, 0, 0] = 300
    (tmp_path / name).write_text(json.dumps(replace(tile.record, counts=counts).to_item()))
    data = data_of(tessera_api.preview(tmp_path).page)
    counts = counts_of(data, data["windows"][0])
    assert data["windows"][0]["bytes"] == 2
    assert counts[0, 0, 0] == 300
    assert np.array_equal(counts[1:], arrays["counts"][1:])


def test_the_page_knows_where_it_is(folder):
    data = data_of(tessera_api.preview(folder).page)
    to_lonlat = Transformer.from_crs(32631, 4326, always_xy=True)
    side, lon, lat = (data["mesh"][key] for key in ("side", "lon", "lat"))
    x, y = WEST.transform * (30, 100)
    assert (lon[0], lat[0]) == pytest.approx(to_lonlat.transform(x, y), abs=1e-6)
    assert (lon[-1], lat[-1]) == pytest.approx(to_lonlat.transform(x + 9940, y - 2000), abs=1e-6)
    middle = side * side // 2
    assert (lon[middle], lat[middle]) == pytest.approx(to_lonlat.transform(x + 4970, y - 1000), abs=1e-6)
    assert data["metres"] == pytest.approx(10, rel=1e-3)


class Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.text = [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text.append(data)


def test_text_of_others_is_escaped_and_nothing_is_loaded(tmp_path):
    nasty = '<script>alert(1)</script>"&'
    put(tmp_path / "out", PLACED, note=nasty)
    out = (tmp_path / "out").rename(tmp_path / '<img src=x onerror="alert(2)">')
    html = tessera_api.preview(out).page.read_text(errors="surrogateescape")
    reader = Reader()
    reader.feed(html)
    assert [attributes.get("type") for tag, attributes in reader.tags if tag == "script"] == ["application/json", None]
    assert not [tag for tag, _ in reader.tags if tag in ("img", "link", "iframe", "object", "style") and tag != "style"]
    assert not [key for _, attributes in reader.tags for key in attributes if key.startswith("on")]
    assert "<script>alert(1)</script>" in "".join(reader.text)
    (policy,) = [a["content"] for _, a in reader.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    script = html.rpartition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'; " in policy
    assert "unsafe" not in policy
    assert not re.search(r"https?:", html.partition('id="data"')[0])


def test_the_same_folder_gives_the_same_bytes_and_an_earlier_preview_goes(folder):
    first = tessera_api.preview(folder)
    before = {path.name: path.read_bytes() for path in folder.glob("preview*")}
    assert sorted(before) == [
        "preview.html", "preview_2023.png", "preview_2023.tif", "preview_2024.png", "preview_2024.tif"
    ]  # fmt: skip
    (folder / "preview_2023.tif.aux.xml").write_text("<PAMDataset/>")  # QGIS's statistics of the old picture
    (folder / "preview_of_mine.png").write_bytes(b"mine")
    assert tessera_api.preview(folder) == first
    assert {path.name: path.read_bytes() for path in folder.glob("preview*")} == {
        **before,
        "preview_of_mine.png": b"mine",
    }
    tessera_api.preview(folder, year=2024)
    assert sorted(path.name for path in folder.glob("preview*")) == [
        "preview.html", "preview_2024.png", "preview_2024.tif", "preview_of_mine.png"
    ]  # fmt: skip
    assert len(data_of(folder / "preview.html")["windows"]) == 1
    assert not list(folder.glob("*.part"))


def test_a_page_that_becomes_too_large_gets_wider_pixels(tmp_path, monkeypatch):
    put(tmp_path, WEST, dims=3)
    monkeypatch.setattr("tessera_cli.pictures.canvas.PAGE_PIXELS", 512 * 512)
    tessera_api.preview(tmp_path)
    assert data_of(tmp_path / "preview.html")["width"] == 512
    monkeypatch.setattr(module, "MOST_BYTES", 10_000)
    tessera_api.preview(tmp_path)
    data = data_of(tmp_path / "preview.html")
    assert data["width"] == 256
    assert "mean of 2 x 2 pixels" in (tmp_path / "preview.html").read_text()
    with rasterio.open(tmp_path / "preview_2023.tif") as src:
        full = src.read().astype(np.float64)
    assert np.abs(picture_of(data["windows"][0])[:3] - full.reshape(3, 256, 2, 256, 2).mean(axis=(2, 4))).max() <= 1
    assert data["metres"] == pytest.approx(20, rel=1e-3)


def test_without_a_place_on_the_map_tiles_are_shown_all_the_same(tmp_path, caplog):
    out = tmp_path / "out"
    nowhere = [ForeignTile(f"t{n}", (30, 40)) for n in range(2)]
    for tile in nowhere:
        put(out, tile, format="npy")
    made = tessera_api.preview(out)
    assert (made.crs, list(made.pictures)) == (None, ["undated"])
    with rasterio.open(made.pictures["undated"]) as src:
        assert (src.crs, src.shape) == (None, (68, 40))
        assert (src.read()[:, :30] > 0).all()
        assert (src.read()[:, 30:38] == 0).all()
    assert data_of(made.page)["mesh"] is None
    put(out, PLACED, format="npy")
    assert tessera_api.preview(out).crs == PLACED.crs
    assert "left out without a place on the map: 2 tiles" in caplog.text


def test_two_zones_are_one_picture(tmp_path):
    near, count = Tile(32631, 139, 1098), 0
    x, y = Transformer.from_crs(32631, 32632, always_xy=True).transform(*near.bounds[2:])
    other = Tile(32632, int(x // 5120), int(y // 5120))
    put(tmp_path, near)
    put(tmp_path, other)
    made = tessera_api.preview(tmp_path)
    with rasterio.open(made.pictures["2023"]) as src:
        seen = (src.read() > 0).all(axis=0)
        for tile in (near, other):
            to_picture = Transformer.from_crs(tile.crs, src.crs, always_xy=True)
            west, south, _, _ = tile.bounds
            for dx, dy in ((50, 50), (2500, 2500), (5070, 5070)):
                x, y = to_picture.transform(west + dx, south + dy)
                row, column = map(int, src.index(x, y))  # rasterio 1.4.0 gives floats
                assert seen[row, column]
                count += 1
    assert count == 6
    assert "each pixel is the one" in made.page.read_text()


def test_elsewhere_for_folders_that_cannot_be_written(folder, tmp_path):
    made = tessera_api.preview(folder, out=tmp_path / "new" / "place")
    assert made.page == tmp_path / "new" / "place" / "preview.html"
    assert not list(folder.glob("preview*"))


def test_what_cannot_be_drawn(tmp_path, folder):
    with pytest.raises(UsageError, match="is no folder"):
        tessera_api.preview(tmp_path / "absent")
    with pytest.raises(UsageError, match="has no embeddings of 2019"):
        tessera_api.preview(folder, year=2019)
    (folder / f"{WEST.id}_2023_emb.tif").write_bytes(b"")
    with pytest.raises(UsageError, match=r"_emb\.tif is absent or incomplete"):
        tessera_api.preview(folder)
    assert not list(folder.glob("preview*"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "run.json").write_bytes((folder / "run.json").read_bytes())
    with pytest.raises(NothingToEmbedError):
        tessera_api.preview(tmp_path / "empty")


def test_a_preview_that_fails_leaves_no_folder(tmp_path, folder, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="file is no folder"):
        tessera_api.preview(folder, out=tmp_path / "file")
    full = namedtuple("usage", "total used free")(1 << 40, 0, 1 << 10)
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda path: full)
        with pytest.raises(DiskFullError, match="takes up to"):
            tessera_api.preview(folder, out=tmp_path / "other")
    monkeypatch.setattr(module, "page", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        tessera_api.preview(folder, out=tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_progress_is_told_in_pixels(folder):
    calls = []
    tessera_api.preview(folder, progress=lambda *told: calls.append(told))
    assert calls[0] == (0, 3 * 512 * 512)
    assert calls[-1] == (3 * 512 * 512, 3 * 512 * 512)


PEAK = """
import sys, tessera_cli
from tessera_cli.timing import peak_rss_mb
tessera_cli.preview(sys.argv[1], out=sys.argv[2])
print(int(peak_rss_mb()))
"""


def test_memory_does_not_grow_with_the_tiles(tmp_path):
    """Of sixteen tiles it is that of one, but for GDAL's cache and what the page holds."""
    put(tmp_path / "one", WEST, dims=16)
    repeat(tmp_path / "one", tmp_path / "many", 4)
    peaks = []
    for name in ("one", "many"):
        command = [sys.executable, "-c", PEAK, str(tmp_path / name), str(tmp_path / "out")]
        peaks.append(int(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    assert peaks[1] - peaks[0] < 100  # MB; as numbers the embeddings of 15 tiles are 250, and pictures 12


FULL = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
from tessera_cli.cli.app import run
sys.exit(run(["preview", sys.argv[1]]))
"""


@pytest.mark.parametrize("most", [1000, 100_000])
def test_what_the_disk_does_not_take_is_an_error_and_no_blank_picture(tmp_path, most):
    """GDAL tells nobody of blocks that it could not write when it closes a file."""
    put(tmp_path, WEST, dims=3)
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path), str(most)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 4
    assert "preview_2023.tif cannot be written" in done.stderr
    assert not list(tmp_path.glob("preview*"))
