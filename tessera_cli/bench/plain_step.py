"""The plain form of a training step: `nn.TransformerEncoder`, `nn.BatchNorm1d`, `torch.optim.AdamW`.

It shares with ours the weights it starts from and the views, which are drawn before. Everything else is done the plain
way: one operation follows the other on all threads, every place of a sequence is computed, and sinusoids as needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tessera_cli.bench.plain import plain_transformer, sinusoids
from tessera_cli.errors import UsageError
from tessera_cli.models.layout import official_names
from tessera_cli.sampling import BAND_COUNTS, Modality

if TYPE_CHECKING:
    import torch
    from torch import nn

    from tessera_cli.models import EncoderConfig
    from tessera_cli.pretraining.config import PretrainConfig
    from tessera_cli.pretraining.data.batch import Batch, Sequences, View
    from tessera_cli.pretraining.trainee import Trainee


def check(config: PretrainConfig) -> None:
    """Raise UsageError for settings whose step has no plain form here."""
    model, loss = config.model, config.loss
    if model.family != "v2-student" or model.encoder.pooling != "attention" or model.dropout:
        raise UsageError(
            f"--baseline plain: an encoder of family {model.family} has no plain form here. Choose the preset of a v2 "
            "student."
        )
    if loss.mix or loss.predict or loss.quantise or config.projector.prefixes or config.views.lengths != "fixed":
        raise UsageError(
            "--baseline plain takes views of a fixed length, one projector and the twin loss alone. Leave the rest out."
        )


class PlainStep:
    """Takes training steps. Construction copies the weights of `trainee`, which must be new or restored."""

    def __init__(self, trainee: Trainee, config: PretrainConfig, device: torch.device) -> None:
        import torch
        from torch import nn

        from tessera_cli.models.precision import resolve

        check(config)
        self.config, self.device = config, device
        self.bf16 = resolve(config.train.precision, device) == "bf16"
        self.statistics = {
            modality: tuple(trainee.get_buffer(f"{modality}_{name}").clone() for name in ("mean", "std"))
            for modality in BAND_COUNTS
        }
        sizes = config.model.encoder
        self.encoder: Any = _encoder(sizes).to(device)
        self.projector: Any = _projector(config).to(device)
        ours = trainee.encoder.state_dict().items()
        self.encoder.load_state_dict({official_names(name, sizes)[0]: tensor for name, tensor in ours})
        twins: Any = trainee.twins
        projector = twins.projectors[0]
        for i, linear in enumerate(projector.linears):
            self.projector[3 * i].load_state_dict(linear.state_dict())
        for i, norm in enumerate(projector.norms):
            self.projector[3 * i + 1].load_state_dict(norm.state_dict(), strict=False)  # without running statistics
        self.module = nn.ModuleList([self.encoder, self.projector])
        parameters = list(self.module.parameters())
        groups = [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.optim.weight_decay},
            {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW(groups)

    def step(self, batch: Batch[torch.Tensor], rate: float) -> float:
        """Take one step with this learning rate and return its loss."""
        from torch import nn

        for group in self.optimiser.param_groups:
            group["lr"] = rate
        loss = self.loss(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.module.parameters(), self.config.optim.clip)
        self.optimiser.step()
        self.optimiser.zero_grad()
        return float(loss.detach())

    def loss(self, batch: Batch[torch.Tensor]) -> torch.Tensor:
        """Return the Barlow Twins loss of a batch, ()."""
        import torch
        import torch.nn.functional as F

        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            projected = [self.projector(self._embed(view)).float() for view in (batch.first, batch.second)]
        z1, z2 = (F.batch_norm(z, None, None, training=True) for z in projected)
        c = (z1.T @ z2).div(len(z1))
        on = (torch.diagonal(c) - 1).pow(2).sum()
        off = c.pow(2).sum() - torch.diagonal(c).pow(2).sum()
        return on + self.config.loss.off_diagonal * off

    def _embed(self, view: View[torch.Tensor]) -> torch.Tensor:
        """Return the embeddings of a view, (B, R)."""
        import torch
        import torch.nn.functional as F

        vectors = []
        for modality in BAND_COUNTS:
            backbone = self.encoder[f"{modality}_backbone"]
            (part,) = view[modality]
            x = backbone["embedding"](self._bands(modality, part)[part.members.argsort()])
            x = x + sinusoids(part.doy[part.members.argsort()].float(), x.shape[-1])
            x = backbone["transformer_encoder"](x)
            weights = torch.softmax(backbone["attn_pool"]["query"](x), dim=1)
            vectors.append((weights * x).sum(dim=1))
        out = self.encoder["dim_reducer"](torch.cat(vectors, dim=-1))
        return F.layer_norm(out, out.shape[-1:])

    def _bands(self, modality: Modality, part: Sequences[torch.Tensor]) -> torch.Tensor:
        """Return standardised bands, float32 (B, T, C)."""
        mean, std = self.statistics[modality]
        streams = part.streams.long()
        values = part.values.float()
        if modality == "s2":  # int16 with the bits of uint16
            values = values % 65536
        return (values - mean[streams]) / std[streams]


def _encoder(sizes: EncoderConfig) -> nn.ModuleDict:
    """Return the modules of an encoder by the names of the official code, with random weights."""
    from torch import nn

    def backbone(modality: Modality, bands: int) -> nn.ModuleDict:
        return nn.ModuleDict(
            {
                "embedding": nn.Sequential(
                    nn.Linear(bands, sizes.width), nn.ReLU(), nn.Linear(sizes.width, sizes.width)
                ),
                "transformer_encoder": plain_transformer(sizes, modality),
                "attn_pool": nn.ModuleDict({"query": nn.Linear(sizes.width, 1)}),
            }
        )

    hidden = sizes.hidden
    assert hidden is not None  # of a v2 student
    reducer = nn.Sequential(
        nn.Linear(sizes.fused_width, hidden),
        nn.LayerNorm(hidden),
        nn.ReLU(),
        nn.Dropout(0.0),
        nn.Linear(hidden, sizes.representation),
    )
    backbones = {f"{modality}_backbone": backbone(modality, bands) for modality, bands in BAND_COUNTS.items()}
    return nn.ModuleDict({**backbones, "dim_reducer": reducer})


def _projector(config: PretrainConfig) -> nn.Sequential:
    """Return linear maps with batch norm and ReLU between them, with random weights."""
    from torch import nn

    width = config.projector.width
    layers: list[nn.Module] = []
    for i in range(config.projector.depth):
        layers.append(nn.Linear(config.model.representation if i == 0 else width, width, bias=False))
        layers += [] if i == config.projector.depth - 1 else [nn.BatchNorm1d(width), nn.ReLU()]
    return nn.Sequential(*layers)
