"""`--model-config`: what a checkpoint does not record, by the keys of the official configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from tessera_cli.errors import UsageError, complaint, shown
from tessera_cli.reading import read_json

Positive = Annotated[int, Field(ge=1, lt=2**31)]
Length = Annotated[int, Field(ge=1, le=4096)]
"""Of a sequence: more observations than any pixel has."""


class Keys(BaseModel):
    """Some keys of an official configuration with their types; all others are ignored."""

    model_config = ConfigDict(strict=True)


class V1_0Keys(Keys):  # noqa: N801 - the family's name
    """v1.0: attention heads, and fields of `RandomSampling` by their official keys."""

    nhead: Positive = 0
    """Of both sensors' transformers; 0 if not given."""
    s2: Length = Field(0, alias="sample_size_s2")
    s1: Length = Field(0, alias="sample_size_s1")
    repeats: Length = Field(0, alias="repeat_times")
    minimum: Annotated[int, Field(ge=0, lt=2**31)] = Field(0, alias="min_valid_timesteps")
    batch: Positive = Field(0, alias="batch_size")


def _positive(numbers: list[int]) -> list[int]:
    if not (positive := sorted({n for n in numbers if n > 0})):
        raise ValueError("Input should be a list with a positive number")
    return positive


class V1_1Keys(Keys):  # noqa: N801
    """v1.1: attention heads, which observations are used, how many values are stored; 0 and empty if not given."""

    s2_num_heads: Positive = 0
    s1_num_heads: Positive = 0
    use_s2: bool = True
    use_s1: bool = True
    split_s1_modalities: bool = False
    save_embedding_dim: Positive = 0
    num_obs_checkpoints: Annotated[list[Annotated[int, Field(le=4096)]], AfterValidator(_positive)] = []
    disable_s1_ascending: bool = False
    data_source: Literal["mpc", "aws"] | None = None

    @field_validator("use_s2", "use_s1", "split_s1_modalities")
    @classmethod
    def _check_as_released(cls, value: bool, info: ValidationInfo) -> bool:
        if value is (only := info.field_name != "split_s1_modalities"):
            return value
        raise ValueError(f"it must be {str(only).lower()}, as in all released models")


KeysT = TypeVar("KeysT", bound=Keys)


@dataclass(frozen=True)
class ModelConfig:
    """Official keys and values; those that do not concern the model's family are never checked."""

    values: Mapping[str, Any] = field(default_factory=dict)
    origin: str = "--model-config"
    """Where the values come from, for messages."""

    @classmethod
    def of(cls, given: AnyModelConfig | None) -> ModelConfig:
        """Return what a user says of a checkpoint: read from a JSON file, or as given."""
        if isinstance(given, str | Path):
            return cls.from_file(Path(given))
        return given if isinstance(given, ModelConfig) else cls(given or {})

    @classmethod
    def from_file(cls, path: Path) -> ModelConfig:
        """Read a JSON object; UsageError for anything else."""
        try:
            values = read_json(path)
        except OSError as error:
            raise UsageError(f"--model-config {path}: cannot be read ({error.strerror}). Check the path.") from error
        except ValueError as error:
            raise UsageError(f"--model-config {path}: not JSON ({error}). Give an official configuration.") from error
        if not isinstance(values, dict):
            raise UsageError(f"--model-config {path}: holds no JSON object. Give keys and values.")
        return cls(values, f"--model-config {path}")

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def parse(self, keys: type[KeysT]) -> KeysT:
        """Return these keys; UsageError names the first value that is wrong."""
        try:
            return keys.model_validate(self.values)
        except ValidationError as error:
            raise UsageError(f"{self.origin}: {complaint(error)}. Correct it.") from error

    def agree(self, key: str, found: object) -> None:
        """Raise UsageError if a value is given that is not the one that the file holds."""
        if key in self.values and self.values[key] != found:
            raise UsageError(
                f"{self.origin}: {key} is {shown(self.values[key])}, but the weights say {shown(found)}. "
                "Give the configuration that belongs to the file."
            )


AnyModelConfig = str | Path | Mapping[str, Any] | ModelConfig
