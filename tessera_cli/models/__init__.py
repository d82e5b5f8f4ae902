"""Models: names, weights and encoders. `load_model` is the way in; torch is imported when it is called, not before."""

from tessera_cli.models.load import Model, describe_model, load_model
from tessera_cli.models.spec import DEFAULT_MODEL, REGISTRY, EncoderConfig, ModelSpec, available, spec_named

__all__ = [
    "DEFAULT_MODEL",
    "REGISTRY",
    "EncoderConfig",
    "Model",
    "ModelSpec",
    "available",
    "describe_model",
    "load_model",
    "spec_named",
]
