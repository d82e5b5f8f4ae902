"""`tessera export`: embeddings in the forms that other programs open."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any, Literal

from tessera_cli.api import export as library
from tessera_cli.cli import terminal as terminals
from tessera_cli.cli.options import OUTPUT, STORED, option
from tessera_cli.cli.terminal import Terminal
from tessera_cli.cli.units import size
from tessera_cli.cli.verb import verb

logger = logging.getLogger(__name__)

OWN: dict[str, Any] = {
    **STORED,
    "to": option(
        Literal["cog", "zarr", "npy", "geotessera", "torchgeo"],
        OUTPUT,
        "cog: GeoTIFFs for GIS; zarr: for xarray and geotessera; npy: numpy arrays; geotessera, torchgeo: their 0.1 "
        "degree cells.",
        env=False,
    ),
    "out": option(Path, OUTPUT, "Folder, or Zarr store, to write.", short=("-o",), metavar="DEST", env=False),
    "crs": option(
        str | None,
        OUTPUT,
        "cog: merge all zones in this coordinate system, such as EPSG:3035.",
        metavar="EPSG",
        env=False,
    ),
    "resolution": option(
        float | None, OUTPUT, "With --crs: size of a pixel in its units.  [default: 10 m]", metavar="SIZE", env=False
    ),
    "resampling": option(
        Literal["nearest", "bilinear"], OUTPUT, "With --crs: keep vectors as they are, or mix neighbours.", env=False
    ),
    "dtype": option(
        Literal["float32", "int8"] | None,
        OUTPUT,
        "float32 values, or int8 codes and their scales.  [default: float32 of cog and torchgeo, else int8]",
        env=False,
    ),
    "compress": option(
        Literal["zstd", "deflate", "none"], OUTPUT, "Compression of rasters; most programs read deflate.", env=False
    ),
}


@verb(library.export, **OWN)
def export(terminal: Terminal, **given: Any) -> None:
    """Write embeddings in a form that other programs open.

    Prints the paths of the files, of zarr and geotessera that of the whole. DEST appears whole or not at all; an
    earlier export of the same embeddings to the same target is replaced.

    Examples:

      tessera export field_2023_v2-medium --to cog -o field_tif

      tessera export field_2023_v2-medium --to cog --crs EPSG:3035 -o field_laea

      tessera export field_2023_v2-medium --to zarr -o field.zarr

      tessera export field_2023_v2-medium --to geotessera -o field_geotessera
    """
    with PixelBar(terminal, "exporting") as progress:
        made = library.export(**given, progress=progress)
    paths = [made.path] if made.to in ("zarr", "geotessera") else made.files
    terminal.tell(made.to_dict(), map(str, paths))
    logger.info("wrote %s in %d files", size(made.bytes), sum(file.is_file() for file in made.path.rglob("*")))
    if made.to == "geotessera":
        from tessera_cli.exports.geotessera import opener

        terminal.suggest(f"in Python {opener(made.path)}")


class PixelBar:
    """A bar of pixels on a terminal, else a line a minute."""

    def __init__(self, terminal: Terminal, what: str) -> None:
        self.terminal, self.what, self.last = terminal, what, time.monotonic()
        self.bars: Any = None

    def __enter__(self) -> Any:
        if not self.terminal.draws:
            return self._log
        from rich.progress import BarColumn, TaskProgressColumn, TimeRemainingColumn

        self.bars = self.terminal.start_bars(self.what, BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        return self.bars

    def __exit__(self, *exc: object) -> None:
        if self.bars is not None:
            self.bars.stop()

    def _log(self, done: int, total: int) -> None:
        if time.monotonic() - self.last >= terminals.HEARTBEAT_SECONDS:
            self.last = time.monotonic()
            logger.info("%.0f %% of %d pixels", 100 * done / max(total, 1), total)
