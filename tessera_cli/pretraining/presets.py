"""Presets: the starting points of a configuration in `presets.toml`."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tessera_cli.errors import UsageError

Values = Mapping[str, Mapping[str, Any]]
"""Section -> key -> value."""

PRESETS: Mapping[str, Values] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
DEFAULT_PRESET = "nano"


def get_preset(name: str) -> Values:
    """Return the values of a preset; `v2-nano` is `nano`. UsageError suggests a name if there is none such."""
    if (known := PRESETS.get(name.removeprefix("v2-"))) is None:
        raise UsageError(f"--preset {name}: there is none of this name. {suggest(name, PRESETS)}")
    return known


def suggest(name: str, known: Iterable[str]) -> str:
    """Return the nearest of the known names as a question, or all of them if none is near."""
    near = difflib.get_close_matches(name, known := list(known), n=1)
    return f"Did you mean {near[0]}?" if near else f"Choose one of {', '.join(known)}."
