"""A Slurm of one node on loopback, whose three daemons live in a folder of their own and end by process id."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.integration.processes import Server, Unavailable, free_port

ROOT = Path(__file__).resolve().parents[2]
PATH = os.pathsep.join([*os.defpath.split(os.pathsep), "/usr/sbin", "/sbin"])
CONFIGURATION = """\
ClusterName=tessera
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={munge}/socket,cred_expire=5
CryptoType=crypto/munge
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=2,bf_interval=2
MinJobAge=3600
KillWait=20
RequeueExit={requeue_exit}
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=8000 Gres=gpu:{cpus} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""
"""A job is requeued when its credentials have expired: hence `cred_expire`. GPUs are numbers of empty files."""


@dataclass(frozen=True)
class Ended:
    """How a job, or a task of an array, ended."""

    state: str
    code: int
    signal: int
    restarts: int
    output: str
    """Standard output and error, of all its starts."""


@dataclass(frozen=True)
class Slurm:
    """The commands of a user."""

    folder: Path
    environment: dict[str, str]

    def run(self, *command: object, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a program as a user does who is logged in; its exit code is the caller's to judge."""
        words = [str(word) for word in command]
        return subprocess.run(
            words,
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def submit(self, script: Path | str, *options: object, arguments: Sequence[object] = ()) -> str:
        """Queue a script, or lines of bash; return the job's number."""
        if isinstance(script, str):
            path = self.folder / f"{secrets.token_hex(4)}.sh"
            path.write_text(f"#!/bin/bash\n{script}\n")
            script = path
        done = self.run("sbatch", "--parsable", "--output", self.folder / "job-%A-%a.out", *options, script, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip().partition(";")[0]

    def field(self, job: str, name: str) -> str:
        """Return what `scontrol` knows of a job: `JobState`, `Restarts`."""
        text = self.run("scontrol", "--oneliner", "show", "job", job).stdout
        return next((word.partition("=")[2] for word in text.split() if word.startswith(f"{name}=")), "")

    def wait(self, job: str, seconds: float = 240) -> list[Ended]:
        """Wait until a job, or every task of an array, has ended for good."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            lines = self.run("scontrol", "--oneliner", "show", "job", job).stdout.splitlines()
            tasks = [dict(word.partition("=")[::2] for word in line.split()) for line in lines]
            if tasks and not any(task["JobState"] in UNFINISHED for task in tasks):
                return [self._ended(task) for task in sorted(tasks, key=lambda task: int(task.get("ArrayTaskId", 0)))]
            time.sleep(0.2)
        raise AssertionError(f"job {job} goes on after {seconds} s: {lines}")

    def output(self, job: str, task: int | None = None) -> str:
        """Return what a job has written so far."""
        path = self.folder / f"job-{job}-{'4294967294' if task is None else task}.out"
        return path.read_text() if path.exists() else ""

    def _ended(self, task: dict[str, str]) -> Ended:
        code, _, signal = task["ExitCode"].partition(":")
        number = task.get("ArrayTaskId")
        output = self.output(task.get("ArrayJobId", task["JobId"]), None if number is None else int(number))
        return Ended(task["JobState"], int(code), int(signal), int(task["Restarts"]), output)


UNFINISHED = ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "REQUEUED", "SUSPENDED", "STAGE_OUT", "SIGNALING")


@contextlib.contextmanager
def slurm(*, cpus: int = 4, requeue_exit: int = 75) -> Iterator[Slurm]:
    """Start the daemons; Unavailable where they are not installed, or do not start."""
    missing = [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if not shutil.which(name, path=PATH)]
    if missing:
        raise Unavailable(f"not installed: {', '.join(missing)}; tests/integration/setup.sh installs them")
    folder = Path(tempfile.mkdtemp(prefix="tessera-slurm-"))
    try:
        with contextlib.ExitStack() as stack:
            yield _start(folder, stack, cpus, requeue_exit)
    finally:
        shutil.rmtree(folder)


def _start(folder: Path, stack: contextlib.ExitStack, cpus: int, requeue_exit: int) -> Slurm:
    munge, work = folder / "munge", folder / "work"
    for part in (munge, work, folder / "state", folder / "spool"):
        part.mkdir(mode=0o700)
    key = munge / "key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o600)
    configuration = folder / "slurm.conf"
    configuration.write_text(
        CONFIGURATION.format(
            host=socket.gethostname().partition(".")[0],
            ports=(free_port(), free_port()),
            user=pwd.getpwuid(os.geteuid()).pw_name,
            folder=folder,
            munge=munge,
            cpus=cpus,
            requeue_exit=requeue_exit,
        )
    )
    for number in range(cpus):
        (folder / f"gpu{number}").touch()
    (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu[0-{cpus - 1}]\n")
    made = Slurm(work, _environment(folder, configuration))

    def daemon(*command: object, asked: Sequence[object], answer: str = "") -> None:
        def answers() -> bool:
            done = made.run(*asked)
            return done.returncode == 0 and answer in done.stdout

        words = [shutil.which(str(command[0]), path=PATH), *command[1:]]
        environment = {"SLURM_CONF": str(configuration), "PATH": PATH}
        stack.enter_context(Server(words, folder, answers, environment=environment))

    socket_, files = munge / "socket", {name: munge / name for name in ("pid", "log", "seed")}
    options = [f"--{name}-file={path}" for name, path in files.items()]
    daemon(
        *("munged", "--foreground", "--force", f"--key-file={key}", f"--socket={socket_}", *options),
        asked=("munge", "--socket", socket_, "--no-input"),
    )
    daemon("slurmctld", "-D", "-f", configuration, asked=("scontrol", "ping"), answer="UP")
    daemon("slurmd", "-D", "-f", configuration, asked=("sinfo", "--noheader", "--format=%T"), answer="idle")
    return made


def _environment(folder: Path, configuration: Path) -> dict[str, str]:
    """The environment of jobs: a `tessera` of this source, on one thread."""
    tools = folder / "bin"
    tools.mkdir()
    for name, module in (("tessera", "tessera_cli"), ("torchrun", "torch.distributed.run")):
        (tools / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {module} "$@"\n')
        (tools / name).chmod(0o755)
    return {
        "PATH": f"{tools}{os.pathsep}{PATH}",
        "HOME": str(folder),
        "LC_ALL": "C.UTF-8",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "SLURM_CONF": str(configuration),
    }
