"""Who imports whom: the house has floors, and no arrow runs upwards."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "vlaser_gym"
#: Rooms from the ground up; those of one floor do not import each other.
FLOORS = (
    ("errors",),
    ("registry", "storage"),
    ("conventions", "settings", "sweeps"),
    ("cli", "completion"),
    ("envs",),
    ("wrappers",),
    ("agents",),
    ("evaluation",),
    ("training", "reasoning"),
    ("commands",),
    ("face",),
)
#: The stubs that run the commands stand above everything.
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def modules() -> dict[str, Path]:
    return {
        ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): file
        for file in PACKAGE.rglob("*.py")
    }


def imports(file: Path, *, late: bool = True) -> set[str]:
    """Modules of the package that a file imports; ``late``: also inside functions."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    checked = [n for n in ast.walk(tree) if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.dump(n.test)]
    ignored = {id(inner) for node in checked for inner in ast.walk(node)}
    nodes = ast.walk(tree) if late else iter(tree.body)
    found: set[str] = set()
    for node in nodes:
        if id(node) in ignored:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("vlaser_gym"):
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("vlaser_gym")}
    return found


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def floor(module: str) -> int:
    return FLOOR.get(room(module), len(FLOORS))


def test_no_arrow_runs_upwards():
    upwards = []
    for module, file in modules().items():
        if not room(module):
            continue  # the package's own face
        for other in imports(file):
            if (
                room(other)
                and not room(other).startswith("__")
                and room(other) != room(module)
                and floor(other) >= floor(module)
            ):
                upwards.append(f"{module} imports {other}")
    assert not upwards, "\n".join(sorted(upwards))


def test_modules_do_not_import_each_other_in_circles():
    """At import time; what is imported inside a function comes later."""
    known = modules()
    graph = {module: imports(file, late=False) & known.keys() - {module} for module, file in known.items()}
    done: set[str] = set()
    circles: list[str] = []

    def walk(module: str, path: list[str]) -> None:
        if module in path:
            circles.append(" -> ".join([*path[path.index(module) :], module]))
        elif module not in done:
            for other in sorted(graph[module]):
                # A package's __init__ is run on the way to its modules: it may import them.
                if not module.startswith(f"{other}."):
                    walk(other, [*path, module])
            done.add(module)

    for module in sorted(graph):
        walk(module, [])
    assert not circles, "\n".join(circles)
