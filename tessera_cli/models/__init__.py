"""Models: names, weights and encoders. `load_model` is the way in; torch is imported when it is called, not before."""

from tessera_cli.models.architecture import EncoderConfig, TransformerConfig
from tessera_cli.models.load import Model, describe_model, load_model
from tessera_cli.models.model_config import ModelConfig
from tessera_cli.models.registry import DEFAULT_MODEL, REGISTRY, available, get_spec
from tessera_cli.models.spec import ModelSpec

__all__ = [
    "DEFAULT_MODEL",
    "REGISTRY",
    "EncoderConfig",
    "Model",
    "ModelConfig",
    "ModelSpec",
    "TransformerConfig",
    "available",
    "describe_model",
    "get_spec",
    "load_model",
]
