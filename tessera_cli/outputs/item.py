"""The record of one tile and window: a STAC item that is at once provenance, manifest and done-marker."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import shapely

from tessera_cli.coverage import Coverage
from tessera_cli.errors import UsageError
from tessera_cli.grid import RESOLUTION, Tile, pack_mask, unpack_mask
from tessera_cli.lonlat import split
from tessera_cli.outputs.layers import FORMULA, LAYERS, Role, tile_name
from tessera_cli.outputs.tags import SOFTWARE, model_url
from tessera_cli.window import Window

EXTENSIONS = (
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/raster/v2.0.0/schema.json",
    "https://stac-extensions.github.io/file/v2.1.0/schema.json",
    "https://stac-extensions.github.io/processing/v1.2.0/schema.json",
)


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


@dataclass(frozen=True, eq=False)
class TileRecord:
    """Everything that is known about one finished tile."""

    tile: Tile
    window: Window
    status: Literal["done", "empty"]
    """`empty`: no pixel could be embedded, so there are no rasters."""
    identity: Mapping[str, Any]
    """What the embeddings depend on besides the pixels: as in the folder's `run.json`."""
    device: str
    """`cpu`, `cuda`: bytes are equal within one class."""
    software: str
    """Version of this package."""
    pixels: int
    """Pixels with an embedding."""
    requested: np.ndarray
    """bool (H, W): the pixels asked for."""
    observations: Mapping[str, Coverage]
    """Sensor -> what it saw of the tile."""
    scenes: tuple[str, ...]
    """Ids of the scenes listed on the tile, holes included, in the order that decides overlaps."""
    input_digest: str
    holes: Mapping[str, str]
    """Scene id -> why it could not be read."""
    warnings: tuple[str, ...] = ()
    assets: tuple[Asset, ...] = ()
    note: str = ""
    """What a user must know of the model, such as that it is for demonstration only."""

    @property
    def name(self) -> str:
        return tile_name(self.tile, self.window)

    def to_item(self) -> dict[str, Any]:
        """The record as a STAC 1.1.0 item."""
        geometry, bbox = _footprint(self.tile)
        identity = self.identity
        properties: dict[str, Any] = {
            "datetime": None,
            "start_datetime": f"{self.window.start}T00:00:00Z",
            "end_datetime": f"{self.window.end}T23:59:59Z",
            "gsd": RESOLUTION,
            **_projection(self.tile),
            "processing:software": {SOFTWARE: self.software},
            "emb:type": "pixel",
            "emb:dimensions": identity["dims"],
            "emb:model": {
                "name": identity["model"],
                "url": model_url(identity["model"]),
                "sha256": identity["weights_sha256"],
            },
            "emb:quantization": {
                "method": "per_pixel_scale",
                "original_dtype": "float32",
                "quantized_dtype": identity["dtype"],
                "formula": FORMULA,
            },
            "emb:source_data": identity["source"],
            "emb:runtime_parameters": {"device": self.device},
            "emb:identity": dict(identity),
            **({"emb:note": self.note} if self.note else {}),
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
            "id": self.name,
            "geometry": geometry,
            "bbox": bbox,
            "properties": properties,
            "links": [],
            "assets": {LAYERS[asset.role].key: self._asset(asset) for asset in self.assets},
        }

    @classmethod
    def from_item(cls, item: Mapping[str, Any]) -> TileRecord:
        """The inverse of `to_item`; UsageError for any other JSON."""
        try:
            p = item["properties"]
            tile_id, window_name = item["id"].rsplit("_", 1)
            tile = Tile.from_id(tile_id)
            return cls(
                tile=tile,
                window=Window.from_name(window_name),
                status=p["emb:status"],
                identity=dict(p["emb:identity"]),
                device=p["emb:runtime_parameters"]["device"],
                software=p["processing:software"][SOFTWARE],
                pixels=p["emb:pixels"],
                requested=unpack_mask(base64.b64decode(p["emb:requested"]), tile.shape),
                observations={sensor: Coverage.from_dict(seen) for sensor, seen in p["emb:observations"].items()},
                scenes=tuple(p["emb:scenes"]),
                input_digest=p["emb:input_digest"],
                holes=dict(p["emb:holes"]),
                warnings=tuple(p["emb:warnings"]),
                assets=_assets_of(item["assets"]),
                note=p.get("emb:note", ""),
            )
        except (KeyError, TypeError, ValueError, AttributeError, zlib.error) as error:
            raise UsageError(f"not the record of a tile: {type(error).__name__}: {error}.") from error

    def _asset(self, asset: Asset) -> dict[str, Any]:
        layer = LAYERS[asset.role]
        return {
            "href": f"./{asset.name}",
            "type": "image/tiff; application=geotiff; profile=cloud-optimized",
            "title": layer.title,
            "roles": list(layer.stac_roles),
            "data_type": layer.dtype,
            "nodata": "nan" if math.isnan(layer.nodata) else layer.nodata,
            "raster:spatial_resolution": RESOLUTION,
            "file:size": asset.size,
            "file:checksum": f"1220{asset.sha256}",  # multihash: SHA-256, 32 bytes
            **_projection(self.tile),
            "bands": [{"name": name} for name in layer.bands(self.identity["dims"])],
        }


def _assets_of(assets: Mapping[str, Any]) -> tuple[Asset, ...]:
    found = [(role, assets[layer.key]) for role, layer in LAYERS.items() if layer.key in assets]
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
    rounded = (shapely.transform(part, lambda lonlat: lonlat.round(7)) for part in split(tile.outline))
    parts = [shapely.geometry.polygon.orient(part) for part in rounded if part.area]  # no sliver for float noise
    south, north = min(p.bounds[1] for p in parts), max(p.bounds[3] for p in parts)
    geometry = parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)
    return json.loads(shapely.to_geojson(geometry)), [parts[0].bounds[0], south, parts[-1].bounds[2], north]
