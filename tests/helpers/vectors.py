"""Vector files for tests: layers, folders of KML, geometries that shapely cannot make."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyogrio
import shapely
from shapely.geometry.base import BaseGeometry

SQUARE = shapely.box(5.0, 51.0, 5.02, 51.01)
WEST, EAST = shapely.box(5.0, 51.0, 5.01, 51.01), shapely.box(5.01, 51.0, 5.02, 51.01)
CORNERS = [(5.0, 51.0), (5.02, 51.0), (5.02, 51.01), (5.0, 51.01)]


def write_layer(
    path: Path,
    name: str | None,
    shapes: Sequence[BaseGeometry | None],
    *,
    kind: str = "Polygon",
    crs: str = "EPSG:4326",
    **columns: Sequence[object],
) -> Path:
    """Write a layer, beside those that the file has."""
    pyogrio.raw.write(
        path,
        np.array([None if shape is None else shapely.to_wkb(shape) for shape in shapes], object),
        [np.array(values) for values in columns.values()],
        list(columns),
        layer=name,
        geometry_type=kind,
        crs=crs,
        append=path.exists(),
    )
    return path


def write_kml(path: Path, **folders: BaseGeometry) -> Path:
    """Write one folder with one polygon for each name."""
    text = ""
    for name, polygon in folders.items():
        ring = " ".join(f"{x},{y},0" for x, y in polygon.exterior.coords)
        boundary = f"<outerBoundaryIs><LinearRing><coordinates>{ring}</coordinates></LinearRing></outerBoundaryIs>"
        polygon_text = f"<Placemark><Polygon>{boundary}</Polygon></Placemark>"
        text += f"<Folder><name>{name}</name>{polygon_text}</Folder>"
    path.write_text(f'<kml xmlns="http://www.opengis.net/kml/2.2"><Document>{text}</Document></kml>')
    return path


def write_wkb(path: Path, wkb: bytes, kind: str) -> Path:
    """Write a GeoPackage whose one geometry is this WKB, whatever it is; `kind` stands in its list of layers."""
    write_layer(path, "c", [SQUARE])
    db = sqlite3.connect(path)
    for (trigger,) in db.execute("select name from sqlite_master where type = 'trigger'").fetchall():
        db.execute(f'drop trigger "{trigger}"')
    (blob,) = db.execute("select geom from c").fetchone()
    without_bounds = blob[:3] + bytes([blob[3] & ~0x0E]) + blob[4:8]
    db.execute("update c set geom = ?", (without_bounds + wkb,))
    db.execute("update gpkg_geometry_columns set geometry_type_name = ?, z = 2", (kind,))
    db.execute("delete from gpkg_extensions")
    db.execute("drop table rtree_c_geom")
    db.commit()
    db.close()
    return path


def ring_wkb(code: int, corners: Iterable[tuple[float, ...]]) -> bytes:
    """A polygon (or what else `code` says) of one ring."""
    points = list(corners)
    packed = b"".join(struct.pack(f"<{len(point)}d", *point) for point in points)
    return b"\x01" + struct.pack("<III", code, 1, len(points)) + packed


def group_wkb(code: int, *members: bytes) -> bytes:
    return b"\x01" + struct.pack("<II", code, len(members)) + b"".join(members)


_FLAT = [(*corner, 0.0) for corner in CORNERS]
TIN = group_wkb(
    1016,
    ring_wkb(1017, [_FLAT[0], _FLAT[1], _FLAT[2], _FLAT[0]]),
    ring_wkb(1017, [_FLAT[0], _FLAT[2], _FLAT[3], _FLAT[0]]),
)
FACES = group_wkb(1015, ring_wkb(1003, [*_FLAT, _FLAT[0]]))
TRIANGLE = ring_wkb(1017, [_FLAT[0], _FLAT[1], _FLAT[2], _FLAT[0]])
MEASURED = ring_wkb(2003, [(*corner, 7.0) for corner in [*CORNERS, CORNERS[0]]])
OPEN = ring_wkb(3, CORNERS)
NOT_FINITE = ring_wkb(3, [CORNERS[0], (5.02, float("nan")), *CORNERS[2:], CORNERS[0]])
CIRCLE = group_wkb(
    10,
    b"\x01"
    + struct.pack("<II", 8, 5)
    + b"".join(
        struct.pack("<dd", *p) for p in [(5.0, 51.005), (5.005, 51.0), (5.01, 51.005), (5.005, 51.01), (5.0, 51.005)]
    ),
)


def multipatch(path: Path) -> Path:
    """Write a shapefile of one MultiPatch: two triangles as a strip, as 3D city models have them."""
    corners = [CORNERS[0], CORNERS[1], CORNERS[3], CORNERS[2]]
    box = struct.pack("<4d", 5.0, 51.0, 5.02, 51.01)
    record = struct.pack("<i", 31) + box + struct.pack("<iiii", 1, 4, 0, 0)
    record += b"".join(struct.pack("<dd", *corner) for corner in corners) + struct.pack("<6d", 0, 9, 1, 2, 3, 4)
    words = len(record) // 2

    def header(length: int) -> bytes:
        return struct.pack(">7i", 9994, 0, 0, 0, 0, 0, length) + struct.pack("<ii", 1000, 31) + box + bytes(32)

    path.write_bytes(header(54 + words) + struct.pack(">ii", 1, words) + record)
    path.with_suffix(".shx").write_bytes(header(54) + struct.pack(">ii", 50, words))
    path.with_suffix(".prj").write_text(
        'GEOGCS["WGS 84",DATUM["WGS_1984",SPHEROID["WGS 84",6378137,298.257223563]],PRIMEM["Greenwich",0],'
        'UNIT["degree",0.0174532925199433]]'
    )
    return path
