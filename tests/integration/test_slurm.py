"""Jobs of a real Slurm: arrays, ranks, walltime, requeueing, cancelling, and the exit codes that wrappers see."""

import json
import re
import shutil
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.conftest import REQUIRED
from tests.integration.processes import Unavailable
from tests.integration.slurm import ROOT, Ended, Slurm, slurm

pytestmark = [pytest.mark.integration, pytest.mark.slow]
EXAMPLES = ROOT / "examples" / "slurm"
STRIP, WHOLE = (4.4725, 50.7600, 4.4880, 50.7620), (4.4725, 50.7565, 4.4880, 50.7657)
"""Boxes on two tiles of the simulated landscape, of 2,400 and 11,000 pixels."""
HALVES = ("2023-01/2023-06", "2023-07/2023-12")
SMALL = ("--cpus-per-task=1", "--time=10")
"""What the examples ask for, cut down to one node of two cores."""


@pytest.fixture(scope="module")
def cluster():
    try:
        with slurm() as made:
            yield made
    except Unavailable as reason:
        if REQUIRED:
            pytest.fail(f"no Slurm: {reason}")
        pytest.skip(str(reason))


@dataclass(frozen=True)
class Work:
    """A landscape, what to make of it, and what an undisturbed run made."""

    cluster: Slurm
    catalog: Path

    def options(self, out: Path, box=STRIP, windows=HALVES) -> list[str]:
        """Of `embed` and `plan`: two tiles per window."""
        where = ["--bbox", *map(str, box), *(word for window in windows for word in ("--window", window))]
        return [*where, "--catalog", str(self.catalog), "--model", "demo", "--out", str(out)]

    def plan(self, out: Path, windows=HALVES) -> None:
        """Freeze the scenes, as the user does on the login node."""
        done = self.cluster.run("tessera", "plan", *self.options(out, windows=windows), timeout=120)
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def work(cluster):
    done = cluster.run("tessera", "simulate", "catalog", timeout=120)
    assert done.returncode == 0, done.stderr
    return Work(cluster, cluster.folder / "catalog" / "items.json")


@pytest.fixture(scope="module")
def undisturbed(work):
    """The files of a run that nothing happened to."""
    out = work.cluster.folder / "undisturbed"
    done = work.cluster.run("tessera", "embed", *work.options(out), timeout=300)
    assert done.returncode == 0, done.stderr
    assert len(list(out.glob("*_emb.tif"))) == 4
    return contents(out)


@pytest.fixture
def out(cluster, request):
    folder = cluster.folder / request.node.name
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file: finished folders hold nothing else than an undisturbed run's."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rasters(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.tif")}


def computed(*jobs: Ended) -> Counter[str]:
    """How often each tile was finished, by the results that the jobs printed."""
    lines = [json.loads(line) for job in jobs for line in job.output.splitlines() if line.startswith('{"type"')]
    return Counter(f"{line['tile']}_{line['window']}" for line in lines if line.get("status") == "done")


def codes(jobs: list[Ended]) -> list[int]:
    """Exit codes as a shell says them: of a task that a signal has ended, 128 and its number."""
    return [128 + job.signal if job.signal else job.code for job in jobs]


def test_an_array_shares_an_area_and_leaves_what_one_run_leaves(work, out, undisturbed):
    work.plan(out)
    options = [*work.options(out), "--json"]
    job = work.cluster.submit(EXAMPLES / "embed.sbatch", "--array=1-4", *SMALL, arguments=options)
    tasks = work.cluster.wait(job)
    assert codes(tasks) == [0] * 4, tasks
    assert contents(out) == undisturbed
    assert computed(*tasks) == dict.fromkeys(computed(*tasks), 1)
    assert len(computed(*tasks)) == 4


def test_an_array_without_a_plan_is_told_the_command(work, out):
    job = work.cluster.submit(EXAMPLES / "embed.sbatch", "--array=1-2", *SMALL, arguments=work.options(out))
    tasks = work.cluster.wait(job)
    assert codes(tasks) == [2, 2]
    assert re.search(r"tessera: error: .*tessera plan .*--out", tasks[0].output)
    assert not list(out.rglob("*.tif"))


