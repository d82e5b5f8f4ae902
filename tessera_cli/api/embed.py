"""`embed`: an area and a time, or stored d-pixels, to embeddings. Arguments are those of the command line.

Nothing is printed. Progress goes to `progress`, details to the loggers under `tessera_cli`, and every error that a user
can mend is a `TesseraError`. Credentials and the number of threads come from the environment unless they are given.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from tessera_cli.api.arguments import AnyPath, Bbox, PrecisionName, Windows, Years
    from tessera_cli.api.progress import AnyProgress
    from tessera_cli.extent.aoi import AnyAoi
    from tessera_cli.models.model_config import AnyModelConfig
    from tessera_cli.outputs.geotiff import Compress
    from tessera_cli.outputs.layers import AreaFormat, Dtype
    from tessera_cli.runs.results import Summary
    from tessera_cli.tables.places import AnyPlaces

logger = logging.getLogger(__name__)


def embed(
    aoi: AnyAoi | None = None,
    *,
    layer: str | None = None,
    bbox: Bbox | None = None,
    points: AnyPlaces | None = None,
    mask: AnyPath | None = None,
    fill_bbox: bool = False,
    crs: str | None = None,
    year: Years | None = None,
    window: Windows | None = None,
    dpixels: AnyPath | Sequence[AnyPath] | None = None,
    source: str | None = None,
    force_source: bool = False,
    catalog: str | None = None,
    radar_catalog: str | None = None,
    allow_outside: bool = False,
    allow_private_hosts: bool = False,
    preprocessing: Literal["official", "corrected"] | None = None,
    allow_no_radar: bool = False,
    model: AnyPath | None = None,
    weights: AnyPath | None = None,
    model_config: AnyModelConfig | None = None,
    dims: int | None = None,
    precision: PrecisionName = "auto",
    min_s2: int = 1,
    min_s1: int = 0,
    seed: int = 0,
    legacy_draw: bool = False,
    uncertainty: int = 0,
    out: AnyPath | None = None,
    format: AreaFormat | None = None,
    dtype: Dtype = "int8",
    compress: Compress = "zstd",
    allow_missing: int = 0,
    refresh: bool = False,
    tile: str | Sequence[str] | None = None,
    retry_failed: bool = False,
    overwrite: bool = False,
    shard: str | None = None,
    deadline: str | float | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    preview: bool = False,
    device: str = "auto",
    threads: int | None = None,
    progress: AnyProgress | None = None,
) -> Summary:
    """Turn an area and a year into embeddings, written tile by tile to a folder. Run it again to do what is missing.

    Give an area (`aoi` or `bbox`) or plots (`points`) and a time (`year` or `window`), or stored d-pixels (`dpixels`),
    of which `points` chooses pixels.

    Args:
        aoi: Polygons in longitude and latitude: a path (GeoJSON, GeoPackage, Shapefile, KML, or a folder of them), a
            GeoJSON mapping, a shapely geometry, a GeoDataFrame (anything with `__geo_interface__`), or an `Aoi`.
        layer: The layer of `aoi` or `points` to use, if it is a file with several. Default: all that hold areas.
        bbox: West, south, east, north in degrees, in place of `aoi`.
        points: Plots, in place of `aoi`: the path of points or polygons (GeoPackage, GeoJSON, CSV with lon and lat,
            GeoParquet), a GeoDataFrame, shapely geometries, or an array (N, 2) of longitude and latitude. Only their
            pixels are read, no raster is written, and the result is a table: `points.parquet` (without pyarrow
            `points.csv`) in the output folder, as `tessera sample` makes it.
        mask: Raster with a CRS; only pixels whose value in it is not 0 are embedded.
        fill_bbox: Embed the whole bounding box of the area (in UTM).
        crs: Force one UTM zone, such as `EPSG:32631`. Default: the zone of each feature.
        year: Calendar year, or several: `2023`, `[2023, 2024]`, `"2017-2024"`.
        window: Range of months or days, ends included, such as `2023-07/2024-06`; or several.
        dpixels: What `fetch` wrote: Zarr stores, official tile folders, or folders of either. No network is used.
        source: `mpc` or `aws`. Default: the model's own, else `mpc`.
        force_source: Encode d-pixels of a source that the model was not trained on.
        catalog: Another STAC API, a static catalogue, an ItemCollection or the folder of one, as URL or path.
        radar_catalog: For `aws`: another CMR granule search, or an ItemCollection of OPERA RTC-S1.
        allow_outside: Let a catalogue on this machine name files outside its own folder.
        allow_private_hosts: Let a catalogue on the web name hosts of private networks and this machine.
        preprocessing: `official` (default): what the released models were trained on; `corrected`: offsets by
            processing baseline, one copy of each acquisition.
        allow_no_radar: Go on when the catalogue has no Sentinel-1.
        model: Name of a released model (default `v2-medium`), or path of a .safetensors file or its folder.
        weights: Path of an official checkpoint; the model is read from it.
        model_config: What v1.x checkpoints do not record: path of a JSON file, or a mapping in its words.
        dims: Number of bands: the first N values of the embedding.
        precision: Arithmetic. `fp32` is exact; `auto` is bf16 on a GPU that has it, else fp32.
        min_s2: Pixels with fewer clear Sentinel-2 observations get no embedding.
        min_s1: Pixels with fewer Sentinel-1 observations get no embedding.
        seed: Random seed (v1.0 models only).
        legacy_draw: v1.0 models: draw in the official order from numpy's legacy generator.
        uncertainty: Halve each pixel's observations at random so many times, and write how far an embedding would move
            if other dates had been clear, one more band file. Each time takes about as long as the embeddings.
        out: Output folder. Default: `./<aoi>_<window>_<model>`.
        format: `geotiff` (default), or `npy` for bare arrays; not with `points`.
        dtype: `int8` codes with a float32 scale per pixel, or `float32` values.
        compress: Compression of the rasters: `zstd`, `deflate` or `none`.
        allow_missing: Scenes per tile that may be absent or broken before the tile fails.
        refresh: Search again instead of using the folder's frozen scene list.
        tile: Take only this tile, or these: ids such as `utm31n_c0112_r1098`, or names with the window.
        retry_failed: Take only tiles that failed before.
        overwrite: Make tiles again though they are finished.
        shard: Share of the tiles for this process: `2/5`, or `auto` inside a job array. Needs a scene list that
            `plan` has frozen in `out`, so that all shares are cut alike.
        deadline: When to end, such as `55m`, or seconds from now; no tile is begun that would take longer. Default:
            that of the Slurm job, if this is one.
        workers: Processes to spread the tiles over, one per GPU or per share of the cores.
        scheduler: Address of a Dask scheduler, whose workers see the same folders.
        preview: Draw the folder in the end, as `preview` does; if that fails, a warning says why.
        device: `auto`, `cpu`, `cuda` or `cuda:1`.
        threads: Cores to compute with. Default: those that this process may use.
        progress: Called with (pixels done, pixels in all); or a `tqdm` bar, a `rich.progress.Progress`, or an object
            with the methods of `Progress`.

    Returns:
        What became of every tile; `table` is the path of that of `points`. `Summary.error()` is the error that the
        command would end with, None if all is well; a tile that fails does not raise.

    Raises:
        TesseraError: Before anything is written, if the run cannot begin: UsageError, NothingToEmbedError,
            IdentityError (the folder belongs to other settings), SourceUnavailableError, CredentialsError; later only
            DiskFullError.
    """
    from tessera_cli.api.arguments import (
        PrecisionName,
        as_paths,
        check_choices,
        check_numbers,
        choose_out,
        default_out,
        executor_for,
        make_request,
        make_terms,
        refuse_beside_dpixels,
        search_inputs,
        warn_of_other_area,
    )
    from tessera_cli.api.points import Plots, refuse_beside_points
    from tessera_cli.api.progress import as_progress
    from tessera_cli.api.shards import asked_of_plan
    from tessera_cli.folders.identity import EmbedSettings
    from tessera_cli.imagery import OFFICIAL, get_preprocessing
    from tessera_cli.models import load_model
    from tessera_cli.outputs.geotiff import Compress
    from tessera_cli.outputs.layers import AreaFormat, Dtype
    from tessera_cli.runs.embed import embed as run
    from tessera_cli.runs.inputs import Inputs, StoredInputs
    from tessera_cli.runs.recipes import SettingsRecipe

    terms = make_terms(
        allow_missing=allow_missing,
        tile=tile,
        retry_failed=retry_failed,
        overwrite=overwrite,
        shard=shard,
        deadline=deadline,
        workers=workers,
        scheduler=scheduler,
    )
    area: dict[str, Any] = {"layer": layer, "mask": mask, "crs": crs, "fill_bbox": fill_bbox}
    area |= {"allow_no_radar": allow_no_radar, "catalog": catalog, "radar_catalog": radar_catalog}
    area |= {"allow_outside": allow_outside, "allow_private_hosts": allow_private_hosts}
    where = {"aoi": aoi, "bbox": bbox, "points": points, "year": year, "window": window, "source": source}
    of_plan = {**where, **area, "model": model, "weights": weights, "model_config": model_config}
    share = asked_of_plan(**of_plan, force_source=force_source)
    check_choices(format=(format or "geotiff", AreaFormat), dtype=(dtype, Dtype), compress=(compress, Compress))
    check_choices(precision=(precision, PrecisionName))
    check_numbers(
        allow_missing=allow_missing, threads=threads, min_s2=min_s2, min_s1=min_s1, seed=seed, uncertainty=uncertainty
    )
    told, request, plots = as_progress(progress), None, None
    if points is not None:
        refuse_beside_points(format=format, preview=preview)
        plots = Plots.of(points, layer=layer)
    if dpixels:
        chosen = area if plots is None else {**area, "layer": None}
        refuse_beside_dpixels(aoi=aoi, bbox=bbox, year=year, window=window, **chosen)
    else:
        area |= {"points": plots, "allow_no_optical": min_s2 == 0}
        request = make_request(aoi, bbox, year, window, source=source, **area)
    of_model: dict[str, Any] = {
        "model": model,
        "weights": weights,
        "model_config": model_config,
        "device": device,
        "precision": precision,
    }
    loaded = load_model(**of_model)
    wanted: dict[str, Any] = {"force_source": force_source, "dims": dims, "dtype": dtype}
    wanted |= {"format": "vectors" if plots else format or "geotiff"}
    wanted |= {"min_s2": min_s2, "min_s1": min_s1, "seed": seed, "legacy_draw": legacy_draw}
    wanted |= {"uncertainty": uncertainty}
    inputs: Inputs
    if request is None:
        paths = as_paths(dpixels or ())
        inputs = StoredInputs.find(paths, source, preprocessing, allow_missing=allow_missing)
        inputs = inputs if plots is None else inputs.of_pixels(plots.aoi())
        wanted |= {"source": source, "recorded": inputs.source, "preprocessing": inputs.preprocessing}
        settings = EmbedSettings.checked(loaded, **wanted)
        what = paths[0].resolve().name.removesuffix(".zarr")
        folder = settings.folder(Path(out or default_out(what, loaded.name)))
    else:
        request = request.of_source(source or loaded.spec.source)
        policy = get_preprocessing(preprocessing or OFFICIAL.name)
        wanted |= {"source": source, "recorded": request.source.name, "preprocessing": policy.name}
        settings = EmbedSettings.checked(loaded, **wanted)
        folder = settings.folder(choose_out(out, request, loaded.name, policy.name))
        more: dict[str, Any] = {"allow_missing": allow_missing, "refresh": refresh}
        inputs = search_inputs(request, folder, policy, **more, share=share if terms.shard else None)
    if out is None:
        warn_of_other_area(folder, inputs.record())
    recipe = SettingsRecipe.of(settings, wanted, **of_model)
    hired = executor_for(workers=workers, scheduler=scheduler, threads=threads, device=device, kind=loaded.device)
    with hired as executor:
        summary = run(
            inputs,
            settings,
            folder,
            progress=told,
            threads=None if workers else threads,  # a pool has shared them out
            compress=compress,
            terms=replace(terms, executor=executor),
            recipe=recipe,
        )
    if not summary.is_whole:
        return summary
    if plots is not None:
        return replace(summary, table=plots.write_table(folder.path, {each.window for each in inputs.tile_requests}))
    drawn = preview and summary.pixels and summary.stopped is None
    return replace(summary, preview=_preview(summary.out)) if drawn else summary


def _preview(out: Path) -> Path | None:
    """Draw the folder and return the page; None, with a warning, if that fails: the embeddings are there."""
    from tessera_cli.api.preview import preview
    from tessera_cli.errors import reason

    logger.info("drawing a preview of %s", out)
    try:
        return preview(out).page
    except Exception as error:
        logger.warning("the embeddings are there, but not their preview: %s", reason(error))
        logger.debug("%s", error, exc_info=True)
        return None
