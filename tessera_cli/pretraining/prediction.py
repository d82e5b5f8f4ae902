"""The prediction loss: the embedding of one view of a pixel -> the observations of its other view."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tessera_cli.models.parts import Linear, day_of_year_table
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
        predicted_MTC = self.decoders[modality](embeddings_MR, doy_MT, self.days)
        error_MTC = F.smooth_l1_loss(predicted_MTC, bands_MTC, reduction="none")
        return (error_MTC * valid_MT[..., None]).sum(), valid_MT.sum() * bands_MTC.shape[-1]


class Decoder(nn.Module):
    """W (V e * g(d)), in which g are two linear maps of the day's sinusoids with a ReLU between them.

    It is linear in the embedding, so that what it can tell of a season a linear model can tell of its class; and what
    depends on the day is computed once per day, not once per observation.
    """

    def __init__(self, representation: int, width: int, bands: int) -> None:
        super().__init__()
        self.of_embedding = Linear(representation, width)
        self.of_day = Linear(width, width)
        self.factors = Linear(width, width)
        self.out = Linear(width, bands)

    def forward(self, embeddings_MR: Tensor, doy_MT: Tensor, days: Tensor) -> Tensor:
        """Return float32 (M, T, bands) of embeddings (M, R), days of year int64 (M, T) and their sinusoids (367, D)."""
        factors = self.factors(self.of_day(days, relu=True))
        bands_MTC: Tensor = self.out(self.of_embedding(embeddings_MR)[:, None] * F.embedding(doy_MT, factors))
        return bands_MTC
