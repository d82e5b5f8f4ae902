"""From what the user names (a released model, a file or folder of ours, an official checkpoint) to a `Model`.

Top to bottom: `load_model` prepares what `read_model` reads for a device; `identify` tells which model a file is.
"""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tessera_cli.errors import UsageError, reason
from tessera_cli.models import hub
from tessera_cli.models.architecture import EncoderConfig
from tessera_cli.models.families import family_spec
from tessera_cli.models.model_config import AnyModelConfig, ModelConfig
from tessera_cli.models.registry import DEFAULT_MODEL, REGISTRY, get_spec, published
from tessera_cli.models.spec import HubFile, ModelSpec, describe_sizes

if TYPE_CHECKING:
    import torch

    from tessera_cli.models.checkpoint import Checkpoint
    from tessera_cli.models.encoder import Encoder
    from tessera_cli.models.precision import Precision

logger = logging.getLogger(__name__)

NO_CONFIG = ModelConfig()


@dataclass(frozen=True, eq=False)
class Model:
    """A model ready to encode."""

    spec: ModelSpec
    encoder: Encoder | None
    """In evaluation mode, without gradients; None for `null`."""
    sha256: str
    """Of the weights file; empty for `null`."""
    precision: Precision = "fp32"

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
    def arithmetic(self) -> str:
        """What the last bits of embeddings depend on besides the model: versions of libraries, instructions."""
        if self.encoder is None:
            return ""
        from tessera_cli.models.precision import arithmetic

        return arithmetic(self.encoder.device)

    @property
    def representation(self) -> int:
        """Length of an embedding before a prefix is taken."""
        return self.config.representation if self.config else self.spec.default_dims

    def bind_source(self, source: str | None) -> Model:
        """Return the model with the statistics for d-pixels of this source; UsageError if it needs one and has none."""
        spec = self.spec.bind_source(source)
        if spec is not self.spec and spec.name in REGISTRY:
            _warn_if_unpublished("The weights file", self.sha256, REGISTRY[spec.name])
        return dataclasses.replace(self, spec=spec)


def load_model(
    model: str | Path | None = None,
    *,
    weights: str | Path | None = None,
    model_config: AnyModelConfig | None = None,
    device: str = "auto",
    precision: Literal["auto", "fp32", "bf16", "int8"] = "auto",
) -> Model:
    """Return a model that is ready to encode. Released weights are downloaded once and checked against their SHA-256.

    Args:
        model: Name of a released model (default `v2-medium`), or path of a .safetensors file or its folder.
        weights: Path of an official checkpoint; the model is read from it, and `model` only checks it.
        model_config: What v1.x checkpoints do not record: path of a JSON file, or a mapping in its words.
        device: `auto` (the first GPU, else the CPU), `cpu`, `cuda` or `cuda:1`.
        precision: `fp32` is exact; `auto` is bf16 on a GPU that has it, else fp32.

    Raises:
        UsageError: For names, files and devices that cannot be used.
        IdentityError: If `data_source` of the configuration contradicts the model.
        SourceRefusedError, SourceUnavailableError: If weights must be downloaded and cannot be.
    """
    path = None if weights is None else Path(weights)
    loaded = read_model(model, weights=path, model_config=ModelConfig.of(model_config))
    if loaded.spec.demonstration_only:
        reservation = "its card says so, and its embeddings are not meant to be used"
        if loaded.name == "demo":
            reservation = "of real fields it tells less than their plain time series"
        logger.warning("Model %s is for demonstration only: %s.", loaded.name, reservation)
    return prepare_model(loaded, device, precision)


def read_model(
    model: str | Path | None = None, *, weights: Path | None = None, model_config: ModelConfig = NO_CONFIG
) -> Model:
    """Return the model that `load_model` would, as plain float32 on the CPU: its encoder can be trained on."""
    if weights is None and model is not None and is_path(model):
        named, path = None, _find_safetensors(Path(model))
    elif weights is not None and model is None:
        named, path = None, weights
    else:
        named = get_spec(str(model or DEFAULT_MODEL))
        if weights is not None and not isinstance(named.weights, HubFile):
            raise UsageError(f"--model {model} takes no --weights. Leave one of the two out.")
        if named.weights is None:
            return Model(named, None, "")
        path = weights or hub.fetch(named.weights)

    from tessera_cli.models.checkpoint import read_checkpoint

    checkpoint = read_checkpoint(path, model_config)
    if named is not None:
        _check_kind(checkpoint, named)
    if named is not None and weights is None:
        spec = named.with_config(model_config)
    elif weights is None and checkpoint.card is None:
        raise UsageError(f"{path} is an official checkpoint. Give it with --weights instead of --model.")
    else:
        spec = identify(checkpoint, model_config)
    if named is not None and weights is not None and named.source is not None:
        # v1.1-mpc and v1.1-aws differ in nothing that the file shows
        _warn_if_unpublished(path, checkpoint.sha256, named)
        spec = spec.with_config(ModelConfig({"data_source": named.source}, f"--model {model}"))
    return Model(spec, checkpoint.encoder, checkpoint.sha256)


