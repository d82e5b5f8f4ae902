"""Write the trained encoder as a weights file that `tessera embed --model` takes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tessera_cli import __version__
from tessera_cli.models.checkpoint import save_safetensors
from tessera_cli.models.encoder import Encoder
from tessera_cli.pretraining.config import FIXED_NUMBER, PretrainConfig
from tessera_cli.pretraining.config_file import as_json
from tessera_cli.pretraining.data.shards import Shards
from tessera_cli.sampling.statistics import Statistics


def export(
    path: Path,
    encoder: Encoder,
    config: PretrainConfig,
    shards: Shards,
    statistics: Statistics,
    measures: Mapping[str, Any],
    teacher: Mapping[str, str] | None = None,
) -> None:
    """Write the encoder in float32 with its card: architecture, statistics, source, training and measures.

    `teacher`: name and SHA-256 of the model that the encoder learned to match.
    """
    model, sources = config.model, shards.header["sources"]
    parts = {"Barlow Twins": config.twins, "prediction of the other view": config.loss.predict}
    parts |= {} if teacher is None else {f"the teacher {teacher['name']}": 1.0}
    method = " and ".join(name for name, weight in parts.items() if weight)
    card = {
        "name": model.name,
        "family": model.family,
        "dims": list(config.dims),
        "statistics": statistics.to_card(),
        **({"source": sources[0]} if len(sources) == 1 else {}),
        **({"n_obs": config.views.n_obs} if model.family in FIXED_NUMBER else {}),
        "description": f"Pretrained with {method} by tessera {__version__}.",
        "training": {
            "method": method,
            **({} if teacher is None else {"teacher": dict(teacher)}),
            "settings": as_json(config),
            "shards": shards.digest,
            "pixels": shards.pixels,
            "sources": sources,
            "preprocessing": shards.header["preprocessing"],
            "measures": dict(measures),
        },
    }
    save_safetensors(path, encoder, card, half=False)
