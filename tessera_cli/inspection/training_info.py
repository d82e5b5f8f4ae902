"""Describe what `pretrain` leaves: its shards and its runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tessera_cli.errors import UsageError
from tessera_cli.pretraining.config import PretrainConfig
from tessera_cli.pretraining.config_file import load_config
from tessera_cli.pretraining.data.shards import CONTENT as SHARDS
from tessera_cli.pretraining.data.shards import HEADER, read_header
from tessera_cli.pretraining.report.measures import measure
from tessera_cli.pretraining.run_folder import RunFolder
from tessera_cli.reading import read_json


def describe_shards(path: Path) -> Mapping[str, Any]:
    """Describe shards from their header; their arrays are not opened."""
    header = read_header(path)
    try:
        origins, counts = header["origins"], header["counts"]
        return {
            "content": SHARDS,
            "sources": header["sources"],
            "preprocessing": header["preprocessing"],
            "windows": sorted({origin["window"] for origin in origins if origin["window"] is not None}),
            "tiles": len(origins),
            "pixels": counts["trained"],
            "held_out": counts["held_out"],
            "left_out": counts["left_out"],
            "observations": counts["observations"],
            "bytes": sum(file["bytes"] for file in header["files"].values()),
            "settings": header["settings"],
            "digest": header["digest"],
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path / HEADER} is damaged. Remove the folder to have the shards built again.") from error


def describe_run(folder: RunFolder) -> Mapping[str, Any]:
    """Describe a run of `pretrain`: settings, step of the last checkpoint, figures of `metrics.jsonl`."""
    try:
        settings = load_config(path=folder.config)
    except UsageError as error:
        raise UsageError(f"{folder.path} is no run of `tessera pretrain`: {error}") from error
    rows = folder.rows()
    exported = folder.exported(settings)
    training = [row for row in rows if row.get("kind") == "train"]
    evaluations = [row for row in rows if row.get("kind") == "eval"]
    measures = _measures(evaluations[-1]) if evaluations else {}
    random = {key: value for key, value in measures.items() if key.endswith(_RANDOM)}
    own = {key: value for key, value in measures.items() if key not in random}
    return {
        "run": str(folder.path),
        "model": settings.model.name,
        "family": settings.model.family,
        "steps": _planned(folder, settings),
        "steps_done": _steps(folder, rows),
        "collapsed": training[-1].get("collapsed") if training else None,
        "exported": str(exported) if exported.is_file() else None,
        "evaluation": {"step": evaluations[-1].get("step"), **own} if evaluations else {},
        "random_encoder": {key.removesuffix(_RANDOM): value for key, value in random.items()},
    }


def _planned(folder: RunFolder, settings: PretrainConfig) -> int | None:
    """Return the number of steps of the whole run; None if it follows from pixels that are not known yet."""
    if not settings.train.epochs:
        return settings.train.steps
    try:
        return int(read_json(folder.environment)["steps"])
    except (OSError, KeyError, TypeError, ValueError):
        return None


def _steps(folder: RunFolder, rows: Sequence[Mapping[str, Any]]) -> int:
    """Return the number of steps that are finished and saved."""
    if folder.last.exists():
        from tessera_cli.pretraining import checkpoint

        return checkpoint.read_state(folder.last).step
    return int(max((measure(row, "step") or 0 for row in rows), default=0))


_RANDOM = "_random"


def _measures(row: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of an evaluation, to four digits."""
    found = {key: measure(row, key) for key in row if key != "step"}
    return {key: float(f"{value:.4g}") for key, value in found.items() if value is not None}
