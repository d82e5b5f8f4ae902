"""Build shards from stored d-pixels and tables of series.

Pixels are selected and shuffled over all inputs, and band statistics measured. The pixels decide every byte that is
written. In memory are the pixels of one tile and of the next one while it is read, then those of one shard and one
bucket; of tables all observations.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tessera_cli.errors import IdentityError, NothingToEmbedError, UsageError, differences
from tessera_cli.files import atomic_directory
from tessera_cli.prefetch import prefetch
from tessera_cli.pretraining.config import DataConfig
from tessera_cli.pretraining.data.array_files import write_pixels
from tessera_cli.pretraining.data.inputs import Input, Selected, more_pixels, select
from tessera_cli.pretraining.data.select import holdout_mask
from tessera_cli.pretraining.data.shards import HEADER, HOLDOUT, Shards, train_name, write_header
from tessera_cli.pretraining.data.shuffle import Buckets, cut
from tessera_cli.sampling.ragged import STREAMS

logger = logging.getLogger(__name__)

OnProgress = Callable[[int, int], None]
"""Called with the steps done and in all."""


def open_or_build(
    stores: Sequence[Input], config: DataConfig, path: Path, progress: OnProgress = lambda done, total: None
) -> Shards:
    """Open the shards at `path`, or build them if there are none.

    Without `stores` shards are taken whatever they were made from. IdentityError if they were made from other d-pixels
    or with another config; else errors as those of `build` and `Shards.open`.
    """
    if not (path / HEADER).exists():
        return build(stores, config, path, progress=progress)
    there = Shards.open(path, verify=False).header
    here = _describe(stores, config) if stores else {**there, "settings": _settings(config)}
    if differing := _differences(there, here):
        raise IdentityError(
            f"{path} holds shards that were made otherwise: {'; '.join(differing)}. Give the same as then, choose "
            "another folder, or remove this one to have them built again."
        )
    return Shards.open(path)


def build(
    stores: Sequence[Input], config: DataConfig, path: Path, *, progress: OnProgress = lambda done, total: None
) -> Shards:
    """Write `path`, whole or not at all, and open it; nothing is replaced.

    UsageError if d-pixels do not belong together, NothingToEmbedError if fewer than two pixels are left to train on,
    TileError if d-pixels are damaged; UsageError, DiskFullError or TileError if the disk cannot be written.
    """
    header = _describe(stores, config)
    if path.is_dir() and any(path.iterdir()):
        raise UsageError(f"{path} cannot be written: it holds something else. Choose another folder, or empty it.")
    stores = sorted(stores, key=lambda stored: stored.name)
    requested = [stored.count for stored in stores]
    most = sum(min(count, config.pixels_per_tile or count) for count in requested)
    with atomic_directory(path) as part:
        train = Buckets(part / "buckets-train", most, config.shard_pixels)
        holdout = Buckets(part / "buckets-held", math.ceil(most * config.holdout), config.shard_pixels)
        done, total = itertools.count(1), len(stores) + train.count + holdout.count

        def step_done() -> None:
            progress(next(done), total)

        for origin, (pixels, blocks) in zip(header["origins"], _selected(stores, config), strict=True):
            out = holdout_mask(replace(pixels, places=blocks), config.holdout, config.holdout_block)
            train.add(pixels, np.flatnonzero(~out))
            holdout.add(pixels, np.flatnonzero(out))
            origin["pixels"] = len(pixels)
            step_done()
        _check_enough(train.pixels, holdout.pixels, config, stores)
        shards = max(1, round(train.pixels / config.shard_pixels))
        sizes = [train.pixels // shards + (number < train.pixels % shards) for number in range(shards)]
        for number, parts in enumerate(cut(train.drain(step_done), sizes)):
            observations = {modality: sum(len(p.series(modality).doy) for p in parts) for modality in STREAMS}
            write_pixels(part / train_name(number), parts, pixels=sizes[number], observations=observations)
        counts = holdout.statistics.observations
        observations = {modality: sum(counts[stream] for stream in streams) for modality, streams in STREAMS.items()}
        write_pixels(part / HOLDOUT, holdout.drain(step_done), pixels=holdout.pixels, observations=observations)
        header["counts"] = {
            "trained": train.pixels,
            "held_out": holdout.pixels,
            "left_out": sum(requested) - train.pixels - holdout.pixels,
            "observations": dict(train.statistics.observations),
        }
        write_header(part, {**header, "statistics": train.statistics.statistics().to_card()})
    return Shards.open(path, verify=False)


def _selected(stores: Sequence[Input], config: DataConfig) -> Iterator[Selected]:
    """Yield the selected pixels of each of the d-pixels, and prefetch the next ones."""

    def selected_of(numbered: tuple[int, Input]) -> Selected:
        return select(numbered[1], config, numbered[0])

    for _, selected in prefetch(list(enumerate(stores)), selected_of):
        yield selected.result()


def _describe(stores: Sequence[Input], config: DataConfig) -> dict[str, Any]:
    """Return what the header says of the inputs; errors as those of `build`."""
    stores = sorted(stores, key=lambda stored: stored.name)
    if not stores:
        raise UsageError("There are no d-pixels to train on. Give what `tessera fetch` wrote, or tables of series.")
    for one, other in itertools.pairwise(stores):
        if one.name == other.name:
            raise UsageError(f"{one.path} and {other.path} are both {one.name}: they would count twice. Give one.")
    preprocessings = {stored.preprocessing: stored for stored in stores}
    preprocessings.pop(None, None)  # of tables
    sources = {stored.source: stored for stored in stores}
    unknown = sources.pop(None, None)
    for what, values in (("preprocessing", preprocessings), ("source", sources)):
        if len(values) > 1:
            (value, one), (another, other) = list(values.items())[:2]
            raise UsageError(
                f"{what} is {value} in {one.path} and {another} in {other.path}: one encoder cannot be trained on "
                "both. Give d-pixels of one kind."
            )
    if unknown and sources:
        logger.warning("%s does not say its source; it is taken for %s as the others", unknown.path, *sources)
    return {
        "preprocessing": next(iter(preprocessings), "unknown"),
        "sources": sorted(source for source in sources if source),
        "settings": _settings(config),
        "origins": [
            {
                "name": stored.name,
                "tile": stored.tile.id,
                "window": None if stored.window is None else stored.window.name,
                "preprocessing": stored.preprocessing,
                "source": stored.source,
                "input_digest": stored.input_digest,
            }
            for stored in stores
        ],
    }


def _settings(config: DataConfig) -> dict[str, Any]:
    """Return the keys that decide what shards hold, as JSON."""
    return config.model_dump(mode="json", exclude={"statistics"})


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Return how two results of `_describe` differ."""
    settings = {f"data.{key}": value for key, value in here["settings"].items()}
    differing = differences({f"data.{key}": there["settings"].get(key) for key in here["settings"]}, settings)
    old, new = ({origin["name"]: origin for origin in header["origins"]} for header in (there, here))
    changed = {name for name in old.keys() & new.keys() if new[name].items() - old[name].items()}
    for what, names in (
        ("there are other tiles as well", old.keys() - new.keys()),
        ("tiles are missing there", new.keys() - old.keys()),
        ("tiles have changed since", changed),
    ):
        if names:
            differing.append(f"{what} ({', '.join(sorted(names)[:3])}{', ...' if len(names) > 3 else ''})")
    return differing


def _check_enough(trained: int, held_out: int, config: DataConfig, stores: Sequence[Input]) -> None:
    """Raise NothingToEmbedError if fewer than 2 pixels are left to train on; warn if none is held out."""
    if (count := trained + held_out) < 2:
        raise NothingToEmbedError(
            f"{count or 'None'} of the pixels asked for has {config.min_s2} or more clear Sentinel-2 and "
            f"{config.min_s1} or more Sentinel-1 observations; training takes 2 such pixels at the least. "
            f"{more_pixels(stores, config)}"
        )
    if trained < 2:
        raise NothingToEmbedError(
            f"{held_out} of {count} pixels are held out; training takes 2 pixels at the least. Lower --set "
            "data.holdout or data.holdout_block."
        )
    if config.holdout and not held_out:
        logger.warning(
            "no pixel is held out: none of the squares of %d pixels was drawn. Lower data.holdout_block",
            config.holdout_block,
        )
