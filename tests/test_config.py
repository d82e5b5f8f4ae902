"""Settings from the machine: how many cores and how much memory a run may use, where credentials may lie."""

import os
from pathlib import Path

import pytest

from tessera_cli import config


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine of 16 cores and 64 GiB; the function lays files into its file system, and returns where that begins."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 64 << 18, "SC_PAGE_SIZE": 4096}.__getitem__)

    def lay(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + "\n")
        return tmp_path

    return lay


V1 = "12:memory:/\n3:cpu,cpuacct:{}\n0::/"
QUOTAS = {
    "none": ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "max 100000"}, 16),
    "no groups": ({}, 16),
    "of a container": ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "200000 100000"}, 2),
    "another period": ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "200000 50000"}, 4),
    "rounded up": ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "250000 100000"}, 3),
    "less than a core": ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "10000 100000"}, 1),
    "more than there are": ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "6400000 100000"}, 16),
    "of the group itself": (
        {"proc/self/cgroup": "0::/a.slice/b", "sys/fs/cgroup/a.slice/b/cpu.max": "300000 100000"},
        3,
    ),
    "of a group around it": (
        {
            "proc/self/cgroup": "0::/a.slice/b/c",
            "sys/fs/cgroup/a.slice/b/c/cpu.max": "max 100000",
            "sys/fs/cgroup/a.slice/cpu.max": "500000 100000",
        },
        5,
    ),
    "the least of all": (
        {
            "proc/self/cgroup": "0::/a.slice/b",
            "sys/fs/cgroup/a.slice/b/cpu.max": "700000 100000",
            "sys/fs/cgroup/a.slice/cpu.max": "600000 100000",
        },
        6,
    ),
    "version 1": (
        {
            "proc/self/cgroup": V1.format("/job"),
            "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "400000",
            "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us": "100000",
        },
        4,
    ),
    "version 1 in a container": (  # whose files lie at the mount, whatever the path outside is
        {
            "proc/self/cgroup": V1.format("/docker/0123"),
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "150000",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
        },
        2,
    ),
    "version 1 without one": (
        {
            "proc/self/cgroup": V1.format("/job"),
            "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us": "100000",
        },
        16,
    ),
    "of other groups": ({"proc/self/cgroup": "0::/a", "sys/fs/cgroup/b/cpu.max": "100000 100000"}, 16),
    "lines of another kind": ({"proc/self/cgroup": "nothing\n0::/", "sys/fs/cgroup/cpu.max": "200000 100000"}, 2),
    "nonsense": ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "0 0"}, 16),
}


@pytest.mark.parametrize("kind", QUOTAS)
def test_a_quota_of_cpu_time_counts_like_cores(machine, kind):
    files, cores = QUOTAS[kind]
    assert config.threads({}, machine(files)) == cores


SHARES = {
    "of a task": ({"SLURM_CPUS_PER_TASK": "8"}, 8),
    "more than the affinity mask": ({"SLURM_CPUS_PER_TASK": "32"}, 16),
    "of a batch script": ({"SLURM_CPUS_ON_NODE": "6", "SLURM_TASKS_PER_NODE": "3"}, 6),
    "of a task on a node": ({"SLURM_CPUS_ON_NODE": "6", "SLURM_STEP_TASKS_PER_NODE": "3"}, 2),
    "of a task on the last of three nodes": (
        {"SLURM_CPUS_ON_NODE": "8", "SLURM_STEP_TASKS_PER_NODE": "2(x2),1", "SLURM_NODEID": "2"},
        8,
    ),
    "of a task on the second of three nodes": (
        {"SLURM_CPUS_ON_NODE": "8", "SLURM_STEP_TASKS_PER_NODE": "2(x2),1", "SLURM_NODEID": "1"},
        4,
    ),
    "of more tasks than cores": ({"SLURM_CPUS_ON_NODE": "2", "SLURM_STEP_TASKS_PER_NODE": "5"}, 1),
    "what the user says": ({"OMP_NUM_THREADS": "3,1", "SLURM_CPUS_PER_TASK": "8"}, 3),
    "what the user says, beyond the share": ({"OMP_NUM_THREADS": "12", "SLURM_CPUS_PER_TASK": "8"}, 8),
    "nonsense": (
        {"OMP_NUM_THREADS": "all", "SLURM_CPUS_PER_TASK": "", "SLURM_STEP_TASKS_PER_NODE": "x", "SLURM_NODEID": "-"},
        16,
    ),
}


