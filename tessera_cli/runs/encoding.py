"""From the d-pixels of a tile to its embeddings, ready to be written or compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tessera_cli.dpixels.dpixel import DPixels
from tessera_cli.folders.identity import EmbedSettings
from tessera_cli.folders.partial import PartialFile
from tessera_cli.inference.encode import encode
from tessera_cli.inference.uncertainty import encode_with_uncertainty
from tessera_cli.outputs.encoded import EncodedTile
from tessera_cli.outputs.item import TileRecord


def encode_tile(
    dpixels: DPixels,
    settings: EmbedSettings,
    identity: Mapping[str, Any],
    *,
    threads: int,
    progress: Callable[[int], None] | None = None,
    partials: Path | None = None,
) -> EncodedTile | TileRecord:
    """Encode the pixels of a tile that have enough observations; return the record alone if there are none.

    `partials` is the folder where what is encoded is kept until the tile is finished; None keeps nothing.
    """
    model = settings.model
    pixels = dpixels.embeddable(min_s2=settings.min_s2, min_s1=settings.min_s1)
    pixels &= model.spec.observations.valid_pixels(dpixels)
    record = TileRecord.of(
        dpixels,
        identity,
        pixels=int(pixels.sum()),
        status="done" if pixels.any() else "empty",
        device=model.device,
        note=settings.note,
        counts=None if settings.format == "geotiff" else dpixels.counts,
    )
    if not pixels.any():
        return record
    more: dict[str, Any] = {
        "dims": settings.dims,
        "quantiser": settings.quantiser,
        "seed": settings.seed,
        "threads": threads,
        "progress": progress or _ignore,
        "keeper": None if partials is None else PartialFile.of(partials, record.name, dpixels, pixels, model, identity),
    }
    if settings.uncertainty:
        made, uncertain = encode_with_uncertainty(dpixels, model, pixels, draws=settings.uncertainty, **more)
    else:
        made, uncertain = encode(dpixels, model, pixels, **more), None
    return EncodedTile(record, pixels, made.values, made.scales, dpixels.counts, made.tokens, uncertain)


def _ignore(finished: int) -> None:
    pass
