"""The record of one tile and window: a STAC item that is at once provenance, manifest and done-marker."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import itertools
import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import shapely

from tessera_cli.errors import UsageError
from tessera_cli.grid import RESOLUTION, Tile, pack_mask, unpack_mask
from tessera_cli.window import Window

EXTENSIONS = (
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/raster/v2.0.0/schema.json",
    "https://stac-extensions.github.io/file/v2.1.0/schema.json",
    "https://stac-extensions.github.io/processing/v1.2.0/schema.json",
)
FORMULA = "value = code * scale"
SOFTWARE = "tessera-embed"
PUBLISHED: Mapping[str, str] = {"v1.0": "1.0", "v1.1": "1.1", "v2": "2.0"}
"""Model family -> the version that geotessera's tags and pages use."""

Role = Literal["emb", "scales", "counts"]
ROLES: tuple[Role, ...] = ("emb", "scales", "counts")
COUNT_BANDS = ("s2", "s1_ascending", "s1_descending")
CODE_NODATA, COUNT_NODATA = -128, 65535

_DESCRIBED: Mapping[Role, tuple[str, str, str, int | str, tuple[str, ...]]] = {
    "emb": ("embedding", "Embedding codes", "int8", CODE_NODATA, ("data",)),
    "scales": ("scales", "Scale of the codes, per pixel", "float32", "nan", ("data", "scale")),
    "counts": ("counts", "Observations used, per sensor", "uint16", COUNT_NODATA, ("metadata", "observation-count")),
}
"""Role -> asset key, title, data type, nodata, STAC roles."""


def raster_name(tile: Tile, window: Window, role: Role) -> str:
    return f"{tile.id}_{window.name}_{role}.tif"


def item_name(tile: Tile, window: Window) -> str:
    return f"{tile.id}_{window.name}.json"


def model_url(model: str) -> str:
    """Where a published model is described; a name of our own for any other."""
    version = PUBLISHED.get(model.partition("-")[0])
    return f"https://geotessera.org/model/{version}" if version else f"urn:{SOFTWARE}:model:{model}"


def band_names(role: Role, dims: int) -> tuple[str, ...]:
    """Band descriptions: Tessera_Band_0.. of the codes, the scale, the sensors counted."""
    if role == "emb":
        return tuple(f"Tessera_Band_{i}" for i in range(dims))
    return ("scale",) if role == "scales" else COUNT_BANDS


@dataclass(frozen=True)
class Asset:
    """One written raster."""

    role: Role
    name: str
    size: int
    sha256: str

    @classmethod
    def of(cls, role: Role, name: str, data: bytes) -> Asset:
        return cls(role, name, len(data), hashlib.sha256(data).hexdigest())


@dataclass(frozen=True)
class Observations:
    """What one sensor (`s2`, `s1_ascending`, `s1_descending`) saw of a tile within the window."""

    frames: int
    first: dt.date | None
    last: dt.date | None
    longest_gap: int
    """Days: between neighbouring frames, or from a frame to the window's first or last day; the window if no frame."""

    @classmethod
    def of(cls, dates: np.ndarray, window: Window) -> Observations:
        """Of the frames' dates, datetime64[D] (T,)."""
        days: list[dt.date] = np.sort(np.asarray(dates).astype("datetime64[D]")).tolist()
        if not days:
            return cls(0, None, None, window.days)
        ends = [window.start, *days, window.end]
        gap = max((b - a).days for a, b in itertools.pairwise(ends))
        return cls(len(days), days[0], days[-1], gap)

    def to_dict(self) -> dict[str, Any]:
        first, last = (day.isoformat() if day else None for day in (self.first, self.last))
        return {"frames": self.frames, "first": first, "last": last, "longest_gap_days": self.longest_gap}

    @classmethod
    def from_dict(cls, obj: Mapping[str, Any]) -> Observations:
        first, last = (dt.date.fromisoformat(obj[key]) if obj[key] else None for key in ("first", "last"))
        return cls(obj["frames"], first, last, obj["longest_gap_days"])


def input_digest(scenes: Iterable[tuple[str, Iterable[str]]]) -> str:
    """SHA-256 of the scenes' ids and unsigned hrefs, in the order that decides overlaps."""
    digest = hashlib.sha256()
    for scene_id, hrefs in scenes:
        digest.update(json.dumps([scene_id, *hrefs]).encode() + b"\n")
    return digest.hexdigest()


