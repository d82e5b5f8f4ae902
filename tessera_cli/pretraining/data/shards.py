"""Shards on disk: a header and folders of arrays.

    DIR/header.json                     inputs, configuration, counts, statistics; size and SHA-256 of every file
    DIR/train-00000/s2.npy, ...         the training pixels, in one random order over all shards
    DIR/held/s2.npy, ...                the holdout pixels, also in a random order

An observation takes 22 bytes (Sentinel-2) or 7 (Sentinel-1) and a pixel 40 more: 2.0 kB with 70 and 60 of them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tessera_cli import __version__
from tessera_cli.dpixels.dpixel import S1_BANDS, S2_BANDS
from tessera_cli.errors import UsageError, reason
from tessera_cli.files import sha256_of, write_json
from tessera_cli.pretraining.data.array_files import open_pixels
from tessera_cli.reading import read_json
from tessera_cli.sampling.ragged import RaggedPixels, concatenated
from tessera_cli.sampling.statistics import Statistics

CONTENT = "pretraining shards"
FORMAT = 1
HEADER = "header.json"
HOLDOUT = "held"
"""Folder of the holdout pixels."""
BAND_NAMES = {"s2": list(S2_BANDS), "s1": list(S1_BANDS)}


def train_name(number: int) -> str:
    return f"train-{number:05d}"


@dataclass(frozen=True, eq=False)
class Shards:
    """An opened folder."""

    path: Path
    header: Mapping[str, Any]
    train: tuple[RaggedPixels, ...]
    holdout: RaggedPixels
    statistics: Statistics
    """Band statistics of the training pixels."""
    digest: str
    """SHA-256 of the content: of the header without the program's release and the inputs' digests."""

    @classmethod
    def open(cls, path: Path, *, verify: bool = True) -> Shards:
        """Open a folder; UsageError if there are no shards, or damaged ones.

        `verify` reads every file and finds flipped bits; without it only missing files and wrong sizes are found.
        """
        header = read_header(path)
        try:
            if header.get("digest") != (digest := digest_of(header)):
                raise ValueError(f"{HEADER} was changed: its digest does not fit")
            if header["bands"] != BAND_NAMES:
                raise ValueError(f"its bands are in the order {header['bands']}, not {BAND_NAMES}")
            for file, due in header["files"].items():
                _check(path / file, file, due, verify=verify)
            folders = sorted({file.partition("/")[0] for file in header["files"]} - {HOLDOUT})
            tiles = len(header["origins"])
            train = tuple(open_pixels(path / folder, tiles, verify=verify) for folder in folders)
            holdout = open_pixels(path / HOLDOUT, tiles, verify=verify)
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
        return cls(path, header, train, holdout, statistics, digest)

    @property
    def sizes(self) -> np.ndarray:
        """int64 (shards,): training pixels of each shard."""
        return np.array([len(part) for part in self.train], np.int64)

    @property
    def pixels(self) -> int:
        """The number of training pixels."""
        return int(self.sizes.sum())

    def gather(self, numbers: np.ndarray) -> RaggedPixels:
        """Copy training pixels, numbers int (M,) counted through all shards, in this order."""
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
    """Return the header of a folder; UsageError unless it is of this version of the format."""
    try:
        header = read_json(path / HEADER)
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
    """Return `Shards.digest` of a header."""
    content = {key: value for key, value in header.items() if key not in ("digest", "software")}
    content["origins"] = [{**origin, "input_digest": None} for origin in header.get("origins", ())]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write_header(folder: Path, facts: Mapping[str, Any]) -> None:
    """Complete a folder of arrays with its header: these facts, and the sizes and checksums of the files."""
    header = {
        "content": CONTENT,
        "format": FORMAT,
        "bands": BAND_NAMES,
        **facts,
        "files": {
            file.relative_to(folder).as_posix(): {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
            for file in sorted(folder.glob("*/*.npy"))
        },
        "software": f"tessera {__version__}",
    }
    write_json(folder / HEADER, {**header, "digest": digest_of(header)})


def _check(path: Path, file: str, due: Mapping[str, Any], *, verify: bool) -> None:
    if not path.is_file():
        raise ValueError(f"{file} is missing")
    if (size := path.stat().st_size) != due["bytes"]:
        raise ValueError(f"{file} has {size} bytes, not {due['bytes']}")
    if verify and sha256_of(path) != due["sha256"]:
        raise ValueError(f"{file} was changed: its checksum does not fit")
