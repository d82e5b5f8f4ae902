"""Help in plain text with the flags in groups; Rich's panels would triple the time to show it."""

from __future__ import annotations

import re
import sys
from collections import deque
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

ORDER = ("Arguments", "Area", "Time", "Source", "Model", "Labels", "Protocol", "Output", "Run", "Options")
ALIASES = {"train": "pretrain"}
DOCS = "Documentation: docs/index.md of the source; `make docs` builds the site. TESSERA: https://github.com/ucam-eo/tessera"
EVERY = 10
"""Seconds between two looks of `info --watch`, where none are given."""
WHOLE = 1000
"""Columns of help and letters of a summary, which nothing reaches: the terminal's width decides, and nothing is cut."""


class _Help:
    """Summaries that are never cut, examples that are never wrapped, and the place of the documentation at the end."""

    help: str | None

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        whole = self.help or ""
        self.help = re.sub(r"(?m)^ +tessera ", "\b\n\\g<0>", whole)  # the sign of click: these lines stay as they are
        super().format_help_text(ctx, formatter)  # type: ignore[misc]
        self.help = whole

    def get_short_help_str(self, limit: int = WHOLE) -> str:
        return str(super().get_short_help_str(WHOLE))  # type: ignore[misc] # of click's command

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        formatter.write_paragraph()
        formatter.write_text(DOCS)


class GroupedCommand(_Help, TyperCommand):
    """A verb whose options are listed in groups, in one order on every verb."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        groups: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                panel = getattr(parameter, "rich_help_panel", None)
                title = panel or ("Arguments" if parameter.param_type_name == "argument" else "Options")
                name = record[0].partition(" <")[0] if title == "Arguments" else record[0]  # without Python types
                groups.setdefault(title, []).append((name, record[1]))
        for title, records in sorted(groups.items(), key=lambda group: ORDER.index(group[0])):
            with formatter.section(title):
                formatter.write_dl(records)


class VerbGroup(_Help, TyperGroup):
    """A command with verbs. The arguments of the outermost one are spread, when it runs and when a shell completes."""

    def make_context(self, info_name: Any, args: list[str], parent: Any = None, **extra: Any) -> Any:
        return super().make_context(info_name, args if parent else spread(args), parent=parent, **extra)


def spread(arguments: Sequence[str]) -> list[str]:
    """Return the arguments in the form that options take.

    `--bbox=-3,53,-2,54` and `--bbox -3,53,-2,54` -> `--bbox -3 53 -2 54`; `--dpixels a b c` -> `--dpixels a
    --dpixels b --dpixels c`, since a shell makes many words of `*.zarr`; `--watch` without a number -> `--watch 10`;
    `train` -> `pretrain`.
    """
    spread: list[str] = []
    rest = deque(arguments)
    if rest and rest[0] in ALIASES:
        rest[0] = ALIASES[rest[0]]
    while rest:
        argument = rest.popleft()
        if argument.startswith("--bbox="):
            spread += ["--bbox", *argument.removeprefix("--bbox=").split(",")]
        elif argument == "--bbox":
            spread += ["--bbox", *(rest.popleft() if rest else "").split(",")]
        elif argument == "--watch" and not (rest and _is_number(rest[0])):
            spread += [argument, str(EVERY)]
        elif argument == "--dpixels" and rest:
            spread += [argument, rest.popleft()]
            while rest and not rest[0].startswith("-"):
                spread += [argument, rest.popleft()]
        else:
            spread.append(argument)
    return spread


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?\d+(\.\d*)?", text) is not None


def show_help(context: typer.Context) -> None:
    """Show the help of a command with verbs, and exit with 2, if none of them was named."""
    if context.invoked_subcommand is None:
        sys.stderr.write(context.get_help() + "\n")
        raise typer.Exit(2)
