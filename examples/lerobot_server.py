"""A pi0, SmolVLA or X-VLA of LeRobot behind the gym's policy server, with random weights until you name your own.

    python examples/lerobot_server.py smolvla            # random weights in ./random_smolvla
    python -m vlaser_gym.eval agent=remote agent.url=ws://127.0.0.1:8000 task=widowx_stack_cube

A trained one needs none of this: ``python -m vlaser_gym.serve agent=lerobot checkpoint=FOLDER_OR_ORG/NAME``. LeRobot
lives in an environment of its own (docs/neighbours.md). Random weights are made as small as the settings of each kind
allow, which for pi0 is its full 3 billion numbers; tokenizers, and SmolVLA's settings, still come from the hub.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import torch

from vlaser_gym.agents.lerobot import LeRobotAgent
from vlaser_gym.agents.server import PolicyServer

#: Settings of small models by kind; what is not named here has LeRobot's default.
SMALL: dict[str, dict[str, Any]] = {
    # Whatever the variant, its images become 2048 numbers, gemma_2b's: LeRobot's pi0 runs with no other.
    "pi0": {"dtype": "bfloat16", "num_inference_steps": 4},
    "smolvla": {"num_vlm_layers": 2, "num_steps": 4},
    "xvla": {
        **{"hidden_size": 64, "depth": 2, "num_heads": 4, "len_soft_prompts": 4, "num_denoising_steps": 4},
        **{"action_mode": "auto", "resize_imgs_with_padding": (224, 224), "num_image_views": 1},
        "florence_config": {
            "vision_config": {
                **{"embed_dim": [16, 32, 64, 64], "num_heads": [1, 2, 4, 4], "num_groups": [1, 2, 4, 4]},
                **{"depths": [1, 1, 1, 1], "projection_dim": 64},
            },
            "text_config": {
                **{"d_model": 64, "encoder_layers": 2, "decoder_layers": 1, "vocab_size": 51_289},
                **{"encoder_attention_heads": 4, "decoder_attention_heads": 4},
                **{"encoder_ffn_dim": 128, "decoder_ffn_dim": 128},
            },
            "projection_dim": 64,
        },
    },
}
#: What the gym shows a policy, and what it wants back, by LeRobot's kinds.
READS = {"observation.images.main": ("VISUAL", (3, 224, 224)), "observation.state": ("STATE", (8,))}
ANSWERS = {"action": ("ACTION", (7,))}


def make_random(kind: str, folder: Path, seed: int = 0) -> Path:
    """Write a policy with random weights and its processors, as ``lerobot-train`` would; the folder."""
    from lerobot.configs import FeatureType, PolicyFeature
    from lerobot.policies.factory import get_policy_class, make_policy_config, make_pre_post_processors

    def features(named: dict[str, tuple[str, tuple[int, ...]]]) -> dict[str, Any]:
        return {key: PolicyFeature(type=FeatureType(of), shape=shape) for key, (of, shape) in named.items()}

    torch.manual_seed(seed)
    settings = {**SMALL[kind], "chunk_size": 8, "n_action_steps": 4, "device": "cpu", "push_to_hub": False}
    config = make_policy_config(kind, input_features=features(READS), output_features=features(ANSWERS), **settings)
    # Random actions are small ones: a centimetre, and a gripper between its ends.
    spread = torch.tensor([0.01, 0.01, 0.01, 0.02, 0.02, 0.02, 0.5])
    statistics = {
        "observation.state": {"mean": torch.zeros(8), "std": torch.ones(8)},
        "action": {"mean": torch.zeros(7), "std": spread},
    }
    before, after = make_pre_post_processors(config, dataset_stats=statistics)
    for part in (get_policy_class(kind)(config), before, after):
        part.save_pretrained(folder)
    return folder


def main(kind: str, port: int = 8000) -> None:
    """Serve until Ctrl-C."""
    folder = Path(f"random_{kind}")
    if not folder.is_dir():
        make_random(kind, folder)
    server = PolicyServer(LeRobotAgent(str(folder)), kind)
    asyncio.run(server.run("127.0.0.1", port, lambda bound: print(f"{kind} is served at ws://127.0.0.1:{bound}")))


if __name__ == "__main__":
    main(*sys.argv[1:2])
