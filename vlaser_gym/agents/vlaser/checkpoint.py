"""Reading and writing policies: our folder, the released ``.pt`` file, and a plain VLM as initialisation.

Files are memory-mapped, their shapes checked against the policy, and only then are tensors taken over, one by one:
loading needs about as much memory as the file has bytes. Nothing in a file is executed. Checksums are compared: ours
lie in the safetensors file itself, so that file and checksum are written in one piece; those of a ``.pt`` are its zip
archive's.

Our folder holds ``config.json`` and ``model.safetensors``, next to whatever the processor keeps there.
"""

from __future__ import annotations

import contextlib
import json
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from vlaser_gym.agents.vlaser import layouts
from vlaser_gym.agents.vlaser.adapters import merged_state_dict
from vlaser_gym.agents.vlaser.config import PROPRIO_DIMS, VlaserConfig
from vlaser_gym.agents.vlaser.policy import PARTS, VlaserPolicy
from vlaser_gym.errors import GymError, InvalidConfigError, StorageError, UnknownNameError
from vlaser_gym.storage.checksums import CHECKSUM_KEY, damaged_member, digest_of
from vlaser_gym.storage.files import appearing, remove_leftovers, storage_errors, write_whole
from vlaser_gym.storage.locks import claim

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
#: Weights of a foreign file that no action depends on, kept on request so that converting back loses nothing.
UNUSED_FILE = "unused.safetensors"
#: Marks ``config.json`` as ours.
FORMAT = "vlaser_gym policy"
#: The same for a vision-language model of a policy's shape: it answers, and has no action expert yet.
VLM_FORMAT = "vlaser_gym vlm"
#: Key beside ``model`` in a ``.pt`` of ours, which the original's loader does not look at: what the released layout has
#: no place for. ``policy``: its config; ``files``: contents of the folder's JSON files by name; ``made_up``: keys of
#: text heads full of zeros.
DESCRIPTION = "vlaser_gym"

#: The first bytes of files of torch before 1.6: the number 0x1950a86a20f9469cfc6c in pickle's second protocol.
_LEGACY = b"\x80\x02\x8a\n" + (0x1950A86A20F9469CFC6C).to_bytes(10, "little") + b"."

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32, "float16": torch.float16}


class CheckpointError(GymError):
    """A checkpoint that cannot be used: damaged, incomplete, of another model or robot, or with code in it."""


@dataclass
class LoadReport:
    """The content of a checkpoint and how it was loaded.

    Attributes:
        source: file or folder.
        layout: ``"released"``, ``"file"`` (that layout, written here), ``"vlm"`` or ``"folder"``.
        dtypes: tensors found, per dtype.
        nbytes: their size, aliases counted as often as they are stored.
        mapped: our parameter -> key that it was taken from.
        aliases: our parameter -> further keys with the same values.
        ignored: key -> why it was left out.
        missing: our parameters that the checkpoint does not hold; they were drawn at random (VLM only).
        inferred: settings read off the weights or the checkpoint's config.
        assumed: settings that the checkpoint cannot hold, with the values in use.
    """

    source: str
    layout: str
    dtypes: dict[str, int] = field(default_factory=dict)
    nbytes: int = 0
    mapped: dict[str, str] = field(default_factory=dict)
    aliases: dict[str, list[str]] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    inferred: dict[str, Any] = field(default_factory=dict)
    assumed: dict[str, Any] = field(default_factory=dict)

    @property
    def found(self) -> int:
        """Number of tensors in the checkpoint."""
        return sum(self.dtypes.values())

    def lines(self) -> list[str]:
        """Lines of text for printing."""
        dtypes = ", ".join(f"{count} {dtype}" for dtype, count in sorted(self.dtypes.items()))
        repeats = sum(len(keys) for keys in self.aliases.values())
        size = f"{self.nbytes / 1e9:.2f} GB"
        out = [
            f"found    {self.found} tensors ({dtypes}; {size}) in {self.source}, layout {self.layout}",
            f"mapped   {len(self.mapped)} parameters; {repeats} further keys hold the same tensors",
            f"ignored  {len(self.ignored)} keys",
            *(f"         {key}: {reason}" for key, reason in _shortened(self.ignored)),
            f"missing  {len(self.missing)} parameters" + (", drawn at random" if self.missing else ""),
            *(f"         {part}" for part in sorted({name.split(".")[0] for name in self.missing})),
        ]
        if self.inferred:
            out.append("inferred " + ", ".join(f"{name}={value}" for name, value in self.inferred.items()))
        if self.assumed:
            out.append(
                "assumed  "
                + ", ".join(f"{name}={value}" for name, value in self.assumed.items())
                + " (not in the file)"
            )
        return out


