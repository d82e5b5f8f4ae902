"""The pixels that tell what is ordinary: as likely ones as others, of all zones."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tessera_cli.changes.kept import Kept
from tessera_cli.changes.pairs import Pair
from tessera_cli.embeddings.grid import pixels_in

SAMPLE = 100_000
"""Pixels of a sample, of an area that has more."""
BOXES = 64
"""After so many boxes of 512 x 512 pixels it is kept how far the sample is: 100 MB, every minute or so."""
_STATE = "sample"

_Held = tuple[np.ndarray, np.ndarray, np.ndarray]


def sampled(
    pairs: Sequence[Pair], kept: Kept, seed: int, advance: Callable[[int], object]
) -> tuple[np.ndarray, np.ndarray, int]:
    """Return embeddings in both windows, float32 (N, R), of at most SAMPLE pixels that are there twice.

    And how many there are in all. `advance` is told of pixels.
    """
    held, done, count = _before(kept)
    most = float(held[0][0].max()) if held and len(held[0][0]) == SAMPLE else 1.0
    boxes = ((pair, box) for pair in pairs for box in pair.grid.boxes())
    for number, (pair, box) in enumerate(boxes):
        if number >= done:
            pixels = pair.pixels(box)
            if pixels is not None:
                count += len(pixels.distance)
                keys = np.random.default_rng((seed, number)).random(len(pixels.distance))
                some = keys < most
                held.append((keys[some], pixels.before[some], pixels.after[some]))
                if sum(len(each[0]) for each in held) > 2 * SAMPLE:
                    held = [_smallest(held)]
                    most = float(held[0][0].max())
            if (number + 1) % BOXES == 0 and held:
                held = [_smallest(held)]
                kept.put(
                    _STATE, keys=held[0][0], before=held[0][1], after=held[0][2], told=np.array([number + 1, count])
                )
        advance(pixels_in(box))
    none = np.empty((0, 1), np.float32)
    _, before, after = _smallest(held) if held else (none, none, none)
    return before, after, count


def _before(kept: Kept) -> tuple[list[_Held], int, int]:
    """Return what an interrupted comparison has sampled, of how many boxes, and how many pixels these have."""
    found = kept.get(_STATE)
    if found is None:
        return [], 0, 0
    done, count = found["told"].tolist()
    return [(found["keys"], found["before"], found["after"])], done, count


def _smallest(held: Sequence[_Held]) -> _Held:
    """Return the SAMPLE rows with the smallest keys, which come first, in the order in which they came."""
    keys, before, after = (np.concatenate(each) for each in zip(*held, strict=True))
    if len(keys) <= SAMPLE:
        return keys, before, after
    chosen = np.sort(np.argpartition(keys, SAMPLE)[:SAMPLE])
    return keys[chosen], before[chosen], after[chosen]
