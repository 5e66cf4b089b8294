"""One demonstration, learnt by heart: the whole way from recording to acting."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

from vlaser_gym.agents.vlaser.agent import nano_processor
from vlaser_gym.agents.vlaser.config import VlaserConfig
from vlaser_gym.agents.vlaser.gripper import make_gripper
from vlaser_gym.agents.vlaser.policy import VlaserPolicy
from vlaser_gym.agents.vlaser.processor import ResizeImage, normalize_pixels
from vlaser_gym.agents.vlaser.trainable import TrainableVlaser
from vlaser_gym.cli import load
from vlaser_gym.commands.collect import main
from vlaser_gym.envs.vector import SceneVectorEnv
from vlaser_gym.evaluation.lerobot import LeRobotReader
from vlaser_gym.settings.algorithms import SftSettings
from vlaser_gym.training.data.demonstrations import Batches, Demonstrations
from vlaser_gym.training.sft import SupervisedFineTuning
from vlaser_gym.training.trainer import RunOptions

TASK, SIZE = "widowx_carrot_on_plate", 32
SETTINGS = SftSettings(
    name="sft",
    steps=1200,
    batch_size=16,
    accumulate=1,
    learning_rate=2e-3,
    expert_learning_rate=2e-3,
    weight_decay=0.0,
    betas=(0.9, 0.99),
    warmup=50,
    final_rate=0.0,
    clip=1.0,
    ema=0.99,
    flow_samples=8,
    places=0.0,
    freeze=[],
    augment="none",
    precision="float32",
)


@pytest.mark.slow
def test_one_episode_is_learnt_by_heart_and_its_actions_succeed(tmp_path):
    torch.set_num_threads(1)
    settings = [f"task={TASK}", "episodes=1", "every=4", "group=1", f"image_size={SIZE}", "num_envs=1", "tail=4"]
    main(load("collect", [*settings, f"output={tmp_path / 'set'}"]))
    config = VlaserConfig.preset(
        "nano", image_size=SIZE, patch_size=8, vision_width=32, vision_mlp=64, vision_layers=2, vision_heads=2,
        width=32, mlp_width=64, layers=2, heads=2, kv_heads=1, head_dim=16, expert_width=64, expert_mlp=128,
        max_length=48, num_flow_steps=10,
    )  # fmt: skip
    data = Demonstrations([LeRobotReader(tmp_path / "set")], "widowx", 4, ResizeImage(SIZE, "area"))
    processor = nano_processor(config, data.statistics())
    agent = TrainableVlaser(VlaserPolicy.initialise(config), processor)
    batches = Batches(data, agent, 0)
    trainer = SupervisedFineTuning(agent, batches, SETTINGS, tmp_path / "run", RunOptions(save_every=10_000))
    trainer.run()

    rows = batches.batch(np.arange(len(data)))
    noise = torch.randn(rows["actions"].shape, generator=torch.Generator().manual_seed(1))
    with trainer.whole_policy() as stored:
        inputs = normalize_pixels(rows["pixels"]), rows["input_ids"], rows["proprio"]
        decided = stored.policy.decide(*inputs, noise)
    ranges = torch.tensor([2.0] * 6 + [1.0])
    error = ((decided - rows["actions"]).abs() / ranges).mean()
    assert error < 0.01

    chunks = processor.arm_actions(decided.numpy())
    chunks[..., 6] = make_gripper("widowx").commands(chunks[..., 6], np.arange(len(chunks)))
    env = SceneVectorEnv(TASK, observe=("state",), autoreset_mode=AutoresetMode.DISABLED)
    env.reset(options={"layout": "region:1000000"})
    for chunk in chunks:
        *_, info = env.step_chunk(chunk[None])
    env.close()
    assert info["success"][0]
