"""A scripted expert that fails in a chosen way: it believes something wrong, or does something wrong on purpose."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from vlaser_gym.agents import scripted
from vlaser_gym.agents.disturbance import Miss
from vlaser_gym.agents.scripted_cabinet import CabinetEpisode
from vlaser_gym.agents.scripted_google import CLOSE, KEEP, GoogleScript, TableEpisode
from vlaser_gym.agents.scripted_google import OPEN as GOOGLE_OPEN
from vlaser_gym.conventions import rotations
from vlaser_gym.envs.address import Address
from vlaser_gym.envs.robots import get_setup
from vlaser_gym.envs.tasks import get_task
from vlaser_gym.envs.tasks.cabinet import DRAWER_HEIGHTS, DRAWERS, joint_name
from vlaser_gym.envs.vector import STATE_FIELDS

WIDOWX_OPEN, WIDOWX_CLOSE = 1.0, -1.0


class FaultyExpert:
    """The expert with one fault per episode, the same for all trials of its address.

    Args:
        faults: a key of the failure classes for each address.
    """

    observes = ("state",)

    def __init__(self, faults: Mapping[Address, str]) -> None:
        self._faults = dict(faults)
        self._episodes: dict[int, object] = {}

    def reset(self, lanes, addresses) -> None:
        for lane, address in zip(lanes, addresses, strict=True):
            task, fault = get_task(address.task), self._faults[address]
            google = get_setup(task.robot_setup).robot.name == "google_robot"
            kind = FaultyCabinet if task.scenery == "google_cabinet" else FaultyTable if google else FaultyWidowX
            self._episodes[int(lane)] = kind(task, address, fault)

    def act(self, observations, lanes):
        states = np.asarray(observations["state"], np.float64)
        return np.array([[self._episodes[int(i)].act(state)] for i, state in zip(lanes, states, strict=True)])

    def subtask_done(self, lanes):
        return np.array([self._episodes[int(lane)].subtask_done for lane in lanes])


def _rng(address: Address) -> np.random.Generator:
    return address.rng("fault")


class FaultyWidowX(scripted._Episode):
    """Puts one object on another, badly."""

    def __init__(self, task, address: Address, fault: str) -> None:
        super().__init__(task, scripted._script_of(task))
        self.fault, self.rng = fault, _rng(address)

    def _read(self, state) -> None:
        super()._read(state)
        if self.fault == "wrong_object":
            self._source, self._target = self._target, self._source
        if self.fault == "closed_on_nothing":
            self._source = self._source + self._aside(0.045, 0.065)
        if self.fault == "placed_beside":
            self._target = self._target + self._astray

    def _aside(self, low: float, high: float):
        """Across the object's long axis, away from the target; the same at every step."""
        if not hasattr(self, "_offset"):
            axis = self._source_rotation[:2, int(np.argmax(self._task.objects[self._task.source].bbox))]
            across = np.array([-axis[1], axis[0]]) / np.linalg.norm(axis)
            if across @ (self._target - self._source)[:2] > 0:
                across = -across
            self._offset = np.array([*(across * self.rng.uniform(low, high)), 0.0])
        return self._offset

    @property
    def _astray(self):
        """Away from where the object lies, but never farther from the robot: the arm could not reach that."""
        if not hasattr(self, "_wrong"):
            away = (self._target - self._source)[:2]
            turn = self.rng.uniform(-0.6, 0.6)
            away = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ away
            away[0] = -abs(away[0])
            self._wrong = np.array([*(away / np.linalg.norm(away) * self.rng.uniform(0.085, 0.11)), 0.0])
        return self._wrong

    def _run(self) -> Iterator[float]:
        yield from {
            "never_approached": self._wander,
            "closed_on_nothing": self._miss,
            "pushed_away": self._sweep,
            "dropped": self._drop,
            "lost_again": self._take_back,
            "out_of_time": self._dawdle,
        }.get(self.fault, super()._run)()
        while True:
            yield WIDOWX_OPEN

    def _wander(self) -> Iterator[float]:
        way = self._tcp - self._source
        away = np.array([*way[:2] / max(np.linalg.norm(way[:2]), 1e-6) * 0.05, 0.02])
        for _ in range(3):
            yield from self._move(self._tcp + away, WIDOWX_OPEN)
        while True:
            yield WIDOWX_CLOSE if self.rng.random() < 0.5 else WIDOWX_OPEN

    def _miss(self) -> Iterator[float]:
        for _ in range(2):
            yield from self._grasp(Miss())
            yield from self._move(self._goal, WIDOWX_OPEN)

    def _sweep(self) -> Iterator[float]:
        """Through the object with closed fingers, across its long axis."""
        across = self._aside(0.07, 0.08)
        start, self._goal_rotation = self._source + across, self._grasp_rotation()
        up = np.array([0, 0, 0.004 + self._script.grasp_offset])
        yield from self._move(start + [0, 0, 0.08], WIDOWX_CLOSE)
        yield from self._move(start + up, WIDOWX_CLOSE, tolerance=0.006)
        yield from self._move(start - 1.8 * across + up, WIDOWX_CLOSE)
        yield from self._move(self._goal + [0, 0, 0.12], WIDOWX_CLOSE)

    def _drop(self) -> Iterator[float]:
        yield from self._grasp(Miss())
        there = self._goal + 0.35 * np.array([*(self._target - self._source)[:2], 0.0]) + [0, 0, 0.02]
        yield from self._move(there, WIDOWX_CLOSE)
        yield from self._wait(4, WIDOWX_OPEN)

    def _take_back(self) -> Iterator[float]:
        rest = self._source[2]
        yield from self._grasp(Miss())
        yield from self._place(rest)
        yield from self._grasp(Miss())
        yield from self._move(self._goal + [0, 0.0, 0.03], WIDOWX_CLOSE)
        while True:
            yield WIDOWX_CLOSE

    def _dawdle(self) -> Iterator[float]:
        yield from self._grasp(Miss())
        over = np.array([*(self._target - self._source)[:2], 0.0])
        for k in range(40):
            self._goal = self._goal + over / 120 if k < 40 else self._goal
            yield WIDOWX_CLOSE
        while True:
            yield WIDOWX_CLOSE


