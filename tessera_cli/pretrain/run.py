"""From stored d-pixels to a trained encoder: everything that `tessera pretrain` does."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tessera_cli.dpixels import find_stores
from tessera_cli.errors import IdentityError, UsageError
from tessera_cli.models.encoder import Encoder
from tessera_cli.models.load import read_model
from tessera_cli.models.precision import resolve
from tessera_cli.models.registry import get_spec
from tessera_cli.models.spec import describe_sizes
from tessera_cli.pretrain import checkpoint as resume
from tessera_cli.pretrain.callbacks import Row, Watch
from tessera_cli.pretrain.config import DataSettings, Settings
from tessera_cli.pretrain.data.build import shards_for
from tessera_cli.pretrain.data.shards import Shards, read_header
from tessera_cli.pretrain.distributed import World
from tessera_cli.pretrain.run_folder import RunFolder
from tessera_cli.pretrain.trainer import Trainer
from tessera_cli.sampling.statistics import Statistics

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """How it ended."""

    finished: bool
    step: int
    exported: Path
    rows: tuple[Row, ...]
    """Of `metrics.jsonl`."""


def pretrain(
    dpixels: Sequence[Path],
    settings: Settings,
    out: Path,
    *,
    shards: Path | None = None,
    init_from: str | Path | None = None,
    device: torch.device,
    world: World = World(),  # noqa: B008 - frozen
    watch: Watch = Watch(),  # noqa: B008 - frozen
) -> Trained:
    """Train an encoder on d-pixels, or go on where the run in `out` stopped.

    `dpixels`: what `find_stores` takes; may be empty if there are shards, whose settings of `data` then count.
    `init_from`: a model as `--model` names it, or a checkpoint, whose weights a new run starts from. Every process of
    `world` calls this with the same arguments; process 0 writes. Errors are TesseraErrors; what was saved stays.
    """
    folder, path = RunFolder(out), shards or RunFolder(out).shards
    stores = find_stores(dpixels) if dpixels else ()
    if not stores:
        settings = _as_they_are(settings, path)
    if settings.probe.labels and not Path(settings.probe.labels).is_file():
        raise UsageError(f"--probe {settings.probe.labels}: there is no such file. Check the path.")
    if settings.train.batch % world.size or settings.train.batch // world.size < 2:
        raise UsageError(
            f"train.batch {settings.train.batch} cannot be dealt out to {world.size} processes: it is of the joint "
            "batch. Give a multiple, of at least 2 pixels each."
        )
    initial = None if init_from is None else _initial(init_from, settings)
    if world.main:
        folder.claim(settings)
        found = shards_for(stores, settings.data, path, progress=watch.building)
        folder.describe(
            device=str(device),
            device_name=_name(device),
            processes=world.size,
            threads=torch.get_num_threads(),
            precision=resolve(settings.train.precision, device),
            shards=str(path),
            inputs=[origin["name"] for origin in found.header["origins"]],
        )
    world.barrier()
    if not world.main:
        found = Shards.open(path, verify=False)
    trainer = Trainer(
        settings,
        found,
        _statistics(settings, found, initial),
        folder,
        device,
        world,
        initial=None if initial is None else initial.encoder,
        watch=watch,
    )
    finished = trainer.run()
    return Trained(finished, trainer.step, folder.exported(settings), tuple(folder.rows()))


def _as_they_are(settings: Settings, path: Path) -> Settings:
    """The settings with those of `data` that the shards were made with; UsageError if there are no shards."""
    if not path.exists():
        raise UsageError("There are no d-pixels to train on: give what `tessera fetch` wrote, or --shards.")
    made = DataSettings(**read_header(path)["settings"], statistics=settings.data.statistics)
    return settings.model_copy(update={"data": made})


@dataclass(frozen=True)
class Start:
    """Weights to start from, and what their pixels are standardised with."""

    encoder: Encoder
    statistics: Statistics | None


def _initial(name: str | Path, settings: Settings) -> Start:
    """UsageError if the model is of another shape than the settings say."""
    wanted = settings.model.encoder
    if Path(name).is_file() and resume.is_checkpoint(Path(name)):
        return Start(*resume.read_encoder(Path(name), wanted))
    official = Path(name).is_file() and Path(name).suffix in (".pt", ".pth")
    model = read_model(weights=Path(name)) if official else read_model(name)
    if model.encoder is None or model.config != wanted or model.spec.family != settings.model.family:
        raise UsageError(
            f"--init-from {name}: it is a {model.spec.family} with {describe_sizes(model.config)}, and the settings "
            f"say {settings.model.family} with {describe_sizes(wanted)}. Choose the preset of its shape."
        )
    return Start(model.encoder, model.spec.statistics)


def _statistics(settings: Settings, shards: Shards, initial: Start | None) -> Statistics:
    """What the pixels are standardised with; IdentityError if the weights to start from expect something else."""
    wanted = settings.data.statistics
    theirs = None if initial is None else initial.statistics
    if wanted == "init":
        if theirs is None:
            raise UsageError("data.statistics = init takes those of --init-from, which is missing or has none.")
        return theirs
    if wanted == "own":
        chosen = shards.statistics
    else:
        spec = get_spec(wanted).bind_source(None)
        if spec.statistics is None or spec.config is None:
            raise UsageError(f"data.statistics = {wanted}: that model has none. Name another.")
        chosen = spec.statistics
    if initial is not None and theirs is None:
        logger.warning("--init-from does not say what its d-pixels were standardised with; make sure it is the same.")
    if theirs is not None and theirs != chosen:
        raise IdentityError(
            "--init-from was trained on d-pixels standardised with other statistics. Use its own: "
            "--set data.statistics=init."
        )
    return chosen


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
