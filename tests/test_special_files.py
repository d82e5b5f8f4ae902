"""A pipe, a device or a folder in the place of any local file is refused at once, in one line."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tessera_cli import config
from tessera_cli.catalog import get_source
from tessera_cli.catalog.documents import open_document
from tessera_cli.catalog.scenes import Scenes
from tessera_cli.catalog.tables import Table
from tessera_cli.dpixels import find_stores, read_folder
from tessera_cli.errors import TesseraError
from tessera_cli.evaluation.sources.label_file import open_labels
from tessera_cli.evaluation.sources.open import open_source
from tessera_cli.evaluation.tabular.open import open_table
from tessera_cli.extent.aoi import Aoi
from tessera_cli.folders.run_record import read_or_none
from tessera_cli.imagery.byte_sources import LocalBytes
from tessera_cli.imagery.header import BrokenError
from tessera_cli.inspection.info import describe
from tessera_cli.journal import digest_of
from tessera_cli.labels.raster import RasterLabels
from tessera_cli.labels.vector import read_labels
from tessera_cli.models import ModelConfig
from tessera_cli.net import Client
from tessera_cli.net.trust import check_authorities
from tessera_cli.pretraining.config_file import load_config
from tessera_cli.pretraining.data.shards import read_header
from tessera_cli.pretraining.run_folder import RunFolder
from tessera_cli.runs.mosaic import content_of


def weights(path: Path) -> None:
    from tessera_cli.models.checkpoint import read_checkpoint

    read_checkpoint(path)


def checkpoint(path: Path) -> None:
    from tessera_cli.pretraining.checkpoint import read_state

    read_state(path)


def mask(path: Path) -> None:
    from tessera_cli.api.arguments import make_request

    box = (5.0, 51.0, 5.01, 51.01)
    make_request(None, box, 2023, None, layer=None, source=None, crs=None, mask=path)


BORDERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "AOI": ("aoi.geojson", Aoi.from_file),
    "AOI, GDAL": ("aoi.gpkg", Aoi.from_file),
    "AOI, zip": ("aoi.zip", Aoi.from_file),
    "mask": ("mask.tif", mask),
    "catalogue": ("items.json", lambda path: open_document(str(path), Client())),
    "catalogue, lines": ("items.ndjson.gz", lambda path: open_document(str(path), Client())),
    "catalogue, table": ("items.parquet", lambda path: list(Table(path.name, path))),
    "scene list": ("scenes.ndjson.gz", lambda path: Scenes.from_ndjson(path, get_source("mpc"))),
    "weights": ("weights.pt", weights),
    "weights, own": ("weights.safetensors", weights),
    "model config": ("config.json", ModelConfig.from_file),
    "TOML": ("run.toml", lambda path: load_config(path=path)),
    "labels": ("labels.gpkg", lambda path: read_labels(path)),
    "labels, raster": ("labels.tif", lambda path: RasterLabels.open(path)),
    "labels of an evaluation": ("labels.parquet", lambda path: open_labels(path, column="crop")),
    "table": ("table.parquet", open_table),
    "table, CSV": ("table.csv", open_table),
    "table, archive": ("table.npz", open_table),
    "embeddings, raster": ("embeddings.tif", open_source),
    "checkpoint": ("last.safetensors", checkpoint),
    "shards": ("header.json", lambda path: read_header(path.parent)),
    "record": ("tile.json", read_or_none),
    "array of an official folder": ("bands.npy", lambda path: read_folder(path.parent)),
    "one of found folders": ("masks.npy", lambda path: find_stores([path.parent])),
    "netrc": (".netrc", lambda path: config.earthdata({"NETRC": str(path)})),
    "certificates": ("ca.pem", lambda path: check_authorities(str(path))),
    "what info is asked of": ("thing.tif", describe),
    "figures of a training": ("metrics.jsonl", lambda path: RunFolder(path.parent).rows()),
}
FOLDERS_TOO = ("AOI", "AOI, GDAL", "certificates", "catalogue", "catalogue, lines", "what info is asked of")
"""These may be folders."""


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
@pytest.mark.parametrize("name", BORDERS)
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, name: str, kind: str) -> None:
    file, read = BORDERS[name]
    path = tmp_path / file
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif name in FOLDERS_TOO:
        pytest.skip("it may be a folder")
    else:
        path.mkdir()
    with pytest.raises(TesseraError) as caught:
        read(path)
    assert caught.value.exit_code != 1
    assert "\n" not in str(caught.value)
    assert file in str(caught.value) or "/dev/zero" in str(caught.value) or tmp_path.name in str(caught.value)


def test_a_raster_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "B04.tif")
    with pytest.raises(BrokenError, match="it is a pipe"):  # a missing scene, and so it stays
        LocalBytes(str(tmp_path / "B04.tif")).first(100)
    with pytest.raises(BrokenError, match="too long"):
        LocalBytes(str(tmp_path / ("B" * 300))).first(100)


def test_roi_that_is_a_pipe_is_not_taken_for_none(tmp_path: Path) -> None:
    from tests.dpixels.test_official_mutants import small_folder

    folder = small_folder(tmp_path)
    (folder / "roi.tiff").unlink()
    os.mkfifo(folder / "roi.tiff")
    with pytest.raises(TesseraError, match=r"roi.tiff cannot be read as a raster: it is a pipe"):
        read_folder(folder)


def test_a_pipe_beside_a_shapefile_is_seen(tmp_path: Path) -> None:
    (tmp_path / "aoi.shp").write_bytes(b"")
    os.mkfifo(tmp_path / "aoi.dbf")
    with pytest.raises(TesseraError, match=r"aoi.dbf is no file, but a pipe"):
        Aoi.from_file(tmp_path / "aoi.shp")


def test_a_pipe_as_area_is_told_the_way(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "63")
    with pytest.raises(TesseraError, match="pipe GeoJSON to --aoi -"):
        Aoi.from_file(tmp_path / "63")


def test_a_mosaic_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "utm31n_2023.vrt")
    assert content_of(tmp_path / "utm31n_2023.vrt") is None


@pytest.mark.parametrize("name", ["scenes.ndjson.gz", "config.toml"])
def test_a_marker_that_is_a_pipe_is_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(OSError, match="it is a pipe"):
        digest_of(tmp_path / name)


def test_no_netrc_may_be_asked_for() -> None:
    assert config.earthdata({"NETRC": os.devnull}) == config.earthdata({"NETRC": "/nowhere"})
