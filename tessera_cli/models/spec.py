"""A model: everything that follows from its name, or from the file it was read from."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from typing import Any, Literal

from tessera_cli.errors import IdentityError, UsageError
from tessera_cli.models.architecture import EncoderConfig
from tessera_cli.models.model_config import ModelConfig, V1_0Keys, V1_1Keys
from tessera_cli.models.quantise import Quantiser
from tessera_cli.sampling import V2_RULE, BucketedSampling, ObservationRule, RandomSampling
from tessera_cli.sampling.statistics import V1_1_STATISTICS, V2_STUDENT_STATISTICS, Statistics

logger = logging.getLogger(__name__)

Family = Literal["v1.0-early", "v1.0-qat", "v1.1", "v2-student", "v2-teacher", "band-means"]
FAMILIES: tuple[Family, ...] = ("v1.0-early", "v1.0-qat", "v1.1", "v2-student", "v2-teacher")
"""Those with a network."""


@dataclass(frozen=True)
class HubFile:
    """One file in a Hugging Face repository."""

    repo: str
    path: str
    bytes: int | None = None
    """None if unknown."""
    sha256: str | None = None
    """None if unknown: the download cannot be checked."""

    @property
    def url(self) -> str:
        return f"https://huggingface.co/{self.repo}"


@dataclass(frozen=True)
class PackagedFile:
    """One file in `tessera_cli/models/data`."""

    name: str


@dataclass(frozen=True)
class ModelSpec:
    """Everything that follows from the choice of a model."""

    name: str
    family: Family
    config: EncoderConfig | None
    """None if there is no network."""
    weights: HubFile | PackagedFile | None = None
    """None if there are none, or the user brought a file of their own."""
    statistics: Statistics | None = V2_STUDENT_STATISTICS
    """None if they depend on the source and nobody has named it yet (`bind_source`)."""
    observations: ObservationRule = V2_RULE
    quantiser: Quantiser | None = "v2"
    """None if embeddings are float32 only."""
    dims: tuple[int, ...] = (16, 32, 64, 128)
    """Prefixes of the embedding that may be stored on their own (slices, not renormalised)."""
    source: str | None = None
    """The only source of d-pixels that the model is made for; None if it has no preference."""
    warning: str = ""
    """What users of its embeddings must know; `{model}` and `{source}` stand for names. Empty for none."""
    warn_sources: tuple[str, ...] = ()
    """The sources that cause the warning."""
    use_ascending: bool = True
    """Whether ascending Sentinel-1 passes are used (`disable_s1_ascending`)."""
    demonstration_only: bool = False
    hidden: bool = False

    @property
    def default_dims(self) -> int:
        return max(self.dims)

    def with_config(self, model_config: ModelConfig) -> ModelSpec:
        """Return the model with the user's configuration: observations, stored values, source of the d-pixels."""
        rule = self.observations
        if isinstance(rule, RandomSampling):
            given = model_config.parse(V1_0Keys).model_dump(exclude_unset=True, exclude={"nhead"})
            return dataclasses.replace(self, observations=dataclasses.replace(rule, **given))
        if self.family != "v1.1" or not isinstance(rule, BucketedSampling) or self.config is None:
            return self
        keys = model_config.parse(V1_1Keys)
        saved = keys.save_embedding_dim or self.default_dims
        if saved > self.config.representation:
            raise UsageError(
                f"{model_config.origin}: save_embedding_dim is {saved}, but the model gives "
                f"{self.config.representation} values. Give fewer."
            )
        if keys.data_source and self.source and keys.data_source != self.source:
            raise IdentityError(
                f"{model_config.origin}: data_source is {keys.data_source}, but {self.name} was trained on "
                f"{self.source}. Correct one of them."
            )
        spec = dataclasses.replace(
            self,
            dims=self.dims if saved == self.default_dims else (saved,),
            observations=dataclasses.replace(rule, bins=tuple(keys.num_obs_checkpoints) or rule.bins),
            use_ascending=self.use_ascending and not keys.disable_s1_ascending,
        )
        return spec.bind_source(keys.data_source) if keys.data_source else spec

    def bind_source(self, source: str | None) -> ModelSpec:
        """Return the model with the statistics of this source, if it has none; UsageError if the source is unknown."""
        if self.statistics is not None:
            return self
        if source not in V1_1_STATISTICS:
            raise UsageError(
                f"{self.name}: neither the weights nor the d-pixels say which data the model was trained on. "
                "Say it with --source mpc or --source aws (or data_source in --model-config)."
            )
        name = f"{self.name}-{source}" if self.name == self.family else self.name  # of the released size: v1.1-mpc
        return dataclasses.replace(self, name=name, source=source, statistics=V1_1_STATISTICS[source])

    def check_dims(self, dims: int | None) -> int:
        """Return `dims` if the model offers it, its default for None, else raise UsageError."""
        if dims is None:
            return self.default_dims
        if dims not in self.dims:
            raise UsageError(f"--dims {dims}: {self.name} offers {', '.join(map(str, self.dims))}. Choose one of them.")
        return dims

    def check_dtype(self, dtype: str) -> None:
        """Raise UsageError if the model's embeddings cannot be stored in this type."""
        if dtype == "int8" and self.quantiser is None:
            raise UsageError(
                f"--dtype int8: {self.name} gives float32 embeddings of {self.default_dims} bands only. "
                "Add --dtype float32."
            )

    def check_source(self, source: str | None, *, force: bool = False) -> None:
        """Raise IdentityError if the model is made for another source, unless forced; log the model's warning."""
        if source is not None and self.source is not None and source != self.source:
            text = f"{self.name} was trained on d-pixels of source {self.source}, and these are of {source}"
            if not force:
                raise IdentityError(f"{text}. Choose another --source or --model, or insist with --force-source.")
            logger.warning("%s; --force-source lets it pass. Its embeddings may mean little.", text)
        if source in self.warn_sources:
            logger.warning("%s", self.warning.format(model=self.name, source=source))

    def identity(self) -> dict[str, Any] | None:
        """Return what its embeddings depend on besides the weights, as plain JSON; None without a network."""
        if self.config is None:
            return None
        return {
            **dataclasses.asdict(self.config),
            "family": self.family,
            "source": self.source,
            "observations": self.observations.to_dict(),
            "use_ascending": self.use_ascending,
        }


def describe_sizes(config: EncoderConfig | None) -> str:
    """Return the sizes of an encoder in words, for messages."""
    if config is None:
        return "no network"
    stacks = [
        f"{stack.layers} layers of width {config.width}, {stack.heads} heads, feed-forward {stack.feedforward}"
        for stack in (config.s2, config.s1)
    ]
    qk_norm = ", QK-norm" if config.qk_norm else ""
    final_norm = "" if config.final_norm else ", no final norm"
    sizes = " and ".join(dict.fromkeys(stacks))
    return f"{sizes}{qk_norm}{final_norm}, fusion {config.fusion}, {config.representation} values"
