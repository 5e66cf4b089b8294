"""Running episodes: an agent, a vector environment, a list of addresses.

The loop of :class:`Runner` knows nothing of where records go, and nothing of engines. An environment that ends is
refilled at once with the next address, so all environments stay busy until the list is empty.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vlaser_gym.agents.base import Agent, agent_code, rows_of
from vlaser_gym.envs.address import Address
from vlaser_gym.errors import InvalidActionError
from vlaser_gym.evaluation.patience import Patience

Bools = NDArray[np.bool_]
Lanes = NDArray[np.int64]
Step = tuple[dict[str, Any], NDArray[Any], Bools, Bools, dict[str, Any]]


class VectorEnv(Protocol):
    """The part of :class:`~vlaser_gym.envs.vector.SceneVectorEnv` (autoreset mode DISABLED) that the runner uses."""

    num_envs: int

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[dict[str, Any], Any]:
        """Begin episodes on the environments of ``options["reset_mask"]``."""

    def step_chunk(self, actions: NDArray[np.float64]) -> Step:
        """Execute ``[N, H, 7]`` on the environments that run."""

    def advance_to_next_subtask(self, lanes: Lanes) -> None:
        """The agent has declared the current sub-task done on these environments."""


@dataclass(frozen=True)
class EpisodeResult:
    """A finished episode.

    Attributes:
        success: at the last step, the benchmark's rule.
        success_any: at any step.
        first_success_step: control steps up to the first success; ``None`` without one.
        steps: control steps.
        reward: sum over the steps.
        ending: ``"terminated"`` or ``"truncated"``.
        flags: the task's flags after the last step.
        flags_any: the task's flags, true if true after any step.
        trajectory: per-step arrays by name: ``flag/<name> [T]``, ``reward [T]``, ``decision`` (steps at which the agent
            decided), ``explain/<name>`` and ``thought`` (one row per decision, where the agent tells what lies behind
            it or says what comes next), and the engine's states where the environment records them: ``action [T, 7]``,
            and with row 0 for the initial state ``qpos [T + 1, J]``, ``object/<name> [T + 1, 7]``,
            ``joint/<name> [T + 1]``, ``instruction [T + 1]`` (text, what an observation of that state tells the robot)
            and ``stage [T + 1]``.
        seconds: wall time from reset to end.
        training: what the agent decided by, one row per decision, where the runner was asked to keep it (``keep``).
        environment: settings that the simulator says to have run the task with, where it has a say.
    """

    address: Address
    success: bool
    success_any: bool
    first_success_step: int | None
    steps: int
    reward: float
    ending: str
    flags: dict[str, bool]
    flags_any: dict[str, bool]
    trajectory: dict[str, NDArray[Any]] = field(repr=False)
    seconds: float = 0.0
    training: dict[str, NDArray[Any]] = field(default_factory=dict, repr=False)
    environment: Mapping[str, Any] = field(default_factory=dict, repr=False)


class Runner:
    """Runs every address once.

    Args:
        env: vector environment with autoreset mode DISABLED whose environments may run the tasks of ``addresses``.
        agent: who acts.
        addresses: in this order they are begun. At least as many as there are environments, unless ``used``.
        stop: asked before an episode begins; once it says yes, no further episode begins and those running end.
        name: of the agent, for errors.
        patience: limits the time that the agent's methods may take.
        used: all environments have run an episode before; then there may be fewer addresses than environments.
        keep: results hold what learners need; the agent has a method ``decided`` then.

    Attributes:
        running: address of the episode on each busy environment.
    """

    def __init__(
        self,
        env: VectorEnv,
        agent: Agent,
        addresses: Iterable[Address],
        stop: Callable[[], bool] = lambda: False,
        name: str = "agent",
        patience: Patience | None = None,
        used: bool = False,
        keep: bool = False,
    ) -> None:
        self.env = env
        self.agent = agent
        self.waiting = deque(addresses)
        self.stop = stop
        self.name = name
        self.keep = keep
        self.call: Callable[..., Any] = _call if patience is None else patience
        self.running: dict[int, Address] = {}
        self._episodes: dict[int, _Recorder] = {}
        self._observations: dict[str, Any] = {}
        if len(self.waiting) < env.num_envs and not used:
            raise ValueError(f"{env.num_envs} environments need at least as many episodes; got {len(self.waiting)}")

    def __iter__(self) -> Iterator[EpisodeResult]:
        """Results as the episodes end."""
        self._begin(np.arange(self.env.num_envs))
        while self.running:
            lanes = np.array(sorted(self.running))
            actions = self._decide(lanes)
            self._observations, _, terminated, truncated, info = self.env.step_chunk(actions)
            for lane in lanes:
                self._episodes[lane].add(info, lane)
            ended = lanes[(terminated | truncated)[lanes]]
            for lane in ended:
                del self.running[lane]
                yield self._episodes.pop(lane).result("terminated" if terminated[lane] else "truncated")
            self._begin(ended)

    def _begin(self, lanes: Lanes) -> None:
        """Fill environments with the next addresses, as many as there are."""
        if len(lanes) and self.stop():
            self.waiting.clear()
        lanes = lanes[: len(self.waiting)]
        if not len(lanes):
            return
        self.running |= {int(lane): self.waiting.popleft() for lane in lanes}
        self._observations, info = self.env.reset(options=self._reset_options(lanes))
        now = time.perf_counter()
        for lane in lanes:
            self._episodes[int(lane)] = _Recorder(
                self.running[int(lane)], now, _of_lane(info, "initial_states", int(lane))
            )
        self._ask("reset", lanes, [self.running[int(lane)] for lane in lanes])

    def _reset_options(self, lanes: Lanes) -> dict[str, Any]:
        mask = np.zeros(self.env.num_envs, bool)
        mask[lanes] = True
        # Rows outside the mask are not read; they still need values of the right kind.
        any_address = self.running[int(lanes[0])]
        rows = [self.running.get(lane, any_address) for lane in range(self.env.num_envs)]
        return {
            "reset_mask": mask,
            "task": [a.task for a in rows],
            "variant": [a.variant for a in rows],
            "layout": [a.layout for a in rows],
            "trial": [a.trial for a in rows],
        }

    def _decide(self, lanes: Lanes) -> NDArray[np.float64]:
        """Actions ``[N, H, 7]`` of all environments, zero where none runs."""
        decided = self._checked(self._ask("act", rows_of(self._observations, lanes), lanes), lanes)
        if hasattr(self.agent, "subtask_done"):  # it declares sub-tasks done, and the environment goes on
            done = lanes[np.asarray(self._ask("subtask_done", lanes), bool)]
            if len(done):
                self.env.advance_to_next_subtask(done)
        if hasattr(self.agent, "thoughts"):
            for lane, text in zip(lanes, self._ask("thoughts", lanes) or (), strict=False):
                self._episodes[int(lane)].think(str(text))
        actions = np.zeros((self.env.num_envs, *decided.shape[1:]))
        actions[lanes] = decided
        if self.keep:
            for lane, row in zip(lanes, self._ask("decided", lanes), strict=True):
                self._episodes[int(lane)].keep(row)
        if getattr(self.agent, "explain", None) is not None:
            for lane, row in zip(lanes, self._ask("explained", lanes), strict=True):
                self._episodes[int(lane)].explain(row)
        return actions

    def _ask(self, method: str, *arguments: Any) -> Any:
        """Call a method of the agent; its errors are reported as the agent's."""
        with agent_code(f"{self.name}.{method}"):
            return self.call(getattr(self.agent, method), *arguments)

    def _checked(self, chunk: Any, lanes: Lanes) -> NDArray[np.float64]:
        """The agent's answer as float64 ``[N, H, 7]``."""
        why = ""
        try:
            actions = np.asarray(chunk, np.float64)
        except (
            TypeError,
            ValueError,
            OverflowError,
            RuntimeError,
        ) as error:  # bfloat16, gradients, ragged
            actions, why = np.empty(0), f" that numpy cannot read as numbers ({str(error).splitlines()[0]})"
        if actions.ndim != 3 or actions.shape[0] != len(lanes) or actions.shape[1] < 1 or actions.shape[2] != 7:
            got = f"shape {tuple(chunk.shape)}" if hasattr(chunk, "shape") else f"a {type(chunk).__name__}"
            raise InvalidActionError(
                f"{self.name}.act must return one chunk of actions per environment, shape ({len(lanes)}, H, 7); got "
                f"{got}{why}."
            )
        bad = ~np.isfinite(actions).all((1, 2))
        if bad.any():
            lane = int(lanes[np.argmax(bad)])
            raise InvalidActionError(
                f"{self.name}.act returned a number that is not finite for environment {lane}, episode "
                f"{self.running[lane]}, after {self._episodes[lane].steps} steps; check its inputs and weights."
            )
        return actions


