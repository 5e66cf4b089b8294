"""Settings of the commands, by the commands' names. The docstring of a class stands above the keys in ``--help``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vlaser_gym.settings.fields import REQUIRED, Settings, option
from vlaser_gym.settings.groups import chosen
from vlaser_gym.settings.training import TrainSettings

#: What a run keeps of its episodes besides their records.
RUN_STORES = ("states", "training")
#: What ``collect`` makes: a data set in LeRobot's layout, or a run directory with what learners need.
COLLECT_STORES = ("demonstrations", "training")
COLLECT_RENDERS = ("every_step", "decisions")
ASSET_ACTIONS = ("fetch", "import", "check", "object")

# Keys that several commands have, and mean the same by.
_TASKS = "A task, several (task=a,b), one of your own (task=module:object, docs/robots.md) or a preset"
_LOOK = "How the scenes look. null: the engine's own look."
_CHECKPOINT = "Weights, for agents that take a checkpoint (short for agent.checkpoint=)"
_OURS = "null: agent=vlaser acts by the package's policy for the robot"
_AT_ONCE = "Episodes that run at the same time"
_BUDGET = "Begin no further episodes after so many minutes; the same command goes on later."
_VARIANT = "Named variant of the tasks' scenes."
_INSTRUCTION = (
    "Told in place of the tasks' own sentences: a sentence, several of which each episode gets one by its address, a "
    ".txt file with one per line, or a .yaml file with lines TASK: SENTENCE (docs/own_scenes.md). null: the tasks' own."
)
_LIMIT = "Control steps after which an episode ends. null: each task's own limit, which is the benchmark's."


@dataclass
class EvalKeys(Settings):
    """Score an agent: run its episodes, store them, print success rates with 95 % intervals, film some episodes."""

    task: Any = option(
        None,
        f"{_TASKS}: widowx is its four tasks, google_robot the five of the published tables (pick coke can, move near "
        "v0, open, close, place apple). task=? lists all names. null: widowx, or all tasks of the protocol.",
    )
    protocol: str | None = option(
        None,
        "A published evaluation: visual_matching, variant_aggregation (SimplerEnv) or vlaser_paper; or "
        "widowx_variant_aggregation (docs/robustness.md). It says which tasks, variants, layouts and trials are run, "
        "and prints its scores; with task= only those of its tasks, with episodes= fewer of each (reduced).",
    )
    variant: str = option("default", _VARIANT)
    layouts: str = option(
        "grid",
        "grid: the benchmark's own layouts; region: continuous positions between them; region2: continuous positions "
        "in a wider area with more headings, which contains them; grid_and_region, grid_and_region2: first those, then "
        "these.",
    )
    episodes: int | None = option(
        None,
        "Episodes per task and trial: layouts 0, 1, 2, ... in order; beyond the last grid layout they repeat as "
        "further trials. With protocol=: so many of each task and variant, evenly drawn over the protocol's layouts, "
        "and everything that is told of them says reduced (docs/protocols.md). null: 24, or the whole protocol.",
        least=1,
    )
    trials: int = option(1, "How often each episode is repeated, with other noise of the agent.", least=1)
    terminate_on_success: bool = option(
        False, "End an episode at its first success; false is the benchmark's protocol."
    )
    instruction: Any = option(None, _INSTRUCTION)
    max_episode_steps: int | None = option(None, _LIMIT, least=1)
    checkpoint: str | None = option(
        None,
        f"{_CHECKPOINT}: a folder, a file, or nano. Several (checkpoint=A,B or RUN/checkpoints/*) are scored one after "
        f"another, with a table and a learning curve. {_OURS} of the tasks.",
    )
    look: str | None = option(None, _LOOK)
    num_envs: int = option(
        8, f"{_AT_ONCE} (launcher=ray: on each worker); changes the speed, not the results.", least=1
    )
    max_minutes: float | None = option(None, _BUDGET, above=0)
    agent_timeout: float | None = option(
        None, "Seconds that the agent may take for a decision of all environments; null: as long as it likes.", above=0
    )
    perturb: Any = option(
        None,
        "Robustness (docs/robustness.md): run every episode as it is and once more for each perturbation: NAME or "
        "NAME:LEVEL (mild, medium, hard; such as blur:hard), several, a family (vision, semantics, execution, control) "
        "or suite, which is all. Prints what each costs. perturb=? lists them.",
    )
    until: str | None = option(
        None,
        "decided: run every layout once, then again, and stop as soon as the agent is known to be better or worse than "
        "baseline=. null: run all episodes.",
        choices=("decided",),
    )
    baseline: Any = option(
        None, "What until=decided compares with: a run directory, or a success rate such as 0.65 or 65%."
    )
    level: float = option(
        0.05, "Chance at most of a wrong verdict if the agent is as good as the baseline.", above=0, below=1
    )
    run: str | None = option(
        None,
        "Run directory (docs/run_directory.md). An unfinished run of the same settings is continued. null: a new one "
        "in runs/.",
    )
    store: str = option(
        "states",
        "states: what happened at every control step. training: also what the agent decided by, for algo=dpo and "
        "algo=nft or rft.",
        choices=RUN_STORES,
    )
    video: int = option(
        1,
        "Videos per task, rendered at the end from the stored states; from 2 on a success and a failure come first.",
        least=0,
    )
    report: bool = option(
        True, "Write report.html into the run directory: every episode with its outcome, sub-goals and video."
    )
    agent: dict[str, Any] = chosen("agent", "vlaser_nano")
    engine: dict[str, Any] = chosen("engine", "mujoco")
    launcher: dict[str, Any] = chosen("launcher", "local")


@dataclass
class CollectKeys(Settings):
    """Record episodes of an agent as a LeRobot v3 data set, through the ordinary runner."""

    task: Any = option("widowx", f"{_TASKS}: widowx is its four tasks.")
    variant: str = option("default", _VARIANT)
    layouts: str = option(
        "region",
        "region, region2: continuous positions, never near a grid layout, between the benchmark's own or also around "
        "them with more headings; grid: the benchmark's own layouts.",
    )
    episodes: int = option(
        100,
        "Episodes that are run per task. A larger number continues the same data set; those that failed are not run "
        "again.",
        least=1,
    )
    first: int = option(
        0, "The first layout of a region, counted from where training layouts begin (such as region:1000000).", least=0
    )
    trials: int = option(1, "How often each layout is run, with other noise of the agent.", least=1)
    store: str = option(
        "demonstrations",
        "demonstrations: a data set in LeRobot's layout. training: a run directory with what the agent decided by, for "
        "algo=dpo, nft and rft; every episode is kept and runs to its step limit (the keys from "
        "only_successful to group must be left out then).",
        choices=COLLECT_STORES,
    )
    only_successful: bool = option(True, "Keep only episodes that are successful at their last step; false keeps all.")
    every: int = option(
        1,
        "The policy that will be trained decides every so many control steps: these rows are marked "
        "(privileged.decision), and algo=sft takes its samples from them. Every control step has a row with its "
        "image all the same, for other trainers.",
        least=1,
    )
    render: str = option(
        "every_step",
        "every_step: each row has its own image. decisions: only the rows that every= marks have, the rows between "
        "repeat it; algo=sft takes the same samples, recording is faster, other trainers would learn from stale "
        "images.",
        choices=COLLECT_RENDERS,
    )
    tail: int | None = option(
        8,
        "An episode ends after so many successful steps in a row; null: at its step limit, as in the benchmark.",
        least=1,
    )
    skip: int = option(
        0,
        "Control steps at the beginning of an episode that run but are not recorded, such as the first sub-task of two "
        "(skip=100).",
        least=0,
    )
    instruction: Any = option(None, _INSTRUCTION)
    max_episode_steps: int | None = option(None, _LIMIT, least=1)
    image_size: int | None = option(
        None,
        "Side that images are resized to (pixels), as the policy's processor would; null: the camera's 640x480.",
        least=1,
    )
    resize: str = option(
        "area", "How images are resized: area (averages) or lanczos4, whichever the policy's processor uses."
    )
    cameras: Any = option(
        "policy",
        "Cameras of the robot whose images are kept: policy, or several with it (cameras=policy,wrist), each in a "
        "column observation.images.NAME of its own; the policy's is observation.images.main.",
    )
    images: str = option("png", "How images are stored: png (exact) or mp4 (small).")
    group: int = option(50, "Episodes per file; a killed command loses at most so many.", least=1)
    checkpoint: str | None = option(None, f"{_CHECKPOINT}. {_OURS} of the tasks.")
    look: str | None = option(None, _LOOK)
    num_envs: int = option(16, f"{_AT_ONCE}.", least=1)
    max_minutes: float | None = option(None, _BUDGET, above=0)
    output: str = option(
        "datasets/demonstrations", "Folder of the data set; the same settings continue one that is there."
    )
    agent: dict[str, Any] = chosen("agent", "expert")
    engine: dict[str, Any] = chosen("engine", "mujoco")


@dataclass
class CompareSettings(Settings):
    """Is B better than A: python -m vlaser_gym.compare RUN_A RUN_B [RUN ...] [key=value ...] pairs the runs' episodes.
    How many episodes it takes to tell 65 % from 70 %: python -m vlaser_gym.compare --plan 65 70. Settings that a
    question does not read are refused.
    """

    runs: list[str] = option(
        [], "Run directories; the first is the baseline. Words without an equals sign end up here."
    )
    count: str = option("last", "last: success at the last step, the benchmark's rule; any: success at any step.")
    level: float = option(
        0.95,
        "Coverage of the intervals, here and in report=. Also sets when a difference counts as found: at p (Holm) up "
        "to 1 - level.",
        above=0,
        below=1,
    )
    json: str | None = option(None, "File for the result as JSON.")
    report: str | None = option(None, "File for a page that shows the episodes of the first two runs side by side.")
    plan: list[float] | None = option(
        None,
        "Two success rates (--plan A B): prints how many episodes tell them apart. Numbers above 1 are percent: 65 is "
        "0.65.",
    )
    power: float = option(0.8, "Of a plan: chance to find the difference if it is there.", above=0, below=1)
    alpha: float = option(0.05, "Of a plan: chance to find a difference if there is none.", above=0, below=1)
    real: str | None = option(
        None,
        "Real success rates to compare the runs' order with: simplerenv-real, or a YAML file (policy -> task -> rate).",
    )
    policies: list[str] = option([], "With real=: the name of each run's policy in that table, in order.")
    starts: list[str] = option(
        [],
        "Folders of the recipe reasoning, one per seed: which start makes the better policy; a plot in the first "
        "folder.",
    )
    repeats: list[str] = option(
        [],
        "Folders with the same runs below them, one per seed; the runs are then names in there, the baseline first, or "
        'patterns: before "*/after". Episodes of all seeds are counted together.',
    )


@dataclass
class RenderSettings(Settings):
    """Render stored episodes of a run to MP4, with instruction, step and flags below the image."""

    run: str = option(REQUIRED, "Run directory written by python -m vlaser_gym.eval.")
    episodes: Any = option(
        "failures",
        "failures, successes, all, or addresses: task/layout, task/layout/trial or task/variant/layout/trial (layouts "
        "as grid:3).",
    )
    output: str | None = option(
        None,
        "Folder of the videos. null: videos/NAME for the run runs/NAME; for a run elsewhere its name with letters from "
        "its path.",
    )
    fps: float | None = option(
        None,
        "Frames per second, a frame per control step. null: real time, the robot's control rate (WidowX 5 Hz, Google "
        "Robot 3 Hz).",
        above=0,
        most=240,
    )
    look: str | None = option(None, "Look of the images. null: the look that was simulated.")
    camera: Any = option(
        "policy",
        "Where to look from, several side by side (camera=policy,front,top): a camera of the robot (policy, wrist, or "
        "one of your own), front, side, top, or free, which azimuth, elevation and distance place. Photographs "
        "(look=original) stand behind the policy's only.",
    )
    azimuth: float = option(
        45.0,
        "With camera=free: degrees about the vertical; at 0 one looks at the robot's face, at 90 at its left side.",
    )
    elevation: float = option(30.0, "With camera=free: degrees; at 90 one looks straight down.", least=-89, most=90)
    distance: float = option(
        0.8, "With camera=free: metres from the middle of the workspace; the Google Robot's count 1.6.", above=0
    )
    processes: int | None = option(2, "Processes that render side by side.", least=1)
    assets: str | None = option(
        None,
        "Directory of the asset pack for look=original; null: in the user's cache, where assets fetch puts it.",
    )


@dataclass
class ServeSettings(Settings):
    """Serve an agent to other projects by openpi's WebSocket protocol or vla-eval's (docs/serving.md)."""

    checkpoint: str | None = option(None, f"{_CHECKPOINT}. {_OURS}, WidowX if none is named.")
    host: str = option(
        "127.0.0.1",
        "Who can reach it: 127.0.0.1 is this machine alone. Everywhere else clients need a token.",
    )
    port: int = option(8000, "Port that it listens on. 0: a free one, which is printed.", least=0, most=65535)
    keys: dict[str, str] = option(
        {
            "image": "observation/image",
            "proprio": "observation/state",
            "instruction": "prompt",
            "state": "state",
            "address": "address",
            "reset": "reset",
        },
        "What the entries of observations are called in messages; for instance "
        "keys.image=observation/exterior_image_1_left.",
    )
    timeout: float = option(60.0, "Seconds that a decision may take.", above=0)
    max_mb: float = option(16.0, "Largest message, MB.", above=0)
    max_connections: int = option(64, "Clients at the same time.", least=1)
    total_mb: float = option(128.0, "All messages together that are not answered yet, MB.", above=0)
    idle_timeout: float = option(600.0, "Seconds without a message after which a client is hung up on.", above=0)
    token_file: str | None = option(
        None,
        "File with the token that clients must present. null: none on this machine alone; else a new one, printed.",
    )
    convention: Any = option(
        None,
        "What the clients' states and actions mean: a preset such as openpi_libero, or a mapping "
        "(docs/conventions.md); they are converted. null: this gym's own.",
    )
    robot: str | None = option(
        None,
        "With convention=: whose numbers the agent's are, widowx or google_robot. Also whose policy of the package "
        "agent=vlaser is without a checkpoint. null: as the agent says.",
    )
    protocol: str = option(
        "openpi",
        "What clients speak: openpi, or vla_eval for the harness of that name (docs/neighbours.md).",
        choices=("openpi", "vla_eval"),
    )
    agent: dict[str, Any] = chosen("agent", "expert")


@dataclass
class ParitySettings(Settings):
    """Replay recordings of the original simulator on an engine and print how far it departs from them."""

    task: Any = option("widowx", "A task, several (task=a,b) or a preset.")
    look: str | None = option(None, _LOOK)
    num_envs: int = option(8, f"{_AT_ONCE}; changes the speed, not the results.", least=1)
    golden: str = option(
        "../shared/golden/simplerenv", "Folder of the recordings (reset/, replay_free/, replay_task/)."
    )
    output: str | None = option(None, "JSON file for the figures.")
    figures: Any = option(
        None,
        "What to measure: replays (initial states and motions), `pictures` (look=original), bridge (engine=maniskill, "
        "task=widowx: the same replays in ManiSkill's own environments), ranking (policies of graded quality on "
        "several engines), or several. null: replays, and `pictures` where the look has them.",
    )
    engines: Any = option(
        None,
        "With figures=ranking: what engine= is compared with, each an engine or engine/look, with its default options: "
        "engines=maniskill,mujoco/original; recorded: the original's episodes in golden=, whose beliefs all take over. "
        "null: recorded.",
    )
    episodes: int = option(12, "With figures=ranking and without recorded: grid layouts of each task.", least=2)
    checkpoints: Any = option(
        None,
        "With figures=ranking and without recorded: policies that are ranked beside the experts, nano or folders "
        "(checkpoints=nano,FOLDER), for the robot of the tasks. null: experts alone.",
    )
    videos: str | None = option(
        None,
        "With figures=ranking: folder for a video of each episode that the two sides end otherwise, both beside each "
        "other. null: none.",
    )
    beside: str | None = option(
        None, "Folder for images side by side, recorded and ours, one of each task. null: none."
    )
    engine: dict[str, Any] = chosen("engine", "mujoco")


@dataclass
class BenchSettings(Settings):
    """Measure the speed of the environments: control steps per second, and where the time goes; on request also how
    fast policies learn, and how much memory that takes.
    """

    task: Any = option(
        "widowx",
        f"{_TASKS}; several of a robot are also measured mixed in one batch.",
    )
    look: str | None = option(None, _LOOK)
    num_envs: int = option(8, "Environments of the batch.", least=1)
    chunk: int = option(4, "Control steps per replan.", least=1)
    seconds: float = option(5.0, "Seconds per measurement; there are three for each task.", above=0)
    policies: list[str] = option(
        [],
        "Policies whose decisions and serving are timed too, with random weights: vlaser_2b, vlaser_8b or nano; with a "
        "slash, so many layers of vision and language, such as vlaser_2b/2.",
    )
    environments: bool = option(True, "Measure the environments; false: only what the keys below ask for.")
    memory: list[str] = option(
        [],
        "Policies whose memory in training is computed, without a GPU and without their weights: vlaser_2b, vlaser_8b, "
        "or with so many layers, such as vlaser_2b/4.",
    )
    training: list[str] = option(
        [],
        "Policies whose training is timed with random weights: a step of sft, an iteration of ppo, decisions; names as "
        "of memory, nano too.",
    )
    device: str | None = option(None, "Device of these policies: cpu or cuda. null: cuda where there is one.")
    output: str | None = option(None, "JSON file for the figures.")
    engine: dict[str, Any] = chosen("engine", "mujoco")


@dataclass
class DoctorSettings(Settings):
    """Say in plain words what works on this machine, and what to do about each thing that does not. Exits with 0 if the
    default evaluation can run here, videos included, and what was asked for works; with 1 otherwise.
    """

    output: str | None = option(None, "PNG file for the image that is rendered as a test.")
    simpler: str | None = option(
        None,
        "Interpreter of engine=simpler (engine.python=) to be checked too: its versions, one episode of every kind of "
        "scene with its settings, and recorded episodes played again. null: none.",
    )
    robot: str = option(
        "widowx", "Robot whose convention the agent's is compared with, and that flies the probe motion."
    )
    agent: dict[str, Any] = chosen("agent", "expert")


@dataclass
class AskSettings(Settings):
    """Ask a vision-language checkpoint about an image: prints its answer and draws the answer's points and boxes."""

    question: str = option(
        REQUIRED, "What to ask. <image> in it says where an image goes; without it images come first."
    )
    checkpoint: str | None = option(
        None,
        "Folder of a VLM such as OpenGVLab/Vlaser-2B (config.json, safetensors, tokenizer). A policy checkpoint cannot "
        "talk.",
    )
    image: Any = option(None, "An image file, or several: image=a.png,b.png. The answer is drawn onto the first.")
    run: str | None = option(None, "Instead of image: the run directory whose stored episode is shown.")
    episode: str | None = option(
        None,
        "Episode of run= that is shown (task, task/layout, task/layout/trial or task/variant/layout/trial; it must "
        "name one episode).",
    )
    step: int = option(
        0, "Control steps after which the stored episode is shown; 0 is the initial state, -1 the last one."
    )
    look: str | None = option(None, "Look of the stored episode's image. null: the look that was simulated.")
    output: str | None = option(None, "Image with the answer on it. null: answer.png in the current folder.")
    pointing: bool = option(False, "Say first how points are to be written, as the pointing benchmarks do.")
    system: str | None = option(None, "System message. null: the one that the models were trained with.")
    max_tiles: int | None = option(
        None,
        "Tiles that an image is cut into at most. null: the checkpoint's own limit; the pointing benchmarks use 6.",
        least=1,
    )
    max_new_tokens: int = option(1024, "Length of the answer at most (tokens).", least=1)
    device: str | None = option(None, "cpu or cuda. null: cuda where there is one.")
    dtype: str | None = option(None, "float32 or bfloat16. null: bfloat16 on a GPU, float32 on a CPU.")


