"""What runs and plans on a folder asked for, and what they failed on: read again and again, each file once."""

from __future__ import annotations

import base64
import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tessera_cli.errors import UsageError
from tessera_cli.folders.failures import FAILED
from tessera_cli.folders.run_record import checked_failure, checked_run, read_or_none
from tessera_cli.outputs.layers import RUNS
from tessera_cli.outputs.packed import PackedMask

SUFFIX = ".json"


@dataclass(frozen=True)
class Failure:
    """That a run could not make a tile, and for which pixels."""

    reason: str
    requested: PackedMask
    allow_missing: int

    @classmethod
    def of(cls, failed: Mapping[str, Any]) -> Failure:
        """Return the note of a tile that failed, whose types are checked."""
        height, width = failed["shape"]
        mask = PackedMask(base64.b64decode(failed["requested"]), (height, width))
        return cls(failed["reason"], mask, failed["allow_missing"])


@dataclass(frozen=True)
class Asked:
    """What all runs on a folder asked for."""

    names: frozenset[str] = frozenset()
    failures: Mapping[str, Sequence[Failure]] = field(default_factory=dict)
    """Tile -> how runs failed on it, also where another one has finished it since."""


@dataclass
class AskedReader:
    """Reads what runs asked for, as often as it is told to; files that are still the same are not read again."""

    folder: Path
    _seen: dict[tuple[str, str], tuple[int, Any]] = field(default_factory=dict)
    """Folder below `runs`, name -> inode, what was made of it."""

    def read(self) -> Asked:
        """Return what runs ask for now."""
        seen = {}
        listed = list_folder(self.folder / RUNS)
        names, failures = set[str](), defaultdict[str, list[Failure]](list)
        for name in sorted(listed):
            if name.endswith(SUFFIX):
                seen["", name] = self._once("", name, listed[name], _run_of)
                asked, failed = seen["", name][1]
                names |= asked
                for tile, failure in failed.items():
                    failures[tile].append(failure)
            elif name.endswith(FAILED):
                for note, inode in sorted(list_folder(self.folder / RUNS / name).items()):
                    if note.endswith(SUFFIX):
                        seen[name, note] = self._once(name, note, inode, _failure_of)
                        if (failure := seen[name, note][1]) is not None:
                            failures[note.removesuffix(SUFFIX)].append(failure)
        self._seen = seen
        return Asked(frozenset(names), failures)

    def _once(self, folder: str, name: str, inode: int, make: Callable[[Any], Any]) -> tuple[int, Any]:
        before = self._seen.get((folder, name))
        if before is not None and before[0] == inode:
            return before
        return inode, make(read_or_none(self.folder / RUNS / folder / name))


def list_folder(path: Path) -> dict[str, int]:
    """Return name -> inode of all that lies in a folder; nothing if it is not there. Files are not looked at.

    All our files are replaced by new ones, never written over: another inode is another content.
    """
    try:
        with os.scandir(path) as entries:
            return {entry.name: entry.inode() for entry in entries}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}. Check its permissions.") from error


def _run_of(record: Any) -> tuple[frozenset[str], Mapping[str, Failure]]:
    run = checked_run(record) or {}
    return frozenset(run.get("names", ())), {name: Failure.of(each) for name, each in run.get("failed", {}).items()}


def _failure_of(note: Any) -> Failure | None:
    failed = checked_failure(note)
    return None if failed is None else Failure.of(failed)
