"""What `runs/<key>.json` and `run.json` must be when they are read back: their types are checked here, once."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    NonNegativeInt,
    PositiveInt,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from tessera_cli.errors import UsageError
from tessera_cli.extent.grid import unpack_mask
from tessera_cli.outputs.schema import DPixelsIdentity, EmbeddingsIdentity
from tessera_cli.reading import read_json

Zone = Annotated[str, StringConstraints(pattern=r"^32[67](0[1-9]|[1-5][0-9]|60)\Z")]
"""EPSG code of UTM."""
Metres = Annotated[FiniteFloat, Field(ge=-1e8, le=1e8)]
"""Within twice the Earth's girth: PROJ gives nothing for much more."""
Box = Annotated[list[Metres], Field(min_length=4, max_length=4)]
Name = Annotated[str, StringConstraints(pattern=r"^[^/\\\x00-\x1f]+\Z")]
"""Of a tile and so of its files: none that leads out of the folder."""


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", regex_engine="python-re")


class Failed(_Part):
    """A tile that a run could not make, for these pixels."""

    reason: str
    shape: tuple[PositiveInt, PositiveInt] = Field(strict=False)
    requested: str
    allow_missing: NonNegativeInt

    @model_validator(mode="after")
    def _mask_is_whole(self) -> Failed:
        try:
            unpack_mask(base64.b64decode(self.requested), self.shape)
        except zlib.error as error:
            raise ValueError("its mask does not unpack") from error
        return self


class RunRecord(_Part):
    """What a run was asked for."""

    names: list[Name] = []
    costs: list[NonNegativeInt] = []
    """What each of the tiles was expected to cost when the scenes were frozen: shares are cut by it."""
    areas: dict[Zone, Box] = {}
    aoi_bounds: Box | None = None
    source: str | None = None
    scenes: list[str] | None = None
    skipped: dict[str, int] = {}
    failed: dict[Name, Failed] = {}

    @field_validator("areas")
    @classmethod
    def _boxes_hold_something(cls, areas: dict[str, list[float]]) -> dict[str, list[float]]:
        if not all(west < east and south < north for west, south, east, north in areas.values()):
            raise ValueError("an area is empty")
        return areas


class Folder(_Part):
    """Whose a folder is; of its identity, only what is read by name is checked, the rest is compared."""

    identity: DPixelsIdentity | EmbeddingsIdentity
    note: str = ""


def checked_run(record: Any) -> Mapping[str, Any] | None:
    """Return the record of a run; None if it is none."""
    with suppress(ValidationError):
        RunRecord.model_validate(record)
        return record  # type: ignore[no-any-return]
    return None


def checked_failure(failed: Any) -> Mapping[str, Any] | None:
    """Return the note of a tile that failed; None if it is none."""
    with suppress(ValidationError):
        Failed.model_validate(failed)
        return failed  # type: ignore[no-any-return]
    return None


def is_of_same_area(run: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether two records of runs are of one area, or of stored d-pixels that share a tile."""
    if "aoi_bounds" in other:
        return all(run.get(key) == other[key] for key in ("aoi_bounds", "areas"))
    return not set(other["names"]).isdisjoint(run.get("names", ()))


def checked_folder(run: Any) -> Mapping[str, Any] | None:
    """Return what a `run.json` holds; None if it is none."""
    with suppress(ValidationError):
        Folder.model_validate(run)
        return run  # type: ignore[no-any-return]
    return None


def read_or_none(path: Path) -> Any:
    """Return the parsed file; None if it is absent or not JSON (a torn write of another tool)."""
    try:
        return read_json(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}. Check its permissions.") from error
