"""Records of runs and of folders with other values than were written: damaged, told so, and never a crash."""

import base64
import contextlib
import json

import numpy as np
import pytest

from tessera_cli.catalog import MPC
from tessera_cli.errors import IdentityError, UsageError
from tessera_cli.extent.grid import pack_mask
from tessera_cli.folders.folder import RUN, RUNS, TileFolder
from tessera_cli.folders.run_record import checked_folder, checked_run, read_or_none
from tessera_cli.inspection.info import describe
from tessera_cli.inspection.verify import verify
from tests.helpers.outputs import NAME, identity

FAILED = {
    "reason": "no",
    "shape": [4, 5],
    "requested": base64.b64encode(pack_mask(np.ones((4, 5), bool))).decode(),
    "allow_missing": 0,
}
SOUND = {
    "names": [NAME],
    "areas": {"32631": [573440.0, 5621760, 574000, 5622000]},
    "aoi_bounds": [4, 50, 5, 51],
    "source": "mpc",
    "scenes": ["A"],
    "skipped": {"cloud cover": 1},
    "failed": {NAME: FAILED},
    "something": {"new": [1]},
}
ODD = [True, -1, 1.5, "x", [None], [[]], {"a": 1}, {"../x": {}}, [5], {"32631": [5, 5, 4, 4]}, {"32631": [None] * 4}]
ODD += [
    {"9999": [0, 0, 1, 1]},
    {"32661": [0, 0, 1, 1]},
    {"000000": [0, 0, 1, 1]},
    {"32631": [-1e300, -1e300, 1e300, 1e300]},
]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / RUNS).mkdir()
    (tmp_path / RUN).write_text(json.dumps({"identity": identity()}))
    return TileFolder.open(tmp_path)


def read_in_every_way(folder):
    """What `info` and `verify` tell; every other way ends with an error of ours, if at all."""
    calls = [folder.check_identity, lambda: folder.check_source("mpc"), lambda: folder.frozen_scenes("0" * 16, MPC)]
    calls += [folder.failures, lambda: folder.holds_other_area({"aoi_bounds": 5, "areas": {}})]
    for call in calls:
        with contextlib.suppress(UsageError, IdentityError):
            call()
    json.dumps(describe(folder.path))
    return {check.name: check.status for check in verify(folder.path).checks}


def test_sound_records_are_taken_as_they_are(folder):
    assert checked_run(SOUND) == SOUND
    assert checked_run({}) == {}
    (folder.path / RUNS / f"{'0' * 16}.json").write_text(json.dumps(SOUND))
    assert list(folder.runs()) == [SOUND]
    assert read_in_every_way(folder)[NAME] == "failed"


@pytest.mark.parametrize("value", ODD, ids=str)
@pytest.mark.parametrize("key", ["names", "areas", "aoi_bounds", "scenes", "skipped", "failed"])
def test_runs_with_other_values(folder, key, value):
    path = folder.path / RUNS / f"{'0' * 16}.json"
    path.write_text(json.dumps({**SOUND, key: value}))
    told = read_in_every_way(folder)
    if checked_run(read_or_none(path)) is None:
        assert told == {f"{RUNS}/{path.name}": "damaged"}
        assert list(folder.runs()) == [{}]
    else:
        assert (key, value) in [("scenes", []), ("skipped", {"a": 1})]


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [4]},
        {"shape": [-4, 5]},
        {"shape": "45"},
        {"requested": "eJw="},
        {"requested": "\x00"},
        {"requested": None},
        {"requested": base64.b64encode(b"no zlib").decode()},
        {"allow_missing": None},
        {"reason": 5},
    ],
)
def test_failures_with_other_values(folder, change):
    failed = {NAME: {**FAILED, **change}}
    (folder.path / RUNS / f"{'0' * 16}.json").write_text(json.dumps({**SOUND, "failed": failed}))
    assert set(read_in_every_way(folder).values()) == {"damaged"}


@pytest.mark.parametrize("text", ["", "[" * 100_000, "[]", "5", '"x"', "null", '{"names": NaN}', '{"names": ["\\ud800'])
def test_runs_that_are_no_records(folder, text):
    (folder.path / RUNS / f"{'0' * 16}.json").write_text(text)
    assert set(read_in_every_way(folder).values()) == {"damaged"}


@pytest.mark.parametrize("change", [{"model": 5}, {"source": ["mpc"]}, {"content": {}}, {"format": []}])
def test_a_folder_of_other_values(folder, change):
    run = {"identity": {**identity(), **change}}
    assert checked_folder(run) is None
    (folder.path / RUN).write_text(json.dumps(run))
    found = TileFolder.open(folder.path)
    assert found.identity == {}
    with pytest.raises(UsageError, match=r"run\.json is damaged"):
        folder.check_identity()
    assert verify(folder.path).counts == {"damaged": 1}
    with pytest.raises(UsageError, match="is no output folder"):
        describe(folder.path)


def test_a_folder_of_other_settings(folder):
    (folder.path / RUN).write_text(json.dumps({"identity": identity(dims=5), "note": "x"}))
    with pytest.raises(IdentityError, match="dims is 5 there and 16 here"):
        folder.check_identity()
