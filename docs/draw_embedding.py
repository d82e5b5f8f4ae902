"""Draw README's picture: the first three principal components of the demo's embeddings beside the parcels' classes.

python docs/draw_embedding.py demo/out/utm31n_2023.vrt demo/catalog/labels.tif docs/embedding.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import rasterio
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT

ZOOM = 3
PALETTE = np.random.default_rng(4).integers(60, 230, (256, 3)).astype(np.uint8)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("embedding", type=Path)
    options.add_argument("labels", type=Path)
    options.add_argument("picture", type=Path)
    args = options.parse_args()
    with rasterio.open(args.embedding) as src:
        bands, crs, transform = src.read(), src.crs, src.transform
    values = bands.reshape(len(bands), -1).T
    seen = np.isfinite(values).all(axis=1)
    centred = values[seen] - values[seen].mean(axis=0)
    _, _, axes = np.linalg.svd(centred[::7], full_matrices=False)
    scores = centred @ axes[:3].T
    low, high = np.percentile(scores, (2, 98), axis=0)
    colours = np.full((len(values), 3), 255, np.uint8)
    colours[seen] = np.clip((scores - low) / (high - low), 0, 1) * 255
    shape = bands.shape[1:]
    picture = colours.reshape(*shape, 3)
    with (
        rasterio.open(args.labels) as src,
        WarpedVRT(
            src, crs=crs, transform=transform, width=shape[1], height=shape[0], resampling=Resampling.nearest
        ) as vrt,
    ):
        classes = PALETTE[vrt.read(1)]
    classes[~seen.reshape(shape)] = 255
    both = np.concatenate([picture, np.full((shape[0], 8, 3), 255, np.uint8), classes], axis=1)
    large = both.repeat(ZOOM, axis=0).repeat(ZOOM, axis=1)
    with rasterio.open(
        args.picture, "w", driver="PNG", width=large.shape[1], height=large.shape[0], count=3, dtype="uint8"
    ) as dst:
        dst.write(np.moveaxis(large, -1, 0))


if __name__ == "__main__":
    main()
