"""What the doctor says of an agent's numbers: both sides, the conversion, and a probe flown in the scene."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vlaser_gym.commands.agent_findings import examine_agent
from vlaser_gym.conventions import Conversion


class Mine:
    observes = ("image", "proprio")

    def __init__(self, convention: Any = None) -> None:
        self.convention = convention

    def reset(self, lanes: Any, addresses: Any) -> None: ...

    def act(self, observations: Any, lanes: Any) -> Any: ...


def findings(convention: Any, robot: str = "widowx") -> dict[str, Any]:
    found = list(examine_agent({"name": "mine", "_target_": f"{__name__}.Mine", "convention": convention}, robot))
    return {finding.name: finding for finding in found}


@pytest.mark.parametrize(
    ("convention", "robot", "said"),
    [
        ("gr00t", "widowx", "rotations change from euler:xyz to axis_angle"),
        ({"preset": "openpi_libero", "control_hz": 5}, "widowx", "1 is 0.05 m and 0.5 rad"),
        ("fractal", "google_robot", "+1 closes, -1 opens, 0 stays (relative)"),
        (None, "widowx", "none is needed"),
    ],
)
def test_a_probe_goes_where_the_agent_s_numbers_say(convention: Any, robot: str, said: str) -> None:
    told = findings(convention, robot)
    assert said in told["conversion"].text
    assert told["probe motion"].works, told["probe motion"].text
    assert "x +" in told["probe motion"].text
    assert f"conventions of {robot}" in told


def test_a_conversion_that_turns_the_arm_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check can fail: forward and sideways changed places on the way."""
    right = Conversion.actions

    def wrong(self: Conversion, actions: Any, start: Any) -> np.ndarray:
        out = right(self, actions, start)
        return out[..., [1, 0, *range(2, out.shape[-1])]] if self.target.name == "simpler_widowx" else out

    monkeypatch.setattr(Conversion, "actions", wrong)
    told = findings("openvla")["probe motion"]
    assert not told.works
    assert "40 mm along x moved the tool" in told.text


@pytest.mark.parametrize(
    ("convention", "said"),
    [
        ("openpi_libero", "takes 5 actions per second; openpi_libero gives 20"),
        ("so100", "joint positions of 5 joints, and nothing here knows that arm's kinematics"),
    ],
)
def test_what_does_not_fit_is_said_instead(convention: str, said: str) -> None:
    told = list(examine_agent({"_target_": f"{__name__}.Mine", "convention": convention}, "widowx"))
    assert not told[-1].works
    assert said in " ".join(finding.text for finding in told)
    assert "probe motion" not in {finding.name for finding in told}


def test_an_agent_that_cannot_be_built_is_a_finding() -> None:
    (finding,) = examine_agent({"_target_": "no.such.Agent"}, "widowx")
    assert not finding.works
    assert "must be an importable class" in finding.text
