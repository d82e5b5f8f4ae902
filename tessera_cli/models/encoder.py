"""The encoder: one backbone per sensor, then fusion and reduction to the embedding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tessera_cli.models.parts import AttentionPool, BandEmbedding, Block, Reducer, day_of_year_table
from tessera_cli.models.spec import BANDS, EncoderConfig, Modality


class Backbone(nn.Module):
    """One sensor's observations of a pixel -> one vector."""

    def __init__(self, bands: int, config: EncoderConfig) -> None:
        super().__init__()
        self.embed = BandEmbedding(bands, config.width)
        self.blocks = nn.ModuleList(
            Block(config.width, config.heads, config.feedforward, qk_norm=config.qk_norm) for _ in range(config.layers)
        )
        self.pool = AttentionPool(config.width)

    def forward(self, x_BTC: Tensor, days_BTD: Tensor) -> Tensor:
        x_BTD = self.embed(x_BTC) + days_BTD
        for block in self.blocks:
            x_BTD = block(x_BTD)
        pooled_BD: Tensor = self.pool(x_BTD)
        return pooled_BD


class Encoder(nn.Module):
    """A pixel's year -> its embedding. `encode_modality` and `fuse` are the two halves that `forward` joins."""

    days: Tensor

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.s2 = Backbone(BANDS["s2"], config)
        self.s1 = Backbone(BANDS["s1"], config)
        self.reducer = Reducer(config.width, config.representation)
        self.register_buffer("days", torch.from_numpy(day_of_year_table(config.width)), persistent=False)

    @property
    def device(self) -> torch.device:
        return self.days.device

    def encode_modality(self, modality: Modality, x_BTC: Tensor, doy_BT: Tensor) -> Tensor:
        """Standardised bands float32 (B, T, C) and days of year int (B, T), 0..366 -> float32 (B, D)."""
        backbone = self.s2 if modality == "s2" else self.s1
        pooled_BD: Tensor = backbone(x_BTC, self.days[doy_BT])
        return pooled_BD

    def fuse(self, s2_BD: Tensor, s1_BD: Tensor) -> Tensor:
        """The sensors' vectors float32 (B, D) -> embeddings float32 (B, R)."""
        embedding_BR: Tensor = self.reducer(s2_BD, s1_BD)
        return embedding_BR

    def forward(self, s2_BTC: Tensor, s2_doy_BT: Tensor, s1_BTC: Tensor, s1_doy_BT: Tensor) -> Tensor:
        return self.fuse(self.encode_modality("s2", s2_BTC, s2_doy_BT), self.encode_modality("s1", s1_BTC, s1_doy_BT))
