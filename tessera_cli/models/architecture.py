"""What an encoder is made of, in numbers and choices: families are values of `EncoderConfig`, not classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from tessera_cli.sampling import BANDS, Modality

Pooling = Literal["attention", "gru", "custom-gru"]
"""What scores a pixel's tokens over time: the tokens, the states of `nn.GRU`, or those of TESSERA's own GRU."""
Fusion = Literal["concat", "sum", "transformer"]
"""How the two sensors' vectors meet."""
POOLINGS: tuple[Pooling, ...] = ("attention", "gru", "custom-gru")
FUSIONS: tuple[Fusion, ...] = ("concat", "sum", "transformer")


@dataclass(frozen=True)
class TransformerConfig:
    """The transformer of one backbone, or of the fusion."""

    layers: int
    heads: int
    feedforward: int


FUSION_LAYERS, FUSION_HEADS = 2, 4
"""Of the fusion transformer: fixed in the official code; its feed-forward is twice the width."""


@dataclass(frozen=True)
class EncoderConfig:
    """The sizes and the parts of an encoder (`spec/encoders.md` sections 1 to 4)."""

    latent: int
    """A quarter of the transformers' width."""
    s2: TransformerConfig
    s1: TransformerConfig
    hidden: int | None
    """The length of the reducer's hidden layer; None: the reducer is one linear map."""
    representation: int = 128
    """The length of what the reducer gives."""
    qk_norm: bool = False
    """Queries and keys are RMS-normalised per head."""
    pre_norm: bool = False
    """Layers normalise what goes into attention and feed-forward, not their sums."""
    pooling: Pooling = "attention"
    fusion: Fusion = "concat"
    final_norm: bool = True
    """The embedding is standardised: mean 0, standard deviation 1 over its values."""

    @classmethod
    def of(cls, latent: int, layers: int, heads: int, feedforward: int, **more: Any) -> EncoderConfig:
        """With equal transformers for both sensors and, unless given, a hidden layer of 4 times their width."""
        stack = TransformerConfig(layers, heads, feedforward)
        return cls(latent, stack, stack, **{"hidden": 16 * latent, **more})

    @property
    def width(self) -> int:
        return 4 * self.latent

    @property
    def fused_width(self) -> int:
        """The length of what goes into the reducer."""
        return self.width if self.fusion == "sum" else 2 * self.width

    @property
    def fusion_stack(self) -> TransformerConfig | None:
        return TransformerConfig(FUSION_LAYERS, FUSION_HEADS, 2 * self.width) if self.fusion == "transformer" else None

    def stack(self, modality: Modality) -> TransformerConfig:
        return self.s2 if modality == "s2" else self.s1

    def flop_per_pixel(self, t_s2: float, t_s1: float) -> float:
        """FLOP of one pixel whose sequences have these lengths (norms and activations not counted)."""
        d, r = self.width, self.representation

        def transformer(t: float, stack: TransformerConfig) -> float:
            return stack.layers * (t * (4 * d * d + 2 * d * stack.feedforward) + 2 * t * t * d)

        def backbone(t: float, modality: Modality) -> float:
            gru = 0 if self.pooling == "attention" else 6 * t * d * d
            return t * (BANDS[modality] * d + d * d) + transformer(t, self.stack(modality)) + gru + 2 * t * d

        reducer = self.fused_width * r if self.hidden is None else self.hidden * (self.fused_width + r)
        fusion = transformer(2, self.fusion_stack) if self.fusion_stack else 0
        return 2 * (backbone(t_s2, "s2") + backbone(t_s1, "s1") + fusion + reducer)
