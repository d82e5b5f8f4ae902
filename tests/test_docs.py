"""The documentation does what it says: the tutorial is run as it stands, commands shown have the options they use."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / ".github" / "pull_request_template.md"])
COMMAND = re.compile(r"(?:^\s*|&& |\| |until |[A-Z_]+=\S+ )tessera +([^#|;&<>`]+)")
GENERATED = {f"{name}.md" for name in ("benchmarks", "cli")}
"""Pages that exist on the site only."""
BLOCK = re.compile(r"^ *```(\w+)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)


def blocks(page: Path, *languages: str) -> list[tuple[str, str]]:
    return [found for found in BLOCK.findall(page.read_text()) if found[0] in languages]


@pytest.mark.slow
def test_the_tutorial_makes_a_land_cover_map(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "tessera").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tessera_cli "$@"\n')
    (tools / "tessera").chmod(0o755)
    environment = os.environ | {"PATH": f"{tools}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    names: dict[str, object] = {}
    for language, text in blocks(ROOT / "docs" / "tutorial.md", "sh", "python"):
        if language == "sh":
            subprocess.run(["bash", "-euo", "pipefail", "-c", text], check=True, env=environment, timeout=300)
        else:
            exec(compile(text, "docs/tutorial.md", "exec"), names)
    assert "(128, 96, 96)" in capsys.readouterr().out

    with rasterio.open("land_cover.tif") as written, rasterio.open("embeddings/utm31n_2023.vrt") as embeddings:
        land_cover, grid = written.read(1), written.profile
        assert (written.crs, written.transform, written.shape) == (
            embeddings.crs,
            embeddings.transform,
            embeddings.shape,
        )
        assert ((land_cover == 0) == np.isnan(embeddings.read(1))).all()
    truth = {}
    for name in ("labels", "parcels"):
        with rasterio.open(f"catalog/{name}.tif") as src:
            window = src.window(*rasterio.transform.array_bounds(*land_cover.shape, grid["transform"]))
            truth[name] = src.read(1, window=window)
    assert truth["labels"].shape == land_cover.shape
    judged = (land_cover > 0) & (truth["labels"] > 0) & ~np.isin(truth["parcels"], names["known"])
    right = (land_cover == truth["labels"])[judged].mean()
    assert judged.sum() > 3000
    assert right == pytest.approx(names["accuracy"], abs=1e-9)
    assert 0.85 < right < 0.97  # "about nine of ten"


def commands() -> list[tuple[str, str]]:
    """Every command in a shell block of a page, without what comments and pipes add: (page, words after `tessera`)."""
    found = []
    for page in PAGES:
        for _, text in blocks(page, "sh", "bash"):
            for line in text.replace("\\\n", " ").splitlines():
                found += [(page.name, command) for command in COMMAND.findall(line)]
    return found


def test_commands_shown_have_the_options_that_they_use(tessera):
    shown, helps = commands(), {}
    assert len(shown) > 30
    for page, command in shown:
        words = shlex.split(command)
        verb = words[: 2 if words[0] in ("weights", "bench") else 1]
        if words[0].startswith("-"):
            verb = []
        if tuple(verb) not in helps:
            code, out, _ = tessera(*verb, "--help")
            assert code == 0, f"{page}: tessera {command}"
            helps[tuple(verb)] = out
        for word in words:
            if word.startswith("--"):
                assert re.search(rf"{word.split('=')[0]}\b", helps[tuple(verb)]), f"{page}: tessera {command}"


def test_modules_named_in_the_tour_are_there():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    named = re.findall(r"`((?:[a-z0-9_]+/)*[a-z0-9_]+\.py)`", text)
    assert len(named) > 40
    missing = [path for path in named if not any((ROOT / top / path).exists() for top in ("", "tessera_cli"))]
    assert not missing


def test_links_between_files_of_the_repository_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", page.read_text()):
            assert (page.parent / target).exists() or target in GENERATED, f"{page.name}: {target}"


def test_project_files_of_other_tools_are_well_formed():
    """What GitHub and citation tools read says what the package says of itself."""
    import tessera_cli

    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cff["version"] == tessera_cli.__version__
    latest = re.search(r"^## (\S+) - (\S+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert latest
    assert latest.groups() == (cff["version"], str(cff["date-released"]))
    for form in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        content = yaml.safe_load(form.read_text())
        assert {"name", "description", "body"} <= content.keys() or "contact_links" in content
    bug = (ROOT / ".github" / "ISSUE_TEMPLATE" / "bug_report.yml").read_text()
    assert "tessera --version" in bug
    assert "--debug" in bug
