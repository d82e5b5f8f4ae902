"""Changed bytes of local files: whatever is read of them, or an error of ours, never another exception."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
import torch
from safetensors.torch import save_file

from tessera_cli.dpixels import read_store, write_store
from tessera_cli.errors import TesseraError, TileError, UsageError
from tessera_cli.extent.aoi import Aoi
from tessera_cli.labels.vector import read_labels
from tessera_cli.models.checkpoint import read_checkpoint
from tessera_cli.pretraining import checkpoint
from tessera_cli.pretraining.config import PretrainConfig
from tessera_cli.pretraining.config_file import load_config, to_toml
from tests.dpixels.test_stores import sample

WORDS = (b"NaN", b"1e999", b"\xff\xfe", b"\0", b"-1", b"9" * 5000, b"null", b"[" * 3000, b"\xed\xa0\x80", b'"', b"{}")


def mutants(data: bytes, count: int, seed: int) -> list[bytes]:
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        changed = bytearray(data)
        for _ in range(rng.integers(1, 4)):
            at = int(rng.integers(len(changed) + 1))
            match rng.integers(4):
                case 0 if at < len(changed):
                    changed[at] ^= 1 << int(rng.integers(8))
                case 1:
                    changed[at:at] = WORDS[rng.integers(len(WORDS))]
                case 2:
                    del changed[at : at + int(rng.integers(1, 30))]
                case _:
                    changed[at : at + 4] = WORDS[rng.integers(len(WORDS))]
        made.append(bytes(changed))
    return made


def geojson() -> bytes:
    box = shapely.geometry.mapping(shapely.box(5, 51, 5.1, 51.1))
    feature = {"type": "Feature", "properties": {"class": "wheat"}, "geometry": box}
    return json.dumps({"type": "FeatureCollection", "features": [feature]}).encode()


def weights(folder: Path) -> bytes:
    card = {"format": 1, "family": "v2-student", "name": "a", "config": {"latent": 4, "hidden": None}}
    save_file({"a.weight": torch.zeros(3, 4)}, folder / "w.safetensors", {"tessera": json.dumps(card)})
    return (folder / "w.safetensors").read_bytes()


def state(folder: Path) -> bytes:
    header = {"step": 3, "processes": 1, "shards": "ab", "statistics": {}, "format": 1}
    save_file({"weights.a": torch.zeros(2)}, folder / "s.safetensors", {checkpoint.KEY: json.dumps(header)})
    return (folder / "s.safetensors").read_bytes()


KINDS: dict[str, tuple[str, Callable[[Path], bytes], Callable[[Path], Any], int]] = {
    "GeoJSON": ("a.geojson", lambda folder: geojson(), Aoi.from_file, 120),
    "labels": ("b.geojson", lambda folder: geojson(), lambda path: read_labels(path, "class"), 60),
    "TOML": ("c.toml", lambda folder: to_toml(PretrainConfig()).encode(), lambda path: load_config(path=path), 200),
    "safetensors": ("d.safetensors", weights, read_checkpoint, 200),
    "checkpoint": ("e.safetensors", state, checkpoint.read_state, 200),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_mutants_end_in_errors_of_ours(tmp_path: Path, kind: str) -> None:
    name, make, read, count = KINDS[kind]
    refused = 0
    for mutant in mutants(make(tmp_path), count, seed=len(kind)):
        (tmp_path / name).write_bytes(mutant)
        try:
            read(tmp_path / name)
        except TesseraError as error:
            refused += "\n" not in str(error) and error.exit_code in (2, 3)
        else:
            refused += 1
    assert refused == count


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "a = " + "[" * 100_000, "a = " + "9" * 5000, "a.b = 1\na = 2", "\x00", "[optim]\nlr = nan"]
)
def test_toml_that_libraries_stumble_over(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(UsageError):
        load_config(path=tmp_path / "a.toml")


def test_mutants_of_a_store_are_refused_or_read_the_same(tmp_path: Path) -> None:
    """The attributes have a digest, the values a checksum, and of descriptions everything that counts is compared."""
    whole = write_store(tmp_path, sample(2, 1, 0))
    due = read_store(whole)
    rng = np.random.default_rng(0)
    silent = 0
    for number in range(15):
        store = Path(shutil.copytree(whole, tmp_path / str(number) / whole.name))
        files = sorted(store.rglob("zarr.json")) if number % 3 else sorted(path for path in store.glob("*/c/**/*"))
        path = rng.choice([each for each in files if each.is_file()]) if number % 5 else store / "zarr.json"
        data = bytearray(path.read_bytes())
        data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        try:
            found = read_store(store)
        except (TileError, UsageError):
            continue
        silent += any(
            not np.array_equal(getattr(found, name), getattr(due, name))
            for name in ("s2", "s2_mask", "s1_asc", "s1_desc", "requested", "s2_dates", "s1_asc_dates")
        ) or (found.scenes, dict(found.missing_scenes), found.source, found.input_digest, found.preprocessing) != (
            due.scenes,
            dict(due.missing_scenes),
            due.source,
            due.input_digest,
            due.preprocessing,
        )
    assert silent == 0
