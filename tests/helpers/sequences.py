"""The sequences that an encoder sees, as numpy arrays."""

import numpy as np
import torch

from tessera_cli.inference.batch import DeviceBatch
from tessera_cli.sampling import Observations


def sequences(seen: Observations, members: list[int] | np.ndarray, bin: int) -> tuple[np.ndarray, np.ndarray]:
    """Of some pixels of one bin: standardised bands float32 (B, bin, C) and days of year int64 (B, bin)."""
    batch = DeviceBatch.of(seen, padded=True)
    group = next(group for group in batch.groups if group.length == bin)
    places = torch.tensor([group.members.tolist().index(member) for member in members])
    values, doy = batch.sequences(group, places)
    return values.numpy(), doy.numpy()
