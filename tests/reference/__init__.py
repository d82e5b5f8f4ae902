"""Every encoder family once more: float64, plain numpy, and independent of the package.

Tensors and settings bear their official names. The reference shares no code with the package, so that both must be
wrong in the same way for a test to miss it; test_reference.py holds it against outputs of the official code.
"""

from __future__ import annotations

from tests.reference.cases import CASES, FOLDER, Case, load_case
from tests.reference.observations import bin_v1_1, choose_v1_1, choose_v2, draw_v1_0, statistics, tokens
from tests.reference.quantise import quantise_v1, quantise_v2, quantised, saved_dims
from tests.reference.tile import NAMES, arrays_of, embed_tile
from tests.reference.weights import FAMILIES, digest, official_payload, random_weights

__all__ = [
    "CASES",
    "FAMILIES",
    "FOLDER",
    "NAMES",
    "Case",
    "arrays_of",
    "bin_v1_1",
    "choose_v1_1",
    "choose_v2",
    "digest",
    "draw_v1_0",
    "embed_tile",
    "load_case",
    "official_payload",
    "quantise_v1",
    "quantise_v2",
    "quantised",
    "random_weights",
    "saved_dims",
    "statistics",
    "tokens",
]
