"""The matching loss: embeddings of views, and of prefixes of them -> a teacher's embeddings of the same pixels.

For each prefix a linear map, thrown away after training, predicts the teacher's whole embedding y less its mean over
the training pixels. Two terms say how well, as means over prefixes, both views and the joint batch:

    cosine    1 - cos(prediction, y - mean)
    barlow    mean over the dimensions d of (1 - C_dd)^2, C_dd: the correlation of prediction and y over the batch

The first one weighs dimensions as they vary; the second gives all of them the same weight. Vectors are centred because
embeddings of one model share a large part, by which any two of them are alike. The off-diagonal terms of Barlow Twins
have no place here: the dimensions of a teacher are correlated, and so must be those of a prediction that is right.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tessera_cli.models.families import family_spec
from tessera_cli.models.parts import Linear
from tessera_cli.pretraining.config import PretrainConfig
from tessera_cli.pretraining.distributed import World
from tessera_cli.pretraining.loss import EPS
from tessera_cli.pretraining.twins import fake_quantise


class Matched(NamedTuple):
    """The terms, () each, unweighted."""

    cosine: Tensor
    barlow: Tensor


class Matching(nn.Module):
    """A head for each prefix of the embedding, and the loss of what they predict."""

    mean: Tensor

    def __init__(self, config: PretrainConfig, mean: np.ndarray, world: World) -> None:
        super().__init__()
        self.sizes = config.matched
        self.scope = world if config.loss.scope == "global" else World()
        self.heads = nn.ModuleList(Linear(size, len(mean)) for size in self.sizes if config.teacher.head == "linear")
        """None: the embedding itself is the prediction."""
        self.quantiser = family_spec(config.model.family, config.model.name, config.model.encoder).quantiser
        self.quantise = False
        """Whether heads take embeddings as int8 would store them. Set it on this module: DDP's has no effect."""
        self.register_buffer("mean", torch.from_numpy(mean.astype(np.float32)), persistent=False)

    def forward(self, views_NBR: Tensor, target_BD: Tensor) -> Matched:
        """Return the loss of N views' embeddings; rows of `target_BD` that are NaN have none and do not count."""
        known_B = target_BD.isfinite().all(dim=1)
        views = len(views_NBR)
        z_MR, weight_M1 = views_NBR.flatten(end_dim=1), known_B.repeat(views)[:, None].to(views_NBR.dtype)
        y_MD = torch.where(known_B[:, None], target_BD.to(views_NBR.dtype) - self.mean, 0).repeat(views, 1)
        with torch.autocast(z_MR.device.type, enabled=False):
            terms = [matching_terms(self.predict(z_MR, i), y_MD, weight_M1, self.scope) for i in range(len(self.sizes))]
        return Matched(*(torch.stack(each).mean() for each in zip(*terms, strict=True)))

    def predict(self, z_BR: Tensor, i: int = -1) -> Tensor:
        """Return what the `i`-th prefix predicts of the teacher's embedding, less its mean: float32 (B, D)."""
        z_BK = z_BR[:, : self.sizes[i]]
        if self.quantise and self.quantiser is not None:
            z_BK = fake_quantise(z_BK, self.quantiser)
        if not self.heads:
            return z_BK - self.mean
        predicted_BD: Tensor = self.heads[i](z_BK)
        return predicted_BD


def matching_terms(predicted_MD: Tensor, y_MD: Tensor, weight_M1: Tensor, world: World) -> Matched:
    """Return the terms for one prefix. `weight_M1`: 1 for rows that count and 0 for others, whose y is 0."""

    def mean(x_M: Tensor) -> Tensor:
        return world.all_reduce((x_M * weight_M1).sum(dim=0)) / count

    count = world.all_reduce_detached(weight_M1.sum()).clamp_min(1)
    cosine = 1 - mean(F.cosine_similarity(predicted_MD, y_MD, dim=1)[:, None]).squeeze()
    p_MD, y_MD = predicted_MD - mean(predicted_MD), y_MD - mean(y_MD)
    scale_D = torch.rsqrt((mean(p_MD.square()) + EPS) * (mean(y_MD.square()) + EPS))
    correlation_D = mean(p_MD * y_MD) * scale_D
    return Matched(cosine, (1 - correlation_D).square().mean())
