"""What convlite raises.

    ConvliteError
    ├── InputError (also a ValueError)   the caller can put it right; the command line exits with 2
    └── RunError (also a RuntimeError)   the work itself failed; the command line exits with 1

Every message is one sentence that says what was given, what was expected and what to do.
"""

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType


class ConvliteError(Exception):
    """The root of everything convlite raises on purpose."""


class InputError(ConvliteError, ValueError):
    """What was given can't be used: a wrong name, shape, file or number."""


class RunError(ConvliteError, RuntimeError):
    """The input was sound, and the work failed all the same."""


LISTED = 16  # names that one sentence can carry


def nearest(name: str, names: Iterable[str], count: int = 3) -> str:
    """The names most like `name`, for the end of a message; where none is alike, what names there are."""
    known = sorted(names)
    found = difflib.get_close_matches(name, known, n=count, cutoff=0.5)
    if found:
        return f"did you mean {' or '.join(found)}?"
    more = f" and {len(known) - LISTED} more" if len(known) > LISTED else ""
    return f"known are {', '.join(known[:LISTED])}{more}."


def need(module: str, extra: str) -> ModuleType:
    """Import an optional dependency, or say in one sentence how to install it.

    Raises:
        InputError: the module is not installed, or it is and does not load.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise InputError(
            f"This needs the package {error.name!r}, which is not installed: run pip install 'convlite[{extra}]'."
        ) from None
    except Exception as error:  # a package that is broken may raise anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(
            f"This needs {module}, which is installed and does not load ({reason}): uninstall its package and run "
            f"pip install 'convlite[{extra}]'."
        ) from error
