"""Memory of training by arithmetic, without training: ``python -m vlaser_gym.bench memory=[vlaser_2b]``.

Weights, gradients and what the optimizer keeps follow from shapes alone. What a forward and a backward pass hold at
most is found by running both with tensors that have shapes and no content (torch's ``FakeTensorMode``), and counting
the bytes that live. Nothing of a policy's size is allocated, on a GPU or elsewhere.

Not counted: the CUDA context (about 0.5 GB), fragmentation, and what a library's kernels need for themselves.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from rich import box
from rich.table import Table
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vlaser_gym.agents.vlaser.agent import nano_processor
from vlaser_gym.agents.vlaser.config import VlaserConfig
from vlaser_gym.agents.vlaser.policy import VisionLanguage, VlaserPolicy
from vlaser_gym.agents.vlaser.processor import normalize_pixels
from vlaser_gym.agents.vlaser.tokenizer import ByteTokenizer
from vlaser_gym.agents.vlaser.trainable import TrainableVlaser
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.training.optimizers import state_bytes
from vlaser_gym.training.trainer import choose_trained, trained

GB = 1e9


@dataclass(frozen=True)
class Case:
    """A training set-up whose memory is measured.

    Attributes:
        name: for tables.
        freeze, lora: see the keys of the algorithms.
        weights, optimizer, checkpointing: see :class:`~vlaser_gym.training.scaling.Scaling`.
        precision: ``"float32"``, or ``"bfloat16"`` for autocast.
        rows: decisions that go through the policy at once.
        states: states of the flow per decision.
        keeps: bytes of kept encodings.
        reference: whether a copy of the trained weights is compared with.
        average: whether averaged weights are kept.
    """

    name: str
    freeze: tuple[str, ...] = ("embedding",)
    lora: int = 0
    weights: str = "float32"
    optimizer: str = "adamw"
    checkpointing: tuple[str, ...] = ()
    precision: str = "bfloat16"
    rows: int = 16
    states: int = 4
    keeps: int = 0
    reference: bool = False
    average: bool = False


@dataclass(frozen=True)
class Memory:
    """Memory of one process (bytes).

    Attributes:
        weights, gradients, optimizer: of the policy; this process's share where they are shared.
        copies: averaged weights, reference policy, kept encodings.
        gathered: weights and gradients of the layers that are whole at a time, where they are shared.
        passes: what forward and backward pass hold at most, beyond the above.
    """

    weights: float
    gradients: float
    optimizer: float
    copies: float
    gathered: float
    passes: float

    @property
    def total(self) -> float:
        """Sum of all parts."""
        return float(sum(vars(self).values()))


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of tensors that were made inside and still live.

    Args:
        before: tensors that were there; views of them hold nothing new.

    Attributes:
        now: bytes.
        peak: the most so far.
    """

    def __init__(self, before: Sequence[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now: int = 0
        self.peak: int = 0
        self._before = [tensor.untyped_storage() for tensor in before]
        self._known: dict[int, Any] = {id(storage): weakref.ref(storage) for storage in self._before}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run, then look at what came out."""
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._record(leaf.untyped_storage())
        return out

    def _record(self, storage: Any) -> None:
        key, size = id(storage), storage.nbytes()
        known = self._known.get(key)
        if known is not None and known() is storage:
            return
        self._known[key] = weakref.ref(storage)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, size)

    def _forget(self, size: int) -> None:
        self.now -= size


def make_agent(config: VlaserConfig, case: Case) -> TrainableVlaser:
    """The policy as a case trains it, on the meta device."""
    readable = config.replace(image_token_id=ByteTokenizer.image_id, pad_id=ByteTokenizer.pad_id)
    agent = TrainableVlaser(VlaserPolicy.on_meta(readable), nano_processor(readable))
    agent.narrow(getattr(torch, case.weights))
    choose_trained(agent, case.freeze, case.lora, 0)
    agent.set_gradient_checkpointing(*case.checkpointing)
    return agent


def materialise(module: nn.Module, device: str = "cpu") -> None:
    """Small random weights in place of those on the meta device; inside ``FakeTensorMode`` they have no content."""
    for part in module.modules():
        for name, weight in list(part.named_parameters(recurse=False)):
            new = torch.empty(weight.shape, dtype=weight.dtype, device=device).normal_(0, 0.02)
            setattr(part, name, nn.Parameter(new, requires_grad=weight.requires_grad))


def make_batch(agent: TrainableVlaser, case: Case) -> tuple[dict[str, Tensor], dict[str, Tensor], Any]:
    """Inputs, draws, and the kept encoding where there is one."""
    config, rows = agent.policy.config, case.rows
    inputs = {
        "pixels": torch.zeros(rows, config.image_size, config.image_size, 3, dtype=torch.uint8),
        "input_ids": torch.zeros(rows, config.max_length, dtype=torch.long),
        "proprio": torch.zeros(rows, config.proprio_dim),
        "actions": torch.zeros(rows, config.horizon, config.action_dim),
    }
    noise = torch.zeros(rows, case.states, config.horizon, config.action_dim)
    draws = {"noise": noise, "t": torch.zeros(rows, case.states)}
    kept = None
    if agent.encoding_is_frozen and case.keeps:
        shape = (rows, config.kv_heads, config.max_length, config.head_dim)
        dtype = torch.bfloat16 if "bfloat16" in (case.precision, case.weights) else torch.float32
        cache = tuple((torch.zeros(shape, dtype=dtype), torch.zeros(shape, dtype=dtype)) for _ in range(config.layers))
        kept = VisionLanguage(cache, torch.zeros(rows, dtype=torch.long))
    return inputs, draws, kept


def run_passes(agent: TrainableVlaser, case: Case, inputs: Any, draws: Any, kept: Any) -> None:
    """Forward and backward: the error of velocities stands for every loss, as all are read from one pass."""
    narrow = case.precision == "bfloat16" and case.weights == "float32"
    with torch.autocast(agent.device.type, torch.bfloat16, enabled=narrow):
        encoding = agent.encode(inputs) if kept is None else kept
        loss = agent.imitation_error(encoding, inputs, inputs["actions"], draws).mean()
    torch.autograd.backward(loss)


def accounts(
    config: VlaserConfig, case: Case, processes: Sequence[int] = (1,), *, held: int | None = None
) -> list[Memory]:
    """The memory of each of several processes, for several numbers of them.

    Args:
        config: of the policy.
        case: how it is trained.
        processes: how many share what is trained; 1: none is shared.
        held: what :func:`passes` gave, if it is known.
    """
    agent = make_agent(config, case)
    if held is None:
        # Constants that are kept for good must not be made inside, where they have no content.
        normalize_pixels(torch.zeros(1, 1, 1, 3, dtype=torch.uint8))
        with FakeTensorMode(allow_non_fake_inputs=True):
            materialise(agent)
            held = passes(agent, case)
    return [_account(agent, case, count, held) for count in processes]


def passes(agent: TrainableVlaser, case: Case) -> int:
    """The peak memory of forward and backward pass beyond weights and gradients (bytes)."""

    def forget_gradient(weight: Tensor) -> None:
        """A gradient is added to what an earlier part of the step left, and gone."""
        weight.grad = None

    given = make_batch(agent, case)
    for weight in trained(agent):
        weight.register_post_accumulate_grad_hook(forget_gradient)  # type: ignore[no-untyped-call]
    with LiveBytes([*agent.parameters(), *tree_leaves(given[:2])]) as counted:
        run_passes(agent, case, *given)
    return int(counted.peak)


def _account(agent: TrainableVlaser, case: Case, processes: int, held: int) -> Memory:
    units, weights, learned = _units(agent), list(agent.parameters()), trained(agent)
    shared = {id(weight) for unit in units for weight in unit} if processes > 1 else set()

    def bytes_of(chosen: Sequence[Tensor], size: Callable[[Tensor], float]) -> float:
        return sum(size(weight) / (processes if id(weight) in shared else 1) for weight in chosen)

    own = bytes_of(learned, lambda weight: weight.nbytes)
    copies = case.keeps + (own if case.average else 0)
    if case.reference and not case.lora:
        copies += sum(weight.nbytes for weight in learned)
    gathered = 0.0
    if processes > 1:
        # The layer at work and the next one, gradients of the one, in their own type and in fp32; and the rest.
        *layers, rest = units
        sizes = [sum(weight.nbytes for weight in unit) for unit in layers] or [0]
        largest = max(layers, key=lambda unit: sum(weight.nbytes for weight in unit), default=[])
        gradients = sum(weight.nbytes + 4 * weight.numel() for weight in largest if weight.requires_grad)
        gathered = 2 * max(sizes) + gradients + sum(2 * weight.nbytes for weight in rest)
    return Memory(
        weights=bytes_of(weights, lambda weight: weight.nbytes),
        gradients=own,
        optimizer=bytes_of(learned, lambda weight: state_bytes(case.optimizer, weight)),
        copies=copies,
        gathered=gathered,
        passes=held,
    )


def _units(agent: TrainableVlaser) -> list[list[nn.Parameter]]:
    """Weights that are gathered together, as :func:`~vlaser_gym.training.scaling.shard` does; the rest comes last."""
    units = [list(layer.parameters()) for layer in agent.layers()]
    in_layers = {id(weight) for unit in units for weight in unit}
    rest = [weight for weight in agent.parameters() if id(weight) not in in_layers and weight.requires_grad]
    return [*(unit for unit in units if any(weight.requires_grad for weight in unit)), rest]


def policy_config(name: str) -> VlaserConfig:
    """A preset by name; ``vlaser_2b/4`` has 4 layers of vision, of language and of the expert."""
    preset, _, depth = name.partition("/")
    if depth and not (depth.isdigit() and int(depth)):
        raise InvalidConfigError(f"A policy is a preset, or a preset, a slash and a number of layers; got {name}.")
    layers: dict[str, Any] = {"layers": int(depth), "vision_layers": int(depth)} if depth else {}
    return usual_prompt(VlaserConfig.preset(preset, **layers))


def tabulate(name: str, rows: Sequence[tuple[Case, Sequence[Memory]]], processes: Sequence[int]) -> Table:
    """The table of one process's memory, and the totals for several processes that shard."""
    parts = ("weights", "gradients", "optimizer", "copies", "passes")
    totals = [f"{count} GPU{'s' * (count > 1)}" for count in processes]
    table = Table("training", "recomputed", *parts, *totals, title=f"{name}, GB per GPU", box=box.ASCII)
    for case, found in rows:
        alone = [f"{getattr(found[0], part) / GB:.1f}" for part in parts]
        recomputed_parts = "all layers" if case.checkpointing else "nothing"
        table.add_row(case.name, recomputed_parts, *alone, *(f"{memory.total / GB:.1f}" for memory in found))
    return table


def as_dict(case: Case, processes: Sequence[int], found: Sequence[Memory]) -> dict[str, Any]:
    """Dictionary for JSON; bytes."""
    totals = {str(count): memory.total for count, memory in zip(processes, found, strict=True)}
    alone = {name: value for name, value in vars(found[0]).items() if name != "gathered"}
    return {"training": case.name, "recomputed": list(case.checkpointing), "rows": case.rows, **alone, "total": totals}


def memory_rows(name: str, processes: Sequence[int]) -> list[tuple[Case, list[Memory]]]:
    """Every case with recomputed layers, and plain fine-tuning also without."""
    config, known = policy_config(name), dict[Case, int]()
    found = []
    for case in [*(recomputed(case) for case in CASES), *CASES[:2]]:
        # What passes hold does not depend on what stays between them.
        key = replace(case, name="", optimizer="adamw", reference=False, average=False)
        memory = accounts(config, case, processes, held=known.get(key))
        known[key] = int(memory[0].passes)
        found.append((case, memory))
    return found


#: Gradient checkpointing everywhere.
RECOMPUTED = ("vision", "language", "expert")
#: Memory for kept encodings, as the learners have by default.
_KEPT = 4096 * 2**20
_FROZEN = ("vision", "embedding", "language")
#: What docs/scaling.md tabulates.
CASES = (
    Case("SFT"),
    Case("SFT, bf16 weights", weights="bfloat16"),
    Case("SFT, bf16 weights, 8-bit AdamW", weights="bfloat16", optimizer="adamw_8bit"),
    Case("LoRA SFT", lora=16),
    Case("LoRA SFT, bf16 weights", lora=16, weights="bfloat16"),
    # Ten denoising steps and the critic's state; image and text from what was kept.
    Case("expert-only PPO", freeze=_FROZEN, states=11, keeps=_KEPT),
    Case("LoRA PPO", freeze=("vision", "embedding"), lora=16, states=11),
    Case("LoRA PPO, bf16 weights", freeze=("vision", "embedding"), lora=16, states=11, weights="bfloat16"),
    # One pair of episodes, eight decisions of each.
    Case("DPO of the expert", freeze=_FROZEN, states=1, keeps=_KEPT, reference=True),
    Case("DPO, all but embedding", states=1, reference=True),
)


def recomputed(case: Case) -> Case:
    """The same with gradient checkpointing of every part."""
    return replace(case, checkpointing=RECOMPUTED)


def usual_prompt(config: VlaserConfig) -> VlaserConfig:
    """Prompts of their usual length instead of the longest: an instruction of up to 20 tokens behind the image's."""
    if not config.length_bucket:
        return config
    length = -(-(config.num_image_tokens + 20) // config.length_bucket) * config.length_bucket
    return config.replace(max_length=min(length, config.max_length), length_bucket=0)
