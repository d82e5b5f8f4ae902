"""Make commands: the parameters of a Python function as options, and the switches that every verb has."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from inspect import Parameter
from typing import Annotated, Any, get_origin, get_type_hints

from tessera_cli import environment
from tessera_cli.cli.options import OPTIONS, SWITCHES, Option
from tessera_cli.cli.terminal import Terminal

logger = logging.getLogger(__name__)

NOT_OPTIONS = ("progress", "report", "terminal")
"""Parameters that commands fill in themselves."""


def verb(function: Callable[..., Any] | None = None, **own: Option | Any) -> Callable[[Any], Callable[..., None]]:
    """Decorate `body(terminal, ...)` so that Typer sees the parameters of `function`, by default those of the body.

    A parameter's option is the one in `own`, else its own annotation, else the one that `OPTIONS` has of its name; its
    default is the function's. `own` may also hold arguments, by position: annotations that Typer understands.
    """

    def decorate(body: Callable[..., None]) -> Callable[..., None]:
        parameters = inspect.signature(function or body).parameters.values()
        defaults = {each.name: each.default for each in parameters if each.name not in NOT_OPTIONS}
        hints = {} if function else get_type_hints(body, include_extras=True)

        def command(*, as_json: bool, verbose: int, quiet: int, debug: bool, **given: Any) -> None:
            terminal = Terminal(verbose - quiet, as_json)
            for line in environment.SETTLED:
                logger.debug("%s", line)
            body(terminal, **given)

        signature = []
        for name in dict.fromkeys([*own, *defaults, *SWITCHES]):
            known = own.get(name) or (hints[name] if get_origin(hints.get(name)) is Annotated else OPTIONS[name])
            off = False if isinstance(known, Option) and known.type is bool else None
            default = (SWITCHES | defaults).get(name, off)
            annotation = known.named(name) if isinstance(known, Option) else known
            signature.append(Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation))
        command.__signature__ = inspect.Signature(signature)  # type: ignore[attr-defined]
        command.__name__, command.__doc__, command.__annotations__ = body.__name__, body.__doc__, {}
        return command

    return decorate