def load_policy(
    source: str | Path,
    *,
    robot: str | None = None,
    dtype: str | torch.dtype | None = None,
    device: torch.device | str = "cpu",
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    check: bool = True,
    new_expert: bool = False,
) -> tuple[VlaserPolicy, LoadReport]:
    """A policy in evaluation mode from any layout.

    Args:
        source: our folder, a VLM folder in InternVL's layout, or a file of the released layout (``.pt`` or
            ``.safetensors``, or a folder with nothing else).
        robot: ``"widowx"`` or ``"google_robot"``: the robot that it must be for. A VLM, whatever its layout, gets a new
            action expert for it, by default for WidowX.
        dtype: of the weights in memory; as stored by default, which needs the least memory.
        device: where to put them.
        seed: of what a VLM lacks.
        settings: fields of :class:`~vlaser_gym.agents.vlaser.config.VlaserConfig` that the file cannot hold, such as
            ``time_max_period``, or that should differ. With a ``reasoning_length`` a policy without a language head
            gets one, drawn at random, or a VLM's own. With more ``layers`` than are stored, further ones are appended
            to the language model and to the action expert; they pass on what they get, so that the policy acts as
            before until they are trained.
        check: compare checksums, where the file has some; about a second per gigabyte.
        new_expert: a folder of ours is taken for a VLM: its policy gets a new action expert too, for any robot, whose
            flow begins with a draw unless ``settings`` say otherwise.

    Raises:
        CheckpointError: before anything of full size is allocated.
    """
    path = Path(source)
    if robot is not None and robot not in PROPRIO_DIMS:
        raise UnknownNameError("robot", robot, PROPRIO_DIMS)
    if not path.exists():
        raise CheckpointError(f"A checkpoint is a folder or a .pt file; {path} does not exist.")
    target = _Target(robot, _dtype(dtype), torch.device(device), seed, dict(settings or {}), check, new_expert)
    if check:
        _check_archive(path if path.is_file() else _only_pt(path))
    if path.is_dir() and _is_ours(path):
        return _load_folder(path, target)
    tensors = _read_file(path) if path.is_file() else _read_folder(path)
    described = read_description(path)
    if described:
        return _load_described(path, tensors, described, target)
    if any(layouts.plain_key(key).startswith("joint_model.") for key in tensors) or path.is_file():
        return _load_released(path, tensors, target)
    if any(layouts.plain_key(key).startswith(layouts.TRANSFORMERS) for key in tensors):
        raise CheckpointError(
            f"{path} is InternVL in transformers' own layout (its names end in -hf); take the model of the same name "
            "without -hf, such as OpenGVLab/InternVL3-2B, whose tensors policies here are grown from."
        )
    return _load_vlm(path, tensors, target)


def save_pretrained(
    policy: VlaserPolicy, folder: str | Path, unused: Mapping[str, Tensor] | None = None, *, acts: bool = True
) -> None:
    """Write ``config.json`` and ``model.safetensors``; other files in the folder stay.

    Adapters are added into the written weights. Each file appears whole or not at all, so that a folder may be
    overwritten while it is in use.

    Args:
        policy: the policy.
        folder: made if absent.
        unused: further tensors for ``unused.safetensors``, under their foreign keys.
        acts: whether its action expert was ever trained; else it is left out, and the folder is a vision-language
            model's.

    Raises:
        StorageError: if it cannot be written; the files that were there stay.
    """
    path = Path(folder)
    text = json.dumps({"format": FORMAT if acts else VLM_FORMAT, "policy": policy.config.to_dict()}, indent=2)
    weights = merged_state_dict(policy)
    if not acts:
        weights = {name: tensor for name, tensor in weights.items() if name.split(".")[0] not in PARTS["expert"]}
    with _writing(path):
        path.mkdir(parents=True, exist_ok=True)
        with claim(path, "another folder"):
            remove_leftovers(path)
            write_safetensors(path / WEIGHTS_FILE, weights)
            if unused:
                write_safetensors(path / UNUSED_FILE, unused)
            write_whole(path / CONFIG_FILE, f"{text}\n".encode())


