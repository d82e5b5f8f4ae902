"""The run for machines without network: store the d-pixels of an area tile by tile, fetch weights, say what to run."""

from __future__ import annotations

import logging
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tessera_cli.dpixels.dpixel import DPixels
from tessera_cli.errors import SourceRefusedError, SourceUnavailableError, TesseraError
from tessera_cli.extent.grid import TileRequest
from tessera_cli.files import explained
from tessera_cli.folders.folder import TileFolder
from tessera_cli.models.registry import DEFAULT_MODEL, REGISTRY
from tessera_cli.models.weights import pull
from tessera_cli.outputs import stores
from tessera_cli.outputs.item import TileRecord
from tessera_cli.outputs.layers import STORE_SUFFIX, StoreFormat
from tessera_cli.runs.collection import write_collection
from tessera_cli.runs.crew import run_tiles
from tessera_cli.runs.fit import Needs, array_bytes, packed_bytes
from tessera_cli.runs.inputs import Inputs
from tessera_cli.runs.pipeline import Job
from tessera_cli.runs.reading import Reading
from tessera_cli.runs.recipes import ReadingRecipe
from tessera_cli.runs.results import Progress, Silent, Summary, TileResult, TileStatus, stages_text
from tessera_cli.runs.selection import check_tiles
from tessera_cli.runs.shares import ends_last
from tessera_cli.runs.terms import PLAIN, Terms
from tessera_cli.timing import StageTimer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FetchJob(Job[TileResult | None]):
    """Job that reads and stores tiles. Storing is the second stage: the third may hold no d-pixels."""

    reading: Reading
    folder: TileFolder
    stages: StageTimer = field(default_factory=StageTimer)
    process_stage = "write"
    counted_stages = ("read", "write")

    def needs(self, inputs: Inputs, requests: Sequence[TileRequest]) -> Needs:
        bulk = inputs.bulk(requests)
        held = bulk.tiles_bytes + bulk.valid_bytes
        if self.folder.identity["format"] == "npy":
            return Needs(held, array_bytes(bulk))
        # Zarr packs an array as a whole: its chunks, and the file that they become.
        return Needs(held + 2 * packed_bytes(bulk, bulk.counts[0]), packed_bytes(bulk, bulk.pixels))

    def process(self, request: TileRequest, dpixels: DPixels, advance: Callable[[int], None]) -> TileResult | None:
        """Store a tile and write its record, which makes it done."""
        record = store(self.folder, dpixels)
        if record is None:
            return None
        advance(request.count)
        return self.result(request, "done", record)

    def write(self, request: TileRequest, made: TileResult | None) -> TileResult | None:
        return made

    def result(self, request: TileRequest, status: TileStatus, record: TileRecord | None, **more: Any) -> TileResult:
        missing = len(record.missing_scenes) if record else 0
        made = super().result(request, status, record, tokens=None, missing_scenes=missing, **more)
        return replace(made, bytes=made.bytes or 0)


@dataclass(frozen=True)
class FetchRecipe:
    """Opens the job in any process."""

    reading: ReadingRecipe
    folder: TileFolder

    def open(self, requests: Sequence[TileRequest]) -> FetchJob:
        return FetchJob(self.reading.open(requests), self.folder)

    def stop(self) -> None:
        self.reading.stop()


def store(folder: TileFolder, dpixels: DPixels) -> TileRecord | None:
    """Write the store of a tile and its record into a folder of d-pixels. Result and errors as those of `replace`."""
    format: StoreFormat = folder.identity["format"]
    stores.check_replaceable(format, folder.path / (dpixels.name + STORE_SUFFIX[format]))

    def write(place: Path) -> TileRecord:
        assets = stores.write(format, place, dpixels)
        return TileRecord.of(dpixels, folder.identity, pixels=int(dpixels.requested.sum()), assets=assets)

    return folder.replace(dpixels.name, write)


def fetch(
    inputs: Inputs,
    folder: TileFolder,
    *,
    model: str | None = None,
    progress: Progress | None = None,
    terms: Terms = PLAIN,
) -> Summary:
    """Store the d-pixels of all tiles in the folder; tiles that are finished are left alone.

    With `model`, the weights of a released model are downloaded too, once all that fails quickly has not. Raises before
    anything is written if the run cannot start. A tile that fails does not stop the others, and `Summary.error` tells.
    """
    started = time.monotonic()
    folder.check_identity()
    check_tiles(inputs, terms)
    folder.start_run(inputs.key, inputs.record(), inputs.to_freeze)
    weights_error = None if model is None else pull_weights(model)
    job = FetchJob(inputs.reading, folder)
    recipe = FetchRecipe(inputs.recipe(folder), replace(folder, path=folder.path.absolute()))
    with explained(folder.path):
        outcome = run_tiles(inputs, job, terms, progress or Silent(), recipe=recipe)
        last = ends_last(inputs, folder, terms.shard)
        if last:
            with job.stages.at("write"):
                write_collection(folder)
    seconds = time.monotonic() - started
    more = {"embed_command": "", "weights_error": weights_error, "shard": terms.shard, "is_whole": last}
    summary = Summary.of(folder.path, outcome, job.stages.seconds, seconds, **more)
    logger.debug("%s", stages_text(summary))
    return summary


def pull_weights(model: str) -> TesseraError | None:
    """Download the weights of a released model into the local cache; return why the network does not give them.

    UsageError for what is no matter of the network. Models without published weights need nothing.
    """
    spec = REGISTRY.get(model)
    if spec is None or spec.weights is None:  # a file of the user's own, or no network to run
        return None
    try:
        logger.info("weights of %s: %s", spec.name, pull(spec.name)["path"])
    except (SourceRefusedError, SourceUnavailableError) as error:
        logger.warning("the weights of %s cannot be downloaded now; going on with the d-pixels", spec.name)
        return error.retold(f"{error} Of what was asked for only this is missing: `tessera weights pull {spec.name}`.")
    return None


def embed_command(
    folder: TileFolder,
    *,
    model: object,
    weights: object,
    model_config: object,
    force_source: bool,
    allow_missing: int,
    points: str | None,
    out: Path,
) -> str:
    """Return the command line that embeds the d-pixels of `folder`; what is None, False or 0 is left out.

    Official folders (npy) record neither source nor preprocessing, so the command says them.
    """
    said, official = folder.identity, folder.identity["format"] == "npy"
    options = {
        "dpixels": folder.path,
        "points": points,
        "model": model or (None if weights else DEFAULT_MODEL),
        "weights": weights,
        "model-config": model_config,
        "source": said["source"] if official else None,
        "force-source": force_source,
        "preprocessing": said["preprocessing"] if official and said["preprocessing"] != "official" else None,
        "allow-missing": allow_missing,
        "out": out,
    }
    words = ["tessera", "embed"]
    for name, value in options.items():
        if value:
            words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return shlex.join(words)
