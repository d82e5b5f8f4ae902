"""Small official checkpoints of every family and variant, with random weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tessera_cli.models.architecture import EncoderConfig, TransformerConfig
from tessera_cli.models.model_config import ModelConfig
from tessera_cli.models.spec import Family
from tests import reference

TINY = {"latent": 4, "layers": 2, "heads": 2, "feedforward": 16}
QUERY = "s1_backbone.attn_pool.query.weight"


@dataclass(frozen=True)
class Variant:
    """A kind of checkpoint, and what is to be found in it."""

    official: str
    """The family, as the reference calls it."""
    family: Family
    config: EncoderConfig
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of `reference.random_weights`."""

    @property
    def is_v1(self) -> bool:
        return self.official.startswith("v1")

    @property
    def container(self) -> str:
        """The part of the file that holds the tensors."""
        keys = {"v1_1": "model_state", "v2_student": "model", "v2_teacher": "encoder_state_dict"}
        return keys.get(self.official, "model_state_dict")

    @property
    def sizes(self) -> str:
        """The part of the file that holds the sizes, in v2."""
        return {"v2_student": "args", "v2_teacher": "arch"}[self.official]

    def weights(self, seed: int = 3) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """The official configuration, and the tensors by official name."""
        return reference.random_weights(self.official, seed, **{**TINY, **self.options})

    def payload(self, **more: Any) -> dict[str, Any]:
        return reference.official_payload(self.official, *self.weights(), **more)

    @property
    def said(self) -> ModelConfig:
        """What the file does not record."""
        return ModelConfig(self.weights()[0] if self.is_v1 else {})


_STACK = TransformerConfig(2, 2, 16)
_V1_0 = EncoderConfig(
    latent=4,
    s2=_STACK,
    s1=_STACK,
    hidden=None,
    representation=4,
    qk_norm=False,
    pre_norm=False,
    pooling="gru",
    fusion="concat",
    final_norm=False,
)
_V1_0_QAT = dataclasses.replace(_V1_0, pooling="custom-gru")
_V1_1 = dataclasses.replace(_V1_0_QAT, hidden=64, representation=192)
_STUDENT = EncoderConfig(
    latent=4,
    s2=_STACK,
    s1=_STACK,
    hidden=64,
    representation=128,
    qk_norm=False,
    pre_norm=False,
    pooling="attention",
    fusion="concat",
    final_norm=True,
)
_TEACHER = dataclasses.replace(_STUDENT, representation=96, qk_norm=True, pre_norm=True, fusion="transformer")

VARIANTS = {
    "v1.0-early": Variant("v1_0_early", "v1.0-early", _V1_0),
    "v1.0-early-sum": Variant("v1_0_early", "v1.0-early", dataclasses.replace(_V1_0, fusion="sum"), {"fusion": "sum"}),
    "v1.0-qat": Variant("v1_0_qat", "v1.0-qat", _V1_0_QAT),
    "v1.0-qat-sum": Variant("v1_0_qat", "v1.0-qat", dataclasses.replace(_V1_0_QAT, fusion="sum"), {"fusion": "sum"}),
    "v1.1": Variant("v1_1", "v1.1", _V1_1),
    "v1.1-sum": Variant("v1_1", "v1.1", dataclasses.replace(_V1_1, fusion="sum"), {"fusion": "sum"}),
    "v1.1-unequal": Variant(
        "v1_1",
        "v1.1",
        dataclasses.replace(_V1_1, s1=TransformerConfig(1, 4, 24), representation=40),
        {"s1_layers": 1, "s1_heads": 4, "s1_feedforward": 24, "representation": 40},
    ),
    "v2-student": Variant("v2_student", "v2-student", _STUDENT),
    "v2-student-qknorm": Variant(
        "v2_student", "v2-student", dataclasses.replace(_STUDENT, qk_norm=True), {"qk_norm": True}
    ),
    "v2-teacher": Variant("v2_teacher", "v2-teacher", _TEACHER),
    "v2-teacher-no-final-norm": Variant(
        "v2_teacher", "v2-teacher", dataclasses.replace(_TEACHER, final_norm=False), {"final_layernorm": False}
    ),
}
V1 = [name for name, variant in VARIANTS.items() if variant.is_v1]
V2 = [name for name, variant in VARIANTS.items() if not variant.is_v1]


def saved(folder: Path, content: object, name: str = "weights.pt") -> Path:
    path = folder / name
    torch.save(content, path)
    return path
