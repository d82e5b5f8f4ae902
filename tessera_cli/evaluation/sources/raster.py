"""GeoTIFFs as a source: float32 bands, codes with a raster of scales, or AlphaEarth's 64 bands of int8."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from rasterio.windows import Window

from tessera_cli.embeddings.tile import Box
from tessera_cli.errors import UsageError, listed, plainly
from tessera_cli.evaluation.sources.tiled import TiledSource
from tessera_cli.extent.raster import open_raster

TIFF = (".tif", ".tiff")
BESIDE = ("_scales", "_counts", "_uncertainty", "_roi")
"""How the names of rasters end that lie beside embeddings."""
ALPHAEARTH_BANDS, ALPHAEARTH_NODATA = 64, -128
MODEL_TAGS = ("TESSERA_MODEL_NAME", "TESSERA_DATASET_VERSION", "TESSERA_DATASET_VARIANT", "TESSERA_PREPROCESSING")
"""What must be equal for rasters to be of one source."""


@dataclass(frozen=True, eq=False)
class RasterPiece:
    """One GeoTIFF. A pixel without a finite value in every band has no embedding."""

    path: Path
    crs: str
    transform: Affine
    shape: tuple[int, int]
    bands: int
    dtype: str
    nodata: float | None
    factors: tuple[np.ndarray, np.ndarray] | None
    """Scale and offset by band, float32 (D, 1) each, where the file's tags have any."""
    scales: Path | None
    tags: Mapping[str, str]

    @classmethod
    def open(cls, path: Path) -> RasterPiece:
        """Look at a file; UsageError unless it has a place and values that can be told."""
        with _opened(path) as src:
            if src.crs is None:
                raise UsageError(f"{path} has no CRS, so its place on Earth is unknown. Assign one.")
            if len(set(src.dtypes)) > 1 or np.dtype(src.dtypes[0]).kind == "c":
                raise UsageError(f"{path} holds {listed(sorted(set(src.dtypes)))}. Give bands of one type of numbers.")
            scale, offset = np.array(src.scales, np.float32), np.array(src.offsets, np.float32)
            found = cls(
                path=path,
                crs=src.crs.to_string(),
                transform=src.transform,
                shape=src.shape,
                bands=src.count,
                dtype=src.dtypes[0],
                nodata=src.nodata,
                factors=None if (scale == 1).all() and (offset == 0).all() else (scale[:, None], offset[:, None]),
                scales=_scales_of(path),
                tags={name: value for name, value in src.tags().items() if name.startswith("TESSERA_")},
            )
        if found.scales is not None and found.dtype == "int8":
            with _opened(found.scales) as src:
                if (src.shape, src.crs and src.crs.to_string()) != (found.shape, found.crs) or src.count != 1:
                    raise UsageError(f"{found.scales} is no band of scales on the pixels of {path}. Write both anew.")
        if found.dtype == "int8" and not (found.scales or found.factors or found.is_alphaearth):
            raise UsageError(
                f"{path} holds codes (int8), and no scales: neither {path.stem}_scales.tif nor scales of bands. Give "
                "float32, or codes with scales."
            )
        return found

    @property
    def is_alphaearth(self) -> bool:
        """Whether it is a tile of the AlphaEarth Foundations annual embeddings, as Google stores them."""
        return self.dtype == "int8" and self.bands == ALPHAEARTH_BANDS and self.nodata in (ALPHAEARTH_NODATA, None)

    def valid(self, box: Box) -> np.ndarray:
        if self.dtype == "int8" and self.scales is not None:
            return np.asarray(np.isfinite(self._read(self.scales, box, [1])[0]))
        # elsewhere a band that is absent may be any of them
        codes = self.dtype == "int8" and self.factors is None
        first = self._read(self.path, box, [1] if codes else None)
        there = np.isfinite(first) if first.dtype.kind == "f" else np.ones(first.shape, bool)
        nodata = ALPHAEARTH_NODATA if codes else self.nodata
        if nodata is not None and not np.isnan(nodata):
            there &= first != nodata
        return np.asarray(there.all(axis=0))

    def vectors(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        top, left = int(rows.min()), int(columns.min())
        box = slice(top, int(rows.max()) + 1), slice(left, int(columns.max()) + 1)
        stored = self._read(self.path, box)[:, rows - top, columns - left]
        values = stored.astype(np.float32)
        if self.dtype == "int8" and self.scales is not None:
            scales = self._read(self.scales, box)[0, rows - top, columns - left].astype(np.float32)
            return np.asarray(np.where(np.isfinite(scales), values * scales, np.float32(np.nan)).T)
        absent = np.zeros(stored.shape, bool) if self.nodata is None else stored == self.nodata
        if self.factors is not None:
            values = values * self.factors[0] + self.factors[1]
        elif self.is_alphaearth:  # Google's formula for these files
            values = np.sign(values) * (values / np.float32(127.5)) ** 2
            absent = stored == ALPHAEARTH_NODATA
        values[:, (absent | ~np.isfinite(values)).any(axis=0)] = np.nan
        return np.asarray(values.T)

    def _read(self, path: Path, box: Box, bands: Sequence[int] | None = None) -> np.ndarray:
        with _opened(path) as src:
            return np.asarray(src.read(bands, window=Window.from_slices(*box)))


def raster_sources(path: Path) -> tuple[TiledSource, ...]:
    """Return a GeoTIFF, or the GeoTIFFs of a folder side by side, as a source; one per year where names tell years.

    UsageError where they differ in bands, type or model.
    """
    files = [path] if not path.is_dir() else rasters_in(path)
    groups: dict[str, list[RasterPiece]] = defaultdict(list)
    for file in files:
        piece = RasterPiece.open(file)
        groups[_year(piece) if path.is_dir() else ""].append(piece)
    found = []
    for year, pieces in sorted(groups.items()):
        _check_same(path, pieces)
        name = path.resolve().name if path.is_dir() else path.stem
        first = pieces[0]
        how = "AlphaEarth, int8" if first.is_alphaearth and first.scales is None else first.dtype
        model = first.tags.get("TESSERA_MODEL_NAME", "")
        about = ", ".join(part for part in (str(path), year, model, how) if part)
        called = f"{name} {year}" if len(groups) > 1 else name
        found.append(TiledSource(called, about, first.bands, tuple(pieces), model))
    return tuple(found)


def rasters_in(folder: Path) -> list[Path]:
    """Return the GeoTIFFs of a folder that may hold embeddings, sorted."""
    return sorted(
        path for path in folder.iterdir() if path.suffix.lower() in TIFF and not path.stem.lower().endswith(BESIDE)
    )


def _check_same(path: Path, pieces: Sequence[RasterPiece]) -> None:
    first = pieces[0]
    for other in pieces[1:]:
        for what, one, two in (
            ("bands", first.bands, other.bands),
            ("types", first.dtype, other.dtype),
            *((tag, first.tags.get(tag), other.tags.get(tag)) for tag in MODEL_TAGS),
        ):
            if one != two:
                raise UsageError(
                    f"{path} mixes embeddings of different models or settings: {what} {one} in {first.path.name} and "
                    f"{two} in {other.path.name}. Evaluate them from folders of their own."
                )


def _year(piece: RasterPiece) -> str:
    told = re.search(r"_(\d{4})(_codes|_emb)?$", piece.path.stem)
    return piece.tags.get("TESSERA_YEAR") or (told[1] if told else "")


def _scales_of(path: Path) -> Path | None:
    """Return the raster of scales beside a raster of codes: of X_emb.tif, X_codes.tif or X.tif it is X_scales.tif."""
    stem = re.sub(r"_(emb|codes)$", "", path.stem)
    beside = [path.with_name(f"{name}_scales{path.suffix}") for name in (stem, path.stem)]
    return next((each for each in beside if each.exists()), None)


@contextmanager
def _opened(path: Path) -> Iterator[rasterio.DatasetReader]:
    try:
        with open_raster(path) as src:
            yield src
    except (rasterio.errors.RasterioError, OSError) as error:
        raise UsageError(f"{path} cannot be read: {plainly(error)}. Give a GeoTIFF of embeddings.") from error
