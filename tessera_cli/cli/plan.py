"""`tessera plan`: what a run would read, write and cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tessera_cli.cli import options as o
from tessera_cli.cli.request import build_ask, default_out, open_client, read_model_config
from tessera_cli.cli.terminal import Terminal

if TYPE_CHECKING:
    from tessera_cli.runs.plan import Plan


def plan(
    area: o.AoiArgument = None,
    aoi: o.AoiOption = None,
    bbox: o.BboxOption = None,
    mask: o.MaskOption = None,
    fill_bbox: o.FillBboxOption = False,
    crs: o.CrsOption = None,
    year: o.YearOption = None,
    window: o.WindowOption = None,
    source: o.SourceOption = None,
    catalog: o.CatalogOption = None,
    radar_catalog: o.RadarCatalogOption = None,
    preprocessing: o.PreprocessingOption = None,
    allow_no_radar: o.AllowNoRadarOption = False,
    model: o.ModelOption = None,
    weights: o.WeightsOption = None,
    model_config: o.ModelConfigOption = None,
    dims: o.DimsOption = None,
    out: o.PlanOutOption = None,
    refresh: o.RefreshOption = False,
    threads: o.ThreadsOption = None,
    as_json: o.JsonOption = False,
    verbose: o.VerboseOption = 0,
    quiet: o.QuietOption = 0,
    debug: o.DebugOption = False,
) -> None:
    """Search, count and estimate without reading a pixel.

    With --out it freezes the scene list for embed. Sizes and times are estimates.

    Examples:

      tessera plan --aoi field.geojson --year 2023

      tessera plan --bbox 4.30 51.95 4.40 52.00 --year 2023 --json | jq .read_bytes

      tessera plan --aoi f.geojson --year 2023 --out f && tessera embed --aoi f.geojson --year 2023 --out f
    """
    terminal = Terminal(verbose - quiet, as_json)
    ask = build_ask(
        area,
        aoi,
        bbox,
        year,
        window,
        source=source,
        catalog=catalog,
        radar_catalog=radar_catalog,
        crs=crs,
        mask=mask,
        fill_bbox=fill_bbox,
        allow_no_radar=allow_no_radar,
    )
    from tessera_cli import config
    from tessera_cli.catalog import missing_credentials
    from tessera_cli.imagery import OFFICIAL, get_preprocessing
    from tessera_cli.models import describe_model
    from tessera_cli.runs.folder import Folder
    from tessera_cli.runs.plan import plan as make_plan
    from tessera_cli.runs.scene_search import search_scenes

    spec = describe_model(model, weights, read_model_config(model_config))  # weights are not needed to count
    ask = ask.of_source(source or spec.source)
    spec.check_source(ask.source.name)
    dims = spec.check_dims(dims)
    client = open_client(ask)
    found = search_scenes(ask, client, None if out is None else Folder(out), refresh=refresh)
    where = out or default_out(ask.name, spec.name)
    made = make_plan(
        found,
        spec,
        dims,
        where,
        freeze=out is not None,
        preprocessing=get_preprocessing(preprocessing or OFFICIAL.name),
        threads=threads or config.threads(),
        missing_credentials=missing_credentials(found.scenes, client),
    )
    if as_json:
        terminal.result_json(made.to_dict())
    else:
        for line in lines(made, out):
            terminal.result(line)


def lines(made: Plan, out: Path | None) -> list[str]:
    """The plan for people."""
    zones = ", ".join(f"{count} in {crs}" for crs, count in made.zones.items())
    text = [f"tiles        {made.tiles} ({zones}), {made.pixels:,} pixels"]
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
