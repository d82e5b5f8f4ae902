"""Everything an embedding depends on besides the pixels."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tessera_cli.errors import UsageError
from tessera_cli.outputs.folder import OutputFolder

if TYPE_CHECKING:
    from tessera_cli.models import Model

FORMAT_VERSION = 1
"""Of folders, records and rasters; it rises when older ones cannot be continued."""
DEMONSTRATION = "for demonstration only"


@dataclass(frozen=True)
class Settings:
    """The identity of an output folder."""

    model: Model
    source: str
    dims: int
    min_s2: int = 1
    min_s1: int = 0
    seed: int = 0
    preprocessing: str = "official"
    precision: str = "fp32"
    dtype: str = "int8"
    format: str = "geotiff"

    @classmethod
    def checked(
        cls, model: Model, source: str, *, dims: int | None = None, min_s2: int = 1, min_s1: int = 0
    ) -> Settings:
        """Raises UsageError when model, source and dims do not belong together."""
        if min_s2 < 0 or min_s1 < 0:
            raise UsageError("--min-s2 and --min-s1 count observations. Give 0 or more.")
        model.spec.check_source(source)
        return cls(model, source, model.spec.check_dims(dims), min_s2, min_s1)

    def identity(self) -> Mapping[str, Any]:
        """What `run.json` and the records of tiles hold: plain JSON."""
        config = self.model.config
        return {
            "format_version": FORMAT_VERSION,
            "model": self.model.name,
            "weights_sha256": self.model.sha256,
            "model_config": None if config is None else dataclasses.asdict(config),
            "source": self.source,
            "preprocessing": self.preprocessing,
            "dims": self.dims,
            "dtype": self.dtype,
            "format": self.format,
            "precision": self.precision,
            "min_s2": self.min_s2,
            "min_s1": self.min_s1,
            "seed": self.seed,
        }

    @property
    def note(self) -> str:
        """What users of the embeddings must know; empty if there is nothing."""
        return DEMONSTRATION if self.model.spec.demonstration_only else ""

    def folder(self, path: Path) -> OutputFolder:
        """The output folder at `path`, if it is to hold embeddings of these settings."""
        return OutputFolder(path, self.identity(), self.note)
