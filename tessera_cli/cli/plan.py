"""`tessera plan`: what a run would read, write and cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tessera_cli.api import areas
from tessera_cli.cli.area import read_area
from tessera_cli.cli.options import AREA_ARGUMENT, OUTPUT, Out, option
from tessera_cli.cli.terminal import Terminal
from tessera_cli.cli.verb import verb
from tessera_cli.errors import counted

if TYPE_CHECKING:
    from tessera_cli.runs.plan import Plan

OUT = option(
    Out, OUTPUT, "Freeze the scene list in this output folder, for embed to use.", short=("-o",), metavar="DIR"
)


@verb(areas.plan, area=AREA_ARGUMENT, out=OUT)
def plan(terminal: Terminal, **given: Any) -> None:
    """Search, count and estimate without reading a pixel.

    With --out it freezes the scene list for embed. Sizes and times are estimates.

    Examples:

      tessera plan --aoi field.geojson --year 2023

      tessera plan --bbox 4.30 51.95 4.40 52.00 --year 2023 --json | jq .read_bytes

      tessera plan --aoi f.geojson --year 2023 --out f && tessera embed --aoi f.geojson --year 2023 --out f
    """
    made = areas.plan(**read_area(given))
    terminal.tell(made.to_dict(), lines(made, given["out"]))


def lines(made: Plan, out: Path | None) -> list[str]:
    """Return the plan as lines of text."""
    text = [
        f"place        {counted(made.areas, 'area')} around {made.place}",
        f"tiles        {made.tiles}, {made.pixels:,} pixels",
    ]
    for crs, zone in made.by_zone.items():
        text.append(f"{crs:12s} {', '.join(counted(count, what[:-1]) for what, count in zone.items())}")
    for window, sensors in made.windows.items():
        for name, sensor in sensors.items():
            covered = sensor.coverage
            seen = f"{sensor.scenes} scenes on {covered.frames} dates"
            if covered.frames:
                seen += f", {covered.first} to {covered.last}, longest gap {covered.longest_gap} days"
            text.append(f"{name:12s} {window}: {seen}")
            if sensor.by_month:
                text.append(" " * 13 + " ".join(f"{month[2:]}:{count}" for month, count in sensor.by_month.items()))
    text += [f"skipped      {count} items: {reason}" for reason, count in made.skipped.items()]
    text += [f"incomplete   {scene}: {defect}" for scene, defect in made.incomplete.items()]
    text.append(f"to read      about {_size(made.read_bytes)}")
    text.append(f"to write     about {_size(made.write_bytes)}, {_size(made.free_bytes)} free")
    if made.encode_seconds is not None:
        minutes = made.encode_seconds / 60
        text.append(f"to encode    about {minutes:,.1f} minutes here, {made.tokens_per_pixel:.0f} tokens per pixel")
    text += [f"missing      {what}" for what in made.missing_credentials]
    if out is not None:
        text.append(f"frozen in    {out}")
    return text


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:,.0f} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"
