"""The Dockerfile's steps, replayed in a clean virtual environment: no Docker engine may be at hand."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text())
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [tuple(line.split(maxsplit=1)) for line in lines]


def test_it_runs_as_a_user_and_starts_tessera():
    steps = instructions()
    assert steps[0] == ("FROM", "python:3.11-slim")
    assert ("USER", "tessera") in steps
    assert steps[-1] == ("ENTRYPOINT", '["tessera"]')
    assert steps.index(("USER", "tessera")) > max(i for i, (word, _) in enumerate(steps) if word == "COPY")


@pytest.mark.integration
def test_its_steps_give_a_tessera_that_works(tmp_path):
    image, venv = tmp_path / "opt", tmp_path / "venv"
    image.mkdir()
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    for word, rest in instructions():
        if word == "COPY":
            *sources, target = rest.split()
            for source in map(ROOT.joinpath, sources):
                if source.is_dir():
                    shutil.copytree(source, image / target, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(source, image / target)
        elif word == "RUN" and "pip install" in rest:
            # the index of CPU builds may be out of reach: the constraint pins a build that installs either way
            command = re.sub(r'--extra-index-url "\$TORCH_INDEX"', "", rest).replace("pip", f"{venv}/bin/pip", 1)
            subprocess.run(f"{command} --quiet", shell=True, check=True, cwd=image)
    tessera = venv / "bin" / "tessera"
    outside = {"cwd": tmp_path, "capture_output": True, "text": True, "check": True}
    assert "tessera" in subprocess.run([tessera, "--version"], **outside).stdout
    subprocess.run([tessera, "simulate", "c", "--size", "24"], **outside)
    job = [tessera, "embed", "--aoi", "c/aoi.geojson", "--year", "2023", "--catalog", "c/items.json", "--out", "o"]
    subprocess.run([*job, "--model", "demo"], **outside)
    assert list((tmp_path / "o").glob("*_emb.tif"))
