"""Read one tile: python examples/read_embedding.py demo/out/utm31n_c0117_r1098_2023_emb.tif"""

import sys

import rasterio

with rasterio.open(sys.argv[1]) as codes, rasterio.open(sys.argv[1].replace("_emb", "_scales")) as scales:
    embedding = codes.read().astype("float32") * scales.read(1)  # (128, 512, 512), NaN where there is none

print(embedding.shape, f"{(embedding[0] == embedding[0]).sum()} pixels with an embedding")
