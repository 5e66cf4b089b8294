"""What render processes leave behind. What their pictures show is tested with the scenes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from vlaser_gym.envs.engines.mujoco.rendering import RenderPool

#: Renders a picture, says which files of this project's are mapped, waits to be killed.
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
    assert all("vlaser_gym" in name for name in names), "the memory of pictures was not found"
    assert [name for name in names if Path(name).exists()] == []


def test_closing_frees_the_memory_once() -> None:
    before = set(os.listdir("/proc/self/fd"))
    pool = RenderPool(1, 1)
    pool.close()
    pool.close()
    assert set(os.listdir("/proc/self/fd")) == before
