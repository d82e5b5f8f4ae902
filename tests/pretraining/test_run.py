"""Training runs from end to end, on small planted d-pixels."""

from __future__ import annotations

import errno
import json
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tessera_cli.errors import IdentityError, UsageError
from tessera_cli.inference.encode import encode
from tessera_cli.models import describe_model, load_model
from tessera_cli.models.checkpoint import save_safetensors
from tessera_cli.models.load import read_model
from tessera_cli.pretraining import checkpoint
from tessera_cli.pretraining.callbacks import Callbacks
from tessera_cli.pretraining.config_file import load_config
from tessera_cli.pretraining.data.shards import Shards
from tessera_cli.pretraining.data.views import full_view
from tessera_cli.pretraining.run import pretrain
from tessera_cli.pretraining.run_folder import RunFolder
from tessera_cli.pretraining.trainer import NotFiniteError, Trainer
from tessera_cli.sampling.ragged import RaggedPixels
from tests.helpers.planted import CLASSES, planted, write_labels, write_planted

CPU = torch.device("cpu")
SMALL = (
    "train.batch=32",
    "train.steps=8",
    "train.log_every=4",
    "train.eval_every=8",
    "train.save_every=2",
    "probe.block=6",
    "views.n_obs=6",
    "projector.width=32",
    "probe.pixels=200",
)


def small(*overrides: str):
    return load_config(preset_name="tiny", overrides=[*SMALL, *overrides])


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def dpixels(tmp_path_factory) -> Path:
    return write_planted(tmp_path_factory.mktemp("planted"), "ab")


@pytest.fixture(scope="module")
def labels(tmp_path_factory) -> Path:
    return write_labels(tmp_path_factory.mktemp("labels") / "labels.geojson")


@pytest.fixture(scope="module")
def shards(dpixels, tmp_path_factory) -> Path:
    """Made by a first run; the others find them."""
    out = tmp_path_factory.mktemp("first")
    pretrain([dpixels], small("train.steps=1"), out / "run", shards=out / "shards", device=CPU)
    return out / "shards"


def train(out: Path, shards: Path, *overrides: str, callbacks: Callbacks = Callbacks(), **more):  # noqa: B008
    return pretrain([], small(*overrides), out, shards=shards, device=CPU, callbacks=callbacks, **more)


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "checkpoints" / "last.safetensors")


