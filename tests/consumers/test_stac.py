"""What opens STAC finds every tile of a folder from its catalogue, and reads the stored values by the names there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tessera_cli.extent.grid import Tile
from tessera_cli.extent.window import Window
from tessera_cli.folders.folder import TileFolder
from tessera_cli.outputs import formats
from tessera_cli.runs.collection import write_collection
from tests.helpers.outputs import arrays, encoded, identity, write_record
from tests.helpers.stac import SCHEMAS

TILES = (Tile(32631, 112, 1098), Tile(32631, 113, 1098))
WINDOWS = ("2022", "2023")
BANDS = 5


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder of two tiles side by side, each for two years; (tile, window) -> what was stored."""
    folder = TileFolder(tmp_path_factory.mktemp("stac") / "out", identity(BANDS))
    folder.start_run("a", {"names": []}, None)
    stored = {}
    for seed, (tile, window) in enumerate((tile, window) for tile in TILES for window in WINDOWS):
        stored[tile.id, window] = arrays(seed, BANDS)
        ready = encoded(stored[tile.id, window], tile, identity=folder.identity)
        record = replace(ready.record, window=Window.from_name(window))
        ready = replace(ready, record=record)
        pixels = int(ready.pixels.sum())
        assets = formats.write(folder.path, ready)
        write_record(folder, replace(record, assets=assets, pixels=pixels))
    write_collection(folder)
    return folder.path, stored


VALIDATE = """
import json, sys
from pathlib import Path
import pystac
from pystac.validation.stac_validator import JsonSchemaSTACValidator
out, schemas = map(Path, sys.argv[1:])
validator = JsonSchemaSTACValidator()
for path in schemas.glob("*.json"):
    name, _, version = path.stem.rpartition("-")
    text = path.read_text().replace("schemas.stacspec.org/v1.0.0/", "schemas.stacspec.org/v1.1.0/")
    validator.schema_cache[f"https://stac-extensions.github.io/{name}/{version}/schema.json"] = json.loads(text)
pystac.validation.set_validator(validator)
catalog = pystac.Catalog.from_file(str(out / "catalog.json"))
found = [catalog, *catalog.get_children(), *catalog.get_items(recursive=True)]
print(json.dumps([len(each.validate()) for each in found]))
"""


def test_pystac_finds_and_validates_everything_without_network(made, consumer):
    """Core and extensions, each; but the projection extension's PROJJSON, which is fetched only where it is used."""
    passed = consumer("stac", VALIDATE, made[0], SCHEMAS)
    assert passed == [1, 6, *[7] * 4]


CLIENT = """
import json, sys, warnings
warnings.simplefilter("ignore")
from pystac_client import Client
from shapely.geometry import box, shape
client = Client.open(sys.argv[1] + "/catalog.json")
wanted, year = box(*json.loads(sys.argv[2])), sys.argv[3]
items = [
    item.id
    for item in client.get_items(recursive=True)
    if shape(item.geometry).intersects(wanted)
    and item.properties["start_datetime"][:10] <= f"{year}-06-30" <= item.properties["end_datetime"][:10]
]
print(json.dumps([client.id, items]))
"""


def test_pystac_client_finds_tiles_by_place_and_time(made, consumer):
    """A static catalogue has no search: the items are walked."""
    import json

    tile = TILES[1]
    lon, lat = tile.outline.centroid.coords[0]
    id, items = consumer("stac", CLIENT, made[0], json.dumps([lon - 0.001, lat - 0.001, lon, lat]), 2023)
    assert id.startswith("tessera-v2-medium-mpc-")
    assert items == [f"{tile.id}_2023"]


INDEX = """
import json, sys
import geopandas, pystac
import stac_geoparquet.arrow
from pyarrow import parquet
path, wanted = sys.argv[1] + "/items.parquet", json.loads(sys.argv[2])
frame = geopandas.read_parquet(path, bbox=wanted)
frame = frame[(frame.start_datetime <= "2023-06-30") & (frame.end_datetime >= "2023-06-30")]
items = [pystac.Item.from_dict(item) for item in stac_geoparquet.arrow.stac_table_to_items(parquet.read_table(path))]
print(json.dumps([str(frame.crs), list(frame.id), [item.id for item in items], items[0].assets["scales"].href]))
"""


def test_the_index_finds_tiles_by_place_and_time(made, consumer):
    import json

    lon, lat = TILES[1].outline.centroid.coords[0]
    crs, found, every, href = consumer("tables", INDEX, made[0], json.dumps([lon - 0.001, lat - 0.001, lon, lat]))
    assert crs == "OGC:CRS84"
    assert found == [f"{TILES[1].id}_2023"]
    assert every == [f"{tile.id}_{window}" for tile in TILES for window in WINDOWS]
    assert href == f"./{every[0]}_scales.tif"


ODC = """
import json, sys
import numpy as np, odc.stac, pystac
items = list(pystac.Catalog.from_file(sys.argv[1] + "/catalog.json").get_items(recursive=True))
data = odc.stac.load(items, bands=["Tessera_Band_0", "Tessera_Band_4", "scale", "s2"])
np.savez(sys.argv[2], **{str(name): data[name].values for name in data.data_vars})
first = data["Tessera_Band_0"]
print(json.dumps({"crs": data.odc.crs.epsg, "transform": list(data.odc.geobox.transform)[:6], "nodata": first.nodata,
                  "scale_nodata": str(data["scale"].nodata), "times": [str(t)[:4] for t in data.time.values]}))
"""


