"""Many episodes at once: a Gymnasium vector environment over any engine."""

from __future__ import annotations

import copy
import string
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import ArrayLike, NDArray

from vlaser_gym.conventions import Convention, of_robot, rotations
from vlaser_gym.envs import transforms
from vlaser_gym.envs.address import LAYOUT_KINDS, Address, canonical_layout
from vlaser_gym.envs.engines import ActingEngine, DrivenEngine, Placement, Reading, make_engine
from vlaser_gym.envs.instructions import Instructions
from vlaser_gym.envs.lane import Lane
from vlaser_gym.envs.perturbations.base import Perturbation
from vlaser_gym.envs.robots import POLICY_CAMERA, Camera, RobotSetup, get_setup
from vlaser_gym.envs.robots.kinematics import KinematicTree
from vlaser_gym.envs.tasks import add_task, get_task
from vlaser_gym.envs.tasks.base import Snapshot, Task
from vlaser_gym.errors import ClosedError, GymError, InvalidActionError, InvalidConfigError, UnknownNameError

Ints = NDArray[np.int64]
Info = dict[str, Any]

#: Where things stand in the ``state`` observation. Poses are in the robot-base frame, quaternions wxyz.
STATE_FIELDS = {
    "tcp": slice(0, 7),
    "openness": slice(7, 8),
    "source": slice(8, 15),
    "target": slice(15, 22),
    "joints": slice(22, 25),
    "stage": slice(25, 26),
}
#: Observations that are no images; those are named by :attr:`RobotSetup.image_cameras`.
_NO_IMAGES = ("proprio", "instruction", "state")
#: Region layouts from this number on are drawn by environments; below it they are for evaluation.
FIRST_TRAINING_REGION = 1_000_000
_LAST_REGION = 2**31 - 1
#: Bounds of ``proprio``: the reach of any robot here (m), a unit quaternion, openness (a squeezed gripper is below 0).
_PROPRIO_LIMITS = np.array([2, 2, 2, 1, 1, 1, 1, 2], np.float32)
_LIMITS = np.array([1, 1, 1, np.pi / 2, np.pi / 2, np.pi / 2, 1], np.float32)
_CHARACTERS = frozenset(string.ascii_letters + string.digits + string.punctuation + " ")


