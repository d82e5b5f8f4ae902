"""Made-up scenes whose truth is known."""

from __future__ import annotations

import numpy as np

from tessera_cli.evaluation.segmentation.scene import Draw, Scene

PARCEL, BLOCK = 16, 32


def of_array(features, labels, parcels, blocks):
    """A scene of features (dims, H, W)."""
    numbers = (labels.astype(np.int16), parcels.astype(np.int32), blocks.astype(np.int32))
    return Scene("made up", len(features), lambda box: features[:, *box].astype(np.float32), *numbers)


def labelled_test(scene, draw):
    """The labelled pixels of the test, bool (H, W), by hand."""
    return np.isin(scene.blocks, draw.test) & (scene.labels >= 0)


def scene(size=128, dims=12, classes=4, noise=0.0, seed=0):
    """Square parcels of random classes; features are a random linear map of the class, with noise."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, classes, (size // PARCEL, size // PARCEL))
    parcels = np.arange(kinds.size).reshape(kinds.shape)
    labels, parcels = (np.kron(each, np.ones((PARCEL, PARCEL), int)) for each in (kinds, parcels))
    row, column = np.indices((size, size)) // BLOCK
    features = rng.standard_normal((dims, classes))[:, labels] + noise * rng.standard_normal((dims, size, size))
    return of_array(features.astype(np.float32), labels, parcels, row * (size // BLOCK) + column)


def draw(scene, test=(0, 5, 10, 15), share=1.0, seed=0):
    """Learn from a share of the parcels outside these blocks."""
    rest = np.unique(scene.parcels[~np.isin(scene.blocks, test)])
    taken = np.random.default_rng(seed).permutation(rest)[: round(share * len(rest))]
    return Draw(f"{share}", seed, np.sort(taken), np.array(test))
