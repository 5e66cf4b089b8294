"""What agents tell of their decisions: kept by the runner, drawn where it belongs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fake_env import STEPS, FakeVectorEnv, Reacher

from vlaser_gym.envs.robots import get_setup
from vlaser_gym.envs.tasks import get_task
from vlaser_gym.evaluation.explanations import (
    draw_attention,
    draw_explanation,
    explained_at,
    explanation_note,
    place_pixels,
)
from vlaser_gym.evaluation.plan import plan_episodes
from vlaser_gym.evaluation.runner import Runner

CARROT = "widowx_carrot_on_plate"


class Telling(Reacher):
    """Tells how often it has decided on an environment."""

    explain = "attention"

    def reset(self, lanes: Any, addresses: Any) -> None:
        super().reset(lanes, addresses)
        self.counts = {**getattr(self, "counts", {}), **dict.fromkeys(map(int, lanes), 0)}

    def act(self, observations: Any, lanes: Any) -> Any:
        for lane in lanes:
            self.counts[int(lane)] += 1
        return super().act(observations, lanes)

    def explained(self, lanes: Any) -> list[dict[str, Any]]:
        return [{"attention": np.full((2, 2), self.counts[int(lane)], np.float32)} for lane in lanes]


def test_the_runner_keeps_one_row_per_decision() -> None:
    plan = plan_episodes([get_task(CARROT)], episodes=3)
    env = FakeVectorEnv([CARROT], 2, Reacher.observes)
    for result in Runner(env, Telling(horizon=5), plan):
        told = result.trajectory["explain/attention"]
        assert len(told) == len(result.trajectory["decision"]) == STEPS // 5
        assert told[:, 0, 0].tolist() == list(range(1, STEPS // 5 + 1))


def test_agents_that_tell_nothing_leave_nothing() -> None:
    plan = plan_episodes([get_task(CARROT)], episodes=2)
    (result, _) = Runner(FakeVectorEnv([CARROT], 2, Reacher.observes), Reacher(horizon=5), plan)
    assert not any(name.startswith("explain/") for name in result.trajectory)
    assert explanation_note(result.trajectory, 0) == ""
    picture = np.zeros((4, 4, 3), np.uint8)
    assert draw_explanation(picture, CARROT, result.trajectory, 0) is picture


STATES = {
    "decision": np.array([0, 4, 8]),
    "explain/attention": np.arange(3)[:, None, None] * np.array([[[0.1, 0.0], [0.0, 0.3]]]),
    "qpos": np.zeros((13, 8)),
}


@pytest.mark.parametrize(("t", "decision"), [(0, 0), (3, 0), (4, 1), (7, 1), (8, 2), (12, 2)])
def test_a_state_shows_the_decision_that_leads_on_from_it(t: int, decision: int) -> None:
    assert (explained_at(STATES, t)["attention"] == STATES["explain/attention"][decision]).all()


def test_the_caption_tells_the_pictures_share() -> None:
    assert explanation_note(STATES, 8) == "attention on the image 80 %"


def test_attention_darkens_the_rest_and_colours_where_it_is() -> None:
    picture = np.full((60, 80, 3), 200, np.uint8)
    shown = draw_attention(picture, np.array([[0.0, 0.0], [0.0, 0.2]])).astype(int)
    # A corner without attention keeps 45 % of its light; the attended one moves 60 % of the way to orange.
    assert shown[0, 0].tolist() == [90, 90, 90]
    assert shown[-1, -1].tolist() == [round(200 + 0.6 * (255 - 200)), round(200 + 0.6 * (120 - 200)), 80]
    assert (np.diff(shown[-1, :, 0]) >= 0).all()
    assert (draw_attention(picture, np.zeros((2, 2))) == 90).all()


def test_places_fall_where_the_camera_has_them() -> None:
    """The camera looked up by hand: pose of its link, then a pinhole."""
    setup = get_setup(get_task(CARROT).robot_setup)
    states = {"qpos": np.array([setup.qpos]), "decision": np.array([0])}
    base = np.array(setup.base_pose)
    world = np.array([[-0.15, 0.0, 0.9], [-0.2, 0.1, 0.87]])
    # The WidowX stands turned by half a turn about z.
    local = (world - base[:3]) * [-1, -1, 1]
    found = place_pixels(local, CARROT, states, 0)
    camera = setup.cameras["policy"]
    assert camera.link == "base_link"
    w, x, y, z = camera.pose[3:]
    forward = np.array([1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)])
    left = np.array([2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)])
    up = np.cross(forward, left)
    seen = local - camera.pose[:3]
    expected = np.stack(
        [
            camera.cx - camera.focal * (seen @ left) / (seen @ forward),
            camera.cy - camera.focal * (seen @ up) / (seen @ forward),
        ],
        -1,
    )
    np.testing.assert_allclose(found, expected, atol=1e-6)
    picture = draw_explanation(np.zeros((480, 640, 3), np.uint8), CARROT, {**states, "explain/places": local[None]}, 0)
    for (column, row), colour in zip(found, ((255, 64, 200), (0, 220, 255)), strict=True):
        ring = picture[round(row), round(column) - 9 : round(column) - 6].reshape(-1, 3)
        assert (ring == colour).all(1).any()
