"""The `convlite` command: its verbs, and how every way of ending is said.

0    done
1    the work itself failed
2    what was given can't be used
130  stopped with Ctrl-C
"""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from .. import __version__
from ..errors import ConvliteError, InputError
from .options import Stopped

INTERRUPTED = 130
# Of all that typer raises for a wrong command line it exports one; their common base is the next above it.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]

VERBS = {  # and the module that holds each
    "models": "look",
    "cost": "cost",
    "compare": "look",
    "train": "training",
    "evaluate": "training",
    "lighten": "work",
    "export": "ship",
    "bench": "ship",
    "predict": "use",
    "serve": "use",
    "demo": "work",
}


def _app(first: str) -> typer.Typer:
    """The command line, with the one verb that was asked for: the modules of others take their time to import."""
    app = typer.Typer(
        name="convlite",
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(convlite)
    for verb, module in VERBS.items():
        if first not in VERBS or verb == first:
            app.command()(getattr(importlib.import_module(f".{module}", __package__), verb))
    return app


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"convlite {__version__}")
        raise typer.Exit


def convlite(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Make convolutional networks light.

    A MODEL is a family's name (see convlite models), timm:NAME, path/file.py:factory or a saved folder. DATA is
    digits (built in), a folder that holds a folder of pictures for each class, or a zip or tar archive of one.

    To begin: convlite demo
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; without arguments, the process's own."""
    if arguments is None:
        gc.freeze()  # what is imported stays: no collection needs to look through it again
    try:
        given = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
        code = _app(given[0])(given, prog_name="convlite", standalone_mode=False, obj=given)
    except InputError as error:
        return _say(str(error), 2)
    except Stopped as error:
        return _say(f"Stopped before the end; {error}", INTERRUPTED)
    except ConvliteError as error:
        return _say(str(error), 1)
    except UsageError as error:
        return _say(_usage(error), 2)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    if code == INTERRUPTED:
        return _say("Stopped before the end; files that were being written are as they were.", INTERRUPTED)
    return code if isinstance(code, int) else 0


def _usage(error: Exception) -> str:
    """What is wrong with the command line, and where to read how it is meant."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context else "convlite"
    said = str(getattr(error, "format_message", error.__str__)()).replace("\n", " ").strip().rstrip(".")
    return f"{said}: see {command} --help."


def _say(sentence: str, code: int) -> int:
    print(f"convlite: {sentence}", file=sys.stderr)  # noqa: T201 - this is where the command line speaks
    return code
