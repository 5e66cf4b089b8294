"""What is stored of fingers and objects, against MuJoCo's own list of contacts."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from vlaser_gym.agents.scripted import ScriptedExpert
from vlaser_gym.envs.engines.base import touch_queries
from vlaser_gym.envs.robots import get_setup
from vlaser_gym.envs.tasks import get_task
from vlaser_gym.envs.vector import SceneVectorEnv

CUBE = "widowx_stack_cube"


def listed(model: mujoco.MjModel, data: mujoco.MjData, link: str, body: str) -> np.ndarray:
    """Force on a link by a body (N, world), summed over the contacts of the two."""
    total = np.zeros(3)
    for i, contact in enumerate(data.contact):
        first, second = (model.body(model.geom(geom).bodyid[0]).name for geom in contact.geom)
        if {first, second} == {link, body}:
            force = np.zeros(6)
            mujoco.mj_contactForce(model, data, i, force)
            # The contact frame's rows are its axes; the force is that of the first geom on the second.
            total += contact.frame.reshape(3, 3).T @ force[:3] * (1 if second == link else -1)
    return total


def test_touches_are_the_contacts_of_fingers_and_objects() -> None:
    """At every control step of a grasp, with the forces of a forward pass in the same state."""
    env = SceneVectorEnv(CUBE, 1, observe=("state",), record_states=True)
    expert = ScriptedExpert()
    lane = np.arange(1)
    observation, _ = env.reset(options={"layout": 0})
    expert.reset(lane, env.addresses)
    fingers, bodies = get_setup("widowx").robot.finger_links, get_task(CUBE).objects
    pool = next(iter(env.engine._pools.values()))
    model, data = pool.scene.model, mujoco.MjData(pool.scene.model)
    held = 0
    for _ in range(22):
        observation, *_ = env.step_chunk(expert.act(observation, lane))
        mujoco.mj_setState(model, data, pool.batch.state[0], mujoco.mjtState.mjSTATE_INTEGRATION)
        mujoco.mj_forward(model, data)
        touch = env.lanes[0].reading.touch / model.opt.timestep
        for row, body in enumerate(bodies):
            for column, link in enumerate(fingers):
                force = listed(model, data, f"link:{link}", f"object:{body.name}")
                # The sensor speaks of the substep before: steady forces agree, and no contact is none.
                if np.linalg.norm(force) > 2:
                    np.testing.assert_allclose(touch[row, column], force, atol=0.25 * np.linalg.norm(force))
                    held += body is bodies[0]
                if not force.any():
                    assert np.linalg.norm(touch[row, column]) < 2
    assert held > 10
    env.close()


@pytest.mark.parametrize("setup", ["widowx", "google_robot_pick"])
def test_queries_are_asked_object_by_object(setup: str) -> None:
    robot, bodies = get_setup(setup).robot, get_task(CUBE).objects
    queries = touch_queries(robot, bodies)
    assert len(queries) == len(bodies) * len(robot.finger_links)
    assert queries[len(robot.finger_links)].by == f"object:{bodies[1].name}"
    assert queries[1].of == f"link:{robot.finger_links[1]}"


def test_states_hold_the_touches_of_every_object() -> None:
    env = SceneVectorEnv(CUBE, 1, observe=("state",), record_states=True)
    _, info = env.reset(options={"layout": 0})
    names = {name for name in info["initial_states"][0] if name.startswith("touch/")}
    assert names == {f"touch/{body.name}" for body in get_task(CUBE).objects}
    assert info["initial_states"][0]["touch/baked_green_cube_3cm"].shape == (2, 3)
    env.close()
