"""Shares of a run: which one this process takes, and the scene list that all of them must have."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tessera_cli import jobs
from tessera_cli.errors import UsageError

if TYPE_CHECKING:
    from tessera_cli.folders.folder import TileFolder
    from tessera_cli.planning.scene_search import SceneSearch
    from tessera_cli.planning.shard import Shard


def asked_of_plan(*, force_source: bool, **given: Any) -> dict[str, Any]:
    """Return the arguments of the `plan` that searches the same scenes, from those of `embed` or `fetch`."""
    if force_source:  # which `plan` lacks: what is searched does not depend on the model then
        return {**given, "model": "null", "weights": None, "model_config": None}
    return given


def as_shard(text: str | None) -> Shard | None:
    """Return the share that is meant: `2/5`, or what the job array says of `auto` and `auto/5`; None for none."""
    from tessera_cli.planning.shard import Shard

    if text is None:
        return None
    word, _, size = text.strip().partition("/")
    if word != "auto":
        return Shard.parse(text)
    if size and not size.isdigit():
        raise UsageError(f"--shard {text}: {size} is no number of shares. Write auto/8 for eight.")
    return Shard(*jobs.share(int(size) if size else None))


def check_frozen(folder: TileFolder, run: str, given: Mapping[str, Any], *, refresh: bool) -> None:
    """Raise UsageError unless the scenes of a run, by its key, are frozen: shares never search."""
    if refresh:
        raise UsageError("--refresh would search once for every --shard. Run `tessera plan --refresh` once instead.")
    if folder.frozen_run(run) is None:
        raise _unfrozen(folder, given)


def check_thawed(found: SceneSearch, folder: TileFolder, given: Mapping[str, Any]) -> None:
    """Raise UsageError if a run had to search all the same, since its list has lost scenes."""
    if found.to_freeze is not None:
        raise _unfrozen(folder, given)


def _unfrozen(folder: TileFolder, given: Mapping[str, Any]) -> UsageError:
    why = "holds no scene list of this run, by which shares are cut"
    return UsageError(f"--shard: {folder.path} {why}. First run, once: {plan_command(folder.path, given)}")


def plan_command(out: Path, given: Mapping[str, Any]) -> str:
    """Return the command line that freezes the scenes of a run; what is None or False is left out.

    `given` are arguments of `plan`. Areas that are Python objects are named as such.
    """
    words = ["tessera", "plan"]
    for name, value in {**given, "out": out}.items():
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(flag)
        elif name == "bbox" and value is not None:
            words += [flag, *(f"{edge:.15g}" for edge in value)]
        elif value is not None and value is not False:
            every = [value] if isinstance(value, str) or not isinstance(value, Sequence) else value
            for each in every:
                words += [flag, str(each) if isinstance(each, str | Path | int) else _said(each)]
    return shlex.join(words)


def _said(value: Any) -> str:
    """Return a value as it is written on a command line; of a large object, its type."""
    text = str(value)
    return text if len(text) < 60 and "\n" not in text else type(value).__name__
