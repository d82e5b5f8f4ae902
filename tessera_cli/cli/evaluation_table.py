"""What `tessera evaluate` prints: what was shown, the results as a table, and how samples were split."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tessera_cli.cli.terminal import Terminal
from tessera_cli.errors import counted, printable
from tessera_cli.evaluation.report.results import CONSTANT, Results
from tessera_cli.evaluation.report.words import NOTHING, is_number, metric, unit_of, value, with_interval

if TYPE_CHECKING:
    from rich.table import Table

WIDE = 200
"""Columns where standard output is no terminal."""


def print_evaluation(report: Mapping[str, Any], terminal: Terminal) -> None:
    """Print a report, the object of report.json, to standard output."""
    found = Results(report)
    for line in report.get("verdicts") or ():
        terminal.result(str(line))
    for table in _tables(found):
        terminal.result("")
        for line in _drawn(table):
            terminal.result(line)
    terminal.result("")
    for line in _split(found):
        terminal.result(line)
    for line in found.impossible():
        terminal.result(f"not possible: {line}")


def _tables(found: Results) -> Iterator[Table]:
    """Yield the headline metric, a row per set of features and a column per budget; shares and numbers per class."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    shares = [at for at in found.budgets if at.endswith("%")]
    for budgets in (shares, [at for at in found.budgets if at not in shares]):
        if not budgets:
            continue
        label = f"{unit_of(found.metric)}, by {found.headline}, with 95 % intervals"
        table = Table(title=Text(printable(label)), title_justify="left", box=box.SIMPLE_HEAD)
        table.add_column("features", overflow="fold")
        for at in budgets:
            table.add_column(at, justify="right", overflow="fold")
        for name in found.features:
            _add(table, name, [_cell(found, name, found.adapter_of(name), at) for at in budgets])
            best = [_best_other(found, name, at) for at in budgets]
            if any(each != NOTHING for each in best):
                _add(table, "  best other adapter", best)
        _add(table, CONSTANT, [_cell(found, None, CONSTANT, at) for at in budgets])
        yield table


def _add(table: Table, name: str, cells: list[str]) -> None:
    from rich.text import Text

    table.add_row(*(Text(printable(each)) for each in (name, *cells)))


def _cell(found: Results, features: str | None, adapter: str, at: str) -> str:
    results = found.select(features, adapter, at=at)
    return with_interval(found.metric, results[0]) if results else NOTHING


def _best_other(found: Results, features: str, at: str) -> str:
    """Return the best of the other adapters, without an interval: it was chosen after the fact."""
    results = {
        each["adapter"]: each["metrics"][found.metric]
        for each in found.select(features, at=at)
        if each["adapter"] not in (CONSTANT, found.adapter_of(features))
        and is_number(each["metrics"].get(found.metric))
    }
    if not results:
        return NOTHING
    best = (max if metric(found.metric).rises else min)(results, key=results.__getitem__)
    return f"{best} {value(found.metric, results[best])}"


def _split(found: Results) -> Iterator[str]:
    split = found.report.get("split") or {}
    parts = [f"split: {split.get('kind', NOTHING)}"]
    if is_number(split.get("folds")) and split["folds"] > 1:
        parts.append(counted(split["folds"], "fold"))
    if is_number(split.get("size_m")):
        parts.append(f"blocks of {split['size_m']:,.0f} m")
    if is_number(found.report.get("samples")):
        parts.append(f"{found.report['samples']:,} samples, scored by {found.unit}")
    yield ", ".join(parts)
    if split.get("warning"):
        yield f"warning: {split['warning']}"
    at_random = split.get("random") or []
    for each in [at_random] if isinstance(at_random, Mapping) else at_random:
        name = each.get("metric") or found.metric
        numbers = f"{value(name, each.get('random'))} in place of {value(name, each.get('blocked'))}"
        yield f"split at random: {each.get('features', 'the same')} {numbers} ({unit_of(name)})"


def _drawn(table: Table) -> Iterator[str]:
    """Yield the lines of a table, as wide as the terminal allows."""
    from rich.console import Console

    memory = io.StringIO()
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDE
    Console(file=memory, color_system=None, emoji=False, width=width).print(table)
    yield from (line.rstrip() for line in memory.getvalue().rstrip().splitlines())
