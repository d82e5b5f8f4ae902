"""From what the user names, a model or a file, to a model that is ready to encode."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from tessera_cli.errors import UsageError
from tessera_cli.models import hub
from tessera_cli.models.spec import (
    DEFAULT_MODEL,
    REGISTRY,
    EncoderConfig,
    HubFile,
    ModelSpec,
    PackagedFile,
    spec_named,
)
from tessera_cli.models.statistics import V2_STUDENT, Statistics

if TYPE_CHECKING:
    import torch

    from tessera_cli.models.checkpoint import Checkpoint
    from tessera_cli.models.encoder import Encoder

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Model:
    """A model ready to encode."""

    spec: ModelSpec
    encoder: Encoder | None
    """float32, evaluation mode, without gradients; None for `null`."""
    sha256: str
    """Of the weights file; empty for `null`."""

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def config(self) -> EncoderConfig | None:
        """None for `null`."""
        return self.spec.config

    @property
    def device(self) -> str:
        """The kind of device that the encoder runs on: `cpu`, `cuda`."""
        return self.encoder.device.type if self.encoder else "cpu"

    @property
    def representation(self) -> int:
        """The length of an embedding before a prefix is taken."""
        return self.config.representation if self.config else self.spec.default_dims


def load_model(model: str | Path | None = None, *, weights: Path | None = None, device: str = "auto") -> Model:
    """A model by name, by the path of our own .safetensors (or a folder with one), or from an official checkpoint.

    With `weights` the family and the sizes come from that file, and a `model` name only checks them. The device
    `auto` is the first GPU where there is one, else the CPU.
    """
    loaded = _loaded(model, weights)
    if loaded.spec.demonstration_only:
        logger.warning("Model %s is for demonstration only: %s.", loaded.name, _reservation(loaded.spec))
    if loaded.encoder is not None:
        loaded.encoder.to(_device(device))
    return loaded


def describe_model(model: str | Path | None = None, weights: Path | None = None) -> ModelSpec:
    """What `load_model` would load. The weights of a released model are not touched; a file is read."""
    if weights is None and not _is_path(model):
        return spec_named(str(model or DEFAULT_MODEL))
    return _loaded(model, weights).spec


def _loaded(model: str | Path | None, weights: Path | None) -> Model:
    if weights is not None:
        return _from_weights(weights, None if model is None else str(model))
    if model is not None and _is_path(model):
        return _own(Path(model))
    return _released(spec_named(str(model or DEFAULT_MODEL)))


def _is_path(model: str | Path | None) -> bool:
    """Whether this names a file or a folder: released models come first."""
    if model is None or str(model) in REGISTRY:
        return False
    return Path(model).exists() or Path(model).suffix == ".safetensors"


def _released(spec: ModelSpec) -> Model:
    if isinstance(spec.weights, HubFile):
        checkpoint = _read(hub.fetch(spec.weights))
    elif isinstance(spec.weights, PackagedFile):
        source = resources.files(__package__) / "data" / spec.weights.name
        if not source.is_file():
            raise UsageError(f"--model {spec.name}: this installation lacks its weights. Install tessera-embed again.")
        with resources.as_file(source) as path:
            checkpoint = _read(path)
    else:
        return Model(spec, None, "")
    _check_sizes(checkpoint, spec)
    return Model(spec, checkpoint.encoder, checkpoint.sha256)


def _from_weights(path: Path, name: str | None) -> Model:
    asked = None if name is None else spec_named(name)
    if asked and not isinstance(asked.weights, HubFile):
        raise UsageError(f"--model {name} takes no --weights. Leave one of the two out.")
    checkpoint = _read(path)
    if asked:
        _check_sizes(checkpoint, asked)
    return Model(_spec_of(checkpoint), checkpoint.encoder, checkpoint.sha256)


def _own(path: Path) -> Model:
    checkpoint = _read(_safetensors_in(path))
    if not checkpoint.card:
        raise UsageError(f"{checkpoint.path} is an official checkpoint. Give it with --weights instead of --model.")
    return Model(_spec_of(checkpoint), checkpoint.encoder, checkpoint.sha256)


def _check_sizes(checkpoint: Checkpoint, spec: ModelSpec) -> None:
    if spec.config != checkpoint.config:
        raise UsageError(
            f"{checkpoint.path} is not a {spec.name}: it holds {_sizes(checkpoint.config)}, {spec.name} has "
            f"{_sizes(spec.config)}. Give it with --weights and no --model, or give the file that belongs to it."
        )


def _spec_of(checkpoint: Checkpoint) -> ModelSpec:
    """What a file is: one of our own says so in its card, an official one is known by its sizes and its SHA-256."""
    if checkpoint.card:
        return ModelSpec(
            _card_name(checkpoint),
            "v2-student",
            checkpoint.config,
            statistics=_card_statistics(checkpoint),
            dims=checkpoint.dims,
            demonstration_only=bool(checkpoint.card.get("demonstration_only", False)),
        )
    for spec in REGISTRY.values():
        if isinstance(spec.weights, HubFile) and spec.config == checkpoint.config:
            if spec.weights.sha256 == checkpoint.sha256:
                return spec
            sha256 = checkpoint.sha256[:12]
            logger.warning("%s is not the published %s, only of its size (%s…).", checkpoint.path, spec.name, sha256)
            return ModelSpec(spec.name, "v2-student", checkpoint.config, dims=checkpoint.dims)
    return ModelSpec("v2-student", "v2-student", checkpoint.config, dims=checkpoint.dims)


def _card_name(checkpoint: Checkpoint) -> str:
    name = checkpoint.card.get("name", checkpoint.path.stem)
    if not isinstance(name, str) or not name or not name.isprintable() or set(name) & set("/\\ "):
        raise UsageError(f"{checkpoint.path}: 'name' in its card cannot be used in file names. Export the model again.")
    return name


def _card_statistics(checkpoint: Checkpoint) -> Statistics:
    if "statistics" not in checkpoint.card:
        return V2_STUDENT
    try:
        return Statistics.from_card(checkpoint.card["statistics"])
    except (ValueError, AttributeError) as error:
        raise UsageError(f"{checkpoint.path}: its card is damaged: {error}. Export the model again.") from error


def _reservation(spec: ModelSpec) -> str:
    if spec.name == "demo":
        return "it was trained on simulated landscapes and means nothing on real imagery"
    return "its card says so, and its embeddings are not meant to be used"


def _safetensors_in(path: Path) -> Path:
    """The file itself, or the one in this folder or in its `export/`."""
    if not path.is_dir():
        return path
    for folder in (path, path / "export"):
        files = sorted(folder.glob("*.safetensors"))
        if len(files) == 1:
            return files[0]
        if files:
            raise UsageError(f"--model {path}: {folder} holds {len(files)} .safetensors files. Name one of them.")
    raise UsageError(f"--model {path}: there is no .safetensors file in this folder or its export/. Name the file.")


def _sizes(config: EncoderConfig | None) -> str:
    if config is None:
        return "no network"
    qk_norm = ", QK-norm" if config.qk_norm else ""
    return f"{config.layers} layers of width {config.width} (feed-forward {config.feedforward}{qk_norm})"


def _read(path: Path) -> Checkpoint:
    from tessera_cli.models import checkpoint

    return checkpoint.read(path)


def _device(name: str) -> torch.device:
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"--device {name} cannot be used here ({reason}). Try --device cpu.") from error
    return device
