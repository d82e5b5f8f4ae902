"""A model: everything that follows from its name, or from the file it was read from."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from typing import Any, Literal

from tessera_cli.errors import IdentityError, UsageError
from tessera_cli.models.architecture import EncoderConfig
from tessera_cli.models.quantise import Quantiser
from tessera_cli.sampling import V2_RULE, ObservationRule
from tessera_cli.sampling.statistics import V2_STUDENT, Statistics

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
    """None: not known."""
    sha256: str | None = None
    """None: not known, so the download cannot be checked."""

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
    """None: there is no network."""
    weights: HubFile | PackagedFile | None = None
    """None: there are none, or the user brought a file of their own."""
    statistics: Statistics | None = V2_STUDENT
    """None: they depend on the source, and nobody has said it yet (`families.bind_source`)."""
    observations: ObservationRule = V2_RULE
    quantiser: Quantiser | None = "v2"
    """None: the embeddings are float32 only."""
    dims: tuple[int, ...] = (16, 32, 64, 128)
    """Prefixes of the embedding that may be stored on their own (slices, not renormalised)."""
    source: str | None = None
    """The source of the d-pixels it was trained on, if it understands no other."""
    warning: str = ""
    """What users of its embeddings must know; `{model}` and `{source}` stand for names. Empty: nothing."""
    warn_sources: tuple[str, ...] = ()
    """The sources that deserve the warning."""
    use_ascending: bool = True
    """False: ascending passes are left out (`disable_s1_ascending`)."""
    demonstration_only: bool = False
    hidden: bool = False

    @property
    def default_dims(self) -> int:
        return max(self.dims)

    def check_dims(self, dims: int | None) -> int:
        """`dims` if the model offers it, the default for None, else a UsageError."""
        if dims is None:
            return self.default_dims
        if dims not in self.dims:
            raise UsageError(f"--dims {dims}: {self.name} offers {', '.join(map(str, self.dims))}. Choose one of them.")
        return dims

    def check_dtype(self, dtype: str) -> None:
        """UsageError if embeddings cannot be stored so."""
        if dtype == "int8" and self.quantiser is None:
            raise UsageError(
                f"--dtype int8: {self.name} gives float32 embeddings of {self.default_dims} bands only. "
                "Add --dtype float32."
            )

    def check_source(self, source: str | None, *, force: bool = False) -> None:
        """IdentityError if the model understands only the d-pixels of another source, unless forced; warnings."""
        if source is not None and self.source is not None and source != self.source:
            text = f"{self.name} was trained on d-pixels of source {self.source}, and these are of {source}"
            if not force:
                raise IdentityError(f"{text}. Choose another --source or --model, or insist with --force-source.")
            logger.warning("%s; --force-source lets it pass. Its embeddings may mean little.", text)
        if source in self.warn_sources:
            logger.warning("%s", self.warning.format(model=self.name, source=source))

    def identity(self) -> dict[str, Any] | None:
        """What its embeddings depend on besides the weights, as plain JSON; None without a network."""
        if self.config is None:
            return None
        return {
            **dataclasses.asdict(self.config),
            "family": self.family,
            "source": self.source,
            "observations": self.observations.to_dict(),
            "use_ascending": self.use_ascending,
        }
