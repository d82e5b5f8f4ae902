"""The families of TESSERA encoders: what every model of a family has in common."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from tessera_cli.models.architecture import EncoderConfig
from tessera_cli.models.spec import Family, ModelSpec
from tessera_cli.sampling import V1_1_RULE, V2_RULE, RandomSampling
from tessera_cli.sampling.statistics import (
    V1_0_STATISTICS,
    V1_1_STATISTICS,
    V2_STUDENT_STATISTICS,
    V2_TEACHER_STATISTICS,
)

PARTS: Mapping[Family, Mapping[str, Any]] = {
    "v1.0-early": {"pooling": "gru", "hidden": None, "final_norm": False},
    "v1.0-qat": {"pooling": "custom-gru", "hidden": None, "final_norm": False},
    "v1.1": {"pooling": "custom-gru", "final_norm": False},
    "v2-student": {},
    "v2-teacher": {"qk_norm": True, "pre_norm": True, "fusion": "transformer"},
}
"""The parts that the encoders of a family are built of; sizes are the model's."""

_OLD_PIPELINE: Mapping[str, Any] = {
    "warning": "Model {model} was trained on d-pixels of an older pipeline: its embeddings of source {source} may be "
    "shifted against the published ones. Do not mix them.",
    "warn_sources": ("mpc", "aws"),
}
_ONE_SET: Mapping[str, Any] = {
    "warning": "Model {model} has one set of statistics for all sources: its embeddings of source {source} may be "
    "shifted against those of others. Do not mix them.",
    "warn_sources": ("aws",),
}
_RULES: Mapping[Family, Mapping[str, Any]] = {
    "v1.0-early": {"statistics": V1_0_STATISTICS, "observations": RandomSampling(), "quantiser": "v1", **_OLD_PIPELINE},
    "v1.0-qat": {
        "statistics": V1_0_STATISTICS,
        "observations": RandomSampling(dummies=True),
        "quantiser": "v1",
        **_OLD_PIPELINE,
    },
    "v1.1": {"statistics": None, "observations": V1_1_RULE, "quantiser": "v1"},
    "v2-student": {"statistics": V2_STUDENT_STATISTICS, "observations": V2_RULE, "quantiser": "v2", **_ONE_SET},
    "v2-teacher": {"statistics": V2_TEACHER_STATISTICS, "observations": V2_RULE, "quantiser": None, **_ONE_SET},
}
"""What else the models of a family have in common, as fields of `ModelSpec`."""
V1_1_SAVED = 128
"""save_embedding_dim: how many of a v1.1 model's values are stored."""


def family_spec(family: Family, name: str, config: EncoderConfig, **fields: Any) -> ModelSpec:
    """Return a model of this family; `fields` of `ModelSpec` replace the family's own.

    The source of a v1.1 model decides its statistics, unless they are given.
    """
    saved = min(V1_1_SAVED, config.representation) if family == "v1.1" else config.representation
    spec = ModelSpec(name, family, config, **{**_RULES[family], "dims": (saved,), **fields})
    if spec.statistics is None and spec.source is not None:
        spec = dataclasses.replace(spec, statistics=V1_1_STATISTICS[spec.source])
    return spec
