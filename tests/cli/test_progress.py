"""Progress of a run on the screen: it moves while tiles are read, and comes from a clock."""

import logging
import os
import pty
import re
import subprocess
import sys
import time

import pytest

from tessera_cli.cli import terminal as terminals
from tessera_cli.cli.progress import RunProgress
from tessera_cli.cli.terminal import Terminal

SLOW = """
import sys, time
from tessera_cli.cli import terminal
from tessera_cli.imagery.reader import Reader
read = Reader.read
Reader.read = lambda self, href, use: (time.sleep(0.06), read(self, href, use))[1]
terminal.HEARTBEAT_SECONDS = 0.2
from tessera_cli.cli.app import run
sys.exit(run(sys.argv[1:]))
"""
"""The command with a reader that takes its time, and a minute of a fifth of a second."""


@pytest.fixture
def progress(monkeypatch):
    monkeypatch.setattr(terminals, "HEARTBEAT_SECONDS", 0.05)
    return RunProgress(Terminal())


def test_lines_come_from_a_clock_though_nothing_happens(progress, caplog):
    caplog.set_level(logging.INFO, "tessera_cli")
    with progress:
        time.sleep(0.4)
        progress.begin(2, 1000)
        progress.reading("a", 340, 1210, 34_000_000)
        time.sleep(0.4)
    said = [record.message for record in caplog.records]
    assert len([line for line in said if "searching" in line]) >= 2
    assert len([line for line in said if "0 of 2 tiles" in line and "340 of 1,210 files, 34 MB" in line]) >= 2
    time.sleep(0.2)
    assert len(caplog.records) <= len(said) + 1  # the clock has stopped


@pytest.mark.parametrize("verb", ["embed", "fetch"])
def test_off_a_terminal_lines_tell_how_far_the_first_tile_is_read(catalog, tmp_path, verb):
    options = catalog.options(tmp_path / "out")
    options = options[: None if verb == "embed" else options.index("--threads")]
    done = subprocess.run([sys.executable, "-c", SLOW, verb, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    before = done.stderr[: done.stderr.index("_2021 done")]
    counts = [(int(a), int(b)) for a, b in re.findall(r"0 of 2 tiles.*reading tile 1: (\d+) of (\d+) files", before)]
    assert len(set(counts)) >= 2, done.stderr
    assert counts == sorted(counts, key=lambda count: count[0])


def test_on_a_terminal_a_bar_moves_while_a_tile_is_read(catalog, tmp_path):
    parent, child = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80"}
    command = [sys.executable, "-c", SLOW, "embed", *catalog.options(tmp_path / "out")]
    done = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=child, env=environment)
    os.close(child)
    seen = b""
    try:
        while chunk := os.read(parent, 65536):
            seen += chunk
    except OSError:  # the other side is closed
        pass
    assert done.wait() == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())
    assert len(set(re.findall(r"reading 1/2.*?(\d+) of \d+ files", text))) >= 3
    assert "reading 2/2" in text
