"""The package's prose: docstrings are noun phrases or sentences instead of riddles, in the words of the field."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "vlaser_gym"
FILES = sorted(PACKAGE.rglob("*.py"))
#: First words of docstrings that have to be decoded ("Whether the policy of this iteration is.").
RIDDLES = {"Whether", "What", "Who", "Whose", "How", "Where", "Which", "When", "Why", "That", "Those", "Of", "From"}
#: Private words, and the field's. Names that users write (``lanes=``, ``pictures``) stay; they stand in code spans.
PRIVATE = {
    "lane": "environment",
    "lanes": "environments",
    "picture": "image",
    "pictures": "images",
    "judge": "evaluate",
    "riddle": "noun phrase",
}
#: Names of functions, classes and attributes that the field calls otherwise.
PRIVATE_NAMES = {"judge", "pull", "leads", "Workers", "agree", "Curves", "note"}
#: Questions that are asked of models: their words are data, by which stored answers are told apart.
QUESTIONS = {PACKAGE / "reasoning" / f"{name}.py" for name in ("embodied", "planning", "spatial")}

# Code within prose: spans, fields of f-strings, arguments of a call, doctests, and the names that Args lists.
_CODE_OF_A_LINE = re.compile(r"^\s*(?:>>>|\.\.\.).*$|^\s*\w+(?:, \w+)*: ", re.MULTILINE)
_SPANS = re.compile(r"``.*?``|`[^`\n]*`|\{[^{}]*\}|\w+\([^()]*\)", re.DOTALL)
_WORDS = re.compile(rf"(?<![\w./=-])(?:{'|'.join(PRIVATE)})(?![\w=/-])", re.IGNORECASE)


def definitions(file: Path) -> list[ast.AST]:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return [node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, kinds)]


def prose(file: Path) -> Iterator[tuple[int, str]]:
    """Line and text of each comment, docstring and message, without the code in it."""
    for token in tokenize.generate_tokens(io.StringIO(file.read_text(encoding="utf-8")).readline):
        is_text = token.type == tokenize.STRING and " " in token.string
        if token.type == tokenize.COMMENT or (is_text and file not in QUESTIONS):
            yield token.start[0], _SPANS.sub("", _CODE_OF_A_LINE.sub("", token.string))


def private_words(text: str) -> list[str]:
    return [match.group().lower() for match in _WORDS.finditer(text)]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_docstrings_are_no_riddles(file: Path) -> None:
    for node in definitions(file):
        place = f"{file.name}:{getattr(node, 'lineno', 1)}"
        text = ast.get_docstring(node)
        assert not text or text.split()[0] not in RIDDLES, f"{place}: {text.splitlines()[0]}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_prose_has_the_words_of_the_field(file: Path) -> None:
    for line, text in prose(file):
        found = private_words(text)
        assert not found, f"{file.name}:{line}: {found[0]}, in the field's words {PRIVATE[found[0]]}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_definitions_have_the_names_of_the_field(file: Path) -> None:
    names = {getattr(node, "name", "").strip("_") for node in definitions(file)}
    assert not names & PRIVATE_NAMES


def test_the_check_tells_prose_from_code() -> None:
    assert private_words("the picture of a lane's end") == ["picture", "lane"]
    assert private_words("datasets/pictures, lanes=8 and render_pictures") == []
