"""A teacher: its embeddings beside the shards, students of it, and encoders that go on from it."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tessera_cli.errors import IdentityError, NothingToEmbedError, TesseraError, UsageError
from tessera_cli.inference.encode import encode
from tessera_cli.models.checkpoint import read_checkpoint, save_safetensors
from tessera_cli.models.encoder import seeded
from tessera_cli.models.load import load_model
from tessera_cli.pretraining.callbacks import Callbacks
from tessera_cli.pretraining.config import TrainedModelConfig
from tessera_cli.pretraining.config_file import load_config
from tessera_cli.pretraining.data.shards import Shards
from tessera_cli.pretraining.data.taught import HEADER, Taught, floats, open_or_embed
from tessera_cli.pretraining.data.teacher import Teacher, load_teacher
from tessera_cli.pretraining.evaluation.evaluate import Embedded, Evaluation
from tessera_cli.pretraining.initial import Initial
from tessera_cli.pretraining.run import pretrain
from tessera_cli.sampling.ragged import no_pixels
from tessera_cli.sampling.statistics import V2_STUDENT_STATISTICS
from tests.helpers.planted import planted, write_labels, write_planted
from tests.pretraining.test_run import CPU, SMALL, assert_equal_weights, small, untimed

PIECE = 300


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch):
    monkeypatch.setattr("tessera_cli.pretraining.data.taught.PIECE", PIECE)


@pytest.fixture(scope="module")
def dpixels(tmp_path_factory) -> Path:
    return write_planted(tmp_path_factory.mktemp("planted"), "ab")


@pytest.fixture(scope="module")
def shards(dpixels, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("first")
    pretrain([dpixels], small("train.steps=1"), out / "run", shards=out / "shards", device=CPU)
    return out / "shards"


def a_model(path: Path, family: str = "v2-student", seed: int = 3, **more) -> Path:
    """A weights file of ours with random weights."""
    sizes = {"latent": 8, "layers": 1, "heads": 2, "feedforward": 32, "representation": 24}
    config = TrainedModelConfig(family=family, **sizes).encoder
    card = {"name": "wise", "family": family, "dims": [24], "statistics": V2_STUDENT_STATISTICS.to_card(), **more}
    save_safetensors(path, seeded(config, seed), card, half=False)
    return path


@pytest.fixture(scope="module")
def wise(tmp_path_factory) -> Path:
    return a_model(tmp_path_factory.mktemp("wise") / "wise.safetensors")


def train(out: Path, shards: Path, *overrides: str, callbacks: Callbacks = Callbacks(), **more):  # noqa: B008
    return pretrain([], small(*overrides), out, shards=shards, device=CPU, callbacks=callbacks, **more)


def opened(shards: Path, model: Path, *overrides: str, **more) -> tuple[Shards, Teacher, Taught]:
    config = small(f"teacher.model={model}", *overrides).teacher
    found = Shards.open(shards)
    teacher = Teacher.of(load_teacher(config, "cpu"), config, found)
    return found, teacher, open_or_embed(found, teacher, 1, **more)


# --- what is kept -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["v2-student", "v2-teacher", "v1.1", "v1.0-qat"])
def test_what_is_kept_is_what_embed_makes_of_the_tile(shards, tmp_path, family):
    more = {"n_obs": 40} if family == "v1.0-qat" else {}
    path = a_model(tmp_path / "model.safetensors", family, **more)
    found, _teacher, taught = opened(shards, path)
    assert taught.dims == 24
    model = load_model(path, device="cpu", precision="fp32").bind_source(None)
    origins = {origin["name"]: number for number, origin in enumerate(found.header["origins"])}
    everything = [
        (part, np.concatenate(rows))
        for part, rows in zip((*found.train, found.holdout), _by_part(taught, found), strict=True)
    ]
    for name in "ab":
        dpixels = planted(name)
        wanted = dpixels.embeddable(min_s2=10, min_s1=10)
        made = encode(dpixels, model, wanted, quantiser=model.spec.quantiser)
        east, north = dpixels.tile.transform.c, dpixels.tile.transform.f
        rows, columns = np.nonzero(wanted)
        compared = 0
        for part, kept in everything:
            mine = np.flatnonzero(part.tile_index == origins[name])
            x, y = ((np.asarray(part.places[mine, axis], np.int64)) for axis in (1, 2))
            at = {
                (row, column): number
                for number, (row, column) in enumerate(zip(rows.tolist(), columns.tolist(), strict=True))
            }
            which = [at[int((north - v) // 10), int((u - east) // 10)] for u, v in zip(x, y, strict=True)]
            if model.spec.quantiser is None:
                assert np.array_equal(kept["values"][mine], made.values[which].astype(np.float16))
            else:
                assert np.array_equal(kept["codes"][mine], made.values[which])
                assert np.array_equal(kept["scale"][mine], made.scales[which])
            compared += len(mine)
        assert compared == wanted.sum()
    train_rows = np.concatenate([floats(rows) for rows in taught.train]).astype(np.float64)
    assert np.allclose(taught.mean, train_rows.mean(axis=0), atol=1e-6)
    assert taught.known == found.pixels


def _by_part(taught: Taught, shards: Shards):
    """The pieces of each shard, the holdout last."""
    pieces = list(taught.train)
    for part in shards.train:
        count = -(-len(part) // PIECE)
        yield pieces[:count]
        del pieces[:count]
    yield list(taught.holdout)


def test_pixels_find_their_rows(shards, wise):
    found, _, taught = opened(shards, wise)
    rng = np.random.default_rng(0)
    numbers = rng.integers(0, found.pixels, 100)
    whole = np.concatenate([np.asarray(rows) for rows in taught.train])
    answers = taught.answers(numbers)
    assert np.array_equal(answers.values, whole["codes"][numbers])
    assert np.array_equal(answers.scales, whole["scale"][numbers])
    distinct = np.unique(numbers)[::-1]
    assert np.array_equal(taught.of_pixels(found, found.gather(distinct)), floats(whole[distinct]))
    held = np.arange(len(found.holdout))[::-2]
    assert np.array_equal(
        taught.of_pixels(found, found.holdout.take(held)), floats(np.concatenate(taught.holdout)[held])
    )


def test_an_interrupted_teacher_goes_on_and_the_bytes_are_the_same(shards, tmp_path):
    path = a_model(tmp_path / "model.safetensors", seed=5)
    calls: list[int] = []

    def stop(done: int, total: int) -> None:
        calls.append(done)
        if done > 2 * PIECE:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        opened(shards, path, progress=stop)
    (folder,) = (each for each in shards.glob("teacher-*") if not (each / HEADER).exists())
    begun = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert len(begun) == 2
    _, teacher, taught = opened(shards, path)
    assert taught.path == folder
    assert all((folder / name).stat().st_mtime_ns == at for name, at in begun.items())
    first = {file.name: file.read_bytes() for file in folder.iterdir()}
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    opened(shards, path)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == first
    assert teacher.digest == taught.digest


def test_shards_that_cannot_be_written_are_named(shards, tmp_path, monkeypatch):
    def refused(path: Path, **_) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(TesseraError, match=re.escape(str(shards))) as error:
        opened(shards, a_model(tmp_path / "model.safetensors", seed=6))
    assert "no permission to write there" in str(error.value)


@pytest.mark.parametrize("file", ["train-00000-000.npy", "held-000.npy", "mean.npy", HEADER])
def test_damaged_embeddings_are_refused_and_stay(shards, wise, file):
    _, _, taught = opened(shards, wise)
    path = taught.path / file
    before = path.read_bytes()
    try:
        for damaged in (before[:-5], before[:-9] + bytes([before[-9] ^ 1]) + before[-8:]):
            path.write_bytes(damaged)
            with pytest.raises(UsageError, match="Remove the folder to have them made again"):
                opened(shards, wise)
            assert path.read_bytes() == damaged
    finally:
        path.write_bytes(before)


# --- students ---------------------------------------------------------------------------------------------------------


def test_a_student_learns_from_a_teacher_and_embed_takes_its_prefixes(dpixels, shards, wise, tmp_path, tessera):
    labels = write_labels(tmp_path / "labels.geojson")
    run = tmp_path / "run"
    sets = [
        "train.batch=64",
        "probe.block=6",
        "train.log_every=15",
        "train.eval_every=15",
        "teacher.prefixes=[8,16,64]",
    ]
    command = ["pretrain", "--preset", "tiny", "--shards", shards, "--teacher", wise, "--probe", labels]
    command += [part for each in sets for part in ("--set", each)]
    code, _, err = tessera(*command, "--steps", 60, "--threads", 1, "--out", run, "--set", "optim.lr=5e-3")
    assert code == 0, err
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    first, last = (next(row for row in way if row["kind"] == "eval") for way in (rows, rows[::-1]))
    assert last["teacher_all"] > max(0.6, first["teacher_all"])
    assert last["teacher_all"] >= last["teacher_5"] > 0.2
    assert {
        "probe_linear_all",
        "probe_linear_all_teacher",
        "probe_linear_random",
        "probe_knn_all_teacher",
    } <= last.keys()
    assert "offdiag_rms" not in last
    trained = [row for row in rows if row["kind"] == "train"]
    assert trained[-1]["teacher_cosine"] < trained[0]["teacher_cosine"]
    assert trained[-1]["teacher_barlow"] < trained[0]["teacher_barlow"]
    page = (run / "report.html").read_text()
    assert "Held-out pixels against the teacher" in page
    assert "<th>Teacher</th>" in page
    settings = load_config(path=run / "config.toml")
    known = read_checkpoint(wise).sha256
    assert (settings.teacher.model, settings.teacher.sha256) == (str(wise), known)
    card = read_checkpoint(run / "export" / "own.safetensors").card
    assert card.dims == (8, 16, 64)
    assert card.training["teacher"] == {"name": "wise", "sha256": known}
    assert card.training["method"] == "the teacher wise"
    code, _, err = tessera(
        *("embed", "--dpixels", dpixels / "a", "--model", run, "--out", tmp_path / "emb", "--format", "npy"),
        *("--min-s2", 0, "--dims", 8),
    )
    assert code == 0, err
    assert np.load(next((tmp_path / "emb").glob("*.npy"))).shape[-1] == 8


def test_the_twin_loss_may_take_part(shards, wise, tmp_path):
    both = train(tmp_path / "both", shards, f"teacher.model={wise}", "loss.twins=0.5")
    row = next(row for row in both.rows if row["kind"] == "train")
    lam = small().loss.off_diagonal
    total = 0.5 * (row["on_diagonal"] + lam * row["off_diagonal"]) + row["teacher_cosine"] + row["teacher_barlow"]
    assert row["loss"] == pytest.approx(total, rel=1e-5)
    assert row["loss_above_floor"] == pytest.approx(row["loss"] - 0.5 * lam * row["off_diagonal_floor"])
    alone = train(tmp_path / "alone", shards, f"teacher.model={wise}")
    names = load_file(tmp_path / "alone" / "checkpoints" / "last.safetensors")
    assert not any("twins" in name for name in names)
    assert alone.rows[-1].keys().isdisjoint({"on_diagonal", "offdiag_rms"})


def test_two_runs_are_equal_and_a_resumed_one_is_too(shards, wise, tmp_path):
    told = (f"teacher.model={wise}",)
    one, two = (train(tmp_path / name, shards, *told) for name in ("one", "two"))
    assert one.exported.read_bytes() == two.exported.read_bytes()
    step = iter(range(100))
    stopped = train(tmp_path / "three", shards, *told, callbacks=Callbacks(should_stop=lambda: next(step) >= 3))
    assert not stopped.finished
    three = train(tmp_path / "three", shards, *told)
    assert_equal_weights(tmp_path / "one", tmp_path / "three")
    assert untimed(three.rows)[-1] == untimed(one.rows)[-1]


def test_another_teacher_is_refused_on_the_way(shards, wise, tmp_path):
    other = a_model(tmp_path / "other.safetensors", seed=4)
    train(tmp_path / "run", shards, f"teacher.model={wise}")
    for told in ((f"teacher.model={other}",), ("loss.twins=1",), (f"teacher.model={wise}", "teacher.head=identity")):
        with pytest.raises(IdentityError, match=r"teacher\.|loss\."):
            train(tmp_path / "run", shards, *told)
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes(wise.read_bytes())
    assert train(tmp_path / "run", shards, f"teacher.model={moved}").finished  # the same weights elsewhere
    with pytest.raises(IdentityError, match="holds other weights"):
        train(tmp_path / "new", shards, f"teacher.model={other}", f"teacher.sha256={read_checkpoint(wise).sha256}")


def test_a_teacher_of_another_source_is_refused(shards, tmp_path):
    path = a_model(tmp_path / "mpc.safetensors", source="mpc")
    config = small(f"teacher.model={path}").teacher
    found = Shards.open(shards)
    of_aws = dataclasses.replace(found, header={**found.header, "sources": ["aws"]})
    model = load_teacher(config, "cpu")
    with pytest.raises(IdentityError, match=r"of source mpc, and these are of aws.*teacher\.source=mpc"):
        Teacher.of(model, config, of_aws)
    insisting = config.model_copy(update={"source": "mpc"})
    assert Teacher.of(model, insisting, of_aws).model.spec.source == "mpc"
    assert Teacher.of(model, config, found).model.spec.source == "mpc"  # tables do not say theirs


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (("teacher.model=null",), "no network to learn from"),
        (("teacher.model=nowhere.safetensors",), "nowhere"),
        (("teacher.model={wise}", "teacher.head=identity"), "gives 24 values, and model.representation is 64"),
        (
            ("teacher.model={wise}", "teacher.cosine=0", "teacher.barlow=0"),
            "leave the teacher out, or give one a weight",
        ),
        (("loss.twins=0",), "nothing is left to learn from"),
        (("teacher.model={wise}", "loss.mix=1"), "loss.mix is a part of the twin loss"),
    ],
)
def test_what_cannot_teach_is_refused_in_one_line(shards, wise, tmp_path, overrides, told):
    with pytest.raises(UsageError, match=told):
        train(tmp_path / "run", shards, *(each.format(wise=wise) for each in overrides))


def test_a_checkpoint_is_no_teacher(shards, tmp_path):
    train(tmp_path / "run", shards)
    path = tmp_path / "run" / "checkpoints" / "last.safetensors"
    with pytest.raises(UsageError, match="Give the run's folder"):
        train(tmp_path / "new", shards, f"teacher.model={path}")
    assert train(tmp_path / "new", shards, f"teacher.model={tmp_path / 'run'}").finished


def test_pixels_that_the_teacher_cannot_embed_match_nothing(shards, tmp_path, caplog):
    """v1.0 takes a least number of observations, and knows nothing of pixels with fewer."""
    path = a_model(tmp_path / "old.safetensors", "v1.0-qat")
    config = small(f"teacher.model={path}").teacher
    model = load_teacher(config, "cpu")
    found = Shards.open(shards)
    counts = np.concatenate([part.s2.counts for part in found.train])
    for minimum, known in ((int(np.median(counts)), True), (1000, False)):
        rule = dataclasses.replace(model.spec.observations, minimum=minimum)
        picky = dataclasses.replace(model, spec=dataclasses.replace(model.spec, observations=rule))
        teacher = Teacher.of(picky, config, found)
        if not known:
            with pytest.raises(NothingToEmbedError, match="embeds none of the training pixels"):
                open_or_embed(found, teacher, 1)
            continue
        taught = open_or_embed(found, teacher, 1)
        there = np.concatenate([np.isfinite(floats(rows)).all(axis=1) for rows in taught.train])
        assert np.array_equal(there, counts >= minimum)
        assert taught.known == there.sum() < len(there)
        assert f"embeds {there.sum()} of {len(there)} training pixels" in caplog.text


def test_a_teacher_where_nothing_is_held_out(dpixels, wise, tmp_path):
    made = pretrain([dpixels], small(f"teacher.model={wise}", "data.holdout=0"), tmp_path / "run", device=CPU)
    assert made.finished
    assert "teacher_all" not in made.rows[-1]


def test_a_teacher_that_knows_no_labelled_pixel_has_no_probes():
    unknown = Embedded(np.empty((0, 3), np.float32), np.full((4, 3), np.nan, np.float32), np.zeros(3, np.float32))
    assert Evaluation(no_pixels(), object(), small(), unknown).of_teacher == {}


# --- going on from an encoder -----------------------------------------------------------------------------------------


def test_the_shape_and_the_statistics_are_those_of_the_initial_encoder(shards, wise, tmp_path, tessera):
    sets = [part for each in SMALL for part in ("--set", each)]
    command = ["pretrain", "--shards", shards, "--init-from", wise, "--threads", 1, *sets, "--set", "optim.lr=1e-12"]
    code, _, err = tessera(*command, "--out", tmp_path / "run")
    assert code == 0, err
    settings = load_config(path=tmp_path / "run" / "config.toml")
    assert settings.model.encoder == read_checkpoint(wise).config
    assert settings.data.statistics == "init"
    assert load_config().optim.lr == 10 * load_config(base=Initial.of(wise).preset).optim.lr
    card = read_checkpoint(tmp_path / "run" / "export" / "own.safetensors").card
    assert card.statistics == V2_STUDENT_STATISTICS
    old, new = load_file(wise), load_file(tmp_path / "run" / "export" / "own.safetensors")
    assert all(torch.allclose(old[name], new[name], atol=1e-9) for name in old)
    code, _, err = tessera(*command, "--preset", "tiny", "--out", tmp_path / "tiny")
    assert code == 2
    assert "leave --preset" in err
    code, _, err = tessera(*command, "--set", "data.statistics=own", "--out", tmp_path / "own")
    assert code == 5
    assert "data.statistics=init" in err
    again = [
        "pretrain",
        "--shards",
        shards,
        "--init-from",
        tmp_path / "run" / "checkpoints" / "last.safetensors",
        *sets,
    ]
    code, _, err = tessera(*again, "--threads", 1, "--out", tmp_path / "again")
    assert code == 0, err
    assert load_config(path=tmp_path / "again" / "config.toml").model.encoder == read_checkpoint(wise).config


def test_a_checkpoint_that_was_copied_elsewhere_has_the_shape_that_the_preset_says(shards, tmp_path):
    train(tmp_path / "run", shards)
    made = (tmp_path / "run" / "checkpoints" / "last.safetensors").read_bytes()
    copy = tmp_path / "project" / "weights" / "last.safetensors"
    copy.parent.mkdir(parents=True)
    copy.write_bytes(made)
    assert Initial.of(copy).preset == {}
    (tmp_path / "project" / "config.toml").write_text("[server]\nport = 80\n")  # of another program
    assert Initial.of(copy).preset == {}
    assert train(tmp_path / "more", shards, init_from=copy).finished
    assert Initial("/last.safetensors", None).preset == {}


def test_the_initial_encoder_as_its_own_teacher_keeps_embeddings_where_they_were(shards, wise, tmp_path):
    """At the first step they are equal but for int8, dropped observations apart."""
    shape = ("model.latent=8", "model.heads=2", "model.feedforward=32", "model.representation=24")
    told = (*shape, f"teacher.model={wise}", "teacher.head=identity", "optim.lr=1e-12")
    same = train(tmp_path / "same", shards, *told, init_from=wise)
    assert same.rows[-1]["teacher_all"] > 0.999
    assert same.rows[-1]["teacher_all"] > same.rows[-1]["teacher_5"]


# --- many processes ---------------------------------------------------------------------------------------------------


def test_two_processes_learn_from_a_teacher_as_one(shards, wise, tmp_path):
    each_step = (f"teacher.model={wise}", "train.log_every=1", "train.steps=2", "train.eval_every=2")
    alone = train(tmp_path / "alone", shards, *each_step)
    sets = [part for override in (*SMALL, *each_step) for part in ("--set", override)]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "tessera_cli", "pretrain", "--shards", shards, "--preset", "tiny", "--device", "cpu", *sets]
    done = subprocess.run(
        [*map(str, command), "--out", str(tmp_path / "two")], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()]
    for one, two in zip(alone.rows, rows, strict=True):
        assert one.keys() - two.keys() <= {"device_memory_mb"}
        for key in {"loss", "teacher_cosine", "teacher_barlow", "gradient_norm", "teacher_all"} & one.keys():
            assert two[key] == pytest.approx(one[key], rel=1e-4), (one["step"], key)
