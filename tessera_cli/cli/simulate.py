"""`tessera simulate`: a landscape and its imagery, for the demo, tests and benchmarks."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from tessera_cli.cli.terminal import Terminal
from tessera_cli.cli.verb import verb


@verb()
def simulate(
    terminal: Terminal,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write the catalogue to.")],
    seed: Annotated[int, typer.Option("--seed", help="Random seed of the landscape.")] = 0,
    size: Annotated[int, typer.Option("--size", help="Width and height of the area in 10 m pixels.")] = 128,
    year: Annotated[int, typer.Option("--year", help="Calendar year.")] = 2023,
    cloud: Annotated[
        float | None,
        typer.Option("--cloud", help="Mean cloud cover, 0 to 1.  [default: 0.5, or the place's]", show_default=False),
    ] = None,
    place: Annotated[
        str | None,
        typer.Option(
            "--place",
            metavar="NAME",
            help="A hard landscape with the climate, weather, crops and orbits of flanders, castile, mazovia, iowa, "
            "pampas or malwa.  [default: a plain one at Brussels]",
            show_default=False,
        ),
    ] = None,
    label_noise: Annotated[
        float, typer.Option("--label-noise", help="Share of the parcels with a wrong label, 0 to 1.")
    ] = 0.0,
    changes: Annotated[
        float,
        typer.Option(
            "--changes",
            help="Share of the woods that were cleared since the year before, and of the fields that were built over, "
            "0 to 1; with --place.",
        ),
    ] = 0.0,
) -> None:
    """Simulate a landscape and its imagery (for developers).

    Writes a STAC catalogue of COGs with a year of Sentinel-1 and Sentinel-2, an AOI and labels.

    Examples:

      tessera simulate demo/catalog

      tessera simulate big --size 1024 --cloud 0.7 --seed 3

      tessera simulate pampas --place pampas --year 2022 --label-noise 0.05

      tessera simulate after --place flanders --year 2024 --changes 0.05

      tessera simulate c && tessera embed --aoi c/aoi.geojson --year 2023 --catalog c/items.json --model demo
    """
    from tessera_cli.simulate import simulate as run

    made = run(out, seed=seed, size=size, year=year, cloud=cloud, place=place, label_noise=label_noise, changes=changes)
    found = {
        "items": str(made.items),
        "aoi": str(made.aoi),
        "labels": str(made.labels),
        "sentinel2_items": made.sentinel2_items,
        "sentinel1_items": made.sentinel1_items,
        "parcels": made.parcel_count,
    }
    terminal.tell(found, [str(made.items)])
    words = ["--aoi", made.aoi, "--year", year, "--catalog", made.items, "--model", "demo"]
    terminal.suggest(shlex.join(["tessera", "embed", *map(str, words)]))
