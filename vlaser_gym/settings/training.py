"""Settings of the ``train`` command."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from vlaser_gym.settings.fields import Settings, option
from vlaser_gym.settings.groups import chosen

#: Packages that can be told the numbers of a run.
TRACKERS = ("wandb", "trackio")
#: Version of what a run keeps of them. In the first, which says no number, ``init=nano`` meant random weights.
SCHEMA = 2
#: Settings that came later: a run keeps them where they say something else than what was so before them.
LATER = {
    **{"checkpointing": [], "weights": "float32", "optimizer": "adamw", "shard": False, "compile": False},
    "columns": {"camera": None, "state": None, "action": None, "instruction": None, "privileged": None},
    **{"convention": None, "fps": None, "questions": None, "questions_weight": 1.0},
    **{"image_size": None, "task_shares": None},
}
WEIGHTS = ("float32", "bfloat16")
OPTIMIZERS = ("adamw", "adamw_8bit", "bitsandbytes")
#: Settings that may differ when a run is continued.
_FREE = (
    *("run", "device", "threads", "log_every", "save_every", "keep_checkpoints", "num_envs", "max_minutes", "engine"),
    *("tracker", "tracker_project", "check_weights", "cache"),
)


@dataclass
class TrainSettings(Settings):
    """Train a policy. algo=sft: on demonstrations that python -m vlaser_gym.collect recorded. algo=ppo: in the
    environments. algo=dpo, algo=nft, algo=rft: on episodes stored with store=training. algo=vlm: to answer questions.
    """

    data: Any = option(
        "datasets/demonstrations",
        "Data sets, one or several (data=a,b), also as mappings with what is their own: data=[{path: a, weight: 2}, b] "
        "(docs/data_sets.md); for dpo, nft and rft run directories, read where algo.rounds is 0; for vlm a folder of "
        "questions. ppo, grpo and sb3 do not read it.",
    )
    questions: str | None = option(
        None,
        "Folder of questions (python -m vlaser_gym.questions) that sft learns to answer beside the demonstrations, "
        "algo.answers per update; the policy gets a language head. null: none.",
    )
    questions_weight: float = option(
        1.0, "Weight of the answers' cross entropy (nat per token) beside the loss of the actions.", above=0
    )
    columns: dict[str, Any] = option(
        {"camera": None, "state": None, "action": None, "instruction": None, "privileged": None},
        "Names of the data's columns, for sft: columns.camera=observation.images.image_0. null: this gym's and "
        "LeRobot's own names; the only camera of a set need not be named.",
    )
    convention: Any = option(
        None,
        "What the data's states and actions mean, for sft: a preset such as bridge or fractal, or a mapping "
        "(docs/conventions.md). null: what this gym's do.",
    )
    fps: float | None = option(
        None,
        "Rows per second that the data are resampled to, for sft. null: their own; other projects' sets whose rate is "
        "not the robot's are refused.",
        above=0,
    )
    gripper: str | None = option(
        None,
        "What the last number of the data's actions means, for sft: command (this gym's: on WidowX +1 opens, on the "
        "Google Robot +1 closes, relatively), open (0 closed to 1 open), closed (1 closed), or width:METRES between "
        "the fingers, with the widest, such as width:0.08. null: commands; data from elsewhere that hold other values "
        "than -1, 0 and 1 are refused.",
    )
    init: Any = option(
        "random:nano",
        "What to start from: the folder of a policy or of a VLM; nano, the trained policy in the package; random:nano, "
        "random weights of its size (sft only). Several (init=A,B,C) are trained one after another with the same "
        "budget, and tabulated.",
    )
    policy: str | None = option(
        None,
        "Another policy class than Vlaser: module:function that makes a TrainableAgent, given init, robot, seed and "
        "device.",
    )
    settings: dict[str, Any] = option(
        {},
        "Changes of a policy's settings, e.g. settings.horizon=8 of a fresh one. settings.layers above those of init "
        "appends layers, which pass on what they get until they are trained.",
    )
    fresh: list[str] = option(
        [],
        "Parts of init that start with random weights all the same: vision, embedding, language, expert. With a fresh "
        "expert a policy may be for another robot than init is.",
    )
    tokenizer: str | None = option(
        None,
        "Tokenizer of the instructions, in place of init's: bytes, words (frequent words are one token, for small "
        "policies whose instructions name one of many things), or a folder of Qwen2's.",
    )
    robot: str | None = option(
        None, "Robot: widowx or google_robot. null: that of the policy in init, and widowx for a preset or a VLM."
    )
    run: str | None = option(None, "Run directory. An unfinished run is continued. null: a new one in runs/.")
    seed: int = option(0, "Seed of weights, order, noise and augmentation.", least=0)
    device: str | None = option(None, "cpu or cuda. null: cuda where there is one.")
    threads: int | None = option(None, "Threads of the CPU; null: all cores.", least=1)
    log_every: int = option(
        50,
        "Steps of the optimizer between two lines of numbers, of sft, dpo, nft and rft; ppo and grpo write a line "
        "every iteration.",
        least=1,
    )
    save_every: int = option(
        500,
        "Steps of the optimizer between two checkpoints, of sft, dpo, nft and rft; ppo, grpo and sb3 have "
        "algo.save_every.",
        least=1,
    )
    keep_checkpoints: int | None = option(
        3, "Policies of earlier steps that stay in checkpoints/, besides the last and the best; null: all.", least=1
    )
    evaluate_every: int = option(
        0,
        "Steps (sft), iterations (ppo, grpo) or rounds (dpo, nft, rft) between two evaluations. 0: only at the end, as "
        "sb3 always does.",
        least=0,
    )
    evaluate_episodes: int = option(6, "Episodes per task of an evaluation; 0: never evaluate.", least=0)
    task: Any = option(
        "widowx",
        "Tasks of the evaluations, and of the episodes that ppo, grpo, sb3 and rounds of dpo, nft and rft learn from; "
        "of one robot.",
    )
    task_shares: dict[str, int] | None = option(
        None,
        "Turns that tasks take among the environments of ppo and grpo: task_shares={widowx_stack_cube: 5} gives this "
        "one five, and each that is not named one. null: one each.",
    )
    layouts: Literal["grid", "region", "region2"] | None = option(
        None,
        "Layouts of the episodes that ppo, grpo, sb3 and rounds of dpo, nft and rft learn from: region (null means "
        "this), region2 (it contains the benchmark's own with a margin), never near a grid layout; or grid, the "
        "benchmark's own: scores on the grid are then in-sample. Evaluations in between take the same kind, of regions "
        "layouts that training never draws.",
    )
    look: str | None = option(None, "How the scenes look in these episodes. null: the engine's own look.")
    num_envs: int = option(
        8, "Episodes that run at the same time in evaluations and where episodes are learned from.", least=1
    )
    max_minutes: float | None = option(None, "Stop after so many minutes; the same command goes on later.", least=0)
    tracker: str | None = option(
        None,
        "Who else is told the numbers of metrics.jsonl, with every checkpoint: wandb (Weights & Biases) or trackio, "
        "whose packages are installed separately; a run that goes on is the same run there.",
        choices=TRACKERS,
    )
    tracker_project: str = option("vlaser-gym", "Project of the run at the tracker.")
    cache: str | None = option(
        None,
        "Folder for the decoded images of data sets, which may be deleted at any time. null: vlaser_gym/pictures in "
        "the user's cache.",
    )
    check_weights: bool = option(
        True,
        "Compare the checksums of init and of a continued run's state, about a second per gigabyte; false: take them "
        "as they are.",
    )
    checkpointing: list[str] = option(
        [],
        "Parts whose layers are computed again in the backward pass: vision, language, expert. Much less memory, about "
        "a third more time, the same gradients.",
    )
    weights: str = option(
        "float32",
        "Weights of the policy while it is trained: float32, or bfloat16, of which optimizer=adamw steps fp32 copies. "
        "Adapters are float32 always.",
        choices=WEIGHTS,
    )
    optimizer: str = option(
        "adamw",
        "adamw: averages in fp32. adamw_8bit (torchao) and bitsandbytes, the authors' (CUDA only): averages of 8 bits, "
        "and no fp32 copies of bfloat16 weights; adamw_8bit rounds these at random. Extra gpu.",
        choices=OPTIMIZERS,
    )
    shard: bool = option(
        False,
        "Under torchrun: share weights, gradients and what the optimizer keeps out among the processes (FSDP2), "
        "instead of each having all. Checkpoints are whole; sft, dpo and nft go on with any number of processes.",
    )
    compile: bool = option(
        False, "Compile the layers that are trained (torch.compile): minutes at first, faster steps afterwards."
    )
    algo: dict[str, Any] = chosen("algo", "sft")
    engine: dict[str, Any] = chosen("engine", "mujoco")

    @property
    def layout_kind(self) -> str:
        """Kind of the layouts to learn from."""
        return self.layouts or "region"

    @property
    def inits(self) -> list[str]:
        """The initial policies, one run each."""
        return [self.init] if isinstance(self.init, str) else [str(name) for name in self.init]

    @property
    def data_sets(self) -> list[str]:
        """Folders of the demonstrations, or run directories."""
        given = self.data if isinstance(self.data, list | tuple) else [self.data]
        return [str(entry.get("path")) if isinstance(entry, dict) else str(entry) for entry in given]

    @property
    def engine_options(self) -> dict[str, Any]:
        """The engine's settings without its name."""
        return {key: value for key, value in self.engine.items() if key != "name"}

    def stored(self, init: str) -> dict[str, Any]:
        """The settings that a run stores, which must agree to continue it."""
        told = {name: value for name, value in asdict(self).items() if name not in _FREE}
        told["image_size"] = self.engine.get("image_size")  # unlike the rest of the engine's settings, what is learned
        kept = {name: value for name, value in told.items() if name not in LATER or value != LATER[name]}
        return {**kept, "robot": self.robot or "widowx", "schema": SCHEMA, "init": init}