def save_tensors(file: str | Path, tensors: Mapping[str, Tensor]) -> None:
    """Write further tensors of a checkpoint, with their checksum.

    Raises:
        StorageError: if they cannot be written.
    """
    with _writing(Path(file).parent):
        write_safetensors(Path(file), tensors)


def load_tensors(file: str | Path) -> dict[str, Tensor]:
    """Read the tensors that :func:`save_tensors` wrote.

    Raises:
        CheckpointError: if the file is missing or damaged.
    """
    return _read_safetensors(Path(file), check=True)


def load_pretrained(folder: str | Path, **options: Any) -> VlaserPolicy:
    """The policy that :func:`save_pretrained` wrote; options as for :func:`load_policy`."""
    return load_policy(folder, **options)[0]


def save_released(
    policy: VlaserPolicy,
    file: str | Path,
    unused: Mapping[str, Tensor] | None = None,
    files: Mapping[str, Any] | None = None,
) -> list[str]:
    """Write the released ``.pt`` layout with all its keys; aliases share their bytes.

    What that layout has no place for lies beside the weights, where the original's loader does not look, so that
    :func:`load_policy` reads back the same policy.

    Args:
        policy: the policy.
        file: to write.
        unused: the two text heads, from ``unused.safetensors``.
        files: what the JSON files of its folder hold, by name; given back by :func:`read_description`.

    Returns:
        Keys that had to be made up (text heads full of zeros, which no action depends on).
    """
    model, made = released_state(policy, unused)
    described = {"policy": policy.config.to_dict(), "files": dict(files or {}), "made_up": made}
    with _writing(Path(file)), appearing(Path(file)) as temporary, temporary.open("wb") as opened:
        torch.save({"model": model, "cnt_update": 0, "cnt_batch": 0, DESCRIPTION: described}, opened)
    return made


def released_state(
    policy: VlaserPolicy, unused: Mapping[str, Tensor] | None = None
) -> tuple[dict[str, Tensor], list[str]]:
    """All tensors of the released layout, aliases being one tensor, and the keys that had to be made up.

    The tables of a policy that reads InternVL3's tokens have the original's rows: those that it lacks are appended,
    full of zeros.
    """
    config, rows = policy.config, layouts.released_rows(policy.config)
    weights = merged_state_dict(policy)
    weights["embed_tokens.weight"] = _with_rows(weights["embed_tokens.weight"], rows)
    model: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        model.update(dict.fromkeys(layouts.released_keys(name), tensor))
    if "lm_head.weight" in weights:
        unused = {**(unused or {}), f"internvl_model.{layouts.HEAD}weight": weights["lm_head.weight"]}
    made = []
    for kind, width in (("language_model", config.width), ("action_expert", config.expert_width)):
        key = f"internvl_model.{kind}.lm_head.weight"
        if unused is not None and key in unused:
            model[key] = _with_rows(unused[key], rows)
        else:
            model[key] = torch.zeros(rows, width, dtype=policy.dtype, device=policy.device)
            made.append(key)
    return model, made


def _with_rows(table: Tensor, rows: int) -> Tensor:
    """A table of tokens with zeros appended up to so many rows."""
    return table if len(table) >= rows else functional.pad(table, (0, 0, 0, rows - len(table)))


def read_description(source: str | Path) -> dict[str, Any]:
    """The description beside the weights in a ``.pt`` of ours (see :data:`DESCRIPTION`); empty for other files.

    Args:
        source: the file, or a folder with nothing but it to take weights from.

    Raises:
        CheckpointError: if it is damaged.
    """
    path = Path(source)
    file = path if path.is_file() else _only_pt(path)
    content = None if file is None or file.suffix == ".safetensors" else _read_torch(file)
    if not isinstance(content, Mapping) or DESCRIPTION not in content:
        return {}
    described = content[DESCRIPTION]
    parts = ("policy", dict), ("files", dict), ("made_up", list)
    if not isinstance(described, dict) or any(not isinstance(described.get(name), kind) for name, kind in parts):
        raise CheckpointError(
            f"{file} was written by this gym, but what it says of its policy is damaged or of a newer version; convert "
            f"it again."
        )
    return described