@dataclass
class QuestionsSettings(Settings):
    """Make questions from scenes, whose answers the simulator knows, in InternVL's fine-tuning format
    (docs/reasoning.md).
    """

    output: str = option(REQUIRED, "Folder of the questions. One of the same settings that is unfinished is continued.")
    task: Any = option("widowx,google_robot", f"{_TASKS}, of any robots.")
    count: int = option(20_000, "Questions in all splits together.", least=1)
    layouts: int | None = option(None, "Layouts that are shown; null: one for 20 questions.", least=1)
    per_picture: float = option(4.0, "Questions per image, on average.", above=0)
    runs: Any = option(
        None, "Stored runs (runs=a,b) whose episodes are shown too, beside those of an expert and of one that errs."
    )
    look: Any = option("builtin", "Look of the images, or several (look=builtin,original), which take turns.")
    variants: Any = option("all", "Variants of the tasks' scenes: all, default, or names; a task shows those it has.")
    kinds: Any = option(
        None, "Kinds of questions, or families: grounding, spatial, embodied, planning. null: all kinds."
    )
    thinking: bool = option(
        False,
        "Answers about how things stand to each other, and about which way the gripper must go, begin with where they "
        "are in the image and with the sub-task, between <think> and </think>, which scoring passes over: a small "
        "model learns to look first.",
    )
    test_share: float = option(
        0.2,
        "Share of the questions and layouts that are for tests (grid layouts), all test splits together; training has "
        "region layouts.",
        least=0,
        below=1,
    )
    held_out_wordings: int = option(1, "Wordings of each kind that only the split ood_wording has.", least=0, most=2)
    held_out_robots: Any = option(None, "Robots that only the split ood_robot has.")
    held_out_looks: Any = option(None, "Looks, or variants, that only the split ood_look has.")
    held_out_objects: Any = option(None, "Things (their names in instructions) that only the split ood_object shows.")
    seed: int = option(0, "Seed; the same settings and seed give the same files on one machine.")
    processes: int | None = option(None, "Processes that render; null: one per core.", least=1)
    num_envs: int = option(16, f"{_AT_ONCE}.", least=1)
    assets: str | None = option(None, "Directory of the asset pack, for look=original; null: the user's cache.")


