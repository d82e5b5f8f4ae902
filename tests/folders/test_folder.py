"""The folder of a run: it is claimed once, tiles are replaced whole, and one opinion says which of them are done."""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tessera_cli.catalog import Scenes, get_source
from tessera_cli.dpixels.dpixel import DPixels
from tessera_cli.errors import DiskFullError, IdentityError, TesseraError, TileError, UsageError
from tessera_cli.extent.grid import TileRequest, pack_mask
from tessera_cli.folders.folder import TileFolder
from tessera_cli.folders.identity import dpixel_folder
from tessera_cli.inspection.verify import verify
from tessera_cli.outputs import asset, formats
from tessera_cli.outputs.item import TileRecord
from tessera_cli.runs.collection import upgrade
from tessera_cli.runs.fetch import store
from tests.dpixels.test_stores import sample
from tests.helpers.builders import s2_item
from tests.helpers.outputs import NOWHERE, encoded, foreign, identity

SHAPE = NOWHERE.shape


def at_once(*calls: Any) -> list[BaseException | None]:
    """Start all calls in the same moment; what each has raised."""
    ready, raised = threading.Barrier(len(calls)), [None] * len(calls)

    def start(number: int) -> None:
        ready.wait()
        try:
            calls[number]()
        except BaseException as error:
            raised[number] = error

    threads = [threading.Thread(target=start, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


# --- whose folder it is -----------------------------------------------------------------------------------------------


def test_of_runs_that_begin_at_once_one_claims_the_folder(tmp_path: Path) -> None:
    for number in range(30):
        path = tmp_path / str(number)
        folders = [TileFolder(path, identity(5, seed=seed)) for seed in range(4)]
        calls = [
            lambda folder=folder, key=key: folder.start_run(key, {"names": [key]}, None)
            for folder, key in zip(folders, "abcd", strict=True)
        ]
        raised = at_once(*calls)
        assert [type(error) for error in raised if error is not None] == [IdentityError] * 3
        winner = raised.index(None)
        assert "seed" in str(raised[winner - 1])
        folders[winner].check_identity()
        assert sorted(found.name for found in path.rglob("*")) == [f"{'abcd'[winner]}.json", "run.json", "runs"]
        assert at_once(*[calls[winner]] * 3) == [None] * 3


def test_a_damaged_claim_is_replaced_once(tmp_path: Path, monkeypatch: Any) -> None:
    import tessera_cli.folders.folder as module

    monkeypatch.setattr(module, "SETTLES", 0.05)
    (tmp_path / "run.json").write_text("{")
    folders = [TileFolder(tmp_path, identity(5, seed=seed)) for seed in range(2)]
    raised = at_once(*[lambda f=folder: f.start_run("a", {"names": []}, None) for folder in folders])
    assert sorted(type(error).__name__ for error in raised) == ["IdentityError", "NoneType"]
    folders[raised.index(None)].check_identity()


def test_a_claim_that_was_mended_meanwhile_is_not_replaced(tmp_path: Path, monkeypatch: Any) -> None:
    import tessera_cli.folders.folder as module

    monkeypatch.setattr(module, "SETTLES", 0.0)
    (tmp_path / "run.json").write_text("{")
    one, other = (TileFolder(tmp_path, identity(5, seed=seed)) for seed in range(2))
    begun = threading.Event()

    def mended(seconds: float) -> None:
        """In the pause after it was seen to be damaged."""
        if not begun.is_set():
            begun.set()
            other.start_run("b", {"names": []}, None)

    monkeypatch.setattr(module.time, "sleep", mended)
    with pytest.raises(IdentityError):
        one.start_run("a", {"names": []}, None)
    other.check_identity()


def test_scene_lists_of_runs_that_begin_at_once_are_all_kept(tmp_path: Path) -> None:
    mpc = get_source("mpc")
    items = [s2_item(tmp_path / "cogs", f"S2A_{day}", f"2023-02-{day:02d}T10:56:31Z") for day in range(1, 6)]
    folder = TileFolder(tmp_path / "out", identity(5))
    raised = at_once(
        *[
            lambda item=item: folder.start_run(
                item["id"], {"names": [], "scenes": [item["id"]]}, Scenes.from_items([item], mpc)
            )
            for item in items
        ]
    )
    assert raised == [None] * 5
    for item in items:
        frozen = folder.frozen_scenes(item["id"], mpc)
        assert frozen is not None
        assert [scene.id for scene in frozen.scenes] == [item["id"]]
    assert sorted(path.name for path in folder.path.iterdir()) == ["run.json", "runs", "scenes.ndjson.gz"]


# --- tiles ------------------------------------------------------------------------------------------------------------


def tile(folder: TileFolder, pixels: np.ndarray) -> TileRecord | None:
    """Replace the tile by one for these pixels."""
    made = foreign(NOWHERE)
    scales = np.where(pixels, np.float32(1), np.float32(np.nan))
    own = folder.identity
    ready = encoded(
        made | {"scales": scales, "requested": pixels},
        NOWHERE,
        own["dtype"],
        own["format"],
        identity=own,
        pixels=int(pixels.sum()),
    )
    counts = made["counts"]

    def write(place: Path) -> TileRecord:
        return replace(ready.record, assets=formats.write(place, ready), counts=counts)

    return folder.replace(ready.record.name, write)


def mask(*numbers: int) -> np.ndarray:
    flat = np.zeros(SHAPE[0] * SHAPE[1], bool)
    flat[list(numbers)] = True
    return flat.reshape(SHAPE)


@pytest.fixture
def arrays(tmp_path: Path) -> TileFolder:
    made = foreign(NOWHERE)
    folder = TileFolder(tmp_path / "out", identity(len(made["codes"]), format="npy"))
    folder.start_run("a", {"names": [NOWHERE.id]}, None)
    return folder


def test_runs_on_one_tile_lose_no_pixel(arrays: TileFolder) -> None:
    """Each takes the tile again until it is in: with threads of this process, whose order nobody knows."""

    def run(number: int) -> None:
        request = TileRequest(NOWHERE, None, pack_mask(mask(number)))
        while tile(arrays, arrays.united(request).pixels) is None:
            pass
        record = arrays.record(NOWHERE.id)  # what others put in its place at this moment is not asked
        assert record is None or not (request.pixels & ~record.requested).any()

    assert at_once(*[lambda number=number: run(number) for number in range(6)]) == [None] * 6
    assert arrays.finished(TileRequest(NOWHERE, None, pack_mask(mask(*range(6)))), allow_missing=9)
    record = arrays.record(NOWHERE.id)
    assert record is not None
    np.testing.assert_array_equal(record.requested, mask(*range(6)))
    arrays.check(record)
    formats.read_back(arrays.path, record)
    assert not [path.name for path in arrays.path.iterdir() if path.suffix in (".part", ".next")]


def test_what_covers_less_is_not_put_in_place(arrays: TileFolder) -> None:
    assert tile(arrays, mask(0, 1))
    before = {path.name: path.read_bytes() for path in arrays.path.glob("*.*")}
    assert tile(arrays, mask(1, 2)) is None
    assert {path.name: path.read_bytes() for path in arrays.path.glob("*.*")} == before
    assert tile(arrays, mask(0, 1, 2))


@pytest.mark.parametrize("change", ["rename", "replace", "mkdir", "fsync"])
@pytest.mark.parametrize(("code", "exit_code"), [(errno.EROFS, 2), (errno.ENOSPC, 4), (errno.EIO, 4)])
def test_a_disk_that_stops_taking_data_ends_in_one_line(
    arrays: TileFolder, monkeypatch: Any, change: str, code: int, exit_code: int
) -> None:
    """From any change on: what was finished stays, or the next run goes on where this one was stopped."""
    assert tile(arrays, mask(0))
    real, stopped = getattr(os, change), 0
    for moment in range(1, 30):
        count = 0

        def fail(*arguments: Any, **more: Any) -> Any:
            nonlocal count
            count += 1
            if count >= moment:  # noqa: B023
                raise OSError(code, os.strerror(code), *([] if change == "fsync" else [str(arguments[0])]))
            return real(*arguments, **more)

        monkeypatch.setattr(os, change, fail)
        error = None
        try:
            tile(arrays, mask(*range(min(moment + 1, 12))))
        except TesseraError as raised:
            error = raised
        finally:
            monkeypatch.setattr(os, change, real)
        if error is not None:
            stopped += 1
            assert error.exit_code == exit_code
            assert isinstance(error, UsageError | DiskFullError | TileError)
        with monkeypatch.context() as patched:
            patched.setattr("tessera_cli.journal.STILL", 0.01)
            arrays.tidy()
        record = arrays.record(NOWHERE.id)
        assert record is not None
        arrays.check(record)
        if error is None and count < moment:
            break
    assert stopped


# --- one opinion ------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["zarr", "npy"])
def fetched(request: Any, tmp_path: Path) -> tuple[TileFolder, DPixels]:
    dpixels = sample(1, 1, 0)
    folder = dpixel_folder(tmp_path / "d", source="mpc", preprocessing="official", format=request.param)
    folder.start_run("a", {"names": [dpixels.name]}, None)
    assert store(folder, dpixels)
    return folder, dpixels


def without_arrays(path: Path, name: str) -> None:
    """As earlier versions wrote it when the store's folder was removed meanwhile: the record lists what was left."""
    for place in path.glob(f"{name}*"):
        if place.is_dir():
            for array in ("s1_asc", "s2_mask", "sar_ascending.npy", "masks.npy"):
                shutil.rmtree(place / array, ignore_errors=True)
                (place / array).unlink(missing_ok=True)
    record = path / f"{name}.json"
    item = json.loads(record.read_text())
    files = item["properties"]["tessera:files"]
    item["properties"]["tessera:files"] = {file: files[file] for file in files if (path / file).is_file()}
    record.write_text(json.dumps(item))


def of_other_settings(path: Path, name: str) -> None:
    record = path / f"{name}.json"
    item = json.loads(record.read_text())
    item["properties"]["tessera:identity"]["preprocessing"] = "corrected"
    record.write_text(json.dumps(item))


def with_a_file_more(path: Path, name: str) -> None:
    (store_path,) = (place for place in path.glob(f"{name}*") if place.is_dir())
    (store_path / "more").touch()


@pytest.mark.parametrize("damage", [without_arrays, of_other_settings, with_a_file_more])
def test_what_verify_calls_damaged_the_next_run_makes_again(
    fetched: tuple[TileFolder, DPixels], damage: Any, caplog: Any
) -> None:
    folder, dpixels = fetched
    request = TileRequest(dpixels.tile, dpixels.window, pack_mask(dpixels.requested))
    assert folder.finished(request, allow_missing=9)
    damage(folder.path, dpixels.name)
    assert [check.status for check in verify(folder.path).checks] == ["damaged"]
    assert folder.finished(request, allow_missing=9) is None
    folder.tell_foreign([dpixels.name])
    assert ("preprocessing" in caplog.text) is (damage is of_other_settings)
    if folder.identity["format"] == "npy" and damage is with_a_file_more:
        with pytest.raises(UsageError, match="another kind"):  # which is not ours to remove
            store(folder, dpixels)
        return
    assert store(folder, dpixels)
    assert verify(folder.path).error() is None
    assert folder.finished(request, allow_missing=9)


@pytest.mark.parametrize("moment", [5, 8, 15, 31, 36, 40])  # before the fifth all that there is is written again
def test_a_store_whose_folder_is_removed_while_it_is_written_gets_no_record(
    tmp_path: Path, monkeypatch: Any, moment: int
) -> None:
    dpixels, count, real = sample(1, 1, 0), 0, os.replace
    folder = dpixel_folder(tmp_path / "d", source="mpc", preprocessing="official", format="zarr")
    folder.start_run("a", {"names": [dpixels.name]}, None)

    def removing(*arguments: Any, **more: Any) -> None:
        nonlocal count
        count += 1
        real(*arguments, **more)
        if count == moment:
            for part in folder.path.glob("*.part"):
                shutil.rmtree(part)

    monkeypatch.setattr(os, "replace", removing)
    (error,) = at_once(lambda: store(folder, dpixels))
    if error is None and count < moment:
        pytest.skip("this release of Zarr writes files in another way")
    assert isinstance(error, TesseraError)
    assert error.exit_code == 4
    monkeypatch.undo()
    assert not folder.item_path(dpixels.name).exists()
    assert store(folder, dpixels)
    assert verify(folder.path).error() is None


def test_a_file_that_cannot_be_read_is_made_again(arrays: TileFolder, monkeypatch: Any) -> None:
    assert tile(arrays, mask(0))
    request = TileRequest(NOWHERE, None, pack_mask(mask(0)))
    touch(arrays, later=1)

    def unreadable(path: Path) -> str:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr("tessera_cli.outputs.asset.sha256_of", unreadable)
    assert arrays.finished(request, allow_missing=9) is None


# --- sizes and times --------------------------------------------------------------------------------------------------


def touch(folder: TileFolder, *, later: float) -> None:
    """Date all files of the tile so many seconds after its record."""
    recorded = folder.item_path(NOWHERE.id).stat().st_mtime_ns
    for path in folder.path.glob("*.npy"):
        os.utime(path, ns=(recorded, recorded + round(later * 1e9)))


def flip(path: Path) -> None:
    """Change a byte, at the time that it is."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def hashed(monkeypatch: Any) -> list[str]:
    """The names of files whose SHA-256 is asked for from now on."""
    names: list[str] = []
    real = asset.sha256_of

    def count(path: Path) -> str:
        names.append(path.name)
        return real(path)

    monkeypatch.setattr(asset, "sha256_of", count)
    return names


@pytest.mark.parametrize(("later", "read"), [(-5, False), (0, False), (1e-9, True), (5, True)])
def test_files_no_newer_than_their_record_are_not_read(
    arrays: TileFolder, monkeypatch: Any, later: float, read: bool
) -> None:
    """Equal times are those of file systems that keep every other second."""
    assert tile(arrays, mask(0))
    touch(arrays, later=later)
    names = hashed(monkeypatch)
    assert arrays.finished(TileRequest(NOWHERE, None, pack_mask(mask(0))), allow_missing=9)
    assert bool(names) is read
    assert verify(arrays.path).error() is None
    assert len(names) >= 2  # whatever the times


@pytest.mark.parametrize("found_by", ["time", "size", "absence", "clock"])
def test_a_damaged_file_is_made_again(arrays: TileFolder, found_by: str) -> None:
    assert tile(arrays, mask(0))
    request, path = TileRequest(NOWHERE, None, pack_mask(mask(0))), arrays.path / f"{NOWHERE.id}.npy"
    if found_by == "time":
        flip(path)
        touch(arrays, later=0.01)
    elif found_by == "size":
        path.write_bytes(path.read_bytes() + b"1")
        touch(arrays, later=-5)
    elif found_by == "absence":
        path.unlink()
    else:  # the record is of a time that has not come
        flip(path)
        os.utime(arrays.item_path(NOWHERE.id), (4e9, 4e9))
    assert arrays.finished(request, allow_missing=9) is None
    assert [check.status for check in verify(arrays.path).checks] == ["damaged"]


def test_verify_finds_damage_whose_times_were_set_back(arrays: TileFolder) -> None:
    """Which a rerun does not: that much it gives for not reading ten thousand tiles."""
    assert tile(arrays, mask(0))
    flip(arrays.path / f"{NOWHERE.id}.npy")
    touch(arrays, later=-5)
    assert arrays.finished(TileRequest(NOWHERE, None, pack_mask(mask(0))), allow_missing=9)
    assert [check.status for check in verify(arrays.path).checks] == ["damaged"]
    assert [check.status for check in verify(arrays.path, records_only=True).checks] == ["sound"]


def test_records_alone_show_what_is_absent_or_of_another_size(arrays: TileFolder, monkeypatch: Any) -> None:
    assert tile(arrays, mask(0))
    names, path = hashed(monkeypatch), arrays.path / f"{NOWHERE.id}.npy"
    touch(arrays, later=-5)
    os.utime(path)  # changed lately, which sizes do not tell
    assert [check.status for check in verify(arrays.path, records_only=True).checks] == ["sound"]
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    (check,) = verify(arrays.path, records_only=True).checks
    assert (check.status, "bytes, not" in check.reason) == ("damaged", True)
    path.unlink()
    assert [check.status for check in verify(arrays.path, records_only=True).checks] == ["damaged"]
    assert not names
    with pytest.raises(UsageError, match="--records-only"):
        verify(arrays.item_path(NOWHERE.id), records_only=True)


def test_a_record_in_todays_form_vouches_for_no_later_change(arrays: TileFolder) -> None:
    assert tile(arrays, mask(0))
    record = arrays.item_path(NOWHERE.id)
    os.utime(record, (1e9, 1e9))
    flip(arrays.path / f"{NOWHERE.id}.npy")
    upgrade(arrays, NOWHERE.id)
    assert record.stat().st_mtime == 1e9
    assert arrays.finished(TileRequest(NOWHERE, None, pack_mask(mask(0))), allow_missing=9) is None