class FaultyTable(TableEpisode):
    """Picks, or moves near, badly."""

    def __init__(self, task, address: Address, fault: str) -> None:
        super().__init__(task, address, GoogleScript())
        self.fault, self.rng = fault, _rng(address)

    def _look(self, state) -> None:
        super()._look(state)
        if self.fault == "wrong_object":
            self._source, self._target = self._target, self._source
            self._source_rotation = rotations.matrix_from_quaternion(state[STATE_FIELDS["target"]][3:])
        if self.fault == "closed_on_nothing":
            self._source = self._source + self._aside
        if self.fault == "placed_beside":
            self._target = self._target + self._astray

    @property
    def _aside(self):
        if not hasattr(self, "_offset"):
            closing = self._grasp_rotation()[:2, 1]
            # Along the fingers' plane: the open gripper is wider than the things that it grasps.
            along = np.array([-closing[1], closing[0]]) / np.linalg.norm(closing)
            towards_robot = -1.0 if along @ self._source[:2] > 0 else 1.0
            self._offset = np.array([*(along * towards_robot * self.rng.uniform(0.10, 0.12)), 0.0])
        return self._offset

    @property
    def _astray(self):
        if not hasattr(self, "_wrong"):
            way = (self._source - self._target)[:2]
            self._wrong = np.array([*(way / np.linalg.norm(way) * 0.12), 0.0])
        return self._wrong

    def _run(self) -> Iterator[float]:
        if self.fault == "wrong_object":
            # The boxes belong to the objects.
            assert self._target_object is not None
            self._object, self._target_object = self._target_object, self._object
        yield from {
            "never_approached": self._wander,
            "pushed_away": self._sweep,
            "dropped": self._drop,
            "out_of_time": self._dawdle,
            "closed_on_nothing": self._miss,
            "placed_beside": self._put_beside,
        }.get(self.fault, super()._run)()
        while True:
            yield KEEP

    def _wander(self) -> Iterator[float]:
        yield from self._move(self._tcp + [-0.05, 0.0, 0.08], KEEP)
        while True:
            yield KEEP

    def _miss(self) -> Iterator[float]:
        yield from self._grasp()
        yield from self._move(self._goal, GOOGLE_OPEN)

    def _sweep(self) -> Iterator[float]:
        closing = self._grasp_rotation()
        side = np.array([*closing[:2, 1], 0.0]) * 0.12
        start = self._source + side
        self._goal_rotation = closing
        yield from self._move(start + [0, 0, 0.1], CLOSE, tolerance=0.02)
        yield from self._move(start, CLOSE, tolerance=0.015)
        yield from self._move(start - 1.6 * side, CLOSE)
        yield from self._move(self._goal + [0, 0, 0.15], CLOSE)

    def _drop(self) -> Iterator[float]:
        yield from self._grasp()
        for _ in range(4):
            yield GOOGLE_OPEN

    def _put_beside(self) -> Iterator[float]:
        yield from self._grasp()
        yield from self._carry()
        for _ in range(4):
            yield GOOGLE_OPEN
        yield from self._move(self._tcp + [0, 0, 0.1], KEEP)

    def _dawdle(self) -> Iterator[float]:
        """Grasp as the expert does, again where the fingers closed on nothing; then stay."""
        rest = self._source[2]
        for gripper in super()._run():
            if self._source[2] > rest + self._script.lift / 2:
                break
            yield gripper
        while True:
            yield CLOSE


