"""Every option that more than one verb takes, declared once: the same name means the same everywhere.

Each can also be set by the environment variable shown in the help.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

AREA, TIME, SOURCE, MODEL, OUTPUT, RUN = "Area", "Time", "Source", "Model", "Output", "Run"


def option(flag: str, group: str, help: str, *short: str, env: bool = True, **more: Any) -> Any:
    """An option that takes a value. With `env`, --min-s2 can also be set by TESSERA_MIN_S2."""
    envvar = "TESSERA_" + flag.removeprefix("--").replace("-", "_").upper() if env else None
    return typer.Option(flag, *short, help=help, rich_help_panel=group, envvar=envvar, **more)


def switch(flag: str, group: str, help: str, *short: str, **more: Any) -> Any:
    """An option that takes none, on the command line alone."""
    return option(flag, group, help, *short, env=False, **more)


AoiArgument = Annotated[
    str | None, typer.Argument(metavar="AOI", help="The area of interest: the same as --aoi.", show_default=False)
]
AoiOption = Annotated[
    str | None,
    option(
        "--aoi",
        AREA,
        "Polygons: GeoJSON, GeoPackage or Shapefile; - reads GeoJSON from standard input.",
        metavar="FILE|-",
        env=False,
    ),
]
BboxOption = Annotated[
    tuple[float, float, float, float] | None,
    option("--bbox", AREA, "A box in degrees, in place of --aoi.", metavar="W S E N", env=False),
]
MaskOption = Annotated[
    Path | None, option("--mask", AREA, "Embed only pixels whose value in this raster is not 0.", metavar="RASTER")
]
FillBboxOption = Annotated[bool, switch("--fill-bbox", AREA, "Embed the whole bounding box of the area (in UTM).")]
CrsOption = Annotated[str | None, option("--crs", AREA, "Force one UTM zone, such as EPSG:32631.", metavar="EPSG")]
YearOption = Annotated[list[int] | None, option("--year", TIME, "Calendar year; repeatable.", metavar="YEAR")]
WindowOption = Annotated[
    list[str] | None,
    option("--window", TIME, "Months or days, ends included: 2023-07/2024-06; repeatable.", metavar="FROM/TO"),
]
DPixelsOption = Annotated[
    list[Path] | None,
    option(
        "--dpixels",
        SOURCE,
        "Encode stored d-pixels instead: Zarr stores, official tile folders, or folders of either. No network. "
        "Zarr stores record their source and preprocessing, official folders do not.",
        metavar="PATH...",
        env=False,
    ),
]
SourceOption = Annotated[
    str | None, option("--source", SOURCE, "Imagery provider.  [default: the model's own, else mpc]", metavar="mpc|aws")
]
ForceSourceOption = Annotated[
    bool, switch("--force-source", SOURCE, "Encode d-pixels of a source that the model was not trained on.")
]
CatalogOption = Annotated[
    str | None,
    option(
        "--catalog",
        SOURCE,
        "Another STAC API, a static catalogue or an ItemCollection (.json, .ndjson, .ndjson.gz, .parquet).",
        metavar="URL|FILE",
    ),
]
RadarCatalogOption = Annotated[
    str | None,
    option(
        "--radar-catalog",
        SOURCE,
        "aws: another CMR granule search, or an ItemCollection of OPERA RTC-S1.",
        metavar="URL|FILE",
    ),
]
PreprocessingOption = Annotated[
    Literal["official", "corrected"] | None,
    option(
        "--preprocessing",
        SOURCE,
        "official: what the released models were trained on; corrected: offsets by processing baseline, one copy of "
        "each acquisition.  [default: official]",
    ),
]
AllowNoRadarOption = Annotated[bool, switch("--allow-no-radar", SOURCE, "Go on when the catalogue has no Sentinel-1.")]
ModelOption = Annotated[
    str | None,
    option(
        "--model",
        MODEL,
        "A name of `tessera weights list` (default v2-medium), or the path of a .safetensors file or its folder.",
        metavar="NAME|PATH",
    ),
]
WeightsOption = Annotated[
    Path | None, option("--weights", MODEL, "An official checkpoint; the model is read from it.", metavar="FILE")
]
ModelConfigOption = Annotated[
    Path | None,
    option(
        "--model-config",
        MODEL,
        "JSON in the official configuration's words: what v1.x checkpoints do not record.",
        metavar="FILE",
    ),
]
DimsOption = Annotated[
    int | None,
    option("--dims", MODEL, "Bands: the first N of the embedding; v2 students offer 16, 32, 64 and 128.", metavar="N"),
]
PrecisionOption = Annotated[
    Literal["auto", "fp32", "bf16", "int8"],
    option(
        "--precision",
        MODEL,
        "Arithmetic: fp32 is exact, bf16 and int8 (CPU with VNNI) are faster. auto: bf16 on a GPU, else fp32.",
    ),
]
SeedOption = Annotated[int, option("--seed", MODEL, "What v1.0 models draw.", metavar="N", min=0)]
LegacyDrawOption = Annotated[
    bool,
    switch(
        "--legacy-draw", MODEL, "v1.0: draw in the official order from numpy's legacy generator, seeded with --seed."
    ),
]
MinS2Option = Annotated[
    int,
    option("--min-s2", MODEL, "Pixels with fewer clear Sentinel-2 observations get no embedding.", metavar="N", min=0),
]
MinS1Option = Annotated[
    int, option("--min-s1", MODEL, "Pixels with fewer Sentinel-1 observations get no embedding.", metavar="N", min=0)
]
PlanOutOption = Annotated[
    Path | None,
    option("--out", OUTPUT, "Freeze the scene list in this output folder, for embed to use.", "-o", metavar="DIR"),
]
OutOption = Annotated[
    Path | None, option("--out", OUTPUT, "Output folder.  [default: ./<aoi>_<window>_<model>]", "-o", metavar="DIR")
]
FormatOption = Annotated[Literal["geotiff", "npy"], option("--format", OUTPUT, "GeoTIFF, or bare numpy arrays.")]
DtypeOption = Annotated[
    Literal["int8", "float32"], option("--dtype", OUTPUT, "int8 codes with a scale per pixel, or float32 values.")
]
CompressOption = Annotated[
    Literal["zstd", "deflate", "none"], option("--compress", OUTPUT, "Compression of the rasters.")
]
AllowMissingOption = Annotated[
    int,
    option(
        "--allow-missing",
        RUN,
        "Scenes per tile that may be absent or broken before the tile fails.",
        metavar="N",
        min=0,
    ),
]
RefreshOption = Annotated[bool, switch("--refresh", RUN, "Search again instead of using the frozen scene list.")]
DeviceOption = Annotated[str, option("--device", RUN, "Where to compute.", metavar="auto|cpu|cuda")]
ThreadsOption = Annotated[
    int | None,
    option("--threads", RUN, "Cores to compute with.  [default: those this process may use]", metavar="N", min=1),
]
JsonOption = Annotated[bool, switch("--json", RUN, "Machine-readable results on standard output.")]
VerboseOption = Annotated[
    int, switch("--verbose", RUN, "Say more; -vv also what libraries say.", "-v", count=True, show_default=False)
]
QuietOption = Annotated[
    int, switch("--quiet", RUN, "Say less: no bar, only warnings.", "-q", count=True, show_default=False)
]
DebugOption = Annotated[bool, switch("--debug", RUN, "Show tracebacks (or set TESSERA_DEBUG=1).")]
