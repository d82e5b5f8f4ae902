"""Every option, declared once: the same name means the same on every verb, and is the name of the Python argument.

Each option that takes a value can also be set by the environment variable shown in the help, unless `env` is False.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import typer

AREA, TIME, SOURCE, MODEL, OUTPUT, RUN = "Area", "Time", "Source", "Model", "Output", "Run"


class Option(NamedTuple):
    """Type, help and settings of an option, without its name."""

    type: Any
    group: str
    help: str
    more: dict[str, Any]

    def named(self, name: str) -> Any:
        """Return the annotation of the parameter `name`; `min_s2` becomes --min-s2 and TESSERA_MIN_S2."""
        more = {"env": self.type is not bool, "flag": name.replace("_", "-"), "short": (), "values": None, **self.more}
        flag, env, short, values = (more.pop(key) for key in ("flag", "env", "short", "values"))
        if values is not None:
            more["autocompletion"] = completion(values)
        envvar = f"TESSERA_{flag.replace('-', '_').upper()}" if env else None
        return Annotated[
            self.type,
            typer.Option(f"--{flag}", *short, help=self.help, rich_help_panel=self.group, envvar=envvar, **more),
        ]


def option(type: Any, group: str, help: str, **more: Any) -> Option:
    """Return an option. `more`: `flag` if it is not the parameter's name, `short`, `env`, and what Typer takes.

    `values`: a function that returns what a shell may offer where the type does not tell.
    """
    return Option(type, group, help, more)


def completion(values: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """Return the completion of a word to one of the values; a shell goes on with files where none fits."""

    def complete(incomplete: str) -> list[str]:
        return [value for value in values() if value.startswith(incomplete)]

    return complete


def model_names() -> list[str]:
    """Return the names of the released models."""
    from tessera_cli.models.registry import available

    return available()


Out = Path | None
AREA_ARGUMENT = Annotated[
    str | None, typer.Argument(metavar="AOI", help="The area of interest: the same as --aoi.", show_default=False)
]

STORED: dict[str, Any] = {
    "folder": Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder that `tessera embed` wrote.")],
    "year": option(
        list[str] | None,
        TIME,
        "Calendar year, or several: 2023,2024 or 2017-2024; repeatable.  [default: all that the folder holds]",
        metavar="YEAR",
        env=False,
    ),
    "window": option(
        list[str] | None,
        TIME,
        "A window of the folder, 2023-07/2024-06 or as in the names of files 20230701-20240630; repeatable.",
        metavar="WINDOW",
        env=False,
    ),
}
"""What the verbs that read a folder take: which one, and which of its windows. The environment says what to embed."""

OPTIONS: dict[str, Option] = {
    "aoi": option(
        str | None,
        AREA,
        "Polygons: GeoJSON, GeoPackage, Shapefile, KML or a folder of them; - reads GeoJSON from standard input.",
        metavar="FILE|-",
        env=False,
    ),
    "layer": option(
        str | None, AREA, "Use one layer of the file.  [default: all that hold areas]", metavar="NAME", env=False
    ),
    "bbox": option(
        tuple[float, float, float, float] | None,
        AREA,
        "A box in degrees, in place of --aoi.",
        metavar="W S E N",
        env=False,
    ),
    "points": option(
        Path | None,
        AREA,
        "Points or polygons, in place of --aoi: only their pixels, as a table. GeoPackage, GeoJSON, CSV (lon, lat), "
        "GeoParquet.",
        metavar="FILE",
        env=False,
    ),
    "mask": option(Path | None, AREA, "Embed only pixels whose value in this raster is not 0.", metavar="RASTER"),
    "fill_bbox": option(bool, AREA, "Embed the whole bounding box of the area (in UTM)."),
    "crs": option(str | None, AREA, "Force one UTM zone, such as EPSG:32631.", metavar="EPSG"),
    "year": option(
        list[str] | None, TIME, "Calendar year, or several: 2023,2024 or 2017-2024; repeatable.", metavar="YEAR"
    ),
    "window": option(
        list[str] | None, TIME, "Months or days, ends included: 2023-07/2024-06; repeatable.", metavar="FROM/TO"
    ),
    "dpixels": option(
        list[Path] | None,
        SOURCE,
        "Encode stored d-pixels instead: Zarr stores, official tile folders, or folders of either. No network. "
        "Zarr stores record their source and preprocessing, official folders do not.",
        metavar="PATH...",
        env=False,
    ),
    "source": option(
        str | None,
        SOURCE,
        "Imagery provider.  [default: the model's own, else mpc]",
        metavar="mpc|aws",
        values=lambda: ("mpc", "aws"),
    ),
    "force_source": option(bool, SOURCE, "Allow a source that the model was not trained on."),
    "catalog": option(
        str | None,
        SOURCE,
        "Another STAC API, a static catalogue, an ItemCollection (.json, .ndjson, .ndjson.gz, .parquet) or its folder.",
        metavar="URL|FILE",
    ),
    "radar_catalog": option(
        str | None, SOURCE, "aws: another CMR granule search, or an ItemCollection of OPERA RTC-S1.", metavar="URL|FILE"
    ),
    "allow_outside": option(bool, SOURCE, "Let a catalogue on this machine name files outside its own folder."),
    "allow_private_hosts": option(
        bool, SOURCE, "Let a catalogue on the web name hosts of private networks and this machine."
    ),
    "preprocessing": option(
        Literal["official", "corrected"] | None,
        SOURCE,
        "official: what the released models were trained on; corrected: offsets by processing baseline, one copy of "
        "each acquisition.  [default: official]",
    ),
    "allow_no_radar": option(bool, SOURCE, "Go on when the catalogue has no Sentinel-1."),
    "model": option(
        str | None,
        MODEL,
        "A name of `tessera weights list` (default v2-medium), or the path of a .safetensors file or its folder.",
        metavar="NAME|PATH",
        values=model_names,
    ),
    "weights": option(Path | None, MODEL, "An official checkpoint; the model is read from it.", metavar="FILE"),
    "model_config": option(
        Path | None,
        MODEL,
        "JSON in the official configuration's words: what v1.x checkpoints do not record.",
        metavar="FILE",
    ),
    "dims": option(
        int | None, MODEL, "Bands: the first N of the embedding; v2 students offer 16, 32, 64 and 128.", metavar="N"
    ),
    "precision": option(
        Literal["auto", "fp32", "bf16", "int8"],
        MODEL,
        "Arithmetic: fp32 is exact, bf16 and int8 (CPU with VNNI) are faster. auto: bf16 on a GPU, else fp32.",
    ),
    "seed": option(int, MODEL, "Random seed (v1.0 models only).", metavar="N", min=0),
    "legacy_draw": option(
        bool, MODEL, "v1.0: draw in the official order from numpy's legacy generator, seeded with --seed."
    ),
    "min_s2": option(
        int, MODEL, "Pixels with fewer clear Sentinel-2 observations get no embedding.", metavar="N", min=0
    ),
    "uncertainty": option(
        int,
        MODEL,
        "Also write how far other dates would move each embedding, told by halving its dates so many times (4 are "
        "enough; each takes as long as the embeddings).",
        metavar="TIMES",
        min=0,
    ),
    "min_s1": option(int, MODEL, "Pixels with fewer Sentinel-1 observations get no embedding.", metavar="N", min=0),
    "out": option(Out, OUTPUT, "Output folder.  [default: ./<aoi>_<window>_<model>]", short=("-o",), metavar="DIR"),
    "format": option(
        Literal["geotiff", "npy"] | None,
        OUTPUT,
        "GeoTIFF, or bare numpy arrays; not of points.  [default: geotiff]",
    ),
    "dtype": option(Literal["int8", "float32"], OUTPUT, "int8 codes with a scale per pixel, or float32 values."),
    "compress": option(Literal["zstd", "deflate", "none"], OUTPUT, "Compression of the rasters."),
    "preview": option(bool, OUTPUT, "Draw the folder in the end, as `tessera preview` does."),
    "allow_missing": option(
        int, RUN, "Scenes per tile that may be absent or broken before the tile fails.", metavar="N", min=0
    ),
    "refresh": option(bool, RUN, "Search again instead of using the frozen scene list."),
    "tile": option(
        list[str] | None, RUN, "Take only this tile, by its id or name; repeatable.", metavar="ID", env=False
    ),
    "retry_failed": option(bool, RUN, "Take only tiles that failed before.", env=False),
    "overwrite": option(bool, RUN, "Make tiles again though they are finished.", env=False),
    "shard": option(
        str | None,
        RUN,
        "Take this share of the tiles: 2/5, or auto in a job array. Freeze the scenes with `plan --out` first.",
        metavar="I/N|auto",
    ),
    "deadline": option(
        str | None,
        RUN,
        "End by then, such as 55m, beginning no tile that takes longer.  [default: that of the Slurm job]",
        metavar="TIME",
    ),
    "workers": option(
        int | None, RUN, "Processes to spread the tiles over, one per GPU or share of the cores.", metavar="N", min=1
    ),
    "scheduler": option(str | None, RUN, "A Dask scheduler to spread the tiles over.", metavar="ADDRESS"),
    "device": option(str, RUN, "Where to compute.", metavar="auto|cpu|cuda", values=lambda: ("auto", "cpu", "cuda")),
    "threads": option(
        int | None, RUN, "Cores to compute with.  [default: those this process may use]", metavar="N", min=1
    ),
    "as_json": option(bool, RUN, "Machine-readable results on standard output.", flag="json"),
    "verbose": option(
        int, RUN, "Say more; -vv also what libraries say.", short=("-v",), count=True, show_default=False, env=False
    ),
    "quiet": option(
        int, RUN, "Say less: no bar, only warnings.", short=("-q",), count=True, show_default=False, env=False
    ),
    "debug": option(bool, RUN, "Show tracebacks (or set TESSERA_DEBUG=1)."),
}
SWITCHES = {"as_json": False, "verbose": 0, "quiet": 0, "debug": False}
"""What every verb has, and the defaults."""
