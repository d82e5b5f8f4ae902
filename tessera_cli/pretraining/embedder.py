"""An encoder together with the band statistics of its input: views of raw integers -> embeddings."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from tessera_cli.inference.batch import standardised
from tessera_cli.models.encoder import Encoder
from tessera_cli.pretraining.data.batch import MISSING, Sequences, View, view_to
from tessera_cli.pretraining.lanes import Piece, encode, side_by_side
from tessera_cli.sampling import BAND_COUNTS, Modality
from tessera_cli.sampling.ragged import STREAMS
from tessera_cli.sampling.statistics import Statistics


@dataclass(frozen=True)
class Part:
    """Pixels of a look whose sequences are equally long."""

    members: Tensor
    """int64 (M,): positions of the pixels in the batch."""
    piece: Piece
    """Their sequences, or one that stands for all."""


Look = Mapping[Modality, Sequence[Part]]
"""What is to be encoded for one embedding of B pixels; each pixel is in one part per sensor."""


class Embedder(nn.Module):
    """Embed views on the encoder's device; bands are standardised there, in float32."""

    def __init__(self, encoder: Encoder, statistics: Statistics) -> None:
        super().__init__()
        self.encoder = encoder
        self.lanes: int | None = None
        """How many micro-batches are encoded side by side (`lanes.py`); None: whole views, one after the other."""
        for modality in BAND_COUNTS:
            for name, table in zip(("mean", "std"), _tables(statistics, modality), strict=True):
                self.register_buffer(f"{modality}_{name}", table, persistent=False)

    def evaluate(self, view: View[np.ndarray]) -> np.ndarray:
        """Return embeddings float32 (B, R), computed in evaluation mode and without gradients."""
        training = self.training
        self.eval()
        with torch.no_grad():
            embeddings: np.ndarray = self.embed(view_to(view, self.encoder.device)).cpu().numpy()
        self.train(training)
        return embeddings

    def embed(self, view: View[Tensor]) -> Tensor:
        """Return the embeddings of the view's pixels, float32 (B, R)."""
        return self.embed_looks([self.look(view)])[0]

    def embed_looks(self, looks: Sequence[Look]) -> list[Tensor]:
        """Return the embeddings of the pixels of each look, float32 (B, R)."""
        pieces = [part.piece for look in looks for modality in BAND_COUNTS for part in look[modality]]
        if self.lanes is None:
            found = [piece.encode(slice(None)) for piece in pieces]
        else:
            backbones = (*self.encoder.s2.parameters(), *self.encoder.s1.parameters())
            found = encode(pieces, self.encoder.config.width, backbones, self.lanes)
        vectors = iter(found)

        def in_order(parts: Sequence[Part]) -> Tensor:
            joined = torch.cat([next(vectors).expand(len(part.members), -1) for part in parts])
            return joined[torch.cat([part.members for part in parts]).argsort()]

        def fuse(s2_BD: Tensor, s1_BD: Tensor) -> tuple[Tensor, ...]:
            return (self.encoder.fuse(s2_BD, s1_BD),)

        fusion, reducer = self.encoder.fusion, self.encoder.reducer
        parameters = (*(() if fusion is None else fusion.parameters()), *reducer.parameters())
        calls = [(fuse, (in_order(look["s2"]), in_order(look["s1"]))) for look in looks]
        return [fused for (fused,) in side_by_side(calls, parameters, self.lanes if self.lanes == 2 else 1)]

    def look(self, view: View[Tensor]) -> Look:
        """Return what is to be encoded of a view."""
        return {modality: [*self._parts(modality, view[modality])] for modality in BAND_COUNTS}

    def _parts(self, modality: Modality, sequences: Sequence[Sequences[Tensor]]) -> Iterator[Part]:
        for whole in sequences:
            part, missing = whole, whole.members[:0]
            if self._once:
                absent = whole.streams[:, 0] == MISSING
                part, missing = whole[~absent], whole.members[absent]
            if len(part.members):
                yield Part(
                    part.members,
                    Piece(len(part.members), part.doy.shape[1], functools.partial(self._vectors, modality, part)),
                )
            if len(missing):
                token = whole[absent][:1, :1]
                yield Part(missing, Piece(1, 1, functools.partial(self._vectors, modality, token)))

    @property
    def _once(self) -> bool:
        """Whether the token of a missing sensor is encoded once for all pixels that lack it: copies stay copies."""
        on_cpu, config = self.lanes is not None, self.encoder.config
        return on_cpu and config.pooling == "attention" and not (self.training and self.encoder.reducer.dropout)

    def _vectors(self, modality: Modality, sequences: Sequences[Tensor], rows: slice) -> Tensor:
        some = sequences[rows]
        return self.encoder.encode_modality(modality, self._bands(modality, some), some.doy.long())

    def rectangle(self, modality: Modality, view: View[Tensor]) -> tuple[Tensor, Tensor]:
        """Return bands float32 (B, T, C) and days float32 (B, T) of a view whose sequences all have the same length."""
        (sequences,) = view[modality]
        order = sequences.members.argsort()
        return self._bands(modality, sequences)[order], sequences.doy[order].float()

    def _bands(self, modality: Modality, sequences: Sequences[Tensor]) -> Tensor:
        """Return standardised bands, float32 (M, T, C)."""
        mean, std = self.get_buffer(f"{modality}_mean"), self.get_buffer(f"{modality}_std")
        raw = sequences.values.flatten(end_dim=1)
        bands = standardised(raw, modality == "s2", mean, std, sequences.streams.flatten())
        return bands.view(sequences.values.shape)


def _tables(statistics: Statistics, modality: Modality) -> tuple[Tensor, Tensor]:
    """Return means and standard deviations by stream, float32 (MISSING + 1, C): 0 and 1 for a missing sensor."""
    mean = np.zeros((MISSING + 1, BAND_COUNTS[modality]), np.float32)
    std = np.ones_like(mean)
    for i, stream in enumerate(STREAMS[modality]):
        mean[i], std[i] = (getattr(statistics, f"{stream}_{name}") for name in ("mean", "std"))
    return torch.from_numpy(mean), torch.from_numpy(std)
