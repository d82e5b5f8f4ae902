"""Load a run's configuration from a preset, a TOML file and the command line; write it back as TOML."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import tomli_w
from pydantic import ValidationError

from tessera_cli.errors import UsageError, reason
from tessera_cli.pretraining.config import PretrainConfig
from tessera_cli.pretraining.presets import DEFAULT_PRESET, Values, get_preset, suggest
from tessera_cli.reading import MB, read_file

Nested = dict[str, dict[str, Any]]
MAX_TOML = MB


def load_config(
    *,
    preset_name: str | None = None,
    path: Path | None = None,
    overrides: Sequence[str] = (),
    more: Values = MappingProxyType({}),
    base: Values = MappingProxyType({}),
) -> PretrainConfig:
    """Return the configuration; `overrides` (section.key=value) win over `more`, TOML file, preset and defaults.

    `base` goes over the default preset, where no preset is named.

    A TOML file may name its preset (`preset = "nano"`). UsageError names the key and the values it takes.
    """
    nested: Nested = {}
    from_file = {} if path is None else _read(path)
    own = from_file.pop("preset", None)
    if own is not None and not isinstance(own, str):
        raise UsageError(f'{path}: preset is not a name. Write it as preset = "nano".')
    _merge(nested, get_preset(preset_name or own or DEFAULT_PRESET))
    if not (preset_name or own):
        _merge(nested, base)
    _merge(nested, from_file, str(path))
    parsed = [_parse(override) for override in overrides]
    said = {key for each in (more, *parsed) for key in each.get("train", {})}
    if {"steps", "epochs"} <= said:
        raise UsageError("train.steps and train.epochs both say how long to train. Give one of them.")
    _merge(nested, more)
    for override in parsed:
        _merge(nested, override, "--set")
    try:
        return PretrainConfig.model_validate(nested)
    except ValidationError as error:
        raise UsageError(_first_error(error)) from error


def to_toml(config: PretrainConfig) -> str:
    """Return every key with its value, as a file that `load_config` reads."""
    return tomli_w.dumps(as_json(config))


def as_json(config: PretrainConfig) -> dict[str, dict[str, Any]]:
    """Return section -> key -> value, as TOML and JSON hold them, without the keys that are None."""
    return config.model_dump(mode="json", by_alias=True, exclude_none=True)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_file(path, MAX_TOML).decode("utf-8"))
    except OSError as error:
        raise UsageError(f"--config {path} cannot be read ({error.strerror}). Check the path.") from error
    except (ValueError, RecursionError) as error:  # numbers of 5,000 digits, arrays in arrays in arrays
        raise UsageError(f"--config {path} is no TOML: {reason(error)}. Correct it.") from error


def _merge(nested: Nested, values: Mapping[str, Any], origin: str = "") -> None:
    """Overwrite `nested` with these values."""
    for section, keys in values.items():
        if not isinstance(keys, Mapping):
            raise UsageError(f"{origin}: {section} is no section. {suggest(section, PretrainConfig.model_fields)}")
        held = nested.setdefault(section, {})
        if section == "train" and "steps" in keys:  # who names a number of steps means it
            held.pop("epochs", None)
        held.update(keys)


def _parse(override: str) -> Nested:
    """`optim.lr=1e-3` -> {"optim": {"lr": 0.001}}. A value that is no TOML is taken as text."""
    path, equals, text = override.partition("=")
    section, dot, key = path.strip().partition(".")
    if not (equals and dot and key):
        raise UsageError(f"--set {override}: write it as section.key=value, for example optim.lr=1e-3.")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        value = text
    return {section: {key: value}}


def _first_error(error: ValidationError) -> str:
    """Return the first of pydantic's errors as one line."""
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    name = ".".join(path)
    if first["type"] == "extra_forbidden":
        model = PretrainConfig if len(path) == 1 else PretrainConfig.model_fields[path[0]].annotation
        known = [field.alias or key for key, field in getattr(model, "model_fields", {}).items()]
        return f"Settings have no {'section ' if len(path) == 1 else ''}{name}. {suggest(path[-1], known)}"
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    given = "" if first["type"] == "value_error" else f" = {first['input']!r}"
    return f"{name or 'Settings'}{given}: {message}. Correct it with --set or in --config."
