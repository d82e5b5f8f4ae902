"""Encoders with random weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tessera_cli.models import EncoderConfig, Model, ModelConfig, load_model
from tessera_cli.models.encoder import seeded
from tessera_cli.models.families import family_spec
from tessera_cli.models.precision import Precision, prepare
from tessera_cli.models.spec import Family
from tessera_cli.sampling import ObservationRule, RandomSampling
from tests import reference

LIKE_THE_OFFICIAL: Mapping[Family, str] = {
    "v1.0-early": "v1_0_early",
    "v1.0-qat": "v1_0_qat",
    "v1.1": "v1_1",
    "v2-student": "v2_student",
    "v2-teacher": "v2_teacher",
}
"""Family -> its name in tests/reference and in ../shared/golden."""


def random_model(
    config: EncoderConfig,
    family: Family = "v2-student",
    *,
    seed: int = 0,
    observations: ObservationRule | None = None,
    precision: Precision | None = "fp32",
) -> Model:
    """Ready to encode on the CPU; with None for a precision as a training has it."""
    encoder = seeded(config, seed)
    spec = family_spec(family, "random", config, source="mpc" if family == "v1.1" else None)
    if precision is not None:
        prepare(encoder, precision)
    spec = dataclasses.replace(spec, observations=observations or spec.observations)
    return Model(spec, encoder, "", precision or "fp32")


def published(
    folder: Path,
    family: str,
    seed: int,
    *,
    options: Mapping[str, Any] | None = None,
    source: str | None = None,
    legacy: bool = False,
    precision: Precision = "fp32",
    **sizes: Any,
) -> tuple[dict[str, Any], dict[str, np.ndarray], Model]:
    """Configuration and tensors of the reference, and the model that their official checkpoint becomes.

    `family` is a name of `reference`, `options` replace settings, `legacy` draws in the official order.
    """
    config, tensors = reference.random_weights(family, seed, **sizes)
    config |= options or {}
    file = folder / "checkpoint.pt"
    torch.save(reference.official_payload(family, config, tensors), file)
    model = load_model(weights=file, model_config=ModelConfig(config), device="cpu", precision=precision)
    model = model.bind_source(source)
    return config, tensors, drawing_officially(model) if legacy else model


def drawing_officially(model: Model) -> Model:
    rule = model.spec.observations
    assert isinstance(rule, RandomSampling)
    rule = dataclasses.replace(rule, legacy=True)
    return dataclasses.replace(model, spec=dataclasses.replace(model.spec, observations=rule))
