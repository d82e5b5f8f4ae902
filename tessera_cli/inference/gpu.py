"""On a GPU: batches as large as its memory allows, longest sequences first; copies run beside the computation."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from tessera_cli.inference import memory
from tessera_cli.inference.batch import Chunk, StagedGroup, StagedObservations
from tessera_cli.inference.engine import Advance, Engine
from tessera_cli.models.encoder import Encoder
from tessera_cli.sampling import Modality, Observations

logger = logging.getLogger(__name__)

FUSED = 1 << 14
"""Pixels per batch of fusion and reduction, to begin with."""
CHUNK = 1 << 16
"""Pixels, at most."""
CHUNK_BYTES = 1 << 29
"""Of the two sensor vectors that are held at a time."""
MOST_SEQUENCES = 1 << 15
"""Per batch: kernels of attention take fewer than 65,536."""


@dataclass
class _Device:
    """What is known of the device that an encoder lies on. It holds from one tile to the next."""

    copies: torch.cuda.Stream | None
    """Where copies run; None: on one that is no GPU."""
    chunk: int
    """Pixels"""
    tokens: int
    """Per batch, at most."""
    fused: int = FUSED
    """Pixels per batch of fusion and reduction, at most."""
    reduced: bool = False
    """The device could not hold what it was first given."""


_KNOWN: WeakKeyDictionary[Encoder, _Device] = WeakKeyDictionary()


class GpuEngine(Engine):
    """Batches start at what the memory plan allows and are halved when the device is out of memory all the same.

    Works on any device of torch; on one that is no CUDA device nothing runs beside anything.
    """

    chunks = memory.CHUNKS

    def __init__(self, encoder: Encoder) -> None:
        super().__init__(encoder)
        if encoder not in _KNOWN:
            _KNOWN[encoder] = _known(encoder)
        self._device = _KNOWN[encoder]
        self.chunk = self._device.chunk

    def _at_once(self, longest: int) -> int:
        return self._device.tokens

    def stage(self, seen: dict[Modality, Observations]) -> Chunk:
        pixels = len(next(iter(seen.values())).counts)
        with torch.cuda.stream(self._device.copies):  # None: does nothing
            sensors = {
                m: StagedObservations.of(observations, once=False, put=self._put) for m, observations in seen.items()
            }
            ready = self._device.copies.record_event() if self._device.copies else None
        return Chunk(pixels, sensors, ready)

    def embed(self, chunk: Chunk, advance: Advance) -> Tensor:
        if chunk.ready is not None:
            stream = torch.cuda.current_stream(self._encoder.device)
            stream.wait_event(chunk.ready)
            for tensor in chunk.tensors():
                tensor.record_stream(stream)
        return super().embed(chunk, advance)

    def _fetch(self, *tensors: Tensor) -> Callable[[], list[np.ndarray]]:
        if self._device.copies is None:
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
        groups = [(modality, group) for modality, staged in chunk.sensors.items() for group in staged.groups]
        done = 0
        for modality, group in sorted(groups, key=lambda found: -found[1].length):  # memory is allocated once
            start = 0
            while start < len(group):
                size = max(1, min(self._device.tokens // group.length, MOST_SEQUENCES))
                places = torch.arange(start, min(start + size, len(group)), device=self._encoder.device)
                try:
                    self._encode_batch(modality, chunk.sensors[modality], group, places, vectors[modality])
                except torch.OutOfMemoryError:
                    if len(places) == 1:
                        text = f"{self._encoder.device} cannot hold one pixel's {group.length} tokens"
                        raise MemoryError(text) from None
                    self._device.tokens = len(places) * group.length // 2
                else:
                    start += len(places)
                    done += len(places) * group.length
                    encoded(done)
                    continue
                self._make_room()

    def _encode_batch(
        self, modality: Modality, staged: StagedObservations, group: StagedGroup, places: Tensor, out_ND: Tensor
    ) -> None:
        found_BD = self._encoder.encode_modality(modality, *staged.sequences(group, places), group.copies)
        out_ND.index_copy_(0, group.members[places], found_BD)

    def _fuse(self, s2_ND: Tensor, s1_ND: Tensor) -> Tensor:
        """Embeddings of some pixels of the chunk, float32 (B, R)."""
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
        """The device could not hold a batch: say so once, and let go of what torch keeps for later."""
        if not self._device.reduced:
            logger.warning("%s is out of memory: encoding goes on in smaller batches", self._encoder.device)
        self._device.reduced = True
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _put(self, array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        return tensor.pin_memory().to(self._encoder.device, non_blocking=True) if self._device.copies else tensor


def _known(encoder: Encoder) -> _Device:
    pixels = max(1, min(CHUNK, CHUNK_BYTES // (8 * encoder.config.width)))
    cuda = encoder.device.type == "cuda"
    free = torch.cuda.mem_get_info(encoder.device)[0] if cuda else None
    copies = torch.cuda.Stream(encoder.device) if cuda else None  # type: ignore[no-untyped-call]
    return _Device(copies, *memory.plan(encoder.config, encoder.s2.matmul_dtype, free, pixels))
