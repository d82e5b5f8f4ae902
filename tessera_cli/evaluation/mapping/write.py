"""Write the rasters of a map and its record: new or old, never half of them."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tessera_cli.embeddings.tile import Box
from tessera_cli.evaluation.mapping.model import MapModel
from tessera_cli.evaluation.mapping.target import check
from tessera_cli.exports.cog import WITH_OVERVIEWS
from tessera_cli.exports.mosaic import Mosaic
from tessera_cli.exports.raster import Raster, write_raster
from tessera_cli.files import check_space, explain, sync, write_json
from tessera_cli.outputs.beside import remove_beside
from tessera_cli.parts import part_of


@dataclass(frozen=True, eq=False)
class MapRaster:
    """One raster of a map."""

    path: Path
    mosaic: Mosaic
    tags: Mapping[str, str]


def write(
    rasters: Sequence[MapRaster], model: MapModel, record: Path, about: Mapping[str, Any], progress: Any = None
) -> None:
    """Write all rasters to a folder beside their place, then rename them; the record comes last.

    Names of classes lie beside each raster (`.aux.xml`), where GDAL and QGIS look for them. UsageError, DiskFullError
    or TileError where the disk does not take it: then what was there stays.
    """
    sizes = [each.mosaic.pixels * WITH_OVERVIEWS * _bytes(model) for each in rasters]
    check_space(record, round(sum(sizes) + max(sizes)))
    if progress:
        progress.start(sum(each.mosaic.grid.pixels for each in rasters))
    part = part_of(record)
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        part.mkdir()
        for each in rasters:
            _write_raster(part / each.path.name, each, model, progress)
        sync(part)
        check([each.path for each in rasters], record)  # again: maps take their time
        for each in rasters:
            remove_beside(each.path)
            (part / each.path.name).replace(each.path)
            if model.legend is not None:
                (part / _names(each.path).name).replace(_names(each.path))
        write_json(record, about)
    except OSError as error:
        raise explain(record if error.errno != errno.ENOENT else record.parent, error) from error
    finally:
        with suppress(OSError):
            shutil.rmtree(part)


def _write_raster(path: Path, each: MapRaster, model: MapModel, progress: Any) -> None:
    def read(box: Box) -> np.ndarray | None:
        values = each.mosaic.values(box)
        return None if values is None else model.bands(values)

    colours = None if model.legend is None else model.legend.colours
    raster = Raster(each.mosaic.grid, model.layer, 0, each.tags, "deflate", colours)
    write_raster(path, raster, read, progress.advance if progress else lambda pixels: None)
    if model.legend is not None:
        _names(path).write_bytes(model.legend.to_xml())


def _names(raster: Path) -> Path:
    return raster.with_name(f"{raster.name}.aux.xml")


def _bytes(model: MapModel) -> int:
    """Return the bytes of a pixel."""
    return int(np.dtype(model.layer.dtype).itemsize * len(model.layer.names))
