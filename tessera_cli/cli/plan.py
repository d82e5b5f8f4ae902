"""`tessera plan`: what a run would read, write and cost."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tessera_cli.api import plan as library
from tessera_cli.cli.area import read_area
from tessera_cli.cli.options import AREA_ARGUMENT, OUTPUT, RUN, Out, option
from tessera_cli.cli.terminal import Terminal
from tessera_cli.cli.units import cut, duration, entry, size
from tessera_cli.cli.verb import verb
from tessera_cli.errors import counted

if TYPE_CHECKING:
    from tessera_cli.planning.plan import Plan

logger = logging.getLogger(__name__)

OUT = option(
    Out, OUTPUT, "Freeze the scene list in this output folder, for embed to use.", short=("-o",), metavar="DIR"
)
SHARDS = option(
    int | None, RUN, "Tell as well what each of N shares (embed --shard 1/N) costs.", metavar="N", env=False, min=1
)
FOOTPRINTS = option(
    Path | None,
    OUTPUT,
    "Write the tiles to this GeoJSON file: dates, expected cost, share of each.",
    metavar="FILE",
    env=False,
)


@verb(library.plan, area=AREA_ARGUMENT, out=OUT, shards=SHARDS, footprints=FOOTPRINTS)
def plan(terminal: Terminal, **given: Any) -> None:
    """Search, count and estimate without reading a pixel.

    With --out it freezes the scene list for embed. Sizes and times are estimates.

    Examples:

      tessera plan --aoi field.geojson --year 2023

      tessera plan --bbox 4.30 51.95 4.40 52.00 --year 2023 --json | jq .read_bytes

      tessera plan --aoi f.geojson --year 2023 --out f && tessera embed --aoi f.geojson --year 2023 --out f

      tessera plan --aoi land.gpkg --year 2023 --out land --shards 50 --footprints tiles.geojson
    """
    made = library.plan(**read_area(given))
    terminal.tell(made.to_dict(), lines(made, given["out"], given["footprints"]))
    if made.write_bytes > made.free_bytes:
        logger.warning("about %s do not fit: %s are free", size(made.write_bytes), size(made.free_bytes))


def lines(made: Plan, out: Path | None, footprints: Path | None = None) -> list[str]:
    """Return the plan as lines of text, where long lists are cut."""
    from tessera_cli.planning.scene_counts import fewest_text, gaps_text

    asked = counted(made.areas, "area") if made.areas else counted(made.points, "point")
    text = entry("place", f"{asked} around {made.place}")
    text += entry("tiles", f"{made.tiles}, {made.pixels:,} pixels")
    for crs, zone in made.by_zone.items():
        text += entry(crs, ", ".join(counted(count, what[:-1]) for what, count in zone.items()))
    for window, sensors in made.windows.items():
        for name, sensor in sensors.items():
            covered = sensor.coverage
            seen = f"{counted(sensor.scenes, 'scene')} on {counted(covered.frames, 'date')}"
            if covered.frames:
                seen += f", {covered.first} to {covered.last}, longest gap {covered.longest_gap} days"
            text += entry(name, f"{window}: {seen}")
            text += entry("", " ".join(f"{month[2:]}:{count}" for month, count in sensor.by_month.items()))
    for line in fewest_text(made.tile_dates):
        text += entry("by tile", line)
    for line in gaps_text(made.tile_dates):
        text += entry("lacking", line)
    for line in cut((f"{counted(count, 'item')}: {reason}" for reason, count in made.skipped.items()), "--json"):
        text += entry("skipped", line)
    for line in cut((f"{scene}: {defect}" for scene, defect in made.incomplete.items()), "--json"):
        text += entry("incomplete", line)
    text += entry("to read", f"at most about {size(made.read_bytes)}")
    fits = "" if made.write_bytes <= made.free_bytes else ": too little"
    text += entry("to write", f"about {size(made.write_bytes)}, {size(made.free_bytes)} free{fits}")
    if made.encode_seconds is not None:
        tokens = f"{made.tokens_per_pixel:.0f} tokens per pixel"
        text += entry("to encode", f"about {duration(made.encode_seconds)} here, {tokens}")
    for line in cut(_shares(made), "--json"):
        text += entry("by shard", line)
    for what in made.missing_credentials:
        text += entry("missing", what)
    if out is not None:
        text += entry("frozen in", str(out))
    if footprints is not None:
        text += entry("footprints", str(footprints))
    return text


def _shares(made: Plan) -> Iterator[str]:
    for number, each in enumerate(made.shards, start=1):
        here = "" if each.encode_seconds is None else f", {duration(each.encode_seconds)} here"
        tiles = f"{counted(each.tiles, 'tile')}, {each.pixels:,} pixels"
        yield f"{number}/{len(made.shards)}: {tiles}, at most {size(each.read_bytes)} to read{here}"
