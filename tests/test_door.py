"""The public door: what it holds, and that nothing private leaks through it."""

import ast
import types
from pathlib import Path

import pytest

import convlite

PROMISED = {
    "Budget", "ConvliteError", "Cost", "InputError", "Plan", "RunError", "analyse", "apply", "create",
    "kinds", "lighten", "load", "nn", "save",
}  # fmt: skip
"""What users type; these names stay."""


def test_all_is_sorted_and_everything_in_it_exists():
    assert convlite.__all__ == sorted(convlite.__all__)
    assert all(hasattr(convlite, name) for name in convlite.__all__)


def test_the_promised_names_stand():
    assert PROMISED - set(convlite.__all__) == set()


def test_the_rooms_that_users_enter_are_modules():
    assert all(isinstance(getattr(convlite, room), types.ModuleType) for room in ("kinds", "nn"))
    assert all(callable(getattr(convlite, verb)) for verb in ("analyse", "apply", "create", "lighten"))


@pytest.mark.parametrize("module", [convlite, convlite.kinds, convlite.nn], ids=lambda m: m.__name__)
def test_nothing_private_leaks(module):
    assert len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        assert not name.startswith("_")
        home = getattr(getattr(module, name), "__module__", None) or "convlite"
        assert home.split(".")[0] in ("convlite", "typing", "types"), f"{name} is {home}'s, not ours"


@pytest.mark.parametrize("module", [convlite, convlite.kinds, convlite.nn], ids=lambda m: m.__name__)
def test_what_a_front_file_imports_it_shows(module):
    """In an __init__ each imported name is meant for the user, so it stands in __all__."""
    path = Path(module.__file__)
    if path.name != "__init__.py":
        return
    imports = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ImportFrom)]
    names = {alias.asname or alias.name for node in imports for alias in node.names}
    assert {name for name in names if not name.startswith("_")} <= set(module.__all__)


def test_every_public_thing_says_what_it_is():
    for name in convlite.__all__:
        assert (getattr(convlite, name).__doc__ or "").strip(), f"{name} has no docstring"
    for name in convlite.kinds.__all__:
        assert name == "KINDS" or (getattr(convlite.kinds, name).__doc__ or "").strip(), name
