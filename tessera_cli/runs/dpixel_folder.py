"""A folder of d-pixels: one store per tile and window, and beside it the record that makes it done."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tessera_cli import __version__
from tessera_cli.dpixels import Stored, describe, write_folder, write_store
from tessera_cli.dpixels.coverage import Coverage, gap_warnings
from tessera_cli.dpixels.dpixel import DPixels, tile_name
from tessera_cli.errors import UsageError
from tessera_cli.extent.grid import Tile, pack_mask, unpack_mask
from tessera_cli.extent.window import Window
from tessera_cli.files import sha256_of
from tessera_cli.outputs.asset import File, unsound
from tessera_cli.runs.folder import RUN, Folder, OutputFolder, read_json

StoreFormat = Literal["zarr", "npy"]
CONTENT = "d-pixels"
"""What `run.json` and records call themselves: folders of embeddings say nothing of the kind."""
FORMAT_VERSION = 1
"""Of folders and records; it rises when older ones cannot be continued."""

_SUFFIX: Mapping[StoreFormat, str] = {"zarr": ".zarr", "npy": ""}


@dataclass(frozen=True, eq=False)
class StoreRecord:
    """Everything that is known about one stored tile: `<name>.json` beside the store."""

    tile: Tile
    window: Window
    identity: Mapping[str, Any]
    """As in the folder's `run.json`."""
    software: str
    """Version of this package."""
    requested: np.ndarray
    """bool (H, W): the pixels asked for."""
    observations: Mapping[str, Coverage]
    """Sensor -> what it saw of the tile."""
    scenes: tuple[str, ...]
    """Ids of the scenes listed on the tile, holes included, in the order that decides overlaps."""
    missing_scenes: Mapping[str, str]
    """Scene id -> why it could not be read."""
    input_digest: str
    assets: tuple[File, ...]
    """All files of the store."""
    warnings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return tile_name(self.tile, self.window)

    @property
    def store(self) -> str:
        """The name of the store beside the record."""
        return self.name + _SUFFIX[self.identity["format"]]

    @property
    def pixels(self) -> int:
        """How many were asked for."""
        return int(self.requested.sum())

    def to_item(self) -> dict[str, Any]:
        """The record as JSON."""
        return {
            "content": CONTENT,
            "tile": self.tile.id,
            "window": self.window.name,
            "store": self.store,
            "identity": dict(self.identity),
            "software": self.software,
            "pixels": self.pixels,
            "requested": base64.b64encode(pack_mask(self.requested)).decode(),
            "observations": {sensor: seen.to_dict() for sensor, seen in self.observations.items()},
            "scenes": list(self.scenes),
            "holes": dict(self.missing_scenes),
            "warnings": list(self.warnings),
            "input_digest": self.input_digest,
            "files": {file.name: {"size": file.size, "sha256": file.sha256} for file in self.assets},
        }

    @classmethod
    def from_item(cls, item: Mapping[str, Any]) -> StoreRecord:
        """The inverse of `to_item`; UsageError for any other JSON."""
        try:
            if item["content"] != CONTENT:
                raise ValueError("it is of another kind")
            tile = Tile.from_id(item["tile"])
            record = cls(
                tile=tile,
                window=Window.from_name(item["window"]),
                identity=dict(item["identity"]),
                software=item["software"],
                requested=unpack_mask(base64.b64decode(item["requested"]), tile.shape),
                observations={sensor: Coverage.from_dict(seen) for sensor, seen in item["observations"].items()},
                scenes=tuple(item["scenes"]),
                missing_scenes=dict(item["holes"]),
                input_digest=item["input_digest"],
                assets=tuple(File(name, file["size"], file["sha256"]) for name, file in item["files"].items()),
                warnings=tuple(item["warnings"]),
            )
            if item["store"] != record.store or not record.assets:
                raise ValueError("it names no store of its own")
            return record
        except (KeyError, TypeError, ValueError, AttributeError, zlib.error) as error:
            raise UsageError(f"not the record of stored d-pixels: {type(error).__name__}: {error}.") from error


