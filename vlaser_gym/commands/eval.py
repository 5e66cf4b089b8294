"""Score an agent: ``python -m vlaser_gym.eval task=widowx agent=vlaser checkpoint=nano``; ``--help`` lists the keys."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from vlaser_gym.agents import Agent
from vlaser_gym.cli import run, words
from vlaser_gym.envs.address import Address
from vlaser_gym.envs.perturbations import FAMILIES, LEVELS, SUITE, find_perturbations
from vlaser_gym.envs.perturbations.protocols import PERTURBED_PROTOCOLS, PerturbedProtocol, get_perturbed_protocol
from vlaser_gym.envs.tasks import PRESETS, get_task, resolve, task_names
from vlaser_gym.envs.tasks.protocols import PROTOCOLS
from vlaser_gym.errors import GymError, InvalidConfigError, RenderingUnavailableError
from vlaser_gym.evaluation.aggregation import aggregate, write_scores
from vlaser_gym.evaluation.checkpoints import (
    CheckpointScore,
    checkpoint_table,
    draw_learning_curve,
    find_checkpoints,
    short_names,
)
from vlaser_gym.evaluation.comparison import differing_protocols, load_runs
from vlaser_gym.evaluation.diagnosis.patterns import strongest
from vlaser_gym.evaluation.evaluator import EvalSettings, Evaluation, evaluate
from vlaser_gym.evaluation.plan import double_counts
from vlaser_gym.evaluation.published import published_lines
from vlaser_gym.evaluation.report import find_videos, render_thumbnails, write_report
from vlaser_gym.evaluation.report.robustness import write_robustness
from vlaser_gym.evaluation.robustness import Arm, Robustness, arm_folder, goal_line, measure_drops, plan_arms
from vlaser_gym.evaluation.store import address_of, read_config, read_records, read_timing
from vlaser_gym.evaluation.summary import episodes_per_minute, retried_episodes
from vlaser_gym.evaluation.table import (
    EpisodeProgress,
    aggregate_table,
    drop_table,
    is_narrow,
    make_console,
    rate_cell,
    result_table,
    subgoal_table,
    variant_table,
)
from vlaser_gym.evaluation.variants import variant_changes
from vlaser_gym.evaluation.video import choose_examples, render_videos, video_folder
from vlaser_gym.settings.commands import EvalKeys
from vlaser_gym.settings.fields import defaults_of

#: Episodes whose last image the report shows: more would take longer than many an evaluation.
_MOST_THUMBNAILS = 400
#: How numbers are printed: differences always with their sign.
_SIGN = {"rate": "", "difference": "+"}


def main(config: DictConfig) -> None:
    """Run or continue the evaluation, print its table, render its videos; of several checkpoints one after another."""
    if config.task is not None and "?" in words(config.task):
        print(task_list())
        return
    if config.protocol in PERTURBED_PROTOCOLS:
        robustness(*aggregated(config))
        return
    if config.perturb is not None:
        robustness(config)
        return
    checkpoints = find_checkpoints(config.checkpoint)
    if len(checkpoints) > 1:
        _score_checkpoints(config, checkpoints)
    else:
        one = checkpoints[0] if checkpoints else None
        _score_and_tell(EvalSettings.from_config(OmegaConf.merge(config, {"checkpoint": one})))


def _score_checkpoints(config: DictConfig, checkpoints: Sequence[str]) -> None:
    """The same episodes with each checkpoint, in one run directory each; then their table and learning curve."""
    names = short_names(checkpoints)
    first = EvalSettings.from_config(OmegaConf.merge(config, {"checkpoint": checkpoints[0]}))
    folder = first.run_directory()
    scores = []
    for name, checkpoint in zip(names, checkpoints, strict=True):
        run = folder / name.replace("/", "-")
        print(f"\nCheckpoint {name}")
        settings = EvalSettings.from_config(OmegaConf.merge(config, {"checkpoint": checkpoint, "run": str(run)}))
        scores.append(CheckpointScore(name, run, _score_and_tell(settings).summary()))
    console = make_console()
    console.print(checkpoint_table(scores, not console.is_terminal))
    draw_learning_curve(scores, folder / "learning_curve.png")
    print(f"Learning curve: {folder / 'learning_curve.png'}")


def _score_and_tell(settings: EvalSettings) -> Evaluation:
    """Score one agent; its table, videos and report."""
    evaluation = score(settings)
    telling = _seconds_of(print_table, evaluation) + finish(evaluation)
    if evaluation.episodes:
        print(pace_line(evaluation.episodes, evaluation.seconds, evaluation.store.seconds, telling))
    return evaluation


def aggregated(config: DictConfig) -> tuple[DictConfig, PerturbedProtocol]:
    """The settings of a protocol that is made of perturbed arms.

    Raises:
        InvalidConfigError: for keys that it fixes, or tasks that it does not have.
    """
    protocol, fixed = get_perturbed_protocol(config.protocol), defaults_of(EvalKeys)
    for key in ("variant", "layouts", "episodes", "trials", "perturb"):
        if config[key] != fixed[key]:
            raise InvalidConfigError(
                f"protocol={protocol.name} fixes variants, layouts, trials and perturbations; got {key}={config[key]}: "
                f"leave {key}= out."
            )
    tasks = protocol.tasks if config.task is None else resolve(words(config.task))
    if others := [task for task in tasks if task not in protocol.tasks]:
        raise InvalidConfigError(
            f"protocol={protocol.name} has the tasks {', '.join(protocol.tasks)}; got task={others[0]}: leave it out."
        )
    chosen = {"protocol": None, "task": list(tasks), "perturb": list(protocol.labels)}
    return OmegaConf.merge(config, chosen), protocol


def robustness(config: DictConfig, protocol: PerturbedProtocol | None = None) -> None:
    """The same episodes with and without perturbations, in a run directory each; then what they cost.

    Args:
        config: of the evaluation.
        protocol: that the perturbations are of, for its scores.
    """
    asked = [config.perturb] if isinstance(config.perturb, str) else list(config.perturb)
    if asked == ["?"]:
        print(perturbation_list())
        return
    if len(find_checkpoints(config.checkpoint)) > 1:
        raise InvalidConfigError("perturb= takes one checkpoint; got several: run them one by one.")
    plain = EvalSettings.from_config(OmegaConf.merge(config, {"perturb": None}))
    if plain.until is not None:
        raise InvalidConfigError("until=decided ends arms at different episodes; with perturb= leave it out.")
    arms, left_out = plan_arms(plain, words(asked))
    for line in left_out:
        print(f"Left out: {line}")
    run, perturbations = plain.run_directory(), [arm.perturbation for arm in arms]
    evaluations = _score_arms(plain, run, arms)
    print_table(evaluations[0])
    finish(evaluations[0])
    if len(evaluations) <= len(arms) or not all(evaluation.complete for evaluation in evaluations):
        print(f"The time budget ended the run early: the same command with run={run} goes on.")
        return
    found = measure_drops(run, perturbations)
    print_drops(found)
    if protocol is not None:
        print_scores(run, protocol)
    print(f"Robustness: {write_robustness(run, found, perturbations)}")


def _score_arms(plain: EvalSettings, run: Path, arms: Sequence[Arm]) -> list[Evaluation]:
    """The benign arm, then the perturbed ones, as many as the time budget of all of them allows to begin."""
    chosen: list[dict[str, Any]] = [{"run": str(arm_folder(run, None))}]
    for arm in arms:
        folder, label = str(arm_folder(run, arm.perturbation)), arm.perturbation.label
        chosen.append({"run": folder, "perturb": label, "task": list(arm.tasks)})
    evaluations: list[Evaluation] = []
    begun = time.monotonic()
    for settings in chosen:
        left = None if plain.max_minutes is None else plain.max_minutes - (time.monotonic() - begun) / 60
        if left is None or left > 0:
            evaluations.append(_score_arm(replace(plain, max_minutes=left, **settings)))
    return evaluations


def _score_arm(settings: EvalSettings) -> Evaluation:
    """Evaluate one arm and print a line of its result."""
    print(f"\nPerturbation: {settings.perturb or 'none'}")
    evaluation = score(settings)
    mean = evaluation.summary()["mean"]["success"]
    print(f"Success at the last step: {rate_cell(mean)} % ({evaluation.seconds:.1f} s)")
    if settings.report and settings.perturb is not None:
        _report(evaluation, print)
    return evaluation


def print_drops(found: Robustness, console: Console | None = None) -> None:
    """Print the table of perturbations, family by family; to standard output if no console is given."""
    console = console or make_console()
    console.print(
        "\nChange of success at the last step, points, with 95 % intervals; p corrected by Holm's method",
        soft_wrap=True,
        highlight=False,
    )
    console.print(drop_table(found, not console.is_terminal, is_narrow(console)))
    for line in filter(None, map(goal_line, found.drops)):
        console.print(line, soft_wrap=True, highlight=False)


def print_scores(run: Path, protocol: PerturbedProtocol, console: Console | None = None) -> None:
    """The scores of a protocol of perturbed arms, which are kept in the folder of all arms too."""
    console = console or make_console()
    rows = aggregate(run, protocol)
    console.print(f"\n{protocol.name}: the mean over arms of each task", soft_wrap=True, highlight=False)
    console.print(aggregate_table(rows, protocol, not console.is_terminal))
    console.print(f"Scores: {write_scores(run, protocol, rows)}", soft_wrap=True, highlight=False)


def perturbation_list() -> str:
    """All perturbations with what they do at the middle level."""
    lines = []
    for family in FAMILIES:
        lines += [f"{family}:", *(f"  {one.name}: {one.meaning}" for one in find_perturbations([family])), ""]
    return "\n".join([*lines, f"levels: {', '.join(LEVELS)}; {SUITE} is all of them (docs/robustness.md)"])


def task_list() -> str:
    """All tasks with their number of layouts and their variants, presets and protocols."""
    lines = [f"{name}: {get_task(name).num_layouts} layouts" for name in task_names()]
    variants: dict[str, list[str]] = {}
    for name in task_names():
        variants.setdefault(", ".join(get_task(name).variants), []).append(name)
    lines += [f"\nvariants of {', '.join(names)}: {of}" for of, names in variants.items()]
    lines += ["", *(f"preset {name}: {', '.join(of)}" for name, of in PRESETS.items())]
    return "\n".join([*lines, f"protocols: {', '.join((*PROTOCOLS, *PERTURBED_PROTOCOLS))}"])


def score_line(protocol: str, score: Mapping[str, Any], reduced: bool = False) -> str:
    """A published evaluation's number, and over what it is the mean; ``reduced``: of a part of its episodes."""
    mean = f"mean over {score['groups']} groups" if score["groups"] > 1 else "plain mean"
    rate, low, high = (100 * score[key] for key in ("value", "low", "high"))
    name = f"{protocol} (reduced)" if reduced else protocol
    return f"{name} {score['name']}: {rate:.1f} [{low:.1f}, {high:.1f}] % ({score['n']} episodes, {mean})"


