"""An encoder beside the statistics of what it sees: views as raw integers -> embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from tessera_cli.inference.batch import standardised
from tessera_cli.models.encoder import Encoder
from tessera_cli.pretrain.data.batch import MISSING, Sequences, View
from tessera_cli.pretrain.data.ragged import STREAMS
from tessera_cli.sampling import BANDS, Modality
from tessera_cli.sampling.statistics import Statistics


@dataclass(frozen=True, eq=False)
class PlacedSequences:
    """`batch.Sequences` as tensors, without their members."""

    values: Tensor
    """int16 (M, T, C); for Sentinel-2 the bits of uint16."""
    unsigned: bool
    doy: Tensor
    """int16 (M, T)"""
    streams: Tensor
    """uint8 (M, T)"""


@dataclass(frozen=True, eq=False)
class PlacedSensor:
    """One sensor's sequences of B pixels."""

    sequences: tuple[PlacedSequences, ...]
    order: Tensor
    """int64 (B,): where each pixel stands among the rows of all sequences."""


PlacedView = Mapping[Modality, PlacedSensor]


class Embedder(nn.Module):
    """Embeds views on the encoder's device; standardising happens there, in float32."""

    def __init__(self, encoder: Encoder, statistics: Statistics) -> None:
        super().__init__()
        self.encoder = encoder
        for modality in BANDS:
            for name, table in zip(("mean", "std"), _tables(statistics, modality), strict=True):
                self.register_buffer(f"{modality}_{name}", table, persistent=False)

    def embedded(self, view: View) -> np.ndarray:
        """As measures want it: float32 (B, R), in evaluation mode and without gradients."""
        training = self.training
        self.eval()
        with torch.no_grad():
            found: np.ndarray = self.embed(self.place_view(view)).cpu().numpy()
        self.train(training)
        return found

    def place_view(self, view: View) -> PlacedView:
        """Bring a view to the encoder's device, as the raw integers it consists of."""

        def placed(found: Sequences) -> PlacedSequences:
            values, unsigned = self._put(found.values.view(np.int16)), found.values.dtype == np.uint16
            return PlacedSequences(values, unsigned, self._put(found.doy), self._put(found.streams))

        def sensor(found: tuple[Sequences, ...]) -> PlacedSensor:
            order = np.argsort(np.concatenate([sequences.members for sequences in found]))
            return PlacedSensor(tuple(map(placed, found)), self._put(order))

        return {modality: sensor(view[modality]) for modality in BANDS}

    def embed(self, view: PlacedView) -> Tensor:
        """The embeddings of the view's pixels, float32 (B, R)."""

        def vectors(modality: Modality) -> Tensor:
            found = [
                self.encoder.encode_modality(modality, self._bands(modality, sequences), sequences.doy.long())
                for sequences in view[modality].sequences
            ]
            return torch.cat(found)[view[modality].order]

        return self.encoder.fuse(vectors("s2"), vectors("s1"))

    def rectangle(self, modality: Modality, sensor: PlacedSensor) -> tuple[Tensor, Tensor]:
        """Bands float32 (B, T, C) and days float32 (B, T) of pixels whose sequences are all equally long."""
        (sequences,) = sensor.sequences
        return self._bands(modality, sequences)[sensor.order], sequences.doy[sensor.order].float()

    def _bands(self, modality: Modality, sequences: PlacedSequences) -> Tensor:
        """Standardised, float32 (M, T, C)."""
        mean, std = self.get_buffer(f"{modality}_mean"), self.get_buffer(f"{modality}_std")
        raw = sequences.values.flatten(end_dim=1)
        bands = standardised(raw, sequences.unsigned, mean, std, sequences.streams.flatten())
        return bands.view(sequences.values.shape)

    def _put(self, array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(np.require(array, requirements=["C", "W"]))
        device = self.encoder.device
        return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def _tables(statistics: Statistics, modality: Modality) -> tuple[Tensor, Tensor]:
    """Means and standard deviations by stream, float32 (MISSING + 1, C): a missing sensor's zeros stay as they are."""
    mean = np.zeros((MISSING + 1, BANDS[modality]), np.float32)
    std = np.ones_like(mean)
    for i, stream in enumerate(STREAMS[modality]):
        mean[i], std[i] = (getattr(statistics, f"{stream}_{name}") for name in ("mean", "std"))
    return torch.from_numpy(mean), torch.from_numpy(std)
