"""Train the `demo` model: a v2-nano-shaped encoder on simulated landscapes, with Barlow Twins.

    python examples/train_demo_model.py                 # about 5 minutes on 2 cores
    python examples/train_demo_model.py --steps 20 --out /tmp/try.safetensors

It makes the package's demonstration show structure and not noise; it has never seen the Earth. The landscapes have
other seeds than the one of `make demo`.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from tessera_cli.aoi import Aoi
from tessera_cli.area import tile_requests
from tessera_cli.catalog import search, source_named
from tessera_cli.dpixel import DPixels
from tessera_cli.imagery import Reader, read_dpixels
from tessera_cli.models.checkpoint import save_safetensors
from tessera_cli.models.encoder import Encoder
from tessera_cli.models.registry import NANO
from tessera_cli.models.statistics import V2_STUDENT
from tessera_cli.net import Client
from tessera_cli.sampling import BANDS, V2_RULE
from tessera_cli.simulate import simulate
from tessera_cli.window import Window

SEEDS = (101, 102, 103, 104)
YEARS = (2021, 2022, 2023, 2024)
PREFIXES = (16, 32, 64, 128)
OFF_DIAGONAL = 5e-3
MIN_OBSERVATIONS = 8


class Pixels:
    """The valid observations of one tile's pixels, to draw views from."""

    def __init__(self, dpixels: DPixels) -> None:
        numbers = np.flatnonzero(dpixels.embeddable(min_s2=MIN_OBSERVATIONS, min_s1=MIN_OBSERVATIONS))
        sampler = V2_RULE.sampler(dpixels, V2_STUDENT, numbers, seed=0)
        self.seen = {modality: sampler(modality, slice(None), 0) for modality in BANDS}
        self.count = len(numbers)

    def view(self, members: np.ndarray, length: int, rng: np.random.Generator) -> list[Tensor]:
        """A random subset of each pixel's observations (with replacement where there are few): bands, day of year."""
        drawn: list[Tensor] = []
        for seen in self.seen.values():
            counts = seen.counts[members][:, None]
            picks = np.argsort(rng.random((len(members), int(counts.max()))) + (np.arange(counts.max()) >= counts) * 9)
            frames = seen.frames[seen.starts[members][:, None] + picks[:, :length] % counts]
            bands, doy = seen.gather(frames, seen.pixels[members])
            drawn += [torch.from_numpy(bands), torch.from_numpy(doy)]
        return drawn


def load(seed: int, year: int, folder: Path, size: int) -> list[Pixels]:
    made = simulate(folder, seed=seed, size=size, year=year, cloud=0.5)
    window, source = Window.of_year(year), source_named("mpc")
    requests = tile_requests(Aoi.from_file(made.aoi))
    client = Client()
    scenes = search([r.tile for r in requests], [window], source, client=client, catalog=str(made.items))
    reader = Reader(client)
    read = (read_dpixels(scenes.on(r.tile, window), r, window, reader) for r in requests)
    return [pixels for pixels in map(Pixels, read) if pixels.count > 1000]


def barlow_twins(a: Tensor, b: Tensor) -> Tensor:
    """Cross-correlation of two views towards the identity (Zbontar et al. 2021)."""
    normalise = lambda x: (x - x.mean(0)) / (x.std(0) + 1e-5)  # noqa: E731
    correlation = normalise(a).T @ normalise(b) / len(a)
    diagonal = torch.diagonal(correlation)
    off = correlation.pow(2).sum() - diagonal.pow(2).sum()
    return (diagonal - 1).pow(2).sum() + OFF_DIAGONAL * off


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, default=Path("tessera_cli/models/data/demo.safetensors"))
    options.add_argument("--steps", type=int, default=300)
    options.add_argument("--batch", type=int, default=256)
    options.add_argument("--size", type=int, default=112)
    options.add_argument("--seed", type=int, default=0)
    args = options.parse_args()
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)

    with tempfile.TemporaryDirectory() as folder:
        tiles = [
            pixels
            for seed, year in zip(SEEDS, YEARS, strict=True)
            for pixels in load(seed, year, Path(folder) / str(seed), args.size)
        ]
    sizes = np.array([tile.count for tile in tiles])
    print(f"{sizes.sum()} pixels in {len(tiles)} tiles", flush=True)

    encoder = Encoder(NANO)
    heads = nn.ModuleDict(
        {
            str(k): nn.Sequential(nn.Linear(k, 4 * k), nn.BatchNorm1d(4 * k), nn.ReLU(), nn.Linear(4 * k, 4 * k))
            for k in PREFIXES
        }
    )
    parameters = [*encoder.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=1e-4)
    warmup = max(1, args.steps // 20)
    rate = lambda step: min((step + 1) / warmup, 0.5 * (1 + math.cos(math.pi * step / args.steps)))  # noqa: E731
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
    started = time.time()
    for step in range(args.steps):
        shares = rng.multinomial(args.batch, sizes / sizes.sum())
        members = [(tile, rng.choice(tile.count, n, replace=False)) for tile, n in zip(tiles, shares, strict=True) if n]
        embedded = []
        for _ in range(2):
            length = int(rng.choice((8, 12, 16)))
            views = [tile.view(chosen, length, rng) for tile, chosen in members]
            embedded.append(encoder(*(torch.cat(part) for part in zip(*views, strict=True))))
        losses = [
            barlow_twins(head(embedded[0][:, : int(k)]), head(embedded[1][:, : int(k)])) for k, head in heads.items()
        ]
        loss = torch.stack(losses).sum()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        if step % 20 == 0 or step == args.steps - 1:
            parts = " ".join(f"{float(value):.2f}" for value in losses)
            print(f"step {step} loss {float(loss):.3f} ({parts}) {time.time() - started:.0f} s", flush=True)

    card = {
        "name": "demo",
        "demonstration_only": True,
        "description": "Demonstration only: trained on simulated landscapes, it has never seen the Earth.",
        "training": {"method": "Barlow Twins", "steps": args.steps, "batch": args.batch, "seeds": list(SEEDS)},
        "dims": list(PREFIXES),
        "statistics": V2_STUDENT.to_card(),
        "license": "MIT",
    }
    save_safetensors(args.out, encoder, card)


if __name__ == "__main__":
    main()
