"""How fast a whole run is: files of scenes in, rasters out, through the same calls as `tessera embed`."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from tessera_cli.bench.subjects import catalog_folder, get_model, read_items
from tessera_cli.catalog import MPC
from tessera_cli.extent.aoi import Aoi
from tessera_cli.folders.identity import EmbedSettings
from tessera_cli.imagery import Reader
from tessera_cli.net import Client
from tessera_cli.planning.scene_search import Request, search_scenes
from tessera_cli.runs.embed import embed
from tessera_cli.runs.inputs import CatalogInputs
from tessera_cli.runs.results import Silent
from tessera_cli.timing import peak_rss_mb

SIZE = 256
"""Pixels per side of the area of the catalogue that is made if none is given: on two tiles."""


def measure(
    catalog: Path | None = None, *, model: str = "demo", threads: int = 1, size: int = SIZE, seed: int = 0
) -> dict[str, Any]:
    """Embed the AOI of a catalogue of `tessera simulate` (None: one is made first) on the CPU, into a temporary folder.

    Returns what JSON can hold. `pixels_per_second` are those of the whole run, from the search to the last file.
    `seconds`: the whole run, until the first pixels were encoded, until the first tile was read (`start`), and those
    that each stage was at work. `encode_busy_share`: of the time after the first tile was read, how much the encoder
    was at work; None without an encoder. `peak_rss_mb` is that of this process so far. Raises UsageError if there is
    no such catalogue, and the run's own error if a tile failed.
    """
    chosen = get_model(model, seed, device="cpu")
    with tempfile.TemporaryDirectory() as scratch, catalog_folder(catalog, size=size, seed=seed) as simulated:
        _, window = read_items(simulated)
        request = Request(Aoi.from_file(simulated / "aoi.geojson"), (window,), MPC, str(simulated / "items.json"))
        settings = EmbedSettings.checked(
            chosen, request.source.name, recorded=request.source.name, force_source=True, seed=seed
        )
        folder, reader, progress = settings.folder(Path(scratch) / "out"), Reader(Client()), _FirstPixels()
        started = time.perf_counter()
        inputs = CatalogInputs(search_scenes(request, reader.client, folder), reader)
        summary = embed(inputs, settings, folder, progress=progress, threads=threads)
        seconds = time.perf_counter() - started
        if error := summary.error():
            raise error
    return {
        "tiles": len(summary.results),
        "pixels": summary.pixels,
        "pixels_per_second": summary.pixels / seconds,
        "encode_busy_share": None if chosen.encoder is None else summary.encode_share,
        "seconds": {"run": seconds, "first_pixels": progress.first - started, **summary.stages},
        "peak_rss_mb": peak_rss_mb(),
    }


class _FirstPixels(Silent):
    """When the first pixels were encoded."""

    first = float("nan")

    def advance(self, pixels: int) -> None:
        if pixels and self.first != self.first:
            self.first = time.perf_counter()
