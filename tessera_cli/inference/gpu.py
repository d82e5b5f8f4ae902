"""On a GPU: batches as large as its memory allows, longest sequences first; copies overlap with computation."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from tessera_cli.inference import memory
from tessera_cli.inference.batch import DeviceBatch
from tessera_cli.inference.engine import Advance, Chunk, Engine
from tessera_cli.models.encoder import Encoder
from tessera_cli.sampling import Group, Modality, Observations

logger = logging.getLogger(__name__)

FUSED = 1 << 14
"""Pixels per batch of fusion and reduction, to begin with."""
CHUNK = 1 << 16
"""Pixels, at most."""
CHUNK_BYTES = 1 << 29
"""Of the two sensor vectors held at a time."""
MOST_SEQUENCES = 1 << 15
"""Per batch: kernels of attention take fewer than 65,536."""


@dataclass
class _Device:
    """Batch sizes found for the device that an encoder lies on, kept from one tile to the next."""

    copy_stream: torch.cuda.Stream | None
    """Where copies run; None on a device that is no GPU."""
    chunk: int
    """Pixels"""
    tokens: int
    """Per batch at most."""
    fused: int = FUSED
    """Pixels per batch of fusion and reduction, at most."""
    reduced: bool = False
    """The device could not hold what it was first given."""


_KNOWN: WeakKeyDictionary[Encoder, _Device] = WeakKeyDictionary()


class GpuEngine(Engine):
    """Starts with the batch size that the memory plan allows, and halves it when the device runs out of memory.

    Works on any device of torch; copies overlap with computation on CUDA devices alone.
    """

    chunks, ahead = memory.CHUNKS, memory.AHEAD
    copies_back = True

    def __init__(self, encoder: Encoder) -> None:
        super().__init__(encoder)
        if encoder not in _KNOWN:
            _KNOWN[encoder] = _known(encoder)
        self._device = _KNOWN[encoder]
        self.chunk = self._device.chunk

    def _max_tokens(self, longest: int) -> int:
        return self._device.tokens

    def to_device(self, observations: Mapping[Modality, Observations]) -> Chunk:
        with torch.cuda.stream(self._device.copy_stream):  # None: does nothing
            return {
                modality: DeviceBatch.of(found, padded=True).to(self._encoder.device)
                for modality, found in observations.items()
            }

    def embed(self, chunk: Chunk, advance: Advance) -> Tensor:
        for batch in chunk.values():
            batch.wait()
        return super().embed(chunk, advance)

    def _fetch(self, *tensors: Tensor) -> Callable[[], list[np.ndarray]]:
        if self._device.copy_stream is None:
            return super()._fetch(*tensors)
        hosts = [torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True) for tensor in tensors]
        for host, tensor in zip(hosts, tensors, strict=True):
            host.copy_(tensor, non_blocking=True)
        event = torch.cuda.current_stream(self._encoder.device).record_event()

        def arrived() -> list[np.ndarray]:
            event.synchronize()
            return [host.numpy() for host in hosts]

        return arrived

    def _encode(self, chunk: Chunk, vectors: dict[Modality, Tensor], encoded: Callable[[int], None]) -> None:
        groups = [(modality, group) for modality, batch in chunk.items() for group in batch.groups]
        done = 0
        for modality, group in sorted(groups, key=lambda found: -found[1].length):  # memory is allocated once
            start, count = 0, len(group.members)
            while start < count:
                size = max(1, min(self._device.tokens // group.length, MOST_SEQUENCES))
                positions = torch.arange(start, min(start + size, count), device=self._encoder.device)
                try:
                    self._encode_batch(modality, chunk[modality], group, positions, vectors[modality])
                except torch.OutOfMemoryError:
                    if len(positions) == 1:
                        text = f"{self._encoder.device} cannot hold one pixel's {group.length} tokens"
                        raise MemoryError(text) from None
                    self._device.tokens = len(positions) * group.length // 2
                else:
                    start += len(positions)
                    done += len(positions) * group.length
                    encoded(done)
                    continue
                self._make_room()

    def _encode_batch(
        self, modality: Modality, batch: DeviceBatch, group: Group[Tensor], positions: Tensor, out_ND: Tensor
    ) -> None:
        found_BD = self._encoder.encode_modality(modality, *batch.sequences(group, positions), group.repeat_index)
        out_ND.index_copy_(0, group.members.index_select(0, positions), found_BD)

    def _fuse(self, s2_ND: Tensor, s1_ND: Tensor) -> Tensor:
        """Return the embeddings of some pixels of the chunk, float32 (B, R)."""
        size = self._device.fused
        if len(s2_ND) > size:
            parts = [slice(start, start + size) for start in range(0, len(s2_ND), size)]
            return torch.cat([self._fuse(s2_ND[part], s1_ND[part]) for part in parts])
        try:
            return self._encoder.fuse(s2_ND, s1_ND)
        except torch.OutOfMemoryError:
            if len(s2_ND) == 1:
                raise MemoryError(f"{self._encoder.device} cannot hold one pixel") from None
        self._device.fused = len(s2_ND) // 2
        self._make_room()
        return self._fuse(s2_ND, s1_ND)

    def _make_room(self) -> None:
        """Free the memory that torch keeps cached, after the device could not hold a batch; warn once."""
        if not self._device.reduced:
            logger.warning("%s is out of memory: encoding goes on in smaller batches", self._encoder.device)
        self._device.reduced = True
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _known(encoder: Encoder) -> _Device:
    pixels = max(1, min(CHUNK, CHUNK_BYTES // (8 * encoder.config.width)))
    cuda = encoder.device.type == "cuda"
    free = torch.cuda.mem_get_info(encoder.device)[0] if cuda else None
    copy_stream = torch.cuda.Stream(encoder.device) if cuda else None  # type: ignore[no-untyped-call]
    return _Device(copy_stream, *memory.plan(encoder.config, encoder.s2.matmul_dtype, free, pixels))
