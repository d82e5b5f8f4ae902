"""Simulate the ground: fields, forest, water and town; each pixel belongs to one stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from odc.geo.geobox import GeoBox

from tessera_cli.simulate.phenology import DECIDUOUS, EVERGREEN, GRASSLAND, TOWN, WATER, Stands

_CROPS = (0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5)  # classes of farmland, assigned to the fields in turn


class Surfaces(Protocol):
    """Parcels, as sensors see them; a day is that of the year, a track the number of one of the site's orbits."""

    @property
    def cover(self) -> np.ndarray:
        """Code of the class less 1, int (parcels,)."""

    @property
    def names(self) -> np.ndarray:
        """Name of the class, str (parcels,)."""

    @property
    def biomass(self) -> np.ndarray:
        """Dry matter in t/ha, float (parcels,); 0 where there is no figure."""

    def optics(self, day: int, track: int) -> tuple[np.ndarray, np.ndarray]:
        """Return mean reflectance and its change per standard deviation of texture, float (parcels, 10) each."""

    def radar(self, day: int, track: int) -> tuple[np.ndarray, np.ndarray]:
        """Return gamma0 of VV and VH as linear power, float (2, parcels), and its unevenness, float (parcels,)."""


@dataclass(frozen=True, eq=False)
class Landscape:
    """The simulated ground; arrays (H, W) of the grid."""

    grid: GeoBox
    parcels: np.ndarray
    """int32: row of `stands`; parcels count from 1, 0 is the grass verge between fields."""
    stands: Surfaces
    texture: np.ndarray
    """float32, mean 0, variance 1, within +-3: variation within a field or a town."""

    mixing: float = 0.0
    """Share of what a pixel shows that comes from its four neighbours: the point spread of the sensor."""

    @property
    def labels(self) -> np.ndarray:
        """uint8: class code, 0 on verges."""
        return np.where(self.parcels > 0, self.stands.cover[self.parcels] + 1, 0).astype(np.uint8)

    @property
    def biomass(self) -> np.ndarray:
        """float32: t/ha; NaN on verges, water and town."""
        biomass = self.stands.biomass[self.parcels] * (1 + 0.1 * self.texture)
        return np.where((biomass > 0) & (self.parcels > 0), biomass, np.nan).astype(np.float32)


def landscape(grid: GeoBox, rng: np.random.Generator) -> Landscape:
    """Return a landscape whose parcels are stands."""
    parcels, cover = ground_plan(grid, rng, _CROPS)
    stands = Stands.sown(cover, rng)
    return Landscape(grid, parcels, stands, grain(parcels.shape, rng))


def ground_plan(
    grid: GeoBox, rng: np.random.Generator, crops: Sequence[int], scale: float = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Assign plots to farmland, woods and towns, then add lakes.

    `crops`: classes that fields have in turn; `scale`: of the width and length of fields. Returns the number of each
    pixel's parcel, int32 (H, W), and the class of each parcel, int (parcels,); parcel 0 is the verges.
    """
    plot = _plots((grid.height, grid.width), rng, scale)
    patch = max(100.0, grid.height / 4)  # extent of a wood, a town or a lake
    sums = [np.bincount(plot.ravel(), field(rng, plot.shape, patch, 2).ravel()) for _ in range(2)]
    wood, town = sums / np.bincount(plot.ravel())
    use = rng.permutation(np.resize(crops, len(wood)))
    use[wood > np.quantile(wood, 0.80)] = DECIDUOUS
    use[wood > np.quantile(wood, 0.90)] = EVERGREEN
    use[town > np.quantile(town, 0.91)] = TOWN

    # Lakes follow no plot, but are cut into parcels by them; slivers and the borders of fields are verge.
    depth = field(rng, plot.shape, patch, 2)
    lake = depth > np.quantile(depth, 0.965)
    pieces, piece, pixels = np.unique(2 * plot + lake, return_inverse=True, return_counts=True)
    piece = piece.reshape(plot.shape)
    border = (plot != np.roll(plot, 1, axis=0)) | (plot != np.roll(plot, 1, axis=1))
    verge = (pixels < 12)[piece] | (border & (use < DECIDUOUS)[plot] & ~lake)
    cover = np.append(GRASSLAND, np.where(pieces % 2 == 1, WATER, use[pieces // 2]))
    return np.where(verge, 0, piece + 1).astype(np.int32), cover


def grain(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Return the variation within parcels, float32 (H, W), mean 0, variance 1, within +-3."""
    texture = 0.6 * field(rng, shape, 9) + 0.8 * rng.standard_normal(shape, dtype=np.float32)
    return texture.clip(-3, 3)


def _plots(shape: tuple[int, ...], rng: np.random.Generator, scale: float) -> np.ndarray:
    """Return plot numbers, int (H, W): strips cut into fields of about 1 to 5 ha, on a bent and turned grid."""
    rows, columns = np.indices(shape)
    angle = rng.uniform(0.1, 0.3)
    along = np.cos(angle) * columns + np.sin(angle) * rows + 6 * field(rng, shape, 90, 6)
    across = np.cos(angle) * rows - np.sin(angle) * columns + 6 * field(rng, shape, 90, 6)
    strip = np.searchsorted(across.min() + np.cumsum(scale * rng.uniform(11, 20, shape[0])), across)
    length, start = scale * rng.uniform(10, 28, (2, shape[0]))
    number = ((along - along.min() + start[strip]) // length[strip]).astype(int)
    return np.unique(strip * 1_000_000 + number, return_inverse=True)[1].reshape(shape)


def field(rng: np.random.Generator, shape: tuple[int, ...], scale: float, smoothness: float = 1) -> np.ndarray:
    """Return a periodic Matern field, float32 (H, W), mean 0, variance 1, with correlation length `scale` pixels."""
    fy, fx = np.fft.fftfreq(shape[0]), np.fft.rfftfreq(shape[1])
    amplitude = (1 + (scale * fy[:, None]) ** 2 + (scale * fx) ** 2) ** (-(smoothness + 1) / 2)
    white = np.fft.rfft2(rng.standard_normal(shape, dtype=np.float32))
    values = np.fft.irfft2(white * amplitude.astype(np.float32), s=shape)
    return ((values - values.mean()) / values.std()).astype(np.float32)