class _Recorder:
    """Collects what an episode does until it ends."""

    def __init__(self, address: Address, begun: float, initial: Mapping[str, Any]) -> None:
        self.address = address
        self.begun = begun
        self.steps = 0
        self.parts: dict[str, list[NDArray[Any]]] = {k: [np.asarray(v)[None]] for k, v in initial.items()}
        self.kept: dict[str, list[NDArray[Any]]] = {}

    def keep(self, row: Mapping[str, NDArray[Any]]) -> None:
        """Take over what the agent decided by."""
        for name, values in row.items():
            self.kept.setdefault(name, []).append(values)

    def explain(self, row: Mapping[str, NDArray[Any]]) -> None:
        """Take over what the agent tells of its decision."""
        for name, values in row.items():
            self._append(f"explain/{name}", np.asarray(values)[None])

    def think(self, text: str) -> None:
        """Take over what the agent said at this decision."""
        self._append("thought", np.array([text]))

    def add(self, info: Mapping[str, Any], lane: int) -> None:
        """Take over what the last chunk did on this environment."""
        chunk = info["chunk"]
        ran = np.asarray(chunk["ran"][lane], bool)
        self._append("decision", np.array([self.steps]))
        self._append("reward", np.asarray(chunk["reward"][lane], np.float64)[ran])
        for name, values in chunk["flags"].items():
            if f"_{name}" not in info or info[f"_{name}"][lane]:  # a flag of this environment's task
                self._append(f"flag/{name}", np.asarray(values[lane], bool)[ran])
        for name, values in (_of_lane(info, "states", lane)).items():
            self._append(name, np.asarray(values))
        self.steps += int(ran.sum())

    def result(self, ending: str) -> EpisodeResult:
        """Everything that was taken over, at the end of the episode: at least one chunk ran."""
        arrays = {name: np.concatenate(parts) for name, parts in self.parts.items()}
        flags = {name.removeprefix("flag/"): values for name, values in arrays.items() if name.startswith("flag/")}
        success = flags["success"]
        return EpisodeResult(
            address=self.address,
            success=bool(success[-1]),
            success_any=bool(success.any()),
            first_success_step=int(np.argmax(success)) + 1 if success.any() else None,
            steps=self.steps,
            reward=float(arrays["reward"].sum()),
            ending=ending,
            flags={name: bool(values[-1]) for name, values in flags.items()},
            flags_any={name: bool(values.any()) for name, values in flags.items()},
            trajectory=arrays,
            seconds=time.perf_counter() - self.begun,
            training={name: np.stack(rows) for name, rows in self.kept.items()},
        )

    def _append(self, name: str, values: NDArray[Any]) -> None:
        self.parts.setdefault(name, []).append(values)


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def _of_lane(info: Mapping[str, Any], name: str, lane: int) -> Mapping[str, Any]:
    """The recorded states of one environment; empty if none are recorded."""
    recorded = info.get(name)
    return {} if recorded is None or recorded[lane] is None else recorded[lane]