def read_config(folder: str | Path) -> dict[str, Any]:
    """The policy's entry in the ``config.json`` of a folder of ours.

    Raises:
        CheckpointError: if it is damaged.
    """
    return dict(_read_json(Path(folder) / CONFIG_FILE).get("policy", {}))


def is_ours(source: str | Path) -> bool:
    """True if this gym wrote a folder or file, which then describes its policy completely."""
    path = Path(source)
    return (path.is_dir() and _is_ours(path)) or bool(read_description(path))


def read_unused(source: str | Path) -> dict[str, Tensor]:
    """Tensors that no action depends on, under their released keys: of any layout, or kept in our folder."""
    path = Path(source)
    if path.is_dir() and _is_ours(path):
        return _read_safetensors(path / UNUSED_FILE) if (path / UNUSED_FILE).is_file() else {}
    tensors = _read_file(path) if path.is_file() else _read_folder(path)
    described = read_description(path)
    rows = described["policy"].get("vocab_size") if described else None
    unused = {}
    for key, tensor in tensors.items():
        plain = layouts.plain_key(key)
        if plain.startswith(tuple(layouts.VLM_UNUSED)):
            plain = f"internvl_model.{plain}"
        if plain.startswith(tuple(layouts.RELEASED_UNUSED)) and plain not in described.get("made_up", ()):
            unused[plain] = tensor[:rows]
    return unused


@dataclass(frozen=True)
class _Target:
    """The caller's options for loading."""

    robot: str | None
    dtype: torch.dtype | None
    device: torch.device
    seed: int
    settings: dict[str, Any]
    check: bool
    new_expert: bool


# --- the layouts


def _load_folder(path: Path, target: _Target) -> tuple[VlaserPolicy, LoadReport]:
    described = _read_json(path / CONFIG_FILE)
    is_vlm, values = described.get("format") == VLM_FORMAT, described.get("policy", {})
    fresh = ("expert",) if is_vlm or target.new_expert else ()
    if fresh:
        # That an old expert's flow began at its mean says nothing of a new one, which may know no mean worth following.
        values = {**values, "initial_noise": VlaserConfig.initial_noise}
    if fresh and target.robot is not None:
        values = {**values, "proprio_dim": PROPRIO_DIMS[target.robot]}
    config = _config_of(path, values, target)
    tensors = _read_safetensors(path / WEIGHTS_FILE, target.check)
    if target.new_expert:
        old = tuple(f"{module}." for module in PARTS["expert"])
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(old)}
    report = _report(path, "vlm" if is_vlm else "folder", tensors)
    report.mapped = {name: name for name in tensors}
    return _assemble(config, tensors, target, report, fresh, answered=_answers(values)), report


def _answers(values: Mapping[str, Any]) -> bool:
    """True if the config of a folder or file of ours describes a policy with a language head."""
    return values.get("reasoning_length") is not None


def _load_released(path: Path, tensors: Mapping[str, Tensor], target: _Target) -> tuple[VlaserPolicy, LoadReport]:
    report = _report(path, "released", tensors)
    answers = _answers(target.settings)
    table, unused = _with_head(layouts.RELEASED, layouts.RELEASED_UNUSED, "internvl_model.", answers)
    weights = _map_keys(tensors, table, unused, report)
    shapes = _shapes(weights)
    with _needed_for_inference(path):
        _check_robot(path, target.robot, shapes["proprio_encoder.weight"][1])
        head_dim = target.settings.get("head_dim", VlaserConfig().head_dim)
        inferred = {
            **layouts.infer_vision(shapes),
            **layouts.infer_language(shapes, head_dim),
            **layouts.infer_expert(shapes),
        }
    config = _configure(path, inferred, target, report)
    return _assemble(config, weights, target, report), report


