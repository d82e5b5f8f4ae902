"""`tessera fetch`: everything that needs a network, done before the machine that has none."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Annotated, Literal

from tessera_cli.cli import options as o
from tessera_cli.cli.request import build_ask, default_out, open_reader, read_model_config
from tessera_cli.cli.terminal import RunProgress, Terminal

StoreFormatOption = Annotated[
    Literal["zarr", "npy"],
    o.option(
        "--format",
        o.OUTPUT,
        "Zarr stores, or folders of arrays in the official layout: many times larger, and they record less.",
        env=False,
    ),
]
StoresOutOption = Annotated[
    Path | None,
    o.option("--out", o.OUTPUT, "Folder for the d-pixels.  [default: ./<aoi>_<window>_dpixels]", "-o", metavar="DIR"),
]


def fetch(
    area: o.AoiArgument = None,
    aoi: o.AoiOption = None,
    bbox: o.BboxOption = None,
    mask: o.MaskOption = None,
    fill_bbox: o.FillBboxOption = False,
    crs: o.CrsOption = None,
    year: o.YearOption = None,
    window: o.WindowOption = None,
    source: o.SourceOption = None,
    force_source: o.ForceSourceOption = False,
    catalog: o.CatalogOption = None,
    radar_catalog: o.RadarCatalogOption = None,
    preprocessing: o.PreprocessingOption = None,
    allow_no_radar: o.AllowNoRadarOption = False,
    model: o.ModelOption = None,
    weights: o.WeightsOption = None,
    model_config: o.ModelConfigOption = None,
    out: StoresOutOption = None,
    format: StoreFormatOption = "zarr",
    allow_missing: o.AllowMissingOption = 0,
    refresh: o.RefreshOption = False,
    as_json: o.JsonOption = False,
    verbose: o.VerboseOption = 0,
    quiet: o.QuietOption = 0,
    debug: o.DebugOption = False,
) -> None:
    """Store an area's d-pixels, and the weights of a model, for a machine without network.

    Prints the path of each tile's store, and last the command that embeds the folder: without a network it gives the
    rasters of a direct run. Run it again to fetch what is missing.

    Examples:

      tessera fetch --aoi field.geojson --year 2023

      tessera fetch --aoi field.geojson --year 2023 --model v1.1-mpc --format npy --out official

      tessera fetch --aoi field.geojson --year 2023 > fetched && tail -n 1 fetched > embed.sh
    """
    terminal = Terminal(verbose - quiet, as_json)
    asked = build_ask(
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
    from tessera_cli.imagery import OFFICIAL, get_preprocessing
    from tessera_cli.models import describe_model
    from tessera_cli.models.registry import DEFAULT_MODEL
    from tessera_cli.runs.fetch import fetch as run
    from tessera_cli.runs.identity import dpixel_folder
    from tessera_cli.runs.inputs import CatalogInputs
    from tessera_cli.runs.scene_search import search_scenes

    spec = describe_model(model, weights, read_model_config(model_config))
    ask = asked.of_source(source or spec.source)
    spec.check_source(ask.source.name, force=force_source)
    policy = get_preprocessing(preprocessing or OFFICIAL.name)
    stores = out or default_out(ask.name, "dpixels", policy.name)
    folder = dpixel_folder(stores, source=ask.source.name, preprocessing=policy.name, format=format)
    reader = open_reader(ask)
    found = search_scenes(ask, reader.client, folder, refresh=refresh)
    inputs = CatalogInputs(found, reader, policy, allow_missing, refresh)
    pulled = None if weights else model or DEFAULT_MODEL
    with RunProgress(terminal) as progress:
        summary = run(inputs, folder, model=pulled, progress=progress, allow_missing=allow_missing)
    if any(result.path for result in summary.results):
        command = embed_command(
            dpixels=stores,
            model=model or (None if weights else DEFAULT_MODEL),
            weights=weights,
            model_config=model_config,
            source=ask.source.name if format == "npy" else None,
            force_source=force_source,
            preprocessing=policy.name if format == "npy" and policy is not OFFICIAL else None,
            allow_missing=allow_missing or None,
            out=default_out(ask.name, spec.name, policy.name),
        )
        summary = dataclasses.replace(summary, embed_command=command)
    error = summary.error()
    if as_json:
        terminal.result_json(summary.to_dict())
    elif summary.embed_command:
        terminal.result(summary.embed_command)
    if error:
        raise error


def embed_command(**options: object) -> str:
    """The command line that embeds what was fetched; None and False leave an option out."""
    words = ["tessera", "embed"]
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        if value is True:
            words.append(flag)
        elif value is not None and value is not False:
            words += [flag, str(value)]
    return shlex.join(words)