class SceneVectorEnv(VectorEnv[dict[str, Any], NDArray[Any], NDArray[Any]]):
    """``num_envs`` environments, each running one episode after another.

    Args:
        task: a task, by its name or itself, or several of one robot; environment ``i`` starts with ``task[i %
            len(task)]``. A task that is no name becomes known by its name.
        num_envs: number of environments.
        engine: who simulates: one of :func:`~vlaser_gym.envs.engines.engine_names`.
        look: what images look like; ``None`` for the engine's own.
        variant: named variant of the scenes.
        layouts: ``"grid"``, ``"region"`` or ``"region2"``: where layouts are drawn from when a reset names none.
        observe: which to compute, one name or several: ``image`` (uint8 ``[H, W, 3]``), ``<camera>_image`` for each
            other camera of the robot (``wrist_image``), ``proprio`` (float32 ``[8]``: TCP position in m and quaternion
            wxyz with w >= 0 in the base frame, gripper openness), ``instruction`` (text), ``state`` (float32 ``[26]``,
            privileged, see :data:`STATE_FIELDS`).
        terminate_on_success: end an episode at its first success. The benchmark does not: it runs to the step limit
            and counts the last step.
        autoreset_mode: ``SAME_STEP`` (learners), ``NEXT_STEP`` (Gymnasium's default, and that of ``make_vec``: the step
            or chunk after an environment's end begins its next episode and executes nothing on it), or ``DISABLED`` (an
            environment that ended stands still until it is reset).
        max_episode_steps: control steps after which episodes are truncated; ``None``, or the limit of one of the tasks,
            for each task's own.
        instruction: told in place of the tasks' own sentences: one, several (one of them by chance of the episode's
            address), or a mapping from tasks to such.
        record_states: put every control step's state into ``info["states"]``; see
            :meth:`~vlaser_gym.envs.lane.Lane.state`.
        engine_options: keyword arguments of the engine.
        perturbation: changes initial states, light and cameras of all episodes;
            :class:`~vlaser_gym.wrappers.perturbed.Perturbed` does the rest of it.

    An action is 7 numbers: TCP translation (m) and axis-angle rotation (rad) in the base frame, neither scaled nor
    clipped, and the gripper in [-1, 1], whose sign is the robot's own; :mod:`vlaser_gym.conventions` declares it all.

    Example:
        >>> env = SceneVectorEnv("widowx_stack_cube", num_envs=2, observe=("proprio", "instruction"))
        >>> observation, info = env.reset(options={"layout": [0, 5]})
        >>> observation["proprio"].shape, env.addresses[1].layout
        ((2, 8), 'grid:5')
        >>> *_, info = env.step_chunk(np.zeros((2, 4, 7)))
        >>> info["steps"].tolist(), info["success"].tolist()
        ([4, 4], [False, False])
        >>> env.close()
    """

    def __init__(
        self,
        task: str | Task | Sequence[str | Task],
        num_envs: int = 1,
        *,
        engine: str = "mujoco",
        look: str | None = None,
        variant: str = "default",
        layouts: str = "grid",
        observe: str | Sequence[str] = ("image", "proprio", "instruction"),
        terminate_on_success: bool = False,
        autoreset_mode: AutoresetMode = AutoresetMode.SAME_STEP,
        record_states: bool = False,
        engine_options: Mapping[str, Any] | None = None,
        perturbation: Perturbation | None = None,
        render_mode: str | None = "rgb_array",
        max_episode_steps: int | None = None,
        instruction: str | Sequence[str] | Mapping[str, str | Sequence[str]] | None = None,
    ) -> None:
        self._made = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        self.observe = (observe,) if isinstance(observe, str) else tuple(observe)
        _check_choices(num_envs, layouts, autoreset_mode, render_mode, max_episode_steps)
        tasks = [task] if isinstance(task, str | Task) else list(task)
        self.tasks = tuple(get_task(one) if isinstance(one, str) else add_task(one) for one in tasks)
        _check_tasks(self.tasks, variant, layouts)
        told = _instructions(instruction, self.tasks)
        setups = [get_setup(t.robot_setup) for t in self.tasks]
        self.robot = _only_robot(self.tasks)
        self._cameras = _observed_cameras(self.observe, setups)
        self.num_envs, self.render_mode = num_envs, render_mode
        self.terminate_on_success, self.autoreset_mode = terminate_on_success, AutoresetMode(autoreset_mode)
        self.record_states = record_states
        self._variant, self._layouts = variant, layouts
        self.perturbation = perturbation
        self.metadata = {
            "render_modes": ["rgb_array"],
            "render_fps": setups[0].control_hz,
            "autoreset_mode": self.autoreset_mode,
        }
        self.single_action_space = spaces.Box(-_LIMITS, _LIMITS, dtype=np.float32)
        self.action_space = batch_space(self.single_action_space, num_envs)

        self.engine = make_engine(engine, num_envs, look, engine_options, self._cameras.values())
        cameras = {name: setups[0].cameras[camera] for name, camera in self._cameras.items()}
        size: tuple[int, int] | None = getattr(self.engine, "image_size", None)
        if size is not None:  # the engine's, in place of the robot's
            cameras = {name: camera.at(size) for name, camera in cameras.items()}
        self.single_observation_space = _observation_space(self.observe, cameras, told)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.controller = setups[0].make_controller(num_envs)
        self._tree = KinematicTree(setups[0].robot)
        self._tcp_link = setups[0].robot.tcp_link
        queried = {name for t in self.tasks for query in t.contacts for name in (query.of, query.by)}
        self._contact_links = sorted(name.removeprefix("link:") for name in queried if name.startswith("link:"))
        limit = None if max_episode_steps in {t.max_steps for t in self.tasks} else max_episode_steps
        self.lanes = [Lane(self.tasks[i % len(self.tasks)], limit, told) for i in range(num_envs)]
        self._flag_names = tuple(dict.fromkeys(name for t in self.tasks for name in t.flags))
        # Images of each camera that still show the present: an environment that has not moved is not rendered again.
        self._frames: dict[str, NDArray[np.uint8]] = {}
        self._stale = {camera: np.ones(num_envs, bool) for camera in setups[0].cameras}

    # ------------------------------------------------------------------ addresses

    @property
    def addresses(self) -> list[Address]:
        """The episode that each environment runs."""
        return [lane.address for lane in self.lanes]

    @property
    def convention(self) -> Convention:
        """The convention of actions, proprioception and images; None for the tasks of a robot from outside.

        Raises:
            UnknownNameError: for such a robot.
        """
        return of_robot(self.robot)

    @property
    def ended(self) -> NDArray[np.bool_]:
        """The environments whose episode has ended (or that were never reset), ``[N]``."""
        return np.array([lane.ended for lane in self.lanes])

    # ------------------------------------------------------------------ reset

    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, Any], Info]:
        """Start episodes.

        Args:
            seed: for the environments' own streams of layouts; an integer s gives environment i the seed s + i.
            options: ``reset_mask`` (bool ``[N]``, default all), ``task``, ``variant``, ``layout`` (``5``,
                ``"grid:5"``, ``"region:17"``), ``trial``; each one value or one per environment. Without ``layout`` an
                environment draws one.

        Raises:
            UnknownNameError: for a task that this environment does not hold, or a variant the task does not have.
            InvalidConfigError: for a layout that does not exist, options of the wrong length, numbers that are not
                whole or below 0, or a first reset that leaves environments out.
            ClosedError: after :meth:`close`.
        """
        self._check_open()
        chosen = dict(options or {})
        mask = np.asarray(chosen.pop("reset_mask", np.ones(self.num_envs, bool)), bool)
        if mask.shape != (self.num_envs,):
            raise InvalidConfigError(f"reset_mask needs {self.num_envs} booleans; got shape {mask.shape}.")
        waiting = [i for i, lane in enumerate(self.lanes) if not (lane.started or mask[i])]
        if waiting:
            raise InvalidConfigError(
                f"The first reset must cover every environment; reset_mask leaves out environments {waiting}."
            )
        lanes = np.flatnonzero(mask)
        with self._streams_kept_after_an_error():
            seeds = self._seeds(seed)
            for i in lanes:
                if seed is not None or self.lanes[i].rng is None:
                    self.lanes[i].rng = np.random.default_rng(seeds[i])
            self._place(lanes, self._chosen_addresses(lanes, chosen))
        info = self._info(np.zeros(self.num_envs, np.int64))
        if self.record_states:
            info["initial_states"] = [self.lanes[i].state() if mask[i] else None for i in range(self.num_envs)]
        return self._observe(), info

    @contextmanager
    def _streams_kept_after_an_error(self) -> Iterator[None]:
        """Inside, environments draw layouts; a reset that is refused has drawn none, so that the next one is the
        same.
        """
        kept = [(lane.rng, None if lane.rng is None else lane.rng.bit_generator.state) for lane in self.lanes]
        try:
            yield
        except GymError:
            for lane, (rng, state) in zip(self.lanes, kept, strict=True):
                lane.rng = rng
                if rng is not None and state is not None:
                    rng.bit_generator.state = state
            raise

    def _seeds(self, seed: int | Sequence[int] | None) -> list[int | None]:
        """One per environment; ``None`` is a fresh one."""
        if not _is_column(seed):
            return [None if seed is None else _whole("seed", seed) + i for i in range(self.num_envs)]
        seeds: list[Any] = list(cast(Sequence[int], seed))
        if len(seeds) != self.num_envs:
            raise InvalidConfigError(f"seed needs one number or {self.num_envs}; got {len(seeds)}.")
        return [None if value is None else _whole("seed", value) for value in seeds]

    def _chosen_addresses(self, lanes: Ints, options: dict[str, Any]) -> list[Address]:
        columns = {}
        for name in ("task", "variant", "layout", "trial"):
            value = options.pop(name, None)
            columns[name] = list(value) if _is_column(value) else [value] * self.num_envs
            if len(columns[name]) != self.num_envs:
                raise InvalidConfigError(
                    f"Option {name!r} needs one value or {self.num_envs}; got {len(columns[name])}."
                )
        if options:
            raise UnknownNameError("reset option", next(iter(options)), (*columns, "reset_mask"))
        return [self._chosen_address(self.lanes[i], {k: v[i] for k, v in columns.items()}) for i in lanes]

    def _chosen_address(self, lane: Lane, chosen: dict[str, Any]) -> Address:
        task = lane.task if chosen["task"] is None else self._task(chosen["task"])
        variant = self._variant if chosen["variant"] is None else chosen["variant"]
        if variant not in task.variants:
            raise UnknownNameError(f"variant of {task.name}", variant, task.variants)
        if chosen["layout"] is not None:
            layout = canonical_layout(chosen["layout"])
        else:
            assert lane.rng is not None
            within = (0, task.num_layouts) if self._layouts == "grid" else (FIRST_TRAINING_REGION, _LAST_REGION)
            layout = f"{self._layouts}:{lane.rng.integers(*within)}"
        trial = 0 if chosen["trial"] is None else _whole("Option 'trial'", chosen["trial"])
        return Address(task.name, variant, layout, trial)

    def _task(self, name: Any) -> Task:
        for task in self.tasks:
            if task.name == name:
                return task
        raise UnknownNameError("task of this environment", name, [task.name for task in self.tasks])

    def _place(self, lanes: Ints, addresses: Sequence[Address]) -> None:
        placements = []
        for address in addresses:
            task = self._task(address.task)
            layout = task.layout(address.layout, address.variant)
            qpos = np.array(layout.qpos or get_setup(task.robot_setup).qpos)
            placement = Placement(task, address.variant, layout, qpos, address.layout)
            if self.perturbation is not None:
                placement = self.perturbation.place(placement, self.perturbation.moment(address))
            placements.append(placement)
        self.start(lanes, addresses, placements)

    def start(self, lanes: Ints, addresses: Sequence[Address], placements: Sequence[Placement]) -> None:
        """Start episodes at initial states of any origin, such as recordings; ``addresses`` only name them."""
        self.engine.place([int(i) for i in lanes], placements)
        self._outdate(lanes)
        if len(lanes):
            self.controller.reset(lanes, np.array([placement.qpos for placement in placements]))
        readings = self.engine.read(lanes)
        for i, address, placement, reading in zip(lanes, addresses, placements, readings, strict=True):
            self.lanes[i].begin(address, placement, reading)

    # ------------------------------------------------------------------ step

    def step(self, actions: ArrayLike) -> tuple[dict[str, Any], NDArray[Any], NDArray[Any], NDArray[Any], Info]:
        """One control step with ``actions [N, 7]``; a chunk of length one."""
        array = numbers(actions)
        if array.shape != (self.num_envs, 7):
            raise InvalidActionError(f"Expected actions of shape ({self.num_envs}, 7); got {array.shape}.")
        return self.step_chunk(array[:, None])

    def step_chunk(self, actions: ArrayLike) -> tuple[dict[str, Any], NDArray[Any], NDArray[Any], NDArray[Any], Info]:
        """Up to H control steps with ``actions [N, H, 7]``; images are made once, at the end.

        An environment whose episode ends inside the chunk stops there. Rewards are summed over the steps that ran.

        Returns:
            observation, reward ``[N]``, terminated ``[N]``, truncated ``[N]`` and info with ``success``,
            ``success_any``, ``elapsed_steps``, ``steps`` (how many ran), all flags, and ``chunk``: ``ran [N, H]``,
            ``reward [N, H]``, ``flags {name: [N, H]}``.

        Raises:
            InvalidActionError: if the shape is wrong or a running environment's action is not finite.
            ClosedError: after :meth:`close`.
            gymnasium.error.ResetNeeded: before the first reset.
        """
        array = self._checked(actions)
        horizon = array.shape[1]
        active = ~self.ended
        renewed = np.flatnonzero(~active) if self.autoreset_mode is AutoresetMode.NEXT_STEP else np.zeros(0, np.int64)
        ran = np.zeros((self.num_envs, horizon), bool)
        reward = np.zeros((self.num_envs, horizon))
        flags = {name: np.zeros((self.num_envs, horizon), bool) for name in self._flag_names}
        trace: list[list[dict[str, NDArray[Any]]]] = [[] for _ in self.lanes]
        for h in range(horizon):
            lanes = np.flatnonzero(~self.ended)
            if not len(lanes):
                break
            self._control_step(lanes, array[lanes, h])
            ran[lanes, h] = True
            for i in lanes:
                lane = self.lanes[i]
                reward[i, h] = float(lane.flags["success"])
                for name, value in lane.flags.items():
                    flags[name][i, h] = value
                if self.record_states:
                    trace[i].append({**lane.state(), "action": array[i, h].copy()})
        if len(renewed):
            self._renew(renewed)
        info = self._info(ran.sum(1))
        info["chunk"] = {"ran": ran, "reward": reward, "flags": flags}
        if self.record_states:
            info["states"] = [
                {name: np.stack([step[name] for step in steps]) for name in steps[0]} if steps else {}
                for steps in trace
            ]
            if len(renewed):
                info["initial_states"] = [self.lanes[i].state() if i in renewed else None for i in range(self.num_envs)]
        terminated = np.array([lane.terminated for lane in self.lanes]) & active
        truncated = np.array([lane.truncated for lane in self.lanes]) & active
        observation = self._autoreset(terminated | truncated, info)
        return observation, reward.sum(1), terminated, truncated, info

    def advance_to_next_subtask(self, lanes: Ints) -> None:
        """The agent declares the first sub-task done on these environments; the next observation tells it the second.

        Tasks of one sub-task do not change. To be called before the control step that the agent has decided on.
        """
        for i in lanes:
            self.lanes[i].advance_subtask()
        if isinstance(self.engine, ActingEngine):
            self.engine.advance(lanes)
            for i, reading in zip(lanes, self.engine.read(lanes), strict=True):
                self.lanes[i].reading = reading

    def tcp_position(self, lane: int) -> NDArray[np.float64]:
        """The tool centre point of an environment, world frame, m, ``[3]``."""
        local = np.asarray(self._proprio([self.lanes[lane]])[0, :7], np.float64)
        return np.asarray(transforms.compose(self.lanes[lane].base_pose, local)[:3])

    def displace(self, lane: int, body: int, offset: tuple[float, float]) -> None:
        """Move an object of an environment, by its number among the task's objects, along world x and y (m), in
        mid-episode.

        Only for engines that have such a method, as the built-in one.
        """
        cast(Any, self.engine).displace(lane, body, offset)
        (self.lanes[lane].reading,) = self.engine.read(np.array([lane]))
        self._outdate(np.array([lane]))

    def _checked(self, actions: ArrayLike) -> NDArray[np.float64]:
        array = np.asarray(numbers(actions), np.float64)
        if array.ndim != 3 or array.shape[0] != self.num_envs or array.shape[2] != 7 or not array.shape[1]:
            raise InvalidActionError(f"Expected a chunk of shape ({self.num_envs}, H, 7); got {array.shape}.")
        self._check_started()
        bad = ~np.isfinite(array).all(2) & ~self.ended[:, None]
        if bad.any():
            lane, h = (int(i) for i in np.argwhere(bad)[0])
            raise InvalidActionError(
                f"Expected finite actions; environment {lane} ({self.addresses[lane]}) got {array[lane, h].tolist()}."
            )
        return array

    def _check_open(self) -> None:
        if self.closed:
            raise ClosedError("Expected an open environment; this one was closed: make a new one.")

    def _check_started(self) -> None:
        self._check_open()
        if not all(lane.started for lane in self.lanes):
            raise ResetNeeded("Call reset() before the first step and the first image.")

    def _control_step(self, lanes: Ints, actions: NDArray[np.float64]) -> None:
        running = [self.lanes[i] for i in lanes]
        self.drive(lanes, actions, [lane.reading for lane in running])
        self._outdate(lanes)
        for lane, reading in zip(running, self.engine.read(lanes), strict=True):
            lane.advance(reading)
        # The simulator's own rules go before the task's where it has any.
        for lane in running:
            if (verdict := lane.reading.verdict) is not None:
                lane.evaluate(dict(verdict.flags), lane.memory, verdict.stage, self.terminate_on_success)
        unevaluated = [lane for lane in running if lane.reading.verdict is None]
        if unevaluated:
            self._evaluate_by_task(unevaluated)

    def drive(self, lanes: Ints, actions: NDArray[np.float64], readings: Sequence[Reading]) -> None:
        """Let the engine run one control step with ``actions [B, 7]`` from ``readings``; evaluate no flag."""
        if isinstance(self.engine, ActingEngine):
            self.engine.execute(lanes, actions)
            return
        qpos = np.array([reading.qpos for reading in readings])
        qvel = np.array([reading.qvel for reading in readings])
        cast(DrivenEngine, self.engine).step(lanes, self.controller.act(lanes, actions, qpos, qvel))

    def _evaluate_by_task(self, running: list[Lane]) -> None:
        link_pose = self._link_poses(running)
        # Variants of one task may differ in their number of objects.
        alike: dict[tuple[str, str], list[int]] = {}
        for row, lane in enumerate(running):
            alike.setdefault((lane.task.name, lane.address.variant), []).append(row)
        for rows in alike.values():
            self._evaluate([running[row] for row in rows], {name: poses[rows] for name, poses in link_pose.items()})

    def _link_poses(self, lanes: list[Lane]) -> dict[str, NDArray[np.float64]]:
        """World poses ``[B, 7]`` of the links that contact queries name."""
        base = np.array([lane.base_pose for lane in lanes])
        base_rotation, base_position = rotations.matrix_from_quaternion(base[:, 3:]), base[:, :3]
        local = self._tree.link_poses(np.array([lane.reading.qpos for lane in lanes]), self._contact_links)
        if not local:
            return {}
        rotation, position = (np.array(parts) for parts in zip(*local.values(), strict=True))
        world = transforms.make_pose(
            base_position + rotations.rotate(base_rotation, position), base_rotation @ rotation
        )
        return dict(zip(local, world, strict=True))

    def _evaluate(self, lanes: list[Lane], link_pose: dict[str, NDArray[np.float64]]) -> None:
        """Flags of environments of one task, in one batch."""
        task, readings = lanes[0].task, [lane.reading for lane in lanes]
        snapshot = Snapshot(
            object_pose=np.array([r.object_pose for r in readings]),
            link_pose=link_pose,
            impulse=np.array([r.impulse for r in readings]),
            joints={name: np.array([r.joints[name] for r in readings]) for name in readings[0].joints},
            elapsed=np.array([lane.elapsed for lane in lanes]),
        )
        memory = {name: np.concatenate([lane.memory[name] for lane in lanes]) for name in lanes[0].memory}
        flags, memory = task.evaluate(snapshot, memory)
        verdicts = zip(*(values.tolist() for values in flags.values()), strict=True)
        for row, (lane, verdict, stage) in enumerate(zip(lanes, verdicts, task.stage(memory).tolist(), strict=True)):
            remembered = {name: values[row : row + 1] for name, values in memory.items()}
            lane.evaluate(dict(zip(flags, verdict, strict=True)), remembered, stage, self.terminate_on_success)

    def _renew(self, lanes: Ints) -> None:
        """Begin the next episodes of environments, of their own tasks in layouts that they draw."""
        self._place(lanes, [self._chosen_address(self.lanes[i], dict.fromkeys(_COLUMNS)) for i in lanes])

    def _autoreset(self, done: NDArray[np.bool_], info: Info) -> dict[str, Any]:
        if self.autoreset_mode is not AutoresetMode.SAME_STEP or not done.any():
            return self._observe()
        final = self._observe()
        info["final_obs"] = np.array([None] * self.num_envs, object)
        for i in np.flatnonzero(done):
            info["final_obs"][i] = {name: copy.copy(values[i]) for name, values in final.items()}
        info["_final_obs"] = done.copy()
        ends = {k: v for k, v in info.items() if k not in ("final_obs", "_final_obs", "states", "chunk")}
        info["final_info"], info["_final_info"] = copy.deepcopy(ends), done.copy()
        lanes = np.flatnonzero(done)
        self._renew(lanes)
        if self.record_states:
            info["initial_states"] = [self.lanes[i].state() if done[i] else None for i in range(self.num_envs)]
        fresh = self._observe(lanes)
        return {name: _merged(final[name], fresh[name], lanes) for name in final}

    # ------------------------------------------------------------------ observation

    def _observe(self, rows: Ints | None = None) -> dict[str, Any]:
        """Observations of ``rows`` (default: all environments), one row per environment."""
        rows = np.arange(self.num_envs) if rows is None else rows
        lanes = [self.lanes[i] for i in rows]
        makers: dict[str, Callable[[], Any]] = {
            "proprio": lambda: self._proprio(lanes),
            "instruction": lambda: tuple(lane.instruction for lane in lanes),
            "state": lambda: self._state(lanes),
        }
        images = {name: self._images(rows, camera) for name, camera in self._cameras.items()}
        return {name: images[name] if name in images else makers[name]() for name in self.observe}

    def _outdate(self, lanes: Ints) -> None:
        """Images of ``lanes`` show the past."""
        for stale in self._stale.values():
            stale[lanes] = True

    def _images(self, rows: Ints, camera: str = POLICY_CAMERA) -> NDArray[np.uint8]:
        """Images of ``rows``, ``[B, H, W, 3]``; the array is the caller's."""
        stale = rows[self._stale[camera][rows]]
        if len(stale) == self.num_envs:
            self._frames[camera] = self.engine.images(stale, camera)
        elif len(stale):
            frames = self.engine.images(stale, camera)
            kept = self._frames.setdefault(camera, np.zeros((self.num_envs, *frames.shape[1:]), np.uint8))
            kept[stale] = frames
        self._stale[camera][stale] = False
        kept = self._frames[camera]
        return kept.copy() if len(rows) == self.num_envs else kept[rows]

    def _proprio(self, lanes: list[Lane]) -> NDArray[np.float32]:
        reported = [lane.reading.proprio for lane in lanes]
        if all(values is not None for values in reported):
            return np.array(reported, np.float32)
        qpos = np.array([lane.reading.qpos for lane in lanes])
        rotation, position = self._tree.link_poses(qpos, [self._tcp_link])[self._tcp_link]
        openness = get_setup(lanes[0].task.robot_setup).openness(qpos)
        pose = transforms.make_pose(position, rotation)
        return np.concatenate([pose, openness[:, None]], -1).astype(np.float32)

    def _state(self, lanes: list[Lane]) -> NDArray[np.float32]:
        state = np.zeros((len(lanes), 26), np.float32)
        state[:, :8] = self._proprio(lanes)
        base = transforms.invert(np.array([lane.base_pose for lane in lanes]))
        for field in ("source", "target"):
            world = np.array([getattr(lane, f"{field}_pose") for lane in lanes])
            state[:, STATE_FIELDS[field]] = transforms.compose(base, world)
        for row, lane in enumerate(lanes):
            joints = list(lane.reading.joints.values())
            state[row, 22 : 22 + len(joints)] = joints
            state[row, 25] = lane.stage
        return state

    def _info(self, steps: Ints) -> Info:
        everywhere = np.ones(self.num_envs, bool)
        info: Info = {
            "success_any": np.array([lane.success_any for lane in self.lanes]),
            "elapsed_steps": np.array([lane.elapsed for lane in self.lanes]),
            "steps": steps,
        }
        for name in list(info):
            info["_" + name] = everywhere
        for name in self._flag_names:
            info[name] = np.array([lane.flags.get(name, False) for lane in self.lanes])
            info["_" + name] = np.array([name in lane.task.flags for lane in self.lanes])
        # What Stable-Baselines3 and others look for.
        info["is_success"], info["_is_success"] = info["success"].copy(), info["_success"].copy()
        return info

    def render(self) -> Any:
        """Images of all environments by the policy's camera, N times ``uint8 [H, W, 3]``."""
        self._check_started()
        return tuple(self._images(np.arange(self.num_envs)))

    # ------------------------------------------------------------------ attributes of environments

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """An attribute of every environment: ``address``, ``instruction``, ``task``, ``elapsed_steps``,
        ``max_episode_steps``, or one that all environments share, the environment's own.

        Raises:
            UnknownNameError: for one that there is not.
        """
        own: dict[str, Callable[[Lane], Any]] = {
            "address": lambda lane: lane.address,
            "instruction": lambda lane: lane.instruction,
            "task": lambda lane: lane.task.name,
            "elapsed_steps": lambda lane: lane.elapsed,
            "max_episode_steps": lambda lane: lane.max_steps,
        }
        if name in own:
            if name == "instruction":
                self._check_started()
            return tuple(own[name](lane) for lane in self.lanes)
        if not hasattr(self, name):
            raise UnknownNameError("attribute of the environments", name, [*own, *vars(self)])
        return (getattr(self, name),) * self.num_envs

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """An attribute of every environment, or what ``render`` gives for it.

        Raises:
            UnknownNameError: for one that there is not.
            InvalidConfigError: for another method, as environments have none of their own.
        """
        if name == "render":
            return tuple(self.render())
        values = self.get_attr(name)
        if callable(values[0]):
            raise InvalidConfigError(
                f"All environments share one simulation and have no method {name!r} of their own: call it on the "
                "vector environment."
            )
        return values

    # ------------------------------------------------------------------ snapshots

    def get_state(self) -> dict[str, Any]:
        """Everything that the future depends on; :meth:`set_state` puts it back bit for bit."""
        self._check_open()
        return {
            "simulator": self.simulator,
            "engine": self.engine.get_state(),
            "controller": self.controller.get_state(),
            "lanes": [lane.get_state() for lane in self.lanes],
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from a snapshot of an environment with the same tasks and number of environments.

        Raises:
            InvalidConfigError: for a snapshot of another kind of environment, or none; nothing changes then.
            UnknownNameError: for one with a task that this environment does not hold.
        """
        before = self.get_state()
        try:
            self._set_state(state)
        except GymError:
            self._set_state(before)
            raise
        except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
            self._set_state(before)
            raise InvalidConfigError(
                "Expected a snapshot that get_state() of an environment with this engine, these tasks and as many "
                f"environments gave; got something else ({type(error).__name__}: {error})."
            ) from error

    @property
    def simulator(self) -> str:
        """Name and version of what moves the scenes: snapshots and trainings do not go on in another."""
        return f"{self.engine.name} {self.engine.version}"

    def _set_state(self, state: Mapping[str, Any]) -> None:
        lanes, engine, controller = state["lanes"], state["engine"], state["controller"]
        if (found := state.get("simulator", "an earlier version")) != self.simulator:
            raise InvalidConfigError(
                f"The snapshot is of {found}, which moves on otherwise than {self.simulator} here: take that version, "
                "or begin anew (training: from the run's checkpoint, by init=RUN/checkpoint)."
            )
        if len(lanes) != self.num_envs:
            raise InvalidConfigError(
                f"The snapshot has {len(lanes)} environments; this vector environment {self.num_envs}."
            )
        tasks = [self._task(saved["address"].task) for saved in lanes]
        self._outdate(np.arange(self.num_envs))
        self.engine.set_state(engine)
        self.controller.set_state(controller)
        for lane, saved, task in zip(self.lanes, lanes, tasks, strict=True):
            lane.set_state(saved, task)

    def close_extras(self, **kwargs: Any) -> None:
        """Stop the engine."""
        self.engine.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as how it was made and where it stands; a new engine takes over there."""
        started = not self.closed and all(lane.started for lane in self.lanes)
        streams = [copy.deepcopy(lane.rng) for lane in self.lanes]
        return _made_again, (type(self), self._made, self.get_state() if started else None, streams, self.spec)


def make_lanes(task: Any, num_envs: int = 1, **options: Any) -> SceneVectorEnv:
    """Entry point of ``gymnasium.make_vec``: a :class:`SceneVectorEnv`, by default with autoreset mode NEXT_STEP."""
    options.setdefault("autoreset_mode", AutoresetMode.NEXT_STEP)
    return SceneVectorEnv(task, num_envs, **options)


def _made_again(
    kind: type[SceneVectorEnv], made: dict[str, Any], state: dict[str, Any] | None, streams: list[Any], spec: Any
) -> SceneVectorEnv:
    """An environment that was pickled."""
    env = kind(**made)
    env.spec = spec
    if state is not None:
        env.set_state(state)
    for lane, rng in zip(env.lanes, streams, strict=True):
        lane.rng = rng
    return env


_COLUMNS = ("task", "variant", "layout", "trial")


def _is_column(value: Any) -> bool:
    """True if ``value`` has one entry per environment instead of one for all."""
    if isinstance(value, np.ndarray):
        return value.ndim > 0
    return isinstance(value, Iterable) and not isinstance(value, str)


def numbers(actions: Any) -> NDArray[Any]:
    """Actions as an array of numbers, of whatever shape and precision.

    Raises:
        InvalidActionError: for text, rows of different lengths, and tensors that numpy cannot read.
    """
    try:
        array = np.asarray(actions)
        if array.dtype.kind in "USVMm":  # numpy would read "0.5" as a number
            raise TypeError(f"its entries are {array.dtype}")
        return array if array.dtype.kind in "biuf" else array.astype(np.float64)
    except (
        TypeError,
        ValueError,
        OverflowError,
        RuntimeError,
    ) as error:  # bfloat16, gradients, ragged rows
        said = (str(error) or type(error).__name__).splitlines()[0]
        raise InvalidActionError(
            f"Expected an array of numbers as actions; got a {type(actions).__name__} that is none ({said})."
        ) from error


def _whole(name: str, value: Any) -> int:
    """Check that a value is an integer of at least 0 and return it."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
        raise InvalidConfigError(f"{name} must be a whole number from 0 on; got {value!r}.")
    return int(value)


def _check_choices(
    num_envs: int, layouts: str, mode: AutoresetMode, render_mode: str | None, max_steps: int | None
) -> None:
    if max_steps is not None and (not isinstance(max_steps, int | np.integer) or max_steps < 1):
        raise InvalidConfigError(f"max_episode_steps must be a whole number from 1 on or None; got {max_steps}.")
    if not isinstance(num_envs, int | np.integer) or num_envs < 1:
        raise InvalidConfigError(f"num_envs must be at least 1, a whole number; got {num_envs}.")
    if layouts not in LAYOUT_KINDS:
        raise UnknownNameError("kind of layouts", layouts, LAYOUT_KINDS)
    if render_mode not in (None, "rgb_array"):
        raise UnknownNameError("render_mode", render_mode, ("rgb_array",))
    if not isinstance(mode, AutoresetMode) and mode not in {known.value for known in AutoresetMode}:
        raise UnknownNameError("autoreset_mode", mode, [known.value for known in AutoresetMode])


def _check_tasks(tasks: Sequence[Task], variant: str, layouts: str) -> None:
    if not tasks:
        raise InvalidConfigError("An environment needs at least one task; got none.")
    # A variant may belong to some of the tasks only; environments of the others then need one at every reset.
    if not any(variant in task.variants for task in tasks):
        raise UnknownNameError(f"variant of {tasks[0].name}", variant, tasks[0].variants)
    for task in tasks:
        task.check_layout_kind(layouts)


def _only_robot(tasks: Sequence[Task]) -> str:
    robots = {task.name: get_setup(task.robot_setup).robot.name for task in tasks}
    if len(set(robots.values())) > 1:
        listed = ", ".join(f"{task} ({robot})" for task, robot in robots.items())
        raise InvalidConfigError(
            f"The tasks of one vector environment must share a robot; got {listed}: run robot after robot."
        )
    return next(iter(robots.values()))


def _observed_cameras(observe: Sequence[str], setups: Sequence[RobotSetup]) -> dict[str, str]:
    """Camera of each observed image.

    Raises:
        UnknownNameError: for an observation that is none, or a camera that not all setups have in one size.
    """
    common = dict(setups[0].image_cameras)
    for name, camera in setups[0].image_cameras.items():
        seen = [setup.cameras.get(camera) for setup in setups]
        if len({(one.height, one.width) if one else None for one in seen}) > 1:
            del common[name]
    for name in observe:
        if name not in (*common, *_NO_IMAGES):
            raise UnknownNameError("observation", name, (*common, *_NO_IMAGES))
    return {name: camera for name, camera in common.items() if name in observe}


def _instructions(given: Any, tasks: Sequence[Task]) -> Instructions | None:
    if given is None:
        return None
    found = Instructions.read(given)
    found.check(task.name for task in tasks)
    return found


def _observation_space(observe: Sequence[str], cameras: Mapping[str, Camera], told: Instructions | None) -> spaces.Dict:
    own = () if told is None else tuple(text for of in told.sentences.values() for text in of)
    letters = _CHARACTERS.union(*own)
    images = {name: spaces.Box(0, 255, (seen.height, seen.width, 3), np.uint8) for name, seen in cameras.items()}
    choices: dict[str, spaces.Space[Any]] = {
        **images,
        "proprio": spaces.Box(-_PROPRIO_LIMITS, _PROPRIO_LIMITS, dtype=np.float32),
        "instruction": spaces.Text(max([200, *map(len, own)]), charset=cast(Any, letters)),
        "state": spaces.Box(-np.inf, np.inf, (26,), np.float32),
    }
    return spaces.Dict({name: choices[name] for name in observe})


def _merged(old: Any, new: Any, lanes: Ints) -> Any:
    """``old`` with the rows ``lanes`` replaced."""
    if isinstance(old, tuple):
        rows = list(old)
        for i, value in zip(lanes, new, strict=True):
            rows[i] = value
        return tuple(rows)
    old[lanes] = new
    return old