def assert_equal_weights(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def untimed(rows) -> list[dict]:
    timing = {"pixels_per_second", "wait_share", "memory_mb", "seconds"}
    return [{key: value for key, value in row.items() if key not in timing} for row in rows]


# --- learning ---------------------------------------------------------------------------------------------------------


def test_it_learns_and_embed_takes_the_result(dpixels, labels, tmp_path, tessera):
    run = tmp_path / "run"
    code, out, err = tessera(
        "pretrain",
        dpixels,
        "--preset",
        "tiny",
        "--probe",
        labels,
        "--out",
        run,
        "--steps",
        30,
        "--threads",
        1,
        "--set",
        "train.batch=64",
        "--set",
        "probe.block=6",
        "--set",
        "train.log_every=10",
        "--set",
        "model.name=alps",
    )
    assert code == 0, err
    assert out.strip() == str(run / "export" / "alps.safetensors")
    assert "A batch of 64 cannot fill 256 dimensions" in err
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["probe_knn"] >= last["probe_knn_random"] + 0.15
    assert last["offdiag_rms"] < 0.4
    assert last["retrieval"] > last["retrieval_random"]
    present = {path.name for path in run.iterdir()}
    assert present == {"config.toml", "env.json", "metrics.jsonl", "report.html", "checkpoints", "export", "shards"}
    assert load_config(path=run / "config.toml").train.batch == 64

    code, out, err = tessera(
        "embed", "--dpixels", dpixels / "a", "--model", run, "--out", tmp_path / "emb", "--format", "npy", "--min-s2", 0
    )
    assert code == 0, err
    assert np.load(next((tmp_path / "emb").glob("*.npy"))).shape[-1] == 64
    code, out, err = tessera("info", "--json", run / "export" / "alps.safetensors")
    assert json.loads(out)["model"] == "alps"


CROPS = ["winter wheat", "maize", "rapeseed", "potato", "sugar beet", "grassland"]


@pytest.mark.slow
def test_a_simulated_catalogue_is_learned(tmp_path, tessera):
    assert tessera("simulate", tmp_path / "land", "--size", 128)[0] == 0
    where = ["--aoi", tmp_path / "land" / "aoi.geojson", "--catalog", tmp_path / "land" / "items.json"]
    assert tessera("fetch", *where, "--year", 2023, "--model", "demo", "--out", tmp_path / "dpixels")[0] == 0
    command = [
        "pretrain",
        "--preset",
        "tiny",
        "--probe",
        tmp_path / "land" / "labels.geojson",
        "--threads",
        1,
        "--set",
        f"probe.classes={json.dumps(CROPS)}",
        "--steps",
        120,
    ]
    code, _, err = tessera(*command, tmp_path / "dpixels", "--out", tmp_path / "run")
    assert code == 0, err
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["probe_knn"] >= last["probe_knn_random"] + 0.15
    assert last["offdiag_rms"] < 0.4


def test_collapse_is_reported(shards, tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    trained = train(tmp_path, shards, "loss.lambda=0", "train.steps=60", "train.log_every=20", "optim.lr=5e-3")
    assert trained.rows[-1]["offdiag_rms"] > 0.8
    assert trained.rows[-1]["collapsed"] is True
    assert "Collapse" in caplog.text
    assert "collapsed" in (tmp_path / "report.html").read_text().lower()


def test_the_exported_encoder_gives_what_training_saw(shards, tmp_path):
    """The engine of `embed`, on the tile, against the trained module on the same pixels of the shards."""
    for overrides in ((), ("model.family=v1.1", "model.dropout=0.2")):
        out = tmp_path / str(len(overrides))
        trained = train(out, shards, *overrides)
        model = load_model(trained.exported, device="cpu", precision="fp32").bind_source("mpc")
        found = Shards.open(shards)
        pixels: RaggedPixels = found.train[0].take(np.arange(50))
        config = small(*overrides)
        assert Path(trained.exported).name == "own.safetensors"
        resumed = Trainer(
            config, found, found.statistics, RunFolder(out), CPU
        )  # the last weights, as they were saved: without labels they are the exported ones
        embedded = resumed.model.evaluate(full_view(pixels, config.model.buckets))
        for name in "ab":
            tile = planted(name)
            mine = np.flatnonzero([found.header["origins"][o]["name"] == name for o in pixels.tile_index])
            east, north = pixels.places[mine, 1], pixels.places[mine, 2]
            column = (east - tile.tile.transform.c) // 10
            row = (tile.tile.transform.f - north) // 10
            flat = (row * 24 + column).astype(np.int64)
            asked = np.zeros((24, 24), bool)
            asked.flat[flat] = True
            values = encode(tile, model, asked, quantiser=None).values
            np.testing.assert_allclose(values, embedded[mine[np.argsort(flat)]][:, : values.shape[1]], atol=2e-5)


@pytest.mark.parametrize(
    "overrides",
    [
        ("model.family=v1.0-early", "views.order=frames"),
        ("model.family=v1.0-qat", "views.replacement=always", "views.order=random", "loss.mix=1", "model.dropout=0.1"),
        ("model.family=v1.1", "views.lengths=bucketed", "projector.prefixes=[16, 32]"),
        (
            "model.family=v2-student",
            "model.pooling=gru",
            "loss.quantise=true",
            "views.drop_s1=0.3",
            "views.drop_orbit=0.3",
        ),
        ("model.family=v2-teacher", "views.replacement=never", "views.drop_season=0.5", "loss.chunk=8"),
        ("train.precision=bf16", "loss.scope=local"),
    ],
    ids=lambda overrides: overrides[0],
)
def test_every_kind_of_run_trains_and_exports(overrides, shards, tmp_path):
    trained = train(tmp_path, shards, *overrides, "train.steps=2", "train.eval_every=2", "train.log_every=1")
    model = load_model(trained.exported, device="cpu", precision="fp32")
    config = small(*overrides)
    assert model.config == config.model.encoder
    assert model.spec.dims[-1] in (64, 128)
    assert all(np.isfinite(row["loss"]) for row in trained.rows if row["kind"] == "train")
    before, after = (row["gradient_norm"] for row in trained.rows if row["kind"] == "train")
    assert before > 0
    assert after > 0


def test_what_embed_must_know_stands_in_the_card(shards, tmp_path):
    bucketed = train(tmp_path / "v1.1", shards, "model.family=v1.1", "projector.prefixes=[16, 32]", "train.steps=2")
    assert load_model(bucketed.exported, device="cpu").spec.dims == (16, 32, 64)
    drawn = train(tmp_path / "v1.0", shards, "model.family=v1.0-qat", "train.steps=2")
    rule = load_model(drawn.exported, device="cpu").spec.observations
    assert (rule.s2, rule.s1) == (6, 6)
    assert "drift_no_radar" not in drawn.rows[-1]
    encoder = read_model(drawn.exported).encoder
    card = {"name": "alps", "family": "v2-student", "source": "mpc", "dims": [64]}
    save_safetensors(tmp_path / "alps.safetensors", encoder, card)
    spec = describe_model(tmp_path / "alps.safetensors")
    spec.check_source("mpc")
    with pytest.raises(IdentityError, match="trained on d-pixels of source mpc"):
        spec.check_source("aws")
    save_safetensors(tmp_path / "wrong.safetensors", encoder, card | {"n_obs": 9})
    with pytest.raises(UsageError, match="n_obs"):
        describe_model(tmp_path / "wrong.safetensors")


def test_shards_without_d_pixels_bring_their_settings(shards, tmp_path):
    train(tmp_path, shards, "data.holdout=0.3", "train.steps=1")
    assert load_config(path=tmp_path / "config.toml").data == small("data.statistics=own").data


# --- going on ---------------------------------------------------------------------------------------------------------


def stopping_after(step: int) -> Callbacks:
    done = []
    return Callbacks(on_step=done.append, should_stop=lambda: len(done) + 1 >= step)


def test_a_stopped_run_goes_on_bit_for_bit(shards, labels, tmp_path):
    more = (f"probe.labels={labels}", "model.dropout=0.1", "loss.mix=0.5", "views.drop_s1=0.2")
    whole = train(tmp_path / "whole", shards, *more)
    first = train(tmp_path / "parts", shards, *more, callbacks=stopping_after(3))
    assert (first.finished, first.step) == (False, 3)
    second = train(tmp_path / "parts", shards, *more, callbacks=stopping_after(2))
    assert (second.finished, second.step) == (False, 5)
    assert train(tmp_path / "parts", shards, *more).finished
    assert_equal_weights(tmp_path / "whole", tmp_path / "parts")
    parts = [json.loads(line) for line in (tmp_path / "parts" / "metrics.jsonl").read_text().splitlines()]
    last = [row for row in untimed(whole.rows) if row["kind"] == "eval"]
    assert [row for row in untimed(parts) if row["kind"] == "eval"] == last
    assert [row["step"] for row in parts] == [row["step"] for row in whole.rows]
    exported = (tmp_path / "whole" / "export" / "own.safetensors").read_bytes()
    assert (tmp_path / "parts" / "export" / "own.safetensors").read_bytes() == exported
    second.exported.unlink()
    assert train(tmp_path / "parts", shards, *more).step == 8  # a finished run stays as it is, but for what is missing
    assert (tmp_path / "parts" / "export" / "own.safetensors").read_bytes() == exported


def test_so_does_one_with_several_lanes(shards, tmp_path):
    torch.set_num_threads(2)
    try:
        train(tmp_path / "whole", shards, "views.drop_s1=0.2")
        train(tmp_path / "parts", shards, "views.drop_s1=0.2", callbacks=stopping_after(3))
        train(tmp_path / "parts", shards, "views.drop_s1=0.2")
    finally:
        torch.set_num_threads(1)
    assert_equal_weights(tmp_path / "whole", tmp_path / "parts")


STEPS = 12


def _child(out: Path, shards: Path, seconds: float | None) -> None:
    """One process of a run that kills itself so many seconds after its first step was due."""
    torch.set_num_threads(1)

    def begin(steps: int, start: int) -> None:
        if seconds is not None:
            threading.Timer(seconds, lambda: os.kill(os.getpid(), signal.SIGKILL)).start()

    train(out, shards, "train.save_every=1", f"train.steps={STEPS}", callbacks=Callbacks(on_start=begin))


def test_kill_9_at_ten_random_moments(shards, tmp_path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tessera_cli.pretraining.run", "tests.pretraining.test_run"])

    def run(out: Path, seconds: float | None = None) -> int | None:
        child = context.Process(target=_child, args=(tmp_path / out, shards, seconds))
        child.start()
        child.join()
        return child.exitcode

    assert run(tmp_path / "timed") == 0  # the server starts with the first one
    started = time.monotonic()
    assert run(tmp_path / "whole") == 0
    lasts = time.monotonic() - started
    seed = int(time.time())
    rng, killed = np.random.default_rng(seed), []
    out = tmp_path / "killed"
    for _ in range(40):
        if len(killed) == 10 or run(out, rng.uniform(0, lasts / 5)) == 0:
            break
        killed.append(checkpoint.read_state(out / "checkpoints" / "last.safetensors").step)
    assert len(killed) == 10, f"seed {seed}: {killed}"
    assert killed[0] < STEPS
    assert killed == sorted(killed)
    assert run(out) == 0
    assert_equal_weights(tmp_path / "whole", out)
    rows = [
        [json.loads(line)["step"] for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "killed")
    ]
    assert rows[0] == rows[1]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 75), (signal.SIGINT, 130)])
