"""The prediction loss: the embedding of one view of a pixel -> the observations of its other view."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tessera_cli.models.parts import day_of_year_table
from tessera_cli.sampling import BAND_COUNTS, Modality


class Prediction(nn.Module):
    """A decoder per sensor: an embedding and a day of year -> the standardised bands of that day.

    It keeps in the embedding what an average over dates would lose. Thrown away after training.
    """

    days: Tensor

    def __init__(self, representation: int, width: int) -> None:
        super().__init__()
        self.decoders = nn.ModuleDict(
            {modality: Decoder(representation, width, bands) for modality, bands in BAND_COUNTS.items()}
        )
        self.register_buffer("days", torch.from_numpy(day_of_year_table(width)), persistent=False)

    def forward(
        self, modality: Modality, embeddings_MR: Tensor, doy_MT: Tensor, bands_MTC: Tensor, valid_MT: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the summed error of one sensor's observations, and how many values it was taken over.

        `valid_MT`, bool: which are observations, and not the token of a missing sensor. The error is Huber's, since
        clouds that a mask has missed are no part of the ground.
        """
        predicted_MTC = self.decoders[modality](embeddings_MR, F.embedding(doy_MT, self.days))
        error_MTC = F.smooth_l1_loss(predicted_MTC, bands_MTC, reduction="none")
        return (error_MTC * valid_MT[..., None]).sum(), valid_MT.sum() * bands_MTC.shape[-1]


class Decoder(nn.Module):
    """W3 relu(W2 relu(We e + Wd d)): float32 (M, R) and days (M, T, D) -> float32 (M, T, bands)."""

    def __init__(self, representation: int, width: int, bands: int) -> None:
        super().__init__()
        self.of_embedding = nn.Linear(representation, width)
        self.of_day = nn.Linear(width, width, bias=False)
        self.hidden = nn.Linear(width, width)
        self.out = nn.Linear(width, bands)

    def forward(self, embeddings_MR: Tensor, days_MTD: Tensor) -> Tensor:
        x_MTD = F.relu(self.of_embedding(embeddings_MR)[:, None] + self.of_day(days_MTD))
        bands_MTC: Tensor = self.out(F.relu(self.hidden(x_MTD)))
        return bands_MTC
