"""Settings of the algorithms: the keys below ``algo``. The first paragraph of a class stands in ``train --help``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.registry import DENSITIES, REWARDS, STOCK_REWARDS
from vlaser_gym.settings.fields import Settings, check_above, check_rising, fixed, option

#: Densities whose noise is given and not learned.
EXPLORATIONS = ("flow_sde", "flow_sde_one_step", "flow_cps", "chunk_gaussian")
#: Of what the likelihood ratio is.
LIKELIHOODS = ("chain", "chunk", "action")
CRITICS = ("features", "state")
ADVANTAGES = ("all", "task")
KINDS = ("success", "faster", "further")
LOSSES = ("tpo", "flow_dpo")
PRECISIONS = ("float32", "bfloat16")
#: How answers of different lengths count.
WEIGHTINGS = ("token", "square", "sample")
#: Whose statistics normalise: those that the policy has, or the data's.
STATISTICS = ("keep", "widen", "data")
SCHEDULES = ("constant", "linear")

# Keys that several algorithms have, and mean the same by.
_SUBGOAL_WEIGHTS = (
    "Of reward=subgoals: how much each sub-goal counts, such as {moved_correct_obj: 2}; those that are not named count "
    "1. null: all alike."
)
_FREEZE = "Parts that stay constant: vision, embedding, language, expert."
_PRECISION = "float32, or bfloat16: matrix products in bf16, weights in fp32."
_CLIP = "Largest norm of the gradient."
_CHUNK_NOISE = (
    "Noise of chunk_gaussian, in normalised actions (-1 to 1): standard deviation of what all actions of a chunk "
    "share, and of each other coefficient of their cosine transform."
)
_ROTATION_NOISE = "Factor of chunk_gaussian's noise for the three rotations."
_INITIAL_NOISE = (
    "Standard deviation of the flow's first state, from now on also the checkpoint's. null: the policy's own; of "
    "chunk_gaussian 0."
)
_CACHE_MB = "Memory for keys and values of image and text (MiB); what does not fit is encoded again in every {time}."
_CACHE_DEVICE = "Where the keys and values of image and text are kept. null: where the policy is; cpu: host memory."


@dataclass(kw_only=True)
class AlgorithmSettings(Settings):
    """Base of the algorithms' settings; ``name`` is that by which one was chosen."""

    prefix: ClassVar[str] = "algo."

    name: str = fixed("")


