"""Programs for which `tessera export` writes: they open it, offline, and see what the tiles' files hold."""

from __future__ import annotations

import json

import numpy as np
import pytest

import tessera_cli
from tests.exports.folders import EAST, NEXT, WEST, YEAR, by_hand, lonlat, put

STRIPE = np.zeros((512, 512), bool)
STRIPE[100:140, 30:500] = True


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """128 bands; two tiles of a year, one of the next."""
    folder = tmp_path_factory.mktemp("exports") / "f"
    for seed, (tile, window) in enumerate(((WEST, YEAR), (EAST, YEAR), (WEST, NEXT))):
        put(folder, tile, window, seed, dims=128, requested=STRIPE)
    return folder


@pytest.fixture(scope="module")
def points(folder):
    """Places, the years and the vectors of pixels with and without an embedding, from the tiles' files."""
    rng, found = np.random.default_rng(0), []
    for tile, window in ((WEST, YEAR), (EAST, YEAR), (WEST, NEXT)):
        codes, scales = by_hand(folder, tile, window)
        for row, column in rng.integers((100, 30), (140, 500), (15, 2)):
            vector = codes[:, row, column].astype(np.float32) * scales[row, column]
            found.append((int(window.name), *lonlat(tile, row, column), vector))
    assert 0 < sum(np.isnan(vector[0]) for *_, vector in found) < len(found) // 2
    return found


def compare(points, got):
    """Vectors, and null where there is none."""
    assert len(points) == len(got)
    for (*_, vector), there in zip(points, got, strict=True):
        assert np.array_equal(vector, np.array([np.nan if v is None else v for v in there], np.float32), equal_nan=True)


PLAIN = "lambda vector: [None if v != v else float(v) for v in vector]"

TREE = f"""
import json, sys
import numpy as np, rasterio
from pathlib import Path
from pyproj import Transformer
import socket
def refuse(*given): raise OSError("no network")
socket.socket.connect = refuse
from geotessera import GeoTessera
from geotessera.tiles import discover_tiles
folder, points = sys.argv[1], json.loads(sys.argv[2])
about = json.loads(Path(folder, "tessera_metadata.json").read_text())
opened = GeoTessera(
    dataset_version=about["dataset_version_path"], dataset_variant=about["dataset_variant"],
    registry_dir=folder, embeddings_dir=folder, cache_dir=sys.argv[3],
)
plain = {PLAIN}
def fetched(year, lon, lat):
    values, crs, transform = opened.fetch_embedding(lon, lat, year)
    east, north = Transformer.from_crs(4326, crs, always_xy=True).transform(lon, lat)
    column, row = (int(v) for v in ~transform * (east, north))
    return values[row, column]
sampled = [
    opened.sample_embeddings_at_points([(lon, lat)], year=year, auto_download=False)[0] for year, lon, lat in points
]
print(json.dumps({{
    "fetched": [plain(fetched(*point)) for point in points],
    "sampled": [plain(vector) for vector in sampled],
    "tiles": len(discover_tiles(Path(folder))),
}}))
"""

STORE = f"""
import json, sys
import numpy as np
from geotessera.store import GeoTesseraZarr
import xarray, rioxarray
opened, points, plain = GeoTesseraZarr(sys.argv[1]), json.loads(sys.argv[2]), {PLAIN}
vectors = []
for year, lon, lat in points:
    found, status = opened.open_zone(lon=lon).tessera, None
    from pyproj import Transformer
    east, north = Transformer.from_crs(4326, found.crs, always_xy=True).transform(lon, lat)
    vector, status = found.probe(east, north, year, search_px=0)
    vectors.append(plain(np.full(128, np.nan) if vector is None else vector))
year, lon, lat = points[0]
codes, scales, transform, *_ = opened.read_region_quantized((lon, lat - 0.001, lon + 0.001, lat), year)
data = xarray.open_zarr(sys.argv[1], group="utm31")
west = opened.export_geotiffs((lon, lat - 0.001, lon + 0.001, lat), year, sys.argv[3])
print(json.dumps({{
    "vectors": vectors, "years": opened.years, "model": opened.model_version,
    "outside": opened.probe(9.0, 50.0, 2023)[1],
    "nodata": opened.probe(*json.loads(sys.argv[4]), 2023)[1],
    "codes": codes.reshape(-1).tolist(), "scales": [None if v != v else v for v in scales.reshape(-1).tolist()],
    "shape": codes.shape, "corner": [transform.c, transform.f], "crs": data["embeddings"].rio.crs.to_epsg(),
    "exported": len(west),
}}))
"""


