"""What a run says of its own memory."""

import subprocess
import sys

import numpy as np
import pytest

from tessera_cli.timing import peak_rss_mb, rss_mb


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux counts so")
def test_the_peak_is_that_of_this_program_and_not_of_who_started_it():
    """The kernel's own count, `ru_maxrss`, begins with what the parent held when it forked."""
    held = np.ones(125_000_000)
    code = "from tessera_cli.timing import peak_rss_mb; print(peak_rss_mb())"
    peak = float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert held[-1] == 1
    assert rss_mb() > 1000
    assert peak < 500


def test_the_peak_grows_with_what_is_held():
    before = peak_rss_mb()
    held = np.ones(max(1, int((before - rss_mb()) * 1e6 / 8)) + 40_000_000)
    assert held[-1] == 1
    assert peak_rss_mb() > before + 200