@dataclass(kw_only=True)
class SftSettings(AlgorithmSettings):
    """Flow-matching behaviour cloning. Defaults are for the small model from random weights on two CPU cores."""

    name: str = fixed("sft")
    steps: int = option(20_000, "Updates.", least=1)
    batch_size: int = option(64, "Rows per update, over all processes.", least=1)
    accumulate: int = option(
        1,
        "Parts in which an update's rows go through the policy one after another: more take less memory.",
        least=1,
    )
    learning_rate: float = option(1e-3, "Peak learning rate of vision, embedding and language model.", least=0)
    expert_learning_rate: float = option(1e-3, "Peak learning rate of the action expert.", least=0)
    weight_decay: float = option(0.01, "Decay of matrices (AdamW).", least=0)
    betas: tuple[float, float] = option(
        (0.9, 0.99), "Decay of AdamW's averages of the gradient and of its square, per update."
    )
    warmup: int = option(
        300, "Updates until the learning rate is at its peak; then it follows a cosine down to final_rate.", least=0
    )
    final_rate: float = option(0.02, "Share of its peak at which the learning rate ends.", least=0)
    clip: float = option(1.0, _CLIP, above=0)
    ema: float | None = option(
        None,
        "Decay of averaged weights, which are what is stored then; 0: no averaging and no copy. null: 0.999 for "
        "weights up to 50 MB, 0 for larger ones, whose copy takes memory.",
        least=0,
        below=1,
    )
    flow_samples: int = option(
        4, "Flow times and noises per row: they share the row's image and text, which cost most.", least=1
    )
    places: float = option(
        0.0,
        "Weight of a second loss in training: from the image features, say where source and target are (privileged "
        "state). The head that says it is thrown away. 0: none.",
        least=0,
    )
    named_places: float = option(
        0.0,
        "Weight of the same loss from what the action expert reads of the image, where the instruction has been read "
        "too: for scenes in which it alone tells the source from other things. 0: none.",
        least=0,
    )
    freeze: list[str] | None = option(
        None,
        f"{_FREEZE} null: what the authors of Vlaser left as it was, the token embedding, in policies of the released "
        "sizes; nothing in others.",
    )
    lora: int = option(
        0,
        "Rank of adapters (LoRA): the other parts learn through them alone, their own weights stay. 0: none.",
        least=0,
    )
    whole: list[str] = option(
        [],
        "Parts that learn by their own weights beside the adapters of algo.lora, such as expert where it starts with "
        "random ones.",
    )
    augment: str = option(
        "colour",
        "Changes of the images: none, colour (brightness, contrast, saturation, hue), or full (also random crops), "
        "strengths as Vlaser's.",
    )
    precision: str = option("float32", _PRECISION, choices=PRECISIONS)
    statistics: str | None = option(
        None,
        "By whose bounds actions and proprioception are normalised. keep: the policy's own, without which its outputs "
        "mean something else before the first step. widen: keep, but the bounds of proprioception grow to hold the "
        "data's as well, and the weights that read it are rescaled so that nothing changes within the old ones. data: "
        "those of the new data, which become the policy's. null: keep for a policy; data for a preset, a VLM or "
        "fresh=[expert], whose numbers mean nothing yet. Losses of runs with different bounds cannot be compared.",
        choices=STATISTICS,
    )

    answers: int = option(32, "Answers per update, of questions=DIR, over all processes.", least=1)
    place_spread: float = option(
        0.0,
        "How far the target of a place's number is spread over its neighbours in answers, as a standard deviation in "
        "hundredths of the image: a near miss costs less than a far one. For the small model, whose tokens these "
        "numbers are. 0: the number alone.",
        least=0,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise InvalidConfigError(f"algo.betas must be two numbers in [0, 1); got {list(self.betas)}.")
        if self.batch_size % self.accumulate:
            raise InvalidConfigError(
                f"algo.batch_size must be a multiple of algo.accumulate; got {self.batch_size} and {self.accumulate}."
            )


@dataclass(kw_only=True)
class VlmSettings(SftSettings):
    """Answers to questions, token by token (algo=vlm): data is a folder of python -m vlaser_gym.questions, or a file of
    conversations in InternVL's format. init is a policy of this gym, which gets a language head and keeps its action
    expert; random:nano; or a vision-language model in InternVL's layout. Defaults are for the small model on one core.
    """

    name: str = fixed("vlm")
    steps: int = option(3000, "Updates.", least=1)
    batch_size: int = option(
        64, "Answers per update, over all processes; those about one image come together.", least=1
    )
    learning_rate: float = option(2e-3, "Peak learning rate.", least=0)
    warmup: int = option(
        100, "Updates until the learning rate is at its peak; then it follows a cosine down to final_rate.", least=0
    )
    freeze: list[str] | None = option(
        None,
        "Parts that stay constant: vision, embedding, language; of an InternVL model also head. null: none. A policy's "
        "vision knows where things are, and forgets it at the default rate: freeze=[vision]. The action expert always "
        "does; with vision, embedding and language too, a policy acts as before and learns to answer.",
    )
    kinds: Any = option(None, "Kinds of questions, or families, that are learned (kinds=grounding,trace). null: all.")
    length: int | None = option(
        None,
        "Tokens of images, question and answer together at most, from now on the checkpoint's; longer ones are left "
        "out. null: the checkpoint's, 256 for a policy that gets a language head, 4096 for an InternVL model.",
        least=1,
    )
    weighting: str = option(
        "square",
        "How answers of n tokens count: token (as n), square (as the root of n, InternVL's), sample (all alike).",
        choices=WEIGHTINGS,
    )
    packing: bool = option(True, "Several questions share a row of algo.length tokens: the same loss in less time.")
    max_tiles: int | None = option(
        None, "Tiles that an InternVL model's image is cut into at most. null: the checkpoint's limit.", least=1
    )
    expert_learning_rate: float = fixed(0.0)
    flow_samples: int = fixed(1)
    places: float = fixed(0.0)
    named_places: float = fixed(0.0)
    statistics: str | None = fixed(None)
    answers: int = fixed(1)


@dataclass(kw_only=True)
class PpoSettings(AlgorithmSettings):
    """PPO on the flow policy, in the environments that score it. init is the folder of a policy; data is not read."""

    name: str = fixed("ppo")
    iterations: int = option(200, "Rollouts, each followed by an update.", least=1)
    n_steps: int = option(32, "Decisions per environment and rollout.", least=1)
    batch_size: int = option(128, "Decisions per step of the optimizer, over all processes (of grpo: about).", least=2)
    micro_batch: int = option(64, "Decisions that go through the policy at once: fewer take less memory.", least=1)
    rollout_batch: int | None = option(
        None,
        "Rows of every forward pass of a rollout, one number for the whole run. null: as many as a process has "
        "environments (grpo: at most 8).",
        least=1,
    )
    epochs: int = option(3, "Passes over a rollout.", least=1)
    learning_rate: float = option(1e-5, "Learning rate of the policy (the actor).", least=0)
    critic_learning_rate: float = option(3e-4, "Learning rate of the critic.", least=0)
    schedule: str = option(
        "constant",
        "How the learning rate goes on: constant, or linear (to 0 at the last iteration).",
        choices=SCHEDULES,
    )
    warmup: int = option(
        5,
        "Iterations in which the policy's learning rate rises to its value: Adam's first steps go as far in every "
        "direction.",
        least=0,
    )
    density: str = option(
        "chunk_gaussian",
        "How the policy explores: chunk_gaussian (noise on the finished chunk), flow_sde, flow_sde_one_step (one "
        "random step per chunk), flow_noise (learned), or flow_cps. Your own: module:Class.",
        choices=DENSITIES,
    )
    likelihood: str = option(
        "chain",
        "Of what the likelihood ratio is: chain (all random numbers of a decision, one product), chunk (its executed "
        "actions, mean over the random steps), or action (each executed action has a ratio of its own).",
        choices=LIKELIHOODS,
    )
    flow_steps: int | None = option(
        None, "Euler steps of the flow, from now on also the checkpoint's. null: the policy's own.", least=1
    )
    initial_noise: float | None = option(None, _INITIAL_NOISE, least=0, most=1)
    noise_level: float = option(0.5, "Noise of flow_sde and flow_cps (of the latter at most 1).", above=0)
    chunk_noise: tuple[float, float] = option((0.1, 0.04), _CHUNK_NOISE)
    rotation_noise: float = option(0.3, _ROTATION_NOISE, above=0)
    noise_bounds: tuple[float, float] = option(
        (0.05, 0.2), "Least and largest standard deviation of a step of flow_noise."
    )
    gamma: float = option(1.0, "Discount per control step.", least=0, most=1)
    gae_lambda: float = option(0.95, "Weight of later decisions in an advantage.", least=0, most=1)
    clip_range: float = option(0.2, "How far the likelihood ratio counts.", above=0, most=1)
    dual_clip: float | None = option(
        None, "Largest ratio that counts against what did badly (dual clip, often 3). null: any.", above=1
    )
    value_clip: float | None = option(
        None,
        "How far the critic may move from its value in the rollout before its error stops to shrink. null: any.",
        above=0,
    )
    advantages: str = option(
        "all",
        "Over what advantages get mean 0 and spread 1: all decisions of a rollout, or those of each task.",
        choices=ADVANTAGES,
    )
    critic: str = option(
        "features",
        "What the critic reads: features (what the policy makes of the image), or state (the simulator's: poses, "
        "sub-goals, time). It exists only in training; the policy never reads the state.",
        choices=CRITICS,
    )
    target_kl: float | None = option(
        0.05,
        "An update ends when the divergence from the rollout's policy, of what algo.likelihood says, exceeds 1.5 times "
        "this. null: never.",
        above=0,
    )
    entropy: float = option(0.0, "Weight of the noise's entropy; matters to flow_noise only.")
    clip: float = option(1.0, "Largest norm of the gradient; ppo: of actor and critic each.", above=0)
    critic_warmup: int = option(2, "Iterations in which the critic learns alone.", least=0)
    pull: float = option(0.0, "Weight of the squared distance to the first policy's velocities.", least=0)
    reward: str = option(
        "last",
        "What pays: last (1 for success at the last step, as the benchmark counts; episodes run to their limit), "
        "sparse (1 at success, which ends the episode), or subgoals (also potential-based reward for sub-goals). Your "
        "own: module:Class.",
        choices=REWARDS,
    )
    subgoal_weights: dict[str, float] | None = option(None, _SUBGOAL_WEIGHTS)
    freeze: list[str] = option(["vision", "embedding", "language"], _FREEZE)
    lora: int = option(
        0,
        "Rank of adapters (LoRA): the other parts learn through them alone, their own weights stay. 0: none.",
        least=0,
    )
    cache_mb: int = option(4096, _CACHE_MB.format(time="epoch"), least=0)
    cache_device: str | None = option(None, _CACHE_DEVICE)
    precision: str = option("float32", _PRECISION, choices=PRECISIONS)
    save_every: int = option(5, "Iterations between two checkpoints.", least=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rising("algo.noise_bounds", self.noise_bounds)
        check_above("algo.chunk_noise", self.chunk_noise)


@dataclass(kw_only=True)
class GrpoSettings(PpoSettings):
    """PPO whose critic is a group of episodes from one initial state (algo=grpo). init is the folder of a policy.

    PPO's settings, less what belongs to the critic, plus the groups. Rewards are successes, and all decisions of an
    episode have one advantage: nothing is discounted. ``n_steps`` follows from the episodes' length.
    """

    name: str = fixed("grpo")
    group_size: int = option(
        8,
        "Environments that run the same initial states with different noise; num_envs is a multiple of it.",
        least=2,
    )
    rounds: int = option(
        2,
        "Initial states per group and rollout. Environments stand still when they are through before others.",
        least=1,
    )
    filter_groups: bool = option(
        True, "Leave out groups whose episodes all succeeded or all failed; false: they count, with advantage 0."
    )
    n_steps: int = fixed(1)
    gamma: float = fixed(1.0)
    gae_lambda: float = fixed(1.0)
    critic_learning_rate: float = fixed(0.0)
    critic_warmup: int = fixed(0)
    value_clip: float | None = fixed(None)
    advantages: str = fixed("all")
    critic: str = fixed("features")
    reward: str = fixed("sparse")


@dataclass(kw_only=True)
class RoundSettings(AlgorithmSettings):
    """The common settings of ``dpo``, ``nft`` and ``rft``."""

    rounds: int = option(
        0, "Rounds of collecting and training; 0: one round on the stored runs named by data.", least=0
    )
    layouts: int = option(12, "Layouts per task and round.", least=1)
    trials: int = option(8, "Episodes of each layout.", least=1)
    terminate_on_success: bool = option(
        False,
        "Whether a round's episodes end with their first success; false: at the step limit, where the benchmark looks. "
        "Who learns from episodes that ended with success learns to place, and to lose it again.",
    )
    density: str | None
    initial_noise: float | None = option(None, _INITIAL_NOISE, least=0, most=1)
    noise_level: float = option(0.5, "Noise of flow_sde and flow_cps (of the latter at most 1).", above=0)
    chunk_noise: tuple[float, float] = option((0.12, 0.04), _CHUNK_NOISE)
    rotation_noise: float = option(0.3, _ROTATION_NOISE, above=0)
    epochs: int = option(4, "Passes over what a round has to learn from: pairs (dpo), decisions (nft, rft).", least=1)
    batch_size: int
    micro_batch: int
    flow_samples: int = option(4, "Flow times and noises per decision (of dpo: for flow_dpo).", least=1)
    learning_rate: float = option(1e-4, "Learning rate (AdamW without decay).", least=0)
    clip: float = option(1.0, _CLIP, above=0)
    freeze: list[str] = option(["vision", "embedding", "language"], _FREEZE)
    lora: int = option(
        0,
        "Rank of adapters on the other parts, which alone are trained then. 0: the parts themselves. The reference of "
        "dpo is the policy without its adapters, or else a copy made when a round begins.",
        least=0,
    )
    cache_mb: int = option(4096, _CACHE_MB.format(time="step"), least=0)
    cache_device: str | None = option(None, _CACHE_DEVICE)
    precision: str = option("float32", _PRECISION, choices=PRECISIONS)


@dataclass(kw_only=True)
class DpoSettings(RoundSettings):
    """Preferences: of two episodes of the same initial state the better one more likely. init is the folder of a
    policy.
    """

    name: str = fixed("dpo")
    loss: str = option(
        "tpo",
        "tpo: likelihood of the chains under a density; flow_dpo: flow-matching error of the chunks, without one.",
        choices=LOSSES,
    )
    density: str | None = option(
        "flow_sde_one_step",
        "How the policy explores in a round: flow_sde, flow_sde_one_step, flow_cps, chunk_gaussian, or null: the plain "
        "flow (not for tpo, which weighs the chains of stored runs by this density too).",
        choices=EXPLORATIONS,
    )
    beta: float = option(1.0, "Weight of the difference between the two episodes' ratios inside the sigmoid.", above=0)
    proximal: float = option(
        0.0, "Weight of the squared ratios: keeps both from running away while their difference grows.", least=0
    )
    supervised: float = option(0.0, "Weight of the better episode's own error.", least=0)
    kinds: list[str] = option(
        list(KINDS),
        "What makes an episode better: success over failure, faster over slower successes, further over less far "
        "failures.",
        choices=KINDS,
    )
    per_layout: int = option(16, "Pairs of an initial state at most.", least=1)
    pairs: int | None = option(None, "Pairs in all at most, balanced over tasks and layouts; null: no limit.", least=1)
    # Two successes that came at the same step are no pair.
    faster_by: int = option(8, "Control steps by which the better of two successes must come first.", least=1)
    decisions: int | None = option(
        8, "Decisions per episode and step of the optimizer, drawn at random; null: all.", least=1
    )
    batch_size: int = option(16, "Pairs per step of the optimizer.", least=1)
    micro_batch: int = option(16, "Pairs that go through the policy at once: fewer take less memory.", least=1)
    patience: int = option(10, "Steps over which the better episodes' error is averaged, for rise.", least=1)
    rise: float = option(
        0.02,
        "A round ends when the better episodes' error, mean of patience steps, is above the reference's by more than "
        "this share of it.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss == "tpo" and self.density is None:
            raise InvalidConfigError(
                "algo.loss=tpo weighs chains by their likelihood and needs algo.density=flow_sde or flow_sde_one_step, "
                "for example."
            )


@dataclass(kw_only=True)
class NftSettings(RoundSettings):
    """Towards what succeeded and away from what failed (DiffusionNFT): no likelihood, no critic. init is the folder of
    a policy.
    """

    name: str = fixed("nft")
    density: str | None = option(
        None,
        "How the policy explores in a round: null: the plain flow; flow_sde, flow_sde_one_step, flow_cps: with noise "
        "in it; chunk_gaussian: with noise on the chunk.",
        choices=EXPLORATIONS,
    )
    beta: float = option(
        1.0, "Share of the way to the positive policy that the trained one goes: smaller is bolder.", above=0
    )
    negatives: bool = option(True, "Learn from failures too. false (with beta=1): imitate the successes alone.")
    batch_size: int = option(256, "Decisions per step of the optimizer.", least=1)
    micro_batch: int = option(128, "Decisions that go through the policy at once: fewer take less memory.", least=1)


@dataclass(kw_only=True)
class RftSettings(RoundSettings):
    """Success-filtered cloning: roll out, keep what succeeded, imitate it. init is the folder of a policy."""

    name: str = fixed("rft")
    density: str | None = option(
        None,
        "How the policy explores in a round: null: the plain flow; flow_sde, flow_sde_one_step, flow_cps: with noise "
        "in it; chunk_gaussian: with noise on the chunk.",
        choices=EXPLORATIONS,
    )
    per_layout: int | None = option(None, "Episodes of an initial state that are imitated at most; null: all.", least=1)
    batch_size: int = option(256, "Decisions per step of the optimizer.", least=1)
    micro_batch: int = option(128, "Decisions that go through the policy at once: fewer take less memory.", least=1)


@dataclass(kw_only=True)
class Sb3Settings(AlgorithmSettings):
    """The common settings of Stable-Baselines3's own algorithms."""

    timesteps: int
    reward: str = option(
        "reach",
        "sparse (1 at success, which ends the episode), subgoals (also potential-based reward for sub-goals), or reach "
        "(only for bringing the tool to the object). Your own: module:Class.",
        choices=STOCK_REWARDS,
    )
    subgoal_weights: dict[str, float] | None = option(None, _SUBGOAL_WEIGHTS)
    gamma: float = option(0.95, "Discount per control step.", least=0, most=1)
    horizon: int | None = option(None, "Control steps per action: actions are chunks. null: one, not chunked.")
    save_every: int
    options: dict[str, Any]


@dataclass(kw_only=True)
class Sb3PpoSettings(Sb3Settings):
    """Stable-Baselines3's PPO from the privileged state (poses instead of images); needs no init and no data."""

    name: str = fixed("sb3_ppo")
    timesteps: int = option(300_000, "Actions, over all environments.", least=1)
    save_every: int = option(50_000, "Actions between two checkpoints.", least=1)
    options: dict[str, Any] = option(
        {
            "learning_rate": 3e-4,
            "n_steps": 256,
            "batch_size": 256,
            "n_epochs": 10,
            "gae_lambda": 0.95,
            "clip_range": 0.2,
            "ent_coef": 0.0,
        },
        "Keyword arguments of stable_baselines3.PPO.",
    )


@dataclass(kw_only=True)
class Sb3SacSettings(Sb3Settings):
    """Stable-Baselines3's SAC from the privileged state (poses instead of images); needs no init and no data."""

    name: str = fixed("sb3_sac")
    timesteps: int = option(30_000, "Actions, over all environments.", least=1)
    save_every: int = option(10_000, "Actions between two checkpoints.", least=1)
    options: dict[str, Any] = option(
        {
            "learning_rate": 1e-3,
            "buffer_size": 100_000,
            "learning_starts": 1000,
            "batch_size": 128,
            "tau": 0.01,
            "train_freq": 1,
            "gradient_steps": 4,
            "ent_coef": "auto",
            "policy_kwargs": {"net_arch": [64, 64]},
        },
        "Keyword arguments of stable_baselines3.SAC.",
    )


#: Settings of the algorithms by the names that ``algo=`` takes; registered ones come in.
ALGORITHM_SETTINGS: dict[str, type[Any]] = {
    "sft": SftSettings,
    "vlm": VlmSettings,
    "ppo": PpoSettings,
    "grpo": GrpoSettings,
    "dpo": DpoSettings,
    "nft": NftSettings,
    "rft": RftSettings,
    "sb3_ppo": Sb3PpoSettings,
    "sb3_sac": Sb3SacSettings,
}
