"""What is to be learned from labels."""

from __future__ import annotations

from typing import Literal

Task = Literal["classification", "regression", "segmentation"]
Unit = Literal["point", "pixel", "parcel"]
"""What one label is about. The pixels of a parcel share a label, so a budget of labels counts parcels."""
