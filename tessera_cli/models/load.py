"""From what the user names, a model or a file, to a model that is ready to encode."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from tessera_cli.errors import IdentityError, UsageError
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
from tessera_cli.models.statistics import Statistics

if TYPE_CHECKING:
    import torch

    from tessera_cli.models.checkpoint import Checkpoint
    from tessera_cli.models.encoder import Encoder

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Model:
    """A model ready to encode."""

    spec: ModelSpec
    config: EncoderConfig | None
    """None for `null`."""
    encoder: Encoder | None
    """float32, evaluation mode, without gradients; None for `null`."""
    sha256: str
    """Of the weights file; empty for `null`."""

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def device(self) -> str:
        """Where the encoder runs, such as `cpu` or `cuda:0`."""
        return str(self.encoder.device) if self.encoder else "cpu"

    @property
    def representation(self) -> int:
        """The length of an embedding before a prefix is taken."""
        return self.config.representation if self.config else self.spec.default_dims


def load_model(model: str | Path | None = None, *, weights: Path | None = None, device: str = "cpu") -> Model:
    """A model by name, by the path of our own .safetensors (or a folder with one), or from an official checkpoint.

    With `weights` the family and the sizes come from that file, and a `model` name only checks them.
    """
    if weights is not None:
        loaded = _from_weights(weights, None if model is None else str(model))
    elif model is None:
        loaded = _released(REGISTRY[DEFAULT_MODEL])
    elif str(model) in REGISTRY:
        loaded = _released(REGISTRY[str(model)])
    elif Path(model).exists() or Path(model).suffix == ".safetensors":
        loaded = _own(_read(_safetensors_in(Path(model))))
    else:
        loaded = _released(spec_named(str(model)))
    if loaded.encoder is not None and loaded.spec.demonstration_only:
        logger.warning("Model %s is for demonstration only: its embeddings mean nothing outside it.", loaded.name)
    if loaded.encoder is not None:
        loaded.encoder.to(_device(device))
    return loaded


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
        return Model(spec, None, None, "")
    own = _own(checkpoint) if checkpoint.card else None
    statistics = own.spec.statistics if own else spec.statistics
    spec = dataclasses.replace(spec, config=checkpoint.config, dims=checkpoint.dims, statistics=statistics)
    return Model(spec, checkpoint.config, checkpoint.encoder, checkpoint.sha256)


def _from_weights(path: Path, name: str | None) -> Model:
    asked = None if name is None else spec_named(name)
    if asked and not isinstance(asked.weights, HubFile):
        raise UsageError(f"--model {name} takes no --weights. Leave one of the two out.")
    checkpoint = _read(path)
    if asked and asked.config != checkpoint.config:
        raise IdentityError(
            f"{path} is not a {name}: it holds {_sizes(checkpoint.config)}, {name} has {_sizes(asked.config)}. "
            "Leave --model out, or give the file that belongs to it."
        )
    if checkpoint.card:
        return _own(checkpoint)
    published = [spec for spec in REGISTRY.values() if isinstance(spec.weights, HubFile)]
    alike = next((spec for spec in published if spec.config == checkpoint.config), None)
    if alike and isinstance(alike.weights, HubFile) and alike.weights.sha256 == checkpoint.sha256:
        return Model(alike, checkpoint.config, checkpoint.encoder, checkpoint.sha256)
    if alike:
        logger.warning("%s is not the published %s, only of its size (%s…).", path, alike.name, checkpoint.sha256[:12])
    spec = ModelSpec(alike.name if alike else "v2-student", "v2-student", checkpoint.config, dims=checkpoint.dims)
    spec = dataclasses.replace(spec, default_dims=max(checkpoint.dims))
    return Model(spec, checkpoint.config, checkpoint.encoder, checkpoint.sha256)


def _own(checkpoint: Checkpoint) -> Model:
    """A file of our own: its card says what it is."""
    card = checkpoint.card
    if not card:
        raise UsageError(f"{checkpoint.path} is an official checkpoint. Give it with --weights instead of --model.")
    name = card.get("name", checkpoint.path.stem)
    if not isinstance(name, str) or not name or not name.isprintable() or set(name) & set("/\\ "):
        raise UsageError(f"{checkpoint.path}: 'name' in its card cannot be used in file names. Export the model again.")
    spec = ModelSpec(
        name,
        "v2-student",
        checkpoint.config,
        dims=checkpoint.dims,
        default_dims=max(checkpoint.dims),
        demonstration_only=bool(card.get("demonstration_only", False)),
    )
    if "statistics" in card:
        try:
            spec = dataclasses.replace(spec, statistics=Statistics.from_card(card["statistics"]))
        except (ValueError, AttributeError) as error:
            raise UsageError(f"{checkpoint.path}: its card is damaged: {error}. Export the model again.") from error
    return Model(spec, checkpoint.config, checkpoint.encoder, checkpoint.sha256)


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

    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"--device {name} cannot be used here ({reason}). Try --device cpu.") from error
    return device
