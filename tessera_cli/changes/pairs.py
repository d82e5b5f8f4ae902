"""The same ground in two windows: embeddings of one model, pixel by pixel on one grid."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from os import PathLike

import numpy as np

from tessera_cli.embeddings.folder import EmbeddingFolder
from tessera_cli.embeddings.grid import Grid, clipped, is_empty
from tessera_cli.embeddings.tile import Box
from tessera_cli.errors import UsageError, differences
from tessera_cli.exports.mosaic import Mosaic, lattice, mosaics
from tessera_cli.inference.uncertainty import cosine_distance

logger = logging.getLogger(__name__)

_ROWS = 1 << 12
STORAGE = ("format", "dtype", "uncertainty", "min_s2", "min_s1", "format_version")
"""What two folders may differ in, and be compared: how embeddings are stored, and of which pixels there are any."""


@dataclass(frozen=True, eq=False)
class Pixels:
    """The pixels of a box that have an embedding in both windows, N of them."""

    there: np.ndarray
    """bool (h, w): which ones."""
    before: np.ndarray
    after: np.ndarray
    """float32 (N, R): embeddings in the first window, and in the second."""
    distance: np.ndarray
    """float64 (N,): cosine distance between them."""
    euclidean: np.ndarray
    """float64 (N,): and the length of the difference."""
    noise: np.ndarray
    """float64 (N,): sum of the uncertainties of both; NaN where they are not known."""


@dataclass(frozen=True, eq=False)
class Pair:
    """Two windows of one zone, on one grid."""

    name: str
    """Of the zone: `utm31n`."""
    before: Mosaic
    after: Mosaic

    @property
    def grid(self) -> Grid:
        return self.before.grid

    def pixels(self, box: Box) -> Pixels | None:
        """Return what is there in both windows; None if nothing is."""
        one, other = self.before.values(box), self.after.values(box)
        if one is None or other is None:
            return None
        there = ~np.isnan(one[0]) & ~np.isnan(other[0])
        if not there.any():
            return None
        a, b = (np.ascontiguousarray(each[:, there].T) for each in (one, other))
        noise = (self.before.uncertainty(box) + self.after.uncertainty(box))[there].astype(np.float64)
        euclidean = _euclidean(a, b)
        return Pixels(there, a, b, np.nan_to_num(cosine_distance(a, b)), euclidean, noise)

    @property
    def noise_is_known(self) -> bool:
        """Return whether both windows have uncertainties."""
        return all(each.tiles[0][0].record.identity.get("uncertainty") for each in (self.before, self.after))


def _euclidean(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the length of the difference of rows, (N, R) each, float64 (N,)."""
    found = np.empty(len(one))
    for start in range(0, len(one), _ROWS):
        part = slice(start, start + _ROWS)
        found[part] = np.sqrt(((one[part].astype(np.float64) - other[part]) ** 2).sum(axis=1))
    return found


def pairs(before: EmbeddingFolder, after: EmbeddingFolder) -> tuple[Pair, ...]:
    """Return a pair per zone that both folders hold, each opened at one window; UsageError if they do not compare."""
    one, other = ({k: v for k, v in each.first.identity.items() if k not in STORAGE} for each in (before, after))
    if differing := differences(one, other):
        raise UsageError(
            f"{before.path} and {after.path} cannot be compared: {'; '.join(differing[:3])}. Embed both with the same "
            "model and settings."
        )
    found = []
    first, second = ({lattice(each.grid): each for each in mosaics(folder)} for folder in (before, after))
    for one_of in sorted(first.keys() & second.keys()):
        grid = _common(first[one_of].grid, second[one_of].grid)
        if grid is not None:
            found.append(Pair(first[one_of].name, first[one_of].on(grid), second[one_of].on(grid)))
    if not found:
        raise UsageError(f"{before.path} and {after.path} have no ground in common. Embed the same area twice.")
    if single := (first.keys() | second.keys()) - {lattice(pair.grid) for pair in found}:
        logger.warning("%d of the zones are in one window alone, and left out", len(single))
    return tuple(found)


def _common(one: Grid, other: Grid) -> Grid | None:
    """Return the part of a grid that lies under another of the same lattice; None if none does."""
    box = clipped(one.box_of(other), one.shape)
    return None if is_empty(box) else one.part(box)


def chosen(
    folder: str | PathLike[str], other: str | PathLike[str] | None, before: str | int | None, after: str | int | None
) -> tuple[EmbeddingFolder, EmbeddingFolder]:
    """Open one window of each folder, or two of one; UsageError where it is not said which."""
    if other is not None:
        return _of_one(folder, before, "--before"), _of_one(other, after, "--after")
    opened = EmbeddingFolder.open(folder)
    windows = opened.windows
    if (before is None) != (after is None) or (before is None and len(windows) != 2):
        raise UsageError(
            f"{opened.path} holds {', '.join(each.name for each in windows) or 'no window with a date'}: say which two "
            "to compare, as --before 2022 --after 2023, or give a second folder."
        )
    first, second = (windows if before is None else (before, after))[:2]
    one, two = (EmbeddingFolder.open(folder, each) for each in (first, second))
    if one.windows == two.windows:
        raise UsageError(f"--before and --after are both {one.windows[0].name}. Choose two windows.")
    return one, two


def _of_one(folder: str | PathLike[str], window: str | int | None, option: str) -> EmbeddingFolder:
    opened = EmbeddingFolder.open(folder, window)
    opened.check_single(f"with {option}")
    return opened
