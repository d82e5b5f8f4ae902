"""`fetch`: an area and a time to stored d-pixels. Arguments are those of the command line."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tessera_cli.api.arguments import AnyPath, Bbox, Windows, Years
    from tessera_cli.api.progress import AnyProgress
    from tessera_cli.extent.aoi import AnyAoi
    from tessera_cli.models.model_config import AnyModelConfig
    from tessera_cli.outputs.layers import StoreFormat
    from tessera_cli.runs.results import Summary
    from tessera_cli.tables.places import AnyPlaces


def fetch(
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
    out: AnyPath | None = None,
    format: StoreFormat = "zarr",
    allow_missing: int = 0,
    refresh: bool = False,
    tile: str | Sequence[str] | None = None,
    retry_failed: bool = False,
    overwrite: bool = False,
    shard: str | None = None,
    deadline: str | float | None = None,
    workers: int | None = None,
    progress: AnyProgress | None = None,
) -> Summary:
    """Store an area's d-pixels, and the weights of a model, for a machine without network. Run it again to go on.

    With `model="none"` d-pixels alone, such as `pretrain` takes.

    Arguments that `embed` has too mean the same there. Of `points`, stores hold the pixels of the plots alone.

    Args:
        model: The model whose weights are fetched as well, and whose source decides, as in `embed`; `none`: no weights,
            and the source is `source` or the usual one.
        out: Folder for the d-pixels. Default: `./<aoi>_<window>_dpixels`.
        workers: Tiles to read side by side, in this process.
        format: `zarr` stores, or `npy`: folders of arrays in the official layout, many times larger.

    Returns:
        What became of every tile; `embed_command` is the command line that embeds the folder, empty without a model.

    Raises:
        TesseraError: As `embed` does.
    """
    from tessera_cli.api.arguments import (
        check_choices,
        check_numbers,
        choose_out,
        default_out,
        make_request,
        make_terms,
        search_inputs,
        warn_of_other_area,
    )
    from tessera_cli.api.points import Plots
    from tessera_cli.api.progress import as_progress
    from tessera_cli.api.shards import asked_of_plan
    from tessera_cli.errors import UsageError
    from tessera_cli.folders.identity import dpixel_folder
    from tessera_cli.imagery import OFFICIAL, get_preprocessing
    from tessera_cli.models import describe_model
    from tessera_cli.models.registry import DEFAULT_MODEL, NO_MODEL
    from tessera_cli.outputs.layers import StoreFormat
    from tessera_cli.runs.fetch import embed_command
    from tessera_cli.runs.fetch import fetch as run
    from tessera_cli.workers import ThreadPool

    area: dict[str, Any] = {"layer": layer, "mask": mask, "crs": crs, "fill_bbox": fill_bbox}
    area |= {"allow_no_radar": allow_no_radar, "catalog": catalog, "radar_catalog": radar_catalog}
    area |= {"allow_outside": allow_outside, "allow_private_hosts": allow_private_hosts}
    where = {"aoi": aoi, "bbox": bbox, "points": points, "year": year, "window": window, "source": source}
    without = str(model) == NO_MODEL
    if without and (weights is not None or model_config is not None):
        raise UsageError("--model none leaves weights out. Leave out --weights and --model-config, or name the model.")
    of_plan = {**where, **area, "model": None if without else model, "weights": weights, "model_config": model_config}
    share = asked_of_plan(**of_plan, force_source=force_source)
    check_choices(format=(format, StoreFormat))
    check_numbers(allow_missing=allow_missing)
    terms = make_terms(
        allow_missing=allow_missing,
        tile=tile,
        retry_failed=retry_failed,
        overwrite=overwrite,
        shard=shard,
        deadline=deadline,
        workers=workers,
    )
    told, plots = as_progress(progress), None if points is None else Plots.of(points, layer=layer)
    request = make_request(aoi, bbox, year, window, points=plots, source=source, **area)
    spec = None if without else describe_model(model, weights, model_config)
    if spec is not None:
        request = request.of_source(source or spec.source)
        spec.check_source(request.source.name, force=force_source)
    policy = get_preprocessing(preprocessing or OFFICIAL.name)
    stores = choose_out(out, request, "dpixels", policy.name)
    folder = dpixel_folder(stores, source=request.source.name, preprocessing=policy.name, format=format)
    more: dict[str, Any] = {"allow_missing": allow_missing, "refresh": refresh}
    inputs = search_inputs(request, folder, policy, **more, share=share if terms.shard else None)
    if out is None:
        warn_of_other_area(folder, inputs.record())
    pulled = None if weights or without else str(model or DEFAULT_MODEL)
    with ThreadPool(workers) if workers else nullcontext() as executor:
        terms = dataclasses.replace(terms, executor=executor)
        summary = run(inputs, folder, model=pulled, progress=told, terms=terms)
    command = ""
    if spec is not None and any(result.path for result in summary.results):
        command = embed_command(
            folder,
            model=model,
            weights=weights,
            model_config=model_config,
            force_source=force_source,
            allow_missing=allow_missing,
            points=None if plots is None else plots.file,
            out=default_out(request.name, spec.name, policy.name),
        )
    return dataclasses.replace(summary, embed_command=command)
