"""The raw observations of a chunk of pixels on the encoder's device, and the sequences gathered from them there."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tessera_cli.sampling import Group, Observations


@dataclass(frozen=True, eq=False)
class DeviceBatch:
    """One sensor's observations of N pixels: `sampling.Observations` on a device, or on their way to it."""

    values: Tensor
    """int16 (S, C); for Sentinel-2 the bits of uint16."""
    unsigned: bool
    doy: Tensor
    """int16 (S,)"""
    series_index: Tensor | None
    """uint8 (S,): which row of `mean` and `std` standardises an observation; None if there is only one."""
    mean: Tensor
    std: Tensor
    starts: Tensor
    """int64 (N,)"""
    groups: tuple[Group[Tensor], ...]
    """Longest sequences first."""
    missing_sensor: Tensor
    """int64: positions of the pixels without any observation of this sensor."""
    tokens: int
    """Observations of all sequences together, padding included; one for each pixel without observations."""

    ready: torch.cuda.Event | None = None
    """When the copies to a GPU have arrived; None if they have."""

    @classmethod
    def of(cls, observations: Observations, *, padded: bool) -> DeviceBatch:
        """Return the observations on the CPU; unless `padded`, groups hold each observation once."""
        groups = observations.by_bin() if padded else observations.by_length()
        return cls(
            values=torch.from_numpy(observations.values.view(np.int16)),
            unsigned=observations.values.dtype == np.uint16,
            doy=torch.from_numpy(observations.doy),
            series_index=None if len(observations.mean) == 1 else torch.from_numpy(observations.series_index),
            mean=torch.from_numpy(observations.mean),
            std=torch.from_numpy(observations.std),
            starts=torch.from_numpy(observations.starts),
            groups=tuple(group.map(torch.from_numpy) for group in groups),
            missing_sensor=torch.from_numpy(observations.missing_sensor()),
            tokens=int(np.maximum(observations.bins, 1).sum()),
        )

    def to(self, device: torch.device) -> DeviceBatch:
        """Return the batch on this device; copies to a GPU run on the current stream, and `wait` waits for them."""
        if device.type != "cuda":
            return self.map(lambda tensor: tensor.to(device))
        moved = self.map(lambda tensor: tensor.pin_memory().to(device, non_blocking=True))
        return dataclasses.replace(moved, ready=torch.cuda.current_stream(device).record_event())

    def wait(self) -> None:
        """Have the current stream wait for the copies, and the allocator keep them until it is done."""
        if self.ready is None:
            return
        stream = torch.cuda.current_stream(self.values.device)
        stream.wait_event(self.ready)

        def keep(tensor: Tensor) -> Tensor:
            tensor.record_stream(stream)
            return tensor

        self.map(keep)

    def map(self, convert: Callable[[Tensor], Tensor]) -> DeviceBatch:
        """Return the batch with every tensor converted."""
        tensors: dict[str, Any] = {
            name: convert(value) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return dataclasses.replace(self, groups=tuple(group.map(convert) for group in self.groups), **tensors)

    def sequences(self, group: Group[Tensor], positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sequences of the members of a group at these positions, int64 (B,).

        They are standardised bands float32 (B, T, C) and days of year int64 (B, T).
        """
        starts = self.starts.index_select(0, group.members.index_select(0, positions))
        rows_BT = starts.unsqueeze(1) + group.patterns.index_select(0, group.which.index_select(0, positions))
        rows = rows_BT.flatten()
        index = None if self.series_index is None else self.series_index.index_select(0, rows)
        values = standardised(self.values.index_select(0, rows), self.unsigned, self.mean, self.std, index)
        return values.view(*rows_BT.shape, -1), self.doy.index_select(0, rows).long().view(rows_BT.shape)


def standardised(raw: Tensor, unsigned: bool, mean: Tensor, std: Tensor, series_index: Tensor | None) -> Tensor:
    """Return (raw - mean) / std, float32 (S, C), of raw integers, int16 (S, C): if `unsigned`, the bits of uint16.

    `mean` and `std` are float32 (series, C); `series_index`, int (S,), is the row of them for each observation, None if
    there is only one.
    """
    values = (raw.int() & 0xFFFF).float() if unsigned else raw.float()
    if series_index is None:
        return values.sub_(mean).div_(std)
    index = series_index.long()
    return values.sub_(mean.index_select(0, index)).div_(std.index_select(0, index))