@dataclass
class ReasonSettings(Settings):
    """Score answers to questions: of a vision-language checkpoint or of a server, beside the best constant answer and
    the same model without images (docs/reasoning.md).
    """

    data: str = option(
        REQUIRED, "Folder of questions; with convert= of a public benchmark; with thoughts=true a run of eval."
    )
    thoughts: bool = option(
        False,
        "Read data= as a run whose policy was asked on the way (eval agent.think=4): how often it was right about the "
        "next sub-task, and success where it was and was not. Nothing is asked.",
    )
    checkpoint: str | None = option(
        None,
        "Vision-language model: a folder or a name on the Hugging Face hub, in OpenGVLab's layout or in transformers' "
        "own (InternVLForConditionalGeneration); or a policy with a language head (train algo=vlm).",
    )
    url: str | None = option(
        None, "Instead: a server that speaks the OpenAI chat API, such as http://127.0.0.1:8000/v1."
    )
    model: str | None = option(None, "Name of the model at url=; null: the first one that the server lists.")
    convert: str | None = option(
        None, "Format of data=, if it is a public benchmark: it is converted into output= and nothing is asked."
    )
    output: str | None = option(None, "Folder that a converted benchmark is written to.")
    split: Any = option("test", "Splits that are asked, such as split=test,ood_wording, or all (but for train).")
    kinds: Any = option(None, "Kinds or families that are asked; null: all.")
    limit: int | None = option(None, "Questions of each split at most: the first ones of a fixed shuffle.", least=1)
    blind: bool = option(True, "Ask the same questions without their images too.")
    run: str | None = option(None, "Folder of the answers; an unfinished one is continued. null: a new one in runs/.")
    batch: int = option(8, "Questions that are answered at the same time.", least=1)
    max_tiles: int | None = option(
        None, "Tiles that an image is cut into at most; null: the checkpoint's own limit.", least=1
    )
    max_new_tokens: int = option(256, "Length of an answer at most (tokens); longer ones are cut.", least=1)
    system: str | None = option(None, "System message. null: the one that the models were trained with.")
    timeout: float = option(120.0, "Seconds that a server may take for an answer.", above=0)
    pictures: int = option(24, "Wrong answers drawn onto their images on the page wrong.html.", least=0)
    device: str | None = option(None, "cpu or cuda. null: cuda where there is one.")
    dtype: str | None = option(None, "float32 or bfloat16. null: bfloat16 on a GPU, float32 on a CPU.")


