"""Shards on disk: a header and folders of plain `.npy` arrays, which are mapped into memory, not read.

    DIR/header.json                     what they are, from what, with which settings; size and SHA-256 of every file
    DIR/train-00000/s2.npy, ...         the training pixels, in one random order through all shards
    DIR/held/s2.npy, ...                those kept from training, in a random order, too

An observation takes 22 bytes (Sentinel-2) or 7 (Sentinel-1) and a pixel 40 more: 2.0 kB with 70 and 60 of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.lib.format as npy

from tessera_cli import __version__
from tessera_cli.dpixels.dpixel import S1_BANDS, S2_BANDS
from tessera_cli.errors import UsageError, reason
from tessera_cli.files import sha256_of, write_json
from tessera_cli.pretrain.data.ragged import STREAMS, Ragged, Series, concatenated, no_pixels
from tessera_cli.sampling import Modality
from tessera_cli.sampling.statistics import Statistics

CONTENT = "pretraining shards"
FORMAT = 1
HEADER = "header.json"
HELD = "held"
BANDS = {"s2": list(S2_BANDS), "s1": list(S1_BANDS)}


class _Array(NamedTuple):
    dtype: str
    per: str
    """What there is a row of: pixel, observation of s2 or s1, or start: one more than pixels."""
    columns: tuple[int, ...] = ()


ARRAYS: Mapping[str, _Array] = {
    "s2": _Array("<u2", "s2", (len(S2_BANDS),)),
    "s2_doy": _Array("<u2", "s2"),
    "s2_starts": _Array("<i8", "start"),
    "s1": _Array("<i2", "s1", (len(S1_BANDS),)),
    "s1_doy": _Array("<u2", "s1"),
    "s1_streams": _Array("|u1", "s1"),
    "s1_starts": _Array("<i8", "start"),
    "keys": _Array("<u8", "pixel"),
    "places": _Array("<i4", "pixel", (3,)),
    "origins": _Array("<i4", "pixel"),
}
"""Sentinel-2 is one stream, so there are no numbers of streams."""


def train_name(number: int) -> str:
    return f"train-{number:05d}"


@dataclass(frozen=True, eq=False)
class Shards:
    """An opened folder."""

    path: Path
    header: Mapping[str, Any]
    train: tuple[Ragged, ...]
    held: Ragged
    statistics: Statistics
    """Of the training pixels."""
    digest: str
    """SHA-256 of what they hold: of everything in the header but the program's release and the inputs' digests."""

    @classmethod
    def open(cls, path: Path, *, verify: bool = True) -> Shards:
        """UsageError where there are no shards, or damaged ones: `verify` reads everything and finds flipped bits, too;
        without it, files that are missing or too short are found, and starts that do not fit.
        """
        header = read_header(path)
        try:
            if header.get("digest") != (digest := digest_of(header)):
                raise ValueError(f"{HEADER} was changed: its digest does not fit")
            if header["bands"] != BANDS:
                raise ValueError(f"its bands are in the order {header['bands']}, not {BANDS}")
            for file, due in header["files"].items():
                _check(path / file, file, due, verify=verify)
            folders = sorted({file.partition("/")[0] for file in header["files"]} - {HELD})
            origins = len(header["origins"])
            train = tuple(_opened(path / folder, origins, verify=verify) for folder in folders)
            held = _opened(path / HELD, origins, verify=verify)
            statistics = Statistics.from_card(header["statistics"])
        except OSError as error:
            raise UsageError(
                f"{path} cannot be opened: {error.strerror or reason(error)}. Check the folder; if there are too many "
                "files, raise `ulimit -n`, or build larger shards with --set data.shard_pixels."
            ) from error
        except (KeyError, TypeError, AttributeError, ValueError, EOFError) as error:
            raise UsageError(
                f"{path} holds corrupted shards: {reason(error)}. Remove the folder to have them built again."
            ) from error
        return cls(path, header, train, held, statistics, digest)

    @property
    def sizes(self) -> np.ndarray:
        """int64 (shards,): training pixels in each."""
        return np.array([len(part) for part in self.train], np.int64)

    @property
    def pixels(self) -> int:
        """For training."""
        return int(self.sizes.sum())

    def gather(self, numbers: np.ndarray) -> Ragged:
        """Training pixels, int (M,), counted through all shards, in this order; in memory."""
        if not len(numbers):
            return no_pixels()
        bounds = np.concatenate([[0], np.cumsum(self.sizes)])
        order = np.argsort(numbers, kind="stable")
        rising = np.asarray(numbers)[order]
        edges = np.searchsorted(rising, bounds)
        parts = [
            part.take(rising[first:last] - bounds[shard])
            for shard, part in enumerate(self.train)
            if (first := edges[shard]) < (last := edges[shard + 1])
        ]
        return concatenated(parts).take(np.argsort(order))


def read_header(path: Path) -> dict[str, Any]:
    """UsageError unless there is one of this version of the format."""
    try:
        header = json.loads((path / HEADER).read_bytes())
    except OSError as error:
        why = f"its {HEADER} cannot be read" if path.is_dir() else "there is no such folder"
        raise UsageError(f"{path} has no shards: {why}. Give a folder that `tessera pretrain` made.") from error
    except ValueError as error:
        raise UsageError(
            f"{path} holds corrupted shards: {HEADER} is not JSON. Remove the folder to have them built again."
        ) from error
    if not isinstance(header, dict) or header.get("content") != CONTENT:
        raise UsageError(f"{path} has no shards: {HEADER} is another program's. Choose another folder.")
    if (version := header.get("format")) != FORMAT:
        raise UsageError(
            f"{path} cannot be read: it has version {version} of the format, and this program knows version {FORMAT} "
            "only. Use the release that wrote it, or remove the folder to have the shards built again."
        )
    return header


def digest_of(header: Mapping[str, Any]) -> str:
    """Of a header: as `Shards.digest`."""
    content = {key: value for key, value in header.items() if key not in ("digest", "software")}
    content["origins"] = [{**origin, "input_digest": None} for origin in header.get("origins", ())]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write_header(folder: Path, facts: Mapping[str, Any]) -> None:
    """Complete a folder whose arrays are written: what it holds, with the sizes and checksums of its files."""
    files = sorted(file for file in folder.glob("*/*.npy"))
    header = {
        "content": CONTENT,
        "format": FORMAT,
        "bands": BANDS,
        **facts,
        "files": {
            file.relative_to(folder).as_posix(): {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
            for file in files
        },
        "software": f"tessera {__version__}",
    }
    write_json(folder / HEADER, {**header, "digest": digest_of(header)})


def write_pixels(folder: Path, parts: Iterable[Ragged], *, pixels: int, observations: Mapping[Modality, int]) -> None:
    """A new folder of the arrays of all parts, one part in memory at a time; the numbers are those of all parts."""
    folder.mkdir()
    rows = {"pixel": pixels, "start": pixels + 1, "s2": observations["s2"], "s1": observations["s1"]}
    ends = {"s2_starts": np.zeros(1, np.int64), "s1_starts": np.zeros(1, np.int64)}
    with ExitStack() as stack:
        files = {name: stack.enter_context((folder / f"{name}.npy").open("xb")) for name in ARRAYS}
        for name, array in ARRAYS.items():
            shape = (rows[array.per], *array.columns)
            npy.write_array_header_1_0(files[name], {"descr": array.dtype, "fortran_order": False, "shape": shape})
        for name, first in ends.items():
            _write(files[name], first)
        for part in parts:
            for name, values in arrays_of(part).items():
                if name in ends:
                    values = values[1:] + ends[name][-1]
                    ends[name] = values[-1:] if len(values) else ends[name]
                _write(files[name], values)


def append_pixels(file: BinaryIO, part: Ragged) -> None:
    """Write pixels behind others in a file, for `appended_pixels`."""
    for name, values in arrays_of(part).items():
        header = {"descr": ARRAYS[name].dtype, "fortran_order": False, "shape": values.shape}
        npy.write_array_header_1_0(file, header)
        _write(file, values)


def appended_pixels(path: Path) -> Ragged:
    """All pixels in a file, in the order in which they were appended."""
    parts = []
    with path.open("rb") as file:
        while file.tell() < path.stat().st_size:
            parts.append(ragged_of({name: npy.read_array(file, allow_pickle=False) for name in ARRAYS}))
    return concatenated(parts) if parts else no_pixels()


def arrays_of(part: Ragged) -> dict[str, np.ndarray]:
    """By the names in `ARRAYS`."""
    return {
        "s2": part.s2.values,
        "s2_doy": part.s2.doy,
        "s2_starts": part.s2.starts,
        "s1": part.s1.values,
        "s1_doy": part.s1.doy,
        "s1_streams": part.s1.streams,
        "s1_starts": part.s1.starts,
        "keys": part.keys,
        "places": part.places,
        "origins": part.origins,
    }


def ragged_of(arrays: Mapping[str, np.ndarray]) -> Ragged:
    """The inverse of `arrays_of`."""
    one_stream = np.broadcast_to(np.uint8(0), arrays["s2_doy"].shape)
    return Ragged(
        Series(arrays["s2"], arrays["s2_doy"], one_stream, arrays["s2_starts"]),
        Series(arrays["s1"], arrays["s1_doy"], arrays["s1_streams"], arrays["s1_starts"]),
        arrays["keys"],
        arrays["places"],
        arrays["origins"],
    )


def _write(file: BinaryIO, values: np.ndarray) -> None:
    file.write(np.ascontiguousarray(values).data)  # npy.write_array hides why the disk does not take them


def _check(path: Path, file: str, due: Mapping[str, Any], *, verify: bool) -> None:
    if not path.is_file():
        raise ValueError(f"{file} is missing")
    if (size := path.stat().st_size) != due["bytes"]:
        raise ValueError(f"{file} has {size} bytes, not {due['bytes']}")
    if verify and sha256_of(path) != due["sha256"]:
        raise ValueError(f"{file} was changed: its checksum does not fit")


def _opened(folder: Path, origins: int, *, verify: bool) -> Ragged:
    """The arrays of a folder, mapped. ValueError where one does not fit the others."""
    files = {name: folder / f"{name}.npy" for name in ARRAYS}
    arrays = {name: np.asarray(np.load(file, mmap_mode="r", allow_pickle=False)) for name, file in files.items()}
    pixels = len(arrays["keys"])
    rows = {"pixel": pixels, "start": pixels + 1, "s2": len(arrays["s2_doy"]), "s1": len(arrays["s1_doy"])}
    for name, (dtype, per, columns) in ARRAYS.items():
        found, shape = arrays[name], (rows[per], *columns)
        if found.dtype != np.dtype(dtype) or found.shape != shape:
            raise ValueError(f"{folder.name}/{name}.npy is {found.dtype} {found.shape}, not {np.dtype(dtype)} {shape}")
    for sensor in STREAMS:
        starts = arrays[f"{sensor}_starts"]
        if starts[0] != 0 or starts[-1] != rows[sensor] or (np.diff(starts) < 0).any():
            raise ValueError(f"{folder.name}/{sensor}_starts.npy does not rise from 0 to {rows[sensor]}")
    if verify:
        limits = {"s2_doy": (1, 366), "s1_doy": (1, 366), "s1_streams": (0, 1), "origins": (0, origins - 1)}
        for name, (low, high) in limits.items():
            if pixels and len(arrays[name]) and not low <= arrays[name].min() <= arrays[name].max() <= high:
                raise ValueError(f"{folder.name}/{name}.npy holds numbers outside {low} to {high}")
    return ragged_of(arrays)
