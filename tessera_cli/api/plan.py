"""`plan`: what `embed` would read, write and cost. Arguments are those of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tessera_cli import config

if TYPE_CHECKING:
    from tessera_cli.api.arguments import AnyPath, Bbox, Windows, Years
    from tessera_cli.extent.aoi import AnyAoi
    from tessera_cli.models.model_config import AnyModelConfig
    from tessera_cli.planning.plan import Plan
    from tessera_cli.tables.places import AnyPlaces


def plan(
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
    out: AnyPath | None = None,
    refresh: bool = False,
    shards: int | None = None,
    footprints: AnyPath | None = None,
    threads: int | None = None,
) -> Plan:
    """Search, count and estimate what `embed` would read, write and cost; no pixel is read.

    Arguments that `embed` has too mean the same there.

    Args:
        out: Freeze the scene list in this output folder, for `embed` to use. Default: write nothing.
        shards: Tell as well what each of so many shares (`embed --shard 1/N`) would cost.
        footprints: Write the tiles to this GeoJSON file: dates, expected cost, share of each.

    Returns:
        Tiles, scenes and dates per sensor, gaps, bytes to read and write, seconds to encode here.

    Raises:
        TesseraError: As `embed` does.
    """
    from tessera_cli.api.arguments import check_numbers, default_out, make_request
    from tessera_cli.api.points import Plots
    from tessera_cli.catalog import missing_credentials
    from tessera_cli.folders.folder import TileFolder
    from tessera_cli.imagery import OFFICIAL, get_preprocessing
    from tessera_cli.models import describe_model
    from tessera_cli.planning.plan import plan as count
    from tessera_cli.planning.scene_search import search_scenes
    from tessera_cli.planning.shard import check_shards

    check_numbers(threads=threads)
    check_shards(shards)
    area: dict[str, Any] = {"layer": layer, "mask": mask, "crs": crs, "fill_bbox": fill_bbox}
    area |= {"allow_no_radar": allow_no_radar, "catalog": catalog, "radar_catalog": radar_catalog}
    area |= {"allow_outside": allow_outside, "allow_private_hosts": allow_private_hosts}
    plots = None if points is None else Plots.of(points, layer=layer)
    request = make_request(aoi, bbox, year, window, points=plots, source=source, **area)
    spec = describe_model(model, weights, model_config)
    request = request.of_source(source or spec.source)
    spec.check_source(request.source.name)
    dims, client = spec.check_dims(dims), request.origin.client()
    found = search_scenes(request, client, None if out is None else TileFolder(Path(out)), refresh=refresh)
    return count(
        found,
        spec,
        dims,
        Path(out or default_out(request.name, spec.name)),
        freeze=out is not None,
        preprocessing=get_preprocessing(preprocessing or OFFICIAL.name),
        threads=threads or config.threads(),
        missing_credentials=missing_credentials(found.scenes, client),
        shards=shards,
        footprints=None if footprints is None else Path(footprints),
    )