@dataclass
class ConvertSettings(Settings):
    """Convert a Vlaser policy between layouts: released .pt file, plain VLM folder, and this gym's folder."""

    source: str = option(
        REQUIRED,
        "A .pt file of the released layout, a VLM folder in InternVL's layout (its policy gets a new action expert), "
        "or a folder of ours.",
    )
    target: str = option(REQUIRED, "A folder to write, or a name that ends in .pt for the released layout.")
    average: list[str] = option(
        [],
        "Further policies, such as the same training with other seeds: the target gets the mean of the source's "
        "weights and theirs, each counting alike (a model soup). Network, tokenizer, prompt and statistics must be the "
        "source's, which also gives the text heads that keep_unused=true keeps.",
    )
    robot: str | None = option(
        None,
        "widowx or google_robot: the robot that the policy must be for; null takes what the weights say (a VLM: "
        "widowx).",
    )
    dtype: str | None = option(None, "bfloat16 or float32; null keeps the source's.")
    time_max_period: float | None = option(
        None,
        "Longest period of the flow-time embedding; no weights show it. null: 10000 for WidowX, 100 for Google Robot.",
    )
    tokenizer: str | None = option(
        None,
        "Folder with the tokenizer files, kept in the target; null takes those in the source's folder. A .pt holds "
        "none.",
    )
    statistics: str | None = option(
        None,
        "Statistics by which the target's actions become metres and radians: a JSON file, a policy's folder, bridge or "
        "fractal. null: the source's own; for an original .pt, which holds none, bridge (WidowX) or fractal (Google "
        "Robot); none for a VLM.",
    )
    keep_unused: bool = option(
        False, "Keep weights that no action depends on (text heads), so that converting back loses nothing."
    )
    overwrite: bool = option(False, "Replace a target that exists.")
    seed: int = option(0, "Seed of the new action expert of a VLM.")


