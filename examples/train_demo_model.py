r"""Train the `demo` model: a v2-nano-shaped encoder on simulated landscapes, with the commands of the package alone.

    python -m benchmarks.real_series FOLDER tables       # real time series of WorldCereal's test data (MIT)
    python examples/train_demo_model.py --also tables/france.parquet tables/corsica.parquet tables/world.parquet \
        --credit "They are test data of WorldCereal (github.com/WorldCereal/worldcereal-classification), MIT."
    python examples/train_demo_model.py --out /tmp/try.safetensors -- --steps 20

It makes the package's demonstration show structure and not noise, and takes some 20 minutes. The landscapes are of
several places and years, and have other seeds than the one of `make demo`. `--also` names long tables of time series
(docs/series.md). What follows `--` goes to `tessera pretrain`. One thread, so that the number of cores makes no
difference; run twice on a machine, it writes the same bytes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from tessera_cli.models.checkpoint import read_checkpoint, save_safetensors

LANDSCAPES = (
    ("plain", 2021, 101),
    ("plain", 2024, 102),
    ("flanders", 2022, 103),
    ("flanders", 2023, 104),
    ("castile", 2022, 105),
    ("castile", 2024, 106),
    ("mazovia", 2021, 107),
    ("mazovia", 2023, 108),
    ("iowa", 2022, 109),
    ("pampas", 2023, 110),
    ("malwa", 2022, 111),
)
"""Place, year and seed; `plain` is `tessera simulate` without a place, and lies in `flanders`."""
CONFIG = Path(__file__).with_name("demo.toml")


def tessera(*arguments: object) -> None:
    """Run a command of the package."""
    subprocess.run([sys.executable, "-m", "tessera_cli", *map(str, arguments)], check=True)


def fetch(folder: Path, place: str, year: int, seed: int, size: int) -> None:
    """Simulate a landscape and add its d-pixels to FOLDER/dpixels."""
    land = folder / str(seed)
    where = [] if place == "plain" else ["--place", place]
    tessera("simulate", land, *where, "--seed", seed, "--size", size, "--year", year)
    catalog = ["--aoi", land / "aoi.geojson", "--catalog", land / "items.json"]
    tessera("fetch", *catalog, "--year", year, "--model", "demo", "--out", folder / "dpixels")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, default=Path("tessera_cli/models/data/demo.safetensors"))
    options.add_argument("--size", type=int, default=80, help="of a landscape, in pixels")
    options.add_argument("--also", type=Path, nargs="+", default=[], metavar="TABLE", help="long tables of time series")
    options.add_argument("--credit", default="", help="who made those tables, and their licence")
    options.add_argument("pretrain", nargs="*", help="more for `tessera pretrain`")
    args = options.parse_args()

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for land in LANDSCAPES:
            fetch(folder, *land, args.size)
        inputs = [folder / "dpixels", *args.also]
        tessera("pretrain", *inputs, "--config", CONFIG, "--out", folder / "run", "--threads", 1, *args.pretrain)
        trained = read_checkpoint(folder / "run" / "export" / "demo.safetensors")

    note = "Demonstration only: trained on simulated landscapes, it has never seen the Earth."
    if args.also:
        tables = ", ".join(table.stem for table in args.also)
        note = (
            f"Demonstration only: trained on {len(LANDSCAPES)} simulated landscapes and, without labels, on real time "
            f"series: {tables}. {args.credit}".strip()
        )
    assert trained.card is not None
    card = trained.card.model_dump(mode="json", exclude_unset=True, exclude={"source"})  # simulated: as good for any
    card |= {"demonstration_only": True, "description": note, "license": "MIT"}
    save_safetensors(args.out, trained.encoder, card)  # float16: the package stays small


if __name__ == "__main__":
    main()
