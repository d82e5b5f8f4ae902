"""`--model-config`: what a checkpoint does not say of itself, in the words of the official configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tessera_cli.errors import UsageError

LARGEST = 2**31 - 1
LONGEST = 4096
"""Of sequences: more observations than any pixel has."""


@dataclass(frozen=True)
class ModelConfig:
    """Official keys and values; those that do not concern the model's family are never asked for."""

    values: Mapping[str, Any] = field(default_factory=dict)
    origin: str = "--model-config"
    """For messages: where the values stand."""

    @classmethod
    def from_file(cls, path: Path) -> ModelConfig:
        """A JSON object; UsageError for anything else."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
        except OSError as error:
            raise UsageError(f"--model-config {path}: cannot be read ({error.strerror}). Check the path.") from error
        except (ValueError, RecursionError) as error:
            raise UsageError(f"--model-config {path}: not JSON ({error}). Give an official configuration.") from error
        if not isinstance(values, dict):
            raise UsageError(f"--model-config {path}: holds no JSON object. Give keys and values.")
        return cls(values, f"--model-config {path}")

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def integer(self, key: str, default: int, *, least: int = 1, most: int = LARGEST) -> int:
        value = self.values.get(key, default)
        if type(value) is not int or not least <= value <= most:
            raise self._wrong(key, f"an integer from {least}" + (f" to {most}" if most < LARGEST else ""))
        return value

    def integers(self, key: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """The positive ones of a list, sorted, each once."""
        if key not in self.values:
            return default
        numbers = self.values[key]
        if not isinstance(numbers, list) or not all(type(n) is int and n <= LONGEST for n in numbers):
            raise self._wrong(key, f"a list of integers up to {LONGEST}")
        positive = tuple(sorted({n for n in numbers if n > 0}))
        if not positive:
            raise self._wrong(key, "a list with a positive number")
        return positive

    def switch(self, key: str, default: bool) -> bool:
        value = self.values.get(key, default)
        if type(value) is not bool:
            raise self._wrong(key, "true or false")
        return value

    def choice(self, key: str, default: str | None, choices: tuple[str, ...]) -> str | None:
        value = self.values.get(key, default)
        if value is not None and value not in choices:
            raise self._wrong(key, f"one of {', '.join(choices)}")
        return None if value is None else str(value)

    def agree(self, key: str, found: object) -> None:
        """UsageError if a value is given that is not the one that the file holds."""
        if key in self.values and self.values[key] != found:
            raise UsageError(
                f"{self.origin}: {key} is {_shown(self.values[key])}, but the weights say {_shown(found)}. "
                "Give the configuration that belongs to the file."
            )

    def _wrong(self, key: str, due: str) -> UsageError:
        return UsageError(f"{self.origin}: {key} is {_shown(self.values.get(key))}; {due} is needed.")


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no number")


def _shown(value: object) -> str:
    return json.dumps(value, default=str)[:60]
