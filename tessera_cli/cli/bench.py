"""`tessera bench`: measure the speed of this machine. Nothing is downloaded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import typer

from tessera_cli.cli.help import GroupedCommand, VerbGroup, show_help
from tessera_cli.cli.options import MODEL, RUN, SOURCE, option
from tessera_cli.cli.terminal import Terminal, lines
from tessera_cli.cli.verb import verb
from tessera_cli.errors import printable

OWN = {
    "model": option(
        str, MODEL, "Model whose architecture is timed, with random weights (demo: its own).", metavar="NAME"
    ),
    "catalog": option(
        Path | None,
        SOURCE,
        "Folder that `tessera simulate` wrote.  [default: simulated in a temporary folder]",
        metavar="DIR",
        env=False,
    ),
    "dpixels": option(
        Path | None, SOURCE, "Encode one stored tile instead of random pixels.", metavar="PATH", env=False
    ),
    "pixels": option(
        int | None,
        SOURCE,
        "Pixels per round.  [default: enough for some seconds; of a stored tile, all]",
        metavar="N",
        min=1,
        env=False,
    ),
    "clouds": option(bool, SOURCE, "Random clouds: 15 to 75 % of 60 frames are clear, instead of all."),
    "seed": option(int, MODEL, "Random seed of weights and pixels.", metavar="N", min=0, env=False),
    "rounds": option(int, RUN, "Repetitions; the median is reported.", metavar="N", min=1, env=False),
}
PLAIN = option(
    Literal["plain", "compile"] | None,
    RUN,
    "Also time the same model as a plain nn.TransformerEncoder, or that by torch.compile, and compare.",
    env=False,
    show_default=False,
)
PLAIN_STEP = option(
    Literal["plain"] | None,
    RUN,
    "Also time the same step in plain PyTorch, and compare.",
    env=False,
    show_default=False,
)
PRESET = option(str, MODEL, "Preset of `tessera pretrain` whose steps are timed.", metavar="NAME", env=False)
TRAINED = option(Literal["auto", "fp32", "bf16"], MODEL, "Arithmetic of the step's matrix products.", env=False)
STEP_PIXELS = option(int | None, SOURCE, "Pixels per step.  [default: the preset's]", metavar="N", min=2, env=False)
PEER = option(
    Literal["eager", "odc-pool", "odc-dask", "stackstac"] | None,
    RUN,
    "Also time loading everything by odc.stac.load (eager, in threads, by Dask) or stackstac, and compare.",
    env=False,
    show_default=False,
)


def options(*names: str, **more: Any) -> dict[str, Any]:
    """Return the options of `bench` by these names, which override those of other verbs, and `more`."""
    return {name: OWN[name] for name in names} | more


bench = typer.Typer(name="bench", cls=VerbGroup, rich_markup_mode=None)


@bench.callback(invoke_without_command=True)
def group(context: typer.Context) -> None:
    """Measure the speed of this machine (for developers).

    A table goes to standard error, with --json one object to standard output. Nothing is downloaded.

    Examples:

      tessera bench encode --baseline plain

      tessera bench pretrain --preset tiny --baseline plain

      tessera bench assemble --baseline odc-pool

      tessera bench end-to-end --json > result.json
    """
    show_help(context)


@bench.command("encode", cls=GroupedCommand)
@verb(**options("dpixels", "pixels", "clouds", "model", "seed", "rounds", baseline=PLAIN))
def bench_encode(
    terminal: Terminal,
    dpixels: Path | None = None,
    pixels: int | None = None,
    clouds: bool = False,
    model: str = "v2-medium",
    precision: str = "auto",
    seed: int = 0,
    baseline: str | None = None,
    rounds: int = 5,
    device: str = "auto",
    threads: int | None = None,
) -> None:
    """Measure the encoder, from raw integers to codes.

    Made-up pixels have 60 clear Sentinel-2 and 30 + 30 radar observations. The matrix product of 1024 x 1024 and, with
    --baseline plain, the plain form of the model take turns with it.

    Examples:

      tessera bench encode --model v2-large --device cuda

      tessera bench encode --clouds --baseline plain

      tessera bench encode --precision int8 --dpixels field_2023_dpixels/utm31n_c0112_r1098_2023.zarr --json
    """
    if dpixels is not None and clouds:
        raise typer.BadParameter("--clouds makes pixels up, and --dpixels brings them. Leave one of the two out.")
    from tessera_cli import config
    from tessera_cli.bench.encode import measure

    found = measure(
        model,
        threads=threads or config.threads(),
        precision=precision,
        device=device,
        pixels=pixels,
        clouds=clouds,
        dpixels=dpixels,
        rounds=rounds,
        baseline=baseline,
        seed=seed,
    )
    _tell(terminal, "encode", found)


@bench.command("pretrain", cls=GroupedCommand)
@verb(**options("seed", "rounds", baseline=PLAIN_STEP, preset=PRESET, precision=TRAINED, pixels=STEP_PIXELS))
def bench_pretrain(
    terminal: Terminal,
    preset: str = "nano",
    precision: str = "auto",
    pixels: int | None = None,
    seed: int = 0,
    baseline: str | None = None,
    rounds: int = 5,
    device: str = "auto",
    threads: int | None = None,
) -> None:
    """Measure training steps.

    Pixels are made up; nothing is written. Matrix products, steps on views that are drawn before, steps on views that
    are drawn meanwhile and, with --baseline plain, the plain form of the step take turns.

    Examples:

      tessera bench pretrain --baseline plain

      tessera bench pretrain --preset tiny --baseline plain --rounds 9 --json

      tessera bench pretrain --preset small --pixels 256 --precision bf16
    """
    from tessera_cli import config
    from tessera_cli.bench.pretrain import measure

    found = measure(
        preset,
        threads=threads or config.threads(),
        precision=precision,
        device=device,
        pixels=pixels,
        rounds=rounds,
        baseline=baseline is not None,
        seed=seed,
    )
    _tell(terminal, "pretrain", found)


@bench.command("assemble", cls=GroupedCommand)
@verb(**options("catalog", "rounds", baseline=PEER))
def bench_assemble(
    terminal: Terminal, catalog: Path | None = None, baseline: str | None = None, rounds: int = 5
) -> None:
    """Measure how local files become d-pixels.

    Simulated scenes of a year, 60 % clouds, are read and put together; with --baseline, also by a library that
    loads every band of every scene, masked afterwards.

    Examples:

      tessera bench assemble

      tessera bench assemble --baseline odc-pool --json

      tessera simulate big --size 1024 --cloud 0.7 && tessera bench assemble --catalog big
    """
    from tessera_cli import config
    from tessera_cli.bench import machine
    from tessera_cli.bench.assemble import measure

    found = measure(catalog, rounds=rounds, baseline=baseline)
    _tell(terminal, "assemble", {**found, "conditions": machine.conditions("cpu", config.threads())})


@bench.command("end-to-end", cls=GroupedCommand)
@verb(**options("catalog", "model"))
def bench_end_to_end(
    terminal: Terminal, catalog: Path | None = None, model: str = "demo", threads: int | None = None
) -> None:
    """Measure a whole run: simulated files in, rasters out.

    The same as `tessera embed` on a simulated catalogue, written to a temporary folder, timed stage by stage.

    Examples:

      tessera bench end-to-end

      tessera bench end-to-end --threads 1 --json

      tessera simulate big --size 1024 && tessera bench end-to-end --catalog big
    """
    from tessera_cli import config
    from tessera_cli.bench import machine
    from tessera_cli.bench.end_to_end import measure

    cores = threads or config.threads()
    found = measure(catalog, model=model, threads=cores)
    _tell(terminal, "end-to-end", {**found, "conditions": {**machine.conditions("cpu", cores), "model": model}})


def _tell(terminal: Terminal, what: str, found: Mapping[str, Any]) -> None:
    """Print the table to stderr; with --json, also one object to stdout."""
    if terminal.verbosity >= 0:
        for line in lines({name: value for name, value in found.items() if name != "rounds" and value is not None}):
            terminal.console.print(printable(line), markup=False)
    if terminal.as_json:
        from tessera_cli.runs.results import SCHEMA

        terminal.result_json({"type": "bench", "schema": SCHEMA, "what": what, **found})
