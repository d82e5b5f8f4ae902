"""The record of one tile and window: a STAC item that is at once provenance, manifest and done-marker."""

from __future__ import annotations

import base64
import functools
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import ValidationError

from tessera_cli import __version__
from tessera_cli.dpixels.coverage import Coverage, gap_warnings
from tessera_cli.dpixels.dpixel import SENSORS, DPixels
from tessera_cli.errors import UsageError, complaint, reason
from tessera_cli.extent.grid import AnyTile, check_shape, pack_mask, tile_name, unpack_mask
from tessera_cli.extent.window import Window
from tessera_cli.outputs.asset import Asset
from tessera_cli.outputs.georeference import footprint, projection, resolution, tile_from_item
from tessera_cli.outputs.layers import DPIXELS, FORMULA, LAYERS, STORE_SUFFIX, Dtype, Format, Layer, requested_counts
from tessera_cli.outputs.schema import check_item
from tessera_cli.outputs.tags import SOFTWARE, model_url
from tessera_cli.reading import inflate

EXTENSIONS = (
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/raster/v2.0.0/schema.json",
    "https://stac-extensions.github.io/file/v2.1.0/schema.json",
    "https://stac-extensions.github.io/processing/v1.2.0/schema.json",
)
MEDIA_TYPES: Mapping[str, str] = {
    "geotiff": "image/tiff; application=geotiff; profile=cloud-optimized",
    "zarr": "application/vnd.zarr; version=3",
    "npy": "application/octet-stream",  # nobody has registered one for it
}


@dataclass(frozen=True, eq=False)
class TileRecord:
    """Everything that is known about one finished tile of embeddings or of d-pixels."""

    tile: AnyTile
    window: Window | None
    """None if the year of the d-pixels is unknown. The item then has no time, though STAC demands one: any that could
    be written would be a guess."""
    identity: Mapping[str, Any]
    """As in the folder's `run.json`: what the embeddings, or d-pixels, depend on besides the pixels."""
    software: str
    """Version of this package."""
    pixels: int
    """Pixels with an embedding; of d-pixels, those asked for."""
    requested: np.ndarray
    """bool (H, W): the pixels asked for."""
    observations: Mapping[str, Coverage]
    """Sensor -> its dates over the tile."""
    scenes: tuple[str, ...]
    """Ids of the scenes listed on the tile, missing ones included, in the order that decides overlaps."""
    input_digest: str
    missing_scenes: Mapping[str, str]
    """Scene id -> why it could not be read."""
    warnings: tuple[str, ...] = ()
    assets: tuple[Asset, ...] = ()
    """All files of the tile; of d-pixels, those of the store."""
    status: Literal["done", "empty"] = "done"
    """`empty` if no pixel could be embedded; there are no files then."""
    device: str | None = None
    """`cpu`, `cuda`: embeddings are equal to the byte within one class."""
    note: str = ""
    """What a user must know of the model, such as that it is for demonstration only."""
    counts: np.ndarray | None = None
    """uint16 (3, H, W): observations used, in the order of SENSORS, where they have no file of their own (npy). Only
    those of requested pixels are kept; the others are read as NOT_REQUESTED."""

    @classmethod
    def of(cls, dpixels: DPixels, identity: Mapping[str, Any], *, pixels: int, **more: Any) -> TileRecord:
        """Return the record of what is made of `dpixels`; `more` are the fields that d-pixels do not tell."""
        return cls(
            tile=dpixels.tile,
            window=dpixels.window,
            identity=identity,
            software=__version__,
            pixels=pixels,
            requested=dpixels.requested,
            observations={sensor: Coverage.of(dates, dpixels.window) for sensor, dates in dpixels.dates.items()},
            scenes=dpixels.scenes,
            input_digest=dpixels.input_digest,
            missing_scenes=dpixels.missing_scenes,
            warnings=gap_warnings(dpixels),
            **more,
        )

    @property
    def name(self) -> str:
        return tile_name(self.tile, self.window)

    @property
    def holds_dpixels(self) -> bool:
        return self.identity.get("content") == DPIXELS

    @property
    def store(self) -> str:
        """Name of the store of d-pixels."""
        return self.name + STORE_SUFFIX[self.identity["format"]]

    @property
    def main(self) -> str | None:
        """Name of the raster or array of embeddings, or of the store of d-pixels; None if the tile is empty."""
        return self.store if self.holds_dpixels else next((asset.name for asset in self.assets), None)

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
        """Return a STAC 1.1.0 item; its geometry is null for a tile without a georeference."""
        outline = footprint(self.tile)
        files = {asset.name: {"size": asset.size, "sha256": asset.sha256} for asset in self.assets}
        properties: dict[str, Any] = {
            "datetime": None,
            **_time(self.window),
            **_known("gsd", resolution(self.tile)),
            **projection(self.tile),
            "processing:software": {SOFTWARE: self.software},
            **({"emb:source_data": self.identity["source"]} if self.holds_dpixels else self._model_fields()),
            "emb:identity": dict(self.identity),
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
            **({"emb:files": files} if self.holds_dpixels else {}),
        }
        return {
            "type": "Feature",
            "stac_version": "1.1.0",
            "stac_extensions": [url for url in EXTENSIONS if "raster" not in url or not self.holds_dpixels],
            "id": self.name,
            "geometry": outline[0] if outline else None,
            **_known("bbox", outline[1] if outline else None),
            "properties": properties,
            "links": [],
            "assets": {"dpixels": self._store_asset()} if self.holds_dpixels else self._layer_assets(),
        }

    @classmethod
    def from_item(cls, item: Mapping[str, Any]) -> TileRecord:
        """Parse what `to_item`, or an earlier version for d-pixels, has written; UsageError for any other JSON."""
        try:
            item = _upgraded(item) if "content" in item else item
            check_item(item)
            p = item["properties"]
            tile, window = tile_from_item(item)
            identity, counts = dict(p["emb:identity"]), p.get("emb:counts")
            requested = _mask(base64.b64decode(p["emb:requested"]), tile.shape)
            stored = identity.get("content") == DPIXELS
            record = cls(
                tile=tile,
                window=window,
                identity=identity,
                software=p["processing:software"][SOFTWARE],
                pixels=int(requested.sum()) if stored else p["emb:pixels"],
                requested=requested,
                observations={sensor: Coverage.from_dict(seen) for sensor, seen in p["emb:observations"].items()},
                scenes=tuple(p["emb:scenes"]),
                input_digest=p["emb:input_digest"],
                missing_scenes=dict(p["emb:holes"]),
                warnings=tuple(p["emb:warnings"]),
                assets=_files_of(p) if stored else _assets_of(item["assets"], identity),
                status=p["emb:status"],
                device=None if stored else p["emb:runtime_parameters"]["device"],
                note=p.get("emb:note", ""),
                counts=None if counts is None else _unpack_counts(counts, tile.shape),
            )
            if stored and (item["assets"]["dpixels"]["href"] != f"./{record.store}" or not record.assets):
                raise ValueError("it names no store of its own")
            return record
        except ValidationError as error:
            raise UsageError(f"not the record of a tile: {complaint(error)}.") from error
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, zlib.error) as error:
            raise UsageError(f"not the record of a tile: {type(error).__name__}: {reason(error)}.") from error

    def _model_fields(self) -> dict[str, Any]:
        """Return the fields of the STAC extension for embeddings."""
        identity = self.identity
        quantization = {
            "method": "per_pixel_scale",
            "original_dtype": "float32",
            "quantized_dtype": self.dtype,
            "formula": FORMULA,
        }
        return {
            "emb:type": "pixel",
            "emb:dimensions": self.dims,
            "emb:model": {
                "name": identity["model"],
                "url": model_url(identity["model"]),
                "sha256": identity["weights_sha256"],
            },
            **_known("emb:quantization", None if self.dtype == "float32" else quantization),
            "emb:source_data": identity["source"],
            "emb:runtime_parameters": {"device": self.device},
        }

    def _layer_assets(self) -> dict[str, Any]:
        layers = {layer.role: layer for layer in LAYERS[self.format, self.dtype]}
        found = [(layers[asset.role], asset) for asset in self.assets if asset.role]
        return {layer.key: self._layer_asset(layer, asset) for layer, asset in found}

    def _layer_asset(self, layer: Layer, asset: Asset) -> dict[str, Any]:
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

    def _store_asset(self) -> dict[str, Any]:
        return {
            "href": f"./{self.store}",
            "type": MEDIA_TYPES[self.identity["format"]],
            "title": "d-pixels",
            "roles": ["data"],
            "file:size": sum(asset.size for asset in self.assets),
        }


