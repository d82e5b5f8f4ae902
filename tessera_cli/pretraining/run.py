"""Pretraining from stored d-pixels to a weights file."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from tessera_cli.errors import UsageError
from tessera_cli.extent.window import Window
from tessera_cli.models.load import Model
from tessera_cli.models.precision import resolve
from tessera_cli.pretraining.callbacks import Callbacks, Row
from tessera_cli.pretraining.config import DataConfig, PretrainConfig
from tessera_cli.pretraining.data.build import open_or_build
from tessera_cli.pretraining.data.inputs import find_inputs
from tessera_cli.pretraining.data.shards import Shards, read_header
from tessera_cli.pretraining.data.taught import Taught, open_or_embed
from tessera_cli.pretraining.data.teacher import Teacher, load_teacher
from tessera_cli.pretraining.distributed import World
from tessera_cli.pretraining.initial import Initial, choose_statistics, resolve_statistics
from tessera_cli.pretraining.run_folder import RunFolder
from tessera_cli.pretraining.trainer import Trainer
from tessera_cli.series.files import CSV, PARQUET, TableFile
from tessera_cli.series.mapping import AnyColumns, Columns


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
    init_from: str | Path | Initial | None = None,
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
    if config.probe.labels and not Path(config.probe.labels).is_file():
        raise UsageError(f"--probe {config.probe.labels}: there is no such file. Check the path.")
    config = _with_names(config, columns)
    if config.train.batch % world.size or config.train.batch // world.size < 2:
        raise UsageError(
            f"train.batch {config.train.batch} cannot be divided among {world.size} processes: it is that of all of "
            "them. Give a multiple, of at least 2 pixels each."
        )
    initial = init_from if isinstance(init_from, Initial | None) else Initial.of(init_from)
    encoder, expected = (None, None) if initial is None else initial.encoder(config)
    config = resolve_statistics(config, expected)
    model = load_teacher(config.teacher, str(device)) if config.teaches and world.main else None
    if model is not None:
        config = config.model_copy(update={"teacher": config.teacher.model_copy(update={"sha256": model.sha256})})
    taught: Taught | None = None
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
                steps=config.train.for_pixels(opened.pixels).steps,
                inputs=[origin["name"] for origin in opened.header["origins"]],
            )
            taught = None if model is None else _taught(model, config, opened, callbacks)
            model = None  # it may be large
        world.barrier()
        if not world.main:
            opened = Shards.open(path, verify=False)
        config = config.model_copy(update={"train": config.train.for_pixels(opened.pixels)})
        if config.teaches:
            name = world.from_main("" if taught is None else taught.path.name)
            taught = taught or Taught.open(path / name, opened, verify=False)
        statistics = choose_statistics(config, opened, expected)
        trainer = Trainer(config, opened, statistics, folder, device, world, encoder, callbacks, taught)
        finished = trainer.run()
        return Trained(finished, trainer.step, folder.exported(config), tuple(folder.rows()))


def _taught(model: Model, config: PretrainConfig, shards: Shards, callbacks: Callbacks) -> Taught:
    """Return the teacher's embeddings of all pixels of the shards; UsageError if they cannot be matched."""
    teacher = Teacher.of(model, config.teacher, shards)
    if config.teacher.head == "identity" and teacher.dims != config.model.representation:
        raise UsageError(
            f"teacher.head = identity: {model.name} gives {teacher.dims} values, and model.representation is "
            f"{config.model.representation}. Make it the same, or take linear heads."
        )
    return open_or_embed(shards, teacher, torch.get_num_threads(), callbacks.on_teacher)


def _with_data_of_shards(config: PretrainConfig, path: Path) -> PretrainConfig:
    """Return the config with the `data` section of the shards; UsageError if there are none."""
    if not path.exists():
        raise UsageError("There are no d-pixels to train on: give what `tessera fetch` wrote, or --shards.")
    made = DataConfig(**read_header(path)["settings"], statistics=config.data.statistics)
    return config.model_copy(update={"data": made})


def _with_names(config: PretrainConfig, columns: AnyColumns) -> PretrainConfig:
    """Return the config whose probe, of a table, calls samples and groups as `columns` does, unless it says itself.

    What the table has no column of is left to its usual name: `columns` are those of the tables that are trained on.
    """
    probe, names = config.probe, Columns.of(columns).names
    if not names or Path(probe.labels).suffix.lower() not in PARQUET + CSV:
        return config
    there = TableFile.open(Path(probe.labels)).names
    usual = {key: names[key] for key in ("sample", "group") if names.get(key) in there}
    told = {key: getattr(probe, key) or name for key, name in usual.items()}
    return config.model_copy(update={"probe": probe.model_copy(update=told)})