def test_tasks_without_a_share_end_well(work, out):
    """More tasks than tiles, numbered by another step than one."""
    work.plan(out, windows=HALVES[:1])
    options = [*work.options(out, windows=HALVES[:1]), "--json"]
    job = work.cluster.submit(EXAMPLES / "embed.sbatch", "--array=10-14:2", *SMALL, arguments=options)
    tasks = work.cluster.wait(job)
    assert codes(tasks) == [0] * 3, tasks
    whole = "\n".join(f"{task.state}, {task.restarts} restarts\n{task.output}" for task in tasks)
    assert sorted(sum(computed(task).values()) for task in tasks) == [0, 1, 1], whole
    assert len(list(out.glob("*.vrt"))) == 3


def test_two_ranks_of_one_step(work, out, undisturbed):
    work.plan(out)
    line = " ".join(["srun --label tessera embed --shard auto --json", *work.options(out)])
    (job,) = work.cluster.wait(work.cluster.submit(line, "--ntasks=2"))
    assert job.code == 0, job.output
    assert contents(out) == undisturbed
    ranks = re.findall(r"^([01]): \{\"type\": \"tile\".*\"status\": \"done\"", job.output, re.MULTILINE)
    assert len(ranks) == 4
    assert set(ranks) == {"0", "1"}


@pytest.fixture(scope="module")
def short(work):
    """A job of two minutes that has to end a minute before, and begins late; it goes on beside other tests."""
    out = work.cluster.folder / "short"
    line = " ".join(["sleep 35; tessera embed --json", *work.options(out, WHOLE), "; echo ended with $?"])
    return work.cluster.submit(line, "--time=2"), out


def test_a_job_that_is_warned_goes_back_into_the_queue_and_finishes(work, out, undisturbed, short):
    """Slurm sends SIGUSR1 before the walltime, and RequeueExit of the cluster names the exit code."""
    line = " ".join(["exec tessera embed --json --deadline 2h", *work.options(out)])
    started = time.monotonic()
    job = work.cluster.submit(line, "--time=1", "--signal=B:USR1@20", "--requeue", "--open-mode=append")

    def restarted() -> bool:
        return work.cluster.field(job, "Restarts") not in ("", "0")

    _until(lambda: restarted() or '"status": "done"' in work.cluster.output(job), "the first tile", 120)
    # The warning comes when Slurm looks at its jobs, which is twice a minute: what is short has to last till then.
    work.cluster.run("scancel", "--batch", "--signal=STOP", job)
    time.sleep(max(0, started + 44 - time.monotonic()))
    work.cluster.run("scancel", "--batch", "--signal=CONT", job)
    _until(restarted, "requeued", 60)
    work.cluster.run("scontrol", "update", f"JobId={job}", "TimeLimit=10")
    (ended,) = work.cluster.wait(job)
    assert (ended.state, ended.code) == ("COMPLETED", 0), ended
    assert ended.restarts >= 1
    assert contents(out) == undisturbed
    assert computed(ended) == dict.fromkeys(computed(ended), 1)
    assert len(computed(ended)) == 4


def test_the_walltime_is_found_and_no_tile_begun_that_would_not_fit(work, short):
    job, out = short
    (ended,) = work.cluster.wait(job)
    assert "ended with 75" in ended.output, ended
    assert ended.state == "COMPLETED"
    assert len(computed(ended)) < 4
    assert len(list(out.glob("*_emb.tif"))) == len(computed(ended))


def test_the_example_requeues_one_task_of_an_array_by_itself(work, out, undisturbed):
    """Also where the cluster does not requeue by exit code; the other task is not touched."""
    work.plan(out)
    options = [*work.options(out), "--json"]
    job = work.cluster.submit(EXAMPLES / "requeue.sbatch", "--array=1-2", *SMALL, arguments=options)
    _until(lambda: "tiles to do" in work.cluster.output(job, 1), "task 1 at work", 120)
    work.cluster.run("scancel", "--batch", "--signal=USR1", f"{job}_1")
    tasks = work.cluster.wait(job)
    assert [(task.code, task.restarts) for task in tasks] == [(0, 1), (0, 0)], tasks
    assert contents(out) == undisturbed
    assert sorted(computed(*tasks).values()) == [1] * 4


def test_a_cancelled_job_ends_with_143_and_the_next_one_goes_on(work, out, undisturbed):
    line = " ".join(["tessera embed --json", *work.options(out), "; echo ended with $?"])
    job = work.cluster.submit(f"trap : TERM; {line}")  # the shell has to live on to say how it went
    _until(lambda: '"status": "done"' in work.cluster.output(job), "the first tile", 120)
    work.cluster.run("scancel", "--full", job)
    (ended,) = work.cluster.wait(job)
    assert ended.state == "CANCELLED"
    assert "ended with 143" in ended.output, ended
    assert not [name for name in contents(out) if Path(name).suffix in (".part", ".next")]
    (again,) = work.cluster.wait(work.cluster.submit(line))
    assert "ended with 0" in again.output, again
    assert contents(out) == undisturbed
    assert computed(ended, again) == dict.fromkeys(computed(ended, again), 1)