def _load_described(
    path: Path, tensors: Mapping[str, Tensor], described: Mapping[str, Any], target: _Target
) -> tuple[VlaserPolicy, LoadReport]:
    """A ``.pt`` of ours: nothing is inferred, and rows that were appended for the original are left out again."""
    report = _report(path, "file", tensors)
    answered = _answers(described["policy"])
    table, unused = _with_head(layouts.RELEASED, layouts.RELEASED_UNUSED, "internvl_model.", answered)
    weights = _map_keys(tensors, table, unused, report)
    config = _config_of(path, described["policy"], target)
    for name in ("embed_tokens.weight", "lm_head.weight"):
        if name in weights:
            weights[name] = weights[name][: config.vocab_size]
    return _assemble(config, weights, target, report, answered=answered), report


def _with_head(
    table: dict[str, str], unused: dict[str, str], prefix: str, answers: bool
) -> tuple[dict[str, str], dict[str, str]]:
    """Both tables of keys for a policy that takes the language model's text head over, or for one that does not."""
    head = f"{prefix}{layouts.HEAD}"
    if not answers:
        return table, unused
    return {**table, head: "lm_head."}, {key: why for key, why in unused.items() if key != head}


def _config_of(path: Path, values: Mapping[str, Any], target: _Target) -> VlaserConfig:
    """The config that one of our folders or files holds, with the caller's changes."""
    try:
        config = VlaserConfig.from_dict(values).replace(**target.settings)
    except (InvalidConfigError, UnknownNameError) as error:
        raise CheckpointError(f"{path} does not describe a policy: {error}") from error
    _check_robot(path, target.robot, config.proprio_dim)
    return config


