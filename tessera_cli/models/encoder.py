"""The encoder: one backbone per sensor, then fusion and reduction to the embedding."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn

from tessera_cli.models.architecture import EncoderConfig, TransformerConfig
from tessera_cli.models.parts import Attention, BandEmbedding, Block, Reducer, day_of_year_table, day_tokens
from tessera_cli.models.pooling import POOLS, log_counts
from tessera_cli.sampling import BANDS, Modality


def _transformer(stack: TransformerConfig, config: EncoderConfig) -> nn.ModuleList:
    return nn.ModuleList(
        Block(config.width, stack.heads, stack.feedforward, qk_norm=config.qk_norm, pre_norm=config.pre_norm)
        for _ in range(stack.layers)
    )


class Backbone(nn.Module):
    """One sensor's observations of a pixel -> one vector."""

    def __init__(self, bands: int, stack: TransformerConfig, config: EncoderConfig) -> None:
        super().__init__()
        self.embed = BandEmbedding(bands, config.width)
        self.blocks = _transformer(stack, config)
        self.pool = POOLS[config.pooling](config.width)
        self.matmul_dtype = torch.float32
        """In what the matrix products of the transformer are computed; the rest is float32."""

    def forward(self, x_BTC: Tensor, doy_BT: Tensor, days: Tensor, copies: Tensor | None = None) -> Tensor:
        x_BTD = self.embed(x_BTC, day_tokens(doy_BT, days))
        log_copies = None if copies is None else log_counts(copies, x_BTC.shape[1])
        lower = self.matmul_dtype != torch.float32
        with torch.autocast(x_BTC.device.type, self.matmul_dtype) if lower else nullcontext():
            for block in self.blocks:
                x_BTD = block(x_BTD, log_copies)
        pooled_BD: Tensor = self.pool(x_BTD.float() if lower else x_BTD, copies)
        return pooled_BD


class FusionTransformer(nn.Module):
    """The two sensors' vectors look at each other, each marked by a learned vector; Sentinel-2 first."""

    def __init__(self, stack: TransformerConfig, config: EncoderConfig) -> None:
        super().__init__()
        self.modality = nn.Parameter(torch.zeros(2, config.width))
        self.blocks = _transformer(stack, config)

    def forward(self, x_B2D: Tensor) -> Tensor:
        x_B2D = x_B2D + self.modality
        for block in self.blocks:
            x_B2D = block(x_B2D)
        return x_B2D


class Encoder(nn.Module):
    """A pixel's year -> its embedding. `encode_modality` and `fuse` are the two halves that `forward` joins."""

    days: Tensor

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.s2 = Backbone(BANDS["s2"], config.s2, config)
        self.s1 = Backbone(BANDS["s1"], config.s1, config)
        self.fusion = FusionTransformer(config.fusion_stack, config) if config.fusion_stack else None
        self.reducer = Reducer(config.fused_width, config.hidden, config.representation, final_norm=config.final_norm)
        self.register_buffer("days", torch.from_numpy(day_of_year_table(config.width)), persistent=False)

    @property
    def device(self) -> torch.device:
        return self.days.device

    def set_dropout(self, rate: float) -> None:
        """Of all transformer layers and of the reducer's hidden layer; at first there is none."""
        for part in self.modules():
            if isinstance(part, (Attention, Block, Reducer)):
                part.dropout = rate

    def encode_modality(
        self, modality: Modality, x_BTC: Tensor, doy_BT: Tensor, copies: Tensor | None = None
    ) -> Tensor:
        """Standardised bands float32 (B, T, C) and days of year (B, T), 0..366 -> float32 (B, D).

        Days are integers; those of blended observations, in training, float32.

        `copies`, int64 (places,), if some observations stand at several places of their sequence: which of the T stands
        at each. Equal tokens stay equal through all layers, so each is computed once; the result is that of the whole.
        """
        backbone = self.s2 if modality == "s2" else self.s1
        pooled_BD: Tensor = backbone(x_BTC, doy_BT, self.days, copies)
        return pooled_BD

    def fuse(self, s2_BD: Tensor, s1_BD: Tensor) -> Tensor:
        """The sensors' vectors float32 (B, D) -> embeddings float32 (B, R)."""
        if self.config.fusion == "sum":
            fused_BF = s2_BD + s1_BD
        elif self.fusion is not None:
            fused_BF = self.fusion(torch.stack([s2_BD, s1_BD], dim=1)).flatten(start_dim=1)
        else:
            fused_BF = torch.cat([s2_BD, s1_BD], dim=-1)
        embedding_BR: Tensor = self.reducer(fused_BF)
        return embedding_BR

    def forward(self, s2_BTC: Tensor, s2_doy_BT: Tensor, s1_BTC: Tensor, s1_doy_BT: Tensor) -> Tensor:
        return self.fuse(self.encode_modality("s2", s2_BTC, s2_doy_BT), self.encode_modality("s1", s1_BTC, s1_doy_BT))


def seeded(config: EncoderConfig, seed: int) -> Encoder:
    """An encoder with random weights, in evaluation mode and without gradients; torch's generator is left as it was."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        return Encoder(config).eval().requires_grad_(False)
