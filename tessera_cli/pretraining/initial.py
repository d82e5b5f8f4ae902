"""What a run starts from: --init-from, its shape, and the band statistics that it was trained with."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tessera_cli.errors import IdentityError, UsageError
from tessera_cli.models.encoder import Encoder
from tessera_cli.models.load import Model, read_model
from tessera_cli.models.registry import get_spec
from tessera_cli.models.spec import describe_sizes
from tessera_cli.pretraining import checkpoint
from tessera_cli.pretraining.config import PretrainConfig, TrainedModelConfig, ViewConfig
from tessera_cli.pretraining.config_file import load_config
from tessera_cli.pretraining.data.shards import Shards
from tessera_cli.pretraining.presets import PRESETS, Values
from tessera_cli.sampling.statistics import Statistics

logger = logging.getLogger(__name__)

GENTLE = 2e-4
"""Learning rate of an encoder that goes on: a tenth of the usual one, at which it forgets little."""


@dataclass(frozen=True, eq=False)
class Initial:
    """A model, or a checkpoint of a run, that --init-from names."""

    name: str
    model: Model | None
    """None for a checkpoint."""

    @classmethod
    def of(cls, name: str | Path) -> Initial:
        """Read what is named as --model names it, an official checkpoint, or one of a run; errors as `read_model`."""
        path = Path(name)
        if path.is_file() and checkpoint.is_checkpoint(path):
            return cls(str(name), None)
        official = path.is_file() and path.suffix in (".pt", ".pth")
        return cls(str(name), read_model(weights=path) if official else read_model(name))

    @property
    def preset(self) -> Values:
        """Return the sections that take its shape, and a learning rate; none where a preset must say the shape.

        A checkpoint does not know all of its shape, but the settings of its run do.
        """
        if self.model is None:
            try:
                known = load_config(path=Path(self.name).absolute().parent.parent / "config.toml")
            except UsageError:  # copied elsewhere; what lies there, if anything, is not of its run
                return {}
            section = known.model.model_dump(mode="json", exclude={"name", "dropout"})
            family = section["family"]
        elif (config := self.model.config) is None:
            return {}
        else:
            family = self.model.spec.family
            sizes = {key: getattr(config.s2, key) for key in ("layers", "heads", "feedforward")}
            section = {"family": family, "latent": config.latent, **sizes, "pooling": config.pooling}
            section["representation"] = config.representation
            try:
                if TrainedModelConfig(**section).encoder != config:
                    return {}
            except ValidationError:  # of a shape that cannot be trained
                return {}
        sections: dict[str, dict[str, Any]] = {"model": section, "optim": {"lr": GENTLE}}
        if family.startswith("v1"):
            views = ViewConfig.model_validate(PRESETS["v1.1" if family == "v1.1" else "v1.0"]["views"])
            sections["views"] = views.model_dump(mode="json")
        return sections

    def encoder(self, config: PretrainConfig) -> tuple[Encoder, Statistics | None]:
        """Return encoder and band statistics (None if unknown); UsageError if it is of another shape than asked."""
        wanted = config.model.encoder
        if self.model is None:
            return checkpoint.read_encoder(Path(self.name), wanted)
        model = self.model
        if model.encoder is None or model.config != wanted or model.spec.family != config.model.family:
            raise UsageError(
                f"--init-from {self.name}: it is a {model.spec.family} with {describe_sizes(model.config)}, and the "
                f"settings say {config.model.family} with {describe_sizes(wanted)}. Choose the preset of its shape, or "
                "leave --preset and model.* out."
            )
        if model.spec.statistics is None:
            text = "--init-from does not say what its d-pixels were standardised with; make sure it is the same."
            logger.warning(text)
        return model.encoder, model.spec.statistics


def resolve_statistics(config: PretrainConfig, expected: Statistics | None) -> PretrainConfig:
    """Return the config with what `data.statistics = auto` stands for; `expected`: those of --init-from."""
    if config.data.statistics != "auto":
        return config
    chosen: dict[str, Any] = {"statistics": "own" if expected is None else "init"}
    return config.model_copy(update={"data": config.data.model_copy(update=chosen)})


def choose_statistics(config: PretrainConfig, shards: Shards, expected: Statistics | None) -> Statistics:
    """Return the band statistics of `data.statistics`; IdentityError if the initial weights expect others."""
    wanted = config.data.statistics
    if wanted == "init":
        if expected is None:
            raise UsageError("data.statistics = init takes those of --init-from, which is missing or has none.")
        return expected
    if wanted == "own":
        chosen = shards.statistics
    else:
        spec = get_spec(wanted).bind_source(None)
        if spec.statistics is None or spec.config is None:
            raise UsageError(f"data.statistics = {wanted}: that model has none. Name another.")
        chosen = spec.statistics
    if expected is not None and expected != chosen:
        raise IdentityError(
            "--init-from was trained on d-pixels standardised with other statistics. Use its own: "
            "--set data.statistics=init."
        )
    return chosen
