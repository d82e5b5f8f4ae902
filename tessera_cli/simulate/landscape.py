"""The ground: fields, forest, water and town, each pixel on one stand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tessera_cli.simulate.area import Area
from tessera_cli.simulate.noise import field, stream
from tessera_cli.simulate.phenology import DECIDUOUS, EVERGREEN, GRASSLAND, TOWN, WATER, Stands, per_class, wetness

_CROPS = (0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5)
"""The classes of farmland, dealt out to the fields."""
_VERGE = 0
"""The first stand: the grass between fields. No parcel, no label."""


@dataclass(frozen=True, eq=False)
class Landscape:
    """What the satellites look at; arrays (H, W) of area.shape."""

    area: Area
    parcels: np.ndarray
    """int32: parcel number from 1, 0 on verges; the row of `stands`."""
    stands: Stands
    texture: np.ndarray
    """float32, mean 0, variance 1: better and worse spots of a field, houses and streets of a town."""
    moisture: np.ndarray
    """float (371,): of the soil, 0 dry .. 1 wet per day of the year."""

    @property
    def cover(self) -> np.ndarray:
        """int: index into COVERS."""
        return self.stands.cover[self.parcels]

    @property
    def labels(self) -> np.ndarray:
        """uint8: class code, 0 on verges."""
        return np.where(self.parcels != _VERGE, self.cover + 1, 0).astype(np.uint8)

    @property
    def biomass(self) -> np.ndarray:
        """float32: t/ha; NaN on verges, water and town."""
        mean = per_class("biomass")[self.stands.cover] * self.stands.vigour**1.5
        biomass = mean[self.parcels] * (1 + 0.1 * self.texture.clip(-3, 3))
        return np.where((biomass > 0) & (self.parcels != _VERGE), biomass, np.nan).astype(np.float32)


def landscape(area: Area, seed: int) -> Landscape:
    rng = stream(seed, 0)
    plot = _plots(area, rng)
    patch = max(100.0, area.shape[0] / 4)  # extent of a wood, a town or a lake

    def mean_per_plot(values: np.ndarray) -> np.ndarray:
        return np.bincount(plot.ravel(), values.ravel()) / np.bincount(plot.ravel())

    wood, conifers, town = (mean_per_plot(field(rng, area.shape, patch, 2)) for _ in range(3))
    depth = field(rng, area.shape, patch, 2)
    use = rng.permutation(np.resize(_CROPS, len(wood)))
    forest = wood > np.quantile(wood, 0.80)
    use[forest] = np.where(conifers > np.median(conifers[forest]), EVERGREEN, DECIDUOUS)[forest]
    use[town > np.quantile(town, 0.91)] = TOWN

    # Lakes follow no plot, but are cut into parcels by them; slivers are left to the verge.
    lake = depth > np.quantile(depth, 0.965)
    pieces, piece, pixels = np.unique(2 * plot + lake, return_inverse=True, return_counts=True)
    large = pixels >= 12
    parcels = np.where(large, np.cumsum(large), _VERGE)[piece.reshape(area.shape)].astype(np.int32)
    border = (plot != np.roll(plot, 1, axis=0)) | (plot != np.roll(plot, 1, axis=1))
    parcels[border & (use < DECIDUOUS)[plot] & ~lake] = _VERGE
    cover = np.where(pieces % 2 == 1, WATER, use[pieces // 2])[large]
    stands = Stands.sown(np.concatenate([[GRASSLAND], cover]), rng)

    uneven, fine = field(rng, area.shape, 9), rng.standard_normal(area.shape, dtype=np.float32)
    texture = np.where(stands.cover[parcels] == TOWN, fine, 0.8 * uneven + 0.6 * fine)
    return Landscape(area, parcels, stands, texture, wetness(rng))


def _plots(area: Area, rng: np.random.Generator) -> np.ndarray:
    """int (H, W): plot number of each pixel: rectangles cut across until they have 1 to 6 ha.

    The cuts follow a grid that is rotated and gently bent, as old field boundaries are.
    """
    rows, columns = np.indices(area.shape)
    angle = np.deg2rad(rng.uniform(6, 18))
    along = np.cos(angle) * columns + np.sin(angle) * rows + 6 * field(rng, area.shape, 90, 6)
    across = np.cos(angle) * rows - np.sin(angle) * columns + 6 * field(rng, area.shape, 90, 6)
    plot, plots = np.zeros(rows.size, int), 0
    todo = [np.arange(rows.size)]
    while todo:
        pixels = todo.pop()
        if len(pixels) <= rng.uniform(200, 700):
            plot[pixels], plots = plots, plots + 1
            continue
        u, v = along.ravel()[pixels], across.ravel()[pixels]
        if np.ptp(v) > np.ptp(u) * rng.uniform(0.7, 1.6):
            u = v
        first = u < u.min() + np.ptp(u) * rng.uniform(0.36, 0.64)
        todo += [pixels[first], pixels[~first]]
    return plot.reshape(area.shape)