@pytest.mark.parametrize("kind", SHARES)
def test_slurm_and_the_user_lower_the_number_of_cores(machine, kind):
    environ, cores = SHARES[kind]
    assert config.threads(environ, machine({})) == cores


def test_nobody_raises_a_quota(machine):
    root = machine(QUOTAS["of a container"][0])
    assert config.threads({"SLURM_CPUS_PER_TASK": "8", "OMP_NUM_THREADS": "12"}, root) == 2


MEMINFO = Path("/proc/meminfo")
GIB = 1 << 30
LIMITS = {
    "none": ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/memory.max": "max"}, {}, 64),
    "no groups": ({}, {}, 64),
    "of a container": ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/memory.max": str(2 * GIB)}, {}, 2),
    "of a group around it": (
        {
            "proc/self/cgroup": "0::/job/step/task",
            "sys/fs/cgroup/job/step/task/memory.max": "max",
            "sys/fs/cgroup/job/step/memory.max": str(5 * GIB),
            "sys/fs/cgroup/job/memory.max": str(6 * GIB),
        },
        {},
        5,
    ),
    "of other groups": ({"proc/self/cgroup": "0::/a", "sys/fs/cgroup/b/memory.max": str(GIB)}, {}, 64),
    "more than there is": ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/memory.max": str(640 * GIB)}, {}, 64),
    "version 1": (
        {"proc/self/cgroup": V1.format("/job"), "sys/fs/cgroup/memory/memory.limit_in_bytes": str(3 * GIB)},
        {},
        3,
    ),
    "version 1 without one": (
        {"proc/self/cgroup": V1.format("/job"), "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712"},
        {},
        64,
    ),
    "of a CPU group": (
        {"proc/self/cgroup": V1.format("/job"), "sys/fs/cgroup/cpu/memory.limit_in_bytes": str(GIB)},
        {},
        64,
    ),
    "of a job": ({}, {"SLURM_MEM_PER_NODE": "8192"}, 8),
    "all of the node": ({}, {"SLURM_MEM_PER_NODE": "0"}, 64),
    "by cores": ({}, {"SLURM_MEM_PER_CPU": "2048", "SLURM_CPUS_ON_NODE": "3"}, 6),
    "by cores of a task": ({}, {"SLURM_MEM_PER_CPU": "2048", "SLURM_CPUS_PER_TASK": "2"}, 4),
    "of a task of two on the node": ({}, {"SLURM_MEM_PER_NODE": "8192", "SLURM_STEP_TASKS_PER_NODE": "2"}, 4),
    "of a job whose group is shared by two tasks": (
        {"proc/self/cgroup": "0::/job", "sys/fs/cgroup/job/memory.max": str(4 * GIB)},
        {"SLURM_MEM_PER_NODE": "8192", "SLURM_STEP_TASKS_PER_NODE": "2"},
        2,
    ),
}


@pytest.mark.parametrize("kind", LIMITS)
def test_memory_is_what_is_granted(machine, kind):
    files, environ, granted = LIMITS[kind]
    assert config.memory(environ, machine(files)) == granted * GIB


@pytest.mark.skipif(not MEMINFO.exists(), reason="only Linux tells it there")
def test_memory_of_this_machine():
    total = next(line for line in MEMINFO.read_text().splitlines() if line.startswith("MemTotal"))
    assert 0 < config.memory({}) <= int(total.split()[1]) * 1024


def test_a_home_folder_that_cannot_be_searched_has_no_credentials():
    """As that of root, in a container that runs as somebody else."""
    assert not config.earthdata({"HOME": "/" + 300 * "x"}).given