def retry_line(retried: Mapping[str, int], errors: int) -> str:
    """A line about repeated episodes of each task and those that ended as errors all the same."""
    count = sum(retried.values())
    per_task = ", ".join(f"{task} {number}" for task, number in retried.items())
    tried = "1 episode was" if count == 1 else f"{count} episodes were"
    return f"After failures of the simulator {tried} tried again ({per_task}); errors that remain: {errors}."


def pace_line(episodes: int, scoring: float, storing: float, telling: float) -> str:
    """A line about the speed of an evaluation and its overhead.

    Args:
        episodes: that were run.
        scoring: seconds from the first episode's start until everything was stored.
        storing: seconds of those that storing took.
        telling: seconds that statistics, table and report took afterwards.
    """
    total = scoring + telling
    share = 100 * (storing + telling) / total
    what = f"{episodes} episode{'s' * (episodes != 1)}"
    return (
        f"{what} in {total:.1f} s without start-up and videos ({60 * episodes / total:.0f} per minute); "
        f"{share:.1f} % of that for storing ({storing:.2f} s), table and report ({telling:.2f} s)."
    )


def score(settings: EvalSettings, agent: Agent | None = None, say: Callable[[str], None] = print) -> Evaluation:
    """Run the episodes under a progress bar.

    Args:
        settings: what to run.
        agent: acts, in place of one built from the settings.
        say: told the run directory.
    """
    where = []

    def start(path: object, done: int, total: int) -> None:
        where.append(f"{path}")
        say(f"Run directory: {path}" + (f" ({done} of {total} episodes are there already)" if done else ""))
        progress.start(done, total)

    with EpisodeProgress(make_console(stderr=True)) as progress:
        try:
            return evaluate(settings, start, progress.add, agent=agent)
        except KeyboardInterrupt as interrupt:
            hint = f"; continue with the same command and run={where[0]}" if where else ""
            raise type(interrupt)(f"Stopped. Finished episodes are stored{hint}.") from None


