"""Folders of embeddings that look like a landscape: smooth across tiles, of known components."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tessera_cli.embeddings.folder import EmbeddingFolder
from tessera_cli.extent.grid import AnyTile, Tile, tile_name
from tessera_cli.extent.window import Window
from tessera_cli.files import write_json
from tessera_cli.folders.folder import TileFolder
from tessera_cli.outputs import formats
from tests.helpers.outputs import encoded, identity, write_record

YEARS = Window.from_name("2023"), Window.from_name("2024")


def axes(dims: int, seed: int = 7) -> np.ndarray:
    """Three orthonormal directions, (3, dims)."""
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(dims, 3)))[0].T


def fields(x: np.ndarray, y: np.ndarray, year: int) -> np.ndarray:
    """Three smooth functions of metres, (3, ...), of falling variance; parcels of 300 m differ from year to year."""
    relief = np.sin(x / 2900) + np.sin(y / 2300 + x / 5100)
    parcels = np.sin(12.9898 * np.floor(x / 300) + 78.233 * np.floor(y / 300) + year) * 437.585
    return np.stack([4 * relief, 4 * (parcels - np.floor(parcels)), np.cos(x / 900 - y / 700)])


def made(tile: AnyTile, window: Window, dims: int, requested: np.ndarray | None = None) -> dict[str, Any]:
    """Codes, scales and counts of a tile."""
    height, width = tile.shape
    rows, columns = np.mgrid[:height, :width]
    t = tile.transform
    x, y = (columns * 10.0, -rows * 10.0) if t is None else (t.c + t.a * (columns + 0.5), t.f + t.e * (rows + 0.5))
    noise = np.random.default_rng(int(abs(x.sum() + y.sum())) % 2**32).normal(0, 0.05, (dims, height, width))
    values = np.tensordot(axes(dims), fields(x, y, window.start.year), axes=(0, 0)) + noise
    scales = (np.abs(values).max(axis=0) / 127).astype(np.float32)
    codes = np.rint(values / scales).astype(np.int8)
    requested = np.ones(tile.shape, bool) if requested is None else requested
    codes[:, ~requested], scales[~requested] = -128, np.nan
    base = (40 + 15 * np.sin(x / 1700) + 10 * np.sin(y / 1900)).astype(np.uint16)
    counts = np.where(requested, np.stack([base, base // 2, base // 3 * (window == YEARS[0])]), 65535).astype(np.uint16)
    return {"codes": codes, "scales": scales, "counts": counts, "requested": requested}


def put(folder: Path, tile: AnyTile, window: Window = YEARS[0], dims: int = 8, **more: Any) -> dict[str, Any]:
    """Write a tile with its record; return its arrays."""
    arrays = made(tile, window, dims, more.pop("requested", None))
    dtype, format = more.pop("dtype", "int8"), more.pop("format", "geotiff")
    about = encoded(arrays, tile, dtype, format, **more)
    dated = None if tile.transform is None else window
    counts = arrays["counts"] if format == "npy" else None
    pixels = int(about.pixels.sum())
    about = replace(about, record=replace(about.record, window=dated, counts=counts, pixels=pixels))
    folder.mkdir(exist_ok=True)
    write_json(folder / "run.json", {"identity": identity(dims, dtype, format)})
    write_record(TileFolder(folder), replace(about.record, assets=formats.write(folder, about, compress="zstd")))
    return arrays


def repeat(folder: Path, out: Path, side: int, epsg: int = 32631) -> None:
    """Write a square of tiles that all have the files of the first tile of a folder."""
    first = EmbeddingFolder.open(folder).first
    out.mkdir()
    os.link(folder / "run.json", out / "run.json")
    for column in range(side):
        for row in range(side):
            tile = Tile(epsg, 60 + column, 1100 + row)
            name, assets = tile_name(tile, first.window), []
            for asset in first.assets:
                assets.append(replace(asset, name=name + asset.name.removeprefix(first.name)))
                os.link(folder / asset.name, out / assets[-1].name)
            write_record(TileFolder(out), replace(first, tile=tile, assets=tuple(assets)))
