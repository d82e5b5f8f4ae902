"""From options to the library's nouns: the part that verbs share."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tessera_cli.errors import UsageError

if TYPE_CHECKING:
    from tessera_cli.extent.aoi import Aoi
    from tessera_cli.extent.window import Window
    from tessera_cli.imagery import Reader
    from tessera_cli.models import ModelConfig
    from tessera_cli.net import Client
    from tessera_cli.runs.scene_search import Request


def read_aoi(argument: str | None, option: str | None, bbox: tuple[float, float, float, float] | None) -> Aoi:
    from tessera_cli.extent.aoi import Aoi

    given = [value for value in (argument, option) if value is not None]
    if len(given) + (bbox is not None) != 1:
        raise UsageError("Exactly one area is needed. Give --aoi FILE, --aoi - or --bbox WEST SOUTH EAST NORTH.")
    if bbox is not None:
        return Aoi.from_bbox(*bbox)
    if given[0] == "-":
        return Aoi.from_geojson(sys.stdin.read(), name="stdin", origin="standard input")
    return Aoi.from_file(Path(given[0]))


def read_windows(years: Sequence[int] | None, windows: Sequence[str] | None) -> tuple[Window, ...]:
    from tessera_cli.extent.window import Window

    read = [Window.of_year(year) for year in years or []] + [Window.parse(text) for text in windows or []]
    if not read:
        raise UsageError("A time is needed. Give --year 2023 or --window 2023-07/2024-06.")
    return tuple(sorted(set(read)))


def build_ask(
    argument: str | None,
    aoi: str | None,
    bbox: tuple[float, float, float, float] | None,
    years: Sequence[int] | None,
    windows: Sequence[str] | None,
    *,
    source: str | None,
    catalog: str | None,
    radar_catalog: str | None,
    crs: str | None,
    mask: Path | None,
    fill_bbox: bool,
    allow_no_radar: bool,
) -> Request:
    read = read_windows(years, windows)  # cheap and most often wrong: before any file is opened
    from tessera_cli.catalog import MPC, get_source
    from tessera_cli.extent.grid import utm_code
    from tessera_cli.runs.scene_search import Request

    epsg = utm_code(crs) if crs else None
    if mask is not None and not mask.exists():
        raise UsageError(f"--mask {mask}: no such file. Give a raster with a CRS.")
    provider = get_source(source) if source else MPC
    area = read_aoi(argument, aoi, bbox)
    return Request(area, read, provider, catalog, radar_catalog, epsg, mask, fill_bbox, allow_no_radar)


def open_client(ask: Request) -> Client:
    """Asks the servers of a source with the right that it takes."""
    from tessera_cli import config
    from tessera_cli.catalog import signer_for
    from tessera_cli.net import Client, RequestStats

    stats = RequestStats()
    credentials = config.earthdata() if ask.source.signer == "earthdata" else None
    return Client(signer_for(ask.source, credentials, radar_catalog=ask.radar_catalog, stats=stats), stats=stats)


def open_reader(ask: Request) -> Reader:
    """Reads a source's files, with the GDAL options that the user's environment leaves to us."""
    from tessera_cli import config
    from tessera_cli.imagery import GDAL_OPTIONS, Reader

    return Reader(open_client(ask), gdal_options=config.gdal_options(GDAL_OPTIONS))


def refuse_beside_dpixels(**given: object) -> None:
    """UsageError for options that ask for what stored d-pixels have settled."""
    names = [f"--{name.replace('_', '-')}" for name, value in given.items() if value]
    if names:
        raise UsageError(f"--dpixels already say where, when and from what. Leave out {', '.join(names)}.")


def read_model_config(path: Path | None) -> ModelConfig:
    from tessera_cli.models import ModelConfig

    return ModelConfig() if path is None else ModelConfig.from_file(path)


def default_out(what: str, kind: str, preprocessing: str | None = None) -> Path:
    """`./<what>_<kind>`, of corrected d-pixels `./<what>_<kind>_corrected`."""
    suffix = f"_{preprocessing}" if preprocessing not in (None, "official") else ""
    return Path(re.sub(r"[^\w.+-]+", "-", f"{what}_{kind}{suffix}"))
