"""The twin loss: embeddings of two views of each pixel -> Barlow Twins through projectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tessera_cli.models.families import family_spec
from tessera_cli.models.quantise import Quantiser, codes_and_scales
from tessera_cli.pretraining.config import PretrainConfig
from tessera_cli.pretraining.data.batch import Mixing
from tessera_cli.pretraining.distributed import World
from tessera_cli.pretraining.lanes import side_by_side
from tessera_cli.pretraining.loss import barlow_twins_loss, mixing_loss, normalise_batch
from tessera_cli.pretraining.projector import Projector


class TwinOutput(NamedTuple):
    """The loss, and its terms for the projector of the whole embedding: () each, unweighted."""

    loss: Tensor
    """Mean over the projectors."""
    on_diagonal: Tensor
    off_diagonal: Tensor
    mixing: Tensor
    """0 without mixing."""
    correlation_rms: Tensor
    """Root mean square of C_ij, i != j."""


class Twins(nn.Module):
    """Projectors of the embedding and of prefixes of it, and the Barlow Twins loss of what they give."""

    def __init__(self, config: PretrainConfig, world: World) -> None:
        super().__init__()
        self.world = world
        self.config = config.loss
        self.scope = world if config.loss.scope == "global" else World()
        """The processes whose pixels share batch norms and correlations."""
        self.width = config.projector.width
        self.sizes = (config.model.representation, *config.projector.prefixes)
        """Length of the embedding's prefix that each projector takes; the first one takes all of it."""
        self.projectors = nn.ModuleList(
            Projector(size, config.projector.width, config.projector.depth, self.scope) for size in self.sizes
        )
        self.quantiser = family_spec(config.model.family, config.model.name, config.model.encoder).quantiser
        self.quantise = False
        """Whether projectors take embeddings as int8 would store them. Set it on this module: DDP's has no effect."""
        self.lanes = 1
        """In how many lanes (`lanes.py`) views are projected and correlated; 1 where processes have to agree."""

    def forward(
        self,
        first_BR: Tensor,
        second_BR: Tensor,
        blended_BR: Tensor | None = None,
        mixing: Mixing[Tensor] | None = None,
    ) -> TwinOutput:
        """Return the loss of two views' embeddings; `blended_BR` are those of blended pixels, if there is mixing."""
        looks = [first_BR, second_BR, *([] if mixing is None or blended_BR is None else [blended_BR])]
        calls = [(self._project, (look,)) for look in looks]
        projected = side_by_side(calls, tuple(self.projectors.parameters()), self.lanes)
        terms = [self._terms(z, mixing) for z in zip(*projected, strict=True)]
        _, on, off, blend = terms[0]
        rms = (off.clamp_min(0) / max(1, self.width * (self.width - 1))).sqrt()
        return TwinOutput(torch.stack([term[0] for term in terms]).mean(), on, off, blend, rms)

    def _project(self, embedding_BR: Tensor) -> tuple[Tensor, ...]:
        """Return what each projector gives, (B, D) each."""
        projected = []
        for size, projector in zip(self.sizes, self.projectors, strict=True):
            prefix_BK = embedding_BR[:, :size]
            if self.quantise and self.quantiser is not None:
                prefix_BK = fake_quantise(prefix_BK, self.quantiser)
            projected.append(projector(prefix_BK))
        return tuple(projected)

    def _terms(self, raw: Sequence[Tensor], mix: Mixing[Tensor] | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the loss of one projector's outputs and its on-diagonal, off-diagonal and mixing terms, () each."""
        z1_BD, z2_BD, *blended = (normalise_batch(z, self.scope) for z in raw)
        on, off = barlow_twins_loss(z1_BD, z2_BD, self.scope, self.config.chunk, self.lanes)
        loss = on + self.config.off_diagonal * off
        if mix is None or not blended:
            return loss, on, off, torch.zeros_like(loss)
        # Partners may belong to other processes, whatever the scope; with a local one, the partners that came to this
        # process are a batch of their own.
        partners_BD = normalise_batch(self.world.all_gather(raw[1])[mix.partners], self.scope)
        blend = mixing_loss(blended[0], z1_BD, partners_BD, mix.share, self.scope, self.config.chunk, self.lanes)
        return loss + self.config.mix * self.config.off_diagonal * blend, on, off, blend


def fake_quantise(x_BK: Tensor, rule: Quantiser) -> Tensor:
    """Quantise and dequantise float32 (B, K) with a scale per pixel; gradients pass unchanged (straight-through)."""
    exact_BK = x_BK.detach()
    with torch.autocast(x_BK.device.type, enabled=False):
        codes_BK, scales_B = codes_and_scales(exact_BK, rule, torch)
        return codes_BK * scales_B[:, None] + (x_BK - exact_BK)  # the last term is 0, with a gradient
