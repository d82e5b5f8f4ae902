"""`tessera weights`: which models are released, and their weights on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import typer

from tessera_cli.cli.help import GroupedCommand, VerbGroup, show_help
from tessera_cli.cli.options import completion, model_names
from tessera_cli.cli.terminal import Terminal
from tessera_cli.cli.verb import verb

weights = typer.Typer(name="weights", cls=VerbGroup, rich_markup_mode=None)


@weights.callback(invoke_without_command=True)
def group(context: typer.Context) -> None:
    """List the released models, or fetch the weights of one.

    They lie in the cache of Hugging Face; HF_HOME, HF_HUB_OFFLINE, HF_ENDPOINT and HF_TOKEN are heeded.

    Examples:

      tessera weights list

      tessera weights pull v2-medium

      tessera info $(tessera weights pull demo)
    """
    show_help(context)


@weights.command("list", cls=GroupedCommand)
@verb()
def list_models(terminal: Terminal) -> None:
    """List the released models and where their weights lie.

    Name, family, size and place of each. Nothing is downloaded or checked.

    Examples:

      tessera weights list

      tessera weights list --json | jq -r '.models[] | select(.cached) | .path'

      HF_HOME=/data/hf tessera weights list
    """
    from tessera_cli.models.weights import released

    models = released()
    terminal.tell({"models": models}, table(models))


@weights.command(cls=GroupedCommand)
@verb()
def pull(
    terminal: Terminal,
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="A released model, such as v2-medium.", autocompletion=completion(model_names)
        ),
    ],
) -> None:
    """Fetch and check the weights of a model; print their path.

    An interrupted download is resumed by the same command. What is in the cache is checked again, without network.

    Examples:

      tessera weights pull v2-medium

      HF_HOME=/data/hf tessera weights pull v1.1-mpc

      tessera weights pull v2-large --json | jq -r .path
    """
    from tessera_cli.models.weights import pull as fetch

    found = fetch(name)
    terminal.tell(found, [found["path"]])


def table(models: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield one aligned line per model."""
    rows = [("name", "family", "size", "weights")]
    for model in models:
        size = "-" if model["bytes"] is None else f"{model['bytes'] / 1e6:,.1f} MB"
        rows.append((model["name"], model["family"], size, _where(model)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, family, size, where in rows:
        yield f"{name:{widths[0]}s}  {family:{widths[1]}s}  {size:>{widths[2]}s}  {where}"


def _where(model: Mapping[str, Any]) -> str:
    if model["path"] is None:
        return "not here" if model["url"] else "absent from this installation"
    return f"comes with the package: {model['path']}" if model["packaged"] else str(model["path"])
