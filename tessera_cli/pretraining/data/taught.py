"""The teacher's embeddings of all pixels of shards, kept beside them.

    SHARDS/teacher-<digest>/header.json            whose they are; size and SHA-256 of every file
    SHARDS/teacher-<digest>/train-00000-000.npy    a piece of the first shard's pixels, in their order
    SHARDS/teacher-<digest>/held-000.npy, ...      the holdout pixels
    SHARDS/teacher-<digest>/mean.npy               mean embedding of the training pixels, float64 (D,)

A row is int8 codes and a float32 scale, 132 bytes for 128 values; of a teacher that is never quantised, float16. Each
file is written whole or not at all, the header last, so that what was interrupted goes on with the missing pieces.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tessera_cli.arrays import map_array
from tessera_cli.errors import NothingToEmbedError, UsageError, reason
from tessera_cli.files import explained, sha256_of, write_bytes, write_json
from tessera_cli.parts import remove_stale_parts
from tessera_cli.pretraining.data.batch import Answers
from tessera_cli.pretraining.data.shards import HOLDOUT, Shards, train_name
from tessera_cli.pretraining.data.teacher import Teacher, digest_of, row_of
from tessera_cli.reading import read_json
from tessera_cli.sampling.ragged import RaggedPixels

logger = logging.getLogger(__name__)

HEADER, MEAN = "header.json", "mean.npy"
CONTENT, FORMAT = "embeddings of a teacher", 1
PIECE = 32_768
"""Pixels per file: about a quarter of an hour of the largest released student on two cores."""
_ROWS = 8192
"""Rows dequantised at once."""


@dataclass(frozen=True, eq=False)
class Taught:
    """An opened folder. Rows are in the order of the shards' pixels."""

    path: Path
    header: Mapping[str, Any]
    train: tuple[np.ndarray, ...]
    """Of each piece, rows (N,) mapped into memory."""
    holdout: tuple[np.ndarray, ...]
    mean: np.ndarray
    """float32 (D,): of the training pixels."""
    known: int
    """Number of training pixels that have an embedding."""

    @classmethod
    def open(cls, path: Path, shards: Shards, *, verify: bool = True) -> Taught:
        """Open a folder; UsageError if it is damaged or of other shards.

        `verify` compares checksums; without it only missing files and wrong sizes are found.
        """
        try:
            header = read_json(path / HEADER)
            if (header["content"], header["format"]) != (CONTENT, FORMAT):
                raise ValueError("it is of another release")
            if header["digest"] != digest_of(header["teacher"]):
                raise ValueError(f"{HEADER} was changed: its digest does not fit")
            if header["teacher"]["shards"] != shards.digest:
                raise ValueError("it belongs to other shards")
            for file, due in header["files"].items():
                if (size := (path / file).stat().st_size) != due["bytes"]:
                    raise ValueError(f"{file} has {size} bytes, not {due['bytes']}")
                if verify and sha256_of(path / file) != due["sha256"]:
                    raise ValueError(f"{file} was changed: its checksum does not fit")
            mean = np.asarray(map_array(path / MEAN)).astype(np.float32)
            size = int(header["pixels_per_file"])
            row = row_of(header["teacher"]["quantiser"], len(mean))
            pieces = {
                held: tuple(_rows(path / file, row, len(numbers)) for file, _, numbers in _pieces(shards, held, size))
                for held in _BOTH
            }
            known = int(header["known"])
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise UsageError(
                f"{path} holds damaged embeddings of a teacher: {reason(error)}. Remove the folder to have them made "
                "again."
            ) from error
        return cls(path, header, pieces[False], pieces[True], mean, known)

    @property
    def dims(self) -> int:
        """Length D of an embedding."""
        return len(self.mean)

    @property
    def digest(self) -> str:
        """SHA-256 of what the embeddings depend on."""
        return str(self.header["digest"])

    @property
    def teacher(self) -> Mapping[str, str]:
        """Name of the teacher, and SHA-256 of its weights file."""
        return {"name": str(self.header["name"]), "sha256": str(self.header["teacher"]["sha256"])}

    @property
    def described(self) -> str:
        """What there is, in words."""
        held = sum(map(len, self.holdout))
        name = self.teacher["name"]
        return f"{name}, {self.dims} values of {self.known:,} pixels and of {held:,} held out in {self.path}"

    def answers(self, numbers: np.ndarray) -> Answers[np.ndarray]:
        """Copy the embeddings of training pixels, numbers int (M,) counted through all shards, in this order."""
        rows = _gather(self.train, numbers)
        if rows.dtype.names == ("values",):
            return Answers(rows["values"], None)
        return Answers(rows["codes"], rows["scale"])

    def of_pixels(self, shards: Shards, pixels: RaggedPixels) -> np.ndarray:
        """Return embeddings float32 (N, D) of pixels out of the shards, NaN where the teacher gives none."""
        order = np.argsort(pixels.keys)
        keys = pixels.keys[order]
        found = np.full((len(keys), self.dims), np.nan, np.float32)
        if not len(keys):  # nothing is held out
            return found
        for parts, rows in ((shards.train, self.train), ((shards.holdout,), self.holdout)):
            first = 0
            for part in parts:
                at = np.minimum(np.searchsorted(keys, part.keys), len(keys) - 1)
                here = np.flatnonzero(keys[at] == part.keys)
                if len(here):
                    found[order[at[here]]] = floats(_gather(rows, first + here))
                first += len(part)
        return found


