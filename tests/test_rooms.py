"""A room imports only from rooms above it, so that each can be read without those below."""

import ast
from pathlib import Path

import pytest

import convlite

SOURCE = Path(convlite.__file__).parent
BASE = {"errors", "files", "cost", "nn", "kinds", "models", "analyse"}
ABOVE = {
    "errors": set(),
    "_importing": set(),
    "unsaid": set(),
    "files": {"errors"},
    "preprocess": {"errors"},
    "cost": set(),
    "nn": {"errors"},
    "kinds": {"errors", "cost", "nn"},
    "models": {"errors", "files", "preprocess", "cost", "nn", "kinds"},
    "analyse": {"errors", "files", "cost", "nn", "kinds"},
    "kernels": {"errors", "files", "cost", "nn", "kinds"},
    "data": {"errors", "files", "preprocess", "models"},
    "train": {"errors", "files", "models", "kernels", "data"},
    "runtime": {*BASE, "unsaid", "preprocess", "kernels", "data", "train"},
    "lighten": {*BASE, "unsaid", "kernels", "data", "train", "runtime"},
    "report": {"errors", "cost"},
    "demo": {*BASE, "data", "train", "lighten", "runtime", "report"},
    "cli": {"*"},
    "__main__": {"cli"},
    "__init__": {"*"},
}
"""What each room may import; `report` may also name the types of the values it shows."""

FILES = sorted(SOURCE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def rooms_imported(path: Path) -> set[str]:
    """The rooms of convlite that a file imports when it runs; what only a type checker reads is left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    depth = len(path.relative_to(SOURCE).parts)  # how many dots lead to the package itself
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            found |= {name[1] if name[1:] else "__init__" for name in names if name[0] == "convlite"}
        elif isinstance(node, ast.ImportFrom):
            parts = (node.module or "").split(".") if node.module else []
            if node.level == depth or (node.level == 0 and parts[:1] == ["convlite"]):
                inside = parts[0 if node.level else 1 :]
                found |= {inside[0]} if inside else {alias.name for alias in node.names}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_a_room_imports_only_rooms_above_it(path):
    here = room(path)
    assert here in ABOVE, f"{here} has no place in the order of rooms"
    below = rooms_imported(path) - ABOVE[here] - {here}
    assert not below or "*" in ABOVE[here], f"{here} imports {', '.join(sorted(below))}"


def test_the_order_has_no_circle():
    seen: set[str] = set()
    for name, above in ABOVE.items():
        assert above <= seen | {"*"} or "cli" in above
        seen.add(name)


def test_this_test_can_see_an_import(tmp_path):
    for line, expected in [
        ("from .. import nn", {"nn"}),
        ("from ..cost import Cost", {"cost"}),
        ("from .conv import Conv", set()),
        ("import convlite.train.loop", {"train"}),
        ("def f():\n    from convlite import data", {"data"}),
        ("if TYPE_CHECKING:\n    from ..cli import app", set()),
    ]:
        path = SOURCE / "kinds" / "imagined.py"

        class Imagined(type(path)):
            def read_text(self, encoding=None, line=line):
                return line

        assert rooms_imported(Imagined(path)) == expected