class FaultyCabinet(CabinetEpisode):
    """Opens, closes or fills a drawer, badly."""

    def __init__(self, task, address: Address, fault: str) -> None:
        super().__init__(task, address, GoogleScript())
        self.fault, self.rng = fault, _rng(address)
        layout = task.layout(address.layout, address.variant)
        goal = layout.goal_joint.removesuffix(joint_name(""))
        self._other = DRAWERS[(DRAWERS.index(goal) + 1) % 3 if goal != "bottom" else 1]
        self._shift = DRAWER_HEIGHTS[self._other] - DRAWER_HEIGHTS[goal]

    def _look(self, state) -> None:
        super()._look(state)
        if self.fault == "wrong_drawer":
            outwards = self._frame[:, 0]
            opening = float(state[STATE_FIELDS["joints"]][DRAWERS.index(self._other)])
            self._handle = self._handle + self._frame[:, 2] * self._shift + outwards * (opening - self._opening)
            self._opening = opening
        if self.fault == "closed_on_nothing":
            self._handle = self._handle + self._frame @ [0.06, 0.0, 0.03]
        if self.fault == "placed_beside" and self.subtask_done:
            self._handle = self._handle + self._frame @ [0.22, 0.0, 0.0]

    def _run(self) -> Iterator[float]:
        yield from {
            "never_approached": self._wander,
            "drawer_short": self._stop_short,
            "wrong_stage": self._fetch_first,
            "dropped": self._let_go,
            "out_of_time": self._hold,
            "lost_again": self._shut_again,
        }.get(self.fault, super()._run)()
        while True:
            yield KEEP

    def _wander(self) -> Iterator[float]:
        yield from self._move(self._tcp + self._frame @ [0.05, 0.0, 0.1], KEEP)
        while True:
            yield KEEP

    def _stop_short(self) -> Iterator[float]:
        """As the expert does, until the drawer has come some of its way."""
        begun, enough = self._opening, 0.06 if self._closes else self.rng.uniform(0.05, 0.09)
        for gripper in self._push() if self._closes else self._pull_open():
            if abs(self._opening - begun) > enough:
                break
            yield gripper
        away = (0.12, 0.02) if self._closes else (-0.075, 0.12)
        yield from self._move(self._at(*away), CLOSE, tolerance=0.03)

    def _shut_again(self) -> Iterator[float]:
        yield from self._pull_open()
        yield from self._push()

    def _fetch_first(self) -> Iterator[float]:
        yield from self._fetch()
        while True:
            yield CLOSE

    def _let_go(self) -> Iterator[float]:
        yield from self._pull_open()
        self.subtask_done = True
        yield from self._fetch()
        for _ in range(4):
            yield GOOGLE_OPEN

    def _hold(self) -> Iterator[float]:
        yield from self._pull_open()
        self.subtask_done = True
        yield from self._fetch()
        while True:
            yield CLOSE
