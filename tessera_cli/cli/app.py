"""The `tessera` command: its verbs, exit codes and error messages."""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Any, NoReturn

import typer

from tessera_cli import __version__
from tessera_cli.cli import streams
from tessera_cli.cli.bench import bench
from tessera_cli.cli.change import change
from tessera_cli.cli.embed import embed
from tessera_cli.cli.evaluate import evaluate
from tessera_cli.cli.export import export
from tessera_cli.cli.fetch import fetch
from tessera_cli.cli.help import WHOLE, GroupedCommand, VerbGroup, show_help
from tessera_cli.cli.info import info
from tessera_cli.cli.map import map
from tessera_cli.cli.plan import plan
from tessera_cli.cli.pretrain import pretrain
from tessera_cli.cli.preview import preview
from tessera_cli.cli.sample import sample
from tessera_cli.cli.search import search
from tessera_cli.cli.signals import EXIT_CODES, Stopped, raise_on_signals
from tessera_cli.cli.simulate import simulate
from tessera_cli.cli.terminal import failure
from tessera_cli.cli.verify import verify
from tessera_cli.cli.weights import weights

COMPLETION = "Print it with _TESSERA_COMPLETE=source_bash tessera, or source_zsh, or source_fish."
UNEXPECTED, USAGE, INTERRUPTED = 1, 2, EXIT_CODES[signal.SIGINT]

app = typer.Typer(
    name="tessera",
    cls=VerbGroup,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": WHOLE},
)
for verb in (
    *(embed, fetch, plan, sample, preview, search, change, export),
    *(pretrain, evaluate, map, info, verify, simulate),
):
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
    settings, 69 source refused, 74 results could not be printed, 75 out of time, or source unavailable (run again),
    77 credentials, 130 interrupted, 143 terminated, 1 a bug.

    Example:

      tessera embed --aoi field.geojson --year 2023
    """
    if version:
        sys.stdout.write(f"tessera {__version__}\n")
        raise typer.Exit
    show_help(context)


# Typer carries its own click since 0.26; either way this is the base of all usage errors.
USAGE_ERRORS = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")


def main() -> NoReturn:
    # Not in `run`, which leaves the signals and streams of its process alone.
    raise_on_signals()
    output = streams.guard()
    code = run(sys.argv[1:])
    sys.stdout.flush()
    sys.exit(streams.LOST if output.lost and code == 0 else code)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    from tessera_cli import config
    from tessera_cli.errors import TesseraError, UsageError, printable

    first = os.environ.get("RANK", "0") in ("", "0")  # of the processes of torchrun, which speaks for all
    debug, as_json = "--debug" in arguments, "--json" in arguments and first

    def fail(text: str, code: int, error: BaseException) -> int:
        """Write an error, with --json also as an object unless a result holds it already; return its exit code."""
        if as_json and not getattr(error, "told", False):
            with suppress(OSError, ValueError, AttributeError):  # nobody reads it, or stdout is closed
                sys.stdout.write(json.dumps(failure(text, code, type(error).__name__)) + "\n")
                sys.stdout.flush()
        sys.stderr.write(f"tessera: error: {printable(text)}\n")
        return code

    try:
        debug = debug or config.debug()
        code = app(args=list(arguments), standalone_mode=False, prog_name="tessera")
        if code == INTERRUPTED:  # typer's answer to Ctrl-C
            raise KeyboardInterrupt
        if code == UNEXPECTED:  # typer's answer to a shell it does not know
            return fail(f"this shell is not known. {COMPLETION}", USAGE, UsageError())
        return code if isinstance(code, int) else 0
    except typer.Exit as error:
        return error.exit_code
    except TesseraError as error:
        if debug:
            sys.stderr.writelines(f"{printable(line)}\n" for line in traceback.format_exc().splitlines())
        return fail(str(error), error.exit_code, error)
    except (KeyboardInterrupt, typer.Abort):
        return fail(f"interrupted. {_kept(arguments)}", INTERRUPTED, KeyboardInterrupt())
    except Stopped as error:
        return fail(f"{error.text}. {_kept(arguments)}", error.exit_code, error)
    except Exception as error:
        if isinstance(error, USAGE_ERRORS):
            return fail(_usage_text(error), USAGE, UsageError())
        if debug:
            raise
        if "--install-completion" in arguments and isinstance(error, OSError):
            return fail(f"the completion cannot be installed: {error}. {COMPLETION}", USAGE, UsageError())
        if isinstance(error, UnicodeEncodeError) and error.reason == "surrogates not allowed":  # GDAL takes no others
            text = f"the name {error.object[:200]!r} is not UTF-8, or not taken for it here. "
            return fail(f"{text}Rename it, or set LC_ALL=C.UTF-8.", USAGE, UsageError())
        name = type(error).__name__
        return fail(f"unexpected {name}: {error}. Please report it with what --debug shows.", UNEXPECTED, error)


def _kept(arguments: Sequence[str]) -> str:
    """Say what a command that was stopped has left."""
    too = ", of the tile in hand too" if "embed" in arguments[:1] else ""
    return f"What is finished stays{too}; run the same command to go on."


def _usage_text(error: Any) -> str:
    verb = error.ctx.command_path if getattr(error, "ctx", None) else "tessera"
    told = " ".join(error.format_message().split())  # choices come in lines of their own
    return f"{told.rstrip('. ')}. See {verb} --help."
