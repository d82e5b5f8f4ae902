"""Runs an encoder over chunks of pixels: `cpu.py` and `gpu.py` differ in how a chunk is cut into batches."""

from __future__ import annotations

import abc
from collections.abc import Callable
from types import TracebackType

import numpy as np
import torch
from torch import Tensor

from tessera_cli.inference import memory
from tessera_cli.inference.batch import Chunk
from tessera_cli.models.encoder import Encoder
from tessera_cli.models.quantise import Quantiser, codes_and_scales
from tessera_cli.sampling import BANDS, Modality, Observations

Advance = Callable[[int], None]
"""Told how many pixels were finished since its last call."""


class Engine(abc.ABC):
    """An encoder at work, as a context manager. Where it computes in float32, that is exact: TF32 is off."""

    chunk: int
    """So many pixels at a time."""
    chunks: int
    """So many chunks are held at the same time."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._missing: dict[Modality, Tensor] = {}

    def __enter__(self) -> Engine:
        self._outside = torch.get_num_threads(), torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        threads, precision = self._outside
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(precision)

    def peak_bytes(self, pixels: int, observations: float, longest: int) -> int:
        """The memory plan: bytes of the device that encoding takes at its peak, weights apart.

        So many pixels with so many observations on average, of which a sequence holds at most `longest`.
        """
        config, matmul_dtype = self._encoder.config, self._encoder.s2.matmul_dtype
        held = min(pixels, self.chunk)
        each = max(memory.token_bytes(config, modality, matmul_dtype) for modality in BANDS)
        chunks = min(self.chunks, -(-pixels // held))
        return min(self._at_once(longest), held * longest) * each + chunks * memory.chunk_bytes(
            config, held, observations
        )

    @abc.abstractmethod
    def _at_once(self, longest: int) -> int:
        """Tokens that are encoded at the same time, at most."""

    @abc.abstractmethod
    def stage(self, seen: dict[Modality, Observations]) -> Chunk:
        """Bring what was seen of some pixels to the device. May be called from another thread than `embed`."""

    @torch.inference_mode()
    def embed(self, chunk: Chunk, advance: Advance) -> Tensor:
        """The embeddings of the chunk's pixels, float32 (N, R), on the device. `advance` is called meanwhile."""
        if not self._missing:
            self._missing = {modality: self._missing_vector(modality) for modality in BANDS}
        vectors = {
            modality: torch.empty((chunk.pixels, self._encoder.config.width), device=self._encoder.device)
            for modality in chunk.sensors
        }
        for modality, staged in chunk.sensors.items():
            vectors[modality][staged.unseen] = self._missing[modality]
        work, reported = chunk.work, 0

        def encoded(tokens: int) -> None:
            nonlocal reported
            now = chunk.pixels * tokens // (work + 1)  # the last pixel is finished after fusion
            advance(now - reported)
            reported = now

        self._encode(chunk, vectors, encoded)
        embeddings = self._fuse(vectors["s2"], vectors["s1"])
        advance(chunk.pixels - reported)
        return embeddings

    @abc.abstractmethod
    def _encode(self, chunk: Chunk, vectors: dict[Modality, Tensor], encoded: Callable[[int], None]) -> None:
        """Fill `vectors`, float32 (N, D) each; `encoded` is told how many tokens are done so far."""

    @abc.abstractmethod
    def _fuse(self, s2_ND: Tensor, s1_ND: Tensor) -> Tensor: ...

    @torch.inference_mode()
    def finish(self, values: Tensor, quantiser: Quantiser | None) -> Callable[[], tuple[np.ndarray, np.ndarray | None]]:
        """Begin to bring embeddings, float32 (N, R), to the host, as codes and scales if there is a quantiser.

        What is returned waits for them.
        """
        if quantiser is None:
            fetched = self._fetch(values)
            return lambda: (fetched()[0], None)
        fetched = self._fetch(*codes_and_scales(values, quantiser, torch))
        return lambda: tuple(fetched())  # type: ignore[return-value]

    def _fetch(self, *tensors: Tensor) -> Callable[[], list[np.ndarray]]:
        return lambda: [tensor.numpy() for tensor in tensors]

    def _missing_vector(self, modality: Modality) -> Tensor:
        """What the backbone makes of a sensor that never saw the pixel: float32 (1, D), a constant of the model."""
        bands_BTC = torch.zeros((1, 1, BANDS[modality]), device=self._encoder.device)
        doy_BT = torch.zeros((1, 1), dtype=torch.int64, device=self._encoder.device)
        return self._encoder.encode_modality(modality, bands_BTC, doy_BT)
