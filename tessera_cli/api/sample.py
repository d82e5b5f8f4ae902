"""`sample`: embeddings at points and over polygons."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, TextIO, overload

if TYPE_CHECKING:
    import xarray

    from tessera_cli.api.arguments import AnyPath, Windows, Years
    from tessera_cli.tables.outcome import Sampled
    from tessera_cli.tables.places import AnyPlaces

Order = Literal["file", "hilbert"]


@overload
def sample(
    folder: AnyPath,
    *,
    places: AnyPlaces,
    layer: str | None = None,
    year: Years | None = None,
    window: Windows | None = None,
    order: Order = "file",
    out: None = None,
) -> xarray.Dataset: ...
@overload
def sample(
    folder: AnyPath,
    *,
    places: AnyPlaces,
    layer: str | None = None,
    year: Years | None = None,
    window: Windows | None = None,
    order: Order = "file",
    out: AnyPath | TextIO,
) -> Sampled: ...
def sample(
    folder: AnyPath,
    *,
    places: AnyPlaces,
    layer: str | None = None,
    year: Years | None = None,
    window: Windows | None = None,
    order: Order = "file",
    out: AnyPath | TextIO | None = None,
) -> xarray.Dataset | Sampled:
    """Return the embedding at each point, or the mean over each polygon, for every window of a folder.

    A polygon's pixels are those whose centre lies inside; one that holds none has the pixel under it (status `small`).
    Every place is looked up in all UTM zones of the folder; where tiles overlap, in the place's own zone first. Places
    without an embedding are kept, with NaN and the status `none` (no embedding there) or `outside` (no tile there).

    Args:
        folder: The output folder of `embed`, of any format.
        places: Points or polygons: the path of a GeoPackage, GeoJSON, Shapefile, FlatGeobuf, KML, GeoParquet or CSV
            file (columns lon and lat in degrees), a GeoDataFrame, shapely geometries in degrees, or an array (N, 2) of
            longitude and latitude.
        layer: The layer of a file that has several.
        year: Calendar years, such as 2023, "2022,2023" or "2017-2024". Default: all windows of the folder.
        window: Ranges of dates such as "2023-07/2024-06", or names of windows such as "20230701-20240630".
        order: Of the places: `file`, as they were given, or `hilbert`, along a curve on which neighbours in the table
            are neighbours on the ground, so that a large Parquet table can be read by area.
        out: A table to write: a name in .parquet (GeoParquet 1.1; needs the extra `tables`) or .csv, or a text stream,
            which gets CSV. One row per place and window; written a part at a time, whatever the number of places.

    Returns:
        Without `out` a Dataset of P places, W windows and R bands, in memory (P * W * R * 4 bytes): `embedding` and,
        of polygons, `std`, float32 (place, window, band); `counts`, float32 (place, window, sensor), the observations
        used, of polygons their mean; of folders that have it `uncertainty`, float32 (place, window); `pixels`,
        `status` and `tile` (place, window). The coordinate `place` is the column `id` of the file, or the number of the
        row from 0; the file's other columns are coordinates, too. With `out` a `Sampled`: the path, and how many rows
        have which status.

    Raises:
        UsageError: The folder, the places, a window or the name of the table cannot be used.
        NothingToEmbedError: No place has an embedding.
        TileError: A file of the folder cannot be read.
    """
    from tessera_cli.api.arguments import check_choices, chosen_windows
    from tessera_cli.embeddings.folder import EmbeddingFolder
    from tessera_cli.errors import UsageError
    from tessera_cli.tables import csv_table
    from tessera_cli.tables.dataset import to_dataset
    from tessera_cli.tables.hilbert import hilbert_order
    from tessera_cli.tables.outcome import Tally
    from tessera_cli.tables.places import Places
    from tessera_cli.tables.sample import sample as run
    from tessera_cli.tables.write import check_table, write_table

    check_choices(order=(order, Order))
    if isinstance(out, str | Path):
        check_table(out := Path(out))
        if isinstance(places, str | Path) and out.exists() and Path(places).exists() and out.samefile(places):
            raise UsageError(f"{out} holds the places, and would be replaced by the table. Choose another --out.")
    opened = EmbeddingFolder.open(folder, chosen_windows(year, window))
    found = Places.of(places, layer=layer)
    if order == "hilbert":
        found = found.take(hilbert_order(found.lonlat))
    tally = Tally(opened, found)
    batches = tally.watch(run(opened, found))
    if out is None:
        return to_dataset(found, batches)
    if isinstance(out, Path):
        write_table(out, batches)
        return tally.outcome(out)
    csv_table.stream(out, batches)
    return tally.outcome(None)
