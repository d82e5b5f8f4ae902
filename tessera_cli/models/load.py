"""From what the user names, a model or a file, to a model that is ready to encode."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tessera_cli.errors import UsageError, reason
from tessera_cli.models import hub
from tessera_cli.models.architecture import EncoderConfig, TransformerConfig
from tessera_cli.models.families import bind_source, family_spec, with_config
from tessera_cli.models.model_config import ModelConfig
from tessera_cli.models.registry import DEFAULT_MODEL, REGISTRY, get_spec, published
from tessera_cli.models.spec import HubFile, ModelSpec
from tessera_cli.sampling import RandomSampling
from tessera_cli.sampling.statistics import Statistics

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
    """Evaluation mode, without gradients; None for `null`."""
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
    def representation(self) -> int:
        """The length of an embedding before a prefix is taken."""
        return self.config.representation if self.config else self.spec.default_dims

    def bind_source(self, source: str | None) -> Model:
        """The model with the statistics for d-pixels of this source; UsageError if it must be told and is not."""
        spec = bind_source(self.spec, source)
        if spec is not self.spec and spec.name in REGISTRY:
            _warn_if_unpublished("The weights file", self.sha256, REGISTRY[spec.name])
        return dataclasses.replace(self, spec=spec)


def load_model(
    model: str | Path | None = None,
    *,
    weights: Path | None = None,
    model_config: ModelConfig = NO_CONFIG,
    device: str = "auto",
    precision: str = "auto",
) -> Model:
    """A model by name, by the path of our own .safetensors (or a folder with one), or from an official checkpoint.

    With `weights` the family and the sizes come from that file, and a `model` name only checks them; `model_config`
    supplies what the file does not record. The device `auto` is the first GPU where there is one, else the CPU; for
    `precision` see `models/precision.py`.
    """
    loaded = _loaded(model, weights, model_config)
    if loaded.spec.demonstration_only:
        logger.warning("Model %s is for demonstration only: %s.", loaded.name, _reservation(loaded.spec))
    return _ready(loaded, device, precision)


def read_model(model: str | Path) -> Model:
    """A released model, one of our own files or folders, or an official checkpoint, as plain float32 on the CPU.

    Unlike that of `load_model` its encoder can be trained on.
    """
    if _is_path(model) and Path(model).suffix in (".pt", ".pth"):
        return _loaded(None, Path(model), NO_CONFIG)
    return _loaded(model, None, NO_CONFIG)


def seeded_model(name: str, seed: int = 0, *, device: str = "auto", precision: str = "auto") -> Model:
    """A model of this name's shape with random weights, for measurements: nothing is downloaded."""
    spec = get_spec(name)
    if spec.config is None:
        return Model(spec, None, "")
    from tessera_cli.models.encoder import seeded

    return _ready(Model(spec, seeded(spec.config, seed), ""), device, precision)


def _ready(loaded: Model, device: str, precision: str) -> Model:
    if loaded.encoder is None:
        return loaded
    from tessera_cli.models.precision import prepare, resolve

    loaded.encoder.to(get_device(device))
    resolved = resolve(precision, loaded.encoder.device)
    prepare(loaded.encoder, resolved)
    return dataclasses.replace(loaded, precision=resolved)


def describe_model(
    model: str | Path | None = None, weights: Path | None = None, model_config: ModelConfig = NO_CONFIG
) -> ModelSpec:
    """What `load_model` would load. The weights of a released model are not touched; a file is read."""
    if weights is None and not _is_path(model):
        return with_config(get_spec(str(model or DEFAULT_MODEL)), model_config)
    return _loaded(model, weights, model_config).spec


def spec_of(checkpoint: Checkpoint, model_config: ModelConfig = NO_CONFIG) -> ModelSpec:
    """What a file is: one of our own says so in its card, an official one is known by its sizes and its SHA-256."""
    family, config = checkpoint.family, checkpoint.config
    dims = {} if checkpoint.dims is None else {"dims": checkpoint.dims}
    if checkpoint.card:
        more = dims | _card_training(checkpoint)
        spec = family_spec(
            family,
            _card_name(checkpoint),
            config,
            **more,
            statistics=_card_statistics(checkpoint),
            demonstration_only=bool(checkpoint.card.get("demonstration_only", False)),
        )
        return with_config(spec, model_config)
    if (known := published(checkpoint.sha256)) is not None:
        if known.config != config:
            raise UsageError(
                f"{model_config.origin}: {checkpoint.path} is the published {known.name}, which holds "
                f"{sizes_text(known.config)}. Leave out sizes that differ."
            )
        return with_config(known, model_config)
    alike = [spec for spec in REGISTRY.values() if isinstance(spec.weights, HubFile) and spec.config == config]
    if len(alike) == 1:
        _warn_if_unpublished(checkpoint.path, checkpoint.sha256, alike[0])
        return with_config(family_spec(family, alike[0].name, config, **dims), model_config)
    name = family if alike else f"{family}-own"  # the size of both v1.1 models: whose it is has yet to be said
    return with_config(family_spec(family, name, config, **dims), model_config)


def _loaded(model: str | Path | None, weights: Path | None, model_config: ModelConfig) -> Model:
    if weights is not None:
        return _from_weights(weights, None if model is None else str(model), model_config)
    if model is not None and _is_path(model):
        return _own(Path(model), model_config)
    return _released(get_spec(str(model or DEFAULT_MODEL)), model_config)


