"""Help and shell completion, as shells ask for them."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from tessera_cli.cli.app import app
from tests.cli.test_cli import verbs

ROOT = Path(__file__).parents[2]
EVERY = ["", *verbs(typer.main.get_command(app))]


@pytest.fixture
def columns(monkeypatch, tessera):
    """The help of a verb on a terminal of so many columns."""

    def call(wide, *verb):
        monkeypatch.setenv("COLUMNS", str(wide))
        code, stdout, _ = tessera(*verb, "--help")
        assert code == 0
        return stdout

    return call


@pytest.mark.parametrize("wide", [60, 80])
def test_summaries_are_never_cut(columns, wide):
    for group in ((), ("weights",), ("bench",)):
        text = columns(wide, *group)
        assert "..." not in text.partition("Commands:")[2]
    assert "Train an encoder on your own d-pixels (alias: train)." in " ".join(columns(wide).split())


def test_help_is_as_wide_as_the_terminal(columns):
    for wide in (80, 120, 200):
        lines = columns(wide, "embed").splitlines()
        longest = max(len(line) for line in lines if not line.startswith("    tessera "))
        assert wide - 20 < longest <= wide


def test_examples_can_be_copied_whole(columns):
    for _ in range(2):
        text = columns(60, "plan").splitlines()
        assert "    tessera plan --bbox 4.30 51.95 4.40 52.00 --year 2023 --json | jq .read_bytes" in text
        assert not any("\b" in line for line in text)


@pytest.mark.parametrize("verb", EVERY)
def test_help_says_where_the_documentation_is(columns, verb):
    text = " ".join(columns(80, *verb.split()).split())
    assert "Documentation: docs/index.md" in text
    assert (ROOT / "docs" / "index.md").exists()
    assert "https://github.com/ucam-eo/tessera" in text


# --- completion -------------------------------------------------------------------------------------------------------

BASH = """
eval "$(_TESSERA_COMPLETE=source_bash tessera)"
while read -r line; do
  read -ra COMP_WORDS <<< "$line"
  [[ "$line" == *"|" ]] && unset 'COMP_WORDS[-1]' && COMP_WORDS+=("")
  COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMPREPLY=()
  $(complete -p tessera | sed 's/.*-F \\([^ ]*\\).*/\\1/') tessera
  echo "${COMPREPLY[@]}" | tr '\\n' ' '; echo
done
"""


@pytest.fixture
def environment(tmp_path):
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "tessera").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tessera_cli "$@"\n')
    (folder / "tessera").chmod(0o755)
    return os.environ | {"PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}


def test_bash_completes(environment):
    """`|` stands for a word that has not been begun."""
    expected = {
        "tessera em": "embed",
        "tessera weights |": "list pull",
        "tessera embed --pre": "--preprocessing --precision --preview",
        "tessera embed --precision |": "auto fp32 bf16 int8",
        "tessera embed --source |": "mpc aws",
        "tessera fetch --model v2-t": "v2-teacher",
        "tessera embed --weights |": "",  # files, which bash knows itself
        "tessera train --pres": "--preset",
        "tessera embed --bbox 4,5,6,7 --ye": "--year",
        "tessera embed --dpixels a b --wei": "--weights",
    }
    done = subprocess.run(
        [shutil.which("bash") or "bash", "--norc", "-c", BASH],
        input="\n".join(expected) + "\n",
        capture_output=True,
        text=True,
        env=environment,
    )
    assert dict(zip(expected, map(str.strip, done.stdout.splitlines()), strict=True)) == expected, done.stderr


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_zsh_and_fish_complete(environment, shell):
    def ask(line, **more):
        asked = {f"_{'TESSERA'}_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": line, **more}
        return subprocess.run(["tessera"], capture_output=True, text=True, env=environment | asked)

    get = {"_TYPER_COMPLETE_FISH_ACTION": "get-args"} if shell == "fish" else {}
    assert re.search(r"embed.*Turn an area and a year into embeddings\.", ask("tessera em", **get).stdout)
    assert "bf16" in ask("tessera embed --precision ", **get).stdout
    assert "--preset" in ask("tessera train --pres", **get).stdout
    script = subprocess.run(
        ["tessera"], capture_output=True, text=True, env=environment | {"_TESSERA_COMPLETE": f"source_{shell}"}
    ).stdout
    assert f"_TESSERA_COMPLETE=complete_{shell}" in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)


def test_completion_is_offered_and_refused_in_words(environment, tmp_path):
    assert (
        "--install-completion"
        in subprocess.run(["tessera", "-h"], capture_output=True, env=environment).stdout.decode()
    )
    (tmp_path / "file").write_text("")
    nowhere = environment | {"HOME": str(tmp_path / "file")}
    command = ["bash", "--norc", "-c", "tessera --install-completion; echo code $?"]
    done = subprocess.run(command, capture_output=True, text=True, env=nowhere)
    assert "code 2" in done.stdout, done.stderr
    assert "Traceback" not in done.stderr
    assert "_TESSERA_COMPLETE=source_bash" in done.stderr
