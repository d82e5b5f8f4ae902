"""What an encoder is made of, in numbers and choices: families are values of `EncoderConfig`, not classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Gt
from pydantic import ConfigDict, Strict

from tessera_cli.sampling import BAND_COUNTS, Modality

Pooling = Literal["attention", "gru", "custom-gru"]
"""What scores a pixel's tokens over time (`models/pooling.py`): the tokens (v2), the states of `nn.GRU` (v1.0), or of
TESSERA's own GRU (v1.0-qat, v1.1)."""
Fusion = Literal["concat", "sum", "transformer"]
"""How the two sensors' vectors are joined."""
Size = Annotated[int, Strict(), Gt(0)]
"""No `Field`: pydantic 2.11 would give the default of one field to all that share it."""
Switch = Annotated[bool, Strict()]
_STRICT = ConfigDict(extra="forbid")
"""For pydantic, which reads these classes from the cards of weights files."""


@dataclass(frozen=True)
class TransformerConfig:
    """The transformer of one backbone, or of the fusion."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    layers: Size
    heads: Size
    feedforward: Size


FUSION_LAYERS, FUSION_HEADS = 2, 4
"""Sizes of the fusion transformer, fixed in the official code; its feed-forward is twice the width."""


@dataclass(frozen=True)
class EncoderConfig:
    """The sizes and the parts of an encoder (`spec/encoders.md` sections 1 to 4)."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    latent: Size
    """A quarter of the transformers' width."""
    s2: TransformerConfig
    s1: TransformerConfig
    hidden: Size | None
    """Width of the reducer's hidden layer; None if the reducer is one linear map."""
    representation: Size = 128
    """Length of the embedding."""
    qk_norm: Switch = False
    """Queries and keys are RMS-normalised per head."""
    pre_norm: Switch = False
    """Layers normalise the inputs of attention and feed-forward, not the residual sums."""
    pooling: Pooling = "attention"
    fusion: Fusion = "concat"
    final_norm: Switch = True
    """The embedding is layer-normalised: mean 0, standard deviation 1 over its values."""

    @classmethod
    def of(cls, latent: int, layers: int, heads: int, feedforward: int, **more: Any) -> EncoderConfig:
        """Return a config with equal transformers for both sensors; `hidden` defaults to 4 x their width."""
        stack = TransformerConfig(layers, heads, feedforward)
        return cls(latent, stack, stack, **{"hidden": 16 * latent, **more})

    @property
    def width(self) -> int:
        return 4 * self.latent

    @property
    def fused_width(self) -> int:
        """Length of the reducer's input."""
        return self.width if self.fusion == "sum" else 2 * self.width

    @property
    def fusion_stack(self) -> TransformerConfig | None:
        return TransformerConfig(FUSION_LAYERS, FUSION_HEADS, 2 * self.width) if self.fusion == "transformer" else None

    @property
    def unfit_heads(self) -> int | None:
        """Return a number of attention heads that does not divide the width; None if all do."""
        stacks = (self.s2, self.s1, self.fusion_stack)
        return next((stack.heads for stack in stacks if stack and self.width % stack.heads), None)

    def stack(self, modality: Modality) -> TransformerConfig:
        return self.s2 if modality == "s2" else self.s1

    def flop_per_pixel(self, t_s2: float, t_s1: float) -> float:
        """Return the FLOP of one pixel whose sequences have these lengths (norms and activations not counted)."""
        d, r = self.width, self.representation

        def transformer(t: float, stack: TransformerConfig) -> float:
            return stack.layers * (t * (4 * d * d + 2 * d * stack.feedforward) + 2 * t * t * d)

        def backbone(t: float, modality: Modality) -> float:
            gru = 0 if self.pooling == "attention" else 6 * t * d * d
            return t * (BAND_COUNTS[modality] * d + d * d) + transformer(t, self.stack(modality)) + gru + 2 * t * d

        reducer = self.fused_width * r if self.hidden is None else self.hidden * (self.fused_width + r)
        fusion = transformer(2, self.fusion_stack) if self.fusion_stack else 0
        return 2 * (backbone(t_s2, "s2") + backbone(t_s1, "s1") + fusion + reducer)