def finish(evaluation: Evaluation, say: Callable[[str], None] = print) -> float:
    """Videos and the report, as far as they are asked for; returns the report's seconds but for its images."""
    settings = evaluation.settings
    if settings.video:
        _film(evaluation, settings.video, settings.engine.get("assets"), say)
    if not settings.report:
        return 0.0
    return _seconds_of(_report, evaluation, say, _thumbnails(evaluation) if settings.video else {})


def _thumbnails(evaluation: Evaluation) -> dict[Address, bytes]:
    """Images of how episodes ended, of the failures first where there are too many; none where none can be made."""
    records = sorted(evaluation.store.sorted_records(), key=lambda record: bool(record["success"]))
    chosen = sorted(records[:_MOST_THUMBNAILS], key=lambda record: address_of(record).sort_key)
    try:
        return render_thumbnails(evaluation.path, chosen, processes=None)
    except GymError:
        return {}


def _seconds_of(tell: Callable[..., None], *arguments: Any) -> float:
    begun = time.perf_counter()
    tell(*arguments)
    return time.perf_counter() - begun


def print_table(evaluation: Evaluation, console: Console | None = None) -> None:
    """Print agent, engine, rates and remarks; to standard output if no console is given."""
    console = console or make_console()

    def say(text: str) -> None:
        console.print(text, soft_wrap=True, markup=False, highlight=False)

    summary = evaluation.summary()
    timing = read_timing(evaluation.path)
    pace = episodes_per_minute(timing)
    origin = evaluation.who.origin
    say(
        f"\n{origin['agent']} on {origin['engine']} {origin['engine_version']} (look: {origin['look']}); "
        "rates in % with 95 % intervals"
    )
    if settings := evaluation.who.agent_settings:
        say("Agent: " + ", ".join(f"{name}={value}" for name, value in settings.items()))
    plain, narrow = not console.is_terminal, is_narrow(console)
    console.print(result_table(summary, pace, plain, narrow))
    console.print(subgoal_table(summary, plain, narrow))
    if retried := retried_episodes(timing):
        say(retry_line(retried, sum(row["errors"] for row in summary["tasks"])))
    if repeats := summary.get("repeats"):
        say(
            f"{repeats} episodes repeat another and are not counted: a policy whose flow begins at zero acts alike in "
            "every trial of a layout."
        )
    reduction = evaluation.settings.reduction
    if reduction is not None:
        say(f"The protocol is {reduction}. No published figure is the mean over these.")
    for score in summary.get("protocol", []):
        say(score_line(str(evaluation.settings.protocol), score, reduction is not None))
    if changes := variant_changes(evaluation.path, evaluation.store.records):
        say(
            "\nVariants against the base scene on the same layouts, success at the last step; p corrected by Holm's "
            "method"
        )
        console.print(variant_table(changes, plain, narrow))
    if not evaluation.settings.protocol and (doubled := double_counts(evaluation.store.records)):
        say(f"Warning: {doubled}")
    for line in _pattern_lines(evaluation):
        say(line)
    for line in (*published_lines(summary, read_config(evaluation.path)), *_verdict_lines(evaluation)):
        say(line)
    if not evaluation.complete:
        say(f"The time budget ended the run early: the same command with run={evaluation.path} goes on.")


