"""From the arguments of a call, in any of the forms that people have at hand, to the nouns of the library."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from tessera_cli.api.points import refuse_beside_points
from tessera_cli.api.shards import as_shard, check_frozen, check_thawed
from tessera_cli.errors import UsageError
from tessera_cli.reading import check_file

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from tessera_cli.api.points import Plots
    from tessera_cli.extent.aoi import AnyAoi
    from tessera_cli.extent.window import Window
    from tessera_cli.folders.folder import TileFolder
    from tessera_cli.imagery import Preprocessing
    from tessera_cli.planning.scene_search import Request
    from tessera_cli.runs.inputs import CatalogInputs
    from tessera_cli.runs.terms import Terms

    Windows = str | Window | Sequence[str | Window]

logger = logging.getLogger(__name__)

UNNAMED = ("aoi", "bbox", "stdin", "points")
"""Names that areas have which come from no file."""
MAX_NAME = 255
"""Bytes of a file's name."""

AnyPath = str | Path
Bbox = Sequence[float]
Years = int | str | Sequence[int | str]
PrecisionName = Literal["auto", "fp32", "bf16", "int8"]


def make_request(
    aoi: AnyAoi | None,
    bbox: Bbox | None,
    year: Years | None,
    window: Windows | None,
    *,
    points: Plots | None = None,
    layer: str | None,
    source: str | None,
    crs: str | None,
    mask: AnyPath | None,
    **more: Any,
) -> Request:
    """Return where, when and from which catalogue; UsageError unless one area (or points) and a time are given.

    `more` are further fields of `Request`.
    """
    windows = as_windows(year, window)  # cheap and most often wrong: before any file is opened
    from tessera_cli.catalog import MPC, get_source
    from tessera_cli.extent.aoi import Aoi
    from tessera_cli.extent.grid import utm_code
    from tessera_cli.planning.scene_search import Request

    epsg = utm_code(crs) if crs else None
    if mask is not None:
        try:
            check_file(Path(mask))
        except OSError as error:
            why = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
            raise UsageError(f"--mask {mask}: {why}. Give a raster with a CRS.") from error
    provider = get_source(source) if source else MPC
    if sum(each is not None for each in (aoi, bbox, points)) != 1:
        raise UsageError(
            "Exactly one area is needed. Give --aoi FILE, --aoi -, --bbox WEST SOUTH EAST NORTH or --points FILE."
        )
    if bbox is not None and len(bbox) != 4:
        raise UsageError(f"--bbox holds {len(bbox)} numbers. Write --bbox WEST SOUTH EAST NORTH in degrees.")
    if points is not None:
        refuse_beside_points(mask=mask, fill_bbox=more.get("fill_bbox"))
        area = points.aoi()
    else:
        area = Aoi.of(aoi if bbox is None else Aoi.from_bbox(*bbox), layer=layer)  # type: ignore[arg-type]
    unnamed = area.name in UNNAMED and not isinstance(aoi, AnyPath) and not (points and points.file)
    masked = None if mask is None else Path(mask)
    request = Request(area, windows, provider, epsg=epsg, mask=masked, unnamed=unnamed, **more)
    logger.info("%s: %s around %s", area.name, area.contents, request.place)
    return request


def as_windows(year: Years | None, window: Windows | None) -> tuple[Window, ...]:
    """Return the distinct windows, sorted; UsageError if there is none."""
    from tessera_cli.extent.window import Window

    windows = [
        each
        for one in _listed(year, str | Real)
        for each in Window.of_years(f"{one:g}" if isinstance(one, Real) else one)
    ]
    for one in _listed(window, str | Window):
        windows += [one] if isinstance(one, Window) else map(Window.parse, one.split(","))
    if not windows:
        raise UsageError("A time is needed. Give --year 2023 or --window 2023-07/2024-06.")
    return tuple(sorted(set(windows)))


def chosen_windows(year: Years | None, window: Windows | None) -> tuple[Window | str, ...] | None:
    """Return the windows wanted of a folder, None for all. Names of windows, such as 20230701-20240630, do as well."""
    if year is None and window is None:
        return None
    from tessera_cli.extent.window import Window

    years = () if year is None else as_windows(year, None)
    asked = _listed(window, str | Real | Window)
    return (*years, *(part for one in asked for part in (one.split(",") if isinstance(one, str) else [one])))


def _listed(given: Any, one: Any) -> list[Any]:
    """Return one value of the type `one`, several or None as a list."""
    return [] if given is None else [given] if isinstance(given, one) else list(given)


def as_paths(paths: AnyPath | Sequence[AnyPath]) -> list[Path]:
    """Return one or several paths as a list."""
    return [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]


