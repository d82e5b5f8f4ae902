"""The `tessera` command: its verbs, exit codes and error messages."""

from __future__ import annotations

import signal
import sys
import traceback
from collections import deque
from collections.abc import Sequence
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer

from tessera_cli import __version__
from tessera_cli.cli import streams
from tessera_cli.cli.bench import bench
from tessera_cli.cli.embed import embed
from tessera_cli.cli.fetch import fetch
from tessera_cli.cli.help import GroupedCommand, show_help
from tessera_cli.cli.info import info
from tessera_cli.cli.plan import plan
from tessera_cli.cli.pretrain import pretrain
from tessera_cli.cli.simulate import simulate
from tessera_cli.cli.verify import verify
from tessera_cli.cli.weights import weights

UNEXPECTED, USAGE, INTERRUPTED, TERMINATED = 1, 2, 130, 143
ALIASES = {"train": "pretrain"}

app = typer.Typer(
    name="tessera",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for verb in (embed, fetch, plan, pretrain, info, verify, simulate):
    app.command(cls=GroupedCommand)(verb)
app.add_typer(weights)
app.add_typer(bench)


@app.callback(invoke_without_command=True)
def tessera(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """From a polygon and a year to TESSERA embeddings of Sentinel-1 and Sentinel-2.

    Results go to standard output, everything else to standard error.

    Exit codes: 0 done, 2 usage, 3 nothing to embed, 4 some tiles failed (run again), 5 the folder belongs to other
    settings, 69/75 source refused or unavailable, 74 results could not be printed, 77 credentials.

    Example:

      tessera embed --aoi field.geojson --year 2023
    """
    if version:
        sys.stdout.write(f"tessera {__version__}\n")
        raise typer.Exit
    show_help(context)


# Typer carries its own click since 0.26; either way this is the base of all usage errors.
USAGE_ERRORS = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")


class Terminated(BaseException):
    """Raised on SIGTERM: stop like Ctrl-C, with another exit code."""


def main() -> NoReturn:
    # Not in `run`, which leaves the signals and streams of its process alone.
    signal.signal(signal.SIGTERM, _terminate)
    output = streams.guard()
    code = run(sys.argv[1:])
    sys.stdout.flush()
    sys.exit(streams.LOST if output.lost and code == 0 else code)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    from tessera_cli import config
    from tessera_cli.errors import TesseraError

    debug = "--debug" in arguments
    try:
        debug = debug or config.debug()
        code = app(args=spread(arguments), standalone_mode=False, prog_name="tessera")
        if code == INTERRUPTED:  # typer's answer to Ctrl-C
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except typer.Exit as error:
        return error.exit_code
    except TesseraError as error:
        if debug:
            traceback.print_exc()
        return _fail(str(error), error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        return _fail("interrupted. What is finished stays; run the same command to go on.", INTERRUPTED)
    except Terminated:
        return _fail("terminated. What is finished stays; run the same command to go on.", TERMINATED)
    except Exception as error:
        if isinstance(error, USAGE_ERRORS):
            return _fail(_usage_text(error), USAGE)
        if debug:
            raise
        name = type(error).__name__
        return _fail(f"unexpected {name}: {error}. Please report it with what --debug shows.", UNEXPECTED)


def _usage_text(error: Any) -> str:
    verb = error.ctx.command_path if getattr(error, "ctx", None) else "tessera"
    return f"{error.format_message().rstrip('. ')}. See {verb} --help."


def spread(arguments: Sequence[str]) -> list[str]:
    """Return the arguments in the form that options take.

    `--bbox=-3,53,-2,54` and `--bbox -3,53,-2,54` -> `--bbox -3 53 -2 54`; `--dpixels a b c` -> `--dpixels a
    --dpixels b --dpixels c`, since a shell makes many words of `*.zarr`; `train` -> `pretrain`.
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
        elif argument == "--dpixels" and rest:
            spread += [argument, rest.popleft()]
            while rest and not rest[0].startswith("-"):
                spread += [argument, rest.popleft()]
        else:
            spread.append(argument)
    return spread


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


def _fail(text: str, code: int) -> int:
    sys.stderr.write(f"tessera: error: {text}\n")
    return code
