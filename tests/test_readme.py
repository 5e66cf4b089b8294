"""README's promises that a machine can check."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from test_layers import FLOORS

from vlaser_gym.conventions import get_convention

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def test_ci_runs_readmes_test_command() -> None:
    command = re.search(r"^(\.venv/bin/pip install -e .*pytest -n auto.*)$", README, re.M)
    assert command is not None
    assert command[1] in (ROOT / ".ci" / "run").read_text()


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_linked_file_exists(page: Path) -> None:
    for target in re.findall(r"\]\((?!http|#)([^)#\s]+)[^)]*\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_every_file_that_the_architecture_names_exists() -> None:
    named = re.findall(r"`([\w/]+(?:/|\.py))`", (ROOT / "docs" / "architecture.md").read_text())
    assert len(named) > 40
    for name in named:
        assert (ROOT / "vlaser_gym" / name).exists() or (ROOT / name).exists(), name


def test_the_architecture_lists_the_floors_that_the_import_test_checks() -> None:
    rows = re.findall(r"^\| (\d+) \| (.*?) \|", (ROOT / "docs" / "architecture.md").read_text(), re.M)
    listed = {int(number): set(re.findall(r"`(\w+?)(?:/|\.py)`", names)) - {"__init__"} for number, names in rows}
    assert listed == {number: set(rooms) for number, rooms in enumerate(FLOORS)}


def test_every_command_in_the_table_exists_and_none_is_missing() -> None:
    listed = set(re.findall(r"^\| `(\w+)` \|", README, re.M))
    commands = {
        path.stem for path in (ROOT / "vlaser_gym").glob("*.py") if 'if __name__ == "__main__"' in path.read_text()
    }
    assert listed == commands - {"__main__"}


def test_the_example_agent_acts() -> None:
    source = re.search(r"```python\n(import numpy as np\n.*?)```", README, re.S)
    assert source is not None
    scope: dict = {}
    exec(source[1], scope)
    actions = scope["Hover"]().act({}, np.arange(3))
    assert actions.shape == (3, 4, 7)
    assert np.isfinite(actions).all()


def test_the_gripper_s_sign_is_said_of_both_robots() -> None:
    """It said "+1 open" of both."""
    assert "(+1 open)" not in README
    (sentence,) = re.findall(r"\*\*The gripper's sign is the robot's own\*\*: (.*?last command)\.", README, re.S)
    for robot, title in (("widowx", "WidowX"), ("google_robot", "Google Robot")):
        said = re.search(rf"on the\s+{title} \+1 (\w+)", sentence)
        assert said is not None
        assert said[1] == get_convention(robot).action_part("gripper").positive


@pytest.mark.parametrize("name", ["torch", "mujoco", "gymnasium", "stable_baselines3"])
def test_constraints_pin_what_the_first_command_installs(name: str) -> None:
    assert re.search(rf"^{name}==", (ROOT / "constraints.txt").read_text(), re.M)
