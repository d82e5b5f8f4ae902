"""The network between an embedding and a loss, which is thrown away after training."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tessera_cli.models.parts import Linear
from tessera_cli.pretraining.distributed import World
from tessera_cli.pretraining.loss import EPS, centre_batch


class BatchNorm(nn.Module):
    """Batch norm over the joint batch of all processes, on any device, in float32; no running statistics."""

    def __init__(self, width: int, world: World) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.world = world

    def forward(self, x_BD: Tensor) -> Tensor:
        x_BD, variance_D = centre_batch(x_BD, self.world)
        return torch.addcmul(self.bias, x_BD, self.weight * torch.rsqrt(variance_D + EPS))


class Projector(nn.Module):
    """`depth` linear maps with batch norm and ReLU between them: float32 (B, R) -> float32 (B, width).

    The maps have no biases: a batch norm follows each of them (the last one in the loss) and would cancel them.
    """

    def __init__(self, inputs: int, width: int, depth: int, world: World) -> None:
        super().__init__()
        self.linears = nn.ModuleList(Linear(inputs if i == 0 else width, width, bias=False) for i in range(depth))
        self.norms = nn.ModuleList(BatchNorm(width, world) for _ in range(depth - 1))
        self.matmul_dtype = torch.float32
        """dtype of the matrix products; the rest is float32."""

    def forward(self, x_BR: Tensor) -> Tensor:
        z_BD = self._linear(0, x_BR)
        for i, norm in enumerate(self.norms, start=1):
            z_BD = self._linear(i, F.relu(norm(z_BD), inplace=True))
        return z_BD

    def _linear(self, i: int, x_BD: Tensor) -> Tensor:
        if self.matmul_dtype == torch.float32:
            out: Tensor = self.linears[i](x_BD)
            return out
        with torch.autocast(x_BD.device.type, self.matmul_dtype):
            return self.linears[i](x_BD).float()
