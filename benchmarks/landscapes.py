"""Simulated landscapes of several places and years, ready to pretrain on and to evaluate.

    python -m benchmarks.landscapes FOLDER castile:2022:1 mazovia:2023:2 --pixels 4000
    tessera pretrain FOLDER/castile_2022_1/dpixels --preset tiny --out run
    tessera evaluate FOLDER/castile_2022_1/series.parquet --column class --group parcel --model run --out report

Of each landscape PLACE:YEAR:SEED (`tessera simulate --place`; `plain` is the one without a place) FOLDER holds, in a
folder `PLACE_YEAR_SEED`:

    points.geojson    one point in each parcel: class, true_class, parcel
    pixels.geojson    the same points, and `--pixels` random ones without a label
    dpixels/          Zarr stores of `fetch --points pixels.geojson`
    series.parquet    ten-day medians of the clear observations of each labelled point, without radar: sample, date,
                      B02 .. B12 (DN), class, true_class, parcel, lon, lat: the form much labelled data has
    unlabelled.parquet  the same of the random points, without labels

The imagery is thrown away. What is there already stays.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import shapely

from tessera_cli.dpixels.find import find_stores
from tessera_cli.extent.grid import to_utm

BANDS = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
DEKAD = 10


class Land(NamedTuple):
    """One landscape."""

    place: str
    year: int
    seed: int

    @classmethod
    def parse(cls, text: str) -> Land:
        place, year, seed = text.split(":")
        return cls(place, int(year), int(seed))

    @property
    def name(self) -> str:
        return f"{self.place}_{self.year}_{self.seed}"


def make(
    folder: Path,
    lands: Sequence[Land],
    *,
    size: int = 512,
    pixels: int = 0,
    label_noise: float = 0.0,
    cloud: float | None = None,
) -> list[Path]:
    """Make the landscapes that are not there yet; return their folders."""
    made = []
    for land in lands:
        place = folder / land.name
        made.append(place)
        if (place / "series.parquet").exists():
            continue
        shutil.rmtree(place, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=_there(folder)) as scratch:
            catalog = Path(scratch) / "catalog"
            options: list[Any] = ["--seed", land.seed, "--size", size, "--year", land.year]
            options += ["--place", land.place] if land.place != "plain" else []
            options += ["--label-noise", label_noise] if label_noise else []
            options += ["--cloud", cloud] if cloud is not None else []
            tessera("simulate", catalog, *options, "-q")
            labelled, random = _points(catalog, pixels, land.seed)
            _write(_there(place) / "points.geojson", labelled)
            _write(place / "pixels.geojson", labelled + random)
            where = ["--points", place / "pixels.geojson", "--catalog", catalog / "items.json", "--year", land.year]
            tessera("fetch", *where, "--model", "none", "--out", place / "dpixels", "-q")
        if random:
            write_series(place / "unlabelled.parquet", place / "dpixels", random)
        write_series(place / "series.parquet", place / "dpixels", labelled)
    return made


def write_series(path: Path, dpixels: Path, points: Sequence[dict[str, Any]]) -> None:
    """Write the ten-day medians of points (GeoJSON features) as a long table: a row per sample and ten days."""
    import pyarrow
    import pyarrow.parquet

    keys = [key for key, value in points[0]["properties"].items() if value is not None]
    columns: dict[str, list[Any]] = {name: [] for name in ("sample", "date", *BANDS, *keys, "lon", "lat")}
    for number, dates, values in sorted(_series(dpixels, points), key=lambda found: found[0]):
        dekads = dates.astype("datetime64[M]") + np.minimum(
            (dates - dates.astype("datetime64[M]")).astype(int) // 10, 2
        ) * np.timedelta64(10, "D")
        said = {"sample": number, **{key: points[number]["properties"][key] for key in keys}, **_lonlat(points[number])}
        for day in np.unique(dekads):
            medians = np.rint(np.median(values[dekads == day], axis=0)).astype(int).tolist()
            for key, value in {**said, "date": day.item(), **dict(zip(BANDS, medians, strict=True))}.items():
                columns[key].append(value)
    pyarrow.parquet.write_table(pyarrow.table(columns), path)


def _series(dpixels: Path, points: Sequence[dict[str, Any]]) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield number, dates datetime64[D] (N,) and DN uint16 (N, 10) of the clear observations of each point."""
    lonlat = np.array([point["geometry"]["coordinates"] for point in points]).T
    for store in find_stores([dpixels]):
        pixels = store.read()
        tile = pixels.tile
        x, y = to_utm(int(tile.crs.split(":")[1])).transform(*lonlat)
        west, south, east, north = tile.bounds
        here = np.flatnonzero((x >= west) & (x < east) & (y > south) & (y <= north))
        columns, rows = ((x[here] - west) // 10).astype(int), ((north - y[here]) // 10).astype(int)
        for number, row, column in zip(here.tolist(), rows.tolist(), columns.tolist(), strict=True):
            clear = pixels.s2_mask[:, row, column] != 0
            yield number, pixels.s2_dates[clear], pixels.s2[clear, row, column]


def _points(catalog: Path, pixels: int, seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return a point in each parcel, and random ones in the area of interest, as GeoJSON features."""
    area = shapely.geometry.shape(json.loads((catalog / "aoi.geojson").read_text())["features"][0]["geometry"])
    labelled = []
    for each in json.loads((catalog / "labels.geojson").read_text())["features"]:
        told = each["properties"]
        point = shapely.point_on_surface(shapely.geometry.shape(each["geometry"]))
        labelled.append(_feature(point, told["class"], told.get("true_class", told["class"]), told["parcel_id"]))
    rng, random = np.random.default_rng((seed, 31)), []
    west, south, east, north = area.bounds
    while len(random) < pixels:
        point = shapely.Point(rng.uniform((west, south), (east, north)))
        if area.contains(point):
            random.append(_feature(point, None, None, None))
    return labelled, random


def _feature(point: shapely.Point, told: str | None, true: str | None, parcel: int | None) -> dict[str, Any]:
    told_of = {"class": told, "true_class": true, "parcel": parcel}
    return {"type": "Feature", "properties": told_of, "geometry": shapely.geometry.mapping(point)}


def _lonlat(point: dict[str, Any]) -> dict[str, float]:
    return dict(zip(("lon", "lat"), point["geometry"]["coordinates"], strict=True))


def _write(path: Path, features: list[dict[str, Any]]) -> None:
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))


def _there(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def tessera(*arguments: Any) -> None:
    """Run a command of the package."""
    subprocess.run([sys.executable, "-m", "tessera_cli", *map(str, arguments)], check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folder", type=Path)
    options.add_argument("lands", type=Land.parse, nargs="+", metavar="PLACE:YEAR:SEED")
    options.add_argument("--size", type=int, default=512, help="of a landscape, in pixels")
    options.add_argument("--pixels", type=int, default=0, help="random pixels without a label beside those of parcels")
    options.add_argument("--label-noise", type=float, default=0.0)
    options.add_argument("--cloud", type=float)
    args = options.parse_args()
    asked = {"size": args.size, "pixels": args.pixels, "label_noise": args.label_noise, "cloud": args.cloud}
    for folder in make(args.folder, args.lands, **asked):
        print(folder)


if __name__ == "__main__":
    main()
