"""`tessera embed`: the main job."""

from __future__ import annotations

from tessera_cli.cli import options as o
from tessera_cli.cli.request import build_ask, default_out
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
    source: o.SourceOption = "mpc",
    catalog: o.CatalogOption = None,
    allow_no_radar: o.AllowNoRadarOption = False,
    model: o.ModelOption = None,
    weights: o.WeightsOption = None,
    dims: o.DimsOption = None,
    min_s2: o.MinS2Option = 1,
    min_s1: o.MinS1Option = 0,
    out: o.OutOption = None,
    compress: o.CompressOption = o.Compress.ZSTD,
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

      ogr2ogr -f GeoJSON /vsistdout/ fields.gpkg | tessera embed - --year 2023 --json | jq .path
    """
    terminal = Terminal(verbose - quiet, as_json)
    ask = build_ask(
        area, aoi, bbox, year, window, source=source, catalog=catalog, crs=crs, mask=mask, fill_bbox=fill_bbox,
        allow_no_radar=allow_no_radar,
    )  # fmt: skip
    from tessera_cli import config
    from tessera_cli.imagery import GDAL_OPTIONS
    from tessera_cli.models import load_model
    from tessera_cli.run import embed as run
    from tessera_cli.settings import Settings

    loaded = load_model(model, weights=weights, device=device)
    settings = Settings.checked(loaded, source, dims=dims, min_s2=min_s2, min_s1=min_s1)
    out = out or default_out(ask, loaded.name)
    with RunProgress(terminal) as progress:
        summary = run(
            ask, settings, out, progress=progress, gdal_options=config.gdal_options(GDAL_OPTIONS),
            threads=threads or config.threads(), allow_missing=allow_missing, compress=compress.value, refresh=refresh,
        )  # fmt: skip
    error = summary.error()
    if as_json:
        terminal.result_json(summary.to_dict())
    else:
        for path in summary.mosaics:
            terminal.result(str(path))
    if error:
        raise error
