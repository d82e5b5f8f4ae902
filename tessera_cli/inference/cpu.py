"""On a CPU: micro-batches that fit its caches, several side by side. Results do not depend on
the batch.

A matrix product's bits may change with its shape, with its number of threads and with the alignment of its operands.
Here they follow from the pixel's own number of observations, as far as they matter:

- each sensor's backbone runs on pixels with equally many observations of that sensor; the other does not matter;
- a micro-batch of T observations has about 1024 / T pixels, and the last one is padded by repeating a pixel: to full
  size or, where results do not depend on the number of rows (`PrepackedLinear`, int8), to a multiple of 8;
- a micro-batch runs on one intra-op thread; several threads run several micro-batches side by side;
- operands lie in memory that torch allocated, hence equally aligned.

What remains is that a pixel's rows must come out the same at every position in the micro-batch. Some kernels treat the
last rows of a product in another way unless their number is a multiple of 8. In the transformer a pixel has as many
rows as observations, which may be any number; in a GRU it has one. So the pixels themselves come in multiples of 8;
tests check that this is enough.

Repeated observations of a sequence are encoded once (`Encoder.encode_modality`, `repeat_index`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

import torch
from torch import Tensor

from tessera_cli.inference.batch import DeviceBatch
from tessera_cli.inference.engine import Advance, Chunk, Engine
from tessera_cli.malloc import keep_freed_blocks
from tessera_cli.models.encoder import Encoder
from tessera_cli.models.precision import PrepackedLinear
from tessera_cli.sampling import Group, Modality, Observations

TOKENS = 1024
"""Per micro-batch: few enough to stay in a core's caches, enough for matrix products to run at speed."""
PIXELS = 8
"""Micro-batches hold a multiple of this many pixels."""
FUSED = 256
"""Pixels per batch of fusion and reduction."""
CHUNK = 16384
CHUNK_BYTES = 1 << 27
"""Of the two sensor vectors held at a time."""
KEPT = 1 << 28
"""Bytes that malloc keeps from one micro-batch to the next."""


_MicroBatch = tuple[Modality, DeviceBatch, Group[Tensor], int, int]
"""Sensor, its observations, a group of them, its first member in the batch, and the number of pixels with padding."""


class CpuEngine(Engine):
    """Runs `threads` micro-batches side by side; their number does not change the result."""

    chunks, ahead = 2, 1
    copies_back = False

    def __init__(self, encoder: Encoder, threads: int) -> None:
        super().__init__(encoder)
        self.chunk = max(1, min(CHUNK, CHUNK_BYTES // (8 * encoder.config.width)))
        self._threads = threads
        self._fixed = not isinstance(encoder.s2.embed.hidden, PrepackedLinear)
        """Whether micro-batches of one length must all have the same size."""

    def __enter__(self) -> Engine:
        super().__enter__()
        keep_freed_blocks(KEPT)
        torch.set_num_threads(1)
        self._pool = ThreadPoolExecutor(self._threads, "encode", torch.set_num_threads, (1,))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self._pool.shutdown(cancel_futures=True)
        finally:
            super().__exit__(kind, error, at)

    def _max_tokens(self, longest: int) -> int:
        return self._threads * max(pixels_of(length) * length for length in range(1, longest + 1))

    def to_device(self, observations: Mapping[Modality, Observations]) -> Chunk:
        return {modality: DeviceBatch.of(found, padded=False) for modality, found in observations.items()}

    def embed(self, chunk: Chunk, advance: Advance) -> Tensor:
        try:
            return super().embed(chunk, advance)
        except RuntimeError as error:  # what torch says when the machine's own memory is used up
            if "DefaultCPUAllocator" in str(error):
                raise MemoryError("the encoder needs more") from error
            raise

    def _encode(self, chunk: Chunk, vectors: dict[Modality, Tensor], encoded: Callable[[int], None]) -> None:
        def encode(batch: _MicroBatch) -> int:
            modality, observations, group, start, size = batch
            positions = torch.arange(start, start + size).clamp_(max=len(group.members) - 1)
            members = group.members[start : start + size]  # without padding
            with torch.inference_mode():
                found_BD = self._encoder.encode_modality(
                    modality, *observations.sequences(group, positions), group.repeat_index
                )
                vectors[modality][members] = found_BD[: len(members)]
            return len(members) * group.length

        done = 0
        for tokens in self._pool.map(encode, self._batches(chunk)):
            done += tokens
            encoded(done)

    def _fuse(self, s2_ND: Tensor, s1_ND: Tensor) -> Tensor:
        count = len(s2_ND)
        out_NR = torch.empty((count, self._encoder.config.representation))

        def fuse(start: int) -> None:
            positions = torch.arange(start, start + FUSED).clamp_(max=count - 1)
            with torch.inference_mode():
                out_NR[start : start + FUSED] = self._encoder.fuse(s2_ND[positions], s1_ND[positions])[: count - start]

        for _ in self._pool.map(fuse, range(0, count, FUSED)):
            pass
        return out_NR

    def _batches(self, chunk: Chunk) -> Iterator[_MicroBatch]:
        """Longest sequences first, so that the last batches to finish are small ones."""
        for modality, observations in chunk.items():
            for group in observations.groups:
                size, count = pixels_of(group.length), len(group.members)
                for start in range(0, count, size):
                    left = -(-(count - start) // PIXELS) * PIXELS
                    yield modality, observations, group, start, size if self._fixed else min(size, left)


def pixels_of(length: int) -> int:
    """Return how many sequences of this length make a micro-batch."""
    return PIXELS * max(1, round(TOKENS / (length * PIXELS)))
