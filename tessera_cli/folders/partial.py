"""Partial results: the first embeddings of a tile that is not finished, in a file beside where the tile is to be.

`<tile>.partial` is a line of JSON, then uncertainties, values and scales of the first N pixels to be embedded, as they
lie in memory (little-endian). The line holds a digest of all that they depend on, N, and the SHA-256 of what follows. A
file that does not fit, or is damaged, counts as none. Of several processes the last one to write stays; either is
right.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tessera_cli import __version__
from tessera_cli.errors import TesseraError, plainly
from tessera_cli.files import atomic_file
from tessera_cli.journal import digest_of
from tessera_cli.json_text import parse_json
from tessera_cli.reading import open_file

if TYPE_CHECKING:
    from tessera_cli.dpixels.dpixel import DPixels
    from tessera_cli.models import Model

logger = logging.getLogger(__name__)

PARTIAL = ".partial"
SAMPLED = 1024
"""Pixels, about, whose observations are part of the digest."""
_MOST_HEADER = 1000
"""Bytes of the first line."""


def partial_name(name: str) -> str:
    """Return the name of the file with the partial result of a tile; `name` is that of `tile_name`."""
    return name + PARTIAL


@dataclass(frozen=True)
class PartialFile:
    """Where the first embeddings of one tile are kept: a `Keeper`."""

    path: Path
    digest: str
    """Of everything that the embeddings depend on, and of which pixels they are."""
    replaces: str | None = None
    """SHA-256 of the record that the tile had when it was begun; None without one."""

    @classmethod
    def of(
        cls,
        folder: Path,
        name: str,
        dpixels: DPixels,
        pixels: np.ndarray,
        model: Model,
        identity: Mapping[str, Any],
    ) -> PartialFile:
        """Return where a folder of that identity keeps the embeddings of `pixels`, bool (H, W), of a tile."""
        digest = partial_digest(dpixels, pixels, model, identity)
        return cls(folder / partial_name(name), digest, digest_of(folder / f"{name}.json"))

    def load(self, *arrays: np.ndarray | None) -> int:
        """Fill the first rows of the arrays with what is kept; return how many: 0 if there is nothing of use."""
        try:
            with open_file(self.path) as file:
                header = _header(file)
                count = header["pixels"]
                wanted = [array for array in arrays if array is not None]
                if header["digest"] != self.digest or count > len(wanted[0]):
                    return 0
                rows = [array[:count] for array in wanted]
                whole = all(file.readinto(_bytes(each)) == each.nbytes for each in rows) and not file.read(1)
        except FileNotFoundError:
            return 0
        except (OSError, ValueError) as error:
            logger.debug("%s is not used: %s", self.path, plainly(error))
            return 0
        if not whole or header["sha256"] != self._checksum(rows) or not np.isfinite(rows[-1]).all():
            logger.debug("%s is not used: it is damaged", self.path)
            return 0
        logger.info("%s: %s of %s pixels are encoded already", self.path.stem, f"{count:,}", f"{len(wanted[0]):,}")
        return count

    def save(self, *arrays: np.ndarray | None) -> None:
        """Write these rows in place of what is there. If that is impossible, say so in the log: the tile goes on."""
        rows = [array for array in arrays if array is not None]
        header = {
            "digest": self.digest,
            "pixels": len(rows[0]),
            "sha256": self._checksum(rows),
            "replaces": self.replaces,
        }
        try:
            with atomic_file(self.path) as part, part.open("xb") as file:
                file.write(json.dumps(header).encode() + b"\n")
                for each in rows:
                    file.write(_bytes(each))
        except (TesseraError, OSError) as error:
            logger.warning("what is encoded of %s cannot be kept for a rerun: %s", self.path.stem, plainly(error))
        else:
            logger.debug("kept %s pixels in %s", f"{len(rows[0]):,}", self.path)

    def _checksum(self, rows: list[np.ndarray]) -> str:
        found = hashlib.sha256(f"{self.digest} {len(rows[0])}\n".encode())
        for each in rows:
            found.update(_bytes(each))
        return found.hexdigest()


def partial_digest(dpixels: DPixels, pixels: np.ndarray, model: Model, identity: Mapping[str, Any]) -> str:
    """Return a digest of what the embeddings of `pixels`, bool (H, W), depend on, and of the pixels themselves.

    `identity` is the folder's. The observations are sampled: that all are those of an earlier run follows from the
    scenes, unless files were replaced under the same names.
    """
    depends = {
        "software": __version__,
        "arithmetic": model.arithmetic,
        "identity": identity,
        "inputs": dpixels.input_digest,
        "missing": sorted(dpixels.missing_scenes),
        "dates": {sensor: dates.astype(str).tolist() for sensor, dates in dpixels.dates.items()},
    }
    found = hashlib.sha256(json.dumps(depends, sort_keys=True).encode())
    rows, columns = np.nonzero(pixels)
    found.update(np.packbits(pixels).tobytes())
    found.update(np.ascontiguousarray(dpixels.counts[:, rows, columns]).tobytes())
    step = max(1, len(rows) // SAMPLED)
    some = (slice(None), rows[::step], columns[::step])
    clear = dpixels.s2_mask[some] != 0
    for frames in (dpixels.s2[some] * clear[..., None], dpixels.s1_asc[some], dpixels.s1_desc[some]):
        found.update(np.ascontiguousarray(frames).tobytes())
    return found.hexdigest()


def encoded_pixels(folder: Path, name: str) -> int:
    """Return how many pixels the partial result of a tile says to hold; 0 without one."""
    try:
        with open_file(folder / partial_name(name)) as file:
            return int(_header(file)["pixels"])
    except (OSError, ValueError):
        return 0


def remove_overtaken(folder: Path) -> None:
    """Remove the partial results of tiles that others have finished since these were begun."""
    for path in folder.glob(f"*{PARTIAL}"):
        with suppress(OSError, ValueError):
            with open_file(path) as file:
                replaces = _header(file)["replaces"]
            if digest_of(folder / f"{path.stem}.json") != replaces:
                path.unlink()


def _header(file: BufferedReader) -> dict[str, Any]:
    """Read the first line; ValueError unless it is one of ours."""
    header = parse_json(file.readline(_MOST_HEADER), strict=True)
    if not isinstance(header, dict) or header.keys() != {"digest", "pixels", "sha256", "replaces"}:
        raise ValueError("it has no header of ours")
    if type(header["pixels"]) is not int or header["pixels"] < 1:
        raise ValueError("it holds no pixels")
    return header


def _bytes(array: np.ndarray) -> memoryview:
    """Return the memory of a contiguous array."""
    return array.reshape(-1).view(np.uint8).data
