"""`embed --points` and `fetch --points`: a row per plot, equal to that of an area, from the blocks that it needs."""

import json
import shutil

import numpy as np
import pytest
import rasterio
import shapely
from pyproj import Transformer

from tessera_cli.dpixels import read_store
from tessera_cli.errors import UsageError
from tessera_cli.extent.grid import Tile, from_utm
from tessera_cli.outputs.item import TileRecord
from tests.conftest import box_geojson
from tests.helpers.builders import s1_item, s2_item

DATES = ("2021-02-10", "2021-05-20", "2021-09-15")


def imagery(folder, places, *, size=40, years=(2021,)):
    """A catalogue with scenes of noise over each place: {name: (EPSG code, west, north)} in metres."""
    rng, items = np.random.default_rng(1), []
    for name, (epsg, west, north) in places.items():
        where = {"size": size, "origin": (west, north), "epsg": epsg}
        for year in years:
            for day in (date.replace("2021", str(year)) for date in DATES):
                dn = {band: rng.integers(200, 4000, (size, size)) for band in ("B02", "B04", "B08")}
                scl = np.where(rng.random((size // 2, size // 2)) < 0.2, 9, 4)
                items.append(s2_item(folder / "cogs", f"S2_{name}_{day}", f"{day}T10:56:31Z", dn, scl, **where))
            power = {"vv": rng.gamma(4, 0.02, (size, size)), "vh": rng.gamma(4, 0.004, (size, size))}
            when = f"{year}-03-05T17:41:00Z"
            items.append(s1_item(folder / "cogs", f"S1_{name}_{year}", when, power, "descending", **where))
    (folder / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    return folder / "items.json"


def degrees(epsg, east, north):
    """Longitude and latitude of positions in metres: (N, 2)."""
    return np.stack(Transformer.from_crs(epsg, 4326, always_xy=True).transform(east, north), axis=-1)


def write_points(path, lonlat):
    lines = ["plot,lon,lat", *(f"p{number},{lon!r},{lat!r}" for number, (lon, lat) in enumerate(lonlat.tolist()))]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_areas(path, boxes):
    features = [{"type": "Feature", "properties": {}, "geometry": box} for box in boxes]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def area_values(out, lonlat, zones, window="2021"):
    """What rasterio reads from the tiles of an area run at each point, in the zone given for it: float32 (N, R)."""
    found = []
    for (lon, lat), epsg in zip(lonlat.tolist(), zones, strict=True):
        east, north = Transformer.from_crs(4326, epsg, always_xy=True).transform(lon, lat)
        tile = Tile(epsg, int(east // 5120), int(north // 5120))
        with rasterio.open(out / f"{tile.id}_{window}_emb.tif") as src:
            (values,) = src.sample([(east, north)])
        if values.dtype == np.int8:
            with rasterio.open(out / f"{tile.id}_{window}_scales.tif") as src:
                (scale,) = src.sample([(east, north)])
            values = values.astype(np.float32) * scale
        found.append(values)
    return np.array(found)


def table(out):
    pq = pytest.importorskip("pyarrow.parquet")
    return pq.read_table(out / "points.parquet").to_pydict()


def rows_of(found, window="2021"):
    """Plot -> vector float32 (R,) of a window."""
    bands = [name for name in found if name.startswith("Tessera_Band_")]
    values = np.array([found[name] for name in bands], np.float32).T
    return {plot: row for plot, row, of in zip(found["plot"], values, found["window"], strict=True) if of == window}


SCATTERED = {  # both sides of a zone border and of the antimeridian, and of a border between tiles
    "west_of_0": (32630, 704000.0, 5800020.0),
    "east_of_0": (32631, 296000.0, 5800020.0),
    "west_of_180": (32660, 690000.0, 1000020.0),
    "east_of_180": (32601, 310000.0, 1000020.0),
    "tiles": (32630, 117 * 5120 - 200.0, 5800020.0),
}


@pytest.fixture(scope="module")
def scattered(tmp_path_factory):
    """A catalogue, areas over all its scenes, 4 points in each, and their zones."""
    folder = tmp_path_factory.mktemp("scattered")
    items = imagery(folder, SCATTERED, years=(2021, 2022))
    rng, lonlat, zones, boxes = np.random.default_rng(2), [], [], []
    for epsg, west, north in SCATTERED.values():
        boxes.append(box_geojson(west + 5, north - 395, west + 395, north - 5, epsg))
        offsets = rng.uniform(20, 380, (2, 4))
        lonlat.append(degrees(epsg, west + offsets[0], north - offsets[1]))
        zones += [epsg] * 4
    areas = write_areas(folder / "areas.geojson", boxes)
    return items, areas, np.concatenate(lonlat), zones


@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_rows_equal_the_run_over_the_area_bit_for_bit(scattered, tessera, tmp_path, dtype):
    items, areas, lonlat, zones = scattered
    more = ["--year", "2021,2022", "--catalog", items, "--model", "demo", "--dtype", dtype, "--threads", "1"]
    code, _, stderr = tessera("embed", "--aoi", areas, *more, "--out", tmp_path / "area")
    assert code == 0, stderr
    plots = write_points(tmp_path / "plots.csv", lonlat)
    code, stdout, stderr = tessera("embed", "--points", plots, *more, "--out", tmp_path / "points")
    assert code == 0, stderr
    assert stdout == f"{tmp_path / 'points' / 'points.parquet'}\n"
    assert not [*(tmp_path / "points").glob("*.tif"), *(tmp_path / "points").glob("*.vrt")]
    found = table(tmp_path / "points")
    for window in ("2021", "2022"):
        rows = rows_of(found, window)
        due = area_values(tmp_path / "area", lonlat, zones, window)
        assert np.isfinite(due).any(axis=1).sum() > 15
        np.testing.assert_array_equal(np.array([rows[f"p{n}"] for n in range(len(lonlat))]), due)
    assert tessera("verify", tmp_path / "points")[0] == 0
    assert tessera("info", tmp_path / "points")[0] == 0
