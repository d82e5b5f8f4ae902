"""Folders that nobody may write to, root neither, and a full disk: real mounts, where the tests may make them."""

import contextlib
import json
import os
import shutil
import subprocess

import pytest

from tessera_cli.folders.folder import TileFolder
from tests.conftest import box_geojson
from tests.integration.conftest import error_line, hashes

pytestmark = pytest.mark.integration


def mount(*arguments):
    done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no mounts here: {done.stderr.strip()}")


@pytest.fixture
def mounted():
    """Context managers for a folder that is read-only, and for one on a small disk."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root may mount")

    @contextlib.contextmanager
    def read_only(folder):
        mount("--bind", folder, folder)
        try:
            mount("-o", "remount,ro,bind", folder)
            with pytest.raises(OSError, match="Read-only"):
                (folder / "probe").touch()
            yield
        finally:
            subprocess.run(["umount", folder], check=True)

    @contextlib.contextmanager
    def small_disk(folder, size):
        folder.mkdir()
        mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder)
        try:
            yield
        finally:
            subprocess.run(["umount", folder], check=True)

    read_only.small_disk = small_disk
    return read_only


def options_of(verb, catalog, out):
    """Of a verb that reads the catalogue; `fetch` computes nothing and has no --threads."""
    options = catalog.options(out)
    return [verb, *(options[: options.index("--threads")] if verb == "fetch" else options)]


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("verb", ["embed", "fetch", "plan"])
@pytest.mark.parametrize("inside", ["", "new", "new/deeper"])
def test_an_output_folder_that_is_read_only(catalog, tessera, tmp_path, mounted, verb, inside):
    (tmp_path / "ro").mkdir()
    with mounted(tmp_path / "ro"):
        code, stdout, stderr = tessera(*options_of(verb, catalog, tmp_path / "ro" / inside))
    assert (code, stdout) == (2, ""), stderr
    assert "read-only" in error_line(stderr).lower()
    assert "--out" in stderr
    assert contents(tmp_path / "ro") == {}


def test_a_finished_folder_that_is_read_only(catalog, tessera, tmp_path, mounted):
    """There is nothing to do, and nothing is written."""
    out = tmp_path / "out"
    assert tessera("embed", *catalog.options(out))[0] == 0
    before = contents(out)
    with mounted(out):
        code, _, stderr = tessera("embed", *catalog.options(out))
        assert code == 0, stderr
        assert tessera("verify", out)[0] == 0
        assert tessera("info", out)[0] == 0
    assert contents(out) == before


def test_a_folder_that_became_read_only_loses_nothing(catalog, tessera, tmp_path, mounted):
    """Half of a run is done; the rest is refused, and done later."""
    out, whole = tmp_path / "out", tmp_path / "whole"
    west, north = catalog.origin
    part = tmp_path / "part.geojson"
    part.write_text(json.dumps(box_geojson(west + 100, north - 300, west + 190, north - 120)))
    options = catalog.options(out)
    assert tessera("embed", *[part if option == str(catalog.aoi) else option for option in options])[0] == 0
    before = contents(out)
    with mounted(out):
        code, stdout, stderr = tessera("embed", *options)
    assert (code, stdout) == (2, ""), stderr
    assert "read-only" in error_line(stderr)
    assert contents(out) == before
    assert tessera("verify", out)[0] == 0
    code, _, stderr = tessera("embed", *options)
    assert code == 0, stderr
    tessera("embed", *catalog.options(whole))
    assert hashes(out) == hashes(whole)


def test_a_frozen_scene_list_in_a_read_only_folder(catalog, tessera, tmp_path, mounted):
    """The scenes are known, the tiles are not there."""
    out = tmp_path / "out"
    assert tessera("plan", *catalog.options(out))[0] == 0
    before = contents(out)
    with mounted(out):
        code, stdout, stderr = tessera("embed", *catalog.options(out))
    assert (code, stdout) == (2, ""), stderr
    assert "read-only" in error_line(stderr)
    assert contents(out) == before
    assert tessera("embed", *catalog.options(out))[0] == 0


def test_everything_that_is_read_may_be_read_only(catalog, tessera, tmp_path, mounted):
    direct, stores, stored = tmp_path / "direct", tmp_path / "stores", tmp_path / "stored"
    with mounted(catalog.folder):
        for verb, out in (("embed", direct), ("fetch", stores)):
            code, _, stderr = tessera(*options_of(verb, catalog, out))
            assert code == 0, stderr
    before = contents(stores)
    with mounted(stores):
        code, _, stderr = tessera("embed", "--dpixels", stores, "--model", "null", "--out", stored)
        assert code == 0, stderr
        assert tessera("verify", stores)[0] == 0
    assert contents(stores) == before
    assert hashes(stored) == hashes(direct)
    assert len(hashes(stored)) == 6


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_a_disk_that_is_full(catalog, tessera, tmp_path, mounted, share):
    """What is finished stays whole, no part is left, and with more room the same command does the rest."""
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert tessera("embed", *catalog.options(whole))[0] == 0
    needed = sum(-(-path.stat().st_size // 4096) * 4096 for path in whole.rglob("*") if path.is_file())
    with mounted.small_disk(out, int(share * needed)):
        code, _, stderr = tessera("embed", *catalog.options(out))
        assert code == 4, stderr
        assert "the disk is full" in error_line(stderr)
        assert not list(out.rglob("*.part"))
        done = [path.name.removesuffix(".json") for path in out.glob("utm*.json")]
        for name, digest in hashes(whole).items():
            if any(name.startswith(tile) for tile in done):
                assert hashes(out)[name] == digest
        mount("-o", "remount,size=16M", out)
        code, _, stderr = tessera("embed", *catalog.options(out))
        assert code == 0, stderr
        assert hashes(out) == hashes(whole)


@pytest.mark.parametrize("inside", ["", "out"])
@pytest.mark.parametrize("verb", ["embed", "fetch"])
def test_a_disk_that_vanishes(catalog, tessera, tmp_path, mounted, monkeypatch, verb, inside):
    """After the first tile, as a drive that is pulled out: nothing is written in its place, no tile is lost."""
    whole, disk, kept = tmp_path / "whole", tmp_path / "disk", tmp_path / "kept"
    assert tessera(*options_of(verb, catalog, whole))[0] == 0
    disk.mkdir()
    finish, gone = TileFolder.replace, []

    def replace(self, name, write):
        record = finish(self, name, write)
        if not gone:
            gone.append(name)
            subprocess.run(["umount", "-l", disk], check=True)
        return record

    with mounted.small_disk(kept, "16M"):  # where it still is while it is gone
        mount("--bind", kept, disk)
        try:
            monkeypatch.setattr(TileFolder, "replace", replace)
            code, _, stderr = tessera(*options_of(verb, catalog, disk / inside))
            monkeypatch.setattr(TileFolder, "replace", finish)
            assert code == 4, stderr
            assert "cannot be written" in error_line(stderr), stderr
            assert list(disk.iterdir()) == []
            (done,) = gone
            finished = {name: content for name, content in contents(whole).items() if name.startswith(done)}
            assert finished
            assert finished.items() <= contents(kept / inside).items()
            mount("--bind", kept, disk)
            code, _, stderr = tessera(*options_of(verb, catalog, disk / inside))
            assert code == 0, stderr
            assert tessera("verify", disk / inside)[0] == 0
            assert hashes(disk / inside) == hashes(whole)
            assert not list(disk.rglob("*.part"))
        finally:
            subprocess.run(["umount", "-l", disk], check=False, capture_output=True)
