"""The trained encoder as a weights file that `tessera embed --model` takes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tessera_cli import __version__
from tessera_cli.models.checkpoint import save_safetensors
from tessera_cli.models.encoder import Encoder
from tessera_cli.pretrain.config import FIXED_NUMBER, Settings
from tessera_cli.pretrain.config_file import as_json
from tessera_cli.pretrain.data.shards import Shards
from tessera_cli.sampling.statistics import Statistics


def export(
    path: Path,
    encoder: Encoder,
    settings: Settings,
    shards: Shards,
    statistics: Statistics,
    measures: Mapping[str, Any],
) -> None:
    """Write the encoder in float32 with its card: what it is, what it was trained on, what it was found to be worth."""
    model = settings.model
    card = {
        "name": model.name,
        "family": model.family,
        "dims": [*settings.projector.prefixes, model.representation],
        "statistics": statistics.to_card(),
        **_what_embed_shows(settings, shards),
        "description": f"Pretrained with Barlow Twins by tessera {__version__}.",
        "training": {
            "method": "Barlow Twins",
            "settings": as_json(settings),
            "shards": shards.digest,
            "pixels": shards.pixels,
            "sources": shards.header["sources"],
            "preprocessing": shards.header["preprocessing"],
            "measures": dict(measures),
        },
    }
    save_safetensors(path, encoder, card, half=False)


def _what_embed_shows(settings: Settings, shards: Shards) -> dict[str, Any]:
    """Whose d-pixels the encoder understands, and how many observations, where its family takes a fixed number."""
    found: dict[str, Any] = {}
    if len(shards.header["sources"]) == 1:
        found["source"] = shards.header["sources"][0]
    if settings.model.family in FIXED_NUMBER:
        found["n_obs"] = settings.views.n_obs
    return found
