"""The input of one training step: two views of the same pixels, as numpy arrays or, after `.to(device)`, as tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from tessera_cli.sampling import Modality

Array = TypeVar("Array", np.ndarray, Tensor)

MISSING = 2
"""Stream number of the token that stands for a missing sensor: bands that standardise to zero, on day 0."""


@dataclass(frozen=True, eq=False)
class Sequences(Generic[Array]):
    """T raw observations of one sensor for each of M pixels."""

    members: Array
    """int64 (M,): positions of the pixels in the batch."""
    values: Array
    """(M, T, C): uint16 for Sentinel-2, int16 for Sentinel-1. Tensors are int16 with the same bits."""
    doy: Array
    """int16 (M, T): day of year 1..366; 0 for `MISSING`."""
    streams: Array
    """uint8 (M, T): as in `RaggedSeries`, or `MISSING`."""

    def to(self: Sequences[np.ndarray], device: torch.device) -> Sequences[Tensor]:
        arrays = self.members, self.values.view(np.int16), self.doy, self.streams
        return Sequences(*(_to_tensor(array, device) for array in arrays))

    def __getitem__(self, which: Any) -> Sequences[Array]:
        """Return some of the pixels; `which` indexes (M,) or (M, T)."""
        rows = which[0] if isinstance(which, tuple) else which
        return Sequences(self.members[rows], self.values[which], self.doy[which], self.streams[which])


View = Mapping[Modality, tuple[Sequences[Array], ...]]
"""One view of B pixels: per sensor its sequences, one item per length, longest first; each pixel is in one item."""


def view_to(view: View[np.ndarray], device: torch.device) -> View[Tensor]:
    """Copy a view to a device, as raw integers."""
    return {modality: tuple(part.to(device) for part in parts) for modality, parts in view.items()}


@dataclass(frozen=True, eq=False)
class Mixing(Generic[Array]):
    """What the mixing regulariser adds: each pixel's first view is blended with its partner's second view."""

    share: float
    """Weight of the first view, 0..1."""
    partners: Array
    """int64 (B,): positions of the partners in the joint batch of all processes."""
    view: View[Array]
    """The partners' second views."""


@dataclass(frozen=True, eq=False)
class Answers(Generic[Array]):
    """A teacher's embeddings of the batch's pixels."""

    values: Array
    """(B, D): int8 codes, or float16."""
    scales: Array | None
    """float32 (B,): factors of the codes; NaN for a pixel of which the teacher knows nothing, as float16 values are."""

    def to(self: Answers[np.ndarray], device: torch.device) -> Answers[Tensor]:
        scales = None if self.scales is None else _to_tensor(self.scales, device)
        return Answers(_to_tensor(self.values, device), scales)

    def floats(self: Answers[Tensor]) -> Tensor:
        """Return float32 (B, D)."""
        values = self.values.float()
        return values if self.scales is None else values * self.scales[:, None]


@dataclass(frozen=True, eq=False)
class Batch(Generic[Array]):
    """One process's part of a step."""

    step: int
    """From 0."""
    first: View[Array]
    second: View[Array]
    tile_index: np.ndarray
    """int32 (B,): as in `RaggedPixels`; never moved to a device."""
    mixing: Mixing[Array] | None = None
    teacher: Answers[Array] | None = None

    @property
    def pixels(self) -> int:
        return len(self.tile_index)

    def to(self: Batch[np.ndarray], device: torch.device) -> Batch[Tensor]:
        """Copy the views to a device, as raw integers."""
        mixing: Mixing[Tensor] | None = None
        if (mix := self.mixing) is not None:
            mixing = Mixing(mix.share, _to_tensor(mix.partners, device), view_to(mix.view, device))
        teacher = None if self.teacher is None else self.teacher.to(device)
        first, second = view_to(self.first, device), view_to(self.second, device)
        return Batch(self.step, first, second, self.tile_index, mixing, teacher)


def _to_tensor(array: np.ndarray, device: torch.device) -> Tensor:
    tensor = torch.from_numpy(np.require(array, requirements=["C", "W"]))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
