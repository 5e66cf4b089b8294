"""One room gives files their names: nothing is written beside it, whole or in part."""

from __future__ import annotations

import ast
from pathlib import Path

from vlaser_gym.storage import files

PACKAGE = Path(files.__file__).parent.parent
#: A download that was cut goes on where it stopped: what is there of it has to stay after an error.
RESUMABLE = PACKAGE / "envs/assets/transfer.py"
#: Hard links to files that are whole already.
LINKS = PACKAGE / "training/checkpoints.py"
#: The generation before this one: a whole file gets a second name.
GENERATIONS = PACKAGE / "training/trainer_state.py"


def renames(node: ast.AST) -> bool:
    """``os.replace``, ``os.rename``, ``path.replace(target)``, ``path.rename(target)``; not what strings do."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return False
    by_os = isinstance(node.func.value, ast.Name) and node.func.value.id == "os"
    return node.func.attr in ("replace", "rename") and (by_os or (len(node.args) == 1 and not node.keywords))


def test_no_other_module_gives_a_file_its_name() -> None:
    found = {
        file
        for file in PACKAGE.rglob("*.py")
        if any(renames(node) for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    }
    assert {file for file in found if file.parent.name != "storage"} == {RESUMABLE, LINKS, GENERATIONS}