def test_signals_save_and_say_so(number, code, shards, tmp_path, tessera, monkeypatch):
    from tessera_cli.cli.training import TrainingProgress

    step = TrainingProgress.step

    def send(self, done):
        step(self, done)
        if done == 3:
            os.kill(os.getpid(), number)
            if number != signal.SIGINT:
                os.kill(os.getpid(), number)

    monkeypatch.setattr(TrainingProgress, "step", send)  # twice, as torchrun and schedulers do
    sets = [part for override in SMALL for part in ("--set", override)]
    command = ["train", "--shards", shards, "--preset", "tiny", "--out", tmp_path / "run", "--threads", 1, *sets]
    before = signal.getsignal(number)
    ended, out, err = tessera(*command)
    assert ended == code
    assert "run the same command" in err
    assert out == ""
    assert signal.getsignal(number) == before
    monkeypatch.undo()
    ended, out, err = tessera(*command)
    assert ended == 0
    assert "after step" in err
    train(tmp_path / "whole", shards)
    assert_equal_weights(tmp_path / "whole", tmp_path / "run")


def test_what_does_not_go_on_is_refused(shards, dpixels, tmp_path):
    out = tmp_path / "run"
    train(out, shards, callbacks=stopping_after(3))
    with pytest.raises(IdentityError, match=r"optim\.lr"):
        train(out, shards, "optim.lr=1e-5")
    with pytest.raises(IdentityError, match=r"other shards|made otherwise"):
        pretrain([dpixels / "a"], small(), out, device=CPU)
    last = out / "checkpoints" / "last.safetensors"
    kept = last.read_bytes()
    last.write_bytes(kept[: len(kept) // 2])
    with pytest.raises(UsageError, match="damaged"):
        train(out, shards)
    last.unlink()
    (out / "metrics.jsonl").write_text('{"kind": "train", "step": 2, "offdiag_rms": 0.1}\n')
    with pytest.raises(UsageError, match="is gone"):
        train(out, shards)
    last.write_bytes(kept)
    assert train(out, shards).finished


def test_of_runs_that_begin_at_once_one_claims_the_folder(tmp_path):
    """With other settings each; nothing of the others is in it."""
    for number in range(10):
        out = tmp_path / str(number)
        configs = [small(f"optim.lr={rate}") for rate in ("1e-3", "1e-4", "1e-5")]
        begun, claimed = threading.Barrier(len(configs)), []

        def begin(config, out=out, begun=begun, claimed=claimed):
            folder = RunFolder(out)
            begun.wait()
            with folder.at_work():
                try:
                    folder.claim(config)
                except IdentityError as error:
                    claimed.append(error)
                else:
                    claimed.append(config)
                begun.wait()  # it trains as long as the others try

        threads = [threading.Thread(target=begin, args=(config,)) for config in configs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (winner,) = (each for each in claimed if not isinstance(each, IdentityError))
        assert load_config(path=out / "config.toml").optim.lr == winner.optim.lr
        assert sorted(path.name for path in out.iterdir()) == ["checkpoints", "config.toml", "export"]


def test_who_looks_around_while_another_claims_the_folder_is_told_of_the_settings(tmp_path, monkeypatch):
    first, second, iterdir = RunFolder(tmp_path), RunFolder(tmp_path), Path.iterdir

    def slowly(path):
        monkeypatch.setattr(Path, "iterdir", iterdir)
        first.claim(small("optim.lr=1e-3"))
        return iterdir(path)

    with first.at_work(), second.at_work():
        monkeypatch.setattr(Path, "iterdir", slowly)
        with pytest.raises(IdentityError, match=r"optim\.lr"):
            second.claim(small("optim.lr=1e-4"))


def test_the_config_may_change_until_something_is_saved(tmp_path):
    """Unless another process is at work; those that have died do not count."""
    first, second = RunFolder(tmp_path), RunFolder(tmp_path)
    with first.at_work():
        first.claim(small("optim.lr=1e-3"))
        with second.at_work(), pytest.raises(IdentityError, match=r"optim\.lr"):
            second.claim(small("optim.lr=1e-4"))
        with second.at_work():
            second.claim(small("optim.lr=1e-3"))
    with second.at_work():
        second.claim(small("optim.lr=1e-4"))
    assert load_config(path=tmp_path / "config.toml").optim.lr == 1e-4
    (tmp_path / "metrics.jsonl").touch()
    with first.at_work(), pytest.raises(IdentityError):
        first.claim(small("optim.lr=1e-3"))


def test_a_disk_that_becomes_read_only_ends_training_in_one_line(tmp_path, shards, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.EROFS, "Read-only file system", str(arguments[0]))

    with monkeypatch.context() as patched:
        callbacks = Callbacks(on_start=lambda steps, start: patched.setattr(os, "replace", refuse))
        with pytest.raises(UsageError, match="cannot be written: read-only"):
            train(tmp_path / "run", shards, callbacks=callbacks)
    assert train(tmp_path / "run", shards).finished


def test_starting_from_weights(shards, tmp_path):
    first = train(tmp_path / "first", shards)
    second = train(tmp_path / "second", shards, "optim.lr=1e-12", init_from=tmp_path / "first")
    old, new = (load_file(run.exported) for run in (first, second))
    assert all(torch.allclose(old[name], new[name], atol=1e-9) for name in old)
    random = train(tmp_path / "random", shards, "optim.lr=1e-12")
    assert not all(torch.allclose(old[name], tensor, atol=1e-3) for name, tensor in load_file(random.exported).items())
    assert second.rows[-1]["retrieval_random"] == pytest.approx(random.rows[-1]["retrieval_random"])
    with pytest.raises(UsageError, match="Choose the preset of its shape"):
        train(tmp_path / "third", shards, "model.latent=8", init_from=tmp_path / "first")
    with pytest.raises(IdentityError, match="statistics"):
        train(tmp_path / "fourth", shards, "data.statistics=v2-nano", init_from=tmp_path / "first")
    best = tmp_path / "first" / "checkpoints" / "best.safetensors"
    again = train(tmp_path / "sixth", shards, "optim.lr=1e-12", init_from=best)
    assert all(torch.allclose(old[name], tensor, atol=1e-9) for name, tensor in load_file(again.exported).items())
    taken = train(tmp_path / "fifth", shards, "data.statistics=init", "optim.lr=1e-12", init_from=tmp_path / "first")
    assert taken.finished


# --- many processes ---------------------------------------------------------------------------------------------------


def test_torchrun_takes_the_same_steps_as_one_process(dpixels, shards, tmp_path):
    each_step = ("loss.mix=1", "train.log_every=1")
    alone = train(tmp_path / "alone", shards, *each_step)
    sets = [part for override in (*SMALL, *each_step) for part in ("--set", override)]
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "tessera_cli",
        "pretrain",
        "--shards",
        str(shards),
        "--preset",
        "tiny",
        "--out",
        str(tmp_path / "two"),
        "--device",
        "cpu",
        *sets,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "two" / "export" / "own.safetensors")
    rows = [json.loads(line) for line in (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [row["step"] for row in alone.rows]
    # Each step makes differences of rounding ten to a thousand times larger.
    for one, two in zip(alone.rows, rows, strict=True):
        close = 1e-5 if one["step"] <= 2 else 0.1
        for key in {"loss", "offdiag_rms", "gradient_norm"} & one.keys():
            assert two[key] == pytest.approx(one[key], rel=close), (one["step"], key)
        if "retrieval" in one:
            assert two["retrieval"] == pytest.approx(one["retrieval"], abs=0.02)  # of 200 pixels
    with pytest.raises(IdentityError, match="2 processes"):
        train(tmp_path / "two", shards, *each_step)


# --- bad input --------------------------------------------------------------------------------------------------------


def test_bad_input_is_one_clear_line(dpixels, tmp_path, tessera):
    (tmp_path / "empty").mkdir()
    for arguments, code, told in (
        ([], 2, "no d-pixels"),
        ([tmp_path / "empty"], 2, "has no d-pixels"),
        ([dpixels, "--preset", "huge"], 2, "--preset huge"),
        ([dpixels, "--set", "train.batch=1"], 2, "at least 2"),
        ([dpixels, "--set", "data.min_s2=1000"], 3, "min_s2"),
        ([dpixels, "--init-from", tmp_path / "nothing.safetensors"], 2, "nothing.safetensors"),
        ([dpixels, "--set", "data.statistics=init"], 2, "--init-from"),
        ([dpixels, "--probe", tmp_path / "none.gpkg"], 2, "none.gpkg"),
        ([dpixels, "--config", tmp_path / "none.toml"], 2, "none.toml"),
        ([dpixels, "--device", "tpu"], 2, "--device tpu"),
    ):
        ended, out, err = tessera("pretrain", "--preset", "tiny", *arguments, "--out", tmp_path / "run")
        lines = [line for line in err.splitlines() if line.startswith("tessera: error")]
        assert ended == code, err
        assert len(lines) == 1
        assert told in lines[0]
        assert out == ""


def test_a_gradient_that_is_not_finite_ends_the_run(shards, tmp_path):
    with pytest.raises(NotFiniteError, match=r"Lower optim\.lr"):
        train(tmp_path, shards, "optim.lr=1e30", "optim.warmup=0", "train.log_every=1")
    assert all(torch.isfinite(tensor).all() for tensor in weights(tmp_path).values() if tensor.is_floating_point())


def test_classes_of_the_planted_labels_are_those_measured(shards, labels, tmp_path):
    trained = train(tmp_path, shards, f"probe.labels={labels}", f'probe.classes=["{CLASSES[0]}", "{CLASSES[3]}"]')
    assert 0.4 < trained.rows[-1]["probe_knn_random"] <= 1
