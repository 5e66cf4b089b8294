"""Vlaser as an agent: observations of many environments in, chunks of actions in environment units out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vlaser_gym.agents.base import Observations
from vlaser_gym.agents.batch_sizes import BATCH_SIZE, told_sizes
from vlaser_gym.agents.inference import InferenceEngine, NamedRows
from vlaser_gym.agents.vlaser.answering import AnsweringPolicy, Thinking
from vlaser_gym.agents.vlaser.attention import picture_attention
from vlaser_gym.agents.vlaser.checkpoint import load_policy
from vlaser_gym.agents.vlaser.commands import executed_actions
from vlaser_gym.agents.vlaser.config import PROPRIO_DIMS, VlaserConfig
from vlaser_gym.agents.vlaser.densities import Distribution
from vlaser_gym.agents.vlaser.gripper import make_gripper
from vlaser_gym.agents.vlaser.inference import PolicyEngine
from vlaser_gym.agents.vlaser.places import PlaceReader, load_place_reader
from vlaser_gym.agents.vlaser.policy import VlaserPolicy
from vlaser_gym.agents.vlaser.processor import SHORT_TEMPLATE, Inputs, Processor
from vlaser_gym.agents.vlaser.shipped import default_checkpoint, shipped_or_path
from vlaser_gym.agents.vlaser.statistics import Statistics
from vlaser_gym.agents.vlaser.tokenizer import BUILT_IN, ByteTokenizer
from vlaser_gym.agents.vlaser.versions import AGENT_VERSIONS
from vlaser_gym.conventions import Convention, View, of_robot
from vlaser_gym.envs.address import Address
from vlaser_gym.errors import InvalidConfigError, UnknownNameError

Lanes = NDArray[np.int64]

#: What stands before a preset's name to ask for random weights of its sizes.
RANDOM = "random:"
#: What an agent can tell of a decision.
EXPLANATIONS = ("attention", "places")
#: Weights up to this size (bytes) run on one thread of the CPU: a GPU would take longer to compile than to act, and
#: physics and images take the other cores.
SMALL_WEIGHTS = 50 * 2**20


class VlaserAgent:
    """A Vlaser policy that acts on many environments.

    An environment's actions follow from its observations and its episode's address alone: noise is drawn from the
    address, decision by decision, and the policy runs in batches of one fixed size, so that neither the number of
    environments nor their order changes a bit. The instruction is read anew at every decision.

    Args:
        policy: in evaluation mode, on its device.
        processor: for the policy's robot.
        act_steps: actions executed per decision; by default the policy's.
        num_flow_steps: Euler steps of the flow; by default the policy's.
        initial_noise: standard deviation of the flow's first state, 0 to 1; by default the policy's.
        micro_batch: rows of every forward pass; by default 8, which :meth:`set_batch_sizes` may change.
        compile: see :class:`~vlaser_gym.agents.vlaser.inference.PolicyEngine`.
        source: where the weights are from, for :meth:`describe`.
        density: of the flow, for subclasses that draw from it.
        explain: one of :data:`EXPLANATIONS`, for :meth:`explained`; actions stay the same to the last bit.
        places: the head that ``explain="places"`` asks.
        think: the policy is asked for the next sub-task every so many decisions of an environment; ``None``: never.

    Raises:
        InvalidConfigError, UnknownNameError: for settings out of their range.
    """

    observes: tuple[str, ...] = ("image", "proprio", "instruction")

    def __init__(
        self,
        policy: VlaserPolicy,
        processor: Processor,
        *,
        act_steps: int | None = None,
        num_flow_steps: int | None = None,
        initial_noise: float | None = None,
        micro_batch: int | None = None,
        compile: bool | None = None,
        source: str = "",
        density: Distribution | None = None,
        explain: str | None = None,
        places: PlaceReader | None = None,
        think: int | None = None,
    ) -> None:
        if explain not in (None, *EXPLANATIONS):
            raise UnknownNameError("agent.explain", explain, EXPLANATIONS)
        self.policy, self.processor, self.source = policy, processor, source
        self.explain, self._places = explain, places
        self.thinking: Thinking | None = None
        if think is not None:
            model = AnsweringPolicy(policy, processor.prompt.tokenizer, processor.resize, source)
            self.thinking = Thinking(model, think)
        self.act_steps = policy.config.executed_steps if act_steps is None else act_steps
        if not 1 <= self.act_steps <= policy.config.horizon:
            raise InvalidConfigError(
                f"act_steps is 1 to {policy.config.horizon} for this policy; got {self.act_steps}."
            )
        self._size_is_given = micro_batch is not None
        sizes = (BATCH_SIZE if micro_batch is None else micro_batch,)
        self.initial_noise = policy.config.initial_noise if initial_noise is None else float(initial_noise)
        if not 0 <= self.initial_noise <= 1:
            raise InvalidConfigError(f"initial_noise is 0 to 1; got {initial_noise}.")
        self.decide = PolicyEngine(policy, sizes, num_flow_steps, density=density, compile=compile)
        self.gripper = make_gripper(processor.robot)
        self._noise: dict[int, np.random.Generator] = {}
        self._decided: dict[int, dict[str, NDArray[Any]]] = {}
        self._explained: dict[int, dict[str, NDArray[Any]]] = {}

    @property
    def robot(self) -> str:
        """``"widowx"`` or ``"google_robot"``."""
        return self.processor.robot

    @property
    def convention(self) -> Convention:
        """The convention of its actions: the environments' own."""
        return replace(of_robot(self.robot), views=(View("image"),), chunk=self.act_steps)

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Rows of a forward pass; several where they adapt to how many environments decide."""
        return self.decide.sizes

    def set_batch_sizes(self, sizes: Sequence[int]) -> None:
        """Adapt the rows of a forward pass, unless ``micro_batch`` was given."""
        if not self._size_is_given:
            self.decide.sizes = sizes

    def reset(self, lanes: Lanes, addresses: Sequence[Address]) -> None:
        """Episodes begin: release the grippers and seed the noise.

        Raises:
            InvalidConfigError: if an episode is the other robot's.
        """
        for address in addresses:
            _check_robot(address, self.robot)
        self.gripper.reset(np.asarray(lanes, np.int64))
        if self.thinking is not None:
            self.thinking.reset(lanes)
        for lane, address in zip(lanes, addresses, strict=True):
            self._noise[int(lane)] = address.rng()

    def act(self, observations: Observations, lanes: Lanes) -> NDArray[np.float64]:
        """Chunks ``[N, act_steps, 7]``: translation (m), axis-angle (rad), gripper command of the simulator.

        Args:
            observations: ``image`` uint8 ``[N, H, W, 3]``, ``proprio`` ``[N, 8]`` and N strings ``instruction``.
            lanes: ``[N]``, each reset before.
        """
        lanes = np.asarray(lanes, np.int64)
        data = self.processor.transform(observations)
        if self.thinking is not None:
            self.thinking.look(lanes, data["pixels"], observations["instruction"])
        inputs = self.processor.tensors(data, self.policy.device)
        chosen = self._choose(inputs, lanes)
        if self.explain is not None:
            engine = InferenceEngine(self._explain, self.policy.device, self.batch_sizes, record=False)
            found = engine({**inputs._asdict(), "noise": chosen["noise"]}).map(torch.Tensor.cpu)
            for row, lane in enumerate(lanes):
                self._explained[int(lane)] = {name: tensor[row].numpy() for name, tensor in found.items()}
        seen = {name: data[name] for name in ("pixels", "input_ids", "proprio")}
        columns = {**seen, **{name: tensor.numpy() for name, tensor in chosen.items()}}
        for row, lane in enumerate(lanes):
            self._decided[int(lane)] = {name: values[row] for name, values in columns.items()}
        return executed_actions(chosen["chunk"].numpy(), self.processor, self.gripper, lanes, self.act_steps)

    def thoughts(self, lanes: Lanes) -> list[str] | None:
        """The sub-task that the policy last said comes next on each environment; ``None`` if it is not asked."""
        return None if self.thinking is None else self.thinking.said(lanes)

    def decided(self, lanes: Lanes) -> list[dict[str, NDArray[Any]]]:
        """The last decision of each environment, for learners.

        ``pixels`` uint8 ``[S, S, 3]``, ``input_ids`` ``[L]`` and normalised ``proprio`` ``[P]`` as the policy read
        them, ``noise`` and ``chunk`` ``[H, A]``: where the flow began and ended, neither clamped nor denormalised.
        """
        return [self._decided[int(lane)] for lane in lanes]

    def explained(self, lanes: Lanes) -> list[dict[str, NDArray[Any]]]:
        """The explanation of each environment's last decision, for an agent made with ``explain``.

        ``attention`` ``[g, g]``: see :func:`~vlaser_gym.agents.vlaser.attention.picture_attention`. ``places``
        ``[2, 3]``: where source and target are as far as the image features tell, robot-base frame, m.
        """
        return [self._explained[int(lane)] for lane in lanes]

    @torch.inference_mode()
    def _explain(self, rows: NamedRows) -> NamedRows:
        """Explanations of one batch."""
        if self.explain == "attention":
            shape = self.decide.num_steps, self.act_steps
            return NamedRows(attention=picture_attention(self.policy, **rows, num_steps=shape[0], act_steps=shape[1]))
        assert self._places is not None
        return NamedRows(places=self._places(self.policy.image_features(rows["pixel_values"])))

    def _choose(self, inputs: Inputs, lanes: Lanes) -> dict[str, torch.Tensor]:
        """The environments' next chunks and what else learners need of them, on the CPU."""
        noise = self._draw(lanes)
        return {"noise": noise, "chunk": self.decide(*inputs, noise, clamp=False)}

    def _draw(self, lanes: Lanes) -> torch.Tensor:
        """First states ``[N, H, A]`` of the environments' next decision."""
        shape = (self.policy.config.horizon, self.policy.config.action_dim)
        rows = [self._noise[int(lane)].standard_normal(shape, dtype=np.float32) for lane in lanes]
        return torch.from_numpy(np.stack(rows)) * self.initial_noise

    def get_state(self) -> dict[str, Any]:
        """The environments' memory: grippers and noise streams."""
        noise = {lane: deepcopy(generator.bit_generator.state) for lane, generator in self._noise.items()}
        thoughts = {} if self.thinking is None else {"thoughts": self.thinking.get_state()}
        return {"noise": noise, "gripper": self.gripper.get_state(), **thoughts}

    def set_state(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`get_state` gave."""
        self._noise = {}
        for lane, bits in state["noise"].items():
            self._noise[lane] = np.random.default_rng()
            self._noise[lane].bit_generator.state = deepcopy(bits)
        self.gripper.set_state(state["gripper"])
        if self.thinking is not None:
            self.thinking.set_state(state["thoughts"])

    def describe(self) -> dict[str, Any]:
        """Everything that decides how this agent acts, for printing and for records."""
        config, prompt = self.policy.config, self.processor.prompt
        own = {"initial_noise_of_checkpoint": config.initial_noise}
        return {
            "checkpoint": self.source or None,
            "policy": config.name,
            "robot": self.robot,
            "agent_version": AGENT_VERSIONS[self.robot],
            "parameters": sum(parameter.numel() for parameter in self.policy.parameters()),
            "image_size": config.image_size,
            "resize": self.processor.resize.filter,
            **({"image_size_of_checkpoint": self.processor.image_size} if self.processor.image_size else {}),
            "prompt": prompt.template,
            "prompt_wrap": prompt.wrap,
            "time_max_period": config.time_max_period,
            "num_flow_steps": self.decide.num_steps,
            "initial_noise": self.initial_noise,
            **({} if self.thinking is None else {"think": self.thinking.every}),
            **(own if config.initial_noise != self.initial_noise else {}),
            "horizon": config.horizon,
            "act_steps": self.act_steps,
            "micro_batch": told_sizes(self.batch_sizes),
            "dtype": str(self.policy.dtype).removeprefix("torch."),
            "device": str(self.policy.device),
            "compile": self.decide.compile,
        }


def _check_robot(address: Address, robot: str) -> None:
    """SimplerEnv's task names begin with their robot's; other names are taken on trust."""
    for other in PROPRIO_DIMS:
        if address.task.startswith(other) and other != robot:
            raise InvalidConfigError(
                f"This checkpoint is for {robot} ({PROPRIO_DIMS[robot]} proprioceptive numbers); {address.task} is a "
                f"task of {other}. Choose tasks of {robot}, or a checkpoint trained for {other}."
            )


def load_agent(
    checkpoint: str | Path | None = None,
    *,
    robot: str | None = None,
    tokenizer: str | None = None,
    statistics: str | None = None,
    prompt: str | None = None,
    prompt_wrap: str | None = None,
    resize: str | None = None,
    settings: Mapping[str, Any] | None = None,
    act_steps: int | None = None,
    num_flow_steps: int | None = None,
    initial_noise: float | None = None,
    micro_batch: int | None = None,
    device: str | None = None,
    dtype: str = "float32",
    compile: bool | None = None,
    seed: int = 0,
    check_weights: bool = True,
    explain: str | None = None,
    think: int | None = None,
) -> VlaserAgent:
    """An agent of any size from a checkpoint, which says itself how its policy acts.

    On the CPU, weights up to :data:`SMALL_WEIGHTS` make torch compute on one thread in this process from now on.

    Args:
        checkpoint: our folder, or ``ORG/NAME`` on the Hugging Face hub; a file of the released layout (``.pt``);
            ``"nano"``, the trained weights that come with the package (WidowX; docs/results.md says how they were made
            and how well they do); or ``"random:nano"``, random weights of that size. By default the package's for the
            robot.
        robot: the robot that it must be for; by default the one whose proprioception it reads. Random weights and the
            package's are for WidowX by default.
        tokenizer, statistics, prompt, prompt_wrap, resize: see
            :meth:`~vlaser_gym.agents.vlaser.processor.Processor.load`.
        settings: fields of :class:`~vlaser_gym.agents.vlaser.config.VlaserConfig` that a file cannot hold, such as
            ``time_max_period``.
        act_steps: actions executed per decision; by default the policy's.
        num_flow_steps: Euler steps of the flow; by default the policy's.
        initial_noise: standard deviation of the flow's first state, 0 to 1; by default the policy's.
        micro_batch: rows of every forward pass; by default 8, and adapting where the agent is served.
        device: by default the GPU where there is one, but the CPU for small weights.
        dtype: of the weights, ``"float32"`` (as the published evaluation) or ``"bfloat16"``.
        compile: by default on a GPU only.
        seed: of random weights.
        check_weights: compare the checksums of the weights.
        explain: ``"attention"`` or ``"places"``: what a run keeps of each decision, for videos and the report.
        think: ask the policy's language head for the next sub-task every so many decisions; changes no action.

    Raises:
        InvalidConfigError: without a checkpoint for a robot of which the package has none, without the head that
            ``explain="places"`` needs, or if the parts do not belong together.
        CheckpointError: if the weights cannot be used.
        MissingAssetError: if there is no tokenizer.
    """
    checkpoint = str(checkpoint or default_checkpoint(robot))
    chosen = _device_for(checkpoint, device)
    policy, processor = open_policy(
        checkpoint,
        robot=robot,
        settings=settings,
        seed=seed,
        device=chosen,
        dtype=choose_dtype(dtype),
        check_weights=check_weights,
        tokenizer=tokenizer,
        statistics=statistics,
        template=prompt,
        wrap=prompt_wrap,
        resize=resize,
    )
    folder = Path(shipped_or_path(checkpoint))
    places = load_place_reader(folder, policy.config).to(policy.device) if explain == "places" else None
    return VlaserAgent(
        policy,
        processor,
        act_steps=act_steps,
        num_flow_steps=num_flow_steps,
        initial_noise=initial_noise,
        micro_batch=micro_batch,
        compile=compile,
        source=checkpoint,
        explain=explain,
        places=places,
        think=think,
    )


def nano_agent(checkpoint: str | None = None, **settings: Any) -> VlaserAgent:
    """The name that :func:`load_agent` had for small models; without a checkpoint, random weights."""
    return load_agent(checkpoint or f"{RANDOM}nano", **settings)


def open_policy(
    checkpoint: str,
    *,
    robot: str | None = None,
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    check_weights: bool = True,
    **processing: str | None,
) -> tuple[VlaserPolicy, Processor]:
    """A policy that can act, and its processor; see :func:`load_agent`.

    Args:
        processing: what differs from the checkpoint's own: ``tokenizer``, ``statistics``, ``template``, ``wrap`` and
            ``resize`` of :meth:`~vlaser_gym.agents.vlaser.processor.Processor.load`.
    """
    if checkpoint.startswith(RANDOM):
        given = [name for name, value in processing.items() if value is not None]
        if given:
            raise InvalidConfigError(f"checkpoint={checkpoint} comes with a {given[0]} of its own; leave yours out.")
        return random_policy(checkpoint, robot, settings, seed, device, dtype)
    source = shipped_or_path(checkpoint)
    policy, report = load_policy(
        source, robot=robot, dtype=dtype, device=device, settings=settings, check=check_weights
    )
    if report.layout == "vlm":
        raise InvalidConfigError(
            f"{checkpoint} holds a vision-language model without an action expert, which cannot act. Give the "
            f"checkpoint of a policy, or ask it questions with python -m vlaser_gym.ask."
        )
    return policy, Processor.load(source, policy.config, robot=robot, **processing)


def random_policy(
    name: str,
    robot: str | None = None,
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    tokenizer: str | None = None,
) -> tuple[VlaserPolicy, Processor]:
    """A preset with random weights, which are a function of the seed, and its processor.

    Args:
        name: ``"random:nano"``.
        robot: by default WidowX.
        settings: fields of the preset that differ.
        tokenizer: ``"bytes"`` (by default) or ``"words"``.

    Raises:
        UnknownNameError: for a name that is no preset, or no tokenizer of this package.
        InvalidConfigError: for a preset whose tokenizer is not in this package.
    """
    config = VlaserConfig.preset(name.removeprefix(RANDOM), robot or "widowx", **(settings or {}))
    if config.vocab_size < ByteTokenizer.vocab_size or config.image_token_id != ByteTokenizer.image_id:
        raise InvalidConfigError(f"{name} needs a tokenizer; give the folder of a VLM instead.")
    return VlaserPolicy.initialise(config, seed, dtype, device), nano_processor(config, tokenizer=tokenizer or "bytes")


def nano_processor(config: VlaserConfig, statistics: Statistics | None = None, tokenizer: str = "bytes") -> Processor:
    """The processor of a small model: bytes (or words), a short prompt, images shrunk by averaging."""
    if tokenizer not in BUILT_IN:
        raise UnknownNameError("tokenizer of a small model", tokenizer, BUILT_IN)
    return Processor.build(config, BUILT_IN[tokenizer](), statistics=statistics, template=SHORT_TEMPLATE, resize="area")


def _device_for(checkpoint: str, device: str | None) -> str:
    """The device for a checkpoint; small weights on the CPU get one thread."""
    path = Path(shipped_or_path(checkpoint))
    files = [*path.glob("*.safetensors"), *path.glob("*.pt")] if path.is_dir() else [path]
    size = sum(file.stat().st_size for file in files if file.is_file())
    is_small = checkpoint.startswith(RANDOM) or size <= SMALL_WEIGHTS
    chosen = choose_device("cpu" if device is None and is_small else device)
    if chosen == "cpu" and is_small:
        torch.set_num_threads(1)
    return chosen


def choose_device(name: str | None, key: str = "device") -> str:
    """A torch device by name; ``None`` is the GPU where there is one. ``key`` is the setting that an error is about.

    Raises:
        InvalidConfigError: for a name that torch does not know, or a GPU that is not there.
    """
    has_gpu = torch.cuda.is_available()
    if name is None:
        return "cuda" if has_gpu else "cpu"
    try:
        kind = torch.device(name).type
    except RuntimeError:
        kind = ""
    if kind not in ("cpu", "cuda") or (kind == "cuda" and not has_gpu):
        here = "cpu and cuda" if has_gpu else "cpu only, as torch finds no GPU"
        raise InvalidConfigError(f"{key} is one of: {here}; got {name!r}.")
    return name


def choose_dtype(name: str) -> torch.dtype:
    """``"float32"`` or ``"bfloat16"``.

    Raises:
        UnknownNameError: for another name.
    """
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if name not in dtypes:
        raise UnknownNameError("dtype", name, dtypes)
    return dtypes[name]
