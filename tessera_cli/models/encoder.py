"""The encoder: one backbone per sensor, then fusion and reduction to the embedding."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn

from tessera_cli.models.architecture import EncoderConfig, TransformerConfig
from tessera_cli.models.parts import Attention, BandEmbedding, Block, DimReducer, day_of_year_table, day_tokens
from tessera_cli.models.pooling import POOLS, log_repeats
from tessera_cli.sampling import BAND_COUNTS, Modality


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
        """dtype of the transformer's matrix products; the rest is float32."""

    def forward(self, x_BTC: Tensor, doy_BT: Tensor, days: Tensor, repeat_index: Tensor | None = None) -> Tensor:
        x_BTD = self.embed(x_BTC, day_tokens(doy_BT, days))
        log_repeats_T = None if repeat_index is None else log_repeats(repeat_index, x_BTC.shape[1])
        lower = self.matmul_dtype != torch.float32
        with torch.autocast(x_BTC.device.type, self.matmul_dtype) if lower else nullcontext():
            for block in self.blocks:
                x_BTD = block(x_BTD, log_repeats_T)
        return self.pool(x_BTD.float() if lower else x_BTD, repeat_index)


class FusionTransformer(nn.Module):
    """Transformer over the two sensors' vectors, each marked by a learned vector; Sentinel-2 first."""

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
    """A pixel's observations -> its embedding. `forward` is `encode_modality` per sensor, then `fuse`."""

    days: Tensor

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.s2 = Backbone(BAND_COUNTS["s2"], config.s2, config)
        self.s1 = Backbone(BAND_COUNTS["s1"], config.s1, config)
        self.fusion = FusionTransformer(config.fusion_stack, config) if config.fusion_stack else None
        self.reducer = DimReducer(
            config.fused_width, config.hidden, config.representation, final_norm=config.final_norm
        )
        self.register_buffer("days", torch.from_numpy(day_of_year_table(config.width)), persistent=False)

    @property
    def device(self) -> torch.device:
        return self.days.device

    def set_dropout(self, rate: float) -> None:
        """Set the dropout rate of all transformer layers and of the reducer's hidden layer, which is 0 at first."""
        for part in self.modules():
            if isinstance(part, (Attention, Block, DimReducer)):
                part.dropout = rate

    def encode_modality(
        self, modality: Modality, x_BTC: Tensor, doy_BT: Tensor, repeat_index: Tensor | None = None
    ) -> Tensor:
        """Return one vector per pixel, float32 (B, D).

        `x_BTC` are standardised bands, float32; `doy_BT` days of year, integers 0..366, or float32 where training
        blends observations. If observations stand at several positions of their sequence, `repeat_index`,
        int64 (positions,), tells which of the T stands at each: equal tokens stay equal through all layers, so each
        is computed once, and the result is that of the whole sequence.
        """
        backbone = self.s2 if modality == "s2" else self.s1
        return backbone(x_BTC, doy_BT, self.days, repeat_index)

    def fuse(self, s2_BD: Tensor, s1_BD: Tensor) -> Tensor:
        """Return the embeddings float32 (B, R) of the sensors' vectors float32 (B, D)."""
        if self.config.fusion == "sum":
            fused_BF = s2_BD + s1_BD
        elif self.fusion is not None:
            fused_BF = self.fusion(torch.stack([s2_BD, s1_BD], dim=1)).flatten(start_dim=1)
        else:
            fused_BF = torch.cat([s2_BD, s1_BD], dim=-1)
        return self.reducer(fused_BF)

    def forward(self, s2_BTC: Tensor, s2_doy_BT: Tensor, s1_BTC: Tensor, s1_doy_BT: Tensor) -> Tensor:
        return self.fuse(self.encode_modality("s2", s2_BTC, s2_doy_BT), self.encode_modality("s1", s1_BTC, s1_doy_BT))


def seeded(config: EncoderConfig, seed: int) -> Encoder:
    """Return an encoder with random weights for evaluation, without gradients; torch's generator is left as it was."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        return Encoder(config).eval().requires_grad_(False)
