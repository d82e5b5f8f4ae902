"""`tessera pretrain` (alias `train`): d-pixels -> an encoder of one's own."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path
from signal import SIGTERM
from typing import Annotated

import typer

from tessera_cli.cli import options as o
from tessera_cli.cli.signals import EXIT_CODES, Signals, StoppedError
from tessera_cli.cli.terminal import Terminal
from tessera_cli.cli.training import TrainingProgress

logger = logging.getLogger("tessera_cli.pretrain")

StoresArgument = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="DPIXELS...",
        help="What `tessera fetch` wrote: Zarr stores, official tile folders, or folders of either.",
        show_default=False,
    ),
]
PresetOption = Annotated[
    str | None,
    o.option(
        "--preset",
        o.MODEL,
        "tiny, nano (default), small, medium, large, v1.0 or v1.1: what to start from.",
        metavar="NAME",
        env=False,
    ),
]
ConfigOption = Annotated[
    Path | None,
    o.option(
        "--config",
        o.MODEL,
        "TOML that goes over it; docs/pretraining.md lists the keys.",
        metavar="FILE",
        env=False,
    ),
]
SetOption = Annotated[
    list[str] | None,
    o.option("--set", o.MODEL, "One key, over both; repeatable.", metavar="SECTION.KEY=VALUE", env=False),
]
InitFromOption = Annotated[
    str | None,
    o.option(
        "--init-from",
        o.MODEL,
        "Start from the weights of a model or another run; not the way to go on with a run.",
        metavar="NAME|PATH",
        env=False,
    ),
]
StepsOption = Annotated[
    int | None, o.option("--steps", o.MODEL, "The same as --set train.steps=N.", metavar="N", min=1)
]
ShardsOption = Annotated[
    Path | None,
    o.option(
        "--shards",
        o.OUTPUT,
        "Keep the training pixels here, for several runs.  [default: in the run's folder]",
        metavar="DIR",
    ),
]
ProbeOption = Annotated[
    Path | None,
    o.option(
        "--probe",
        o.MODEL,
        "Labels to measure by: polygons (.geojson, .gpkg, .shp) or a raster of classes (.tif).",
        metavar="FILE",
    ),
]
TrainSeedOption = Annotated[
    int | None, o.option("--seed", o.MODEL, "The same as --set train.seed=N.", metavar="N", min=0)
]
RunOutOption = Annotated[Path, o.option("--out", o.OUTPUT, "Folder of the run.", metavar="DIR")]


def pretrain(
    stores: StoresArgument = None,
    preset: PresetOption = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    steps: StepsOption = None,
    probe: ProbeOption = None,
    init_from: InitFromOption = None,
    seed: TrainSeedOption = None,
    out: RunOutOption = Path("run"),
    shards: ShardsOption = None,
    device: o.DeviceOption = "auto",
    threads: o.ThreadsOption = None,
    as_json: o.JsonOption = False,
    verbose: o.VerboseOption = 0,
    quiet: o.QuietOption = 0,
    debug: o.DebugOption = False,
) -> None:
    """Train an encoder on d-pixels of your own, with Barlow Twins (alias: train).

    Prints the path of the weights file, which `tessera embed --model` takes, as it does the run's folder. Run it again
    to go on after an interruption. On several GPUs or nodes: torchrun --nproc-per-node 8 -m tessera_cli pretrain ...

    Examples:

      tessera pretrain alps_2023_dpixels --preset nano --out runs/alps

      tessera pretrain tiles/* --preset small --probe fields.gpkg --set optim.lr=1e-3 --out runs/fields

      tessera pretrain --shards alps.shards --config alps.toml --out runs/alps2 && tessera embed --model runs/alps2 ...
    """
    from tessera_cli import config as environment
    from tessera_cli.models.load import get_device
    from tessera_cli.pretrain.callbacks import Callbacks
    from tessera_cli.pretrain.config_file import load_config
    from tessera_cli.pretrain.distributed import init_distributed
    from tessera_cli.pretrain.run import pretrain as run

    rank, size, local = environment.processes()
    terminal = Terminal(verbose - quiet if rank == 0 else -2, as_json)
    more = [f"train.{key}={value}" for key, value in (("steps", steps), ("seed", seed)) if value is not None]
    settings = load_config(
        preset_name=preset,
        path=config,
        more={"probe": {"labels": str(probe)}} if probe else {},
        overrides=[*more, *(overrides or [])],
    )
    place = get_device(device, local)
    set_threads(threads or environment.threads())
    raise_file_limit()
    group = init_distributed(rank, size, place)
    with Signals.caught() as signals, TrainingProgress(terminal) as progress, group as world:

        def building(done: int, total: int) -> None:
            if signals.number is not None:
                raise StoppedError(
                    "stopped while the shards were being built, of which nothing is kept. Run the same command to "
                    "start again.",
                    signals.number,
                )
            progress.building(done, total)

        callbacks = Callbacks(building, progress.begin, progress.row, progress.step, lambda: signals.number is not None)
        trained = run(
            stores or [],
            settings,
            out,
            shards=shards,
            init_from=init_from,
            device=place,
            world=world,
            callbacks=callbacks,
        )
    if not trained.finished:
        logger.warning(
            "stopped and saved after step %d of %d; run the same command to go on", trained.step, settings.train.steps
        )
        raise typer.Exit(EXIT_CODES[signals.number or SIGTERM])
    if rank:
        return
    if trained.rows and trained.rows[-1].get("collapsed"):
        logger.warning("the run has collapsed: its embeddings say little; raise loss.lambda, or lower optim.lr")
    if as_json:
        terminal.result_json(
            {
                "schema": 1,
                "model": str(trained.exported),
                "step": trained.step,
                "last": trained.rows[-1] if trained.rows else None,
            }
        )
    else:
        terminal.result(str(trained.exported))


def set_threads(count: int) -> None:
    import torch

    torch.set_num_threads(count)


def raise_file_limit() -> None:
    """Shards are many memory-mapped files: let this process open as many as it may."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