@dataclass
class AssetsSettings(Settings):
    """Bring the original's meshes, textures and photographs onto this machine, for look=original: `assets fetch` from
    its public repository, `assets import DIR` from a copy of that, `assets check` to see what is there. Every file is
    compared with a list of SHA-256 sums. Without them everything works in the built-in look. `assets object MESH` makes
    an object for tasks of your own (docs/own_scenes.md); only it reads the keys from output on.
    """

    action: str = option(
        "check",
        "What to do: fetch, import, check or object. May be given as the first word alone.",
        choices=ASSET_ACTIONS,
    )
    source: str | None = option(
        None,
        "import: the folder to read; object: the mesh file; either may be given as the second word alone. fetch: a URL "
        "with the same files, a mirror; null: the original's own.",
    )
    directory: str | None = option(None, "Where the files live; null: in the user's cache.")
    unverified: bool = option(
        False,
        "Take files whose SHA-256 this project does not know too (20: table and room meshes, six cans and bottles): "
        "only their kind is checked.",
    )
    output: str | None = option(
        None, "Folder of the object, which gives it its name; one that is there is made anew. null: objects/MESH."
    )
    unit: str = option("m", "Unit of the mesh's numbers.", choices=("m", "cm", "mm"))
    density: float = option(600.0, "Density of the object's material, kg/m^3; wood has 600, plastics 1000.", above=0)
    mass: float | None = option(None, "Mass in kg, in place of density.", above=0)
    friction: float = option(0.5, "Sliding friction coefficient of the object alone (engine=maniskill).", least=0)
    colour: list[float] | None = option(
        None, "Red, green and blue, 0 to 1, in place of the mesh's own colour: colour=[0.8,0.2,0.1]."
    )
    concavity: float = option(
        0.05,
        "How much of the object's depth a convex piece may fill; smaller follows the mesh more closely with more "
        "pieces.",
        above=0,
        most=1,
    )
    pieces: int = option(32, "Convex pieces of a connected body at most.", least=1)
    drops: int = option(48, "Drops from random orientations that find how the object rests.", least=8)
    tries: int = option(
        10, "Layouts in which the scripted expert tries to lift the object, as a check; 0: none.", least=0
    )


