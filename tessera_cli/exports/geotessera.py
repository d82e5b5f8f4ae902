"""Target `geotessera`: the tree of 0.1 degree cells that the geotessera package reads without the network."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from tessera_cli.embeddings.tile import Box
from tessera_cli.errors import UsageError
from tessera_cli.exports.cells import Cell, cells, check_years
from tessera_cli.exports.mosaic import Mosaic
from tessera_cli.exports.npy import MASK, write_codes
from tessera_cli.exports.part import Advance, Part
from tessera_cli.exports.raster import Raster, write_raster
from tessera_cli.exports.request import ExportRequest
from tessera_cli.files import json_bytes
from tessera_cli.reading import read_json

EMBEDDINGS, LANDMASKS = "global_0.1_degree_representation", "global_0.1_degree_tiff_all"
METADATA = "tessera_metadata.json"


def parts(request: ExportRequest) -> Iterator[Part]:
    """Yield the arrays of each cell and year, the cells' landmasks (which tell where they lie), and the lists."""
    check_years(request.mosaics, "geotessera")
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise UsageError("--to geotessera writes lists in Parquet: pip install 'tessera-embed[tables]'.") from error
    made = cells(request.mosaics)
    for cell in made:
        landmask = f"{LANDMASKS}/{cell.name}.tiff"
        yield Part((landmask,), functools.partial(_write_landmask, request, cell, landmask), bytes=cell.grid.pixels)
        for mosaic in cell.mosaics:
            files = _files(cell, mosaic)
            size = cell.grid.pixels * (request.dims + 4)
            yield Part(files, functools.partial(_write_cell, request, mosaic, files), cell.grid.pixels, bytes=size)
    lists = ("manifest.parquet", "landmasks.parquet", METADATA)
    yield Part(lists, functools.partial(_write_lists, request, made))


def dataset(request: ExportRequest) -> tuple[str, str]:
    """Return the version and variant by which geotessera opens the tree: those of our rasters' tags."""
    tags = request.tags(request.mosaics[0])
    return f"v{tags['TESSERA_DATASET_VERSION']}", tags["TESSERA_DATASET_VARIANT"]


def _files(cell: Cell, mosaic: Mosaic) -> tuple[str, str]:
    stem = f"{EMBEDDINGS}/{mosaic.window_name}/{cell.name}/{cell.name}"
    return f"{stem}.npy", f"{stem}_scales.npy"


def _write_cell(request: ExportRequest, mosaic: Mosaic, files: tuple[str, str], folder: Path, advance: Advance) -> None:
    codes, scales = (folder / file for file in files)
    codes.parent.mkdir(parents=True, exist_ok=True)
    write_codes(mosaic, request.dims, codes, scales, advance)


def _write_landmask(request: ExportRequest, cell: Cell, name: str, folder: Path, advance: Advance) -> None:
    """Write a raster of ones: as the published ones, it says where the arrays lie. Gaps have scales of NaN."""
    (folder / name).parent.mkdir(exist_ok=True)

    def ones(box: Box) -> np.ndarray:
        return np.ones((1, box[0].stop - box[0].start, box[1].stop - box[1].start), np.uint8)

    write_raster(folder / name, Raster(cell.grid, MASK, 1, {}, request.compress), ones, lambda pixels: None)


def _write_lists(request: ExportRequest, made: Sequence[Cell], folder: Path, advance: Advance) -> None:
    """Write which cells there are, without which geotessera asks the network, and which data set they are of."""
    from pyarrow import Table, parquet

    rows = []
    for cell in made:
        for mosaic in cell.mosaics:
            files = _files(cell, mosaic)
            sizes = [(folder / file).stat().st_size for file in files]
            assert mosaic.window is not None
            rows.append(
                {
                    "year": mosaic.window.start.year,
                    "lon": cell.lon,
                    "lat": cell.lat,
                    "grid_size": sizes[0],
                    "scales_size": sizes[1],
                    "grid_path": files[0],
                    "scales_path": files[1],
                }
            )
    parquet.write_table(Table.from_pylist(rows), folder / "manifest.parquet")
    masks = [
        {"lon": cell.lon, "lat": cell.lat, "file_size": (folder / LANDMASKS / f"{cell.name}.tiff").stat().st_size}
        for cell in made
    ]
    parquet.write_table(Table.from_pylist(masks), folder / "landmasks.parquet")
    version, variant = dataset(request)
    about = {
        "dataset_version": version.removeprefix("v"),
        "dataset_version_path": version,
        "dataset_variant": variant,
        "dataset_path": f"{version}-{variant}",
        "embeddings_subdir": EMBEDDINGS,
    }
    (folder / METADATA).write_bytes(json_bytes(about))


def opener(folder: Path) -> str:
    """Return the Python that opens a tree."""
    about = read_json(folder / METADATA)
    return (
        f'GeoTessera(dataset_version="{about["dataset_version_path"]}", dataset_variant="{about["dataset_variant"]}", '
        f'registry_dir="{folder}", embeddings_dir="{folder}")'
    )
