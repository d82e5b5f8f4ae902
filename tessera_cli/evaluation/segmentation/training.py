"""Train a network on patches: stop where labels that were put aside are no longer predicted better."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from tessera_cli.evaluation.segmentation.network import Kind, Segmenter
from tessera_cli.evaluation.segmentation.patches import Patches, choose, read
from tessera_cli.evaluation.segmentation.scene import NONE, Draw, Scene, member

MOST_PATCHES, MOST_ASIDE = 192, 48
"""Patches that are held to learn from and to validate; of 128 dimensions 2 MB each."""
BATCH = 8
STEPS = 160
UNCHECKED = 80
"""Steps where too few labels were given to put any aside."""
CHECK = 10
"""Steps between validations."""
PATIENCE = 8
"""Validations without improvement after which training ends."""
LEAST = 0.01
"""Share of the loss by which it falls where validation counts as better."""
ENOUGH = 0.01
"""Loss of a validation after which there is nothing left to learn."""
RATE, DECAY = 3e-3, 1e-2
ASIDE = 0.2
"""Share of the parcels that is put aside."""


@dataclass(frozen=True, eq=False)
class Trained:
    """A network that has learned, and how its features are standardised."""

    network: nn.Module
    mean: np.ndarray
    """float32 (dims,)"""
    scale: np.ndarray
    """float32 (dims,)"""
    steps: int
    patches: int

    def standardised(self, features: np.ndarray) -> Tensor:
        """Return features (B, dims, h, w) with mean 0 and variance 1; what is missing becomes the mean."""
        return torch.from_numpy(_standardised(features.copy(), self.mean, self.scale))


def train(scenes: Sequence[Scene], draw: Draw, kind: Kind, *, classes: int, seed: int) -> Trained:
    """Train a network from the labels of a draw. Nothing of blocks of the test is read into it.

    A fifth of the parcels, by blocks, is put aside to tell when to stop, as far as each class keeps one to learn from;
    where nothing can be put aside, the number of steps is fixed. The same seed gives the same network for the same
    number of threads.
    """
    rng = np.random.default_rng((seed, draw.number))
    hidden = [draw.hidden(scene) for scene in scenes]
    learned = [draw.learned(scene) for scene in scenes]
    aside = _put_aside(scenes, learned, classes, rng)
    validated = [mask & member(scene.parcels, aside) for scene, mask in zip(scenes, learned, strict=True)]
    learned = [mask & ~other for mask, other in zip(learned, validated, strict=True)]
    patches = read(scenes, choose(scenes, learned, MOST_PATCHES, rng), learned, hidden)
    checks = read(scenes, choose(scenes, validated, MOST_ASIDE, rng), validated, hidden)
    mean, scale = _moments(patches.features)
    for each in (patches, checks):
        _standardised(each.features, mean, scale)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**31)))
        network = Segmenter(len(mean), classes, kind).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        steps = _fit(network, patches, checks, rng)
    return Trained(network.eval(), mean, scale, steps, len(patches))


def _fit(network: nn.Module, patches: Patches, checks: Patches, rng: np.random.Generator) -> int:
    """Fit the network; it keeps the weights that predicted best what was put aside. Return how many steps that took."""
    limit = STEPS if (checks.labels >= 0).any() else UNCHECKED
    optimiser = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=limit, pct_start=0.1)
    best, at, order = np.inf, limit, np.empty(0, np.int64)
    kept: dict[str, Tensor] | None = None
    for step in range(1, limit + 1):
        if len(order) < min(BATCH, len(patches)):
            order = np.concatenate([order, rng.permutation(len(patches))])
        batch, order = order[:BATCH], order[BATCH:]
        features, labels = _turned(patches.features[batch], patches.labels[batch], rng)
        network.train()
        loss = nn.functional.cross_entropy(network(features), labels, ignore_index=NONE)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        if limit == STEPS and step % CHECK == 0:
            found = _loss(network, checks)
            if kept is None or found < (1 - LEAST) * best:
                best, kept, at = found, copy.deepcopy(network.state_dict()), step
            if best < ENOUGH or step - at >= PATIENCE * CHECK:
                break
    if kept is not None:
        network.load_state_dict(kept)
    return at


@torch.no_grad()
def _loss(network: nn.Module, checks: Patches) -> float:
    """Return the mean loss of the labelled pixels."""
    network.eval()
    total, count = 0.0, 0
    for start in range(0, len(checks), BATCH):
        labels = torch.from_numpy(checks.labels[start : start + BATCH])
        logits = network(torch.from_numpy(checks.features[start : start + BATCH]))
        total += float(nn.functional.cross_entropy(logits, labels, ignore_index=NONE, reduction="sum"))
        count += int((labels >= 0).sum())
    return total / max(count, 1)


def _turned(features: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Return a batch, mirrored and turned by a multiple of 90 degrees."""
    turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))
    x, y = torch.from_numpy(features), torch.from_numpy(labels)
    if mirrored:
        x, y = x.flip(-1), y.flip(-1)
    return x.rot90(turns, (-2, -1)).contiguous(), y.rot90(turns, (-2, -1)).contiguous()


def _put_aside(
    scenes: Sequence[Scene], learned: Sequence[np.ndarray], classes: int, rng: np.random.Generator
) -> np.ndarray:
    """Return the parcels to validate with, int64: those of blocks in random order, while each class keeps a parcel.

    Those of one block alone are put aside one by one.
    """
    rows = [
        np.stack([scene.blocks[mask], scene.parcels[mask], scene.labels[mask]], axis=1)
        for scene, mask in zip(scenes, learned, strict=True)
    ]
    known = np.unique(np.concatenate(rows), axis=0)  # one row per block, parcel and class
    parcels = np.unique(known[:, 1])
    unit = 0 if len(np.unique(known[:, 0])) > 1 else 1
    left = np.bincount(known[:, 2], minlength=classes)
    aside: list[int] = []
    for number in rng.permutation(np.unique(known[:, unit])).tolist():
        group = known[known[:, unit] == number]
        after = left - np.bincount(group[:, 2], minlength=classes)
        if (after[left > 0] > 0).all() and len(aside) + len(group) <= max(1.5 * ASIDE * len(parcels), 1):
            left = after
            aside += np.unique(group[:, 1]).tolist()
        if len(aside) >= ASIDE * len(parcels):
            break
    return np.array(aside, np.int64)


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