def describe_model(
    model: str | Path | None = None, weights: str | Path | None = None, model_config: AnyModelConfig | None = None
) -> ModelSpec:
    """Return the spec that `load_model` would; a file is read, but not the weights of a released model."""
    known = ModelConfig.of(model_config)
    if weights is None and (model is None or not is_path(model)):
        return get_spec(str(model or DEFAULT_MODEL)).with_config(known)
    path = None if weights is None else Path(weights)
    return read_model(model, weights=path, model_config=known).spec


def identify(checkpoint: Checkpoint, model_config: ModelConfig = NO_CONFIG) -> ModelSpec:
    """Return which model a file is: ours say so in their card, official ones show it by their sizes and SHA-256."""
    family, config, card = checkpoint.family, checkpoint.config, checkpoint.card
    dims = {} if checkpoint.dims is None else {"dims": checkpoint.dims}
    if card is not None:
        spec = family_spec(family, card.name, config, **dims, **card.spec_fields())
    elif (known := published(checkpoint.sha256)) is not None:
        if known.config != config:
            raise UsageError(
                f"{model_config.origin}: {checkpoint.path} is the published {known.name}, which holds "
                f"{describe_sizes(known.config)}. Leave out sizes that differ."
            )
        spec = known
    else:
        alike = [spec for spec in REGISTRY.values() if isinstance(spec.weights, HubFile) and spec.config == config]
        name: str = family if alike else f"{family}-own"
        if len(alike) == 1:  # the size of both v1.1 models does not tell which of them it is
            name = alike[0].name
            _warn_if_unpublished(checkpoint.path, checkpoint.sha256, alike[0])
        spec = family_spec(family, name, config, **dims)
    return spec.with_config(model_config)


def is_path(model: str | Path) -> bool:
    """Return whether this names a file or a folder; the names of released models come first."""
    return str(model) not in REGISTRY and (Path(model).exists() or Path(model).suffix == ".safetensors")


def _find_safetensors(path: Path) -> Path:
    """Return the file itself, or the one in this folder or in its `export/`."""
    if not path.is_dir():
        return path
    for folder in (path, path / "export"):
        files = sorted(folder.glob("*.safetensors"))
        if len(files) == 1:
            return files[0]
        if files:
            raise UsageError(f"--model {path}: {folder} holds {len(files)} .safetensors files. Name one of them.")
    raise UsageError(f"--model {path}: there is no .safetensors file in this folder or its export/. Name the file.")


def _check_kind(checkpoint: Checkpoint, spec: ModelSpec) -> None:
    if spec.config != checkpoint.config or spec.family != checkpoint.family:
        raise UsageError(
            f"{checkpoint.path} is not a {spec.name}: it is a {checkpoint.family} and holds "
            f"{describe_sizes(checkpoint.config)}; {spec.name} has {describe_sizes(spec.config)}. Give it with "
            "--weights and no --model, or give the file that belongs to it."
        )


def _warn_if_unpublished(what: object, sha256: str, spec: ModelSpec) -> None:
    known = spec.weights.sha256 if isinstance(spec.weights, HubFile) else None
    if known not in (None, sha256):
        logger.warning("%s is not the published %s, only of its size (%s…).", what, spec.name, sha256[:12])


def prepare_model(model: Model, device: str, precision: str) -> Model:
    """Return what `read_model` gave on its device, in its precision."""
    if model.encoder is None:
        return model
    from tessera_cli.models.precision import prepare, resolve

    model.encoder.to(get_device(device))
    resolved = resolve(precision, model.encoder.device)
    prepare(model.encoder, resolved)
    return dataclasses.replace(model, precision=resolved)


def get_device(name: str, number: int | None = None) -> torch.device:
    """Return the device `auto`, `cpu`, `cuda` or `cuda:1`; UsageError if it cannot be used.

    `number` is the GPU to take where the name has none.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and number is not None:
        name = f"cuda:{number}"
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):
            raise RuntimeError("only cpu and cuda can encode")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device {name} cannot be used here ({reason(error)}). Try --device cpu.") from error
    return device
