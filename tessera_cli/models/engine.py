"""Runs an encoder over many pixels in micro-batches, so that no pixel's embedding depends on its company.

A matrix product's bits change with its shape, with its number of threads and with the alignment of its operands.
On a CPU all three follow from the pixel's own number of observations:

- each sensor's backbone runs on pixels of one bin (sequence length) of that sensor; the other sensor has no say;
- a micro-batch of bin T has about 1024 / T pixels, always: the last one is padded by repeating a pixel;
- a micro-batch runs on one intra-op thread; several threads run several micro-batches side by side;
- operands lie in memory that torch allocated, hence equally aligned.

What remains is that a pixel's rows must come out the same at every position in the micro-batch. Torch's CPU kernels
treat the last rows of a product in another way unless their number is a multiple of 8. In the transformer a pixel has
as many rows as its bin, which may be any number; in a GRU it has one. So the pixels themselves come in multiples of 8,
for every bin and family; tests check that this is enough.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import torch

from tessera_cli.models.encoder import Encoder
from tessera_cli.sampling import BANDS, Modality, Observations

logger = logging.getLogger(__name__)

CPU_TOKENS = 1024
"""Tokens per micro-batch: few enough to stay in a core's cache, enough for matrix products to run at speed."""
CPU_PIXELS = 8
"""Micro-batches hold a multiple of so many pixels."""
CPU_FUSED = 256
"""Pixels per batch of fusion and reduction."""
GPU_TOKENS = 1 << 18
GPU_FUSED = 1 << 12

Advance = Callable[[int], None]
"""Told how many pixels were finished since its last call."""
In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True, eq=False)
class _Batch:
    modality: Modality
    seen: Observations
    bin: int
    members: np.ndarray
    """int64 (B,): positions in the chunk."""
    out: np.ndarray
    """float32 (N, D): the sensor's vectors of the whole chunk."""


@dataclass
class _Sizes:
    """Of batches, at most."""

    tokens: int
    pixels: int
    """Of fusion and reduction."""
    reduced: bool = False
    """The device could not hold what it was first given."""


_ON_DEVICE: WeakKeyDictionary[Encoder, _Sizes] = WeakKeyDictionary()
"""What was learned of an encoder's device holds from one tile to the next."""


