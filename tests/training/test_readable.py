from __future__ import annotations

import ast
import sys
from pathlib import Path
from types import FrameType

from test_ppo import make, no_pictures  # noqa: F401  (a fixture)

import vlaser_gym

PACKAGE = Path(vlaser_gym.__file__).parent
#: Of the policy's room, what stands between the loop and the network; the rest of it is the model and its processor.
BETWEEN = ("agents/vlaser/trainable.py", "agents/vlaser/commands.py", "agents/vlaser/gripper.py")
DENSITIES = "agents/vlaser/densities.py"
#: What runs the network, and the formulas of its processor.
NETWORK = ("agents/inference.py", "agents/batch_sizes.py", "conventions/rotations.py")
#: What one PPO iteration may take a reader through, and how long one function may be. 45 where this loop took the place
#: of Stable-Baselines3's; since then levels of likelihood (1), an actor that the inference engine runs (4), and
#: processes that share weights (8) have come.
MOST_FUNCTIONS, MOST_OF_DENSITIES, MOST_LINES = 58, 9, 90


def _functions_called(run) -> set[tuple[str, str]]:
    called = set()

    def profile(frame: FrameType, event: str, argument: object) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(PACKAGE) and "<" not in frame.f_code.co_name:
            called.add((path.relative_to(PACKAGE).as_posix(), frame.f_code.co_qualname))

    sys.setprofile(profile)
    try:
        run()
    finally:
        sys.setprofile(None)
    return called


def test_one_ppo_iteration_is_read_in_few_functions(tmp_path):
    trainer = make(tmp_path, iterations=9)
    trainer.step()
    called = _functions_called(trainer.step)
    loop = {
        (path, name) for path, name in called if path in BETWEEN or not path.startswith(("agents/vlaser/", *NETWORK))
    }
    assert {("training/ppo.py", "PPO.loss"), ("training/rollout.py", "collect")} <= loop
    assert len(loop) <= MOST_FUNCTIONS, "\n".join(f"{path} {name}" for path, name in sorted(loop))
    assert len([path for path, _ in called if path == DENSITIES]) <= MOST_OF_DENSITIES


def test_no_function_is_longer_than_a_page():
    long = [
        f"{path.relative_to(PACKAGE)}:{node.lineno} {node.name} {node.end_lineno - node.lineno + 1}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno - node.lineno >= MOST_LINES
    ]
    assert not long, long