@dataclass
class DataSettings(Settings):
    """Look whether data sets are fit to train on: `data check PATH` names file, column and row of every problem, and
    draws an episode with state and action as arrows. Status 1 if there is a problem. Its keys are those of train.
    `data open_loop PATH` says how much of the recorded actions a policy predicts, and from which of its inputs.
    """

    data: Any = option(REQUIRED, "Data sets, as in train. May be given as the second word alone.")
    action: str = option("check", "What to do. May be given as the first word alone.", choices=("check", "open_loop"))
    columns: dict[str, Any] = option(
        {"camera": None, "state": None, "action": None, "instruction": None, "privileged": None},
        "Names of the data's columns, as in train.",
    )
    convention: Any = option(None, "What the data's states and actions mean, as in train.")
    gripper: str | None = option(None, "What the last number of the data's actions means, as in train.")
    fps: float | None = option(None, "Rows per second that training resamples to, as in train.", above=0)
    robot: str = option("widowx", "Robot of the policy: widowx or google_robot.", choices=("widowx", "google_robot"))
    episode: int = option(0, "Episode that is drawn.", least=0)
    output: str | None = option("data_check.png", "PNG file for it. null: none.")
    checkpoint: str | None = option(None, f"Of open_loop: {_CHECKPOINT}. {_OURS}.")
    episodes: int | None = option(200, "Of open_loop: so many of each data set, evenly drawn. null: all.", least=1)
    agent: dict[str, Any] = chosen("agent", "vlaser_nano")


