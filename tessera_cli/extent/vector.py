"""Read vector files: GeoJSON, GeoPackage, Shapefile, KML and a few more formats, and folders of them."""

from __future__ import annotations

import logging
import re
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import shapely
from pyproj import CRS
from pyproj.exceptions import CRSError

from tessera_cli.errors import UsageError, counted, listed, plainly
from tessera_cli.extent.features import Features, kinds, polygons
from tessera_cli.extent.geojson import read_geojson
from tessera_cli.extent.vector_formats import check_format, offline
from tessera_cli.reading import MB, is_special, read_file

logger = logging.getLogger(__name__)

GEOJSON = (".geojson", ".geojsonl", ".geojsons", ".ndjson", ".json")
IN_FOLDERS = (*GEOJSON[:-1], ".gpkg", ".shp", ".kml", ".kmz", ".fgb", ".gml", ".gdb")
"""What is taken of a folder or a zip; .json may be anything."""
MAX_GEOJSON = 100 * MB
"""Bytes of GeoJSON, which is read whole and takes ten times as much memory then; a GeoPackage may be larger."""
MAX_MEMBER = 500 * MB
"""Bytes of a file in a zip when it is unpacked."""
HARMLESS = re.compile(r"Measured \(M\)|Non closed ring|not consistent with type in gpkg|invalid value encountered")
"""Warnings of libraries about what plays no part in an area, is mended without loss, or is refused by name."""
SURFACES = {15: "PolyhedralSurface", 16: "TIN", 17: "Triangle"}
"""Surfaces in space, by their code in WKB: they are not read."""


class Layer(NamedTuple):
    """A layer that is there to be read."""

    file: str
    name: str
    origin: str
    """What messages call it."""


def read_vector(path: Path, layer: str | None = None, *, columns: bool = True, areas: bool = True) -> list[Features]:
    """Return the layers with areas of a file, or of all files of a folder or zip; with `layer` that one alone.

    Layers without any area are left out with a warning; without `areas`, those without any geometry silently. Without
    `columns`, only geometries are read. Raises UsageError for what is no vector data, holds no area or declares no CRS,
    and for a layer that is not there.
    """
    files = _files(path)
    if layer is not None and len(files) > 1:
        raise UsageError(f"{path} holds {len(files)} files; --layer chooses within one. Give that file.")
    if len(files) > 1:
        logger.info("%s: %d files are used: %s", path, len(files), listed(Path(file).name for file in files))
    with _quoting(path):
        layers = {each: _read(each, columns) for file in files for each in _layers(file, layer)}
    found: dict[Layer, Features] = {}
    without: list[str] = []
    for each, (declared, geometries, values) in layers.items():
        if not areas and len(layers) > 1 and shapely.is_missing(geometries).all():
            continue
        if areas and len(layers) > 1 and not any(next(polygons(g), None) for g in geometries if g is not None):
            without += [f"{each.origin} holds {held}" for held in [kinds(geometries)] if held]
        else:
            found[each] = Features(each.origin, _crs(each.origin, declared), geometries, values)
    if without and not found:
        raise UsageError(f"{listed(without)}; an area is needed. Give polygons, or buffer what is there.")
    for text in without:
        logger.warning("%s, no area, and is left out", text)
    if areas and len(found) > 1 and len(files) == 1:
        logger.info("%s: all layers with areas are used: %s", path, listed(each.name for each in found))
    return list(found.values())


def _files(path: Path) -> list[str]:
    """Return the vector files of a folder or zip, sorted, as GDAL opens them; else the path itself."""
    _check_kind(path)
    names: list[str] = []
    if path.is_dir() and path.suffix.lower() != ".gdb":
        with _reading(str(path)):
            names = [str(each) for each in path.iterdir()]
    elif path.suffix.lower() == ".zip":
        members = [name for name in _members(path) if not name.startswith("__MACOSX/")]
        names = [f"/vsizip/{{{path.resolve()}}}/{name}" for name in members]
    elif path.suffix.lower() == ".kmz":
        _members(path)
    names = [name for name in names if not name.endswith("/") and not Path(name).name.startswith(".")]
    found = sorted(name for name in names if Path(name).suffix.lower() in IN_FOLDERS)
    own = tuple(f"{Path(name).with_suffix('')}." for name in found)  # a Shapefile is several files
    rest = [Path(name).name for name in sorted(names) if not name.startswith(own)] if found else []
    if rest:
        text = "%s: left out: %s (%s). Give .json files and folders in it by themselves"
        logger.warning(text, path, counted(len(rest), "other name"), listed(rest))
    return found or [str(path)]


def _members(path: Path) -> list[str]:
    """Return the names of the files in a zip; UsageError for one that would become too large."""
    with _reading(str(path)), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    for member in members:
        if member.file_size > MAX_MEMBER:
            size = member.file_size / MB
            raise UsageError(
                f"{path}: {member.filename} has {size:,.0f} MB unpacked, and at most {MAX_MEMBER / MB:,.0f} MB are "
                "read from a zip. Unpack it."
            )
    return [member.filename for member in members]