def check_choices(**given: tuple[object, Any]) -> None:
    """Raise UsageError unless each value is one of those of its Literal type."""
    for name, (value, choices) in given.items():
        if value not in get_args(choices):
            names = ", ".join(map(str, get_args(choices)))
            raise UsageError(f"--{name.replace('_', '-')} {value} is not known. Choose one of: {names}.")


def check_numbers(**given: int | None) -> None:
    """Raise UsageError for counts below 0, and for 0 threads or workers."""
    for name, value in given.items():
        least = 1 if name in ("threads", "workers") else 0
        if value is not None and value < least:
            raise UsageError(f"--{name.replace('_', '-')} {value} is too small. Give {least} or more.")


def make_terms(
    *,
    allow_missing: int,
    tile: str | Sequence[str] | None,
    retry_failed: bool,
    overwrite: bool,
    shard: str | None,
    deadline: str | float | None,
    workers: int | None,
    scheduler: str | None = None,
) -> Terms:
    """Return how a run is to go about its tiles."""
    from tessera_cli.runs.deadline import ends_at
    from tessera_cli.runs.terms import Terms

    check_numbers(workers=workers)
    if scheduler is not None:
        from tessera_cli.workers import check_scheduler

        if workers is not None:
            raise UsageError("--scheduler has workers of its own. Leave out --workers.")
        check_scheduler(scheduler)
    tiles = [tile] if isinstance(tile, str) else list(tile or ())
    return Terms(allow_missing, tuple(tiles), retry_failed, overwrite, ends_at(deadline), shard=as_shard(shard))


def executor_for(
    *, workers: int | None, scheduler: str | None, threads: int | None, device: str, kind: str
) -> AbstractContextManager[Executor | None]:
    """Return where tasks run, to be entered: None for this process.

    `device` is what the user named, `kind` what it came to.
    """
    from tessera_cli.workers import DaskExecutor, process_pool

    if scheduler is not None:
        return DaskExecutor(scheduler, alone=kind == "cuda")
    if workers is not None:
        return process_pool(workers, threads=threads, device=device if ":" in device else kind)
    return nullcontext()


def refuse_beside_dpixels(**given: object) -> None:
    """Raise UsageError for options that ask for what stored d-pixels have settled."""
    names = [f"--{name.replace('_', '-')}" for name, value in given.items() if value]
    if names:
        raise UsageError(f"--dpixels already say where, when and from what. Leave out {', '.join(names)}.")


def search_inputs(
    request: Request,
    folder: TileFolder,
    preprocessing: Preprocessing,
    *,
    allow_missing: int,
    refresh: bool,
    share: Mapping[str, Any] | None = None,
) -> CatalogInputs:
    """Search the scenes of a run and tell how many dates its tiles have; errors are those of `search_scenes`.

    `share`: arguments of the `plan` that must have frozen them, if only a share of the run is to be made.
    """
    from tessera_cli.planning.scene_search import search_scenes
    from tessera_cli.runs.inputs import CatalogInputs

    if share is not None:
        check_frozen(folder, request.digest, share, refresh=refresh)
    reader = request.origin.reader()
    found = search_scenes(request, reader.client, folder, refresh=refresh)
    if share is not None:
        check_thawed(found, folder, share)
    found.log_tile_dates()
    return CatalogInputs(found, reader, preprocessing, allow_missing, refresh)


def default_out(what: str, kind: str, preprocessing: str | None = None) -> Path:
    """Return `./<what>_<kind>`, of corrected d-pixels `./<what>_<kind>_corrected`, as a name that any disk takes."""
    suffix = f"_{preprocessing}" if preprocessing not in (None, "official") else ""
    whole = re.sub(r"[^\w.+-]+", "-", f"{what}_{kind}{suffix}")
    name = whole.lstrip("-.")  # else it would look like an option, or be hidden
    if len(name.encode()) <= MAX_NAME:
        return Path(name)
    mark = hashlib.sha256(whole.encode()).hexdigest()[:8]
    return Path(name.encode()[: MAX_NAME - len(mark) - 1].decode(errors="ignore") + f"-{mark}")


def choose_out(out: AnyPath | None, request: Request, kind: str, preprocessing: str | None = None) -> Path:
    """Return `out`, else the default for the request: the folder where an earlier version has put it, if it did."""
    if out is not None:
        return Path(out)
    from tessera_cli.folders.folder import TileFolder

    former = default_out(dataclasses.replace(request, unnamed=False).name, kind, preprocessing)
    was_there = request.unnamed and TileFolder(former).was_started(request.digest)
    return former if was_there else default_out(request.name, kind, preprocessing)


def warn_of_other_area(folder: TileFolder, record: Mapping[str, Any]) -> None:
    """Warn that a folder which the user did not name holds another area: both have the same name."""
    if folder.holds_other_area(record):
        logger.warning("%s holds another area of this name; both will lie in it. --out keeps them apart", folder.path)
