"""Random faults of a server in very many runs: how many end well with other pixels than those of its files?

    python -m tests.imagery.fault_schedules --rounds 1000 [--compress lzw] [--validators none] [--seed 0] [--whole 0]

prints one line of JSON. Each round draws a compression, what the server says of versions (an ETag that is an MD5, one
that is not, a date, nothing), faults, and whether a file is replaced by one of the same length in the middle of the
run. To the faults of `test_fault_schedules.py` come lies: answers of the right length with zeros, with bytes from
elsewhere in the file, with two halves swapped. A run that ends with 0 is right if its rasters are those of a run
without faults, on the old or on the new file. `--whole 0` keeps small files from being compared as a whole with an
ETag, as if they were large.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import os
import random
import shutil
import tempfile
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from tests.conftest import SmallCatalog
from tests.helpers import servers
from tests.helpers.servers import FileServer, Reply, Request, served
from tests.imagery.test_fault_schedules import ENDS, FIRST, HARMLESS, garbled
from tests.imagery.test_faults import SCENE, hashes, options, small_catalog

COMPRESSIONS = ("deflate", "lzw", "zstd", "none")
VALIDATORS = {
    "md5": servers.with_etag,
    "etag": servers.with_opaque_etag,
    "date": servers.with_date,
    "none": lambda path, content: {},
}
REPLACED = (f"{SCENE}/SCL", f"{SCENE}/B05", "S1A_2021-03-05/vv")


def shifted(handler: servers.Handler, reply: Reply) -> None:
    """As many bytes as asked for, and said to be those, from another place of the file."""
    handler.send(Reply(reply.status, reply.headers, reply.body[3:] + reply.body[:3]))


def swapped(handler: servers.Handler, reply: Reply) -> None:
    """Two halves of the bytes, the second first."""
    half = len(reply.body) // 2
    handler.send(Reply(reply.status, reply.headers, reply.body[half:] + reply.body[:half]))


LIES = (garbled, shifted, swapped)


class Lies:
    """A plan for each request by its file and range alone, with lies among its faults."""

    def __init__(self, seed: int) -> None:
        draw = random.Random(f"lies {seed}")
        self.seed = seed
        self.faults = [*draw.sample(LIES, draw.randint(1, 3)), *draw.sample(list(ENDS), draw.randint(0, 2)), *HARMLESS]
        self.probability = 10 ** draw.uniform(-2.3, -0.5)
        self.times = draw.choice([(1, 2), (1, 2, 3, 4), (1, 99), (99,)])

    def __call__(self, request: Request) -> servers.Fault | None:
        draw = random.Random(f"{self.seed} {request.path} {request.range}")
        fault, times = draw.choice(self.faults), draw.choice(self.times)
        return fault if draw.random() < self.probability and request.nth < times else None


@dataclass(frozen=True)
class Site:
    """A catalogue of one scene of each kind on a server, and two versions of some of its files."""

    catalog: SmallCatalog
    server: FileServer
    versions: dict[str, tuple[bytes, bytes]]
    clean: dict[str | None, dict[str, str]]
    """File that was replaced before the run -> hashes of its rasters."""

    def put(self, name: str, version: int) -> None:
        """Put a version of a file into the server's folder, in one go, with a date of its own."""
        path = self.server.folder / "cogs" / f"{name}.tif"
        new = path.with_suffix(".new")
        new.write_bytes(self.versions[name][version])
        os.utime(new, (1e9 + version, 1e9 + version))
        new.replace(path)


def quiet(arguments: list[str]) -> int:
    """Run the command; what it prints does not matter here."""
    from tessera_cli.cli.app import run

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return run(arguments)


