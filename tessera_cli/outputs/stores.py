"""Write and check the stored d-pixels of a tile: a Zarr store or an official tile folder."""

from __future__ import annotations

from pathlib import Path

from tessera_cli.dpixels import Stored, describe, official, write_folder, write_store, zarr_store
from tessera_cli.dpixels.dpixel import DPixels
from tessera_cli.errors import TileError
from tessera_cli.files import sha256_of
from tessera_cli.outputs.asset import Asset, damaged
from tessera_cli.outputs.item import TileRecord
from tessera_cli.outputs.layers import STORE_SUFFIX, StoreFormat


def check_replaceable(format: StoreFormat, path: Path) -> None:
    """Raise UsageError if something else than a store of this format lies there."""
    if format == "npy":
        official.check_replaceable(path)


def write(format: StoreFormat, folder: Path, dpixels: DPixels) -> tuple[Asset, ...]:
    """Write the store of a tile atomically; return its files. Errors as those of `write_store` and `write_folder`."""
    store, files = dpixels.name + STORE_SUFFIX[format], list[Asset]()

    def describe_files(part: Path) -> None:
        for path in sorted(file for file in part.rglob("*") if file.is_file()):
            name = f"{store}/{path.relative_to(part).as_posix()}"
            files.append(Asset(name, path.stat().st_size, sha256_of(path)))

    (write_store if format == "zarr" else write_folder)(folder, dpixels, look=describe_files)
    return tuple(files)


def check_files(folder: Path, record: TileRecord, *, recorded_at: int | None = None) -> None:
    """Raise TileError unless the record lists the files that a store must have, and they have its bytes.

    `recorded_at` as in `Asset.verified`.
    """
    path = folder / record.store
    listed = {asset.name for asset in record.assets}
    if lacking := [file for file in due_files(record.identity["format"]) if f"{record.store}/{file}" not in listed]:
        raise damaged(path, f"its record lists no {lacking[0]}")
    verified = {asset.verified(folder, recorded_at=recorded_at) for asset in record.assets}
    if unlisted := [file for file in sorted(path.rglob("*")) if file.is_file() and file not in verified]:
        raise damaged(unlisted[0], "the record does not list it")


def due_files(format: StoreFormat) -> tuple[str, ...]:
    """Return the files that every store has."""
    return zarr_store.FILES if format == "zarr" else official.FILES


def read_back(folder: Path, record: TileRecord) -> None:
    """Read a store in full and compare it with its record; TileError if anything differs."""
    path = folder / record.store
    check_files(folder, record)
    stored = describe(path)
    dpixels = stored.read()
    frames = {sensor: len(dates) for sensor, dates in dpixels.dates.items()}
    pairs: list[tuple[str, object, object]] = [
        ("pixels", dpixels.requested.tobytes(), record.requested.tobytes()),
        ("frames", frames, {sensor: seen.frames for sensor, seen in record.observations.items()}),
    ]
    if record.identity["format"] == "zarr":  # official folders say no more
        pairs += _provenance(stored, dpixels, record)
    if differing := [what for what, actual, due in pairs if actual != due]:
        raise damaged(path, f"its {', '.join(differing)} are not those of its record")


def check_unchanged(folder: Path, record: TileRecord) -> None:
    """Raise TileError unless the files of a store that carry no checksum of their own are those of its record.

    Of a Zarr store these are the descriptions; in official folders it is every file.
    """
    try:
        for asset in record.assets:
            if record.format == "npy" or asset.name.endswith(".json"):
                asset.verified(folder)
    except TileError as error:
        why = str(error).partition(" is damaged: ")[2].partition(". Remove")[0]
        raise TileError(
            f"{folder / record.store} is not what was fetched: of {asset.name}, {why}. Fetch the tile again, or remove "
            f"{record.name}.json to use it as it is."
        ) from error


def _provenance(stored: Stored, dpixels: DPixels, record: TileRecord) -> list[tuple[str, object, object]]:
    """Return what a Zarr store says of its origin: what, its value there, its value in the record."""
    identity = {"source": dpixels.source, "preprocessing": dpixels.preprocessing}
    return [
        ("name", stored.name, record.name),
        ("identity", identity, {key: record.identity[key] for key in identity}),
        ("scenes", (dpixels.scenes, dict(dpixels.missing_scenes)), (record.scenes, dict(record.missing_scenes))),
        ("input digest", dpixels.input_digest, record.input_digest),
    ]
