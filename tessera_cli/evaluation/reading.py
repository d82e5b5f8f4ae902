"""What was read: labelled samples, and the observations that their raw features were made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tessera_cli.evaluation.samples import LabelledSamples
from tessera_cli.extent.window import Window
from tessera_cli.sampling.ragged import RaggedPixels


@dataclass(frozen=True, eq=False)
class Observed:
    """The observations of N samples: those that the embedding had."""

    pixels: RaggedPixels
    window: Window
    later: Callable[[int], tuple[RaggedPixels, Window] | None] = lambda days: None
    """Days -> the same samples in a window that begins so much later; None where nothing is known of it."""


@dataclass(frozen=True, eq=False)
class Read:
    """What was read."""

    samples: LabelledSamples
    observed: Observed | None = None
    """None: no d-pixels and no time series were given."""