@dataclass(frozen=True, eq=False)
class TileRecord:
    """Everything that is known about one finished tile."""

    tile: Tile
    window: Window
    status: Literal["done", "empty"]
    """`empty`: no pixel could be embedded, so there are no rasters."""
    model: str
    model_sha256: str
    source: str
    preprocessing: str
    precision: str
    device: str
    """`cpu`, `cuda`: bytes are equal within one class."""
    dims: int
    dtype: str
    min_s2: int
    min_s1: int
    seed: int
    software: str
    """Version of this package."""
    pixels: int
    """Pixels with an embedding."""
    requested: np.ndarray
    """bool (H, W): the pixels asked for."""
    observations: Mapping[str, Observations]
    scenes: tuple[str, ...]
    """Ids of the scenes used, in the order that decides overlaps."""
    input_digest: str
    holes: Mapping[str, str]
    """Scene id -> why it could not be read."""
    warnings: tuple[str, ...] = ()
    assets: tuple[Asset, ...] = ()
    created: str | None = None
    """RFC 3339 time, only where the caller wants one: without it, equal inputs give equal bytes."""

    @property
    def id(self) -> str:
        return f"{self.tile.id}_{self.window.name}"

    def to_item(self) -> dict[str, Any]:
        """The record as a STAC 1.1.0 item."""
        geometry, bbox = _footprint(self.tile)
        properties: dict[str, Any] = {
            "datetime": None,
            "start_datetime": f"{self.window.start}T00:00:00Z",
            "end_datetime": f"{self.window.end}T23:59:59Z",
            **({"created": self.created} if self.created else {}),
            "gsd": RESOLUTION,
            **_projection(self.tile),
            "processing:software": {SOFTWARE: self.software},
            "emb:type": "pixel",
            "emb:dimensions": self.dims,
            "emb:model": {"name": self.model, "url": model_url(self.model), "sha256": self.model_sha256},
            "emb:quantization": {
                "method": "per_pixel_scale",
                "original_dtype": "float32",
                "quantized_dtype": self.dtype,
                "formula": FORMULA,
            },
            "emb:source_data": self.source,
            "emb:preprocessing": self.preprocessing,
            "emb:runtime_parameters": {
                "precision": self.precision,
                "device": self.device,
                "min_s2": self.min_s2,
                "min_s1": self.min_s1,
                "seed": self.seed,
            },
            "emb:status": self.status,
            "emb:pixels": int(self.pixels),
            "emb:requested": base64.b64encode(pack_mask(self.requested)).decode(),
            "emb:observations": {sensor: seen.to_dict() for sensor, seen in self.observations.items()},
            "emb:warnings": list(self.warnings),
            "emb:scenes": list(self.scenes),
            "emb:holes": dict(self.holes),
            "emb:input_digest": self.input_digest,
        }
        return {
            "type": "Feature",
            "stac_version": "1.1.0",
            "stac_extensions": list(EXTENSIONS),
            "id": self.id,
            "geometry": geometry,
            "bbox": bbox,
            "properties": properties,
            "links": [],
            "assets": {_DESCRIBED[asset.role][0]: self._asset(asset) for asset in self.assets},
        }

    @classmethod
    def from_item(cls, item: Mapping[str, Any]) -> TileRecord:
        """The inverse of `to_item`; UsageError for any other JSON."""
        try:
            p = item["properties"]
            tile_id, window_name = item["id"].rsplit("_", 1)
            tile, runtime = Tile.from_id(tile_id), p["emb:runtime_parameters"]
            return cls(
                tile=tile,
                window=Window.from_name(window_name),
                status=p["emb:status"],
                model=p["emb:model"]["name"],
                model_sha256=p["emb:model"]["sha256"],
                source=p["emb:source_data"],
                preprocessing=p["emb:preprocessing"],
                precision=runtime["precision"],
                device=runtime["device"],
                dims=p["emb:dimensions"],
                dtype=p["emb:quantization"]["quantized_dtype"],
                min_s2=runtime["min_s2"],
                min_s1=runtime["min_s1"],
                seed=runtime["seed"],
                software=p["processing:software"][SOFTWARE],
                pixels=p["emb:pixels"],
                requested=unpack_mask(base64.b64decode(p["emb:requested"]), tile.shape),
                observations={name: Observations.from_dict(seen) for name, seen in p["emb:observations"].items()},
                scenes=tuple(p["emb:scenes"]),
                input_digest=p["emb:input_digest"],
                holes=dict(p["emb:holes"]),
                warnings=tuple(p["emb:warnings"]),
                assets=_assets_of(item["assets"]),
                created=p.get("created"),
            )
        except (KeyError, TypeError, ValueError, AttributeError, zlib.error) as error:
            raise UsageError(f"not the record of a tile: {type(error).__name__}: {error}.") from error

    def _asset(self, asset: Asset) -> dict[str, Any]:
        _, title, data_type, nodata, roles = _DESCRIBED[asset.role]
        return {
            "href": f"./{asset.name}",
            "type": "image/tiff; application=geotiff; profile=cloud-optimized",
            "title": title,
            "roles": list(roles),
            "data_type": data_type,
            "nodata": nodata,
            "raster:spatial_resolution": RESOLUTION,
            "file:size": asset.size,
            "file:checksum": f"1220{asset.sha256}",  # multihash: SHA-256, 32 bytes
            **_projection(self.tile),
            "bands": [{"name": name} for name in band_names(asset.role, self.dims)],
        }


def _assets_of(assets: Mapping[str, Any]) -> tuple[Asset, ...]:
    found = [(role, assets[key]) for role, (key, *_) in _DESCRIBED.items() if key in assets]
    return tuple(
        Asset(role, a["href"].removeprefix("./"), a["file:size"], a["file:checksum"].removeprefix("1220"))
        for role, a in found
    )


def _projection(tile: Tile) -> dict[str, Any]:
    transform = [int(value) for value in tile.transform[:6]]
    return {
        "proj:code": tile.crs,
        "proj:shape": list(tile.shape),
        "proj:transform": transform,
        "proj:bbox": list(tile.bounds),
    }


def _footprint(tile: Tile) -> tuple[dict[str, Any], list[float]]:
    """Geometry and bbox in longitude and latitude; cut and wrapped at the antimeridian (RFC 7946, 3.1.9 and 5.2)."""
    parts = []
    for shift in (0.0, 360.0):  # the outline's longitudes run from -180 to beyond 180
        part = shapely.intersection(tile.outline, shapely.box(shift - 180, -90, shift + 180, 90))
        if part.area > 1e-9:  # square degrees: no sliver for float noise
            wrapped = shapely.transform(part, lambda xy, shift=shift: (xy - np.array([shift, 0.0])).round(7))
            parts.append(shapely.geometry.polygon.orient(wrapped))
    south, north = min(p.bounds[1] for p in parts), max(p.bounds[3] for p in parts)
    geometry = parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)
    return _geojson(geometry), [parts[0].bounds[0], south, parts[-1].bounds[2], north]


def _geojson(geometry: Any) -> dict[str, Any]:
    return dict(json.loads(shapely.to_geojson(geometry)))