def _load_vlm(path: Path, tensors: Mapping[str, Tensor], target: _Target) -> tuple[VlaserPolicy, LoadReport]:
    report = _report(path, "vlm", tensors)
    answers = _answers(target.settings)
    weights = _map_keys(tensors, *_with_head(layouts.VLM, layouts.VLM_UNUSED, "", answers), report)
    if answers and "lm_head.weight" not in weights and "embed_tokens.weight" in weights:
        # Small VLMs have one table for both ends.
        weights["lm_head.weight"] = weights["embed_tokens.weight"].clone()
        report.mapped["lm_head.weight"] = report.mapped["embed_tokens.weight"]
    described = _read_json(path / CONFIG_FILE)
    language = described.get("llm_config", {})
    robot = target.robot or "widowx"
    with _needed_for_inference(path):
        shapes = _shapes(weights)
        heads = int(language.get("num_attention_heads", shapes["embed_tokens.weight"][1] // 128))
        head_dim = shapes["language.layers.0.self_attn.q_proj.weight"][0] // heads
        inferred = {
            **layouts.infer_vision(shapes),
            **layouts.infer_language(shapes, head_dim),
            "head_dim": head_dim,
            "proprio_dim": PROPRIO_DIMS[robot],
        }
    if "num_attention_heads" in described.get("vision_config", {}):
        inferred["vision_heads"] = int(described["vision_config"]["num_attention_heads"])
    if "rope_theta" in language:
        inferred["rope_theta"] = float(language["rope_theta"])
    if inferred["width"] == VlaserConfig.preset("vlaser_8b").width:
        inferred["expert_mlp"] = VlaserConfig.preset("vlaser_8b").expert_mlp
    config = _configure(path, inferred, target, report)
    return _assemble(config, weights, target, report, fresh=("expert",), answered=True), report


def _configure(path: Path, inferred: dict[str, Any], target: _Target, report: LoadReport) -> VlaserConfig:
    """The config from what the weights show, what the caller says, and the defaults; the report gets all three."""
    robot = next((name for name, dim in PROPRIO_DIMS.items() if dim == inferred["proprio_dim"]), None)
    values = {"time_max_period": layouts.default_period(robot), **inferred, **target.settings}
    try:
        config = VlaserConfig().replace(**values)
    except InvalidConfigError as error:
        raise CheckpointError(f"The weights in {path} do not fit a Vlaser policy: {error}") from error
    report.inferred = {name: value for name, value in inferred.items() if name not in layouts.NOT_IN_WEIGHTS}
    report.assumed = {name: getattr(config, name) for name in layouts.NOT_IN_WEIGHTS}
    return config.replace(name=layouts.name_of(config))


def _assemble(
    config: VlaserConfig,
    weights: Mapping[str, Tensor],
    target: _Target,
    report: LoadReport,
    fresh: tuple[str, ...] = (),
    *,
    answered: bool = False,
) -> VlaserPolicy:
    """Check every name and shape, then take the tensors over; parts in ``fresh`` may be absent and are drawn, and so
    is the language head of a policy that had none so far (``answered``).
    """
    policy = VlaserPolicy.on_meta(config)
    expected = policy.state_dict()
    for name in weights.keys() - expected.keys():
        keys = [report.mapped.pop(name), *report.aliases.pop(name, [])]
        report.ignored.update(dict.fromkeys(keys, "no such parameter"))
    allowed = tuple(f"{module}." for part in fresh for module in PARTS[part])
    if config.answers and not answered:
        allowed = (*allowed, "lm_head.")
    grown = range(0)
    if "layers" in target.settings and not fresh:
        grown = range(layouts.count_layers(weights, "language.layers."), config.layers)
    allowed = (*allowed, *(f"{stack}.layers.{index}." for index in grown for stack in ("language", "expert")))
    report.missing = [name for name in expected if name not in weights]
    lacking = [name for name in report.missing if not name.startswith(allowed)]
    if lacking:
        raise CheckpointError(
            f"{report.source} lacks {len(lacking)} of {len(expected)} tensors, first {', '.join(lacking[:3])}: it is "
            f"incomplete or of another model."
        )
    for name, tensor in weights.items():
        if name in expected and tensor.shape != expected[name].shape:
            raise CheckpointError(
                f"{report.mapped[name]} in {report.source} should have shape {list(expected[name].shape)}; it has "
                f"{list(tensor.shape)}."
            )
    _check_finite({name: tensor for name, tensor in weights.items() if name in expected}, report)
    dtype = target.dtype or _main_dtype(weights)
    empty = {n: torch.empty(expected[n].shape, dtype=dtype, device=target.device) for n in report.missing}
    taken = {n: t.to(device=target.device, dtype=dtype) for n, t in weights.items() if n in expected}
    policy.load_state_dict({**taken, **empty}, assign=True)
    if report.missing:
        policy.reset_parameters(target.seed, fresh)
        if grown:
            policy.reset_to_pass_on(grown, target.seed)
        if "lm_head.weight" in report.missing:
            policy.reset_head(target.seed)
    return policy.eval()


def _check_finite(weights: Mapping[str, Tensor], report: LoadReport) -> None:
    """Refuse weights of a training that diverged; one pass over the numbers, without a copy of them."""
    for name, tensor in weights.items():
        if tensor.dtype in DTYPES.values() and tensor.numel() and not torch.stack(tensor.aminmax()).isfinite().all():
            raise CheckpointError(
                f"{report.mapped[name]} in {report.source} holds numbers that are not finite: the training that wrote "
                "it had diverged. Take an earlier checkpoint."
            )


def _map_keys(
    tensors: Mapping[str, Tensor], table: Mapping[str, str], unused: Mapping[str, str], report: LoadReport
) -> dict[str, Tensor]:
    """Our name -> tensor. Every further key of the same name must hold the same numbers."""
    weights: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        plain = layouts.plain_key(key)
        if plain.startswith(layouts.RELEASED_REFUSED):
            raise CheckpointError(
                f"{report.source} is of the DEBUG_IMGFEAT variant ({plain}), which computes something else and is not "
                f"supported. Use a checkpoint trained without it."
            )
        reason = next((why for prefix, why in unused.items() if plain.startswith(prefix)), None)
        name = layouts.translate(plain, table)
        if reason is not None or name is None:
            report.ignored[key] = reason or "unknown key"
        elif name not in weights:
            weights[name], report.mapped[name] = tensor, key
        elif _same(weights[name], tensor):
            report.aliases.setdefault(name, []).append(key)
        else:
            raise CheckpointError(
                f"{report.mapped[name]} and {key} in {report.source} should be the same tensor; they differ. The file "
                f"was put together from two models."
            )
    return weights


def _same(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return a.data_ptr() == b.data_ptr() or torch.equal(a, b)


# --- reading files


def _read_file(path: Path) -> dict[str, Tensor]:
    """All tensors of the model in a ``.pt`` or ``.safetensors`` file, memory-mapped."""
    content: Any = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    while isinstance(content, Mapping):
        inner = next((content[k] for k in ("model", "state_dict") if isinstance(content.get(k), Mapping)), None)
        if inner is None:
            break
        content = inner
    entries = content.items() if isinstance(content, Mapping) else ()
    tensors = {str(key): value for key, value in entries if isinstance(value, Tensor)}
    if not tensors:
        raise CheckpointError(f"{path} should hold a policy's weights; it holds no tensors.")
    return tensors


def _read_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than tensors and plain values (code, or a damaged pickle) and was not opened. Use a "
            f"file that torch.load reads with weights_only=True."
        ) from error
    except (RuntimeError, ValueError, EOFError, OSError, KeyError) as error:
        if _is_before_zip(path):
            raise CheckpointError(
                f"{path} is in the format of torch before 1.6, which cannot be read in parts. Write it again: "
                "torch.save(torch.load(FILE, map_location='cpu', weights_only=True), NEW_FILE)."
            ) from error
        raise CheckpointError(
            f"{path} should be a file written by torch.save; it is cut off, damaged or of another kind "
            f"({str(error).splitlines()[0]}). Download it again."
        ) from error


def _read_folder(path: Path) -> dict[str, Tensor]:
    """All tensors of a folder with one or several safetensors files, or with one ``.pt`` file."""
    index = path / "model.safetensors.index.json"
    names = sorted(file.name for file in path.glob("*.safetensors"))
    if index.is_file():
        named = _read_json(index).get("weight_map")
        files = list(named.values()) if isinstance(named, dict) else []
        if not files or not all(isinstance(name, str) and Path(name).name == name for name in files):
            raise CheckpointError(
                f"{index} should map names of tensors to files beside it (weight_map); got something else. Copy it "
                "again."
            )
        names = sorted(set(files))
    if not names:
        file = _only_pt(path)
        if file is not None:
            return _read_file(file)
        raise CheckpointError(
            f"{path} should hold {WEIGHTS_FILE}, a VLM's safetensors files or one .pt file; it holds "
            f"{len(list(path.glob('*.pt')))} .pt files. Give the file or the folder that has the weights."
        )
    tensors: dict[str, Tensor] = {}
    for name in names:
        tensors.update(_read_safetensors(path / name))
    return tensors


def _is_before_zip(path: Path) -> bool:
    """True for a file of torch before 1.6: it begins with a pickle of torch's own magic number."""
    try:
        with path.open("rb") as file:
            return file.read(len(_LEGACY)) == _LEGACY
    except OSError:
        return False


def _only_pt(path: Path) -> Path | None:
    """The ``.pt`` file that a folder's weights are read from: there is one, and no safetensors file."""
    files = list(path.glob("*.pt"))
    return files[0] if len(files) == 1 and not any(path.glob("*.safetensors*")) else None


def _read_safetensors(path: Path, check: bool = False) -> dict[str, Tensor]:
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist. Copy the whole folder again.")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            wanted = (file.metadata() or {}).get(CHECKSUM_KEY) if check else None
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (the reader is no mapping)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} should be a safetensors file; it is cut off or damaged ({error}). Copy it again."
        ) from error
    if wanted is not None and wanted != _checksum(tensors):
        raise CheckpointError(
            f"{path} is damaged: its tensors have another checksum than the one that was written with them. Copy it "
            "again, take an earlier policy, or use it all the same with check_weights=false."
        )
    return tensors


