"""Preset, TOML file and command line -> `Settings`, and back to TOML."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import tomli_w
from pydantic import ValidationError

from tessera_cli.errors import UsageError, reason
from tessera_cli.pretrain.config import Settings
from tessera_cli.pretrain.presets import DEFAULT_PRESET, Values, preset

Nested = dict[str, dict[str, Any]]


def settings_of(
    *,
    preset_name: str | None = None,
    config: Path | None = None,
    overrides: Sequence[str] = (),
    more: Values = MappingProxyType({}),
) -> Settings:
    """What the user asked for: `overrides` (section.key=value) win over `more`, TOML file, preset, defaults.

    A TOML file may name its preset itself (`preset = "nano"`). UsageError names the key and what it takes.
    """
    nested: Nested = {}
    from_file = {} if config is None else _read(config)
    own = from_file.pop("preset", None)
    if own is not None and not isinstance(own, str):
        raise UsageError(f'{config}: preset is not a name. Write it as preset = "nano".')
    _lay(nested, preset(preset_name or own or DEFAULT_PRESET))
    _lay(nested, from_file, str(config))
    _lay(nested, more)
    for override in overrides:
        _lay(nested, _parsed(override), "--set")
    try:
        return Settings.model_validate(nested)
    except ValidationError as error:
        raise UsageError(_told(error)) from error


def to_toml(settings: Settings) -> str:
    """Every key with its value, as a file that `settings_of` reads back."""
    return tomli_w.dumps(as_json(settings))


def as_json(settings: Settings) -> dict[str, dict[str, Any]]:
    """Section -> key -> value, as TOML and JSON hold them; keys that are None are left out."""
    return settings.model_dump(mode="json", by_alias=True, exclude_none=True)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--config {path} cannot be read ({error.strerror}). Check the path.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {path} is no TOML: {reason(error)}. Correct it.") from error


def _lay(nested: Nested, values: Mapping[str, Any], origin: str = "") -> None:
    """Put values over those that are there."""
    for section, keys in values.items():
        if not isinstance(keys, Mapping):
            raise UsageError(f"{origin}: {section} is no section. {_nearest(section, list(Settings.model_fields))}")
        nested.setdefault(section, {}).update(keys)


def _parsed(override: str) -> Nested:
    """`optim.lr=1e-3` -> {"optim": {"lr": 0.001}}. What is no TOML value is taken as text."""
    path, equals, text = override.partition("=")
    section, dot, key = path.strip().partition(".")
    if not (equals and dot and key):
        raise UsageError(f"--set {override}: write it as section.key=value, for example optim.lr=1e-3.")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    return {section: {key: value}}


def _told(error: ValidationError) -> str:
    """The first of pydantic's complaints, in one line."""
    first = error.errors()[0]
    place = [str(part) for part in first["loc"]]
    name = ".".join(place)
    if first["type"] == "extra_forbidden":
        if len(place) == 1:
            return f"Settings have no section {name}. {_nearest(name, list(Settings.model_fields))}"
        section = Settings.model_fields[place[0]].annotation
        fields = {} if section is None else section.model_fields
        return f"Settings have no {name}. {_nearest(place[1], [field.alias or key for key, field in fields.items()])}"
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    given = "" if first["type"] == "value_error" else f" = {first['input']!r}"
    return f"{name or 'Settings'}{given}: {message}. Correct it with --set or in --config."


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean {near[0]}?" if near else f"Choose one of {', '.join(known)}."
