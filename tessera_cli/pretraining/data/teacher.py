"""The teacher: a trained model whose embeddings of the training pixels an encoder learns to match."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tessera_cli.errors import IdentityError, UsageError
from tessera_cli.extent.window import Window
from tessera_cli.models.load import Model, load_model
from tessera_cli.models.quantise import Quantiser
from tessera_cli.pretraining.checkpoint import is_checkpoint
from tessera_cli.pretraining.config import TeacherConfig
from tessera_cli.pretraining.data.shards import Shards
from tessera_cli.sampling.ragged import RaggedPixels
from tessera_cli.series.encode import encode_parts

ANY_YEAR = Window.from_name("2024")
"""Stands for the window of official tile folders, which do not say theirs: a leap year, as where they are read."""


@dataclass(frozen=True, eq=False)
class Teacher:
    """A loaded model that embeds the pixels of shards."""

    model: Model
    windows: tuple[Window, ...]
    """Of each of the inputs of the shards."""
    shards: str
    """Digest of the shards."""

    @classmethod
    def of(cls, model: Model, config: TeacherConfig, shards: Shards) -> Teacher:
        """Bind a model to the source of the shards.

        IdentityError if it was trained on another source, UsageError if it depends on the source and none is known.
        """
        known = shards.header["sources"]
        source = config.source or (known[0] if len(known) == 1 else None)
        insists = bool(config.source) and config.source not in known
        if model.spec.statistics is None and source is None:
            raise UsageError(
                f"--teacher {config.model}: the shards do not say their source, on which its statistics depend. Say it "
                "with --set teacher.source=mpc or aws."
            )
        bound = model.bind_source(source)
        if not insists and source is not None and bound.spec.source not in (None, source):
            raise IdentityError(
                f"--teacher {config.model} was trained on d-pixels of source {bound.spec.source}, and these are of "
                f"{source}. Choose another teacher, or insist with --set teacher.source={bound.spec.source}."
            )
        bound.spec.check_source(source)
        windows = (origin["window"] for origin in shards.header["origins"])
        return cls(
            bound, tuple(ANY_YEAR if name is None else Window.from_name(name) for name in windows), shards.digest
        )

    @property
    def dims(self) -> int:
        return self.model.representation

    @property
    def row(self) -> np.dtype[np.void]:
        return row_of(self.model.spec.quantiser, self.dims)

    @property
    def identity(self) -> Mapping[str, Any]:
        """What the kept embeddings depend on, as plain JSON."""
        spec = self.model.spec
        assert spec.statistics is not None
        return {
            "sha256": self.model.sha256,
            "encoder": spec.identity(),
            "statistics": spec.statistics.to_card(),
            "quantiser": spec.quantiser,
            "dims": self.dims,
            "precision": self.model.precision,
            "shards": self.shards,
        }

    @property
    def digest(self) -> str:
        """SHA-256 of the identity."""
        return digest_of(self.identity)

    def embed(self, pixels: RaggedPixels, threads: int, progress: Callable[[int], None] | None = None) -> np.ndarray:
        """Return the rows of pixels of the shards, dtype `row` (N,), from all their observations.

        Where the model gives nothing the scale, or all values, are NaN. Errors are those of `encode`.
        """
        rows = np.empty(len(pixels), self.row)
        for numbers, window in self._by_window(pixels):
            some = pixels.take(numbers)
            # Pixels with fewer observations than `data.min_*` are not in the shards.
            for part, made in encode_parts(
                some,
                window,
                self.model,
                quantiser=self.model.spec.quantiser,
                min_s2=0,
                min_s1=0,
                threads=threads,
                progress=progress,
            ):
                if made.scales is None:
                    rows["values"][numbers[part]] = made.values
                else:
                    rows["codes"][numbers[part]], rows["scale"][numbers[part]] = made.values, made.scales
        return rows

    def _by_window(self, pixels: RaggedPixels) -> Iterator[tuple[np.ndarray, Window]]:
        distinct = sorted(set(self.windows))
        which = np.array([distinct.index(window) for window in self.windows])[pixels.tile_index]
        for number, window in enumerate(distinct):
            if len(numbers := np.flatnonzero(which == number)):
                yield numbers, window


def digest_of(identity: Mapping[str, Any]) -> str:
    """Return `Teacher.digest` of an identity."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def row_of(quantiser: Quantiser | None, dims: int) -> np.dtype[np.void]:
    """Return what is kept of a pixel: codes and their scale; of a model that is never quantised, float16."""
    if quantiser is None:
        return np.dtype([("values", "<f2", (dims,))])
    return np.dtype([("codes", "|i1", (dims,)), ("scale", "<f4")])


def load_teacher(config: TeacherConfig, device: str) -> Model:
    """Return the model that `teacher.model` names, on a device; errors are those of `load_model`.

    UsageError if it has no network, IdentityError if `teacher.sha256` is of other weights.
    """
    name, path = config.model, Path(config.model)
    if path.is_file() and is_checkpoint(path):
        raise UsageError(
            f"--teacher {name} is a checkpoint of a run. Give the run's folder, or the file in its export/."
        )
    official = path.is_file() and path.suffix in (".pt", ".pth")
    kind = {"weights": path} if official else {"model": name}
    model = load_model(**kind, device=device, precision=config.precision)  # type: ignore[arg-type]
    if model.encoder is None:
        raise UsageError(f"--teacher {name} has no network to learn from. Choose another model.")
    if config.sha256 and config.sha256 != model.sha256:
        raise IdentityError(
            f"--teacher {name} holds other weights ({model.sha256[:12]}…) than teacher.sha256 says "
            f"({config.sha256[:12]}…). Give the teacher that the settings were made with, or leave the key out."
        )
    return model
