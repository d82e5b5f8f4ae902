"""The trained module: a batch -> the loss, the weighted sum of what is asked of the encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tessera_cli.models.encoder import Encoder
from tessera_cli.pretraining.attention import use_short_attention
from tessera_cli.pretraining.config import PretrainConfig
from tessera_cli.pretraining.data.batch import MISSING, Batch, Mixing, View
from tessera_cli.pretraining.distributed import World
from tessera_cli.pretraining.embedder import Embedder, Look, Part
from tessera_cli.pretraining.lanes import Piece, keep_blocks
from tessera_cli.pretraining.linear import use_onednn
from tessera_cli.pretraining.matching import Matching
from tessera_cli.pretraining.prediction import Prediction
from tessera_cli.pretraining.twins import Twins
from tessera_cli.sampling import BAND_COUNTS, Modality
from tessera_cli.sampling.statistics import Statistics


class StepOutput(NamedTuple):
    """The result of a forward pass. All but the loss is detached."""

    loss: Tensor
    """(): the weighted sum."""
    terms: Mapping[str, Tensor]
    """Name -> one part of the loss, (), unweighted; those of the twin loss are of the whole embedding's projector."""
    correlation_rms: Tensor | None
    """(): root mean square of C_ij, i != j, of the projections; None without the twin loss."""
    representation: Tensor
    """float32 (B, R): embeddings of the first views, not quantised."""


class Trainee(Embedder):
    """An encoder and the networks that are trained beside it. A step is one forward pass, so DDP may wrap it."""

    def __init__(
        self,
        encoder: Encoder,
        statistics: Statistics,
        config: PretrainConfig,
        world: World,
        mean_of_teacher: np.ndarray | None = None,
    ) -> None:
        """`mean_of_teacher`, float32 (D,): of its embeddings of the training pixels, if there is a teacher."""
        super().__init__(encoder, statistics)
        self.config = config
        self.world = world
        self.weights = config.loss
        self.twins = Twins(config, world) if config.twins else None
        self.matching = None if mean_of_teacher is None else Matching(config, mean_of_teacher, world)
        self.prediction = (
            Prediction(config.model.representation, config.loss.predict_width) if config.loss.predict else None
        )

    def set_matmul_dtype(self, matmul_dtype: torch.dtype) -> None:
        """Set the dtype of the matrix products of transformers and projectors; the rest stays float32."""
        for part in (self.encoder.s2, self.encoder.s1, *(self.twins.projectors if self.twins else ())):
            part.matmul_dtype = matmul_dtype

    def set_quantise(self, quantise: bool) -> None:
        """Set whether the loss takes embeddings as int8 would store them. On this module: DDP's has no effect."""
        for part in (self.twins, self.matching):
            if part is not None:
                part.quantise = quantise

    def fit_to_cpu(self, threads: int) -> None:
        """Compute with so many threads of a CPU in the way that is fastest there."""
        use_onednn(self)
        use_short_attention(self)
        # Dropout would draw from one generator in an order that no lane knows.
        self.lanes = 1 if self.encoder.reducer.dropout else threads
        # Two views keep two cores busy; more cores share the products of a view.
        if self.twins is not None:
            self.twins.lanes = 2 if self.lanes == 2 and self.twins.world.size == 1 else 1
        keep_blocks()

    def forward(self, batch: Batch[Tensor]) -> StepOutput:
        looks = [self.look(batch.first), self.look(batch.second)]
        if batch.mixing is not None:
            looks.append(self._blended(batch.first, batch.mixing))
        first_BR, second_BR, *blended = self.embed_looks(looks)
        loss, rms = first_BR.new_zeros(()), None
        terms: dict[str, Tensor] = {}
        if self.twins is not None:
            twins = self.twins(first_BR, second_BR, blended[0] if blended else None, batch.mixing)
            loss, rms = self.config.twins * twins.loss, twins.correlation_rms.detach()
            terms |= {"on_diagonal": twins.on_diagonal, "off_diagonal": twins.off_diagonal, "mixing": twins.mixing}
        if self.matching is not None:
            assert batch.teacher is not None
            matched = self.matching(torch.stack([first_BR, second_BR]), batch.teacher.floats())
            terms |= {"teacher_cosine": matched.cosine, "teacher_barlow": matched.barlow}
            loss = loss + self.config.teacher.cosine * matched.cosine + self.config.teacher.barlow * matched.barlow
        if self.prediction is not None:
            both = self._predict(first_BR, batch.second), self._predict(second_BR, batch.first)
            terms["prediction"] = (both[0] + both[1]) / 2
            loss = loss + self.weights.predict * terms["prediction"]
        detached = {name: term.detach() for name, term in terms.items()}
        return StepOutput(loss, detached, rms, first_BR.detach())

    def predict_teacher(self, embeddings: np.ndarray) -> np.ndarray:
        """Return what embeddings, float32 (B, R), predict of the teacher's, less its mean: float32 (B, D)."""
        assert self.matching is not None
        with torch.no_grad():
            return self.matching.predict(torch.from_numpy(embeddings).to(self.encoder.device)).cpu().numpy()

    def _predict(self, embeddings_BR: Tensor, view: View[Tensor]) -> Tensor:
        """Return the mean error of all values of a view's observations, predicted from embeddings of another view.

        It is that of the joint batch: of processes whose pixels lack sensors some have fewer values than others.
        """
        assert self.prediction is not None
        errors, counts = [], []
        for modality in BAND_COUNTS:
            for part in view[modality]:
                bands_MTC, valid_MT = self._bands(modality, part), part.streams != MISSING
                error, count = self.prediction(
                    modality, embeddings_BR[part.members], part.doy.long(), bands_MTC, valid_MT
                )
                errors.append(error)
                counts.append(count)
        count = self.world.all_reduce_detached(torch.stack(counts).sum())
        return self.world.all_reduce(torch.stack(errors).sum()) / count

    def _blended(self, first: View[Tensor], mix: Mixing[Tensor]) -> Look:
        """Return pixels whose standardised bands and days are blended with those of their partners."""

        def blended(modality: Modality) -> Part:
            own, other = self.rectangle(modality, first), self.rectangle(modality, mix.view)
            bands_BTC, days_BT = (mix.share * x + (1 - mix.share) * y for x, y in zip(own, other, strict=True))
            members = torch.arange(len(days_BT), device=days_BT.device)

            def vectors(rows: slice) -> Tensor:
                return self.encoder.encode_modality(modality, bands_BTC[rows], days_BT[rows])

            return Part(members, Piece(len(members), days_BT.shape[1], vectors))

        return {modality: [blended(modality)] for modality in BAND_COUNTS}
