"""A check of objects of one's own: the scripted expert tries to lift them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from gymnasium.vector import AutoresetMode

from vlaser_gym.agents.scripted import ScriptedExpert
from vlaser_gym.envs.modelling.settling import up_of
from vlaser_gym.envs.tasks.described import put_on_table, table_things
from vlaser_gym.envs.tasks.own_objects import Thing
from vlaser_gym.envs.vector import SceneVectorEnv
from vlaser_gym.evaluation.plan import plan_episodes
from vlaser_gym.evaluation.runner import EpisodeResult, Runner

#: Height above its resting place at which an object in closed fingers counts as held, m.
LIFTED = 0.05
#: Control steps of a try: enough to reach, grasp and lift; the place for it is not needed.
_STEPS = 36
#: Cosine of the greatest angle between a posture and the one that a grasp is for.
_SAME = np.cos(np.deg2rad(10.0))


def tries_to_hold(thing: Thing, tries: int) -> dict[int, int]:
    """In how many of so many layouts the expert lifts an object by :data:`LIFTED`, by the number of its posture.

    Postures without a grasp are left out. The layouts are drawn on the WidowX's table, every heading.
    """
    return {
        number: _count(replace(thing, rests=(rest,)), tries)
        for number, rest in enumerate(thing.rests)
        if any(np.dot(grasp.up, up_of(np.array(rest.rotation))) > _SAME for grasp in thing.spec.grasps)
    }


def _count(thing: Thing, tries: int) -> int:
    plate = table_things()["plate"]
    task = put_on_table(f"hold_{thing.spec.name}", ["lift it"], [thing, plate], relation="over", grid=1)
    env = SceneVectorEnv(
        task,
        tries,
        observe=("state",),
        autoreset_mode=AutoresetMode.DISABLED,
        record_states=True,
        max_episode_steps=_STEPS,
    )
    try:
        plan = plan_episodes([task], "default", "region", tries)
        return sum(_held(result, thing.spec.name) for result in Runner(env, ScriptedExpert(), plan))
    finally:
        env.close()


def _held(result: EpisodeResult, name: str) -> bool:
    height = result.trajectory[f"object/{name}"][:, 2]
    grasped = result.trajectory["flag/is_src_obj_grasped"]
    return bool((grasped & (height[1:] > height[0] + LIFTED)).any())
