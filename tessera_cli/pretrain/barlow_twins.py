"""The module that is trained: two views of each pixel -> the loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tessera_cli.models.encoder import Encoder
from tessera_cli.models.families import family_spec
from tessera_cli.pretrain.config import Settings
from tessera_cli.pretrain.data.batch import Batch
from tessera_cli.pretrain.distributed import World
from tessera_cli.pretrain.embedder import Embedder, PlacedView
from tessera_cli.pretrain.fake_quantise import FakeQuantise
from tessera_cli.pretrain.loss import barlow_twins, mixing, standardised
from tessera_cli.pretrain.projector import Projector
from tessera_cli.sampling import Modality
from tessera_cli.sampling.statistics import Statistics


@dataclass(frozen=True, eq=False)
class PlacedMixing:
    """`batch.Mixing` with tensors."""

    share: float
    partners: Tensor
    view: PlacedView


@dataclass(frozen=True, eq=False)
class Placed:
    """`batch.Batch` on the device, or on its way."""

    first: PlacedView
    second: PlacedView
    mixing: PlacedMixing | None


class Sums(NamedTuple):
    """The loss of one projector and what it consists of, () each."""

    loss: Tensor
    on_diagonal: Tensor
    """Unweighted, as the next two."""
    off_diagonal: Tensor
    mixing: Tensor
    """0 without mixing."""


class Outcome(NamedTuple):
    """What a step gives. Besides the loss all is detached, and of the projector that sees the whole embedding."""

    loss: Tensor
    """(): the mean over the projectors."""
    on_diagonal: Tensor
    """(): as in `Sums`."""
    off_diagonal: Tensor
    mixing: Tensor
    correlation_rms: Tensor
    """(): root mean square of C_ij, i != j."""
    representation: Tensor
    """float32 (B, R): the embeddings of the first views, not quantised."""


class Twins(Embedder):
    """An embedder, and the projectors through which it is trained. DDP may wrap it: a step is one forward pass."""

    def __init__(self, encoder: Encoder, statistics: Statistics, settings: Settings, world: World) -> None:
        super().__init__(encoder, statistics)
        self.world = world
        self.loss = settings.loss
        self.scope = world if settings.loss.scope == "global" else World()
        """Over whose pixels batch norms and correlations are taken."""
        self.width = settings.projector.width
        self.sizes = (encoder.config.representation, *settings.projector.prefixes)
        """How many values of the embedding each projector sees: first of all the whole."""
        self.projectors = nn.ModuleList(
            Projector(size, settings.projector.width, settings.projector.depth, self.scope) for size in self.sizes
        )
        rule = family_spec(settings.model.family, settings.model.name, encoder.config).quantiser
        self.quantiser = FakeQuantise(rule or "v2")  # settings see to it that it never acts without a rule

    def compute_in(self, matmul_dtype: torch.dtype) -> None:
        """In what transformers and projectors compute their matrix products: at first float32, as all the rest."""
        for part in (self.encoder.s2, self.encoder.s1, *self.projectors):
            part.matmul_dtype = matmul_dtype

    def quantise(self, active: bool) -> None:
        """Whether projectors see embeddings as int8 would store them. To be called on this module, not its wrapper."""
        self.quantiser.active = active

    def place(self, batch: Batch) -> Placed:
        """Bring a batch to the encoder's device, as the raw integers it consists of."""
        blend = None
        if (mix := batch.mixing) is not None:
            blend = PlacedMixing(mix.share, self._put(mix.partners), self.place_view(mix.view))
        return Placed(self.place_view(batch.first), self.place_view(batch.second), blend)

    def forward(self, batch: Placed) -> Outcome:
        first_BR, second_BR = self.embed(batch.first), self.embed(batch.second)
        blended_BR = None if batch.mixing is None else self._embed_blended(batch.first, batch.mixing)
        heads = [self._head(i, first_BR, second_BR, blended_BR, batch.mixing) for i in range(len(self.sizes))]
        pairs = max(1, self.width * (self.width - 1))
        rms = (heads[0].off_diagonal.clamp_min(0) / pairs).sqrt()
        loss = torch.stack([head.loss for head in heads]).mean()
        return Outcome(loss, *(x.detach() for x in (*heads[0][1:], rms, first_BR)))

    def _head(
        self, i: int, first_BR: Tensor, second_BR: Tensor, blended_BR: Tensor | None, mix: PlacedMixing | None
    ) -> Sums:
        def project(embedding_BR: Tensor) -> Tensor:
            z_BD: Tensor = self.projectors[i](self.quantiser(embedding_BR[:, : self.sizes[i]]))
            return z_BD

        raw_BD = project(second_BR)
        z1_BD, z2_BD = standardised(project(first_BR), self.scope), standardised(raw_BD, self.scope)
        on, off = barlow_twins(z1_BD, z2_BD, self.scope, self.loss.chunk)
        loss = on + self.loss.off_diagonal * off
        if mix is None or blended_BR is None:
            return Sums(loss, on, off, torch.zeros_like(loss))
        # Partners may belong to other processes, whatever the scope; in that of this process alone, those that came
        # here are a batch of their own.
        partners_BD = standardised(self.world.gather(raw_BD)[mix.partners], self.scope)
        zm_BD = standardised(project(blended_BR), self.scope)
        blend = mixing(zm_BD, z1_BD, partners_BD, mix.share, self.scope, self.loss.chunk)
        return Sums(loss + self.loss.mix * self.loss.off_diagonal * blend, on, off, blend)

    def _embed_blended(self, first: PlacedView, mix: PlacedMixing) -> Tensor:
        """The embeddings of pixels whose standardised bands and days are blended with their partners'."""

        def blended(modality: Modality) -> Tensor:
            mine, theirs = self.rectangle(modality, first[modality]), self.rectangle(modality, mix.view[modality])
            bands_BTC, days_BT = (mix.share * x + (1 - mix.share) * y for x, y in zip(mine, theirs, strict=True))
            return self.encoder.encode_modality(modality, bands_BTC, days_BT)

        return self.encoder.fuse(blended("s2"), blended("s1"))
