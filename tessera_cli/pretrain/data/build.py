"""Stored d-pixels -> shards, in one random order of all pixels.

A shuffle in two passes: the first deals every pixel to one of many buckets by the high bits of a hash of its key, the
second sorts each bucket by the whole hash. One bucket after the other they are the pixels sorted by hash, whatever the
number of buckets; cut into runs of equal length they are the shards. Which pixels are there decides what is written,
down to the byte, and nothing else. In memory are the pixels of one tile and the next one while it is read, then those
of one shard and one bucket. On disk the buckets take as much as the shards that they become, and shrink as those grow.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from tessera_cli.dpixels import Stored
from tessera_cli.errors import IdentityError, NothingToEmbedError, UsageError
from tessera_cli.files import atomic_directory
from tessera_cli.prefetch import prefetch
from tessera_cli.pretrain.config import DataSettings
from tessera_cli.pretrain.data.ragged import STREAMS, Ragged
from tessera_cli.pretrain.data.select import collected, held_out
from tessera_cli.pretrain.data.shards import (
    HEADER,
    HELD,
    Shards,
    append_pixels,
    appended_pixels,
    train_name,
    write_header,
    write_pixels,
)
from tessera_cli.pretrain.data.statistics import Tally
from tessera_cli.sampling import Modality
from tessera_cli.sampling.draws import mix

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Told how much is done, and of how much."""

_ORDER = np.uint64(0xE7037ED1A0B428DB)
_BUCKETS_PER_SHARD = 4


def shards_for(
    stores: Sequence[Stored], settings: DataSettings, path: Path, progress: Progress = lambda done, of: None
) -> Shards:
    """The shards at `path` if they were made from these d-pixels with these settings; new ones if there are none.

    Without `stores`, those that are there are taken whatever they were made from. IdentityError where there are others;
    else as `build` and `Shards.open`.
    """
    if not (path / HEADER).exists():
        return build(stores, settings, path, progress=progress)
    there = Shards.open(path, verify=False).header
    here = _about(stores, settings) if stores else {**there, "settings": _settings(settings)}
    if differing := _differences(there, here):
        raise IdentityError(
            f"{path} holds shards that were made otherwise: {'; '.join(differing)}. Give the same as then, choose "
            "another folder, or remove this one to have them built again."
        )
    return Shards.open(path)


def build(
    stores: Sequence[Stored], settings: DataSettings, path: Path, *, progress: Progress = lambda done, of: None
) -> Shards:
    """Write `path`, whole or not at all, and open it; nothing is replaced.

    UsageError where d-pixels do not belong together, NothingToEmbedError where fewer than two pixels are left to train
    on, TileError where d-pixels are damaged; UsageError, DiskFullError or TileError where the disk does not take them.
    """
    about = _about(stores, settings)
    if path.is_dir() and any(path.iterdir()):
        raise UsageError(f"{path} cannot be written: it holds something else. Choose another folder, or empty it.")
    stores = sorted(stores, key=lambda stored: stored.name)
    requested = [int(stored.pixels.sum()) for stored in stores]
    most = sum(min(count, settings.pixels_per_tile or count) for count in requested)
    with atomic_directory(path) as part:
        train = _Buckets(part / "buckets-train", most, settings.shard_pixels)
        held = _Buckets(part / "buckets-held", math.ceil(most * settings.holdout), settings.shard_pixels)
        steps = _Steps(progress, len(stores) + train.count + held.count)
        for origin, ragged in zip(about["origins"], _collected(stores, settings), strict=True):
            out = held_out(ragged, settings.holdout, settings.holdout_block)
            train.add(ragged, np.flatnonzero(~out))
            held.add(ragged, np.flatnonzero(out))
            origin["pixels"] = len(ragged)
            steps.one_done()
        _check_enough(train.pixels, held.pixels, settings)
        _write_train(part, train, settings.shard_pixels, steps)
        write_pixels(part / HELD, held.emptied(steps), pixels=held.pixels, observations=held.observations)
        counts = {
            "trained": train.pixels,
            "held_out": held.pixels,
            "left_out": sum(requested) - train.pixels - held.pixels,
            "observations": dict(train.tally.observations),
        }
        write_header(part, {**about, "counts": counts, "statistics": train.tally.statistics().to_card()})
    return Shards.open(path, verify=False)


def _collected(stores: Sequence[Stored], settings: DataSettings) -> Iterator[Ragged]:
    """The pixels of each; the next ones are read meanwhile."""
    numbers = {stored.name: number for number, stored in enumerate(stores)}

    def make(stored: Stored) -> Ragged:
        return collected(stored.read(), settings, numbers[stored.name])

    for _, found in prefetch(stores, make):
        yield found.result()


@dataclass
class _Steps:
    """How far the work is."""

    progress: Progress
    all: int
    done: int = 0

    def one_done(self) -> None:
        self.done += 1
        self.progress(self.done, self.all)


