"""What lies in folders: stores of d-pixels, settings, weights, records; and whole commands on all of it."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import shapely

import tessera_cli
from tessera_cli.catalog import MPC, Scenes
from tessera_cli.cli.app import run
from tessera_cli.dpixels import find_stores, open_dpixels, write_folder, write_store
from tessera_cli.embeddings.dataset import open_embeddings
from tessera_cli.errors import TesseraError
from tessera_cli.extent.grid import TileRequest, pack_mask
from tessera_cli.files import write_json, write_ndjson_gz
from tessera_cli.folders.folder import TileFolder
from tessera_cli.inspection.info import describe
from tessera_cli.inspection.verify import verify
from tessera_cli.models.weights import describe_weights
from tessera_cli.outputs import formats
from tessera_cli.pretraining.config_file import load_config, to_toml
from tests.dpixels.test_stores import sample
from tests.fuzz import catalogues
from tests.fuzz.mutate import damaged, mutated, respelled
from tests.fuzz.target import Target, json_or_bytes, write
from tests.helpers import outputs
from tests.helpers.outputs import write_record
from tests.helpers.tiles import made_up

RUN = "0" * 16
"""Key of the run in the folder of records."""
TILE = outputs.PLACED

# --- stores of d-pixels -----------------------------------------------------------------------------------------------


def build_official(folder: Path) -> None:
    write_folder(folder, made_up(np.array([[3, 2, 1]] * 64), 0, (8, 8)))


def use_stores(folder: Path, changed: Path) -> None:
    for stored in find_stores([folder]):
        stored.read()
        json.dumps(describe(stored.path))
        open_dpixels(stored.path)


# --- settings and weights ---------------------------------------------------------------------------------------------


def build_toml(folder: Path) -> None:
    (folder / "run.toml").write_text(f'preset = "nano"\n{to_toml(load_config(preset_name="nano"))}')


def respelled_toml(path: Path, data: bytes, rng: Random) -> bytes:
    return respelled(data.decode(), rng)


def copy_weights(folder: Path) -> None:
    shutil.copy(Path(tessera_cli.__file__).parent / "models" / "data" / "demo.safetensors", folder)


def header_changed(path: Path, data: bytes, rng: Random) -> bytes:
    """Change the header of safetensors as JSON, its length along with it, or a document within it; else bytes."""
    if rng.random() < 0.4:
        return damaged(data, rng)
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    if rng.random() < 0.5:
        key = rng.choice(sorted(header["__metadata__"]))
        header["__metadata__"][key] = mutated(json.loads(header["__metadata__"][key]), rng).decode(errors="replace")
        made = json.dumps(header).encode()
    else:
        made = mutated(header, rng)
    return len(made).to_bytes(8, "little") + made + data[8 + length :]


# --- records ----------------------------------------------------------------------------------------------------------


def build_records(folder: Path) -> None:
    encoded = outputs.encoded(outputs.foreign(TILE, dims=2), TILE)
    assets = formats.write(folder, encoded, compress="deflate")
    identity, pixels = outputs.identity(2), int(encoded.pixels.sum())
    about = {"tile": TILE, "window": None, "requested": encoded.record.requested, "scenes": ("S2A_1",)}
    record = outputs.record(**about, identity=identity, assets=assets, pixels=pixels, missing_scenes={})
    write_record(TileFolder(folder, identity), record)
    write_json(folder / "run.json", {"identity": identity, "note": "x"})
    scenes = Scenes.from_items([{**catalogues.item(1, MPC), "id": "S2A_1"}], MPC)
    write_ndjson_gz(folder / "scenes.ndjson.gz", scenes.to_ndjson())
    packed = json.loads((folder / f"{TILE.id}.json").read_text())["properties"]["tessera:requested"]
    failed = {"reason": "no", "shape": list(TILE.shape), "requested": packed, "allow_missing": 0}
    ran = {
        "names": [TILE.id],
        "areas": {"32631": [573440.0, 5621760.0, 574000.0, 5622000.0]},
        "aoi": "x",
        "aoi_bounds": [4.0, 50.7, 4.1, 50.8],
        "source": "mpc",
        "catalog": "https://x.test",
        "scenes": ["S2A_1"],
        "skipped": {"cloud cover": 2},
        "failed": {TILE.id: failed},
    }
    write(folder / "runs" / f"{RUN}.json", ran)


def use_records(folder: Path, changed: Path) -> None:
    """Read the folder in every way, whatever the ways before say."""
    name, ours = TILE.id, TileFolder(folder, outputs.identity(2))
    tile = TileRequest(TILE, None, pack_mask(np.ones(TILE.shape, bool)))
    calls: list[Callable[[], object]] = [
        lambda: json.dumps(verify(folder).to_dict()),
        lambda: json.dumps(describe(folder)),
        lambda: json.dumps(describe(folder / f"{name}.json")),
        lambda: json.dumps(verify(folder / f"{name}.json").to_dict()),
        lambda: open_embeddings(folder),
        ours.check_identity,
        lambda: ours.frozen_scenes(RUN, MPC),
        lambda: ours.check_source("mpc"),
        lambda: ours.holds_other_area({"aoi_bounds": [0], "areas": {}}),
        lambda: ours.finished(tile, allow_missing=0),
        lambda: ours.united(tile),
    ]
    for call in calls:
        try:
            call()
        except TesseraError as error:
            if error.exit_code == 1:
                raise


def no_raster(path: Path) -> bool:
    return path.suffix != ".tif"


TARGETS = (
    Target("zarr", lambda folder: write_store(folder, sample()), use_stores),
    Target("npy", build_official, use_stores, lambda path, data, rng: damaged(data, rng, head=128)),
    Target("toml", build_toml, lambda folder, changed: to_toml(load_config(path=changed)), respelled_toml),
    Target("weights", copy_weights, lambda folder, changed: describe_weights(changed), header_changed),
    Target("records", build_records, use_records, varied=no_raster),
)

# --- whole commands ---------------------------------------------------------------------------------------------------


def build_commands(folder: Path) -> None:
    for name in ("items", "aoi", "out", "settings"):
        (folder / name).mkdir()
    catalogues.build_items(folder / "items")
    place = outputs.TILE.outline.centroid.buffer(0.0005)
    write(folder / "aoi" / "aoi.geojson", shapely.geometry.mapping(place))
    build_records(folder / "out")
    build_toml(folder / "settings")


def use_commands(folder: Path, changed: Path) -> None:
    """Run the commands that read the changed file."""
    area = ["--aoi", str(folder / "aoi" / "aoi.geojson"), "--year", "2021"]
    plan = ["plan", *area, "--catalog", str(folder / "items" / "items.json")]
    out = str(folder / "out")
    lines = {
        "items": [[*plan, "--json"], plan],
        "aoi": [plan],
        "out": [["verify", out], ["info", out], ["info", out, "--json"]],
        "settings": [["pretrain", "--config", str(changed), "--dpixels", str(folder / "aoi")]],
    }
    for line in lines[changed.relative_to(folder).parts[0]]:
        told, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(told), contextlib.redirect_stderr(errors):
            code = run(line)
        if code == 1:
            raise AssertionError(f"{line[0]} ends with exit code 1: {errors.getvalue().strip()[-300:]}")


def command_file(path: Path, data: bytes, rng: Random) -> bytes:
    return (respelled_toml if path.suffix == ".toml" else json_or_bytes)(path, data, rng)


COMMANDS = Target("commands", build_commands, use_commands, command_file, varied=no_raster)
