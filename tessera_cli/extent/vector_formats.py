"""Which vector files GDAL is shown: those of formats that stand for themselves, by how they begin.

Left to itself GDAL goes by what a file holds, whatever its name: XML, in GeoJSON too, may name other files and servers.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BINARY = (b"SQLite format 3\0", b"\0\0\x27\x0a", b"fgb\x03")
"""How GeoPackage and SpatiaLite, Shapefile and FlatGeobuf begin."""
ZIPPED = (".kmz",)
READ = "GeoPackage, GeoJSON, Shapefile, FlatGeobuf, KML, GML, GPX and File Geodatabase"
ROOTS = ("kml", "gpx", "FeatureCollection")
"""Elements that files in XML begin with; those of GML may be others, but they name its namespace."""
GML = b"http://www.opengis.net/gml"
SETTINGS = {
    **dict.fromkeys(("GML_DOWNLOAD_SCHEMA", "GML_DOWNLOAD_WFS_SCHEMA"), "NO"),  # the latter before GDAL 3.9
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": "none",
}
"""Settings under which GDAL asks no server for what a file names."""
HEAD = 1 << 20
"""Bytes that are looked at; GDAL's drivers look for the words below in fewer."""

_ZIPPED = re.compile(r"/vsizip/{(.*)}/(.*)", re.DOTALL)
_ROOT = re.compile(rb"(?:\xef\xbb\xbf)?(?:\s|<\?.*?\?>|<!--.*?-->)*<(?:[\w.-]+:)?([\w.-]+)", re.DOTALL)
_JSON = re.compile(rb"(?:\xef\xbb\xbf)?[\s\x1e]*[\[{]")
_POINTERS = re.compile(rb"<ogr\w*datasource|<[\w:]*wfs_capabilities|<!entity|<gdal_\w+", re.IGNORECASE)
"""What begins descriptions of data elsewhere, and entities, which may be files."""


def check_format(file: str) -> None:
    """Raise ValueError, which says why, for a file that GDAL might follow elsewhere; OSError if it cannot be read.

    `file`: its path, or `/vsizip/{path}/member`.
    """
    if Path(file).suffix.lower() == ".gdb" and Path(file).is_dir():
        return
    head = _head(file)
    if _POINTERS.search(head):
        raise ValueError("it names data elsewhere, which is not followed")
    zipped = head.startswith(b"PK\x03\x04") and file.lower().endswith(ZIPPED)
    if not (head.startswith(BINARY) or zipped or _JSON.match(head) or _is_xml(head)):
        raise ValueError(f"it is none of {READ}")


@contextmanager
def offline() -> Iterator[None]:
    """Keep GDAL, as pyogrio has it, from servers."""
    import pyogrio

    before = {name: pyogrio.get_gdal_config_option(name) for name in SETTINGS}
    pyogrio.set_gdal_config_options(SETTINGS)
    try:
        yield
    finally:
        pyogrio.set_gdal_config_options(before)


def _is_xml(head: bytes) -> bool:
    root = _ROOT.match(head)
    return root is not None and (root[1].decode("ascii", "replace") in ROOTS or GML in head)


def _head(file: str) -> bytes:
    member = _ZIPPED.fullmatch(file)
    if member is None:
        with Path(file).open("rb") as opened:
            return opened.read(HEAD)
    with zipfile.ZipFile(member[1]) as archive, archive.open(member[2]) as opened:
        return opened.read(HEAD)
