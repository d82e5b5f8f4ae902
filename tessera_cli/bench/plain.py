"""The plain form of an encoder: `nn.TransformerEncoder` in float32, as in the official code.

It shares with ours the rule that samples observations, and the weights. Everything else is done the plain way: numpy
prepares batches of pixels of equal bins, padding included; sinusoids are computed as they are needed; one operation
follows the other on all threads; the GRU is a loop over time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from tessera_cli.errors import UsageError
from tessera_cli.models.layout import official_names
from tessera_cli.sampling import BAND_COUNTS, BucketedSampling, Modality, SensorSeries, sensor_series
from tessera_cli.sampling.buckets import PATTERNS

if TYPE_CHECKING:
    import torch
    from torch import nn

    from tessera_cli.dpixels.dpixel import DPixels
    from tessera_cli.models import EncoderConfig, Model, ModelSpec

BATCH = 1024
"""Pixels, in the official functions."""


def check(spec: ModelSpec) -> None:
    """Raise UsageError for a model that has no plain form here."""
    if spec.family not in ("v1.1", "v2-student") or spec.config is None or spec.config.qk_norm:
        raise UsageError(
            f"--baseline plain: {spec.name} is no plain nn.TransformerEncoder. Choose a v2 student or a v1.1 model."
        )


class PlainForm:
    """A v1.1 or v2 student encoder in its plain form."""

    def __init__(self, model: Model, device: str, *, compiled: bool = False) -> None:
        """Take the weights of `model`, which must not be prepared for a precision.

        `compiled`: its transformers by `torch.compile`, which on a CPU needs a C++ compiler.
        """
        encoder, spec = model.encoder, model.spec
        check(spec)
        assert encoder is not None
        assert isinstance(spec.observations, BucketedSampling)
        self.rule, self.statistics = spec.observations, spec.statistics
        self.config, self.device = encoder.config, device
        self.tensors: dict[str, torch.Tensor] = {}
        for name, tensor in encoder.state_dict().items():
            names = official_names(name, self.config)
            parts = tensor.detach().to(device).chunk(len(names))
            self.tensors |= {official: part.clone() for official, part in zip(names, parts, strict=True)}
        self.transformers = {}
        for modality in BAND_COUNTS:
            prefix = f"{modality}_backbone.transformer_encoder."
            transformer = plain_transformer(self.config, modality).to(device).eval()
            transformer.load_state_dict(
                {name.removeprefix(prefix): t for name, t in self.tensors.items() if name.startswith(prefix)}
            )
            if compiled:
                transformer.compile()
            self.transformers[modality] = transformer

    def encode(self, dpixels: DPixels, pixels: np.ndarray) -> np.ndarray:
        """Return the embeddings of the true pixels of `pixels`, bool (H, W): float32 (N, R), in row-major order."""
        import torch

        assert self.statistics is not None
        series = sensor_series(dpixels, self.statistics)
        numbers = np.flatnonzero(pixels)
        embeddings = np.empty((len(numbers), self.config.representation), np.float32)
        with torch.inference_mode():
            for members in self._batches(dpixels.counts[:, pixels]):
                vectors = {m: self._backbone(m, *self._sequences(series[m], numbers[members])) for m in BAND_COUNTS}
                embeddings[members] = self._reduce(vectors["s2"], vectors["s1"]).cpu().numpy()
        return embeddings

    def _batches(self, counts: np.ndarray) -> Iterator[np.ndarray]:
        """Yield positions of pixels whose two bins are equal, int64 (at most BATCH,). `counts` is DPixels.counts."""
        s2, asc, desc = counts.astype(np.int64)
        bins = self.rule.bin_of(np.stack([s2, asc + desc], axis=-1))
        _, which = np.unique(bins, axis=0, return_inverse=True)
        for group in range(int(which.max(initial=-1)) + 1):
            members = np.flatnonzero(which.reshape(-1) == group)
            for start in range(0, len(members), BATCH):
                yield members[start : start + BATCH]

    def _sequences(self, series: tuple[SensorSeries, ...], pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return standardised bands float32 (B, T, C) and days of year float32 (B, T) of pixels of one bin."""
        rule = self.rule
        valid = np.concatenate([one.valid[:, pixels] for one in series])
        counts = valid.sum(axis=0)
        length = int(rule.bin_of(counts[:1])[0])
        if length == 0:  # a missing sensor: v1.1 fills the smallest bin with zeros, v2 takes one zero
            length = rule.bins[0] if rule.padding == "v1.1" else 1
            bands = series[0].frames.shape[-1]
            return np.zeros((len(pixels), length, bands), np.float32), np.zeros((len(pixels), length), np.float32)
        values = np.concatenate([(s.frames[:, pixels].astype(np.float32) - s.mean) / s.std for s in series])
        days = np.concatenate([one.doy for one in series]).astype(np.float32)
        frames = np.argsort(~valid, axis=0, kind="stable").T  # a pixel's valid frames first, in their order
        patterns = np.stack([PATTERNS[rule.padding](n, length) for n in counts.tolist()])
        chosen = np.take_along_axis(frames, patterns, axis=1)
        return values[chosen, np.arange(len(pixels))[:, None]], days[chosen]

    def _backbone(self, modality: Modality, bands: np.ndarray, days: np.ndarray) -> torch.Tensor:
        """Return one sensor's vectors, float32 (B, D)."""
        import torch
        import torch.nn.functional as F

        prefix = f"{modality}_backbone."
        x = F.relu(self._linear(f"{prefix}embedding.0", torch.from_numpy(bands).to(self.device)))
        x = self._linear(f"{prefix}embedding.2", x)
        x = x + sinusoids(torch.from_numpy(days).to(self.device), self.config.width)
        x = self.transformers[modality](x)
        scored = x if self.config.pooling == "attention" else self._gru_states(f"{prefix}attn_pool.", x)
        weights = torch.softmax(self._linear(f"{prefix}attn_pool.query", scored), dim=1)
        return (weights * x).sum(dim=1)

    def _gru_states(self, prefix: str, x: torch.Tensor) -> torch.Tensor:
        """Return LayerNorm of the states of TESSERA's own GRU, (B, T, D): see `models/pooling.py`."""
        import torch
        import torch.nn.functional as F

        cell = f"{prefix}temporal_context.gru_cell."
        of_input, of_state = (
            {gate: self.tensors[f"{cell}W_{kind}{gate}.weight"] for gate in "rzh"} for kind in ("i", "h")
        )
        bias = {gate: self.tensors[f"{cell}b_{gate}"] for gate in "rzh"}
        h = torch.zeros_like(x[:, 0])
        states = []
        for x_t in x.unbind(dim=1):
            r = torch.sigmoid(F.linear(x_t, of_input["r"], bias["r"]) + F.linear(h, of_state["r"]))
            z = torch.sigmoid(F.linear(x_t, of_input["z"], bias["z"]) + F.linear(h, of_state["z"]))
            n = torch.tanh(F.linear(x_t, of_input["h"], bias["h"]) + F.linear(r * h, of_state["h"]))
            h = (1 - z) * h + z * n
            states.append(h)
        return self._norm(f"{prefix}layer_norm", torch.stack(states, dim=1))

    def _reduce(self, s2: torch.Tensor, s1: torch.Tensor) -> torch.Tensor:
        import torch
        import torch.nn.functional as F

        fused = s2 + s1 if self.config.fusion == "sum" else torch.cat([s2, s1], dim=-1)
        hidden = F.relu(self._norm("dim_reducer.1", self._linear("dim_reducer.0", fused)))
        out = self._linear("dim_reducer.4", hidden)
        return F.layer_norm(out, out.shape[-1:]) if self.config.final_norm else out

    def _linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        import torch.nn.functional as F

        return F.linear(x, self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"])

    def _norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        import torch.nn.functional as F

        return F.layer_norm(x, x.shape[-1:], self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"])


def plain_transformer(config: EncoderConfig, modality: Modality) -> nn.TransformerEncoder:
    """Return one sensor's transformer, with random weights."""
    from torch import nn

    stack = config.stack(modality)
    layer = nn.TransformerEncoderLayer(config.width, stack.heads, stack.feedforward, dropout=0.0, batch_first=True)
    return nn.TransformerEncoder(layer, stack.layers, enable_nested_tensor=False)


def sinusoids(days: torch.Tensor, width: int) -> torch.Tensor:
    """Return sine and cosine in turn of days of year (B, T), float32 (B, T, width), as in `models/parts.py`."""
    import torch

    omega = torch.exp(torch.arange(0, width, 2, device=days.device) * (-math.log(10000.0) / width))
    angles = days.unsqueeze(-1) * omega
    return torch.stack([torch.sin(angles), torch.cos(angles)], dim=-1).flatten(start_dim=-2)
