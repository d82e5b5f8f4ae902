"""Principal components of features, fitted without labels."""

from __future__ import annotations

import numpy as np

from tessera_cli.errors import UsageError
from tessera_cli.sampling.draws import hashed

COMPONENTS = 32
FITTED = 20_000
"""Samples that components are fitted on, at most."""
_DRAW = 0x50434121


def principal_components(values: np.ndarray, seed: int = 0, most: int = COMPONENTS) -> np.ndarray:
    """Return float32 (N, K), K at most `most`, of float32 (N, D).

    Columns are standardised first, missing values replaced by their mean; columns that say nothing are left out.
    UsageError where scikit-learn is missing.
    """
    try:
        from sklearn.decomposition import PCA
    except ImportError as error:
        raise UsageError('Baselines need another package. Run: pip install "tessera-embed[evaluate]".') from error
    plain = values.astype(np.float64)
    there = np.isfinite(plain)
    counts = np.maximum(there.sum(axis=0), 1)
    mean = np.where(there, plain, 0).sum(axis=0) / counts
    plain = np.where(there, plain - mean, 0)
    deviation = np.sqrt((plain**2).sum(axis=0) / counts)
    useful = deviation > 1e-12
    plain = plain[:, useful] / deviation[useful]
    components = min(most, *plain.shape)
    if not components:
        return np.zeros((len(values), 1), np.float32)
    fitted = plain
    if len(plain) > FITTED:
        fitted = plain[np.sort(np.argsort(hashed(_DRAW + seed, np.arange(len(plain))))[:FITTED])]
    pca = PCA(components, svd_solver="full").fit(fitted)
    return np.asarray(pca.transform(plain), np.float32)
