"""Run an encoder over chunks of pixels: `cpu.py` and `gpu.py` differ in how they cut a chunk into batches."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from types import TracebackType

import numpy as np
import torch
from torch import Tensor

from tessera_cli.inference import memory
from tessera_cli.inference.batch import DeviceBatch
from tessera_cli.models.encoder import Encoder
from tessera_cli.models.precision import torch_settings
from tessera_cli.models.quantise import Quantiser, codes_and_scales
from tessera_cli.sampling import BAND_COUNTS, Modality, Observations

Advance = Callable[[int], None]
"""Called with the number of pixels finished since its last call."""
Arrays = tuple[np.ndarray, np.ndarray | None]
"""Embeddings and None, or codes and scales."""
Chunk = Mapping[Modality, DeviceBatch]
"""Both sensors' observations of the same pixels."""


class Engine(abc.ABC):
    """Context manager around an encoder's use. TF32 is off, but for what a GPU leaves in float32 in bf16 mode."""

    chunk: int
    """Pixels at a time."""
    chunks: int
    """Chunks held at the same time."""
    ahead: int
    """Chunks that are prepared side by side while one is encoded."""
    copies_back: bool
    """Whether embeddings still have to be copied to the host when they are computed."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._missing: dict[Modality, Tensor] = {}

    def __enter__(self) -> Engine:
        encoder = self._encoder
        lower = encoder.s2.matmul_dtype != torch.float32
        self._settings = torch_settings(tf32=lower and encoder.device.type == "cuda")
        self._settings.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._settings.__exit__(kind, error, at)

    def peak_bytes(self, pixels: int, observations: float, longest: int) -> int:
        """Return the bytes of device memory that encoding takes at its peak, without the weights.

        `observations` is the mean per pixel, `longest` the longest sequence.
        """
        config, matmul_dtype = self._encoder.config, self._encoder.s2.matmul_dtype
        held = min(pixels, self.chunk)
        each = max(memory.token_bytes(config, modality, matmul_dtype) for modality in BAND_COUNTS)
        chunks = min(self.chunks, -(-pixels // held))
        return min(self._max_tokens(longest), held * longest) * each + chunks * memory.chunk_bytes(
            config, held, observations
        )

    @abc.abstractmethod
    def _max_tokens(self, longest: int) -> int:
        """Return how many tokens are encoded at the same time at most."""

    @abc.abstractmethod
    def to_device(self, observations: Mapping[Modality, Observations]) -> Chunk:
        """Bring the observations of some pixels to the device; may be called from another thread than `embed`."""

    @torch.inference_mode()
    def embed(self, chunk: Chunk, advance: Advance) -> Tensor:
        """Return the embeddings of the chunk's pixels, float32 (N, R), on the device; calls `advance` meanwhile."""
        if not self._missing:
            self._missing = {modality: self._missing_vector(modality) for modality in BAND_COUNTS}
        pixels, reported = len(chunk["s2"].starts), 0
        work = sum(len(group.members) * group.length for batch in chunk.values() for group in batch.groups)
        vectors = {}
        for modality, batch in chunk.items():
            vectors[modality] = torch.empty((pixels, self._encoder.config.width), device=self._encoder.device)
            missing = self._missing[modality].expand(len(batch.missing_sensor), -1)
            vectors[modality].index_copy_(0, batch.missing_sensor, missing)

        def encoded(tokens: int) -> None:
            nonlocal reported
            now = pixels * tokens // (work + 1)  # the last pixel is finished after fusion
            advance(now - reported)
            reported = now

        self._encode(chunk, vectors, encoded)
        embeddings = self._fuse(vectors["s2"], vectors["s1"])
        advance(pixels - reported)
        return embeddings

    @abc.abstractmethod
    def _encode(self, chunk: Chunk, vectors: dict[Modality, Tensor], encoded: Callable[[int], None]) -> None:
        """Fill `vectors`, float32 (N, D) each; calls `encoded` with the number of tokens done so far."""

    @abc.abstractmethod
    def _fuse(self, s2_ND: Tensor, s1_ND: Tensor) -> Tensor: ...

    @torch.inference_mode()
    def finish(self, values: Tensor, quantiser: Quantiser | None) -> Callable[[], Arrays]:
        """Start to copy embeddings, float32 (N, R), to the host, as codes and scales if there is a quantiser.

        Returns a function that waits for them.
        """
        if quantiser is None:
            fetched = self._fetch(values)
            return lambda: (fetched()[0], None)
        fetched = self._fetch(*codes_and_scales(values, quantiser, torch))
        return lambda: tuple(fetched())  # type: ignore[return-value]

    def _fetch(self, *tensors: Tensor) -> Callable[[], list[np.ndarray]]:
        return lambda: [tensor.numpy() for tensor in tensors]

    def _missing_vector(self, modality: Modality) -> Tensor:
        """Return the backbone's output for a pixel without observations of this sensor: float32 (1, D), a constant."""
        bands_BTC = torch.zeros((1, 1, BAND_COUNTS[modality]), device=self._encoder.device)
        doy_BT = torch.zeros((1, 1), dtype=torch.int64, device=self._encoder.device)
        return self._encoder.encode_modality(modality, bands_BTC, doy_BT)
