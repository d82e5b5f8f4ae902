"""Labels with mistakes, as surveys and declarations have them."""

from __future__ import annotations

import numpy as np

from tessera_cli.simulate.landscape import Landscape


def mistaken(ground: Landscape, share: float, key: tuple[int, ...]) -> np.ndarray:
    """Return the class that labels give to each parcel, int (parcels,): a share of those on the ground has a wrong one.

    A wrong class is that of another parcel, drawn at random: frequent classes are what others are mistaken for.
    """
    cover = ground.stands.cover
    if not share:
        return cover
    rng = np.random.default_rng(key)
    there = np.unique(ground.parcels[ground.parcels > 0])
    told = cover.copy()
    for number in rng.permutation(there)[: round(share * len(there))].tolist():
        others = cover[there][cover[there] != cover[number]]
        if others.size:
            told[number] = rng.choice(others)
    return told
