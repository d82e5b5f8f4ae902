"""Raw observations on the encoder's device, and the sequences that are gathered from them there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tessera_cli.sampling import Group, Modality, Observations

Put = Callable[[np.ndarray], Tensor]
"""Brings an array to the device."""


@dataclass(frozen=True, eq=False)
class StagedGroup:
    """`sampling.Group` as tensors."""

    length: int
    members: Tensor
    patterns: Tensor
    which: Tensor
    copies: Tensor | None

    @classmethod
    def of(cls, group: Group, put: Put) -> StagedGroup:
        copies = None if group.copies is None else put(group.copies)
        return cls(group.length, put(group.members), put(group.patterns), put(group.which), copies)

    def __len__(self) -> int:
        return len(self.members)


def standardised(raw: Tensor, unsigned: bool, mean: Tensor, std: Tensor, streams: Tensor | None) -> Tensor:
    """(raw - mean) / std, float32 (S, C), of raw integers, int16 (S, C): if `unsigned`, the bits of uint16.

    `mean` and `std` are float32 (streams, C); `streams`, int (S,), says whose each row is, and None that there is one.
    """
    values = (raw.int() & 0xFFFF).float() if unsigned else raw.float()
    if streams is None:
        return values.sub_(mean).div_(std)
    of = streams.long()
    return values.sub_(mean[of]).div_(std[of])


@dataclass(frozen=True, eq=False)
class StagedObservations:
    """One sensor's observations of N pixels: `sampling.Observations` as tensors."""

    values: Tensor
    """int16 (S, C); for Sentinel-2 the bits of uint16."""
    unsigned: bool
    doy: Tensor
    streams: Tensor | None
    """None: there is one."""
    mean: Tensor
    std: Tensor
    starts: Tensor
    groups: tuple[StagedGroup, ...]
    """Longest sequences first."""
    unseen: Tensor
    """int64: positions of the pixels that the sensor never saw."""
    places: int
    """Of all sequences together, fillers included; one for each pixel that was never seen."""

    @classmethod
    def of(cls, seen: Observations, *, once: bool, put: Put = torch.from_numpy) -> StagedObservations:
        """`once`: the groups hold each observation once."""
        groups = seen.by_length() if once else seen.by_bin()
        return cls(
            values=put(seen.values.view(np.int16)),
            unsigned=seen.values.dtype == np.uint16,
            doy=put(seen.doy),
            streams=None if len(seen.mean) == 1 else put(seen.streams),
            mean=put(seen.mean),
            std=put(seen.std),
            starts=put(seen.starts),
            groups=tuple(StagedGroup.of(group, put) for group in groups),
            unseen=put(seen.unseen()),
            places=int(np.maximum(seen.bins, 1).sum()),
        )

    def sequences(self, group: StagedGroup, places: Tensor) -> tuple[Tensor, Tensor]:
        """The sequences of some members of a group, which are named by their places, int64 (B,).

        Returns standardised bands float32 (B, T, C) and days of year int64 (B, T).
        """
        rows_BT = self.starts[group.members[places]].unsqueeze(1) + group.patterns[group.which[places]]
        rows = rows_BT.flatten()
        streams = None if self.streams is None else self.streams.index_select(0, rows)
        values = standardised(self.values.index_select(0, rows), self.unsigned, self.mean, self.std, streams)
        return values.view(*rows_BT.shape, -1), self.doy.index_select(0, rows).long().view(rows_BT.shape)


@dataclass(frozen=True, eq=False)
class Chunk:
    """Both sensors' observations of the same N pixels, on the device or on their way."""

    pixels: int
    sensors: dict[Modality, StagedObservations]
    ready: torch.cuda.Event | None = None
    """When they have arrived; None: they are there."""

    @property
    def tokens(self) -> int:
        """As the official code counts: fillers included."""
        return sum(staged.places for staged in self.sensors.values())

    @property
    def work(self) -> int:
        """Tokens to encode."""
        return sum(len(group) * group.length for staged in self.sensors.values() for group in staged.groups)

    def tensors(self) -> list[Tensor]:
        found: list[Tensor | None] = []
        for staged in self.sensors.values():
            found += [staged.values, staged.doy, staged.streams, staged.mean, staged.std, staged.starts, staged.unseen]
            for group in staged.groups:
                found += [group.members, group.patterns, group.which, group.copies]
        return [tensor for tensor in found if tensor is not None]
