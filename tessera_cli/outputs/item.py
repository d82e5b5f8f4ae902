"""The record of one tile and window: a STAC item that is at once provenance, manifest and done-marker."""

from __future__ import annotations

import base64
import functools
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError

from tessera_cli import __version__
from tessera_cli.dpixels.coverage import Coverage, gap_warnings
from tessera_cli.dpixels.dpixel import DPixels
from tessera_cli.errors import UsageError, complaint, reason
from tessera_cli.extent.grid import AnyTile, tile_name
from tessera_cli.extent.window import Window
from tessera_cli.outputs.asset import Asset
from tessera_cli.outputs.georeference import footprint, projection, resolution, tile_from_item
from tessera_cli.outputs.layers import DPIXELS, FORMULA, STORE_SUFFIX, Dtype, Format, Layer, layers_of
from tessera_cli.outputs.old_item import upgraded
from tessera_cli.outputs.packed import COUNTS, REQUESTED, CountsField, MaskField, PackedCounts, PackedMask
from tessera_cli.outputs.schema import check_item
from tessera_cli.outputs.stac import (
    EMBEDDINGS,
    EO,
    FILE,
    PROCESSING,
    PROJECTION,
    RASTER,
    VERSION,
    collection_id,
    item_links,
    layer_fields,
    store_fields,
)
from tessera_cli.outputs.tags import SOFTWARE, model_url


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
    observations: Mapping[str, Coverage]
    """Sensor -> its dates over the tile."""
    scenes: tuple[str, ...]
    """Ids of the scenes listed on the tile, missing ones included, in the order that decides overlaps."""
    input_digest: str
    missing_scenes: Mapping[str, str]
    """Scene id -> why it could not be read."""
    requested: MaskField = REQUESTED
    """bool (H, W), to be read: the pixels asked for. Without a default."""
    warnings: tuple[str, ...] = ()
    assets: tuple[Asset, ...] = ()
    """All files of the tile; of d-pixels, those of the store."""
    status: Literal["done", "empty"] = "done"
    """`empty` if no pixel could be embedded; there are no files then."""
    device: str | None = None
    """`cpu`, `cuda`: embeddings are equal to the byte within one class."""
    note: str = ""
    """What a user must know of the model, such as that it is for demonstration only."""
    counts: CountsField = COUNTS
    """uint16 (3, H, W), to be read: observations used, in the order of SENSORS, where they have no file of their own
    (arrays). Only those of requested pixels are kept; the others are read as NOT_REQUESTED."""

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
    def packed(self) -> PackedMask:
        """The pixels asked for, as they are kept: a few hundred bytes."""
        packed: PackedMask = self.__dict__["requested"]
        return packed

    @property
    def store(self) -> str:
        """Name of the store of d-pixels."""
        return self.name + STORE_SUFFIX[self.identity["format"]]

    @property
    def main(self) -> str | None:
        """Name of the raster or array of embeddings, or of the store of d-pixels; None if the tile is empty."""
        return self.store if self.holds_dpixels else next((asset.name for asset in self.assets), None)

    @property
    def is_listed(self) -> bool:
        """Return whether the folder's collection lists the tile: it has data, and its time and place are known."""
        return self.status == "done" and self.window is not None and self.outline is not None

    @functools.cached_property
    def outline(self) -> tuple[dict[str, Any], list[float]] | None:
        """GeoJSON geometry and bbox of the tile in degrees; None if its place is not known."""
        return footprint(self.tile)

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
        files = {asset.name: {"size": asset.size, "sha256": asset.sha256} for asset in self.assets}
        properties: dict[str, Any] = {
            "datetime": None,
            **(times(self.window) if self.window else {}),
            **_known("gsd", resolution(self.tile)),
            **projection(self.tile),
            "processing:software": {SOFTWARE: self.software},
            **({"tessera:source_data": self.identity["source"]} if self.holds_dpixels else self._model_fields()),
            "tessera:identity": dict(self.identity),
            **_known("tessera:note", self.note or None),
            "tessera:status": self.status,
            "tessera:pixels": int(self.pixels),
            "tessera:requested": _text(self.packed),
            **_known("tessera:counts", _text(self.__dict__["counts"])),
            "tessera:observations": {sensor: seen.to_dict() for sensor, seen in self.observations.items()},
            "tessera:warnings": list(self.warnings),
            "tessera:scenes": list(self.scenes),
            "tessera:holes": dict(self.missing_scenes),
            "tessera:input_digest": self.input_digest,
            **({"tessera:files": files} if self.holds_dpixels else {}),
        }
        assets = {"dpixels": self._store_asset()} if self.holds_dpixels else self._layer_assets()
        return {
            "type": "Feature",
            "stac_version": VERSION,
            "stac_extensions": [
                *([EMBEDDINGS] if "embeddings" in assets else []),
                PROJECTION,
                *([RASTER] if _have(assets, "raster:spatial_resolution") else []),
                *([EO] if _have(assets, "eo:bands") else []),
                FILE,
                PROCESSING,
            ],
            "id": self.name,
            "geometry": self.outline[0] if self.outline else None,
            **_known("bbox", self.outline[1] if self.outline else None),
            "properties": properties,
            "links": item_links() if self.is_listed else [],
            **({"collection": collection_id(self.identity)} if self.is_listed else {}),
            "assets": assets,
        }

    @classmethod
    def from_item(cls, item: Mapping[str, Any]) -> TileRecord:
        """Parse what `to_item`, or an earlier version for d-pixels, has written; UsageError for any other JSON."""
        try:
            item = upgraded(item)
            check_item(item)
            p = item["properties"]
            tile, window = tile_from_item(item)
            identity, counts = dict(p["tessera:identity"]), p.get("tessera:counts")
            requested = PackedMask(base64.b64decode(p["tessera:requested"]), tile.shape)
            mask, stored = requested.array(), identity.get("content") == DPIXELS
            record = cls(
                tile=tile,
                window=window,
                identity=identity,
                software=p["processing:software"][SOFTWARE],
                pixels=int(mask.sum()) if stored else p["tessera:pixels"],
                requested=requested,
                observations={sensor: Coverage.from_dict(seen) for sensor, seen in p["tessera:observations"].items()},
                scenes=tuple(p["tessera:scenes"]),
                input_digest=p["tessera:input_digest"],
                missing_scenes=dict(p["tessera:holes"]),
                warnings=tuple(p["tessera:warnings"]),
                assets=_files_of(p) if stored else _assets_of(item["assets"], identity),
                status=p["tessera:status"],
                device=None if stored else p["emb:runtime_parameters"]["device"],
                note=p.get("tessera:note", ""),
                counts=None if counts is None else PackedCounts(base64.b64decode(counts), tile.shape),
            )
            _ = record.counts  # ValueError if they are of another shape
            if stored and (item["assets"]["dpixels"]["href"] != f"./{record.store}" or not record.assets):
                raise ValueError("it names no store of its own")
            return record
        except ValidationError as error:
            raise UsageError(f"not the record of a tile: {complaint(error)}.") from error
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, zlib.error) as error:
            raise UsageError(f"not the record of a tile: {type(error).__name__}: {reason(error)}.") from error

    def _model_fields(self) -> dict[str, Any]:
        """Return what made the embeddings, and how they are stored."""
        identity = self.identity
        quantization = {
            "method": "per_pixel_scale",
            "original_dtype": "float32",
            "quantized_dtype": self.dtype,
        }
        return {
            "tessera:model": {
                "name": identity["model"],
                "url": model_url(identity["model"]),
                "sha256": identity["weights_sha256"],
            },
            **({} if self.dtype == "float32" else {"emb:quantization": quantization, "tessera:formula": FORMULA}),
            "tessera:source_data": identity["source"],
            "emb:runtime_parameters": {"device": self.device},
        }

    def _layer_assets(self) -> dict[str, Any]:
        layers = {layer.role: layer for layer in layers_of(self.identity)}
        found = [(layers[asset.role], asset) for asset in self.assets if asset.role]
        return {layer.key: self._layer_asset(layer, asset) for layer, asset in found}

    def _layer_asset(self, layer: Layer, asset: Asset) -> dict[str, Any]:
        return {
            "href": f"./{asset.name}",
            **layer_fields(layer, self.format, self.dims),
            **_known("raster:spatial_resolution", resolution(self.tile)),
            "file:size": asset.size,
            "file:checksum": f"1220{asset.sha256}",  # multihash: SHA-256, 32 bytes
            **({} if self.format == "vectors" else projection(self.tile)),
        }

    def _store_asset(self) -> dict[str, Any]:
        size = sum(asset.size for asset in self.assets)
        return {"href": f"./{self.store}", **store_fields(self.identity["format"]), "file:size": size}


def _have(assets: Mapping[str, Mapping[str, Any]], key: str) -> bool:
    """Return whether an asset has a field of an extension, which some want to see where they are declared."""
    return any(key in asset for asset in assets.values())


def _known(key: str, value: Any) -> dict[str, Any]:
    return {} if value is None else {key: value}


def times(window: Window) -> dict[str, str]:
    """Return the fields of an item that tell its window."""
    return {"start_datetime": f"{window.start}T00:00:00Z", "end_datetime": f"{window.end}T23:59:59Z"}


def _assets_of(assets: Mapping[str, Any], identity: Mapping[str, Any]) -> tuple[Asset, ...]:
    listed = [(layer, assets[layer.key]) for layer in layers_of(identity) if layer.key in assets]
    return tuple(
        Asset(a["href"].removeprefix("./"), a["file:size"], a["file:checksum"].removeprefix("1220"), layer.role)
        for layer, a in listed
    )


def _files_of(properties: Mapping[str, Any]) -> tuple[Asset, ...]:
    return tuple(Asset(name, file["size"], file["sha256"]) for name, file in properties["tessera:files"].items())


def _text(packed: PackedMask | PackedCounts | None) -> str | None:
    return None if packed is None else base64.b64encode(packed.data).decode()
