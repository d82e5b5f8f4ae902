"""From stored d-pixels to a trained encoder: everything that `tessera pretrain` does."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tessera_cli.errors import IdentityError, UsageError
from tessera_cli.models.families import settled
from tessera_cli.models.load import Model, read_model
from tessera_cli.models.precision import resolve
from tessera_cli.models.registry import spec_named
from tessera_cli.models.statistics import Statistics
from tessera_cli.pretrain.build import shards_for
from tessera_cli.pretrain.run_folder import Row, RunFolder
from tessera_cli.pretrain.settings import Settings
from tessera_cli.pretrain.shards import Shards
from tessera_cli.pretrain.trainer import Trainer
from tessera_cli.pretrain.world import World
from tessera_cli.stores import find_stores

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Watch:
    """Who is told what, and who may end it; nobody by default."""

    building: Callable[[int, int], None] = lambda done, total: None
    """Tiles done and in all, while shards are built."""
    begin: Callable[[int, int], None] = lambda steps, start: None
    """Before the first step: steps in all, and those that are done."""
    row: Callable[[Row], None] = lambda row: None
    """Every row of `metrics.jsonl`."""
    step: Callable[[int], None] = lambda step: None
    """The number of finished steps, after each."""
    stop: Callable[[], bool] = lambda: False
    """Whether to save and leave."""


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
    watch: Watch = Watch(),
) -> Trained:
    """Train an encoder on d-pixels, or go on where the run in `out` stopped.

    `dpixels`: what `find_stores` takes; may be empty if `shards` holds shards. `init_from`: a model as `--model` names
    it, whose weights a new run starts from. Every process of `world` calls this with the same arguments; process 0
    writes. Errors are TesseraErrors; what was saved stays.
    """
    folder = RunFolder(out)
    if world.main:
        folder.claim(settings)
        found = _shards(dpixels, settings, shards or folder.shards, watch)
        folder.describe(
            device=str(device), device_name=_name(device), processes=world.size, threads=torch.get_num_threads(),
            precision=resolve(settings.train.precision, device), shards=str(found.path),
            inputs=[str(path) for path in dpixels],
        )  # fmt: skip
    world.barrier()
    if not world.main:
        found = Shards.open(shards or folder.shards, verify=False)
    initial = None if init_from is None else _initial(init_from, settings)
    trainer = Trainer(
        settings, found, _statistics(settings, found, initial), folder, device, world,
        initial=None if initial is None else initial.encoder,
        tell=watch.row, advance=watch.step, stop=watch.stop,
    )  # fmt: skip
    watch.begin(settings.train.steps, trainer.step)
    finished = trainer.run()
    return Trained(finished, trainer.step, folder.exported(settings), tuple(folder.rows()))


def _shards(dpixels: Sequence[Path], settings: Settings, path: Path, watch: Watch) -> Shards:
    if dpixels:
        return shards_for(find_stores(dpixels), settings.data, path, progress=watch.building)
    if not path.exists():
        raise UsageError("There are no d-pixels to train on: give what `tessera fetch` wrote, or --shards.")
    return shards_for((), settings.data, path)


def _initial(name: str | Path, settings: Settings) -> Model:
    """The model to start from; UsageError if it is of another shape than the settings say."""
    model = read_model(name)
    if model.config != settings.model.encoder or model.spec.family != settings.model.family:
        raise UsageError(
            f"--init-from {name}: it is a {model.spec.family} of other sizes than model.* says. Choose the preset of "
            "its shape."
        )
    return model


def _statistics(settings: Settings, shards: Shards, initial: Model | None) -> Statistics:
    """What the pixels are standardised with; IdentityError if the weights to start from expect something else."""
    wanted = settings.data.statistics
    theirs = None if initial is None else initial.spec.statistics
    if wanted == "init":
        if theirs is None:
            raise UsageError("data.statistics = init takes those of --init-from, which is missing or has none.")
        return theirs
    if wanted == "own":
        chosen = shards.statistics
    else:
        spec = settled(spec_named(wanted), None)
        assert spec.statistics is not None
        chosen = spec.statistics
    if theirs is not None and theirs != chosen:
        raise IdentityError(
            "--init-from was trained on d-pixels standardised with other statistics. Use its own: "
            "--set data.statistics=init."
        )
    return chosen


def _name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
