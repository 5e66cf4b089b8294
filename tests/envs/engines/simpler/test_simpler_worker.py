"""The file that runs in the other interpreter, as a file and as functions."""

from __future__ import annotations

import ast
import json
import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from vlaser_gym.envs.engines.simpler import worker
from vlaser_gym.envs.engines.simpler.engine import robot_names
from vlaser_gym.envs.engines.simpler.process import Worker
from vlaser_gym.envs.robots import get_setup
from vlaser_gym.envs.tasks import get_task

SOURCE = Path(worker.__file__).read_text()


def imported(nodes: list[ast.stmt]) -> set[str]:
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return {name.split(".")[0] for name in names | {str(n.module) for n in nodes if isinstance(n, ast.ImportFrom)}}


def test_it_needs_the_standard_library_and_numpy_and_python_3_8() -> None:
    tree = ast.parse(SOURCE, feature_version=(3, 8))
    assert imported(tree.body) <= {*sys.stdlib_module_names, "numpy"}
    everywhere = imported([node for node in ast.walk(tree) if isinstance(node, ast.stmt)])
    assert everywhere - set(sys.stdlib_module_names) == {"numpy", "simpler_env", "mani_skill2_real2sim"}
    # Not in Python 3.8: zip(strict=...), str.removeprefix, dict | dict, parametrised builtins outside annotations.
    for word in ("strict=", "removeprefix", "removesuffix", " |= "):
        assert word not in SOURCE
    assert "from __future__ import annotations" in SOURCE


@pytest.mark.golden
@pytest.mark.parametrize("task", ["widowx_stack_cube", "widowx_put_eggplant_in_basket", "google_robot_move_near"])
def test_proprioception_is_the_fork_s(golden: Path, task: str) -> None:
    folder, names = golden / "reset" / task, robot_names(get_setup(get_task(task).robot_setup))
    index = json.loads((folder / "index.json").read_text())
    for key, meta in index.items():
        arrays = np.load(folder / f"{key}.npz")
        poses = zip(meta["link_names"], arrays["link_pose_world"], strict=True)
        links = [SimpleNamespace(name=name, pose=SimpleNamespace(p=pose[:3], q=pose[3:])) for name, pose in poses]
        robot = SimpleNamespace(
            get_links=lambda links=links: links,
            get_qpos=lambda arrays=arrays: arrays["qpos"],
            get_qlimits=lambda meta=meta: np.array(meta["joint_limits"]),
        )
        np.testing.assert_allclose(worker.proprioception(robot, names), arrays["eef_pos"], atol=2e-6)


@pytest.mark.parametrize(("fingers", "open_at_limit", "qpos", "limits", "closed"), [
    ([1, 2], True, [0, 0.037, 0.037], [[0, 1], [0.015, 0.037], [0.015, 0.037]], 0.0),
    ([1, 2], True, [0, 0.038, 0.038], [[0, 1], [0.015, 0.037], [0.015, 0.037]], 0.0),
    ([1, 2], True, [0, 0.026, 0.015], [[0, 1], [0.015, 0.037], [0.015, 0.037]], 0.75),
    ([1, 2], False, [5, 1.3, 0.65, 7, 7], [[-9, 9], [-0.0001, 1.3], [-0.0001, 1.3], [-9, 9], [-9, 9]], 0.75),
    ([1, 2], False, [5, -0.1, 0.0, 7, 7], [[-9, 9], [-0.0001, 1.3], [-0.0001, 1.3], [-9, 9], [-9, 9]], 0.0),
])  # fmt: skip
def test_closedness(
    fingers: list[int], open_at_limit: bool, qpos: list[float], limits: list[list[float]], closed: float
) -> None:
    robot = SimpleNamespace(get_qpos=lambda: qpos, get_qlimits=lambda: limits)
    assert worker.closedness(robot, fingers, open_at_limit) == pytest.approx(closed)


def test_only_numbers_are_told() -> None:
    told = worker.scalars({"a": np.bool_(True), "b": np.float32(0.5), "c": "0.5", "d": {}, "e": np.zeros(3), "f": 3})
    assert told == {"a": 1.0, "b": 0.5, "f": 3.0}
    assert json.loads(json.dumps(told)) == told


def test_options_become_arrays() -> None:
    options = worker.with_arrays({"a": {"init_xy": [0.1, 0.2], "episode_id": 3}, "model_id": "apple"})
    assert isinstance(options["a"]["init_xy"], np.ndarray)
    assert (options["a"]["episode_id"], options["model_id"]) == (3, "apple")


def test_a_commit_is_known_of_tracked_files_only(tmp_path: Path) -> None:
    assert worker.commit(None) == ""
    (tmp_path / "module.py").touch()
    assert worker.commit(str(tmp_path / "module.py")) == ""


def test_a_package_that_is_no_checkout_is_known_by_its_files(tmp_path: Path) -> None:
    """By all Python files of it, and by nothing else."""
    package = tmp_path / "one" / "thing"
    (package / "inner").mkdir(parents=True)
    for name in ("__init__.py", "inner/a.py", "inner/data.txt"):
        (package / name).write_text(name)
    first = worker.version("thing", SimpleNamespace(__file__=str(package / "__init__.py")))
    assert re.fullmatch("files[0-9a-f]{7}", first)
    copied = tmp_path / "other" / "thing"
    shutil.copytree(package, copied)
    (copied / "inner" / "data.txt").write_text("other")
    assert worker.file_hash(str(copied / "__init__.py")) == first
    (copied / "inner" / "a.py").write_text("other")
    assert worker.file_hash(str(copied / "__init__.py")) != first
    assert worker.file_hash(None) == ""


def test_it_ends_with_its_owner(interpreter: Path) -> None:
    process = Worker(str(interpreter), 30)
    process.greet()
    process._socket.close()
    assert process.process.wait(timeout=10) == 0
