"""lerobot_env_vlaser_gym, driven as LeRobot 0.6.1's ``lerobot-eval`` drives it; the real one has not run here."""

from __future__ import annotations

import importlib
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest

PLUGIN = Path(__file__).resolve().parents[2] / "plugins" / "lerobot_env_vlaser_gym"


class EnvConfig:
    """``lerobot.envs.configs.EnvConfig`` without draccus."""

    kinds: ClassVar[dict[str, type]] = {}

    @classmethod
    def register_subclass(cls, name: str) -> Any:
        def register(kind: type) -> type:
            cls.kinds[name] = kind
            return kind

        return register


class Frozen(gymnasium.Wrapper[Any, Any, Any, Any]):
    """``lerobot.envs.utils.FreezeAfterEpisodeEnd``: repeats an episode's last step until a rollout begins."""

    last: Any = None

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        if self.last is not None and not (options or {}).get("lerobot_new_rollout"):
            return self.last[0], self.last[4]
        self.last = None
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> Any:
        if self.last is not None:
            return self.last
        seen, reward, ended, cut, info = self.env.step(action)
        if ended or cut:
            self.last = seen, 0.0, ended, cut, info
        return seen, reward, ended, cut, info


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Imported by its distribution's name, which LeRobot looks for."""
    types: Any = ModuleType("lerobot.configs.types")
    types.FeatureType = SimpleNamespace(ACTION="ACTION", STATE="STATE", VISUAL="VISUAL")
    types.PolicyFeature = SimpleNamespace
    configs: Any = ModuleType("lerobot.envs.configs")
    configs.EnvConfig = EnvConfig
    utils: Any = ModuleType("lerobot.envs.utils")
    utils.freeze_after_episode_end = lambda make: lambda: Frozen(make())
    for module in (*map(ModuleType, ("lerobot", "lerobot.configs", "lerobot.envs")), types, configs, utils):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.syspath_prepend(str(PLUGIN))
    name = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]["name"]
    assert name.startswith("lerobot_env_")
    yield importlib.import_module(name)
    sys.modules.pop(name)


def test_its_features_are_those_of_our_data_sets(plugin: Any) -> None:
    config = EnvConfig.kinds["vlaser_gym"](task="widowx")
    assert not any("/" in name for name in config.features), "no column of a data set may be named so"
    assert {config.features_map[key]: (f.type, f.shape) for key, f in config.features.items()} == {
        "action": ("ACTION", (7,)),
        "observation.state": ("STATE", (8,)),
        "observation.images.main": ("VISUAL", (480, 640, 3)),
    }
    assert (config.fps, len(config.tasks)) == (5, 4)
    assert EnvConfig.kinds["vlaser_gym"](task="google_robot_pick_coke_can").fps == 3
    with pytest.raises(ValueError, match="tasks of one robot; got widowx, google_robot"):
        EnvConfig.kinds["vlaser_gym"](task="widowx_stack_cube,google_robot_pick_coke_can")


def test_a_rollout_of_lerobot_s_shape_runs_the_episodes_of_its_seeds(plugin: Any) -> None:
    config = EnvConfig.kinds["vlaser_gym"]()
    ((suite, tasks),) = config.create_envs(n_envs=2).items()
    lanes = tasks[0]
    assert isinstance(lanes.metadata["render_fps"], int), "LeRobot's recordings take no other"
    assert (suite, lanes.call("_max_episode_steps"), lanes.call("task")) == ("vlaser_gym", (60,) * 2, config.tasks * 2)
    seen, _ = lanes.reset(seed=[3, 25])
    assert [str(env.unwrapped.scene.address) for env in lanes.envs] == [
        "widowx_stack_cube/default/grid:3/0",
        "widowx_stack_cube/default/grid:1/1",
    ]
    assert seen["pixels"]["main"].shape == (2, 480, 640, 3)
    assert seen["agent_pos"].shape == (2, 8)
    assert lanes.call("task_description") == ("stack the green block on the yellow block",) * 2
    _, _, terminated, truncated, info = lanes.step(np.zeros((2, 7), np.float32))
    assert not (terminated | truncated).any()
    assert info["is_success"].tolist() == [False, False]
    lanes.close()


@pytest.mark.parametrize(("success", "expected"), [("last", [False, True]), ("any", [True, True])])
def test_success_is_counted_at_the_last_step_or_at_any(
    plugin: Any, script: Any, success: str, expected: list[bool]
) -> None:
    """Success comes after step 2 and step 4 of 4."""
    script({"success": (2, 4)})
    env = plugin.Scene("widowx_stack_cube", success=success, max_episode_steps=4)
    env.reset(seed=0)
    told = [env.step(np.zeros(7))[-1]["is_success"] for _ in range(4)]
    assert told == [False, expected[0], False, expected[1]]
    env.close()


def test_images_have_the_size_of_the_data_set_and_are_made_as_it_makes_them(plugin: Any) -> None:
    """``collect image_size=96`` averages areas to 96 x 96; LeRobot itself resizes nothing."""
    config = EnvConfig.kinds["vlaser_gym"](image_size=96)
    assert config.features["observation.images.main"].shape == (96, 96, 3)
    ((env,),) = (lanes.envs for lanes in config.create_envs(n_envs=1)["vlaser_gym"].values())
    small, _ = env.reset(seed=0)
    assert small["pixels"]["main"].shape == env.observation_space["pixels"]["main"].shape == (96, 96, 3)
    large = env.unwrapped.scene.reset(options={"layout": "grid:0"})[0]["image"]
    # 480 x 640 to 96 x 96: means of 5 x 6 2/3 pixels; of three columns together, of 5 x 20 whole ones.
    wide = small["pixels"]["main"].astype(float).reshape(96, 32, 3, 3).mean(2)
    whole = large.astype(float).reshape(96, 5, 32, 20, 3).mean((1, 3))
    np.testing.assert_allclose(wide, whole, atol=0.51)
    env.close()


def test_an_episode_that_ended_waits_for_the_next_rollout(plugin: Any, script: Any) -> None:
    """Nothing is run in between, and the next rollout goes on with the next number."""
    script({"success": (2,)})
    config = EnvConfig.kinds["vlaser_gym"](terminate_on_success=True)
    lanes = config.create_envs(n_envs=1)["vlaser_gym"][0]
    lanes.reset(options={"lerobot_new_rollout": True})
    for ended in (False, True, True, True):
        _, _, terminated, _, info = lanes.step(np.zeros((1, 7), np.float32))
        assert terminated.tolist() == [ended]
    assert info["final_info"]["is_success"].tolist() == [True]
    lanes.reset(options={"lerobot_new_rollout": True})
    assert str(lanes.envs[0].unwrapped.scene.address) == "widowx_stack_cube/default/grid:1/0"
    lanes.close()