def _is_path(model: str | Path | None) -> bool:
    """Whether this names a file or a folder: released models come first."""
    if model is None or str(model) in REGISTRY:
        return False
    return Path(model).exists() or Path(model).suffix == ".safetensors"


def _released(spec: ModelSpec, model_config: ModelConfig) -> Model:
    if spec.weights is None:
        return Model(spec, None, "")
    checkpoint = _read(hub.fetch(spec.weights), model_config)
    _check_kind(checkpoint, spec)
    return Model(with_config(spec, model_config), checkpoint.encoder, checkpoint.sha256)


def _from_weights(path: Path, name: str | None, model_config: ModelConfig) -> Model:
    asked = None if name is None else get_spec(name)
    if asked and not isinstance(asked.weights, HubFile):
        raise UsageError(f"--model {name} takes no --weights. Leave one of the two out.")
    checkpoint = _read(path, model_config)
    spec = spec_of(checkpoint, model_config)
    if asked:
        _check_kind(checkpoint, asked)
        if asked.source is not None:  # v1.1-mpc and v1.1-aws differ in nothing that the file shows
            _warn_if_unpublished(checkpoint.path, checkpoint.sha256, asked)
            spec = with_config(spec, ModelConfig({"data_source": asked.source}, f"--model {name}"))
    return Model(spec, checkpoint.encoder, checkpoint.sha256)


def _own(path: Path, model_config: ModelConfig) -> Model:
    checkpoint = _read(_safetensors_in(path), model_config)
    if not checkpoint.card:
        raise UsageError(f"{checkpoint.path} is an official checkpoint. Give it with --weights instead of --model.")
    return Model(spec_of(checkpoint, model_config), checkpoint.encoder, checkpoint.sha256)


def _check_kind(checkpoint: Checkpoint, spec: ModelSpec) -> None:
    if spec.config != checkpoint.config or spec.family != checkpoint.family:
        raise UsageError(
            f"{checkpoint.path} is not a {spec.name}: it is a {checkpoint.family} and holds "
            f"{sizes_text(checkpoint.config)}; {spec.name} has {sizes_text(spec.config)}. Give it with --weights and "
            "no --model, or give the file that belongs to it."
        )


def _warn_if_unpublished(what: object, sha256: str, spec: ModelSpec) -> None:
    known = spec.weights.sha256 if isinstance(spec.weights, HubFile) else None
    if known not in (None, sha256):
        logger.warning("%s is not the published %s, only of its size (%s…).", what, spec.name, sha256[:12])


def _card_name(checkpoint: Checkpoint) -> str:
    name = checkpoint.card.get("name", checkpoint.path.stem)
    if not isinstance(name, str) or not name or not name.isprintable() or set(name) & set("/\\ "):
        raise UsageError(f"{checkpoint.path}: 'name' in its card cannot be used in file names. Export the model again.")
    return name


def _card_statistics(checkpoint: Checkpoint) -> Statistics | None:
    if "statistics" not in checkpoint.card:
        return family_spec(checkpoint.family, "", checkpoint.config).statistics
    try:
        return Statistics.from_card(checkpoint.card["statistics"])
    except (ValueError, AttributeError) as error:
        raise UsageError(f"{checkpoint.path}: its card is damaged: {error}. Export the model again.") from error


def _card_training(checkpoint: Checkpoint) -> dict[str, Any]:
    """What `tessera pretrain` says of the d-pixels it trained on, as fields of `ModelSpec`."""
    fields: dict[str, Any] = {}
    if (source := checkpoint.card.get("source")) is not None:
        if source not in ("mpc", "aws"):
            raise UsageError(f"{checkpoint.path}: 'source' in its card is neither mpc nor aws. Export the model again.")
        fields |= {"source": source, "warn_sources": ()}
    if (drawn := checkpoint.card.get("n_obs")) is not None:
        rule = family_spec(checkpoint.family, "", checkpoint.config).observations
        if not isinstance(rule, RandomSampling) or type(drawn) is not int or drawn < 1:
            raise UsageError(f"{checkpoint.path}: 'n_obs' in its card fits no such model. Export the model again.")
        fields["observations"] = dataclasses.replace(rule, s2=drawn, s1=drawn)
    return fields


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


def sizes_text(config: EncoderConfig | None) -> str:
    if config is None:
        return "no network"

    def stack(stack: TransformerConfig) -> str:
        return f"{stack.layers} layers of width {config.width}, {stack.heads} heads, feed-forward {stack.feedforward}"

    both = stack(config.s2) if config.s2 == config.s1 else f"{stack(config.s2)} and {stack(config.s1)}"
    qk_norm = ", QK-norm" if config.qk_norm else ""
    final_norm = "" if config.final_norm else ", no final norm"
    return f"{both}{qk_norm}{final_norm}, fusion {config.fusion}, {config.representation} values"


def _read(path: Path, model_config: ModelConfig) -> Checkpoint:
    from tessera_cli.models import checkpoint

    return checkpoint.read(path, model_config)


def get_device(name: str, number: int | None = None) -> torch.device:
    """`auto`, `cpu`, `cuda`, `cuda:1`; `number`: which GPU, where none is named. UsageError if it cannot be used."""
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
