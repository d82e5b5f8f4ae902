"""What a training step sees: two views of the same pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tessera_cli.sampling import Modality

MISSING = 2
"""The stream of the token that stands for a missing sensor: zero bands, once standardised, on day 0."""


@dataclass(frozen=True, eq=False)
class Sequences:
    """Equally long sequences of one sensor's raw observations: M pixels, T observations each."""

    members: np.ndarray
    """int64 (M,): positions of the pixels in the batch."""
    values: np.ndarray
    """uint16 or int16 (M, T, C)"""
    doy: np.ndarray
    """int16 (M, T): 1..366; 0 of the token that stands for a missing sensor."""
    streams: np.ndarray
    """uint8 (M, T): as in `Series`, or `MISSING`."""


View = Mapping[Modality, tuple[Sequences, ...]]
"""One view of B pixels: each sensor's sequences by length, longest first; every pixel is in one of them."""


@dataclass(frozen=True, eq=False)
class Mixing:
    """What the mixing regulariser adds: each pixel's first view is blended with its partner's second view."""

    share: float
    """Of the first view, 0..1."""
    partners: np.ndarray
    """int64 (B,): positions of the partners in the joint batch of all processes."""
    view: View
    """The partners' second views."""


@dataclass(frozen=True, eq=False)
class Batch:
    """One process's part of a step."""

    step: int
    """From 0."""
    first: View
    second: View
    origins: np.ndarray
    """int32 (B,): the d-pixels that each pixel came from."""
    mixing: Mixing | None = None

    @property
    def pixels(self) -> int:
        return len(self.origins)
