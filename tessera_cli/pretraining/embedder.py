"""An encoder together with the band statistics of its input: views of raw integers -> embeddings."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from tessera_cli.inference.batch import standardised
from tessera_cli.models.encoder import Encoder
from tessera_cli.pretraining.data.batch import MISSING, Sequences, View, view_to
from tessera_cli.sampling import BAND_COUNTS, Modality
from tessera_cli.sampling.ragged import STREAMS
from tessera_cli.sampling.statistics import Statistics


class Embedder(nn.Module):
    """Embed views on the encoder's device; bands are standardised there, in float32."""

    def __init__(self, encoder: Encoder, statistics: Statistics) -> None:
        super().__init__()
        self.encoder = encoder
        for modality in BAND_COUNTS:
            for name, table in zip(("mean", "std"), _tables(statistics, modality), strict=True):
                self.register_buffer(f"{modality}_{name}", table, persistent=False)

    def evaluate(self, view: View[np.ndarray]) -> np.ndarray:
        """Return embeddings float32 (B, R), computed in evaluation mode and without gradients."""
        training = self.training
        self.eval()
        with torch.no_grad():
            embeddings: np.ndarray = self.embed(view_to(view, self.encoder.device)).cpu().numpy()
        self.train(training)
        return embeddings

    def embed(self, view: View[Tensor]) -> Tensor:
        """Return the embeddings of the view's pixels, float32 (B, R)."""

        def vectors(modality: Modality) -> Tensor:
            parts = [
                self.encoder.encode_modality(modality, self._bands(modality, part), part.doy.long())
                for part in view[modality]
            ]
            return torch.cat(parts)[torch.cat([part.members for part in view[modality]]).argsort()]

        return self.encoder.fuse(vectors("s2"), vectors("s1"))

    def rectangle(self, modality: Modality, view: View[Tensor]) -> tuple[Tensor, Tensor]:
        """Return bands float32 (B, T, C) and days float32 (B, T) of a view whose sequences all have the same length."""
        (sequences,) = view[modality]
        order = sequences.members.argsort()
        return self._bands(modality, sequences)[order], sequences.doy[order].float()

    def _bands(self, modality: Modality, sequences: Sequences[Tensor]) -> Tensor:
        """Return standardised bands, float32 (M, T, C)."""
        mean, std = self.get_buffer(f"{modality}_mean"), self.get_buffer(f"{modality}_std")
        raw = sequences.values.flatten(end_dim=1)
        bands = standardised(raw, modality == "s2", mean, std, sequences.streams.flatten())
        return bands.view(sequences.values.shape)


def _tables(statistics: Statistics, modality: Modality) -> tuple[Tensor, Tensor]:
    """Return means and standard deviations by stream, float32 (MISSING + 1, C): 0 and 1 for a missing sensor."""
    mean = np.zeros((MISSING + 1, BAND_COUNTS[modality]), np.float32)
    std = np.ones_like(mean)
    for i, stream in enumerate(STREAMS[modality]):
        mean[i], std[i] = (getattr(statistics, f"{stream}_{name}") for name in ("mean", "std"))
    return torch.from_numpy(mean), torch.from_numpy(std)
