"""The package's prose: docstrings are noun phrases or sentences, not riddles that begin with a question word."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "vlaser_gym"
#: First words of docstrings that have to be decoded ("Whether the policy of this iteration is.").
RIDDLES = {"Whether", "What", "Who", "Whose", "How", "Where", "Which", "When", "Why", "That"}


def definitions(file: Path) -> list[ast.AST]:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return [node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, kinds)]


@pytest.mark.parametrize("file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_docstrings_are_no_riddles(file: Path) -> None:
    for node in definitions(file):
        place = f"{file.name}:{getattr(node, 'lineno', 1)}"
        text = ast.get_docstring(node)
        assert not text or text.split()[0] not in RIDDLES, f"{place}: {text.splitlines()[0]}"
