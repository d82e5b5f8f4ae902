"""Pretraining from stored d-pixels to a weights file."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from tessera_cli.errors import IdentityError, UsageError
from tessera_cli.extent.window import Window
from tessera_cli.models.encoder import Encoder
from tessera_cli.models.load import read_model
from tessera_cli.models.precision import resolve
from tessera_cli.models.registry import get_spec
from tessera_cli.models.spec import describe_sizes
from tessera_cli.pretraining import checkpoint
from tessera_cli.pretraining.callbacks import Callbacks, Row
from tessera_cli.pretraining.config import DataConfig, PretrainConfig
from tessera_cli.pretraining.data.build import open_or_build
from tessera_cli.pretraining.data.inputs import find_inputs
from tessera_cli.pretraining.data.shards import Shards, read_header
from tessera_cli.pretraining.distributed import World
from tessera_cli.pretraining.run_folder import RunFolder
from tessera_cli.pretraining.trainer import Trainer
from tessera_cli.sampling.statistics import Statistics
from tessera_cli.series.files import CSV, PARQUET
from tessera_cli.series.mapping import AnyColumns, Columns

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """The result of a run."""

    finished: bool
    """False if a callback stopped it."""
    step: int
    exported: Path
    """The weights file."""
    rows: tuple[Row, ...]
    """The rows of `metrics.jsonl`."""


def pretrain(
    dpixels: Sequence[Path],
    config: PretrainConfig,
    out: Path,
    *,
    columns: AnyColumns = None,
    window: Window | None = None,
    shards: Path | None = None,
    init_from: str | Path | None = None,
    device: torch.device,
    world: World = World(),  # noqa: B008 - frozen
    callbacks: Callbacks = Callbacks(),  # noqa: B008 - frozen
) -> Trained:
    """Train an encoder on d-pixels, or resume the run in `out`.

    `dpixels`, `columns` and `window` are those of `find_inputs`; without any input shards must exist, whose `data`
    section then replaces that of the config. `shards`: their folder, by default within `out`. `init_from`: a model as
    `--model` names it, or a checkpoint, whose weights a new run starts from. All processes of `world` call this with
    the same arguments; the first one writes. Raises TesseraError; what was saved stays.
    """
    folder = RunFolder(out)
    path = shards or folder.shards
    stores = find_inputs(dpixels, columns, window)
    if not stores:
        config = _with_data_of_shards(config, path)
    config = _with_names(config, columns)
    if config.probe.labels and not Path(config.probe.labels).is_file():
        raise UsageError(f"--probe {config.probe.labels}: there is no such file. Check the path.")
    if config.train.batch % world.size or config.train.batch // world.size < 2:
        raise UsageError(
            f"train.batch {config.train.batch} cannot be divided among {world.size} processes: it is that of all of "
            "them. Give a multiple, of at least 2 pixels each."
        )
    encoder, expected = (None, None) if init_from is None else _read_initial(init_from, config)
    with folder.at_work() if world.main else nullcontext():
        if world.main:
            folder.claim(config)
            opened = open_or_build(stores, config.data, path, progress=callbacks.on_shards)
            folder.describe(
                device=str(device),
                device_name=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
                processes=world.size,
                threads=torch.get_num_threads(),
                precision=resolve(config.train.precision, device),
                shards=str(path),
                inputs=[origin["name"] for origin in opened.header["origins"]],
            )
        world.barrier()
        if not world.main:
            opened = Shards.open(path, verify=False)
        config = config.model_copy(update={"train": config.train.for_pixels(opened.pixels)})
        statistics = _choose_statistics(config, opened, expected)
        trainer = Trainer(config, opened, statistics, folder, device, world, encoder, callbacks)
        finished = trainer.run()
        return Trained(finished, trainer.step, folder.exported(config), tuple(folder.rows()))


def _with_data_of_shards(config: PretrainConfig, path: Path) -> PretrainConfig:
    """Return the config with the `data` section of the shards; UsageError if there are none."""
    if not path.exists():
        raise UsageError("There are no d-pixels to train on: give what `tessera fetch` wrote, or --shards.")
    made = DataConfig(**read_header(path)["settings"], statistics=config.data.statistics)
    return config.model_copy(update={"data": made})


def _with_names(config: PretrainConfig, columns: AnyColumns) -> PretrainConfig:
    """Return the config whose probe, of a table, calls samples and groups as `columns` does, unless it says itself."""
    probe, names = config.probe, Columns.of(columns).names
    if Path(probe.labels).suffix.lower() not in PARQUET + CSV:
        return config
    told = {key: getattr(probe, key) or names.get(key, "") for key in ("sample", "group")}
    return config.model_copy(update={"probe": probe.model_copy(update=told)})


def _read_initial(name: str | Path, config: PretrainConfig) -> tuple[Encoder, Statistics | None]:
    """Return encoder and band statistics (None if unknown) of --init-from; UsageError if it is of another shape."""
    wanted = config.model.encoder
    if Path(name).is_file() and checkpoint.is_checkpoint(Path(name)):
        return checkpoint.read_encoder(Path(name), wanted)
    official = Path(name).is_file() and Path(name).suffix in (".pt", ".pth")
    model = read_model(weights=Path(name)) if official else read_model(name)
    if model.encoder is None or model.config != wanted or model.spec.family != config.model.family:
        raise UsageError(
            f"--init-from {name}: it is a {model.spec.family} with {describe_sizes(model.config)}, and the settings "
            f"say {config.model.family} with {describe_sizes(wanted)}. Choose the preset of its shape."
        )
    if model.spec.statistics is None:
        logger.warning("--init-from does not say what its d-pixels were standardised with; make sure it is the same.")
    return model.encoder, model.spec.statistics


def _choose_statistics(config: PretrainConfig, shards: Shards, expected: Statistics | None) -> Statistics:
    """Return the band statistics of `data.statistics`; IdentityError if the initial weights expect others."""
    wanted = config.data.statistics
    if wanted == "init":
        if expected is None:
            raise UsageError("data.statistics = init takes those of --init-from, which is missing or has none.")
        return expected
    if wanted == "own":
        chosen = shards.statistics
    else:
        spec = get_spec(wanted).bind_source(None)
        if spec.statistics is None or spec.config is None:
            raise UsageError(f"data.statistics = {wanted}: that model has none. Name another.")
        chosen = spec.statistics
    if expected is not None and expected != chosen:
        raise IdentityError(
            "--init-from was trained on d-pixels standardised with other statistics. Use its own: "
            "--set data.statistics=init."
        )
    return chosen
