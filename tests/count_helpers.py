"""Count private functions with one call site, which a reader has to follow without meeting them again.

``python tests/count_helpers.py [FOLDER]``: how many functions a package has, which share of them is private with
exactly one reference, and the longest functions. A reference is any use of the name in the package besides its
definition; a method that overrides or implements one of the same name elsewhere counts as referenced by it.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "vlaser_gym"


@dataclass(frozen=True)
class Function:
    """A function or method of the package.

    Attributes:
        place: file and line.
        name: without its class.
        length: lines, its docstring and decorators not counted.
        references: uses of the name in the package, its definitions not counted.
        definitions: functions of this name in the package.
    """

    place: str
    name: str
    length: int
    references: int
    definitions: int

    @property
    def is_single_helper(self) -> bool:
        """A private function that is used once."""
        private = self.name.startswith("_") and not self.name.startswith("__")
        return private and self.definitions == 1 and self.references == 1


def functions(package: Path) -> list[Function]:
    """All functions and methods of a package."""
    trees = {file: ast.parse(file.read_text(encoding="utf-8")) for file in sorted(package.rglob("*.py"))}
    references: Counter[str] = Counter()
    found: list[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]] = []
    for file, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Name):
                references[node.id] += 1
            elif isinstance(node, ast.Attribute):
                references[node.attr] += 1
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                found.append((f"{file.relative_to(package)}:{node.lineno}", node))
    definitions = Counter(node.name for _, node in found)
    return [
        Function(place, node.name, _length(node), references[node.name], definitions[node.name])
        for place, node in found
    ]


def _length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    body = node.body[1:] if ast.get_docstring(node) is not None and len(node.body) > 1 else node.body
    last, first = body[-1].end_lineno or node.lineno, body[0].lineno
    return last - first + 1


def main(package: Path) -> None:
    """Print the figures."""
    found = functions(package)
    single = [function for function in found if function.is_single_helper]
    longest = sorted(found, key=lambda function: -function.length)[:5]
    share = 100 * len(single) / len(found)
    lines = [f"{len(found)} functions, {len(single)} private ones with one reference: {share:.1f} %"]
    lines += [f"{function.length} lines: {function.name} ({function.place})" for function in longest]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else PACKAGE)
