"""`tessera embed`: the main job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tessera_cli.cli import options as o
from tessera_cli.cli.request import build_ask, default_out, open_reader, read_model_config, refuse_beside_dpixels
from tessera_cli.cli.terminal import RunProgress, Terminal


def embed(
    area: o.AoiArgument = None,
    aoi: o.AoiOption = None,
    bbox: o.BboxOption = None,
    mask: o.MaskOption = None,
    fill_bbox: o.FillBboxOption = False,
    crs: o.CrsOption = None,
    year: o.YearOption = None,
    window: o.WindowOption = None,
    dpixels: o.DPixelsOption = None,
    source: o.SourceOption = None,
    force_source: o.ForceSourceOption = False,
    catalog: o.CatalogOption = None,
    radar_catalog: o.RadarCatalogOption = None,
    preprocessing: o.PreprocessingOption = None,
    allow_no_radar: o.AllowNoRadarOption = False,
    model: o.ModelOption = None,
    weights: o.WeightsOption = None,
    model_config: o.ModelConfigOption = None,
    dims: o.DimsOption = None,
    precision: o.PrecisionOption = "auto",
    min_s2: o.MinS2Option = 1,
    min_s1: o.MinS1Option = 0,
    seed: o.SeedOption = 0,
    legacy_draw: o.LegacyDrawOption = False,
    out: o.OutOption = None,
    format: o.FormatOption = "geotiff",
    dtype: o.DtypeOption = "int8",
    compress: o.CompressOption = "zstd",
    allow_missing: o.AllowMissingOption = 0,
    refresh: o.RefreshOption = False,
    device: o.DeviceOption = "auto",
    threads: o.ThreadsOption = None,
    as_json: o.JsonOption = False,
    verbose: o.VerboseOption = 0,
    quiet: o.QuietOption = 0,
    debug: o.DebugOption = False,
) -> None:
    """Turn an area and a year into embeddings.

    Writes int8 GeoTIFF tiles with a scale raster and prints the path of each. Run it again to do what is missing.

    Examples:

      tessera embed --aoi field.geojson --year 2023

      tessera embed --bbox 4.30 51.95 4.40 52.00 --window 2023-07/2024-06 --model v2-large --out delft

      tessera embed --dpixels tiles/* --weights v1_1.pt --source mpc --format npy --out vectors
    """
    terminal = Terminal(verbose - quiet, as_json)
    if dpixels:
        refuse_beside_dpixels(
            aoi=area or aoi,
            bbox=bbox,
            mask=mask,
            crs=crs,
            year=year,
            window=window,
            catalog=catalog,
            radar_catalog=radar_catalog,
            fill_bbox=fill_bbox,
            allow_no_radar=allow_no_radar,
        )
    else:
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
    from tessera_cli import config
    from tessera_cli.imagery import OFFICIAL, get_preprocessing
    from tessera_cli.models import load_model
    from tessera_cli.runs.embed import embed as run
    from tessera_cli.runs.identity import Settings
    from tessera_cli.runs.inputs import CatalogInputs, Inputs, StoredInputs
    from tessera_cli.runs.scene_search import search_scenes

    cores = threads or config.threads()
    loaded = load_model(
        model, weights=weights, model_config=read_model_config(model_config), device=device, precision=precision
    )
    wanted: Mapping[str, Any] = {
        "force_source": force_source,
        "dims": dims,
        "dtype": dtype,
        "format": format,
        "min_s2": min_s2,
        "min_s1": min_s1,
        "seed": seed,
        "legacy_draw": legacy_draw,
    }
    inputs: Inputs
    if dpixels:
        inputs = StoredInputs.find(dpixels, source, preprocessing, allow_missing=allow_missing)
        settings = Settings.checked(
            loaded, source, recorded=inputs.source, preprocessing=inputs.preprocessing, **wanted
        )
        folder = settings.folder(out or default_out(dpixels[0].resolve().stem, loaded.name))
    else:
        ask = asked.of_source(source or loaded.spec.source)
        policy = get_preprocessing(preprocessing or OFFICIAL.name)
        settings = Settings.checked(loaded, source, recorded=ask.source.name, preprocessing=policy.name, **wanted)
        folder = settings.folder(out or default_out(ask.name, loaded.name, policy.name))
        reader = open_reader(ask)
        inputs = CatalogInputs(
            search_scenes(ask, reader.client, folder, refresh=refresh), reader, policy, allow_missing, refresh
        )
    with RunProgress(terminal) as progress:
        summary = run(
            inputs,
            settings,
            folder,
            progress=progress,
            threads=cores,
            allow_missing=allow_missing,
            compress=compress,
        )
    error = summary.error()
    if as_json:
        terminal.result_json(summary.to_dict())
    else:
        for path in summary.mosaics or ():
            terminal.result(str(path))
    if error:
        raise error
