"""The identity of output folders: everything that embeddings, or d-pixels, depend on besides the pixels."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tessera_cli.errors import IdentityError, UsageError
from tessera_cli.folders.folder import TileFolder
from tessera_cli.models import Model
from tessera_cli.models.quantise import Quantiser
from tessera_cli.outputs.layers import DPIXELS, Dtype, Format, StoreFormat
from tessera_cli.sampling import LARGEST_LEGACY_SEED, RandomSampling
from tessera_cli.sampling.statistics import V1_1_STATISTICS

FORMAT_VERSION = 1
"""Version of folders, records and rasters; it rises when older ones cannot be continued."""
MOST_DRAWS = 64
DEMONSTRATION = "for demonstration only"


@dataclass(frozen=True)
class EmbedSettings:
    """The identity of a folder of embeddings."""

    model: Model
    """With the statistics for `source`."""
    source: str | None
    """Source of the d-pixels; None if unknown."""
    dims: int
    min_s2: int = 1
    min_s1: int = 0
    seed: int = 0
    preprocessing: str = "official"
    dtype: Dtype = "int8"
    format: Format = "geotiff"
    uncertainty: int = 0
    """Times that observations are halved to tell it; 0: it is not asked for."""

    @classmethod
    def checked(
        cls,
        model: Model,
        source: str | None = None,
        *,
        recorded: str | None = None,
        force_source: bool = False,
        dims: int | None = None,
        dtype: Dtype = "int8",
        min_s2: int = 1,
        min_s1: int = 0,
        seed: int = 0,
        legacy_draw: bool = False,
        uncertainty: int = 0,
        **more: Any,
    ) -> EmbedSettings:
        """Return settings; UsageError or IdentityError when model, source, dims and dtype do not belong together.

        `source` is the user's word, `recorded` that of the d-pixels. A model that has statistics for several sources
        takes them for the first that is known: the user's word, its own configuration, the record.
        """
        if min_s2 < 0 or min_s1 < 0:
            raise UsageError("--min-s2 and --min-s1 count observations. Give 0 or more.")
        if source is not None and source not in V1_1_STATISTICS:
            raise UsageError(f"--source {source} is not known. Choose one of: {', '.join(V1_1_STATISTICS)}.")
        if not 0 <= uncertainty <= MOST_DRAWS:
            raise UsageError(
                f"--uncertainty {uncertainty} is out of range: give 1 to {MOST_DRAWS} times, 4 are enough."
            )
        if uncertainty and isinstance(model.spec.observations, RandomSampling):
            raise UsageError(
                f"--uncertainty cannot be told of {model.name}: models of v1.0 draw as many observations from half the "
                "dates as from all. Leave it out."
            )
        if legacy_draw:
            model = _with_legacy_draws(model, seed)
        if source is not None and recorded is not None and source != recorded and not force_source:
            raise IdentityError(
                f"--source {source}, but the d-pixels say {recorded}. Correct it, or insist with --force-source."
            )
        model = model.bind_source(source or recorded)
        for known in {source, recorded} - {None}:
            model.spec.check_source(known, force=force_source)
        model.spec.check_dtype(dtype)
        return cls(
            model,
            recorded or source or model.spec.source,
            model.spec.check_dims(dims),
            min_s2,
            min_s1,
            seed,
            dtype=dtype,
            uncertainty=uncertainty,
            **more,
        )

    def identity(self) -> Mapping[str, Any]:
        """Return what `run.json` and the records of tiles hold: plain JSON."""
        return {
            "format_version": FORMAT_VERSION,
            "model": self.model.name,
            "weights_sha256": self.model.sha256,
            "model_config": self.model.spec.identity(),
            "source": self.source,
            "preprocessing": self.preprocessing,
            "dims": self.dims,
            "dtype": self.dtype,
            "format": self.format,
            "precision": self.model.precision,
            "min_s2": self.min_s2,
            "min_s1": self.min_s1,
            "seed": self.seed,
            **({"uncertainty": self.uncertainty} if self.uncertainty else {}),
        }

    @property
    def note(self) -> str:
        """Return what users of the embeddings must know; empty if there is nothing."""
        return DEMONSTRATION if self.model.spec.demonstration_only else ""

    @property
    def quantiser(self) -> Quantiser | None:
        """Return how values become codes, or None if they are stored as float32."""
        return self.model.spec.quantiser if self.dtype == "int8" else None

    def folder(self, path: Path) -> TileFolder:
        """Return the folder at `path` for embeddings of these settings."""
        return TileFolder(path, self.identity(), self.note)


def dpixel_folder(path: Path, *, source: str, preprocessing: str, format: StoreFormat) -> TileFolder:
    """Return the folder at `path` for d-pixels of one source, preprocessing and format."""
    identity = {
        "content": DPIXELS,
        "format_version": FORMAT_VERSION,
        "source": source,
        "preprocessing": preprocessing,
        "format": format,
    }
    return TileFolder(path, identity)


def _with_legacy_draws(model: Model, seed: int) -> Model:
    rule = model.spec.observations
    if not 0 <= seed <= LARGEST_LEGACY_SEED:
        raise UsageError(
            f"--seed {seed}: the official generator takes 0 to {LARGEST_LEGACY_SEED}. Choose another seed."
        )
    if not isinstance(rule, RandomSampling):
        raise UsageError(f"--legacy-draw: {model.name} draws nothing, only v1.0 models do. Leave it out.")
    observations = dataclasses.replace(rule, legacy=True)
    return dataclasses.replace(model, spec=dataclasses.replace(model.spec, observations=observations))
