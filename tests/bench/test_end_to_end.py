"""The measurement of a whole run: that it is the whole run, and what it says of it."""

from __future__ import annotations

import json

import pytest

from tessera_cli.bench.end_to_end import measure
from tessera_cli.errors import UsageError


def test_a_whole_run_is_measured(catalog, tessera, tmp_path):
    code, stdout, _ = tessera("embed", *catalog.options(tmp_path / "out"), "--json")
    assert code == 0
    embedded = json.loads(stdout.splitlines()[-1])
    found = measure(catalog.folder, model="demo", threads=1)
    json.dumps(found, allow_nan=False)
    assert (found["tiles"], found["pixels"]) == (2, embedded["pixels"])
    seconds = found["seconds"]
    assert set(seconds) == {"run", "first_pixels", "start", "read", "encode", "write"}
    assert seconds["start"] < seconds["first_pixels"] < seconds["run"]
    assert seconds["encode"] + seconds["start"] < seconds["run"]
    assert 0 < found["encode_busy_share"] < 1
    assert found["pixels_per_second"] == pytest.approx(found["pixels"] / seconds["run"])
    assert 50 < found["peak_rss_mb"] < 20_000


def test_what_is_no_catalogue_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"no catalogue of `tessera simulate`"):
        measure(tmp_path)
