"""`tessera info`: what a folder, a tile, stored d-pixels, a raster or a weights file hold."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from tessera_cli.api import reading
from tessera_cli.cli.follow import follow
from tessera_cli.cli.help import EVERY
from tessera_cli.cli.options import OUTPUT, option
from tessera_cli.cli.terminal import Terminal, lines
from tessera_cli.cli.tile_table import write_table
from tessera_cli.cli.units import cut, entry, size
from tessera_cli.cli.verb import verb
from tessera_cli.errors import UsageError

PATH = Annotated[
    Path,
    typer.Argument(
        metavar="PATH",
        help="A folder, a tile's .json, stored d-pixels, a raster, a weights file; a run or shards of `pretrain`.",
    ),
]
BARE = {
    name: option(bool, OUTPUT, f"Print only the {text}.")
    for name, text in (("crs", "CRS"), ("bounds", "bounds"), ("model", "model"))
}
OF_FOLDERS = {
    "csv": option(bool, OUTPUT, "Of a folder: a table with a row for each tile and window."),
    "watch": option(
        float | None,
        OUTPUT,
        f"Of a folder: follow the runs on it until every tile is finished or failed.  [every {EVERY} seconds]",
        metavar="[SECONDS]",
        min=1,
        env=False,
    ),
}


@verb(reading.info, path=PATH, **BARE, **OF_FOLDERS)
def info(terminal: Terminal, **given: Any) -> None:
    """Describe a folder, a tile, a raster or a weights file.

    Of a folder: where, when, of which model, whether it is complete and why not, and how to open it; with -v also its
    settings and each tile. Of stored d-pixels: tile, window, source, the dates of each sensor, and missing scenes. Of a
    weights file: its family, sizes and rules, and whether it is a published one.

    --csv: tile, window, status (done, empty, failed, missing), pixels, missing scenes, reason, bytes, time, path.
    --watch reads the folder alone, so it follows any number of processes on any machines: a live display on a
    terminal, else a line a minute, with --json an object a look. It ends with 0 when all tiles are finished, with 4
    when some have failed, and with 130 after Ctrl-C, which leaves the run alone.

    Examples:

      tessera info field_2023_v2-medium

      tessera info --json field_2023_v2-medium | jq '.by_tile[] | select(.status == "failed")'

      tessera info --csv alps_2023_v2-medium > tiles.csv

      tessera info --watch 30 alps_2023_v2-medium

      tessera info --crs field_2023_v2-medium/utm31n_c0112_r1098_2023_emb.tif

      tessera info --json field_2023_dpixels/utm31n_c0112_r1098_2023.zarr | jq .observations

      tessera info --model student_nano.pt

      tessera info runs/alps
    """
    bare = [name for name in BARE if given.pop(name)]
    table, seconds = given.pop("csv"), given.pop("watch")
    chosen = [
        f"--{name}" for name, value in {"csv": table, "watch": seconds, "json": terminal.as_json}.items() if value
    ]
    if (table and len(chosen) > 1) or ((table or seconds) and bare):
        raise UsageError(f"{' and '.join([*chosen, *(f'--{name}' for name in bare)])} exclude each other. Choose one.")
    if table:
        write_table(reading.tiles(given["path"]), given["path"])
        return
    if seconds:
        follow(terminal, reading.watch(given["path"], seconds))
        return
    found = reading.info(**given)
    if not bare:
        terminal.tell(found, summary(found) if "folder" in found and terminal.verbosity < 1 else lines(found))
    for name in bare:
        if (value := found.get(name)) is None:
            raise UsageError(f"{given['path']} has no {name} of its own. Ask for one of its tiles.")
        terminal.result(" ".join(map(str, value)) if isinstance(value, list) else str(value))


def _refuse_together(given: Mapping[str, object]) -> None:
    chosen = [f"--{name}" for name, value in given.items() if value]
    if len(chosen) > 1 and chosen[0] in ("--csv", "--watch"):
        raise UsageError(f"{' and '.join(chosen)} exclude each other. Choose one.")


def summary(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a person wants to know of a folder first."""
    from tessera_cli.extent.place import position

    said, counts, path = found["identity"], found["tiles"], Path(found["folder"])
    of_dpixels = "model" not in found
    yield f"{'folder':13s}{path}"
    yield from entry("holds", f"d-pixels, source {said['source']}" if of_dpixels else f"embeddings by {found['model']}")
    if "note" in found:
        yield from entry("note", found["note"])
    if place := found.get("place"):
        yield from entry("place", f"around {position(**place)}")
    yield from entry("time", ", ".join(found["windows"]) or "not known")
    whole = "complete" if counts.keys() <= {"done", "empty"} else "not complete: run the same command again"
    yield from entry("tiles", f"{', '.join(f'{count:,} {status}' for status, count in counts.items())}; {whole}")
    wanting = {name: tile for name, tile in found["by_tile"].items() if tile["status"] in ("failed", "missing")}
    for line in cut((f"{tile['status']} {name}: {tile.get('reason', '-')}" for name, tile in wanting.items()), "-v"):
        yield from entry("", line)
    of_each = "" if of_dpixels else f", {said['dims']} bands, {said['dtype']}"
    yield from entry("pixels", f"{found['pixels']:,} ({found['pixels'] / 1e4:,.2f} km2){of_each}")
    yield from entry("size", size(found["bytes"]))
    yield from entry("open", _opener(found, path))
    yield from entry("more", shlex.join(["tessera", "info", "-v", str(path)]))


def _opener(found: Mapping[str, Any], path: Path) -> str:
    if "model" not in found:
        return f"{shlex.join(['tessera', 'embed', '--dpixels', str(path)])} --model ..."
    if found["identity"]["format"] == "vectors":
        return f"{shlex.join(['tessera', 'sample', str(path)])} POINTS"
    if found["identity"]["format"] == "npy":
        name = next((name for name, tile in found["by_tile"].items() if tile["status"] == "done"), "*")
        scales = f" (and of {name}_scales.npy)" if found["identity"]["dtype"] == "int8" else ""
        return f"numpy.load of {path / name}.npy{scales}"
    in_qgis = f"{path / found['mosaics'][0]} in QGIS, or " if found["mosaics"] else ""
    return f'{in_qgis}tessera_cli.open_embeddings("{path}") in Python'
