"""Train a network on patches: a few steps, always as many, at a rate that rises and falls to nothing.

No labels are put aside to tell when to stop: with ten parcels that tells little, and costs the parcels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from tessera_cli.evaluation.segmentation.network import Kind, Segmenter
from tessera_cli.evaluation.segmentation.patches import Patches, choose, read
from tessera_cli.evaluation.segmentation.scene import NONE, Draw, Scene

MOST_PATCHES = 384
"""Patches that are learned from; of 128 dimensions half a MB each."""
BATCH = 16
STEPS = 150
"""The same for embeddings and raw composites: who is given more steps looks better."""
RATE, DECAY = 1e-2, 1e-2


@dataclass(frozen=True, eq=False)
class Trained:
    """A network that has learned, and how its features are standardised."""

    network: nn.Module
    mean: np.ndarray
    """float32 (dims,)"""
    scale: np.ndarray
    """float32 (dims,)"""
    patches: int

    def standardised(self, features: np.ndarray) -> Tensor:
        """Return features (B, dims, h, w) with mean 0 and variance 1; what is missing becomes the mean."""
        return torch.from_numpy(_standardised(features.copy(), self.mean, self.scale))


def train(scenes: Sequence[Scene], draw: Draw, kind: Kind, *, classes: int, seed: int) -> Trained:
    """Train a network from the labels of a draw. Nothing of blocks of the test is read into it.

    The same seed gives the same network for the same number of threads.
    """
    rng = np.random.default_rng((seed, draw.number))
    hidden = [draw.hidden(scene) for scene in scenes]
    learned = [draw.learned(scene) for scene in scenes]
    patches = read(scenes, choose(scenes, learned, MOST_PATCHES, rng), learned, hidden)
    mean, scale = _moments(patches.features)
    _standardised(patches.features, mean, scale)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**31)))
        network = Segmenter(len(mean), classes, kind).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        _fit(network, patches, STEPS, rng)
    return Trained(network.eval(), mean, scale, len(patches))


def _fit(network: nn.Module, patches: Patches, steps: int, rng: np.random.Generator) -> None:
    optimiser = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps, pct_start=0.1)
    order = np.empty(0, np.int64)
    network.train()
    for _ in range(steps):
        if len(order) < min(BATCH, len(patches)):
            order = np.concatenate([order, rng.permutation(len(patches))])
        batch, order = order[:BATCH], order[BATCH:]
        features, labels = _turned(patches.features[batch], patches.labels[batch], rng)
        loss = nn.functional.cross_entropy(network(features), labels, ignore_index=NONE)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()


def _turned(features: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Return a batch, mirrored and turned by a multiple of 90 degrees."""
    turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))
    x, y = torch.from_numpy(features), torch.from_numpy(labels)
    if mirrored:
        x, y = x.flip(-1), y.flip(-1)
    return x.rot90(turns, (-2, -1)).contiguous(), y.rot90(turns, (-2, -1)).contiguous()


def _moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation per dimension, (N, dims, h, w) -> float32 (dims,); 0 and 1 of a constant."""
    mean, scale = np.zeros(features.shape[1], np.float32), np.ones(features.shape[1], np.float32)
    for number in range(features.shape[1]):
        values = features[:, number]
        there = values[~np.isnan(values)].astype(np.float64)
        if len(there):
            mean[number], spread = there.mean(), there.std()
            scale[number] = spread if spread > 0 else 1
    return mean, scale


def _standardised(features: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Standardise in place, and return the same array; missing values become 0, the mean."""
    features -= mean[:, None, None]
    features /= scale[:, None, None]
    return np.nan_to_num(features, copy=False)
