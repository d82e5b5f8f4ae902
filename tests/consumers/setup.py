"""Install the programs that the tests of this folder open files with: `python tests/consumers/setup.py [NAME...]`.

Each has an environment of its own, `.venv-consumers/NAME`. Packages of Debian need root. What cannot be installed is
told, and does not stop the others. Safe to repeat.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PLACE = HERE.parents[1] / ".venv-consumers"
KNOWN: dict[str, dict[str, Any]] = tomllib.loads((HERE / "environments.toml").read_text())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(KNOWN)}; default: all")
    parser.add_argument("--quick", action="store_true", help="only those that install within moments")
    asked = parser.parse_args()
    names = asked.names or [name for name, entry in KNOWN.items() if entry.get("quick") or not asked.quick]
    for name in names:
        try:
            install(name, KNOWN[name])
        except (subprocess.CalledProcessError, OSError) as error:
            print(f"{name}: not installed: {error}", file=sys.stderr)
    return 0


def install(name: str, entry: dict[str, Any]) -> None:
    """Make the environment of one program, unless it is there as it should be."""
    wanted = repr(sorted(entry.items()))
    mark = PLACE / name / "installed"
    if mark.is_file() and mark.read_text() == wanted:
        return
    if packages := entry.get("apt"):
        apt = ["apt-get", "-o", "DPkg::Lock::Timeout=300", "-qq"]  # seconds to wait for another that installs
        subprocess.run([*apt, "update"], check=True)
        apt += ["install", "-y", "--no-install-recommends", *packages]
        subprocess.run(apt, check=True, env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"})
    (PLACE / name).mkdir(parents=True, exist_ok=True)
    if packages := entry.get("pip"):
        shutil.rmtree(PLACE / name)
        subprocess.run([interpreter(entry.get("python")), "-m", "venv", str(PLACE / name)], check=True)
        subprocess.run([str(PLACE / name / "bin/python"), "-m", "pip", "install", "--quiet", *packages], check=True)
    mark.write_text(wanted)


def interpreter(version: str | None) -> str:
    """Return an interpreter of a version such as "3.12": one on the PATH, else one of pyenv; ours for None."""
    if version is None:
        return sys.executable
    of_pyenv = (Path.home() / ".pyenv/versions").glob(f"{version}.*/bin/python")
    for found in (shutil.which(f"python{version}"), *map(str, sorted(of_pyenv))):
        if found and subprocess.run([found, "-c", ""], capture_output=True, check=False).returncode == 0:
            return found
    raise FileNotFoundError(f"no Python {version} is installed")


if __name__ == "__main__":
    sys.exit(main())