@dataclass
class VerifySettings(Settings):
    """Check a run directory, a training run, a data set, a policy or a trainer's state against its schema and its
    checksums, and say what is wrong: `verify PATH`. Status 1 if anything is.
    """

    path: str = option(REQUIRED, "What to check. May be given as the first word alone.")
    rebuild: bool = option(
        False,
        "First make again what follows from the rest: counts and statistics of a data set, summary and report of a "
        "run.",
    )


@dataclass
class RecipeSettings(Settings):
    """Several commands in a row, as a YAML file lists them: `recipe first_rl run=runs/mine`. Each is printed, runs as
    if typed, and goes on where it stopped.
    """

    recipe: str = option(
        "first_rl",
        "first_rl (demonstrations, behaviour cloning and PPO of a small policy, and whether it is better), lift (the "
        "same for nano on all WidowX tasks), answers (nano learns to answer questions), reasoning (which questions "
        "make the better start of a policy), or the path of a YAML file. May be given as the first word alone.",
    )
    run: str | None = option(None, "Folder of everything. null: runs/ and the recipe's name.")
    top: dict[str, Any] = option(
        {}, "Other values of the keys at the top of the recipe, to which its stages refer, such as top.seed=1."
    )
    stages: dict[str, Any] = option(
        {},
        "Other values of a stage's keys, such as stages.ppo.algo.iterations=10; stages.NAME=null leaves a stage out.",
    )
    dry: bool = option(False, "Print the commands and run none.")


#: What each command reads, by its name.
COMMAND_SETTINGS: dict[str, type[Settings]] = {
    "ask": AskSettings,
    "assets": AssetsSettings,
    "bench": BenchSettings,
    "collect": CollectKeys,
    "compare": CompareSettings,
    "convert": ConvertSettings,
    "data": DataSettings,
    "doctor": DoctorSettings,
    "eval": EvalKeys,
    "parity": ParitySettings,
    "questions": QuestionsSettings,
    "reason": ReasonSettings,
    "recipe": RecipeSettings,
    "render": RenderSettings,
    "serve": ServeSettings,
    "train": TrainSettings,
    "verify": VerifySettings,
}
