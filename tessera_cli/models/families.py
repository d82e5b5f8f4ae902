"""The families of TESSERA encoders: what every model of a family has in common."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from tessera_cli.errors import IdentityError, UsageError
from tessera_cli.models.architecture import EncoderConfig
from tessera_cli.models.model_config import LONGEST, ModelConfig
from tessera_cli.models.spec import Family, ModelSpec
from tessera_cli.sampling import V1_1_RULE, V2_RULE, BucketedSampling, RandomSampling
from tessera_cli.sampling.statistics import V1_0, V1_1, V2_STUDENT, V2_TEACHER

PARTS: Mapping[Family, Mapping[str, Any]] = {
    "v1.0-early": {"pooling": "gru", "hidden": None, "final_norm": False},
    "v1.0-qat": {"pooling": "custom-gru", "hidden": None, "final_norm": False},
    "v1.1": {"pooling": "custom-gru", "final_norm": False},
    "v2-student": {},
    "v2-teacher": {"qk_norm": True, "pre_norm": True, "fusion": "transformer"},
}
"""How the encoders of a family are put together; sizes are the model's."""

_ONE_SET = (
    "Model {model} has one set of statistics for all sources: its embeddings of source {source} may be shifted "
    "against those of others. Do not mix them."
)
_OLD_PIPELINE = (
    "Model {model} was trained on d-pixels of an older pipeline: its embeddings of source {source} may be shifted "
    "against the published ones. Do not mix them."
)
V1_1_SAVED = 128
"""save_embedding_dim: as many of a v1.1 model's values are stored."""

_RULES: Mapping[Family, Mapping[str, Any]] = {
    "v1.0-early": {
        "statistics": V1_0,
        "observations": RandomSampling(),
        "quantiser": "v1",
        "warning": _OLD_PIPELINE,
        "warn_sources": ("mpc", "aws"),
    },
    "v1.0-qat": {
        "statistics": V1_0,
        "observations": RandomSampling(dummies=True),
        "quantiser": "v1",
        "warning": _OLD_PIPELINE,
        "warn_sources": ("mpc", "aws"),
    },
    "v1.1": {"statistics": None, "observations": V1_1_RULE, "quantiser": "v1"},
    "v2-student": {
        "statistics": V2_STUDENT,
        "observations": V2_RULE,
        "quantiser": "v2",
        "warning": _ONE_SET,
        "warn_sources": ("aws",),
    },
    "v2-teacher": {
        "statistics": V2_TEACHER,
        "observations": V2_RULE,
        "quantiser": None,
        "warning": _ONE_SET,
        "warn_sources": ("aws",),
    },
}


def family_spec(family: Family, name: str, config: EncoderConfig, **more: Any) -> ModelSpec:
    """A model of this family. `more` are fields of `ModelSpec`. The `source` of a v1.1 model settles its statistics."""
    fields = {**_RULES[family], "dims": _dims(family, config), **more}
    if family == "v1.1" and fields.get("source") is not None and more.get("statistics") is None:
        fields["statistics"] = V1_1[fields["source"]]
    return ModelSpec(name, family, config, **fields)


def _dims(family: Family, config: EncoderConfig) -> tuple[int, ...]:
    return (min(V1_1_SAVED, config.representation),) if family == "v1.1" else (config.representation,)


def with_config(spec: ModelSpec, model_config: ModelConfig) -> ModelSpec:
    """The model as a user's configuration has it: what was observed, what is stored, whose d-pixels."""
    rule = spec.observations
    if isinstance(rule, RandomSampling):
        rule = dataclasses.replace(
            rule,
            s2=model_config.integer("sample_size_s2", rule.s2, most=LONGEST),
            s1=model_config.integer("sample_size_s1", rule.s1, most=LONGEST),
            repeats=model_config.integer("repeat_times", rule.repeats, most=LONGEST),
            minimum=model_config.integer("min_valid_timesteps", rule.minimum, least=0),
            batch=model_config.integer("batch_size", rule.batch),
        )
        return dataclasses.replace(spec, observations=rule)
    if spec.family != "v1.1" or not isinstance(rule, BucketedSampling) or spec.config is None:
        return spec
    for key, only in (("use_s2", True), ("use_s1", True), ("split_s1_modalities", False)):
        if model_config.switch(key, only) is not only:
            raise UsageError(f"{model_config.origin}: {key} must be {str(only).lower()}, as in all released models.")
    saved = model_config.integer("save_embedding_dim", spec.default_dims)
    if saved > spec.config.representation:
        raise UsageError(
            f"{model_config.origin}: save_embedding_dim is {saved}, but the model gives "
            f"{spec.config.representation} values. Give fewer."
        )
    return _of_source(
        dataclasses.replace(
            spec,
            dims=spec.dims if saved == spec.default_dims else (saved,),
            observations=dataclasses.replace(rule, bins=model_config.integers("num_obs_checkpoints", rule.bins)),
            use_ascending=not model_config.switch("disable_s1_ascending", not spec.use_ascending),
        ),
        model_config.choice("data_source", None, tuple(V1_1)),
        model_config.origin,
    )


def bind_source(spec: ModelSpec, source: str | None) -> ModelSpec:
    """The model with the statistics of this source, if it needs to be told; UsageError if nobody did."""
    if spec.statistics is not None:
        return spec
    if source not in V1_1:
        raise UsageError(
            f"{spec.name}: neither the weights nor the d-pixels say which data the model was trained on. "
            "Say it with --source mpc or --source aws (or data_source in --model-config)."
        )
    name = f"{spec.name}-{source}" if spec.name == spec.family else spec.name  # of the released size: v1.1-mpc
    return dataclasses.replace(spec, name=name, source=source, statistics=V1_1[source])


def _of_source(spec: ModelSpec, source: str | None, origin: str) -> ModelSpec:
    if source is None or source == spec.source:
        return spec
    if spec.source is not None:
        raise IdentityError(
            f"{origin}: data_source is {source}, but {spec.name} was trained on {spec.source}. Correct one of them."
        )
    return bind_source(spec, source)
