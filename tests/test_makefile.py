"""How `make` makes .venv: with a Python that is new enough, and anew when it is another one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).parents[1] / "Makefile"
PYTHON = """#!/bin/sh
# A Python of version {version}, as far as make can tell, of which environments and pip take no time.
case "$*" in
  "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  "-m pip "*) echo "$@" >> pip.log ;;
  *) exec {real} -c 'import sys
sys.version_info, sys.base_prefix = {version} + ("final", 0), "{prefix}"
exec(sys.argv[2])' "$@" ;;
esac
"""

pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")


@pytest.fixture
def project(tmp_path):
    """A project with its Makefile and nothing else."""
    shutil.copy(MAKEFILE, tmp_path)
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).touch()
    return tmp_path


def python(project, name, version, prefix="/usr"):
    path = project / name
    path.write_text(PYTHON.format(version=version, prefix=prefix, real=sys.executable))
    path.chmod(0o755)
    return f"./{name}"


def make(project, python):
    """Run make: exit code, what it says on stderr, the number of installations so far."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    command = ["make", f"PYTHON={python}", ".venv/installed"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, env=plain)
    log = project / "pip.log"
    return done.returncode, done.stderr, len(log.read_text().splitlines()) if log.exists() else 0


@pytest.mark.parametrize("version", [(3, 10, 12), (2, 7, 18), None], ids=["3.10", "2.7", "none"])
def test_an_older_python_is_refused_before_anything_is_made(project, version):
    old = "./nowhere" if version is None else python(project, "old", version)
    code, stderr, _ = make(project, old)
    assert code == 2
    assert stderr.splitlines()[0] == (
        f"PYTHON={old} is no Python 3.11 or newer. Install one, and name it: make PYTHON=python3.12"
    )
    assert not (project / ".venv").exists()


def test_what_fits_is_kept(project):
    new = python(project, "new", (3, 11, 7))
    assert make(project, new)[::2] == (0, 1)
    kept = (project / ".venv/bin/python").stat().st_ino
    assert make(project, new)[::2] == (0, 1)
    assert make(project, python(project, "patched", (3, 11, 9)))[::2] == (0, 1)  # the same environment serves both
    assert (project / ".venv/bin/python").stat().st_ino == kept


@pytest.mark.parametrize(("version", "prefix"), [((3, 12, 1), "/usr"), ((3, 11, 7), "/opt/python")])
def test_another_interpreter_makes_it_anew(project, version, prefix):
    make(project, python(project, "new", (3, 11, 7)))
    assert make(project, python(project, "other", version, prefix))[::2] == (0, 2)
    assert prefix in (project / ".venv/bin/python").read_text()


@pytest.mark.parametrize("how", ["no interpreter", "no pip"])
def test_one_that_is_broken_is_made_anew(project, how):
    new = python(project, "new", (3, 11, 7))
    make(project, new)
    made = project / ".venv/bin/python"
    made.unlink()
    if how == "no interpreter":  # a link into what has been uninstalled
        made.symlink_to("/nowhere/python")
    else:
        made.write_text("#!/bin/sh\nexit 1\n")
        made.chmod(0o755)
    assert make(project, new)[::2] == (0, 2)


def test_an_older_python_leaves_the_environment_alone(project):
    make(project, python(project, "new", (3, 11, 7)))
    assert make(project, python(project, "old", (3, 9, 2)))[0] == 2
    assert (project / ".venv/installed").exists()
