"""Hold the bytes that two states of the code write against each other: for changes that must not change results.

    python -m tests.same_bytes write A --tree ../older    # runs the tessera_cli that lies in ../older
    python -m tests.same_bytes write B
    python -m tests.same_bytes compare A B

Runs the simulated catalogue through `embed` and `fetch`, every case of tests/golden through `embed --dpixels`, and a
short pretraining. Compares rasters, arrays, stores and weights; records (JSON) may say more in a newer state.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

RESULT = "bytes.json"
KINDS = (".tif", ".npy", ".safetensors", ".vrt", ".tiff")
STEPS = 30


def commands(folder: Path) -> Iterator[list[object]]:
    """Return the command lines to run, in order, inside `folder`."""
    catalog = ["--aoi", "cat/aoi.geojson", "--year", 2023, "--catalog", "cat/items.json"]
    yield ["simulate", "cat", "--size", 96]
    for name, more in {
        "demo": [],
        "deflate": ["--compress", "deflate", "--dims", 16, "--preprocessing", "corrected"],
        "float32": ["--dtype", "float32", "--fill-bbox"],
    }.items():
        yield ["embed", *catalog, "--model", "demo", "--out", name, *more]
    yield ["embed", *catalog, "--model", "null", "--out", "null", "--window", "2023-03/2023-08"]
    yield ["fetch", *catalog, "--model", "demo", "--out", "zarr"]
    yield ["fetch", *catalog, "--model", "demo", "--out", "official", "--format", "npy"]
    for precision in ("fp32", "bf16", "int8"):
        yield ["embed", "--dpixels", "zarr", "--model", "demo", "--precision", precision, "--out", f"zarr-{precision}"]
    yield ["embed", "--dpixels", "official", "--model", "demo", "--format", "npy", "--source", "mpc", "--out", "arrays"]
    yield from golden_commands(folder)
    train = ["--preset", "tiny", "--steps", STEPS, "--device", "cpu", "--threads", 1]
    classes = ["sugar beet", "winter wheat", "potato", "grassland", "maize", "rapeseed"]
    probe = ["--probe", "cat/labels.geojson", "--set", f"probe.classes={json.dumps(classes)}"]
    yield ["pretrain", "zarr", *train, *probe, "--out", "run"]
    yield ["embed", "--dpixels", "zarr", "--model", "run", "--out", "own"]


def golden_commands(folder: Path) -> Iterator[list[object]]:
    """Write the golden cases as official checkpoints and tile folders; return the commands that encode them."""
    import torch

    from tests import reference

    for name in reference.CASES:
        case, place = reference.load_case(name), folder / "golden" / name
        (place / "tile").mkdir(parents=True)
        torch.save(case.payload, place / "weights.pt")
        (place / "config.json").write_text(json.dumps(case.config))
        for array, values in case.arrays.items():
            np.save(place / "tile" / f"{array}.npy", values)
        options = ["--weights", place / "weights.pt", "--model-config", place / "config.json"]
        options += [] if case.source is None else ["--source", case.source]
        options += [] if case.seed is None else ["--legacy-draw", "--seed", case.seed]
        dtypes = ["float32"] if not case.codes else ["float32", "int8"]
        for dtype in dtypes:
            out = [
                "--format",
                "npy",
                "--dtype",
                dtype,
                "--device",
                "cpu",
                "--min-s2",
                0,
                "--out",
                place / f"out-{dtype}",
            ]
            yield ["embed", "--dpixels", place / "tile", *options, *out]
        if case.seed is not None:  # our own draws as well
            own = options[: options.index("--legacy-draw")]
            out = ["--format", "npy", "--dtype", "float32", "--min-s2", 0, "--out", place / "out-own"]
            yield ["embed", "--dpixels", place / "tile", *own, "--seed", 5, *out]


def write(folder: Path) -> None:
    """Run everything in `folder`, which must not exist, and note the SHA-256 of what was written."""
    import os

    from tessera_cli.cli.app import run

    folder.mkdir(parents=True)
    folder = folder.resolve()
    os.chdir(folder)
    for arguments in commands(folder):
        line = [str(argument) for argument in arguments] + (["-qq"] if arguments[0] != "simulate" else [])
        if code := run(line):
            raise SystemExit(f"exit code {code}: tessera {' '.join(line)}")
    (folder / RESULT).write_text(json.dumps(digests(folder), indent=1))


def digests(folder: Path) -> dict[str, str]:
    """Path in `folder` -> SHA-256 of rasters, arrays, weights and everything within Zarr stores."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        wanted = path.suffix in KINDS or ".zarr/" in name
        if path.is_file() and wanted and "/tile/" not in name:
            content = path.read_bytes()
            if path.name == "zarr.json":  # the digest of the inputs depends on where the catalogue lies
                content = re.sub(rb'"input_digest": "\w+"', b"", content)
            found[name] = hashlib.sha256(content).hexdigest()
    return found


def compare(first: Path, second: Path) -> int:
    """Print what differs; return how many files do."""
    a, b = (json.loads((folder / RESULT).read_text()) for folder in (first, second))
    differing = [name for name in sorted(a.keys() | b.keys()) if a.get(name) != b.get(name)]
    for name in differing:
        print(f"{'only in one' if (name in a) != (name in b) else 'differs'}: {name}")  # noqa: T201
    print(f"{len(a.keys() | b.keys())} files, {len(differing)} differ")  # noqa: T201
    return len(differing)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    writing = verbs.add_parser("write")
    writing.add_argument("folder", type=Path)
    writing.add_argument("--tree", type=Path, help="A checkout whose tessera_cli is to be run.")
    comparing = verbs.add_parser("compare")
    comparing.add_argument("folders", type=Path, nargs=2)
    given = parser.parse_args()
    if given.verb == "compare":
        sys.exit(1 if compare(*given.folders) else 0)
    if given.tree is not None:
        sys.path.insert(0, str(given.tree.resolve()))
    write(given.folder)


if __name__ == "__main__":
    main()
