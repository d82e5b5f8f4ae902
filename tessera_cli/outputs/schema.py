"""What the JSON of a tile's record must be: its types are checked here, once, before anything is made of it.

Fields are `dict`, not `Mapping`, in which pydantic 2.11.0 checks nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, NonNegativeInt, PositiveInt, StringConstraints

from tessera_cli.outputs.layers import DPIXELS

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}\Z")]
FileName = Annotated[str, StringConstraints(pattern=r"^[^/\\\x00-\x1f]+\Z")]
StorePath = Annotated[str, StringConstraints(pattern=r"^[^/\\\x00-\x1f]+(/(?!\.\.?(/|$))[^/\\\x00-\x1f]+)+\Z")]
"""A file of a store, from the folder of the record; none that leads out of it."""


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, regex_engine="python-re")


class Asset(_Part):
    href: Annotated[str, StringConstraints(pattern=r"^\./[^/\\\x00-\x1f]+\Z")]
    size: NonNegativeInt = Field(alias="file:size")
    checksum: Annotated[str, StringConstraints(pattern=r"^1220[0-9a-f]{64}\Z")] = Field(alias="file:checksum")


class StoreAsset(_Part):
    href: Annotated[str, StringConstraints(pattern=r"^\./[^/\\\x00-\x1f]+\Z")]


class File(_Part):
    size: NonNegativeInt
    sha256: Sha256


class Seen(_Part):
    frames: NonNegativeInt
    first: str | None
    last: str | None
    longest_gap_days: int | None


class Runtime(_Part):
    device: str | None


class EmbeddingsIdentity(_Part):
    """Of embeddings, as far as records are read by it."""

    content: None = None
    model: str
    weights_sha256: str
    source: str | None
    preprocessing: str
    format: Literal["geotiff", "npy", "vectors"]
    dtype: Literal["int8", "float32"]
    dims: PositiveInt


class DPixelsIdentity(_Part):
    content: Literal["d-pixels"]
    source: str | None
    preprocessing: str
    format: Literal["zarr", "npy"]


class _Properties(_Part):
    start_datetime: str | None = None
    shape: tuple[PositiveInt, PositiveInt] | None = Field(None, alias="proj:shape", strict=False)
    code: str | None = Field(None, alias="proj:code")
    wkt2: str | None = Field(None, alias="proj:wkt2")
    transform: list[FiniteFloat] | None = Field(None, alias="proj:transform", min_length=6, max_length=6)
    software: dict[str, str] = Field(alias="processing:software")
    requested: str = Field(alias="tessera:requested")
    observations: dict[str, Seen] = Field(alias="tessera:observations")
    scenes: list[str] = Field(alias="tessera:scenes")
    holes: dict[str, str] = Field(alias="tessera:holes")
    warnings: list[str] = Field(alias="tessera:warnings")
    input_digest: str = Field(alias="tessera:input_digest")
    status: Literal["done", "empty"] = Field(alias="tessera:status")
    note: str = Field("", alias="tessera:note")


class EmbeddingsProperties(_Properties):
    identity: EmbeddingsIdentity = Field(alias="tessera:identity")
    runtime: Runtime = Field(alias="emb:runtime_parameters")
    pixels: NonNegativeInt = Field(alias="tessera:pixels")
    counts: str | None = Field(None, alias="tessera:counts")


class DPixelsProperties(_Properties):
    identity: DPixelsIdentity = Field(alias="tessera:identity")
    files: dict[StorePath, File] = Field(alias="tessera:files")


class EmbeddingsItem(_Part):
    id: FileName
    properties: EmbeddingsProperties
    assets: dict[str, Asset]


class DPixelsItem(_Part):
    id: FileName
    properties: DPixelsProperties
    assets: dict[Literal["dpixels"], StoreAsset]


def check_item(item: Mapping[str, Any]) -> None:
    """Raise pydantic's ValidationError unless the item is, by its types, one that `TileRecord.to_item` makes."""
    properties = item.get("properties")
    identity = properties.get("tessera:identity") if isinstance(properties, dict) else None
    stored = isinstance(identity, dict) and identity.get("content") == DPIXELS
    (DPixelsItem if stored else EmbeddingsItem).model_validate(item)