@functools.lru_cache(maxsize=64)
def _mask(packed: bytes, shape: tuple[int, int]) -> np.ndarray:
    """Unpack a mask to read: of a large area most tiles are whole, and thousands of records share it."""
    mask = unpack_mask(packed, shape)
    mask.flags.writeable = False
    return mask


def _known(key: str, value: Any) -> dict[str, Any]:
    return {} if value is None else {key: value}


def _time(window: Window | None) -> dict[str, str]:
    if window is None:
        return {}
    return {"start_datetime": f"{window.start}T00:00:00Z", "end_datetime": f"{window.end}T23:59:59Z"}


def _assets_of(assets: Mapping[str, Any], identity: Mapping[str, Any]) -> tuple[Asset, ...]:
    listed = [
        (layer, assets[layer.key]) for layer in LAYERS[identity["format"], identity["dtype"]] if layer.key in assets
    ]
    return tuple(
        Asset(a["href"].removeprefix("./"), a["file:size"], a["file:checksum"].removeprefix("1220"), layer.role)
        for layer, a in listed
    )


def _files_of(properties: Mapping[str, Any]) -> tuple[Asset, ...]:
    return tuple(Asset(name, file["size"], file["sha256"]) for name, file in properties["emb:files"].items())


def _upgraded(old: Mapping[str, Any]) -> dict[str, Any]:
    """Return the item in place of a record of d-pixels that was written before those were STAC items."""
    if old["content"] != DPIXELS:
        raise ValueError(f"its content is {old['content']!r}")
    keys = ("identity", "requested", "observations", "scenes", "holes", "warnings", "input_digest", "files")
    properties = {f"emb:{key}": old[key] for key in keys}
    properties |= {"emb:status": "done", "processing:software": {SOFTWARE: old["software"]}}
    return {
        "id": f"{old['tile']}_{old['window']}",
        "properties": {**_time(Window.from_name(old["window"])), **properties},
        "assets": {"dpixels": {"href": f"./{old['store']}"}},
    }


def _pack_counts(counts: np.ndarray, requested: np.ndarray) -> str:
    """Encode uint16 (3, H, W) as base64 of zlib of little-endian numbers."""
    return base64.b64encode(zlib.compress(requested_counts(counts, requested).astype("<u2").tobytes(), 6)).decode()


def _unpack_counts(packed: str, shape: tuple[int, int]) -> np.ndarray:
    due = 2 * len(SENSORS) * check_shape(shape)
    counts = np.frombuffer(inflate(base64.b64decode(packed), due), "<u2")
    return counts.astype(np.uint16).reshape(len(SENSORS), *shape)
