"""A model server of vla-eval: the scripted expert behind ``PredictModelServer``, which makes float32 of its actions.

Arguments: a file for the port that it listens on.
"""

import sys
from functools import partial
from pathlib import Path

import anyio
import numpy as np
from vla_eval.model_servers.predict import PredictModelServer
from vla_eval.model_servers.serve import serve_async
from vla_eval.specs import GRIPPER_CLOSE_NEG, IMAGE_RGB, LANGUAGE, POSITION_DELTA, RAW, ROTATION_AA

from vlaser_gym.agents.scripted import ScriptedExpert
from vlaser_gym.agents.server import parse_address

LANE = np.array([0])


class Expert(PredictModelServer):
    """Each session has an expert of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = {}

    def get_action_spec(self):
        return {"position": POSITION_DELTA, "rotation": ROTATION_AA, "gripper": GRIPPER_CLOSE_NEG}

    def get_observation_spec(self):
        return {"image": IMAGE_RGB, "language": LANGUAGE, "privileged": RAW}

    async def on_episode_start(self, config, ctx):
        await super().on_episode_start(config, ctx)
        expert = self.experts.setdefault(ctx.session_id, ScriptedExpert())
        expert.reset(LANE, [parse_address(config["task"]["address"])])

    def predict(self, obs, ctx):
        assert obs["images"]["primary"].dtype == np.uint8
        assert isinstance(obs["task_description"], str)
        chunk = self.experts[ctx.session_id].act({"state": obs["privileged"][None]}, LANE)
        return {"actions": chunk[0, 0]}


async def main(file: str) -> None:
    async with anyio.create_task_group() as tasks:
        port = await tasks.start(partial(serve_async, Expert(), "127.0.0.1", 0))
        Path(file).write_text(str(port))


if __name__ == "__main__":
    anyio.run(main, sys.argv[1])
