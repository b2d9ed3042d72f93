"""The arrows between the rooms point one way: galaxies <- fid <- gan <- classify <- app."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {
    "galaxies": {"galaxies"},
    "fid": {"fid", "galaxies"},
    "gan": {"gan", "fid", "galaxies"},
    "classify": {"classify", "gan", "fid", "galaxies"},
    "app": {"app", "classify", "galaxies"},
}


def rooms_imported_by(code: str) -> set[str]:
    """Rooms that a module imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "rooms import by absolute names"
            found.add((node.module or "").split(".")[0])
    return found & MAY_IMPORT.keys()


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_what_its_arrows_allow(room: str) -> None:
    modules = sorted((ROOT / room).rglob("*.py"))
    assert modules, f"the room {room} is empty"
    wrong = {
        str(module.relative_to(ROOT)): sorted(forbidden)
        for module in modules
        if (forbidden := rooms_imported_by(module.read_text()) - MAY_IMPORT[room])
    }
    assert not wrong


def test_the_check_sees_a_forbidden_import_inside_a_function() -> None:
    code = "def f():\n    from classify.training import train_classifier\n"
    assert rooms_imported_by(code) == {"classify"}


def test_no_room_of_helpers() -> None:
    assert not [path for path in ROOT.rglob("util*.py") if ".venv" not in path.parts]