SLOW = """\
#!/bin/bash
trap 'sleep 2; echo saved; exit 143' TERM
echo at work
while true; do sleep 0.1; done
"""


@pytest.mark.parametrize("name", ["embed", "requeue", "pretrain"])
def test_a_cancelled_example_waits_for_what_its_run_saves(cluster, out, name):
    """Where the shell ends first, Slurm takes the job for over and kills what is left of it."""
    out.mkdir()
    for program in ("tessera", "torchrun"):
        (out / program).write_text(SLOW)
        (out / program).chmod(0o755)
    path = f"--export=ALL,PATH={out}:{cluster.environment['PATH']}"
    job = cluster.submit(EXAMPLES / f"{name}.sbatch", path, "--array=1", "--gpus-per-node=1", *SMALL)
    _until(lambda: "at work" in cluster.output(job, 1), "at work", 60)
    cluster.run("scancel", job)
    (ended,) = cluster.wait(job)
    assert (ended.state, ended.code, ended.signal) == ("CANCELLED", 143, 0), ended
    assert "saved" in ended.output


def test_the_imagery_is_fetched_on_the_login_node_and_encoded_by_an_array(work, out, undisturbed):
    words = work.options(out)
    area = words[: words.index("--model")]
    environment = {"OPTIONS": f"--array=1-2 {' '.join(SMALL)} --wait --output=fetched-%a.out", "PAUSE": "1"}
    script = EXAMPLES / "fetch_then_embed.sh"
    words = [f"{name}={value}" for name, value in environment.items()]
    done = work.cluster.run("env", *words, script, out, "demo", *area, timeout=300)
    told = [path.read_text() for path in sorted(work.cluster.folder.glob("fetched-*.out"))]
    assert done.returncode == 0, (done.stderr, told)
    assert rasters(out) == {name: data for name, data in undisturbed.items() if name.endswith(".tif")}
    assert len(told) == 2
    shutil.rmtree(f"{out}_dpixels")


def test_the_example_trains(work, out):
    words = work.options(out, windows=HALVES[:1])
    area = words[: words.index("--model")]
    done = work.cluster.run("tessera", "fetch", *area, "--model", "demo", "--out", out / "dpixels", timeout=120)
    assert done.returncode == 0, done.stderr
    options = [out / "dpixels", "--config", ROOT / "examples" / "demo.toml", "--steps", 2, "--out", out / "run"]
    script, small = EXAMPLES / "pretrain.sbatch", ("--gpus-per-node=1", "--cpus-per-task=1", "--time=10")
    (ended,) = work.cluster.wait(work.cluster.submit(script, *small, arguments=options))
    assert (ended.state, ended.code) == ("COMPLETED", 0), ended
    assert list((out / "run" / "export").glob("*.safetensors"))


def test_exit_codes_reach_whoever_waits_for_the_job(work, out):
    """4: a tile failed, run again. 3: there is nothing to embed."""
    lossy = json.loads(work.catalog.read_text())
    victim = next(item for item in lossy["features"] if "B08" in item["assets"])
    victim["assets"]["B08"]["href"] = "cogs/lost.tif"
    catalog = work.catalog.with_name("lossy.json")
    catalog.write_text(json.dumps(lossy))
    options = [str(catalog) if word == str(work.catalog) else word for word in work.options(out)]
    nothing = ["--bbox", "0", "0", "0.001", "0.001", *options[5:]]
    for arguments, code in ((options, 4), (nothing, 3)):
        script = work.cluster.folder / "code.sh"
        script.write_text(f"#!/bin/bash\nexec tessera embed {' '.join(arguments)}\n")
        done = work.cluster.run("sbatch", "--wait", "--output=codes.out", script, timeout=120)
        assert done.returncode == code, (work.cluster.folder / "codes.out").read_text()
    done = work.cluster.run("sbatch", "--wait", "--array=2-4", "--output=/dev/null", "--wrap=exit $SLURM_ARRAY_TASK_ID")
    assert done.returncode == 4  # the highest of an array


def _until(condition, what: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not {what} after {seconds} s"
        time.sleep(0.1)
