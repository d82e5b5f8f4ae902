"""The main run: read d-pixels, encode them, write embeddings."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tessera_cli import config
from tessera_cli.dpixels.dpixel import DPixels
from tessera_cli.errors import UsageError
from tessera_cli.extent.grid import Tile, TileRequest
from tessera_cli.files import explained
from tessera_cli.folders.folder import TileFolder
from tessera_cli.folders.identity import EmbedSettings
from tessera_cli.folders.partial import encoded_pixels, remove_overtaken
from tessera_cli.inference.encode import footprint
from tessera_cli.outputs import formats
from tessera_cli.outputs.encoded import EncodedTile
from tessera_cli.outputs.formats import Compress
from tessera_cli.outputs.item import TileRecord
from tessera_cli.outputs.layers import file_names
from tessera_cli.planning.volumes import embeddings_bytes
from tessera_cli.runs.collection import write_collection
from tessera_cli.runs.crew import run_tiles
from tessera_cli.runs.encoding import encode_tile
from tessera_cli.runs.fit import Needs
from tessera_cli.runs.inputs import Inputs
from tessera_cli.runs.mosaic import write_mosaics
from tessera_cli.runs.pipeline import Job
from tessera_cli.runs.reading import Reading
from tessera_cli.runs.recipes import ReadingRecipe, SettingsRecipe
from tessera_cli.runs.results import Progress, Silent, Summary, TileResult, stages_text
from tessera_cli.runs.selection import check_tiles
from tessera_cli.runs.shares import ends_last
from tessera_cli.runs.terms import PLAIN, Terms
from tessera_cli.timing import StageTimer
from tessera_cli.workers import threads_of_task

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EmbedJob(Job[EncodedTile | TileRecord]):
    """Job that reads, encodes and writes tiles."""

    reading: Reading
    folder: TileFolder
    settings: EmbedSettings
    threads: int = 1
    compress: Compress = "zstd"
    stages: StageTimer = field(default_factory=StageTimer)

    def left(self, request: TileRequest) -> int:
        return max(0, request.count - encoded_pixels(self.folder.path, request.name))

    def needs(self, inputs: Inputs, requests: Sequence[TileRequest]) -> Needs:
        bulk, settings = inputs.bulk(requests), self.settings
        itemsize = 4 if settings.quantiser is None else 1
        codes = [count * (settings.dims * itemsize + 4) for count in bulk.counts]
        # Those of the tile that is written, as codes, as raster, and in GDAL's cache; those of the one before it.
        held = bulk.tiles_bytes + bulk.valid_bytes + 2 * codes[0] + sum(codes)
        if settings.uncertainty:
            held += bulk.halves_bytes
        model, clear = settings.model, bulk.s2 * bulk.clear
        longest = max(model.spec.observations.lengths(bulk.s2, bulk.s1))
        encoding = footprint(model.encoder, self.threads, bulk.counts[0], clear + bulk.s1, longest)
        return Needs(
            memory=held + encoding.host,
            disk=embeddings_bytes(bulk.pixels, settings.dims, itemsize),
            device=encoding.device,
            device_free=encoding.device_free,
            threads=model.encoder is not None and self.threads > 1,
        )

    def process(
        self, request: TileRequest, dpixels: DPixels, advance: Callable[[int], None]
    ) -> EncodedTile | TileRecord:
        identity, place = self.folder.identity, self.folder.path
        return encode_tile(dpixels, self.settings, identity, threads=self.threads, progress=advance, partials=place)

    def write(self, request: TileRequest, made: EncodedTile | TileRecord) -> TileResult | None:
        """Write a tile's files and its record, which makes it done."""

        def write(place: Path) -> TileRecord:
            if not isinstance(made, EncodedTile):  # files of an earlier run go
                return made
            return replace(made.record, assets=formats.write(place, made, compress=self.compress))

        record = self.folder.replace(request.name, write)
        tokens = made.tokens if isinstance(made, EncodedTile) else 0
        return None if record is None else self.result(request, record.status, record, tokens=tokens)

    @property
    def ascending(self) -> bool:  # type: ignore[override]
        return self.settings.model.spec.use_ascending


@dataclass(frozen=True)
class EmbedRecipe:
    """Opens the job in any process."""

    reading: ReadingRecipe
    settings: SettingsRecipe
    folder: Path
    threads: int | None
    """None: the share of the cores that the process has."""
    compress: Compress

    def open(self, requests: Sequence[TileRequest]) -> EmbedJob:
        settings, reading = self.settings.open(), self.reading.open(requests)
        threads = self.threads or threads_of_task()
        return EmbedJob(reading, settings.folder(self.folder), settings, threads, self.compress)

    def stop(self) -> None:
        self.reading.stop()


def embed(
    inputs: Inputs,
    settings: EmbedSettings,
    folder: TileFolder,
    *,
    progress: Progress | None = None,
    threads: int | None = None,
    compress: Compress = "zstd",
    terms: Terms = PLAIN,
    recipe: SettingsRecipe | None = None,
) -> Summary:
    """Write the embeddings of all tiles into the folder; tiles that are finished are left alone.

    `threads` is the number of cores for a process; None for its share. `recipe` is how other processes come to the
    settings, where `terms` name an executor. Raises before anything is written if the run
    cannot start. A tile that fails does not stop the others, and `Summary.error` tells. A full disk stops the run at
    once, and so does a source of which nothing can be read for two tiles in a row.
    """
    started = time.monotonic()
    folder.check_identity()
    _check_files(inputs, settings, folder)
    check_tiles(inputs, terms)
    folder.start_run(inputs.key, inputs.record(), inputs.to_freeze)
    job = EmbedJob(inputs.reading, folder, settings, threads or config.threads(), compress)
    mosaics: tuple[Path, ...] = ()
    with explained(folder.path):
        of_job = None
        if recipe is not None:
            of_job = EmbedRecipe(inputs.recipe(folder), recipe, folder.path.absolute(), threads, compress)
        outcome = run_tiles(inputs, job, terms, progress or Silent(), recipe=of_job)
        remove_overtaken(folder.path)
        last = ends_last(inputs, folder, terms.shard)
        if settings.format == "geotiff" and last:
            done = {r.request.name for r in outcome.results if r.path and isinstance(r.request.tile, Tile)}
            windows = sorted({r.window for r in inputs.tile_requests if r.window is not None})
            with job.stages.at("write"):
                mosaics = write_mosaics(folder, windows, known=done)
        if last:
            with job.stages.at("write"):
                write_collection(folder)
    more = {"mosaics": mosaics, "shard": terms.shard, "is_whole": last}
    summary = Summary.of(folder.path, outcome, job.stages.seconds, time.monotonic() - started, **more)
    logger.debug("%s", stages_text(summary))
    return summary


def _check_files(inputs: Inputs, settings: EmbedSettings, folder: TileFolder) -> None:
    """Raise UsageError if a tile cannot be written in this format, or would share a file with another."""
    names = folder.requested_names() | {request.name for request in inputs.tile_requests}
    uses = Counter(file for name in names for file in file_names(name))
    for request in inputs.tile_requests:
        if request.count:  # of a damaged store nothing but its name is known
            formats.check_tile(settings.format, request.tile)
        if shared := [file for file in file_names(request.name) if uses[file] > 1]:
            raise UsageError(f"In {folder.path} two tiles would share the file {shared[0]}. Rename {request.name}.")
