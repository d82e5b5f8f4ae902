"""kNN and ridge probes: how well classes can be told apart in frozen embeddings.

Pixels are predicted out of fold, and whole groups (parcels with their neighbours) lie in one fold: pixels of a parcel
resemble each other, so a split through parcels would measure memory. N pixels, R numbers per embedding, K classes.
"""

from __future__ import annotations

import numpy as np

from tessera_cli.sampling.draws import mix

RIDGE = 1e-3
"""Penalty of the linear probe, added to the variance (1) of every feature."""
ROWS = 1024
"""Pixels whose similarities are held at once."""


def split(groups: np.ndarray, classes: np.ndarray, folds: int) -> np.ndarray:
    """Return the fold of each pixel, int64 (N,), given groups and classes, int64 (N,) each; no group is split.

    Groups are assigned by falling size, equal ones by hash, each to the fold with the smallest share of the group's
    classes, then the fewest pixels: classes are spread evenly, and no fold is empty if there are enough groups.
    """
    names, members, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    kinds, numbers = np.unique(classes, return_inverse=True)
    share_GK = np.zeros((len(names), len(kinds)))
    np.add.at(share_GK, (members, numbers), 1)
    share_GK /= np.bincount(numbers)
    fold_of, filled = np.empty(len(names), np.int64), np.zeros(folds, np.int64)
    filled_FK = np.zeros((folds, len(kinds)))
    for group in np.lexsort((mix(names.astype(np.uint64)), -sizes)):
        fold = np.lexsort((filled, filled_FK @ share_GK[group]))[0]
        fold_of[group] = fold
        filled[fold] += sizes[group]
        filled_FK[fold] += share_GK[group]
    return fold_of[members]


def knn(embeddings: np.ndarray, classes: np.ndarray, folds: np.ndarray, k: int = 20) -> np.ndarray:
    """Predict classes, int64 (N,), by the majority of the `k` pixels of other folds with the largest cosine similarity.

    Between equally frequent classes the nearest pixel of any of them decides.
    """
    directions = unit(embeddings.astype(np.float64))
    predictions = np.empty(len(classes), np.int64)
    for fold in np.unique(folds):
        known, asked = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        for start in range(0, len(asked), ROWS):
            rows = asked[start : start + ROWS]
            predictions[rows] = _vote(directions[rows] @ directions[known].T, classes[known], k)
    return predictions


def unit(x_NR: np.ndarray) -> np.ndarray:
    """Scale vectors to length 1; 0 stays 0."""
    return np.asarray(x_NR / np.maximum(np.linalg.norm(x_NR, axis=1, keepdims=True), np.finfo(np.float64).tiny))


def _vote(similarities: np.ndarray, classes: np.ndarray, k: int) -> np.ndarray:
    """Similarities (M, P) and the classes (P,) of the known pixels -> predictions (M,)."""
    k = min(k, len(classes))
    nearest = np.argpartition(-similarities, k - 1, axis=1)[:, :k]
    order = np.argsort(-np.take_along_axis(similarities, nearest, 1), axis=1, kind="stable")
    votes = classes[np.take_along_axis(nearest, order, 1)]
    frequency = (votes[:, :, None] == votes[:, None, :]).sum(axis=2)
    return votes[np.arange(len(votes)), frequency.argmax(axis=1)]  # the first of the most frequent is the nearest


def linear(embeddings: np.ndarray, classes: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Predict classes, int64 (N,), by ridge regression to one-hot classes, fitted on the pixels of other folds.

    Pixels are weighted so that all classes count equally. Features are standardised with the weighted mean and standard
    deviation of the fitted pixels, so that the penalty `RIDGE` means the same for every encoder, and the intercept is
    the same for every class and can be left out.
    """
    predictions = np.empty(len(classes), np.int64)
    for fold in np.unique(folds):
        asked, known = folds == fold, folds != fold
        names, y_P = np.unique(classes[known], return_inverse=True)
        x_PR, x_MR = embeddings[known].astype(np.float64), embeddings[asked].astype(np.float64)
        weights_P = (1 / (len(names) * np.bincount(y_P)))[y_P]  # their sum is 1
        mean_R = weights_P @ x_PR
        spread_R = np.sqrt(weights_P @ (x_PR - mean_R) ** 2)
        spread_R[spread_R <= 1e-12 * np.abs(x_PR).max(initial=1)] = np.inf  # a constant tells nothing
        x_PR, x_MR = (x_PR - mean_R) / spread_R, (x_MR - mean_R) / spread_R
        targets_PK = weights_P[:, None] * (y_P[:, None] == np.arange(len(names)))
        gram_RR = x_PR.T @ (weights_P[:, None] * x_PR) + RIDGE * np.eye(x_PR.shape[1])
        predictions[asked] = names[(x_MR @ np.linalg.solve(gram_RR, x_PR.T @ targets_PK)).argmax(axis=1)]
    return predictions


def balanced_accuracy(classes: np.ndarray, predictions: np.ndarray) -> float:
    """Return the mean recall of the classes that occur."""
    _, numbers, counts = np.unique(classes, return_inverse=True, return_counts=True)
    return float((np.bincount(numbers, classes == predictions) / counts).mean())
