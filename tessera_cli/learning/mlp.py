"""A perceptron with one small hidden layer, trained for as many epochs as inner validation finds best.

Its products are small, so it always runs on one thread, and its result depends on the seed alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tessera_cli.learning.inner import inner_folds
from tessera_cli.learning.model import Training
from tessera_cli.learning.scale import Scale

if TYPE_CHECKING:
    from torch import Tensor

HIDDEN = 64
EPOCHS, PATIENCE, GAIN = 40, 5, 1e-3
"""Largest number of epochs, how many without an improvement end the search, and what loss counts as one."""
DEFAULT = 20
"""Epochs where inner validation is impossible."""
RATE, DECAY = 5e-3, 1e-2
STEPS, BATCH = 16, 256
"""Least number of steps per epoch, as far as there are rows, and largest number of rows in a step."""


class Weights(NamedTuple):
    """float32; D features, H hidden units, K classes or 1 value."""

    hidden: Tensor
    """(D, H)"""
    hidden_bias: Tensor
    """(H,)"""
    output: Tensor
    """(H, K)"""
    output_bias: Tensor
    """(K,)"""

    def outputs(self, x: Tensor) -> Tensor:
        """Standardised rows (m, D) -> logits or a standardised value (m, K)."""
        return (x @ self.hidden + self.hidden_bias).relu() @ self.output + self.output_bias


@dataclass(frozen=True, eq=False)
class Perceptron:
    scale: Scale
    weights: Weights
    mean: float
    spread: float
    """Of the values of a regression; 0 and 1 for classes."""
    regression: bool

    @classmethod
    def fit(cls, training: Training) -> tuple[Perceptron, dict[str, float]]:
        """Choose the number of epochs on a fifth of the labels held out, then fit on all of them."""
        with _one_thread():
            epochs = _chosen(training)
            scale = Scale.of(training.x)
            mean, spread = _measures(training)
            data = scale.standardised(training.x), _targets(training, mean, spread)
            *_, weights = _epochs(*data, training, epochs)  # the same ones after each epoch
            return cls(scale, weights, mean, spread, training.task == "regression"), {"epochs": float(epochs)}

    def predict(self, x: np.ndarray) -> np.ndarray:
        outputs = self._outputs(x)
        if self.regression:
            return outputs[:, 0].double().numpy() * self.spread + self.mean
        return np.asarray(outputs.argmax(dim=1).numpy())

    def probabilities(self, x: np.ndarray) -> np.ndarray | None:
        return None if self.regression else np.asarray(self._outputs(x).double().softmax(dim=1).numpy())

    def _outputs(self, x: np.ndarray) -> Tensor:
        import torch

        with _one_thread(), torch.no_grad():
            return self.weights.outputs(torch.from_numpy(self.scale.standardised(x)))


@contextmanager
def _one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _measures(training: Training) -> tuple[float, float]:
    if training.task != "regression":
        return 0.0, 1.0
    return float(training.y.mean()), float(training.y.std()) or 1.0


def _targets(training: Training, mean: float, spread: float) -> np.ndarray:
    if training.task == "regression":
        return ((training.y - mean) / spread).astype(np.float32)
    return training.y


def _chosen(training: Training) -> int:
    inner = inner_folds(training.y, training.groups, task=training.task, seed=training.seed)
    if inner is None:
        return DEFAULT
    import torch

    known, held = inner.rounds()[0]
    part, shown = training.take(known), training.take(held)
    scale = Scale.of(part.x)
    mean, spread = _measures(part)
    x = torch.from_numpy(scale.standardised(shown.x))
    truth = torch.from_numpy(_targets(shown, mean, spread))
    best, least = DEFAULT, np.inf
    data = scale.standardised(part.x), _targets(part, mean, spread)
    for number, weights in enumerate(_epochs(*data, part, EPOCHS), 1):
        with torch.no_grad():
            loss = _loss(weights.outputs(x), truth).item()
        if loss < least - GAIN:
            best, least = number, loss
        if number - best >= PATIENCE:
            break
    return best


def _epochs(x: np.ndarray, y: np.ndarray, training: Training, epochs: int) -> Iterator[Weights]:
    """Train on standardised rows (n, D) and targets (n,); give the weights, changed in place, after each epoch."""
    import torch

    generator = np.random.default_rng(training.seed)
    weights = _initial(generator, x.shape[1], max(training.classes, 1))
    optimiser = torch.optim.AdamW(list(weights), lr=RATE, weight_decay=DECAY, fused=True)
    rows, targets = torch.from_numpy(x), torch.from_numpy(y)
    batch = int(np.clip(len(x) / STEPS, min(8, len(x)), BATCH))
    for _ in range(epochs):
        order = torch.from_numpy(generator.permutation(len(x)))
        for numbers in torch.split(order, batch):
            optimiser.zero_grad()
            torch.autograd.backward(_loss(weights.outputs(rows[numbers]), targets[numbers]))
            optimiser.step()
        yield weights


def _initial(generator: np.random.Generator, features: int, outputs: int) -> Weights:
    import torch

    def uniform(inputs: int, *shape: int) -> Tensor:
        values = generator.uniform(-1, 1, shape) / np.sqrt(inputs)
        return torch.from_numpy(values.astype(np.float32)).requires_grad_()

    return Weights(
        uniform(features, features, HIDDEN),
        uniform(features, HIDDEN),
        uniform(HIDDEN, HIDDEN, outputs),
        uniform(HIDDEN, outputs),
    )


def _loss(outputs: Tensor, targets: Tensor) -> Tensor:
    from torch.nn.functional import cross_entropy, mse_loss

    if targets.is_floating_point():
        return mse_loss(outputs[:, 0], targets)
    return cross_entropy(outputs, targets)
