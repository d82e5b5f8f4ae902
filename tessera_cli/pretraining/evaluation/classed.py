"""The pixels of shards that have a class, and what groups of them must not be split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from tessera_cli.labels.labels import Options
from tessera_cli.sampling.ragged import RaggedPixels

OPTIONS = Options("--set probe.column=NAME", "--set probe.layer=NAME")


class Classed(NamedTuple):
    """The M pixels among N that have a class."""

    numbers: np.ndarray
    """int64 (M,): their positions among the N, rising."""
    values: np.ndarray
    """int64 (M,): their classes, in the numbers of the file."""
    groups: np.ndarray
    """uint64 (M,): what must not be split."""


class Grouping(NamedTuple):
    """What groups are, in messages."""

    one: str
    many: str
    advice: str
    """How there would be more of them."""


class Known(Protocol):
    """A file of classes, asked for the pixels of shards."""

    @property
    def grouping(self) -> Grouping: ...

    def of(self, part: RaggedPixels) -> Classed:
        """Return the pixels that have a class."""

    def name(self, value: int) -> str:
        """Return the name of a class."""

    def nothing(self, parts: Sequence[RaggedPixels]) -> str:
        """Return the message where no pixel has a class."""

    def tell(self) -> None:
        """Warn, when all parts were asked for, of what labelled nothing and what may be wrong."""
