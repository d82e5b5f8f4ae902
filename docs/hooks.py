"""What mkdocs adds to the pages of docs/: files of the repository, help texts, and the list of public names.

Links in a file lead to other files of the repository, so that they work wherever its text is read; on the site they
lead to the pages made from those, or to copies of the files.
"""

from __future__ import annotations

import ast
import contextlib
import io
import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from mkdocs.structure.files import File

from tessera_cli.cli.app import app, run

os.environ["COLUMNS"] = "80"  # help texts are as wide as the terminal, or the page would depend on it
ROOT = Path(__file__).parents[1]
PAGES = {
    "ARCHITECTURE.md": "architecture.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "reporting.md",
    "benchmarks/README.md": "benchmarks.md",
}
"""File of the repository -> page of the site."""
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)")
"""The address in `[text](address#anchor)`, of links that stay in the repository."""


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that do not lie in docs/, and as they are the files of examples/ and all that a page links to."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    examples = {path for path in (ROOT / "examples").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    for path in sorted(examples | linked()):
        files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    files.append(File.generated(config, "cli.md", content=command_reference()))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Lead links to where their targets lie on the site, and list the public names of the package on their page."""
    if page.file.src_uri == "api.md":
        for kind, names in public_names().items():
            markdown = markdown.replace(f"{{{kind}}}", "\n\n".join(f"::: {name}" for name in names))
    source = next((name for name, made in PAGES.items() if made == page.file.src_uri), f"docs/{page.file.src_uri}")
    return relinked(markdown, posixpath.dirname(source))


def linked() -> set[Path]:
    """Return the files of the repository that pages link to and that are no pages themselves."""
    pages = [*(ROOT / "docs").glob("*.md"), *(ROOT / source for source in PAGES)]
    targets = {(page.parent / link).resolve() for page in pages for link in LINK.findall(page.read_text())}
    made = {ROOT / "README.md", *(ROOT / source for source in PAGES)}
    return {path for path in targets - made if path.is_file() and ROOT / "docs" not in path.parents}


def relinked(markdown: str, folder: str) -> str:
    """Return the text of a file in `folder` of the repository with its links as the site's pages need them."""

    def address(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, link[1]))
        if target == "README.md":  # the site has a home of its own
            return "index.md"
        return PAGES.get(target, target.removeprefix("docs/"))

    return LINK.sub(address, markdown)


def public_names() -> dict[str, list[str]]:
    """Return what `tessera_cli` exports, as dotted names, by kind: functions, nouns (classes), errors."""
    names: dict[str, list[str]] = {"functions": [], "nouns": [], "errors": []}
    for node in ast.parse((ROOT / "tessera_cli" / "__init__.pyi").read_text()).body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                kind = "errors" if node.module == "errors" else "functions" if alias.name.islower() else "nouns"
                names[kind].append(f"tessera_cli.{node.module}.{alias.name}")
    return names


def command_reference() -> str:
    """Return the page of all help texts, as the terminal shows them."""
    page = ["# Command line", "What `--help` says, verb by verb.", "## tessera", block("--help")]
    for names in commands(typer.main.get_command(app)):
        page += [f"{'#' * (len(names) + 1)} tessera {' '.join(names)}", block(*names, "--help")]
    return "\n\n".join(page) + "\n"


def commands(group: Any, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the names of each command and of those under it, in the order of the help text."""
    for name, command in group.commands.items():
        yield (*before, name)
        if hasattr(command, "commands"):
            yield from commands(command, (*before, name))


def block(*arguments: str) -> str:
    """Return what `tessera` prints, as a block of a page."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        code = run(arguments)
    if code:
        raise RuntimeError(f"tessera {' '.join(arguments)} ended with exit code {code}")
    return f"```text\n{printed.getvalue().rstrip()}\n```"
