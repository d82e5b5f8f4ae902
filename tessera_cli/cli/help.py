"""Help in plain text with the flags in groups; Rich's panels would triple the time to show it."""

from __future__ import annotations

import sys
from typing import Any

import typer
from typer.core import TyperCommand

ORDER = ("Arguments", "Area", "Time", "Source", "Model", "Output", "Run", "Options")


class GroupedCommand(TyperCommand):
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


def show_help(context: typer.Context) -> None:
    """Show the help of a command with verbs, and exit with 2, if none of them was named."""
    if context.invoked_subcommand is None:
        sys.stderr.write(context.get_help() + "\n")
        raise typer.Exit(2)