_BOTH = (False, True)
"""Whether pixels are held out."""


def floats(rows: np.ndarray) -> np.ndarray:
    """Return embeddings float32 (N, D) of kept rows (N,); NaN where there is none."""
    if rows.dtype.names == ("values",):
        return np.asarray(rows["values"], np.float32)
    return np.asarray(rows["codes"], np.float32) * rows["scale"][:, None]


def open_or_embed(
    shards: Shards, teacher: Teacher, threads: int, progress: Callable[[int, int], None] = lambda done, total: None
) -> Taught:
    """Open the teacher's embeddings beside the shards, or make those that are missing.

    `progress` is called with the pixels done and in all; what it raises ends the work, of which finished pieces stay.
    Errors are those of `Taught.open`, `encode` and `files.write_bytes`; NothingToEmbedError if the teacher embeds no
    training pixel.
    """
    path = shards.path / f"teacher-{teacher.digest[:16]}"
    if (path / HEADER).exists():
        return Taught.open(path, shards)
    with explained(shards.path):  # which may be another's, and read-only
        path.mkdir(exist_ok=True)
        remove_stale_parts(path)
    total, done = shards.pixels + len(shards.holdout), 0
    sum_D, known = np.zeros(teacher.dims), 0
    for held in _BOTH:
        for file, pixels, numbers in _pieces(shards, held, PIECE):
            try:
                rows = _rows(path / file, teacher.row, len(numbers))
            except (OSError, ValueError):  # no run has finished it
                tell = _Told(progress, done, total)
                rows = teacher.embed(pixels.take(numbers), threads, tell)
                _write(path / file, rows.view(_plain(teacher.row)).reshape(len(rows), -1))
            done += len(numbers)
            progress(done, total)
            for start in range(0, len(rows) if not held else 0, _ROWS):
                values = floats(rows[start : start + _ROWS]).astype(np.float64)
                there = np.isfinite(values).all(axis=1)
                sum_D += values[there].sum(axis=0)
                known += int(there.sum())
    name = teacher.model.name
    if not known:
        raise NothingToEmbedError(
            f"The teacher {name} embeds none of the training pixels: they have too few observations for it. Choose "
            "another teacher, or raise data.min_s2 and data.min_s1."
        )
    if known < shards.pixels:
        text = "The teacher %s embeds %d of %d training pixels; the others have nothing to match."
        logger.warning(text, name, known, shards.pixels)
    _write(path / MEAN, sum_D / known)
    files = [file for held in _BOTH for file, *_ in _pieces(shards, held, PIECE)]
    header = {
        "content": CONTENT,
        "format": FORMAT,
        "name": name,
        "digest": teacher.digest,
        "teacher": teacher.identity,
        "arithmetic": teacher.model.arithmetic,
        "known": known,
        "pixels_per_file": PIECE,
        "files": {
            file: {"bytes": (path / file).stat().st_size, "sha256": sha256_of(path / file)} for file in (*files, MEAN)
        },
    }
    write_json(path / HEADER, header)
    return Taught.open(path, shards, verify=False)


def _pieces(shards: Shards, held: bool, size: int) -> Iterator[tuple[str, RaggedPixels, np.ndarray]]:
    """Yield the file of each piece of so many pixels, its shard, and the numbers of its pixels in that."""
    for number, part in enumerate((shards.holdout,) if held else shards.train):
        for piece, start in enumerate(range(0, len(part), size)):
            name = HOLDOUT if held else train_name(number)
            yield f"{name}-{piece:03d}.npy", part, np.arange(start, min(start + size, len(part)))


def _gather(pieces: tuple[np.ndarray, ...], numbers: np.ndarray) -> np.ndarray:
    bounds = np.cumsum([0, *map(len, pieces)])
    which = np.searchsorted(bounds, numbers, "right") - 1
    rows = np.empty(len(numbers), pieces[0].dtype if pieces else "V1")
    for piece in np.unique(which).tolist():
        here = which == piece
        rows[here] = pieces[piece][numbers[here] - bounds[piece]]
    return rows


def _rows(path: Path, row: np.dtype[np.void], count: int) -> np.ndarray:
    """Map a piece: rows (N,); OSError or ValueError if there is none of this kind."""
    plain = np.asarray(map_array(path))
    due = (count, row.itemsize // _plain(row).itemsize)
    if plain.dtype != _plain(row) or plain.shape != due:
        raise ValueError(f"{path.name} is {plain.dtype} {plain.shape}, not {_plain(row)} {due}")
    return plain.view(row)[:, 0]


def _plain(row: np.dtype[np.void]) -> np.dtype[Any]:
    """Return the type of the numbers in the files, which hold no records: the bytes of a scale are four codes."""
    return np.dtype("<f2" if row.names == ("values",) else "|i1")


@dataclass
class _Told:
    """Counts of finished pixels -> calls with all that are done."""

    progress: Callable[[int, int], None]
    done: int
    total: int

    def __call__(self, count: int) -> None:
        self.done += count
        self.progress(self.done, self.total)


def _write(path: Path, array: np.ndarray) -> None:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_bytes(path, buffer.getbuffer())
