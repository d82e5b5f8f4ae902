"""The record of one tile and window: a STAC item that is at once provenance, manifest and done-marker."""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from tessera_cli.dpixels.coverage import Coverage
from tessera_cli.dpixels.dpixel import SENSORS, tile_name
from tessera_cli.errors import UsageError
from tessera_cli.extent.grid import AnyTile, pack_mask, unpack_mask
from tessera_cli.extent.window import Window
from tessera_cli.outputs.asset import Asset
from tessera_cli.outputs.encoded import EncodedTile, asked_counts
from tessera_cli.outputs.layers import FORMULA, LAYERS, Dtype, Format, Layer
from tessera_cli.outputs.place import footprint, projection, resolution, tile_from_item
from tessera_cli.outputs.tags import SOFTWARE, model_url

EXTENSIONS = (
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/raster/v2.0.0/schema.json",
    "https://stac-extensions.github.io/file/v2.1.0/schema.json",
    "https://stac-extensions.github.io/processing/v1.2.0/schema.json",
)
MEDIA_TYPES: Mapping[Format, str] = {
    "geotiff": "image/tiff; application=geotiff; profile=cloud-optimized",
    "npy": "application/octet-stream",  # nobody has registered one for it
}


@dataclass(frozen=True, eq=False)
class TileRecord:
    """Everything that is known about one finished tile."""

    tile: AnyTile
    window: Window | None
    """None: the year of the d-pixels is not known. The item then has no time, which STAC demands: it is valid but for
    that. Any time that could be written would be a guess."""
    status: Literal["done", "empty"]
    """`empty`: no pixel could be embedded, so there are no files."""
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
    missing_scenes: Mapping[str, str]
    """Scene id -> why it could not be read."""
    warnings: tuple[str, ...] = ()
    assets: tuple[Asset, ...] = ()
    note: str = ""
    """What a user must know of the model, such as that it is for demonstration only."""
    counts: np.ndarray | None = None
    """uint16 (3, H, W): observations used, in the order of SENSORS, where they have no file of their own (npy). Only
    those of requested pixels are kept; the others come back as NOT_ASKED."""

    @property
    def name(self) -> str:
        return tile_name(self.tile, self.window)

    @property
    def format(self) -> Format:
        return self.identity["format"]

    @property
    def dtype(self) -> Dtype:
        return self.identity["dtype"]

    @property
    def dims(self) -> int:
        return self.identity["dims"]

    def to_item(self) -> dict[str, Any]:
        """The record as a STAC 1.1.0 item; its geometry is null where nobody said where the tile lies."""
        identity, place = self.identity, footprint(self.tile)
        properties: dict[str, Any] = {
            "datetime": None,
            **_time(self.window),
            **_known("gsd", resolution(self.tile)),
            **projection(self.tile),
            "processing:software": {SOFTWARE: self.software},
            "emb:type": "pixel",
            "emb:dimensions": self.dims,
            "emb:model": {
                "name": identity["model"],
                "url": model_url(identity["model"]),
                "sha256": identity["weights_sha256"],
            },
            **_known("emb:quantization", _quantization(self.dtype)),
            "emb:source_data": identity["source"],
            "emb:runtime_parameters": {"device": self.device},
            "emb:identity": dict(identity),
            **_known("emb:note", self.note or None),
            "emb:status": self.status,
            "emb:pixels": int(self.pixels),
            "emb:requested": base64.b64encode(pack_mask(self.requested)).decode(),
            **_known("emb:counts", None if self.counts is None else _pack_counts(self.counts, self.requested)),
            "emb:observations": {sensor: seen.to_dict() for sensor, seen in self.observations.items()},
            "emb:warnings": list(self.warnings),
            "emb:scenes": list(self.scenes),
            "emb:holes": dict(self.missing_scenes),
            "emb:input_digest": self.input_digest,
        }
        layers = {layer.role: layer for layer in LAYERS[self.format, self.dtype]}
        return {
            "type": "Feature",
            "stac_version": "1.1.0",
            "stac_extensions": list(EXTENSIONS),
            "id": self.name,
            "geometry": place[0] if place else None,
            **_known("bbox", place[1] if place else None),
            "properties": properties,
            "links": [],
            "assets": {layers[asset.role].key: self._asset(asset, layers[asset.role]) for asset in self.assets},
        }

    @classmethod
    def from_item(cls, item: Mapping[str, Any]) -> TileRecord:
        """The inverse of `to_item`; UsageError for any other JSON."""
        try:
            p = item["properties"]
            tile, window = tile_from_item(item)
            identity, counts = dict(p["emb:identity"]), p.get("emb:counts")
            return cls(
                tile=tile,
                window=window,
                status=p["emb:status"],
                identity=identity,
                device=p["emb:runtime_parameters"]["device"],
                software=p["processing:software"][SOFTWARE],
                pixels=p["emb:pixels"],
                requested=unpack_mask(base64.b64decode(p["emb:requested"]), tile.shape),
                observations={sensor: Coverage.from_dict(seen) for sensor, seen in p["emb:observations"].items()},
                scenes=tuple(p["emb:scenes"]),
                input_digest=p["emb:input_digest"],
                missing_scenes=dict(p["emb:holes"]),
                warnings=tuple(p["emb:warnings"]),
                assets=_assets_of(item["assets"], LAYERS[identity["format"], identity["dtype"]]),
                note=p.get("emb:note", ""),
                counts=None if counts is None else _unpack_counts(counts, tile.shape),
            )
        except (KeyError, TypeError, ValueError, AttributeError, zlib.error) as error:
            raise UsageError(f"not the record of a tile: {type(error).__name__}: {error}.") from error

    def _asset(self, asset: Asset, layer: Layer) -> dict[str, Any]:
        nodata = layer.nodata
        return {
            "href": f"./{asset.name}",
            "type": MEDIA_TYPES[self.format],
            "title": layer.title,
            "roles": list(layer.stac_roles),
            "data_type": layer.dtype,
            **_known("nodata", "nan" if nodata is not None and math.isnan(nodata) else nodata),
            **_known("raster:spatial_resolution", resolution(self.tile)),
            "file:size": asset.size,
            "file:checksum": f"1220{asset.sha256}",  # multihash: SHA-256, 32 bytes
            **projection(self.tile),
            "bands": [{"name": name} for name in layer.bands(self.dims)],
        }


