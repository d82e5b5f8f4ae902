"""Train the `demo` model: a v2-nano-shaped encoder on simulated landscapes, with the commands of the package alone.

    python examples/train_demo_model.py                                     # some 10 minutes
    python examples/train_demo_model.py --out /tmp/try.safetensors -- --steps 20

It makes the package's demonstration show structure and not noise; it has never seen the Earth. The landscapes have
other seeds than the one of `make demo`. What follows `--` goes to `tessera pretrain`. One thread, so that the
number of cores makes no difference.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from tessera_cli.models.checkpoint import read_checkpoint, save_safetensors

LANDSCAPES = {101: 2021, 102: 2022, 103: 2023, 104: 2024}
"""Seed -> year: all lie at the same place."""
CONFIG = Path(__file__).with_name("demo.toml")


def tessera(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "tessera_cli", *map(str, arguments)], check=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, default=Path("tessera_cli/models/data/demo.safetensors"))
    options.add_argument("--size", type=int, default=112, help="of a landscape, in pixels")
    options.add_argument("pretrain", nargs="*", help="more for `tessera pretrain`")
    args = options.parse_args()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for seed, year in LANDSCAPES.items():
            land = folder / str(seed)
            tessera("simulate", land, "--seed", seed, "--size", args.size, "--year", year, "--cloud", 0.5)
            tessera(
                "fetch",
                "--aoi",
                land / "aoi.geojson",
                "--year",
                year,
                "--catalog",
                land / "items.json",
                "--model",
                "demo",
                "--out",
                folder / "dpixels",
            )
        tessera(
            "pretrain", folder / "dpixels", "--config", CONFIG, "--out", folder / "run", "--threads", 1, *args.pretrain
        )
        trained = read_checkpoint(folder / "run" / "export" / "demo.safetensors")

    note = "Demonstration only: trained on simulated landscapes, it has never seen the Earth."
    assert trained.card is not None
    card = trained.card.model_dump(mode="json", exclude_unset=True, exclude={"source"})  # simulated: as good for any
    card |= {"demonstration_only": True, "description": note, "license": "MIT"}
    save_safetensors(args.out, trained.encoder, card)  # float16: the package stays small


if __name__ == "__main__":
    main()