def asked(points):
    return json.dumps([[year, lon, lat] for year, lon, lat, _ in points])


def test_geotessera_reads_the_tree(consumer, folder, points, tmp_path):
    made = tessera_cli.export(folder, to="geotessera", out=tmp_path / "tree")
    found = consumer("geotessera", TREE, made.path, asked(points), tmp_path / "cache")
    compare(points, found["fetched"])
    compare(points, found["sampled"])
    assert found["tiles"] == len(list(made.path.rglob("*_scales.npy")))


def test_geotessera_and_rioxarray_read_the_store(consumer, folder, points, tmp_path):
    made = tessera_cli.export(folder, to="zarr", out=tmp_path / "f.zarr")
    gap = json.dumps(lonlat(WEST, 400, 400))
    found = consumer("geotessera", STORE, made.path, asked(points), tmp_path / "tiffs", gap)
    compare(points, found["vectors"])
    assert (found["years"], found["model"], found["crs"]) == ([2023, 2024], "https://geotessera.org/model/2.0", 32631)
    assert (found["outside"], found["nodata"], found["exported"]) == ("outside", "nodata", 1)
    codes, scales = by_hand(folder, WEST)
    top = round((WEST.bounds[3] - found["corner"][1]) / 10)
    left = round((found["corner"][0] - WEST.bounds[0]) / 10)
    height, width, _ = found["shape"] if found["shape"][2] == 128 else np.roll(found["shape"], -1)
    there = slice(top, top + height), slice(left, left + width)
    read = np.array(found["codes"], np.int8).reshape(found["shape"])
    read = read if found["shape"][2] != 128 else np.moveaxis(read, -1, 0)
    expected = scales[there]
    assert np.array_equal(np.array(found["scales"], np.float32).reshape(expected.shape), expected, equal_nan=True)
    assert np.array_equal(read, np.where(np.isnan(expected), 0, codes[:, *there]))


TORCHGEO = """
import json, sys
import torch
from torchgeo.datasets import TesseraEmbeddings
data, places = TesseraEmbeddings(sys.argv[1]), json.loads(sys.argv[2])
vectors, years = [], []
import pandas
for year, x, y in places:
    sample = data[x - 5 : x + 5, y - 5 : y + 5, pandas.Timestamp(f"{year}-03-01") : pandas.Timestamp(f"{year}-04-01")]
    assert sample["image"].shape == (128, 1, 1) and sample["image"].dtype == torch.float32
    vectors.append([None if v != v else v for v in sample["image"][:, 0, 0].tolist()])
print(json.dumps({"vectors": vectors, "size": len(data)}))
"""


def test_torchgeo_reads_the_rasters(consumer, folder, points, tmp_path):
    made = tessera_cli.export(folder, to="torchgeo", out=tmp_path / "tiffs")
    from pyproj import Transformer

    to_utm = Transformer.from_crs(4326, 32631, always_xy=True)
    places = [(year, *map(float, np.round(to_utm.transform(lon, lat), 3))) for year, lon, lat, _ in points]
    found = consumer("torchgeo", TORCHGEO, made.path, json.dumps(places))
    compare(points, found["vectors"])
    assert found["size"] == len(made.files)


COG = """
import json, sys
import rasterio
from rasterio.windows import Window
vectors = []
for path, row, column in json.loads(sys.argv[1]):
    with rasterio.open(path) as src:
        vectors.append([None if v != v else float(v) for v in src.read(window=Window(column, row, 1, 1))[:, 0, 0]])
        names, small = src.descriptions, src.read(1, out_shape=(20, 20)).tolist()
print(json.dumps({"vectors": vectors, "names": names, "gdal": rasterio.__gdal_version__}))
"""


@pytest.mark.parametrize("name", ["rasterio-1_3_9", "rasterio-1_3_11"])
def test_older_gdal_reads_the_rasters(consumer, folder, points, tmp_path, name):
    made = tessera_cli.export(folder, to="cog", out=tmp_path / "cogs")
    rng = np.random.default_rng(1)
    codes, scales = by_hand(folder, WEST, NEXT)
    pixels = rng.integers((100, 30), (140, 500), (10, 2)).tolist()
    places = json.dumps([(str(made.files[1]), row - 100, column - 30) for row, column in pixels])
    found = consumer(name, COG, places)
    expected = [(0, 0, 0, codes[:, row, column].astype(np.float32) * scales[row, column]) for row, column in pixels]
    compare(expected, found["vectors"])
    assert found["names"] == [f"Tessera_Band_{i}" for i in range(128)]
