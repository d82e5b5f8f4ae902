"""Every option that more than one verb takes, declared once: the same name means the same everywhere.

Each can also be set by the environment variable shown in the help.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

AREA, TIME, SOURCE, MODEL, OUTPUT, RUN = "Area", "Time", "Source", "Model", "Output", "Run"


class Format(StrEnum):
    GEOTIFF = "geotiff"
    NPY = "npy"


class Dtype(StrEnum):
    INT8 = "int8"
    FLOAT32 = "float32"


class Precision(StrEnum):
    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"
    INT8 = "int8"


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
DPixelsOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--dpixels", metavar="PATH...", rich_help_panel=SOURCE,
        help="Encode stored d-pixels instead: Zarr stores, official tile folders, or folders of either. No network.",
    ),
]  # fmt: skip
SourceOption = Annotated[
    str | None,
    typer.Option(
        "--source", metavar="mpc", envvar="TESSERA_SOURCE", rich_help_panel=SOURCE,
        help="Imagery provider.  [default: the model's own, else mpc; with --dpixels what they record]",
    ),
]  # fmt: skip
ForceSourceOption = Annotated[
    bool,
    typer.Option(
        "--force-source", rich_help_panel=SOURCE, help="Encode d-pixels of a source that the model was not trained on."
    ),
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
        help="A name of `tessera weights list` (default v2-medium), or the path of a .safetensors file or its folder.",
    ),
]  # fmt: skip
WeightsOption = Annotated[
    Path | None,
    typer.Option(
        "--weights", metavar="FILE", envvar="TESSERA_WEIGHTS", rich_help_panel=MODEL,
        help="An official checkpoint; the model is read from it.",
    ),
]  # fmt: skip
ModelConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--model-config", metavar="FILE", envvar="TESSERA_MODEL_CONFIG", rich_help_panel=MODEL,
        help="JSON in the official configuration's words: what v1.x checkpoints do not record.",
    ),
]  # fmt: skip
DimsOption = Annotated[
    int | None,
    typer.Option(
        "--dims", metavar="N", envvar="TESSERA_DIMS", rich_help_panel=MODEL,
        help="Bands: the first N of the embedding; v2 students offer 16, 32, 64 and 128.",
    ),
]  # fmt: skip
PrecisionOption = Annotated[
    Precision,
    typer.Option(
        "--precision", envvar="TESSERA_PRECISION", rich_help_panel=MODEL,
        help="Arithmetic: fp32 is exact, bf16 and int8 (CPU with VNNI) are faster. auto: bf16 on a GPU, else fp32.",
    ),
]  # fmt: skip
SeedOption = Annotated[
    int,
    typer.Option("--seed", metavar="N", min=0, envvar="TESSERA_SEED", rich_help_panel=MODEL,
                 help="What v1.0 models draw."),
]  # fmt: skip
LegacyDrawOption = Annotated[
    bool,
    typer.Option("--legacy-draw", rich_help_panel=MODEL,
                 help="v1.0: draw in the official order from numpy's legacy generator, seeded with --seed."),
]  # fmt: skip
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
FormatOption = Annotated[
    Format,
    typer.Option("--format", envvar="TESSERA_FORMAT", rich_help_panel=OUTPUT, help="GeoTIFF, or bare numpy arrays."),
]
DtypeOption = Annotated[
    Dtype,
    typer.Option(
        "--dtype", envvar="TESSERA_DTYPE", rich_help_panel=OUTPUT,
        help="int8 codes with a scale per pixel, or float32 values.",
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