@contextlib.contextmanager
def site(folder: Path, compress: str) -> Any:
    """Serve the small catalogue with files of this compression, in blocks of 16 x 16."""
    whole, versions = small_catalog(folder / "catalog"), {}
    for path in (whole.folder / "cogs").glob("*/*.tif"):
        with rasterio.open(path) as src:
            values, profile = src.read(), src.profile
        profile |= {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": compress}
        pair = []
        for version in (values, other(values)):
            with rasterio.open(path, "w", **profile) as dst:
                dst.write(version)
            pair.append(path.read_bytes())
        size = max(map(len, pair))
        old, new = (content.ljust(size, b"\0") for content in pair)
        path.write_bytes(old)
        if (name := f"{path.parent.name}/{path.stem}") in REPLACED:
            assert old != new
            versions[name] = old, new
    with FileServer(whole.folder) as server:
        served(whole.items, server)
        catalog = SmallCatalog(folder / "few", whole.origin)
        catalog.folder.mkdir()
        shutil.copy(whole.items, catalog.items)
        shutil.copy(whole.aoi, catalog.aoi)
        kept = (SCENE, "S1A_2021-03-05", "S1A_2021-06-06")
        catalog.edit(lambda items: [item for item in items if item["id"] in kept])
        here = Site(catalog, server, versions, {})
        for name in (None, *REPLACED):
            for each in REPLACED:
                here.put(each, int(each == name))
            out = folder / f"clean {name}".replace("/", " ")
            assert quiet(options(catalog, out)) == 0
            here.clean[name] = hashes(out, "*.tif")
        yield here


def other(values: np.ndarray) -> np.ndarray:
    """Return another image of this type: other classes, or other levels."""
    if values.dtype == "uint8":
        return np.where((values == 4) & (np.arange(values.shape[-1]) % 4 == 0), np.uint8(9), values)
    return values[:, ::-1] * 2


def round_of(here: Site, out: Path, validators: str, seed: int) -> tuple[int, bool]:
    """Return the exit code, and whether the run ended well with wrong rasters."""
    draw = random.Random(f"round {seed}")
    for name in REPLACED:
        here.put(name, 0)
    here.server.forget()
    here.server.validators = VALIDATORS[validators]
    plan, replaced = Lies(seed), draw.choice([None, *REPLACED])
    lying = draw.random() < 0.8 or replaced is None
    when, count = draw.randint(3, 40), itertools.count()

    def faults(request: Request) -> servers.Fault | None:
        if replaced is not None and next(count) == when:
            here.put(replaced, 1)
        return plan(request) if lying else None

    here.server.faults = faults
    code = quiet(options(here.catalog, out))
    here.server.faults = servers.never
    right = [here.clean[None], *([here.clean[replaced]] if replaced else [])]
    wrong = code == 0 and hashes(out, "*.tif") not in right
    shutil.rmtree(out, ignore_errors=True)
    return code, wrong


def measure(
    rounds: int, seed: int, compressions: tuple[str, ...], validators: tuple[str, ...], whole: int | None
) -> dict[str, Any]:
    """Return how many rounds ended with which code, and the seeds of those with silent differences, by kind."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    silent: dict[str, list[int]] = defaultdict(list)
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr("tessera_cli.imagery.geotiff.FIRST_READ", FIRST)
        patch.setattr("tessera_cli.imagery.geotiff.GAP", 64)
        if whole is not None:
            patch.setattr("tessera_cli.imagery.geotiff.WHOLE", whole)
        servers.hurry(patch)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        sites = {name: stack.enter_context(site(folder / name, name)) for name in compressions}
        for number in range(seed, seed + rounds):
            draw = random.Random(f"kind {number}")
            compress, told = draw.choice(compressions), draw.choice(validators)
            code, wrong = round_of(sites[compress], folder / "out", told, number)
            kind = f"{compress}, {told}"
            counts[kind][str(code)] += 1
            if wrong:
                silent[kind].append(number)
    return {
        "rounds": rounds,
        "silent": sum(map(len, silent.values())),
        "seeds": dict(sorted(silent.items())),
        "codes": {kind: dict(sorted(codes.items())) for kind, codes in sorted(counts.items())},
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compress", choices=COMPRESSIONS, action="append")
    parser.add_argument("--validators", choices=VALIDATORS, action="append")
    parser.add_argument("--whole", type=int)
    given = parser.parse_args()
    kinds = tuple(given.compress or COMPRESSIONS), tuple(given.validators or VALIDATORS)
    print(json.dumps(measure(given.rounds, given.seed, *kinds, given.whole)))  # noqa: T201
