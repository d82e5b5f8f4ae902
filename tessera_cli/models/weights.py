"""What a weights file holds, and which weights are released, as plain JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tessera_cli.errors import UsageError
from tessera_cli.models import hub
from tessera_cli.models.layout import official_shapes
from tessera_cli.models.load import identify
from tessera_cli.models.model_config import ModelConfig
from tessera_cli.models.registry import available, get_spec, published
from tessera_cli.models.spec import HubFile, PackagedFile
from tessera_cli.sampling.statistics import (
    V1_0_STATISTICS,
    V1_1_STATISTICS,
    V2_STUDENT_STATISTICS,
    V2_TEACHER_STATISTICS,
    Statistics,
)

if TYPE_CHECKING:
    from tessera_cli.models.checkpoint import Checkpoint

SUFFIXES = (".pt", ".pth", ".safetensors")
_HEADS = ("s2_num_heads", "s1_num_heads")
_STATISTICS: Mapping[str, Statistics] = {
    "v1.0": V1_0_STATISTICS,
    **{f"v1.1 {source}": statistics for source, statistics in V1_1_STATISTICS.items()},
    "v2 student": V2_STUDENT_STATISTICS,
    "v2 teacher": V2_TEACHER_STATISTICS,
}
_BINS = ("num_obs_checkpoints", "save_embedding_dim", "disable_s1_ascending", "data_source")
_DRAWS = ("sample_size_s2", "sample_size_s1", "repeat_times", "min_valid_timesteps")
_UNRECORDED: Mapping[str, tuple[str, ...]] = {
    "v1.0-early": ("nhead", *_DRAWS),
    "v1.0-qat": ("nhead", *_DRAWS),
    "v1.1": (*_HEADS, *_BINS),
}
"""What official files of a family do not record, by official keys."""


def is_weights(path: Path) -> bool:
    """Return whether a file is for `describe_weights`, by its name."""
    return path.suffix.lower() in SUFFIXES


def describe_weights(path: Path, model_config: ModelConfig | None = None) -> dict[str, Any]:
    """Describe a weights file, of which every tensor is read; UsageError for anything that is not whole.

    `sizes` hold null for unknown heads of a v1.1 file; `not_recorded` lists by their official keys what
    the file cannot say: `model_config` can, else the values of the released models apply where there are any.
    """
    model_config = model_config or ModelConfig()
    checkpoint, unknown = _read(path, model_config)
    spec = identify(checkpoint, model_config)
    sizes = dataclasses.asdict(checkpoint.config)
    for key in unknown:
        sizes[key[:2]]["heads"] = None
    known = published(checkpoint.sha256)
    note = "for demonstration only" if spec.demonstration_only else None
    statistics = None  # those of the source, which must be given
    if spec.statistics is not None:
        statistics = next((name for name, one in _STATISTICS.items() if one == spec.statistics), "its own")
    return {
        "path": str(path),
        "bytes": path.stat().st_size,
        "sha256": checkpoint.sha256,
        "model": spec.name,
        "family": checkpoint.family,
        "name": None if known is None else known.name,
        "published": known is not None,
        "card": {"name": spec.name, "note": note} if checkpoint.card else None,
        "sizes": sizes,
        "tensors": len(checkpoint.encoder.state_dict() if checkpoint.card else official_shapes(checkpoint.config)),
        "parameters": sum(p.numel() for p in checkpoint.encoder.parameters()),
        "statistics": statistics,
        "dims": list(spec.dims),
        "source": spec.source,
        "quantiser": spec.quantiser,
        "observations": spec.observations.to_dict(),
        "use_ascending": spec.use_ascending,
        "not_recorded": [key for key in _UNRECORDED.get(spec.family, ()) if not checkpoint.card or "head" not in key],
    }


def released() -> list[dict[str, Any]]:
    """Return the released models, whether their weights are here, and where; no file is opened."""
    found = []
    for spec in map(get_spec, available()):
        weights = spec.weights
        assert weights is not None  # of every model that is offered
        path = hub.cached(weights)
        origin: dict[str, Any] = {"url": None, "file": None, "sha256": None, "bytes": None}
        if isinstance(weights, HubFile):
            origin = {"url": weights.url, "file": weights.path, "sha256": weights.sha256, "bytes": weights.bytes}
        if path is not None:
            origin["bytes"] = path.stat().st_size
        here = {
            "cached": path is not None and isinstance(weights, HubFile),
            "packaged": isinstance(weights, PackagedFile),
            "path": None if path is None else str(path),
        }
        found.append({"name": spec.name, "family": spec.family, **origin, **here})
    return found


def pull(name: str) -> dict[str, Any]:
    """Return where the weights of a released model are, downloaded if need be, and the SHA-256 they were checked by."""
    spec = get_spec(name)
    if spec.weights is None:
        raise UsageError(f"{name} has no weights. Choose one of {', '.join(available())}.")
    path = hub.fetch(spec.weights)
    sha256 = spec.weights.sha256 if isinstance(spec.weights, HubFile) else None
    return {"name": name, "path": str(path), "bytes": path.stat().st_size, "sha256": sha256}


def _read(path: Path, model_config: ModelConfig) -> tuple[Checkpoint, list[str]]:
    """Return the file, and the keys of unknown heads: every tensor of a v1.1 file can be checked without them."""
    from tessera_cli.models.checkpoint import read_checkpoint
    from tessera_cli.models.official import UnknownHeadsError

    try:
        return read_checkpoint(path, model_config), []
    except UnknownHeadsError:
        unknown = [key for key in _HEADS if key not in model_config]
        values = {**model_config.values, **dict.fromkeys(unknown, 1)}
        return read_checkpoint(path, ModelConfig(values, model_config.origin)), unknown
