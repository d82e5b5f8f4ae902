"""What the columns of a long table are called and what their numbers mean, as the user says it."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from tessera_cli.dpixels.dpixel import S2_BANDS
from tessera_cli.errors import UsageError, listed, plainly, shown
from tessera_cli.reading import MB, is_there, read_file

Optical = Literal["dn", "reflectance"]
"""`dn`: reflectance x 10000; `reflectance`: 0 to 1."""
Radar = Literal["db", "linear", "amplitude", "scaled"]
"""`db`: decibels; `linear`: power; `amplitude`: its square root; `scaled`: as d-pixels hold it, (2 dB + 50) x 200."""
Orbit = Literal["ascending", "descending"]
NAMES = ("sample", "date", "lon", "lat", "group", *S2_BANDS, "VV", "VH", "orbit", "clear", "SCL")
"""What a column can be."""
_CHOICES: Mapping[str, Any] = {"optical": Optical, "radar": Radar, "default_orbit": Orbit}
_NUMBERS = ("optical_offset", "radar_scale", "radar_offset")
KEYS = (*NAMES, *_CHOICES, *_NUMBERS, "missing", "substitute")


@dataclass(frozen=True)
class Columns:
    """How to read a long table. Columns that are not named are recognised by the usual names (`series/names.py`)."""

    names: Mapping[str, str] = field(default_factory=dict)
    """One of `NAMES` -> the column of the table."""
    optical: Optical | None = None
    """None: `dn`."""
    optical_offset: float = 0
    """Added to DN, such as -1000 for products of baseline 04.00 and later; what is left is 1 at least."""
    radar: Radar | None = None
    """None: that of the columns' names (`series/names.py`), else `db`."""
    radar_scale: float = 1
    """What values are multiplied with before anything else."""
    radar_offset: float = 0
    """Decibels added in the end."""
    missing: tuple[float, ...] = (65535,)
    """Values of bands and radar that mean that there is none, beside empty cells and NaN."""
    default_orbit: Orbit = "ascending"
    """The orbit direction of all radar, where no column tells."""
    substitute: Mapping[str, str] = field(default_factory=dict)
    """Band that the table lacks -> the band to take in its place."""

    @classmethod
    def of(cls, given: AnyColumns) -> Columns:
        """Return what is given: `Columns`, a mapping, the path of a TOML file, `KEY=NAME` texts and paths; None: none.

        Keys are those of `KEYS`; `substitute` is a table in TOML, and `substitute.B8A=B08` as a text. Of several, later
        ones win. Raises UsageError.
        """
        if given is None:
            return cls()
        if isinstance(given, Columns):
            return given
        if isinstance(given, Mapping):
            return cls._checked(given, "columns")
        settings: dict[str, Any] = {}
        every: Sequence[str | Path] = [given] if isinstance(given, str | Path) else list(given)
        for one in every:
            key, equals, value = str(one).partition("=")
            if isinstance(one, Path) or not equals or is_there(Path(one)):
                settings = _merged(settings, _from_file(Path(one)))
            elif key.startswith("substitute."):
                settings = _merged(settings, {"substitute": {key.removeprefix("substitute."): value}})
            else:
                settings[key] = value.split(",") if key == "missing" else value
        return cls._checked(settings, "--columns")

    @classmethod
    def _checked(cls, settings: Mapping[str, Any], origin: str) -> Columns:
        names, more = {}, dict[str, Any]()
        known = {key.lower(): key for key in KEYS}
        for given, value in settings.items():
            key = known.get(given.lower())
            if key is None:
                raise UsageError(f"{origin}: {shown(given)} is no column of a series. It may have: {', '.join(KEYS)}.")
            if key == "missing":
                every = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
                more[key] = tuple(_number(origin, key, each) for each in every)
            elif key == "substitute":
                more[key] = _substitutes(origin, value)
            elif key in _NUMBERS:
                more[key] = _number(origin, key, value)
            elif key in _CHOICES:
                if value not in get_args(_CHOICES[key]):
                    choices = ", ".join(get_args(_CHOICES[key]))
                    raise UsageError(f"{origin}: {key} is {shown(value)}. Choose one of: {choices}.")
                more[key] = value
            elif not isinstance(value, str) or not value:
                raise UsageError(f"{origin}: {key} is {shown(value)}. Give the name of a column.")
            else:
                names[key] = value
        return cls(names, **more)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain JSON, without what is not set."""
        default = Columns()
        found = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        told = {key: value for key, value in found.items() if key != "names" and value != getattr(default, key)}
        return {**self.names, **told}


AnyColumns: TypeAlias = Columns | Mapping[str, Any] | str | Path | Sequence[str | Path] | None


def _from_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_file(path, MB).decode("utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"--columns {path} cannot be read: {plainly(error)}. Give a TOML file, or KEY=NAME for each column."
        ) from error


def _merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    both = [each.get("substitute") for each in (one, other)]
    merged = {**one, **other}
    if all(isinstance(each, Mapping) for each in both):
        merged["substitute"] = {**both[0], **both[1]}  # type: ignore[dict-item]
    return merged


def _number(origin: str, key: str, value: Any) -> float:
    try:
        if isinstance(value, bool):
            raise TypeError
        return float(value)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{origin}: {key} is {shown(value)}, which is no number. Give one.") from error


def _substitutes(origin: str, value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise UsageError(
            f'{origin}: substitute is {shown(value)}. Write substitute.B8A=B08, in TOML {{ B8A = "B08" }}.'
        )
    for pair in value.items():
        for band in pair:
            if band not in S2_BANDS:
                raise UsageError(f"{origin}: substitute names {shown(band)}. Choose from {listed(S2_BANDS)}.")
    return dict(value)