class _Buckets:
    """Pixels on their way into the order of their hashes: the n-th of `count` files takes the n-th part of the hashes.

    `most` is an upper bound of the pixels that come: files are then small against a shard. Where it is far too high,
    because few of the pixels asked for were seen often enough, they are needlessly small.
    """

    def __init__(self, folder: Path, most: int, shard_pixels: int) -> None:
        self.count = max(1, math.ceil(most * _BUCKETS_PER_SHARD / shard_pixels))
        self.pixels = 0
        self.tally = Tally()
        self._folder = folder
        folder.mkdir()

    @property
    def observations(self) -> dict[Modality, int]:
        """Of each sensor."""
        counts = self.tally.observations
        return {modality: sum(counts[stream] for stream in streams) for modality, streams in STREAMS.items()}

    def add(self, ragged: Ragged, numbers: np.ndarray) -> None:
        """These pixels, int (M,)."""
        buckets = (_hashes(ragged.keys[numbers]) >> np.uint64(32)) * np.uint64(self.count) >> np.uint64(32)
        order = np.argsort(buckets, kind="stable")
        edges = np.searchsorted(buckets[order], np.arange(self.count + 1, dtype=np.uint64))
        for number in np.flatnonzero(np.diff(edges)).tolist():
            part = ragged.take(numbers[order[edges[number] : edges[number + 1]]])
            self.tally.add(part)
            with self._file(number).open("ab") as file:
                append_pixels(file, part)
        self.pixels += len(numbers)

    def emptied(self, steps: _Steps) -> Iterator[Ragged]:
        """All pixels by rising hash, bucket after bucket; what was given out is gone from the disk."""
        for number in range(self.count):
            file = self._file(number)
            if file.exists():
                found = appended_pixels(file)
                file.unlink()
                yield found.take(np.lexsort((found.origins, _hashes(found.keys))))
            steps.one_done()
        self._folder.rmdir()

    def _file(self, number: int) -> Path:
        return self._folder / f"{number:06d}"


def _hashes(keys: np.ndarray) -> np.ndarray:
    """uint64 (N,): their order is that of the shards."""
    return mix(keys ^ _ORDER)


def _write_train(folder: Path, train: _Buckets, shard_pixels: int, steps: _Steps) -> None:
    """All training pixels as shards of equal size, but for one pixel more or less."""
    shards = max(1, round(train.pixels / shard_pixels))
    sizes = [train.pixels // shards + (number < train.pixels % shards) for number in range(shards)]
    for number, parts in enumerate(_runs(train.emptied(steps), sizes)):
        observations = {modality: sum(len(part.series(modality).doy) for part in parts) for modality in STREAMS}
        write_pixels(folder / train_name(number), parts, pixels=sizes[number], observations=observations)


def _runs(parts: Iterator[Ragged], sizes: Sequence[int]) -> Iterator[list[Ragged]]:
    """The same pixels, cut into runs of these sizes, which add up to them all."""
    run: list[Ragged] = []
    ends = iter(sizes)
    missing = next(ends)
    for part in parts:
        first = 0
        while first < len(part):
            taken = part.take(np.arange(first, min(first + missing, len(part))))
            run.append(taken)
            first, missing = first + len(taken), missing - len(taken)
            if not missing:
                yield run
                run, missing = [], next(ends, 0)


def _about(stores: Sequence[Stored], settings: DataSettings) -> dict[str, Any]:
    """What the header says of where shards come from; errors as those of `build`."""
    stores = sorted(stores, key=lambda stored: stored.name)
    if not stores:
        raise UsageError("There are no d-pixels to train on. Give what `tessera fetch` wrote.")
    for one, other in pairwise(stores):
        if one.name == other.name:
            raise UsageError(f"{one.path} and {other.path} are both {one.name}: they would count twice. Give one.")
    made = {stored.preprocessing: stored for stored in stores}
    sources = {stored.source: stored for stored in stores}
    unsaid = sources.pop(None, None)
    for what, found in (("preprocessing", made), ("source", sources)):
        if len(found) > 1:
            (value, one), (another, other) = list(found.items())[:2]
            raise UsageError(
                f"{what} is {value} in {one.path} and {another} in {other.path}: one encoder cannot be trained on "
                "both. Give d-pixels of one kind."
            )
    if unsaid and sources:
        logger.warning("%s does not say its source; it is taken for %s as the others", unsaid.path, *sources)
    return {
        "preprocessing": stores[0].preprocessing,
        "sources": sorted(source for source in sources if source),
        "settings": _settings(settings),
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


def _settings(settings: DataSettings) -> dict[str, Any]:
    """Those that decide what shards hold, as plain JSON."""
    return settings.model_dump(mode="json", exclude={"statistics"})


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """In what two descriptions as those of `_about` differ."""
    found = [
        f"data.{key} is {there['settings'].get(key)} there and {value} here"
        for key, value in here["settings"].items()
        if there["settings"].get(key) != value
    ]
    old, new = ({origin["name"]: origin for origin in about["origins"]} for about in (there, here))
    changed = {name for name in old.keys() & new.keys() if new[name].items() - old[name].items()}
    for what, names in (
        ("there are other tiles as well", old.keys() - new.keys()),
        ("tiles are missing there", new.keys() - old.keys()),
        ("tiles have changed since", changed),
    ):
        if names:
            found.append(f"{what} ({', '.join(sorted(names)[:3])}{', ...' if len(names) > 3 else ''})")
    return found


def _check_enough(trained: int, held: int, settings: DataSettings) -> None:
    """Warns where nothing is held out."""
    if (count := trained + held) < 2:
        raise NothingToEmbedError(
            f"{count or 'None'} of the pixels asked for has {settings.min_s2} or more clear Sentinel-2 and "
            f"{settings.min_s1} or more Sentinel-1 observations; training takes 2 such pixels at the least. Lower "
            "--set data.min_s2 or data.min_s1, or fetch a longer window or a larger area."
        )
    if trained < 2:
        raise NothingToEmbedError(
            f"{held} of {count} pixels are held out; training takes 2 pixels at the least. Lower --set data.holdout or "
            "data.holdout_block."
        )
    if settings.holdout and not held:
        logger.warning(
            "no pixel is held out: none of the squares of %d pixels was drawn. Lower data.holdout_block",
            settings.holdout_block,
        )
