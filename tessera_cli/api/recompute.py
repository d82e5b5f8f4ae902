"""From the arguments of `verify` to the tiles that are made again, and what makes them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tessera_cli import config
from tessera_cli.catalog import get_source
from tessera_cli.errors import UsageError
from tessera_cli.folders.folder import TileFolder
from tessera_cli.inspection.recompute import Recomputation, draw
from tessera_cli.inspection.remake import FrozenScenes, Origins, Remaker, Stores, settings_of
from tessera_cli.models import load_model
from tessera_cli.models.registry import REGISTRY
from tessera_cli.outputs.item import TileRecord
from tessera_cli.outputs.layers import RUN
from tessera_cli.planning.origin import Origin

logger = logging.getLogger(__name__)


def recomputation(
    path: Path,
    share: str | int,
    *,
    seed: int,
    dpixels: Sequence[Path],
    origin: Mapping[str, Any],
    model: Mapping[str, Any],
    device: str,
    threads: int | None,
) -> Recomputation:
    """Return which tiles of a folder are made again, and how; UsageError where none can be."""
    folder = TileFolder.open(path)
    if not folder.identity:
        raise UsageError(f"--recompute makes tiles of a folder again, and {path} has no {RUN}. Give one of `embed`.")
    made = {name: record.device for name, record in _finished(folder, sorted(folder.requested_names()))}
    settings = None
    if not folder.holds_dpixels:
        device = _device(made) if device == "auto" else device
        loaded = load_model(**_named(folder, model), device=device, precision=folder.identity["precision"])
        settings = settings_of(folder, loaded)
        made = _of_device(made, loaded.device)
    elif given := [f"--{name.replace('_', '-')}" for name, value in model.items() if value is not None]:
        raise UsageError(f"{path} holds d-pixels, which no model has made. Leave out {', '.join(given)}.")
    if not made:
        raise UsageError(f"{path} has no finished tile that could be made again.")
    drawn = draw(sorted(made), share, seed)
    logger.info("%d of %d tiles are made again", len(drawn), len(made))
    origins: Origins
    if dpixels:
        origins = Stores.of(folder, dpixels)
    elif (source := folder.identity["source"]) is None:
        raise UsageError(f"{path} does not say what it was made from. Give the stored d-pixels with --dpixels.")
    else:
        records = [record for _, record in _finished(folder, drawn)]
        origins = FrozenScenes.of(folder, Origin(get_source(source), **origin), records)
    remaker = Remaker(origins, settings, threads or config.threads())
    return Recomputation(folder, remaker, frozenset(drawn))


def _named(folder: TileFolder, model: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the arguments of `load_model`: what was said, else the recorded name, if a released model has it."""
    name = folder.identity["model"]
    if model["model"] is not None or model["weights"] is not None:
        return model
    if name not in REGISTRY:
        raise UsageError(
            f"{folder.path} was made with {name}, which is no released model. Give its file with --model or --weights."
        )
    return {**model, "model": name}


def _finished(folder: TileFolder, names: Iterable[str]) -> Iterator[tuple[str, TileRecord]]:
    """Yield the records of tiles that are finished, one at a time: they are large."""
    for name in names:
        record = folder.record(name)
        if record is not None and not folder.foreign(record):
            yield name, record


def _device(made: Mapping[str, str | None]) -> str:
    """Return the class of device on which most tiles were made."""
    classes = Counter(made.values())
    return next((device for device, _ in classes.most_common() if device), "cpu")


def _of_device(made: Mapping[str, str | None], device: str) -> dict[str, str | None]:
    """Return the tiles that were made on this class of device: others have other bytes by right."""
    same: dict[str, str | None] = {name: each for name, each in made.items() if each == device}
    if len(same) < len(made):
        told = "%d of %d tiles were not made on this class of device (%s) and are not made again"
        logger.warning(told, len(made) - len(same), len(made), device)
    return same
