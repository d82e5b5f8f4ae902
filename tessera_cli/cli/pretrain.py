"""`tessera pretrain` (alias `train`): d-pixels -> an encoder of one's own."""

from __future__ import annotations

import logging
import shlex
from pathlib import Path
from signal import SIGTERM
from signal import Signals as Number
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from tessera_cli import config as machine
from tessera_cli.api import training
from tessera_cli.cli.options import AREA, MODEL, OUTPUT, TIME, Out, option
from tessera_cli.cli.signals import EXIT_CODES, Signals, StoppedError
from tessera_cli.cli.terminal import Terminal, failure
from tessera_cli.cli.training import TrainingProgress
from tessera_cli.cli.verb import verb

if TYPE_CHECKING:
    from tessera_cli.pretraining.run import Trained

logger = logging.getLogger("tessera_cli.pretraining")

OWN: dict[str, Any] = {
    "dpixels": Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="DPIXELS...",
            help="What `tessera fetch` wrote: Zarr stores, official tile folders, or folders of either; and tables of "
            "time series (docs/series.md).",
            show_default=False,
        ),
    ],
    "preset": option(
        str | None,
        MODEL,
        "tiny, small-data, nano (default), small, medium, large, v1.0 or v1.1: what to start from.",
        metavar="NAME",
        env=False,
    ),
    "config": option(
        Path | None, MODEL, "TOML that goes over it; docs/pretraining.md lists the keys.", metavar="FILE", env=False
    ),
    "overrides": option(
        list[str] | None, MODEL, "One key, over both; repeatable.", metavar="SECTION.KEY=VALUE", env=False, flag="set"
    ),
    "init_from": option(
        str | None,
        MODEL,
        "Start from the weights of a model or another run; not the way to go on with a run.",
        metavar="NAME|PATH",
        env=False,
    ),
    "teacher": option(
        str | None,
        MODEL,
        "Learn to match the embeddings of a model or another run: distillation, or a guard against forgetting.",
        metavar="NAME|PATH",
        env=False,
    ),
    "columns": option(
        list[str] | None,
        AREA,
        "What the columns of tables are called and mean, as KEY=NAME or a TOML file; repeatable.",
        metavar="KEY=NAME|FILE",
        env=False,
    ),
    "window": option(str | None, TIME, "Which dates to take of tables.  [default: all]", metavar="FROM/TO", env=False),
    "steps": option(int | None, MODEL, "The same as --set train.steps=N.", metavar="N", min=1),
    "probe": option(
        Path | None,
        MODEL,
        "Labels to measure by: polygons or points (.geojson, .gpkg, .shp), a raster of classes (.tif), or a table of "
        "samples (.parquet, .csv).",
        metavar="FILE",
    ),
    "seed": option(int | None, MODEL, "The same as --set train.seed=N.", metavar="N", min=0),
    "out": option(Path, OUTPUT, "Folder of the run.", metavar="DIR"),
    "shards": option(
        Out, OUTPUT, "Keep the training pixels here, for several runs.  [default: in the run's folder]", metavar="DIR"
    ),
}


@verb(training.pretrain, **OWN)
def pretrain(terminal: Terminal, *, dpixels: list[Path] | None, overrides: list[str] | None, **given: Any) -> None:
    """Train an encoder on your own d-pixels (alias: train).

    Prints the path of the weights file, which `tessera embed --model` takes, as it does the run's folder. Run it again
    to go on after an interruption. On several GPUs or nodes: torchrun --nproc-per-node 8 -m tessera_cli pretrain ...

    Examples:

      tessera pretrain alps_2023_dpixels --preset nano --out runs/alps

      tessera pretrain tiles/* --preset small --probe fields.gpkg --set optim.lr=1e-3 --out runs/fields

      tessera pretrain --shards alps.shards --config alps.toml --out runs/alps2 && tessera embed --model runs/alps2 ...
    """
    rank, _, _ = machine.processes()
    if rank:
        terminal = Terminal(-2)  # one process speaks for all
    with Signals.caught() as signals, TrainingProgress(terminal) as progress:
        trained = training.pretrain(
            dpixels or (), overrides=overrides or (), progress=progress.callbacks(signals), **given
        )
    if not trained.finished:
        _stop(terminal, trained, signals.number or SIGTERM)
    if rank == 0:
        _tell(terminal, trained, given["out"])


def _stop(terminal: Terminal, trained: Trained, number: Number) -> NoReturn:
    text, code = f"stopped and saved after step {trained.step}; run the same command to go on", EXIT_CODES[number]
    logger.warning(text)
    if terminal.as_json:
        terminal.result_json(failure(text, code, StoppedError.__name__))
    raise typer.Exit(code)


def _tell(terminal: Terminal, trained: Trained, out: Path) -> None:
    last = trained.rows[-1] if trained.rows else None
    if last and last.get("collapsed"):
        logger.warning("the run has collapsed: its embeddings say little; raise loss.lambda, or lower optim.lr")
    found = {"schema": 1, "model": str(trained.exported), "step": trained.step, "last": last}
    terminal.tell(found, [str(trained.exported)])
    embed = shlex.join(["tessera", "embed", "--model", str(out)])
    terminal.suggest(f"{embed} --dpixels ...; {out / 'report.html'} shows how the training went")