Expected = EncodedTile | TileRecord
"""What the files of a tile are held against: what was to be written, or what is recorded."""


def _known(key: str, value: Any) -> dict[str, Any]:
    return {} if value is None else {key: value}


def _time(window: Window | None) -> dict[str, str]:
    if window is None:
        return {}
    return {"start_datetime": f"{window.start}T00:00:00Z", "end_datetime": f"{window.end}T23:59:59Z"}


def _quantization(dtype: Dtype) -> dict[str, str] | None:
    if dtype == "float32":
        return None
    return {
        "method": "per_pixel_scale",
        "original_dtype": "float32",
        "quantized_dtype": dtype,
        "formula": FORMULA,
    }


def _assets_of(assets: Mapping[str, Any], layers: tuple[Layer, ...]) -> tuple[Asset, ...]:
    found = [(layer.role, assets[layer.key]) for layer in layers if layer.key in assets]
    return tuple(
        Asset(a["href"].removeprefix("./"), a["file:size"], a["file:checksum"].removeprefix("1220"), role)
        for role, a in found
    )


def _pack_counts(counts: np.ndarray, requested: np.ndarray) -> str:
    """uint16 (3, H, W) -> base64 of zlib of little-endian numbers."""
    return base64.b64encode(zlib.compress(asked_counts(counts, requested).astype("<u2").tobytes(), 6)).decode()


def _unpack_counts(packed: str, shape: tuple[int, int]) -> np.ndarray:
    counts = np.frombuffer(zlib.decompress(base64.b64decode(packed)), "<u2")
    return counts.astype(np.uint16).reshape(len(SENSORS), *shape)
