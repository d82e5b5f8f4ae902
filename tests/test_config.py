"""Settings from the machine: how many cores a run may use, where credentials may lie."""

import os

import pytest

from tessera_cli import config


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine of 16 cores; the function lays files into its file system, and returns where that begins."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)

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


def test_what_the_user_or_slurm_says_goes_before_a_quota(machine):
    root = machine(QUOTAS["of a container"][0])
    assert config.threads({"SLURM_CPUS_PER_TASK": "8"}, root) == 8
    assert config.threads({"OMP_NUM_THREADS": "12,1", "SLURM_CPUS_PER_TASK": "8"}, root) == 12


def test_a_home_folder_that_cannot_be_searched_has_no_credentials():
    """As that of root, in a container that runs as somebody else."""
    assert not config.earthdata({"HOME": "/" + 300 * "x"}).given