def test_odc_stac_loads_bands_by_name(made, consumer, tmp_path):
    out, stored = made
    told = consumer("xarray", ODC, out, tmp_path / "read.npz")
    west, _, _, north = TILES[0].bounds
    assert told == {
        "crs": 32631,
        "transform": [10, 0, west, 0, -10, north],
        "nodata": -128,
        "scale_nodata": "nan",
        "times": list(WINDOWS),
    }
    read = np.load(tmp_path / "read.npz")
    for (tile, window), due in stored.items():
        here = WINDOWS.index(window), slice(None), slice(512 * (tile == TILES[1].id), 512 * (1 + (tile == TILES[1].id)))
        for band in (0, 4):
            assert read[f"Tessera_Band_{band}"].dtype == np.int8
            np.testing.assert_array_equal(read[f"Tessera_Band_{band}"][here], due["codes"][band])
        np.testing.assert_array_equal(read["scale"][here], due["scales"])
        inside = due["requested"]
        np.testing.assert_array_equal(read["s2"][here][inside], due["counts"][0][inside])
        assert (read["s2"][here][~inside] == 65535).all()


STACKSTAC = """
import json, sys
import numpy as np, pystac, stackstac
items = pystac.Catalog.from_file(sys.argv[1] + "/catalog.json").get_items(recursive=True)
items = [item for item in items if item.properties["start_datetime"].startswith("2023")]
west, south, east, north = json.loads(sys.argv[3])
for item in items:
    item.make_asset_hrefs_absolute()
    href = item.assets["embeddings"].href
    for number, band in enumerate(item.assets["embeddings"].extra_fields["bands"], 1):
        item.add_asset(band["name"], pystac.Asset(f"vrt://{href}?bands={number}"))
names = ["Tessera_Band_0", "Tessera_Band_4", "scales"]
data = stackstac.stack(items, assets=names, epsg=32631, resolution=10, bounds=(west, south, east, north),
                       snap_bounds=False, rescale=False)
read = stackstac.mosaic(data, dim="time").compute()
np.save(sys.argv[2], read.values)
print(json.dumps([list(map(str, data.band.values)), int(data.epsg), list(data.attrs["transform"])[:6]]))
"""


def test_stackstac_reads_bands_as_assets_of_their_own(made, consumer, tmp_path):
    """It takes one band per file, so each is named as a file that GDAL cuts out; items of windows have no one time."""
    import json

    out, stored = made
    (west, south, _, north), (_, _, east, _) = TILES[0].bounds, TILES[1].bounds
    bands, epsg, transform = consumer(
        "stackstac", STACKSTAC, out, tmp_path / "read.npy", json.dumps([west, south, east, north])
    )
    assert bands == ["Tessera_Band_0", "Tessera_Band_4", "scales"]
    assert (epsg, transform) == (32631, [10, 0, west, 0, -10, north])
    read = np.load(tmp_path / "read.npy")
    assert read.shape == (3, 512, 1024)
    for column, tile in enumerate(TILES):
        due = stored[tile.id, "2023"]
        here = read[:, :, 512 * column : 512 * (column + 1)]
        codes = np.where(due["codes"] == -128, np.nan, due["codes"])
        np.testing.assert_array_equal(here[:2], codes[[0, 4]])
        np.testing.assert_array_equal(here[2], due["scales"])


RIO = """
import json, sys
from pathlib import Path
import numpy as np, rioxarray, xarray
from rio_cogeo import cog_validate
from rio_tiler.io import STACReader
out, name = Path(sys.argv[1]), sys.argv[3]
told = {"cog": [cog_validate(str(path), strict=True)[0] for path in sorted(out.glob("*.tif"))]}
codes = rioxarray.open_rasterio(out / f"{name}_emb.tif")
scales = rioxarray.open_rasterio(out / f"{name}_scales.tif", masked=True)
plain = xarray.open_dataset(out / f"{name}_emb.tif", engine="rasterio", mask_and_scale=False)
told |= {"crs": codes.rio.crs.to_epsg(), "nodata": int(codes.rio.nodata), "names": list(codes.attrs["long_name"]),
         "bounds": codes.rio.bounds(), "same": bool((plain["band_data"].values == codes.values).all())}
with STACReader(str(out / f"{name}.json")) as item:
    told |= {"assets": list(item.assets), "tiler_bounds": item.bounds}
    names = item.info(assets=["embeddings"])["embeddings"].band_descriptions
    told["tiler_names"] = [description for _, description in names]
    read = item.preview(assets=["embeddings"], asset_indexes={"embeddings": (1, 5)}, max_size=512)
np.savez(sys.argv[2], codes=codes.values, scales=scales.values, tiler=read.data, mask=read.mask)
print(json.dumps(told))
"""


def test_rioxarray_xarray_rio_tiler_and_rio_cogeo(made, consumer, tmp_path):
    """rio-tiler shows codes: it knows nothing of a scale per pixel."""
    out, stored = made
    name = f"{TILES[0].id}_2023"
    told = consumer("xarray", RIO, out, tmp_path / "read.npz", name)
    bands = [f"Tessera_Band_{number}" for number in range(BANDS)]
    assert told["cog"] == [True] * len(list(Path(out).glob("*.tif")))
    assert (told["crs"], told["nodata"], told["names"], told["same"]) == (32631, -128, bands, True)
    assert told["bounds"] == told["tiler_bounds"] == list(TILES[0].bounds)
    assert (told["assets"], told["tiler_names"]) == (["embeddings", "scales", "counts"], bands)
    read, due = np.load(tmp_path / "read.npz"), stored[TILES[0].id, "2023"]
    np.testing.assert_array_equal(read["codes"], due["codes"])
    np.testing.assert_array_equal(read["scales"][0], due["scales"])
    np.testing.assert_array_equal(read["tiler"], due["codes"][[0, 4]])
    np.testing.assert_array_equal(read["mask"] == 255, due["codes"][0] != -128)
