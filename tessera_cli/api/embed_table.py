"""`embed_table`: a long table of time series, a row per sample and date, to a table of embeddings."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tessera_cli.errors import NothingToEmbedError, UsageError, counted

if TYPE_CHECKING:
    from tessera_cli.api.arguments import AnyPath, PrecisionName, Windows, Years
    from tessera_cli.extent.window import Window
    from tessera_cli.folders.identity import EmbedSettings
    from tessera_cli.models.model_config import AnyModelConfig
    from tessera_cli.outputs.layers import Dtype
    from tessera_cli.series.mapping import AnyColumns
    from tessera_cli.series.table import SeriesTable
    from tessera_cli.tables.samples import Samples

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EmbeddedTable:
    """The result of `embed_table`."""

    path: Path
    """The table that was written."""
    window: str
    samples: int
    embedded: int
    """Samples with an embedding."""
    notes: tuple[str, ...]
    """What was left out or assumed of the series, a line each."""

    def to_dict(self) -> dict[str, Any]:
        """Return the line of `--json`."""
        return {
            "type": "table",
            "schema": 1,
            "path": str(self.path),
            "window": self.window,
            "samples": self.samples,
            "embedded": self.embedded,
            "notes": list(self.notes),
        }


def embed_table(
    table: AnyPath,
    *,
    columns: AnyColumns = None,
    year: Years | None = None,
    window: Windows | None = None,
    source: str | None = None,
    force_source: bool = False,
    model: AnyPath | None = None,
    weights: AnyPath | None = None,
    model_config: AnyModelConfig | None = None,
    dims: int | None = None,
    precision: PrecisionName = "auto",
    min_s2: int = 1,
    min_s1: int = 0,
    seed: int = 0,
    out: AnyPath | None = None,
    dtype: Dtype = "int8",
    device: str = "auto",
    threads: int | None = None,
    progress: Any = None,
) -> EmbeddedTable:
    """Turn time series of points into embeddings, as `embed` makes them of the same observations in a raster.

    The columns of the table are described in docs/series.md.

    Args:
        table: Parquet, GeoParquet or CSV, a row per sample and date.
        columns: What its columns are called and mean where the usual names do not tell: the path of a TOML file, a
            mapping, or texts such as `"B02=blue"`.
        year: The calendar year to take of it. Default: all dates, which must span 366 days at the most.
        window: Or a range of months or days, such as `2023-07/2024-06`.
        source: `mpc` or `aws`, whose statistics a v1.1 model takes. Default: the model's own.
        force_source: Use a source that the model was not trained on.
        model: Name of a released model (default `v2-medium`), or path of a .safetensors file or its folder.
        weights: Path of an official checkpoint; the model is read from it.
        model_config: What v1.x checkpoints do not record: path of a JSON file, or a mapping in its words.
        dims: Number of bands: the first N values of the embedding.
        precision: Arithmetic. `fp32` is exact; `auto` is bf16 on a GPU that has it, else fp32.
        min_s2: Samples with fewer Sentinel-2 observations get no embedding.
        min_s1: Samples with fewer Sentinel-1 observations get no embedding.
        seed: Random seed (v1.0 models only).
        out: The table to write: a name in .parquet (GeoParquet) or .csv. Default: `./<table>_<window>_<model>.parquet`.
        dtype: `int8`: the values are codes times scales, as rasters hold them; `float32`: as the encoder gives them.
        device: `auto`, `cpu`, `cuda` or `cuda:1`.
        threads: Cores to compute with. Default: those that this process may use.
        progress: Called with (samples done, samples in all); or a `tqdm` bar or a `rich.progress.Progress`.

    Returns:
        The path of the table, a row per sample as `sample` writes it: id, window, status, place, counts of
        observations, the sample's own columns, and `Tessera_Band_0` and so on.

    Raises:
        TesseraError: UsageError for what cannot be read or written, NothingToEmbedError if no sample has enough
            observations, IdentityError if model and source do not belong together.
    """
    from tessera_cli.api.arguments import (
        PrecisionName,
        as_windows,
        check_choices,
        check_numbers,
        default_out,
    )
    from tessera_cli.api.progress import Bar
    from tessera_cli.folders.identity import EmbedSettings
    from tessera_cli.models import load_model
    from tessera_cli.outputs.layers import Dtype
    from tessera_cli.series.mapping import Columns
    from tessera_cli.series.read import read_table
    from tessera_cli.tables.write import check_table, write_table

    check_choices(dtype=(dtype, Dtype), precision=(precision, PrecisionName))
    check_numbers(threads=threads, min_s2=min_s2, min_s1=min_s1, seed=seed)
    path, bar = Path(table), Bar(progress)
    if out is not None:
        check_table(out := Path(out))
        if out.exists() and path.exists() and out.samefile(path):
            raise UsageError(f"{out} holds the series, and would be replaced by the embeddings. Choose another --out.")
    mapping = Columns.of(columns)
    loaded = load_model(model, weights=weights, model_config=model_config, device=device, precision=precision)
    wanted: dict[str, Any] = {"force_source": force_source, "dims": dims, "dtype": dtype}
    settings = EmbedSettings.checked(loaded, source, min_s2=min_s2, min_s1=min_s1, seed=seed, **wanted)
    series = read_table(path, mapping, window=one_window(as_windows(year, window) if year or window else ()))
    for note in series.notes:
        logger.warning("%s: %s", path, note)
    if out is None:
        folder = default_out(f"{path.stem}_{series.window}", settings.model.name)
        check_table(out := folder.with_name(f"{folder.name}.parquet"))
    bar.start(len(series))
    embedded: list[int] = []
    write_table(out, _batches(series, settings, threads, bar, embedded))
    found = sum(embedded)
    if found < len(series):
        lacking = counted(len(series) - found, "sample")
        logger.warning("%s: %s of %s have too few observations", path, lacking, f"{len(series):,}")
    return EmbeddedTable(out, series.window.name, len(series), found, series.notes)


def one_window(windows: tuple[Window, ...]) -> Window | None:
    """Return the one window that is given, or None; UsageError for several."""
    if len(windows) > 1:
        raise UsageError(f"A table of series has one window, and {len(windows)} are given. Run once for each.")
    return windows[0] if windows else None


def _batches(
    series: SeriesTable, settings: EmbedSettings, threads: int | None, bar: Any, embedded: list[int]
) -> Iterator[Samples]:
    """Yield the rows of the table, some thousand at a time; NothingToEmbedError in the end if none has an embedding."""
    import numpy as np
    import shapely

    from tessera_cli import config
    from tessera_cli.series.encode import encode_parts
    from tessera_cli.tables.places import Places
    from tessera_cli.tables.samples import Samples

    parts = encode_parts(
        series.pixels,
        series.window,
        settings.model,
        dims=settings.dims,
        quantiser=settings.quantiser,
        min_s2=settings.min_s2,
        min_s1=settings.min_s1,
        seed=settings.seed,
        threads=threads or config.threads(),
        progress=bar.advance,
    )
    for part, made in parts:
        lonlat = series.lonlat[part]
        geometries = np.full(len(lonlat), None, object)
        known = np.isfinite(lonlat).all(axis=1)
        geometries[known] = shapely.points(lonlat[known])
        columns = {name: values[part] for name, values in series.columns.items()}
        status = np.full((len(lonlat), 1), "none", object)
        status[made.valid] = "ok"
        embedded.append(int(made.valid.sum()))
        yield Samples(
            places=Places(series.origin, "point", geometries, series.ids[part], columns),
            windows=(series.window.name,),
            values=made.floats()[:, None],
            std=None,
            counts=made.counts[:, None].astype(np.float32),
            pixels=made.valid[:, None].astype(np.int64),
            status=status,
            tiles=np.full(status.shape, "", object),
        )
    if not sum(embedded):
        raise NothingToEmbedError(
            f"{series.origin}: none of {counted(len(series), 'sample')} has {settings.min_s2} or more observations of "
            f"Sentinel-2 and {settings.min_s1} or more of Sentinel-1 in {series.window}. Lower --min-s2 or --min-s1."
        )
