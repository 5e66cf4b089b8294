"""How the package hangs together: what is shipped, who may import whom."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from setuptools import find_namespace_packages

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "vlaser_gym"
LINKS = ("envs", "wrappers", "agents", "configs")


def imports(path: Path) -> Iterator[str]:
    """Absolute names of all modules that a file imports, inside functions too; strings given to import_module."""
    package = list(path.relative_to(ROOT).with_suffix("").parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == "import_module":
            yield from (str(a.value) for a in node.args if isinstance(a, ast.Constant))


def offences(folder: str, *forbidden: str) -> list[str]:
    """``file: module`` for every import below ``folder`` of a forbidden module or something in it."""
    files = sorted((PACKAGE / folder).rglob("*.py"))
    assert files
    return [
        f"{path.relative_to(PACKAGE)}: {name}"
        for path in files
        for name in imports(path)
        if any(name == module or name.startswith(f"{module}.") for module in forbidden)
    ]


def test_the_import_check_sees_all_kinds_of_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    (tmp_path / "a" / "b").mkdir(parents=True)
    file = tmp_path / "a" / "b" / "c.py"
    file.write_text("import x.y\nfrom ..d import e\ndef f():\n    from . import g\n    import_module('h.i')\n")
    assert set(imports(file)) == {"x.y", "a.d", "a.d.e", "a.b", "a.b.g", "h.i"}


def test_tasks_and_robots_know_no_engine() -> None:
    assert offences("envs/tasks", "mujoco", "mani_skill", "sapien", "vlaser_gym.envs.engines") == []
    assert offences("envs/robots", "mujoco", "mani_skill", "sapien", "vlaser_gym.envs.engines") == []


def test_conventions_stand_below_everything() -> None:
    rooms = [f"vlaser_gym.{name}" for name in ("envs", "agents", "wrappers", "evaluation", "cli")]
    assert offences("conventions", *rooms, "torch", "gymnasium", "mujoco") == []


def test_environments_know_no_agent() -> None:
    assert offences("envs", "vlaser_gym.agents", "vlaser_gym.evaluation", "vlaser_gym.wrappers", "torch") == []


def test_evaluation_does_not_ask_which_engine_it_runs_on() -> None:
    engines = [f"vlaser_gym.envs.engines.{path.name}" for path in (PACKAGE / "envs/engines").iterdir() if path.is_dir()]
    assert "vlaser_gym.envs.engines.mujoco" in engines
    assert offences("evaluation", "mujoco", "mani_skill", "sapien", *engines) == []


def test_wrappers_know_no_agent_and_no_engine() -> None:
    assert offences("wrappers", "vlaser_gym.agents", "vlaser_gym.evaluation", "vlaser_gym.envs.engines") == []


def test_the_wheel_has_one_top_level_name() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = find_namespace_packages(str(ROOT), include=settings["packages"]["find"]["include"])
    assert {name.split(".")[0] for name in found} == {"vlaser_gym"}
    assert set(settings["packages"]) == {"find"}
    assert "vlaser_gym.envs.engines.mujoco" in found
    # Without the setting the links would be packages of their own: the check above can fail.
    assert "envs" in {name.split(".")[0] for name in find_namespace_packages(str(ROOT))}


def test_every_folder_of_the_package_is_shipped() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = set(find_namespace_packages(str(ROOT), include=settings["packages"]["find"]["include"]))
    for path in PACKAGE.rglob("*.py"):
        assert ".".join(path.parent.relative_to(ROOT).parts) in found
    patterns = settings["package-data"]["vlaser_gym"]
    shipped = {path for pattern in patterns for path in PACKAGE.glob(pattern)}
    assert set(PACKAGE.rglob("*.yaml")) <= shipped
    assert PACKAGE / "py.typed" in shipped


@pytest.mark.parametrize("name", LINKS)
def test_top_level_names_lead_into_the_package(name: str) -> None:
    link = ROOT / name
    assert link.is_symlink()
    assert not link.readlink().is_absolute()
    assert link.resolve() == PACKAGE / name
    assert link.is_dir()


def test_nothing_imports_through_the_links() -> None:
    files = [*PACKAGE.rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    through = {f"{path}: {name}" for path in files for name in imports(path) if name.split(".")[0] in LINKS}
    assert not through


def test_importing_the_package_is_light() -> None:
    """Registering the environments takes neither torch nor a simulator."""
    heavy = ("torch", "mujoco", "transformers", "stable_baselines3", "cv2", "hydra")
    code = (
        "import sys, vlaser_gym, gymnasium\n"
        f"print([name for name in {heavy!r} if name in sys.modules])\n"
        "print('vlaser_gym/widowx_stack_cube' in gymnasium.registry)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["[]", "True"]


def test_no_two_test_files_have_one_name() -> None:
    """Folders of tests are no packages: pytest could not tell such files apart and would run none of them."""
    names = sorted(path.name for path in Path(__file__).parent.rglob("test_*.py"))
    assert len(names) == len(set(names))
