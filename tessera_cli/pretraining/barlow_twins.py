"""The trained module: two views of each pixel -> the Barlow Twins loss."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tessera_cli.models.encoder import Encoder
from tessera_cli.models.families import family_spec
from tessera_cli.models.quantise import Quantiser, codes_and_scales
from tessera_cli.pretraining.config import PretrainConfig
from tessera_cli.pretraining.data.batch import Batch, Mixing, View
from tessera_cli.pretraining.distributed import World
from tessera_cli.pretraining.embedder import Embedder
from tessera_cli.pretraining.loss import EPS, barlow_twins_loss, centre_batch, mixing_loss, normalise_batch
from tessera_cli.sampling import Modality
from tessera_cli.sampling.statistics import Statistics


class StepOutput(NamedTuple):
    """The result of a forward pass. All but the loss is detached and belongs to the projector of the whole embedding.

    The terms of the loss are (), unweighted; mixing is 0 without mixing.
    """

    loss: Tensor
    """(): mean over the projectors."""
    on_diagonal: Tensor
    off_diagonal: Tensor
    mixing: Tensor
    correlation_rms: Tensor
    """(): root mean square of C_ij, i != j."""
    representation: Tensor
    """float32 (B, R): embeddings of the first views, not quantised."""


class BarlowTwins(Embedder):
    """An encoder and the projectors through which it is trained. A step is one forward pass, so DDP may wrap it."""

    def __init__(self, encoder: Encoder, statistics: Statistics, config: PretrainConfig, world: World) -> None:
        super().__init__(encoder, statistics)
        self.world = world
        self.loss = config.loss
        self.scope = world if config.loss.scope == "global" else World()
        """The processes whose pixels share batch norms and correlations."""
        self.width = config.projector.width
        self.sizes = (encoder.config.representation, *config.projector.prefixes)
        """Length of the embedding's prefix that each projector takes; the first one takes all of it."""
        self.projectors = nn.ModuleList(
            Projector(size, config.projector.width, config.projector.depth, self.scope) for size in self.sizes
        )
        self.quantiser = family_spec(config.model.family, config.model.name, encoder.config).quantiser
        self.quantise = False
        """Whether projectors take embeddings as int8 would store them. Set it on this module: DDP's has no effect."""

    def set_matmul_dtype(self, matmul_dtype: torch.dtype) -> None:
        """Set the dtype of the matrix products of transformers and projectors; the rest stays float32."""
        for part in (self.encoder.s2, self.encoder.s1, *self.projectors):
            part.matmul_dtype = matmul_dtype

    def forward(self, batch: Batch[Tensor]) -> StepOutput:
        first_BR, second_BR = self.embed(batch.first), self.embed(batch.second)
        blended_BR = None if batch.mixing is None else self._embed_blended(batch.first, batch.mixing)
        terms = [self._terms(i, first_BR, second_BR, blended_BR, batch.mixing) for i in range(len(self.sizes))]
        _, on, off, blend = terms[0]
        rms = (off.clamp_min(0) / max(1, self.width * (self.width - 1))).sqrt()
        loss = torch.stack([term[0] for term in terms]).mean()
        return StepOutput(loss, *(x.detach() for x in (on, off, blend, rms, first_BR)))

    def _terms(
        self, i: int, first_BR: Tensor, second_BR: Tensor, blended_BR: Tensor | None, mix: Mixing[Tensor] | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the loss of projector `i` and its on-diagonal, off-diagonal and mixing terms, () each."""

        def project(embedding_BR: Tensor) -> Tensor:
            prefix_BK = embedding_BR[:, : self.sizes[i]]
            if self.quantise and self.quantiser is not None:
                prefix_BK = fake_quantise(prefix_BK, self.quantiser)
            z_BD: Tensor = self.projectors[i](prefix_BK)
            return z_BD

        raw_BD = project(second_BR)
        z1_BD, z2_BD = normalise_batch(project(first_BR), self.scope), normalise_batch(raw_BD, self.scope)
        on, off = barlow_twins_loss(z1_BD, z2_BD, self.scope, self.loss.chunk)
        loss = on + self.loss.off_diagonal * off
        if mix is None or blended_BR is None:
            return loss, on, off, torch.zeros_like(loss)
        # Partners may belong to other processes, whatever the scope; with a local one, the partners that came to this
        # process are a batch of their own.
        partners_BD = normalise_batch(self.world.all_gather(raw_BD)[mix.partners], self.scope)
        zm_BD = normalise_batch(project(blended_BR), self.scope)
        blend = mixing_loss(zm_BD, z1_BD, partners_BD, mix.share, self.scope, self.loss.chunk)
        return loss + self.loss.mix * self.loss.off_diagonal * blend, on, off, blend

    def _embed_blended(self, first: View[Tensor], mix: Mixing[Tensor]) -> Tensor:
        """Return embeddings of pixels whose standardised bands and days are blended with those of their partners."""

        def blended(modality: Modality) -> Tensor:
            own, other = self.rectangle(modality, first), self.rectangle(modality, mix.view)
            bands_BTC, days_BT = (mix.share * x + (1 - mix.share) * y for x, y in zip(own, other, strict=True))
            return self.encoder.encode_modality(modality, bands_BTC, days_BT)

        return self.encoder.fuse(blended("s2"), blended("s1"))


def fake_quantise(x_BK: Tensor, rule: Quantiser) -> Tensor:
    """Quantise and dequantise float32 (B, K) with a scale per pixel; gradients pass unchanged (straight-through)."""
    exact_BK = x_BK.detach()
    with torch.autocast(x_BK.device.type, enabled=False):
        codes_BK, scales_B = codes_and_scales(exact_BK, rule, torch)
        return codes_BK * scales_B[:, None] + (x_BK - exact_BK)  # the last term is 0, with a gradient


class BatchNorm(nn.Module):
    """Batch norm over the joint batch of all processes, on any device, in float32; no running statistics."""

    def __init__(self, width: int, world: World) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.world = world

    def forward(self, x_BD: Tensor) -> Tensor:
        x_BD, variance_D = centre_batch(x_BD, self.world)
        return torch.addcmul(self.bias, x_BD, self.weight * torch.rsqrt(variance_D + EPS))


class Projector(nn.Module):
    """`depth` linear maps with batch norm and ReLU between them: float32 (B, R) -> float32 (B, width).

    The maps have no biases: a batch norm follows each of them (the last one in the loss) and would cancel them.
    """

    def __init__(self, inputs: int, width: int, depth: int, world: World) -> None:
        super().__init__()
        self.linears = nn.ModuleList(nn.Linear(inputs if i == 0 else width, width, bias=False) for i in range(depth))
        self.norms = nn.ModuleList(BatchNorm(width, world) for _ in range(depth - 1))
        self.matmul_dtype = torch.float32
        """dtype of the matrix products; the rest is float32."""

    def forward(self, x_BR: Tensor) -> Tensor:
        z_BD = self._linear(0, x_BR)
        for i, norm in enumerate(self.norms, start=1):
            z_BD = self._linear(i, F.relu(norm(z_BD), inplace=True))
        return z_BD

    def _linear(self, i: int, x_BD: Tensor) -> Tensor:
        if self.matmul_dtype == torch.float32:
            out: Tensor = self.linears[i](x_BD)
            return out
        with torch.autocast(x_BD.device.type, self.matmul_dtype):
            return self.linears[i](x_BD).float()
