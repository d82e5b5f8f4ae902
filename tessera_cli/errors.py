"""Every error a user can meet: what happened, why, what to do, and the exit code of the command.

Exit codes: 2 usage or configuration, 3 nothing to embed, 4 some tiles failed (a rerun resumes),
5 the output folder belongs to other settings, 69 source refused, 75 source unavailable or out of time,
77 credentials.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError


class TesseraError(Exception):
    """Base of all errors with a message meant for the user."""

    exit_code = 1
    status: int | None = None
    """The HTTP status behind it, if there is one."""
    told = False
    """Whether a result that was printed holds it already."""

    def retold(self, text: str) -> TesseraError:
        """Return the same error with another text."""
        return type(self)(text)


class UsageError(TesseraError):
    """An option, an input file or a model that cannot be used as given."""

    exit_code = 2


class NothingToEmbedError(TesseraError):
    """The request is valid, yet holds no pixel or no imagery."""

    exit_code = 3


class PartialFailureError(TesseraError):
    """Some tiles failed; what is finished stays, a rerun does the rest."""

    exit_code = 4


class DiskFullError(PartialFailureError):
    """The disk or the quota is full; make room or choose another folder, then run again."""


class IdentityError(TesseraError):
    """The output folder was made with other settings."""

    exit_code = 5


class SourceRefusedError(TesseraError):
    """The catalogue or the storage refused to answer (4xx other than 404/410)."""

    exit_code = 69


class AbsentError(SourceRefusedError):
    """The server does not have it (404, 410)."""


class SourceUnavailableError(TesseraError):
    """The catalogue or the storage cannot be reached at the moment; try again later."""

    exit_code = 75


class SourceBusyError(SourceUnavailableError):
    """The server still asks for patience after all retries (429)."""


class OutOfTimeError(TesseraError):
    """The deadline has passed before the last tile; the same command goes on."""

    exit_code = 75


class ReadingStoppedError(SourceUnavailableError):
    """Something else has ended the run; it says nothing about the tile that was being read."""


class CredentialsError(TesseraError):
    """Credentials are missing or were rejected."""

    exit_code = 77


class TileError(TesseraError):
    """One tile cannot be finished; the others go on."""

    exit_code = 4


LONGEST = 4000
"""Characters of a line for people."""
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
"""What moves cursors, breaks or turns lines, or is not there to be seen: ids, hrefs and texts of others may hold it."""


def printable(text: str, *, longest: int | None = LONGEST) -> str:
    """Return text as one line that does nothing to a terminal but stand there, cut after `longest` characters."""
    cut = text if longest is None or len(text) <= longest else f"{text[:longest]}... ({len(text):,} characters)"
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], cut)


def printable_json(text: str) -> str:
    """Return JSON in which such characters are escaped as JSON escapes them: it means the same."""
    return _UNPRINTABLE.sub(lambda found: json.dumps(found[0])[1:-1], text)


def reason(error: BaseException) -> str:
    """What another library's error says, as a part of one line of ours; its name where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0][:200].rstrip(". ") if lines else type(error).__name__


def plainly(error: BaseException) -> str:
    """As `reason`, but of errors of the system what went wrong alone, without its number and the path."""
    return (error.strerror if isinstance(error, OSError) else None) or reason(error)


def complaint(error: ValidationError) -> str:
    """Return the first problem that pydantic found, in one clause: "dims.0 is 0, but it should be greater than 0"."""
    first = error.errors()[0]
    message = first["msg"].removeprefix("Value error, ").replace("Input should", "it should")
    key = ".".join(map(str, first["loc"]))
    if first["type"] == "missing":
        return f"{key} is missing"
    return f"{key} is {shown(first['input'])}, but {message}" if key else message


def shown(value: object) -> str:
    """Return a value of a JSON document for a message, cut to 60 characters."""
    return json.dumps(value, default=str)[:60]


def differences(there: Mapping[str, Any], here: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return "key is 1 there and 2 here" for every key whose values differ; keys of mappings as `outer.inner`.

    Where only one side has a mapping, it is named without its keys.
    """
    found: list[str] = []
    for key in dict.fromkeys([*there, *here]):
        one, other = there.get(key), here.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            found += differences(one, other, f"{prefix}{key}.")
        elif one != other:
            found.append(f"{prefix}{key} is {_brief(one)} there and {_brief(other)} here")
    return found


def _brief(value: Any) -> str:
    """Return a setting for a message: long values are cut, of mappings only that there is one."""
    if isinstance(value, Mapping):
        return "set"
    text = "not set" if value is None else repr(value)
    return text if len(text) <= 40 else f"{text[:16]}...{text[-1]}"


def counted(number: float, noun: str) -> str:
    """Return "1 area", "2 areas", "1.5 areas"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(names: Iterable[str], most: int = 10) -> str:
    """Return the first names for a message."""
    every = list(names)
    return ", ".join(every[:most]) + (", ..." if len(every) > most else "")
