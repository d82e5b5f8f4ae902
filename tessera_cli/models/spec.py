"""Every model this release knows, by name: what it is made of, what it wants to see, where its weights lie."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from tessera_cli.dpixel import S1_BANDS, S2_BANDS
from tessera_cli.errors import UsageError
from tessera_cli.models.statistics import V2_STUDENT, Statistics
from tessera_cli.quantize import Quantiser
from tessera_cli.sampling import V2_BINS, ObservationRule

logger = logging.getLogger(__name__)

DEFAULT_MODEL = "v2-medium"
Family = Literal["v2-student", "band-means"]
Modality = Literal["s2", "s1"]
"""What a backbone sees: Sentinel-2, or Sentinel-1 of both orbits."""
BANDS: dict[Modality, int] = {"s2": len(S2_BANDS), "s1": len(S1_BANDS)}


@dataclass(frozen=True)
class EncoderConfig:
    """The sizes of an encoder. The official `args` call them as noted."""

    latent: int
    """latent_dim: a quarter of the transformer's width."""
    layers: int
    """num_layers"""
    heads: int
    """nhead"""
    feedforward: int
    """dim_feedforward"""
    representation: int = 128
    """repr_dim: the length of an embedding."""
    qk_norm: bool = False
    """enable_qk_norm: queries and keys are RMS-normalised per head."""

    @property
    def width(self) -> int:
        return 4 * self.latent

    def flop_per_pixel(self, t_s2: float, t_s1: float) -> float:
        """FLOP of one pixel whose sequences have these lengths (norms and activations not counted)."""
        d, f, r = self.width, self.feedforward, self.representation

        def backbone(t: float, bands: int) -> float:
            block = t * (4 * d * d + 2 * d * f) + 2 * t * t * d
            return t * (bands * d + d * d) + self.layers * block + 2 * t * d

        return 2 * (backbone(t_s2, BANDS["s2"]) + backbone(t_s1, BANDS["s1"]) + 8 * d * d + 4 * d * r)


@dataclass(frozen=True)
class HubFile:
    """One file in a Hugging Face repository."""

    repo: str
    path: str
    bytes: int
    sha256: str

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
    statistics: Statistics = V2_STUDENT
    observations: ObservationRule = V2_BINS
    quantiser: Quantiser = "v2"
    dims: tuple[int, ...] = (16, 32, 64, 128)
    """Prefixes of the embedding that may be stored on their own (slices, not renormalised)."""
    sources: tuple[str, ...] = ("mpc", "aws")
    """The sources whose d-pixels it understands."""
    warn_sources: tuple[str, ...] = ("aws",)
    """Those among them that deserve a warning."""
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
            raise UsageError(f"--dims {dims}: {self.name} offers {_listed(map(str, self.dims))}. Choose one of them.")
        return dims

    def check_source(self, source: str) -> str:
        """`source` if the model understands its d-pixels, perhaps with a warning, else a UsageError."""
        if source not in self.sources:
            raise UsageError(
                f"--source {source}: {self.name} was trained on d-pixels of {_listed(self.sources)}. "
                "Choose another --source or --model."
            )
        if source in self.warn_sources:
            logger.warning(
                "Model %s has one set of statistics for all sources: its embeddings of source %s may be shifted "
                "against those of others. Do not mix them.",
                self.name,
                source,
            )
        return source


def _student(name: str, letter: str, file: str, size: int, sha256: str, config: EncoderConfig) -> ModelSpec:
    weights = HubFile(f"geotessera/TESSERA-V-2.0-2B-{letter}", f"ckpt/{file}", size, sha256)
    return ModelSpec(name, "v2-student", config, weights)


NANO = EncoderConfig(latent=36, layers=2, heads=4, feedforward=384)
SMALL = EncoderConfig(latent=64, layers=4, heads=4, feedforward=1024)
MEDIUM = EncoderConfig(latent=110, layers=4, heads=4, feedforward=1792)
LARGE = EncoderConfig(latent=160, layers=4, heads=4, feedforward=2560)

_SPECS = (
    _student(
        "v2-nano", "N", "student_nano.pt", 4_288_221,
        "bc9929e3643dfab2744c2ce14e7c14f698703a94e9562e4e0982f9d6540b0691", NANO,
    ),
    _student(
        "v2-small", "S", "student_small.pt", 28_488_531,
        "92619d4ffc2936895f145fdcf710140b58c23c860e02f01873828b10c6958d95", SMALL,
    ),
    _student(
        "v2-medium", "M", "student_medium.pt", 84_163_403,
        "3823be7db9d9cfc93f3c2a47c7699be82821ab4e1117d4d2befdb746941ee96e", MEDIUM,
    ),
    _student(
        "v2-large", "L", "student_large.pt", 175_363_923,
        "b5f20239dbb1849c01a3e407b095aafe39b0bf764300206af78cb9b85f9ec1e1", LARGE,
    ),
    ModelSpec("demo", "v2-student", NANO, PackagedFile("demo.safetensors"), demonstration_only=True),
    ModelSpec("null", "band-means", None, warn_sources=(), hidden=True),
)  # fmt: skip

REGISTRY: dict[str, ModelSpec] = {spec.name: spec for spec in _SPECS}


def available() -> list[str]:
    """The names to offer to a user."""
    return [name for name, spec in REGISTRY.items() if not spec.hidden]


def spec_named(name: str) -> ModelSpec:
    """The released model of this name, or a UsageError with the nearest names."""
    if name in REGISTRY:
        return REGISTRY[name]
    near = difflib.get_close_matches(name.lower(), available(), n=1)
    hint = f"Did you mean {near[0]}? " if near else ""
    raise UsageError(
        f"--model {name}: there is no such model or file. {hint}"
        f"Choose one of {_listed(available())}, or give the path of a .safetensors file or its folder."
    )


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words)
