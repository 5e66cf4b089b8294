"""What render processes leave behind. What their images show is tested with the scenes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from vlaser_gym.envs.engines.mujoco.rendering import RenderPool, _display_answers

#: Renders an image, says which files of this project's are mapped, waits to be killed.
RENDERS = """
import time
from vlaser_gym.envs.engines.mujoco.rendering import Job, RenderPool, SceneKey
from vlaser_gym.envs.engines.mujoco.scene import build_scene
from vlaser_gym.envs.tasks import get_task
pool = RenderPool(1, 1)
scene = build_scene(get_task("widowx_stack_cube"))
assert pool.render([Job(SceneKey("widowx_stack_cube", "default", "builtin"), scene.model.qpos0)]).any()
names = {line.split(maxsplit=5)[5].strip() for line in open("/proc/self/maps") if "vlaser_gym" in line.split("/")[-1]}
print(*names, sep="|", flush=True)
time.sleep(600)
"""


def test_a_killed_process_leaves_no_pictures_behind() -> None:
    process = subprocess.Popen([sys.executable, "-c", RENDERS], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    names = process.stdout.readline().strip().split("|")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert all("vlaser_gym" in name for name in names), "the memory of images was not found"
    assert [name for name in names if Path(name).exists()] == []


def test_closing_frees_the_memory_once() -> None:
    before = set(os.listdir("/proc/self/fd"))
    pool = RenderPool(1, 1)
    pool.close()
    pool.close()
    assert set(os.listdir("/proc/self/fd")) == before


PICTURE = """
import sys
from vlaser_gym.envs.vector import SceneVectorEnv
from vlaser_gym.errors import RenderingUnavailableError
env = SceneVectorEnv("widowx_carrot_on_plate", observe=("image",), engine_options={"render_processes": 1})
try:
    observation, _ = env.reset(options={"layout": 0})
    print("picture", len(set(observation["image"].reshape(-1, 3)[:, 0].tolist())))
except RenderingUnavailableError as error:
    print("refused", error)
"""


def picture(**environment: str | None) -> str:
    """What a process with these variables says when it is asked for an image."""
    known = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "MUJOCO_GL")}
    given = {name: value for name, value in environment.items() if value is not None}
    return subprocess.run(
        [sys.executable, "-c", PICTURE], env={**known, **given}, capture_output=True, text=True, timeout=120, check=True
    ).stdout


@pytest.mark.slow
def test_a_display_that_is_left_over_does_not_stop_egl() -> None:
    assert picture(DISPLAY=":99").startswith("picture")


@pytest.mark.slow
def test_what_has_just_failed_is_not_advised() -> None:
    said = picture(MUJOCO_GL="osmesa")
    if said.startswith("picture"):
        pytest.skip("OSMesa works here")
    assert "OpenGL backend 'osmesa'" in said
    assert "set MUJOCO_GL=osmesa" not in said
    assert "leave MUJOCO_GL unset" in said
    said = picture(MUJOCO_GL="glfw", DISPLAY=":99")
    assert "leave MUJOCO_GL unset" in said


def test_displays_are_asked_whether_they_answer() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        number = server.getsockname()[1] - 6000
        assert not _display_answers(f"127.0.0.1:{number}.0")
        server.listen()
        assert _display_answers(f"127.0.0.1:{number}.0")
        assert _display_answers(f"127.0.0.1:{number}")
    for name in ("", ":", ":no", "nowhere.invalid:0", ":4242", "unix:4242.1", "127.0.0.1:99999999999"):
        assert not _display_answers(name)