def _check_kind(path: Path) -> None:
    """Raise UsageError where the path, or a file that GDAL opens along with it, would be waited for."""
    if is_special(path):
        raise UsageError(
            f"{path} is no file, but a pipe, a socket or a device. Give a file, or pipe GeoJSON to --aoi -."
        )
    with _reading(str(path)):
        if path.is_dir():
            along = list(path.iterdir())
        else:
            along = [each for each in path.parent.iterdir() if each.name.startswith((f"{path.stem}.", path.name))]
    for each in along:
        if is_special(each):
            raise UsageError(f"{each} is no file, but a pipe, a socket or a device. Remove it.")


def _layers(file: str, wanted: str | None) -> list[Layer]:
    """Return the layers of a file that have geometries; with `wanted` that one alone."""
    import pyogrio

    if _is_geojson(file):
        if wanted is not None:
            raise UsageError(f"{file} is GeoJSON, which has no layers. Leave out --layer.")
        return [Layer(file, "", file)]
    origin = re.sub(r"^/vsizip/{(.*)}/", r"\1/", file)
    try:
        with _reading(origin), offline():
            check_format(file)
            names = [str(name) for name, kind in pyogrio.list_layers(_by_path(file)) if kind is not None]
    except UsageError:  # of a layer of surfaces, even if it is another one
        if wanted is None:
            raise
        names = [wanted]
    if wanted is not None and wanted not in names:
        raise UsageError(f"{origin} has no layer {wanted} with geometries. There are: {listed(names) or 'none'}.")
    chosen = names if wanted is None else [wanted]
    return [Layer(file, name, f"{origin}, layer {name}" if len(names) > 1 else origin) for name in chosen]


def _read(layer: Layer, columns: bool) -> tuple[CRS | str | None, np.ndarray, dict[str, np.ndarray]]:
    """Return the declared CRS, geometries object (N,) and columns by name, (N,) each."""
    import pyogrio

    if not columns and _is_geojson(layer.file):  # GDAL takes less: no UTF-16, no positions of mixed length
        with _reading(layer.origin):
            text = read_file(Path(layer.file), MAX_GEOJSON)
        features = read_geojson(text, layer.origin)
        return features.crs, features.geometries, {}
    with _reading(layer.origin), offline():
        check_format(layer.file)
        wanted: list[str] | None = None if columns else []
        meta, _, wkb, values = pyogrio.raw.read(_by_path(layer.file), layer=layer.name or None, columns=wanted)
        if wkb is None:
            wkb = np.empty(0, object)
        geometries = shapely.from_wkb(wkb, on_invalid="fix")
    unread = shapely.is_missing(geometries) & np.array([text is not None for text in wkb], bool)
    for position in np.flatnonzero(unread):
        with _reading(f"{layer.origin}, feature {position + 1},"):
            shapely.from_wkb(wkb[position])
    return meta["crs"], geometries, dict(zip(meta["fields"].tolist(), values, strict=True))


def _by_path(file: str) -> str:
    """Return the absolute path: a name such as `EEDA:x.gpkg` means a service to GDAL."""
    return str(Path(file).absolute())


@contextmanager
def _reading(origin: str) -> Iterator[None]:
    """Raise UsageError for what another library complains of."""
    try:
        yield
    except (RuntimeError, ValueError, OSError, zipfile.BadZipFile, shapely.errors.ShapelyError) as error:
        why = plainly(error)
        why = why.partition("; It might")[0].rstrip(".")  # what follows is about drivers
        code = re.search(r"type\D*(\d+)$", why)
        kind = SURFACES.get(int(code[1]) % 1000) if code else None
        if kind is not None:
            raise UsageError(f"{origin} holds a {kind}; an area is needed. Convert it to polygons.") from error
        raise UsageError(f"{origin} cannot be read as vector data: {why}. Give GeoJSON or GeoPackage.") from error


@contextmanager
def _quoting(path: Path) -> Iterator[None]:
    """Log the warnings of other libraries as ours, each once."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        yield
    for text in dict.fromkeys(str(warning.message) for warning in told):
        if not HARMLESS.search(text):
            logger.warning("%s: %s", path, text)


def _is_geojson(file: str) -> bool:
    return Path(file).suffix.lower() in GEOJSON and not file.startswith("/vsizip/")


def _crs(origin: str, declared: CRS | str | None) -> CRS:
    try:
        crs = CRS.from_user_input(declared) if declared else None
    except CRSError:
        crs = None
    if crs is None or crs.is_engineering or "undefined" in crs.name.lower():
        raise UsageError(f"{origin} declares no CRS, so its place on Earth is unknown. Assign one (.prj or layer CRS).")
    return crs
