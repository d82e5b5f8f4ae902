"""Every option that more than one verb takes, declared once: the same name means the same everywhere.

Each can also be set by the environment variable shown in the help.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

AREA, TIME, SOURCE, MODEL, OUTPUT, RUN = "Area", "Time", "Source", "Model", "Output", "Run"


class Compress(StrEnum):
    ZSTD = "zstd"
    DEFLATE = "deflate"
    NONE = "none"


AoiArgument = Annotated[
    str | None, typer.Argument(metavar="AOI", help="The area of interest: the same as --aoi.", show_default=False)
]
AoiOption = Annotated[
    str | None,
    typer.Option(
        "--aoi", metavar="FILE|-", rich_help_panel=AREA,
        help="Polygons: GeoJSON, GeoPackage or Shapefile; - reads GeoJSON from standard input.",
    ),
]  # fmt: skip
BboxOption = Annotated[
    tuple[float, float, float, float] | None,
    typer.Option("--bbox", metavar="W S E N", rich_help_panel=AREA, help="A box in degrees, in place of --aoi."),
]
MaskOption = Annotated[
    Path | None,
    typer.Option(
        "--mask", metavar="RASTER", envvar="TESSERA_MASK", rich_help_panel=AREA,
        help="Embed only pixels whose value in this raster is not 0.",
    ),
]  # fmt: skip
FillBboxOption = Annotated[
    bool, typer.Option("--fill-bbox", rich_help_panel=AREA, help="Embed the whole bounding box of the area (in UTM).")
]
CrsOption = Annotated[
    str | None,
    typer.Option(
        "--crs", metavar="EPSG", envvar="TESSERA_CRS", rich_help_panel=AREA,
        help="Force one UTM zone, such as EPSG:32631.",
    ),
]  # fmt: skip
YearOption = Annotated[
    list[int] | None,
    typer.Option(
        "--year", metavar="YEAR", envvar="TESSERA_YEAR", rich_help_panel=TIME, help="Calendar year; repeatable."
    ),
]
WindowOption = Annotated[
    list[str] | None,
    typer.Option(
        "--window", metavar="FROM/TO", envvar="TESSERA_WINDOW", rich_help_panel=TIME,
        help="Months or days, ends included: 2023-07/2024-06; repeatable.",
    ),
]  # fmt: skip
SourceOption = Annotated[
    str,
    typer.Option("--source", metavar="mpc", envvar="TESSERA_SOURCE", rich_help_panel=SOURCE, help="Imagery provider."),
]
CatalogOption = Annotated[
    str | None,
    typer.Option(
        "--catalog", metavar="URL|FILE", envvar="TESSERA_CATALOG", rich_help_panel=SOURCE,
        help="Another STAC API, a static catalogue or an ItemCollection (.json, .ndjson, .ndjson.gz).",
    ),
]  # fmt: skip
AllowNoRadarOption = Annotated[
    bool, typer.Option("--allow-no-radar", rich_help_panel=SOURCE, help="Go on when the catalogue has no Sentinel-1.")
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model", metavar="NAME|PATH", envvar="TESSERA_MODEL", rich_help_panel=MODEL,
        help="v2-nano, v2-small, v2-medium (default), v2-large, demo, or the path of a .safetensors file or folder.",
    ),
]  # fmt: skip
WeightsOption = Annotated[
    Path | None,
    typer.Option(
        "--weights", metavar="FILE", envvar="TESSERA_WEIGHTS", rich_help_panel=MODEL,
        help="An official checkpoint; the model is read from it.",
    ),
]  # fmt: skip
DimsOption = Annotated[
    int | None,
    typer.Option("--dims", metavar="N", envvar="TESSERA_DIMS", rich_help_panel=MODEL, help="Bands: 16, 32, 64 or 128."),
]
MinS2Option = Annotated[
    int,
    typer.Option("--min-s2", metavar="N", min=0, envvar="TESSERA_MIN_S2", rich_help_panel=MODEL,
                 help="Pixels with fewer clear Sentinel-2 observations get no embedding."),
]  # fmt: skip
MinS1Option = Annotated[
    int,
    typer.Option("--min-s1", metavar="N", min=0, envvar="TESSERA_MIN_S1", rich_help_panel=MODEL,
                 help="Pixels with fewer Sentinel-1 observations get no embedding."),
]  # fmt: skip
PlanOutOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        metavar="DIR",
        envvar="TESSERA_OUT",
        rich_help_panel=OUTPUT,
        help="Freeze the scene list in this output folder, for embed to use.",
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out", "-o", metavar="DIR", envvar="TESSERA_OUT", rich_help_panel=OUTPUT,
        help="Output folder.  [default: ./<aoi>_<window>_<model>]",
    ),
]  # fmt: skip
CompressOption = Annotated[
    Compress,
    typer.Option("--compress", envvar="TESSERA_COMPRESS", rich_help_panel=OUTPUT, help="Compression of the rasters."),
]
AllowMissingOption = Annotated[
    int,
    typer.Option(
        "--allow-missing", metavar="N", min=0, envvar="TESSERA_ALLOW_MISSING", rich_help_panel=RUN,
        help="Scenes per tile that may be absent or broken before the tile fails.",
    ),
]  # fmt: skip
RefreshOption = Annotated[
    bool, typer.Option("--refresh", rich_help_panel=RUN, help="Search again instead of using the frozen scene list.")
]
DeviceOption = Annotated[
    str,
    typer.Option(
        "--device", metavar="auto|cpu|cuda", envvar="TESSERA_DEVICE", rich_help_panel=RUN, help="Where to encode."
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option("--threads", metavar="N", min=1, envvar="TESSERA_THREADS", rich_help_panel=RUN,
                 help="Cores to encode with.  [default: those this process may use]"),
]  # fmt: skip
JsonOption = Annotated[
    bool, typer.Option("--json", rich_help_panel=RUN, help="Machine-readable results on standard output.")
]
VerboseOption = Annotated[
    int,
    typer.Option(
        "--verbose",
        "-v",
        count=True,
        show_default=False,
        rich_help_panel=RUN,
        help="Say more; -vv also what libraries say.",
    ),
]
QuietOption = Annotated[
    int,
    typer.Option(
        "--quiet", "-q", count=True, show_default=False, rich_help_panel=RUN, help="Say less: no bar, only warnings."
    ),
]
DebugOption = Annotated[
    bool, typer.Option("--debug", rich_help_panel=RUN, help="Show tracebacks (or set TESSERA_DEBUG=1).")
]