def write_safetensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file with its own checksum in it; it appears whole or not at all."""
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    with appearing(path) as temporary:
        save_file(whole, temporary, {"format": "pt", CHECKSUM_KEY: _checksum(whole)})
        # The library orders the metadata differently every time: in one order, equal weights make equal files.
        with temporary.open("r+b") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size))
            header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
            text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
            if len(text) <= size:
                file.seek(8)
                file.write(text.ljust(size))


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    def part(tensor: Tensor) -> Callable[[], tuple[str, Any]]:
        flat = tensor.detach().contiguous().reshape(-1)
        name = str(tensor.dtype).removeprefix("torch.")
        return lambda: (f"{name}{list(tensor.shape)}", flat.cpu().view(torch.uint8).numpy())

    return digest_of({name: part(tensor) for name, tensor in tensors.items()})


def _check_archive(file: Path | None) -> None:
    """Raise :class:`CheckpointError` for a ``.pt`` whose parts are not as they were written."""
    if file is None or not file.is_file():
        return
    try:
        part = damaged_member(file)
    except (OSError, EOFError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        part = str(error)
    if part is not None:
        raise CheckpointError(
            f"{file} is cut off or damaged ({part}): it is not as it was written. Download or copy it again, or use it "
            "all the same with check_weights=false."
        )


def _read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, empty if there is no file."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} should be JSON; reading it gave: {error}. Copy it again.") from error
    return content if isinstance(content, dict) else {}


# --- small things


def _is_ours(path: Path) -> bool:
    return _read_json(path / CONFIG_FILE).get("format") in (FORMAT, VLM_FORMAT)


def _check_robot(path: Path, robot: str | None, proprio_dim: int) -> None:
    is_for = next((name for name, dim in PROPRIO_DIMS.items() if dim == proprio_dim), None)
    if robot is not None and PROPRIO_DIMS[robot] != proprio_dim:
        raise CheckpointError(
            f"A checkpoint for {robot} reads {PROPRIO_DIMS[robot]} proprioceptive numbers; {path} reads {proprio_dim}"
            f"{f', so it is for {is_for}' if is_for else ''}. Use the checkpoint that was trained for {robot}."
        )
    if is_for is None:
        raise CheckpointError(
            f"{path} reads {proprio_dim} proprioceptive numbers; policies here read "
            f"{' or '.join(f'{dim} ({name})' for name, dim in PROPRIO_DIMS.items())}."
        )


def _dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    if isinstance(dtype, str):
        if dtype not in DTYPES:
            raise UnknownNameError("dtype", dtype, DTYPES)
        return DTYPES[dtype]
    return dtype


def _main_dtype(weights: Mapping[str, Tensor]) -> torch.dtype:
    """The dtype that holds most of the numbers."""
    sizes: dict[torch.dtype, int] = {}
    for tensor in weights.values():
        sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.numel()
    return max(sizes, key=lambda dtype: sizes[dtype])


def _shapes(weights: Mapping[str, Tensor]) -> dict[str, layouts.Shape]:
    return {name: tuple(tensor.shape) for name, tensor in weights.items()}


def _report(path: Path, layout: str, tensors: Mapping[str, Tensor]) -> LoadReport:
    report = LoadReport(str(path), layout)
    storages: dict[int, int] = {}
    for tensor in tensors.values():
        name = str(tensor.dtype).removeprefix("torch.")
        report.dtypes[name] = report.dtypes.get(name, 0) + 1
        storages[tensor.data_ptr()] = max(tensor.nbytes, storages.get(tensor.data_ptr(), 0))
    report.nbytes = sum(storages.values())
    return report


def _shortened(ignored: Mapping[str, str], limit: int = 8) -> list[tuple[str, str]]:
    """The first entries, and a count of the rest."""
    entries = list(ignored.items())
    return entries if len(entries) <= limit else [*entries[:limit], ("...", f"and {len(entries) - limit} more")]


@contextlib.contextmanager
def _needed_for_inference(path: Path) -> Iterator[None]:
    """Sizes are read off a few tensors; one that is absent or has too few dimensions ends here."""
    try:
        yield
    except KeyError as error:
        raise CheckpointError(f"{path} lacks the tensor {error}: it is incomplete or of another model.") from error
    except (IndexError, ValueError, ZeroDivisionError) as error:
        raise CheckpointError(f"{path} holds tensors whose shapes fit no Vlaser policy ({error}).") from error


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn what goes wrong with a disk into one sentence: every library has an error of its own for it."""
    remedy = "choose a writable place with enough space; what was there is whole"
    try:
        with storage_errors(f"Cannot write {path}", remedy):
            yield
    except (SafetensorError, RuntimeError) as error:
        said = (str(error) or type(error).__name__).splitlines()[0]
        raise StorageError(f"Cannot write {path}: {said}; {remedy}.") from error