class Engine:
    """An encoder at work, as a context manager. Where it computes in float32, that is exact: TF32 is off."""

    def __init__(self, encoder: Encoder, threads: int) -> None:
        self._encoder = encoder
        self._on_cpu = encoder.device.type == "cpu"
        if self._on_cpu:
            self._sizes = _Sizes(CPU_TOKENS, CPU_FUSED)
        else:
            self._sizes = _ON_DEVICE.setdefault(encoder, _Sizes(GPU_TOKENS, GPU_FUSED))
        self._threads = threads
        self._pool: ThreadPoolExecutor | None = None
        self._missing: dict[Modality, np.ndarray] = {}

    def __enter__(self) -> Engine:
        self._outside = torch.get_num_threads(), torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        if self._on_cpu:
            self._pool = ThreadPoolExecutor(self._threads, "encode", torch.set_num_threads, (1,))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)
        threads, precision = self._outside
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)

    def embed(self, seen: dict[Modality, Observations], out: np.ndarray, advance: Advance) -> int:
        """Fill `out`, float32 (N, R), with the embeddings of N pixels; returns the number of tokens encoded.

        `advance` is called as micro-batches are done.
        """
        if not self._missing:
            self._missing = dict(zip(BANDS, self._map(self._missing_vector, BANDS), strict=True))
        vectors = {m: np.empty((len(out), self._encoder.config.width), np.float32) for m in seen}
        batches = [batch for modality in seen for batch in self._batches(modality, seen[modality], vectors[modality])]
        total = sum(batch.bin * len(batch.members) for batch in batches)
        done = reported = 0
        for tokens in self._map(self._vectors, batches):
            done += tokens
            now = len(out) * done // (total + 1)  # the last pixel is finished after fusion
            advance(now - reported)
            reported = now
        size = self._sizes.pixels
        parts = [range(len(out))[start : start + size] for start in range(0, len(out), size)]
        for part, embeddings in zip(parts, self._map(lambda part: self._fuse(vectors, part), parts), strict=True):
            out[part.start : part.stop] = embeddings
        advance(len(out) - reported)
        return total + sum(int((o.bins == 0).sum()) for o in seen.values())

    def _map(self, function: Callable[[In], Out], items: Iterable[In]) -> Iterator[Out]:
        try:
            yield from self._pool.map(function, items) if self._pool else map(function, items)
        except RuntimeError as error:  # what torch says when the machine's own memory is used up
            if "DefaultCPUAllocator" in str(error):
                raise MemoryError("the encoder needs more") from error
            raise

    def _batches(self, modality: Modality, seen: Observations, out: np.ndarray) -> Iterator[_Batch]:
        """Longest sequences first, so that the last batches to finish are small ones."""
        for bin in np.unique(seen.bins)[::-1].tolist():
            members = np.flatnonzero(seen.bins == bin)
            if bin == 0:
                out[members] = self._missing[modality]
                continue
            size = self._pixels(bin)
            for start in range(0, len(members), size):
                yield _Batch(modality, seen, bin, members[start : start + size], out)

    def _pixels(self, bin: int) -> int:
        """How many of a bin make a micro-batch."""
        if self._on_cpu:
            return CPU_PIXELS * max(1, round(self._sizes.tokens / (bin * CPU_PIXELS)))
        return max(1, self._sizes.tokens // bin)

    def _vectors(self, batch: _Batch) -> int:
        done = 0
        while done < len(batch.members):
            members = batch.members[done : done + self._pixels(batch.bin)]
            try:
                self._encode(batch, members)
            except torch.OutOfMemoryError:
                if len(members) == 1:
                    raise MemoryError(f"{self._encoder.device} cannot hold one pixel's {batch.bin} tokens") from None
            else:
                done += len(members)
                continue
            self._sizes.tokens = len(members) * batch.bin // 2
            self._make_room()
        return len(batch.members) * batch.bin

    @torch.inference_mode()
    def _encode(self, batch: _Batch, members: np.ndarray) -> None:
        padded = self._padded(members, self._pixels(batch.bin))
        bands_BTC, doy_BT = batch.seen.sequences(padded, batch.bin)
        vectors_BD = self._encoder.encode_modality(batch.modality, self._tensor(bands_BTC), self._tensor(doy_BT))
        batch.out[members] = vectors_BD[: len(members)].cpu().numpy()

    def _fuse(self, vectors: dict[Modality, np.ndarray], part: range) -> np.ndarray:
        """Embeddings of some pixels of the chunk, float32 (B, R)."""
        try:
            return self._reduce(vectors, part)
        except torch.OutOfMemoryError:
            if len(part) == 1:
                raise MemoryError(f"{self._encoder.device} cannot hold one pixel") from None
        self._sizes.pixels = half = len(part) // 2
        self._make_room()
        return np.concatenate([self._fuse(vectors, part[:half]), self._fuse(vectors, part[half:])])

    @torch.inference_mode()
    def _reduce(self, vectors: dict[Modality, np.ndarray], part: range) -> np.ndarray:
        padded = self._padded(np.arange(part.start, part.stop), CPU_FUSED)
        fused_BR = self._encoder.fuse(self._tensor(vectors["s2"][padded]), self._tensor(vectors["s1"][padded]))
        embeddings: np.ndarray = fused_BR[: len(part)].cpu().numpy()
        return embeddings

    def _make_room(self) -> None:
        """The device could not hold a batch: say so once, and let go of what torch keeps for later."""
        if not self._sizes.reduced:
            logger.warning("%s is out of memory: encoding goes on in smaller batches", self._encoder.device)
        self._sizes.reduced = True
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def _missing_vector(self, modality: Modality) -> np.ndarray:
        """What the backbone makes of a sensor that never saw the pixel: float32 (1, D), a constant of the model."""
        bands_BTC, doy_BT = np.zeros((1, 1, BANDS[modality]), np.float32), np.zeros((1, 1), np.int64)
        vector_1D = self._encoder.encode_modality(modality, self._tensor(bands_BTC), self._tensor(doy_BT))
        vector: np.ndarray = vector_1D.cpu().numpy()
        return vector

    def _padded(self, members: np.ndarray, size: int) -> np.ndarray:
        return np.pad(members, (0, size - len(members)), mode="edge") if self._on_cpu else members

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        """A copy on the encoder's device, in memory that torch allocated."""
        tensor = torch.from_numpy(array)
        return tensor.clone() if self._on_cpu else tensor.to(self._encoder.device)