def _pattern_lines(evaluation: Evaluation) -> list[str]:
    """The three strongest failure patterns, each with its test."""
    records = evaluation.store.records
    return strongest([(records[address], diagnosis) for address, diagnosis in evaluation.diagnoses.items()])


def _verdict_lines(evaluation: Evaluation) -> Iterator[str]:
    """The result of the sequential test. The table's intervals do not hold for a run that chose its own end."""
    test = evaluation.verdict.get("sequential")
    if test is None or not evaluation.complete:
        return
    limits = " to ".join(f"{100 * test[side]:{_SIGN[test['interval_of']]}.1f}" for side in ("low", "high"))
    what = {"rate": f"success {limits} %", "difference": f"success minus the baseline's {limits} points"}
    yield f"{test['reason'].capitalize()}."
    yield f"The interval that holds whenever one stops: {what[test['interval_of']]}."
    for warning in _differences_from(test["baseline"], evaluation.path):
        yield f"Warning: {warning}"


def _differences_from(baseline: str, path: Path) -> tuple[str, ...]:
    """Settings, besides the agent, in which a run differs from its baseline."""
    return differing_protocols(*load_runs([baseline, path])) if Path(baseline).is_dir() else ()


def _report(
    evaluation: Evaluation, say: Callable[[str], None], thumbnails: Mapping[Address, bytes] | None = None
) -> None:
    """The page of the run; where it cannot be written the scores stand without it."""
    try:
        videos = find_videos(evaluation.path)
        page = write_report(evaluation.path, videos, thumbnails=thumbnails, diagnoses=evaluation.diagnoses)
        say(f"Report: {page}")
    except GymError as error:
        say(f"No report: {error}")


def _film(evaluation: Evaluation, per_task: int, assets: str | None, say: Callable[[str], None]) -> None:
    """Videos of some episodes of each task. Where images cannot be made the scores stand without them."""
    records = read_records(evaluation.path)
    chosen = choose_examples(records, per_task)
    folder = video_folder(evaluation.path)
    try:
        for path in render_videos(evaluation.path, chosen, folder, assets=assets):
            say(f"Video: {path}")
        if left := sum(record["states"] is not None for record in records) - len(chosen):
            say(
                f"Videos of {len(chosen)} episodes; {left} were not rendered: python -m vlaser_gym.render "
                f"run={shlex.quote(str(evaluation.path))} episodes=failures (or all, or an address)."
            )
    except RenderingUnavailableError as error:
        say(f"No videos: {error} The scores above do not need images.")


def command() -> None:
    """``python -m vlaser_gym.eval``."""
    run("eval", main)