@dataclass(frozen=True)
class DPixelFolder(Folder[StoreRecord]):
    """d-pixels of one source, preprocessing and format."""

    @classmethod
    def of(cls, path: Path, *, source: str, preprocessing: str, format: StoreFormat) -> DPixelFolder:
        identity = {
            "content": CONTENT,
            "format_version": FORMAT_VERSION,
            "source": source,
            "preprocessing": preprocessing,
            "format": format,
        }
        return cls(path, identity)

    @staticmethod
    def parse(item: Mapping[str, Any]) -> StoreRecord:
        return StoreRecord.from_item(item)

    def write(self, dpixels: DPixels) -> StoreRecord:
        """Write the store, whole or not at all, and then its record: the done-marker.

        Errors as those of `write_store` and `write_folder`.
        """
        tile, window, format = dpixels.tile, dpixels.window, self.identity["format"]
        if not isinstance(tile, Tile) or window is None:
            raise ValueError(f"{dpixels.name} is no tile of the grid in a window")
        files: list[File] = []
        self.invalidate(dpixels.name)
        write = write_store if format == "zarr" else write_folder
        write(self.path, dpixels, look=lambda part: files.extend(_files(part, dpixels.name + _SUFFIX[format])))
        record = StoreRecord(
            tile=tile,
            window=window,
            identity=self.identity,
            software=__version__,
            requested=dpixels.requested,
            observations={sensor: Coverage.of(dates, window) for sensor, dates in dpixels.dates.items()},
            scenes=dpixels.scenes,
            missing_scenes=dpixels.missing_scenes,
            input_digest=dpixels.input_digest,
            assets=tuple(files),
            warnings=gap_warnings(dpixels),
        )
        self.finish(record)
        return record


def opened(path: Path, record: Path | None = None) -> Folder[Any]:
    """The folder at `path`, of embeddings or d-pixels, as its `run.json` says; without an identity if that is lost.

    Where there is none, a record in it may say what it holds.
    """
    run, item = read_json(path / RUN), None if record is None else read_json(record)
    identity = run.get("identity") if isinstance(run, dict) else None
    identity = identity if isinstance(identity, dict) else {}
    contents = {found.get("content") for found in (identity, item) if isinstance(found, dict)}
    return (DPixelFolder if CONTENT in contents else OutputFolder)(path, identity)


def record_beside(store: Path) -> StoreRecord | None:
    """The record beside a store, if that is where `fetch` has put both; else None."""
    folder = DPixelFolder(store.absolute().parent, {})
    name = store.absolute().name
    record = folder.read(folder.item_path(name.removesuffix(_SUFFIX["zarr"])))
    return record if record is not None and record.store == name else None


def read_back(folder: Path, record: StoreRecord) -> None:
    """Read a store in full and hold it against its record; TileError if anything differs."""
    path = folder / record.store
    for file in record.assets:
        file.checked(folder)
    listed = {folder / file.name for file in record.assets}
    if strange := [file for file in sorted(path.rglob("*")) if file.is_file() and file not in listed]:
        raise unsound(strange[0], "the record does not list it")
    stored = describe(path)
    dpixels = stored.read()
    differing = [
        what
        for what, found, due in (
            ("pixels", dpixels.requested.tobytes(), record.requested.tobytes()),
            ("frames", {sensor: len(dates) for sensor, dates in dpixels.dates.items()}, _frames(record)),
            *(() if record.identity["format"] == "npy" else _provenance(stored, dpixels, record)),
        )
        if found != due
    ]
    if differing:
        raise unsound(path, f"its {', '.join(differing)} are not those of its record")


def _provenance(stored: Stored, dpixels: DPixels, record: StoreRecord) -> list[tuple[str, object, object]]:
    """What official folders do not say: what, found, due."""
    said = {"source": dpixels.source, "preprocessing": dpixels.preprocessing}
    return [
        ("name", stored.name, record.name),
        ("identity", said, {key: record.identity[key] for key in said}),
        ("scenes", (dpixels.scenes, dict(dpixels.missing_scenes)), (record.scenes, dict(record.missing_scenes))),
        ("input digest", dpixels.input_digest, record.input_digest),
    ]


def _frames(record: StoreRecord) -> dict[str, int]:
    return {sensor: seen.frames for sensor, seen in record.observations.items()}


def _files(part: Path, store: str) -> Iterator[File]:
    """What lies in a store that will have this name."""
    for path in sorted(part.rglob("*")):
        if path.is_file():
            yield File(f"{store}/{path.relative_to(part).as_posix()}", path.stat().st_size, sha256_of(path))
