"""From the d-pixels of a tile to its embeddings, ready to be written or compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tessera_cli.dpixels.dpixel import DPixels
from tessera_cli.folders.identity import EmbedSettings
from tessera_cli.folders.partial import PartialFile
from tessera_cli.inference.encode import encode
from tessera_cli.inference.uncertainty import uncertainty
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
    told = _Shared(progress, 1 + settings.uncertainty)
    made = encode(
        dpixels,
        model,
        pixels,
        dims=settings.dims,
        quantiser=settings.quantiser,
        seed=settings.seed,
        threads=threads,
        progress=told,
        keeper=None if partials is None else PartialFile.of(partials, record.name, dpixels, pixels, model, identity),
    )
    moved = None
    if settings.uncertainty:
        moved = uncertainty(
            dpixels,
            model,
            pixels,
            draws=settings.uncertainty,
            dims=settings.dims,
            seed=settings.seed,
            threads=threads,
            progress=told,
        )
    return EncodedTile(record, pixels, made.values, made.scales, dpixels.counts, made.tokens, moved)


class _Shared:
    """Tells of a pixel once it has been finished so many times."""

    def __init__(self, progress: Callable[[int], None] | None, times: int) -> None:
        self._progress, self._times = progress, times
        self._finished = self._told = 0

    def __call__(self, pixels: int) -> None:
        self._finished += pixels
        now = self._finished // self._times
        if self._progress is not None:
            self._progress(now - self._told)
        self._told = now
