"""Making of a folder of questions: episodes, their images, then the questions.

Each stage continues where it was interrupted: episodes are a run like any other, moments are lines that are appended
once their images are written, and questions follow from the moments and the seed alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import groupby
from math import ceil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vlaser_gym.cli import words
from vlaser_gym.envs.address import Address
from vlaser_gym.envs.engines import check_engine
from vlaser_gym.envs.rendering import SceneRenderer
from vlaser_gym.envs.robots import get_setup
from vlaser_gym.envs.tasks import Task, by_robot, get_task, resolve
from vlaser_gym.envs.vector import FIRST_TRAINING_REGION
from vlaser_gym.errors import InvalidConfigError, StorageError, UnknownNameError
from vlaser_gym.evaluation.encoding import encode_image
from vlaser_gym.evaluation.evaluator import EvalSettings, evaluate
from vlaser_gym.evaluation.store import Record, read_records, read_states
from vlaser_gym.reasoning.card import data_card
from vlaser_gym.reasoning.catalogue import chosen_kinds
from vlaser_gym.reasoning.dealing import Dealt, deal, generator
from vlaser_gym.reasoning.episodes import Episode, Robots
from vlaser_gym.reasoning.folder import FORMAT, SETTINGS_FILE, Question, write_meta, write_split
from vlaser_gym.reasoning.grounding import point_on
from vlaser_gym.reasoning.kinds import Candidate, Kind
from vlaser_gym.reasoning.moments import Moment, choose_steps, observe
from vlaser_gym.settings.commands import QuestionsSettings
from vlaser_gym.storage.files import storage_errors, write_whole
from vlaser_gym.storage.lines import append_line, drop_cut_line, line_of, read_lines
from vlaser_gym.storage.locks import held

#: Settings that change how fast a folder is made, not what it holds.
_FREE = ("output", "processes", "num_envs", "assets")
#: Agents whose episodes are shown, and which share of the layouts each of them gets.
AGENTS: dict[str, dict[str, Any]] = {
    "expert": {"name": "expert", "_target_": "vlaser_gym.agents.scripted.ScriptedExpert"},
    "faulty": {"name": "faulty", "_target_": "vlaser_gym.reasoning.faulty.FaultyExpert"},
}
_FAULTY_EVERY = 4
_QUESTIONS_PER_LAYOUT = 20
_JPEG_QUALITY = 95
_BATCH = 16

Say = Callable[[str], None]


@dataclass(frozen=True)
class Shown:
    """An episode to show: the name of its run, the run's folder, and its record."""

    run: str
    folder: Path
    record: Record


def make_questions(settings: QuestionsSettings, say: Say = lambda text: None) -> dict[str, int]:
    """Make a folder of questions, or what is missing of it.

    Returns:
        How many questions each split has.

    Raises:
        GymError: for whatever is wrong; settings and stored runs are looked at before anything is written.
    """
    kinds = chosen_kinds(_names(settings.kinds))
    plan = plan_addresses(settings)
    stored = []
    for number, run in enumerate(_names(settings.runs)):
        # Two runs may have one name and hold the same addresses.
        name = f"{Path(run).name}-{number}"
        stored += [Shown(name, Path(run), record) for record in read_records(run) if record["states"] is not None]
    folder = Path(settings.output)
    with held(folder, "another output="), storage_errors(f"Cannot write {folder}", "choose another output="):
        _begin(folder, settings)
        shown = [*_own_episodes(settings, plan, say), *stored]
        moments = take_pictures(settings, shown, say)
        return _write(settings, kinds, moments, say)


def _names(value: Any) -> list[str]:
    return [] if value is None else words(value)


def _begin(folder: Path, settings: QuestionsSettings) -> None:
    """Claim the folder for these settings."""
    stored = {"format": FORMAT, **{key: value for key, value in asdict(settings).items() if key not in _FREE}}
    file = folder / SETTINGS_FILE
    data = line_of(stored)
    if file.exists() and file.read_bytes() != data:
        raise StorageError(
            f"{folder} holds questions of other settings: choose another output=, or repeat those in {file}."
        )
    (folder / "images").mkdir(parents=True, exist_ok=True)
    write_whole(file, data)


def plan_addresses(settings: QuestionsSettings) -> list[tuple[str, Address]]:
    """Episodes that are run for the images: ``(agent, address)``, the tasks taking turns.

    Training has region layouts, tests have grid layouts, of which a task has only so many.

    Raises:
        UnknownNameError: for a task, a variant, a robot or a look that does not exist.
    """
    tasks = [get_task(name) for name in resolve(words(settings.task))]
    _check_names(settings, tasks)
    total = settings.layouts or ceil(settings.count / _QUESTIONS_PER_LAYOUT)
    tests = round(total * settings.test_share)
    held_out = _names(settings.held_out_robots)
    trained = [task for task in tasks if get_setup(task.robot_setup).robot.name not in held_out]
    plan = []
    for i in range(total - tests):
        task = trained[i % len(trained)]
        variants = _variants(settings, task, is_test=False)
        plan.append((i, Address(task.name, _drawn(variants, settings, i), f"region:{FIRST_TRAINING_REGION + i}")))
    orders = {task.name: generator(settings.seed, "grid", task.name).permutation(task.num_layouts) for task in tasks}
    for i in range(tests):
        task = tasks[i % len(tasks)]
        if i // len(tasks) < task.num_layouts:
            variants = _variants(settings, task, is_test=True)
            layout = f"grid:{orders[task.name][i // len(tasks)]}"
            plan.append((i, Address(task.name, _drawn(variants, settings, total + i), layout)))
    return [("faulty" if i // len(tasks) % _FAULTY_EVERY == 0 else "expert", address) for i, address in plan]


def _drawn(variants: Sequence[str], settings: QuestionsSettings, number: int) -> str:
    return variants[int(generator(settings.seed, "variant", str(number)).integers(len(variants)))]


def _variants(settings: QuestionsSettings, task: Task, is_test: bool) -> list[str]:
    wanted, held_out = words(settings.variants), _names(settings.held_out_looks)
    found = [name for name in task.variants if wanted == ["all"] or name in wanted]
    allowed = [name for name in found if is_test or name not in held_out]
    return allowed or [task.variants[0]]


def _check_names(settings: QuestionsSettings, tasks: Sequence[Task]) -> None:
    looks, variants = words(settings.look), {name for task in tasks for name in task.variants}
    robots = list(by_robot(tasks))
    for look in looks:
        check_engine("mujoco", look)
    for name in words(settings.variants):
        if name not in ("all", *variants):
            raise UnknownNameError("variant of these tasks", name, variants)
    for name in _names(settings.held_out_looks):
        if name not in (*looks, *variants):
            raise UnknownNameError("look or variant of these tasks", name, [*looks, *variants])
    for name in _names(settings.held_out_robots):
        if name not in robots:
            raise UnknownNameError("robot of these tasks", name, robots)
    if set(robots) <= set(_names(settings.held_out_robots)):
        raise InvalidConfigError("held_out_robots leaves no robot for training; got all robots of these tasks.")


def _own_episodes(settings: QuestionsSettings, plan: Sequence[tuple[str, Address]], say: Say) -> Iterator[Shown]:
    """Run what is missing of the planned episodes, a run for each robot and agent."""
    by_name = by_robot([get_task(address.task) for _, address in plan])
    for robot, tasks in by_name.items():
        names = {task.name for task in tasks}
        for agent, keys in AGENTS.items():
            mine = [address for who, address in plan if who == agent and address.task in names]
            if mine:
                yield from _run(settings, f"{robot}-{agent}", keys, mine, say)


def _run(
    settings: QuestionsSettings, name: str, agent: dict[str, Any], plan: Sequence[Address], say: Say
) -> Iterator[Shown]:
    folder = Path(settings.output) / "episodes" / name
    wanted = EvalSettings(
        task=list(dict.fromkeys(address.task for address in plan)),
        agent=dict(agent),
        terminate_on_success=True,
        num_envs=min(settings.num_envs, len(plan)),
        run=str(folder),
        video=0,
        report=False,
    )
    say(f"Episodes: {len(plan)} of {name}")
    evaluate(wanted, plan=plan)
    for record in read_records(folder):
        if record["states"] is not None:
            yield Shown(name, folder, record)


def take_pictures(settings: QuestionsSettings, shown: Sequence[Shown], say: Say) -> list[Moment]:
    """The moments of all episodes; those whose lines are missing are rendered."""
    folder = Path(settings.output)
    file = folder / "moments.jsonl"
    drop_cut_line(file)
    done = [Moment.from_json(line) for line in read_lines(file, lambda line: None)]
    wanted = list(_views(settings, shown))
    left = wanted[len(done) :]
    say(f"Images: {len(wanted)}, of which {len(done)} are there")
    if left:
        with file.open("ab", buffering=0) as lines:
            for moment in _Photographer(settings, folder).take(left):
                append_line(lines, moment.as_json())
                done.append(moment)
    return done


@dataclass(frozen=True)
class _View:
    """An image to be rendered for questions."""

    number: str
    shown: Shown
    step: int
    look: str

    @property
    def robot(self) -> str:
        """Name of the robot that is seen."""
        return str(get_setup(get_task(self.shown.record["task"]).robot_setup).robot.name)


def _views(settings: QuestionsSettings, shown: Sequence[Shown]) -> Iterator[_View]:
    """Images in their order: look by look and robot by robot, scenes of one kind behind each other."""
    looks = words(settings.look)
    count = ceil(settings.count / settings.per_picture / max(1, len(shown)))
    found = []
    for i, one in enumerate(shown):
        record = one.record
        names = (one.run, record["task"], record["variant"], record["layout"], str(record["trial"]))
        rng = generator(settings.seed, "steps", *names)
        # Numbers of episodes are not enough: a look shall not always have the same agent.
        look = looks[int(rng.integers(len(looks)))]
        found += [(look, *names, i, step) for step in choose_steps(int(record["steps"]), count, rng)]
    robot_of = {one.record["task"]: _View("", one, 0, "").robot for one in shown}
    found.sort(key=lambda entry: (entry[0], robot_of[entry[2]], entry[2], entry[3], entry[1], entry[-2], entry[-1]))
    for number, (look, *_, i, step) in enumerate(found):
        yield _View(f"{number:06d}", shown[int(i)], int(step), str(look))


class _Photographer:
    """Renders views and writes their images; what is true in them is worked out while the next ones are rendered."""

    def __init__(self, settings: QuestionsSettings, folder: Path) -> None:
        self._settings, self._folder, self._robots = settings, folder, Robots()
        self._episode: tuple[Shown, Episode] | None = None

    def take(self, views: Sequence[_View]) -> Iterator[Moment]:
        """The moment of each view, in their order; its image is written by then."""
        with ThreadPoolExecutor(1) as helper:
            pending: Future[list[Moment]] | None = None
            for look, looked in groupby(views, key=lambda view: view.look):
                with closing(self._renderer(look)) as renderer:
                    for _, mine in groupby(looked, key=lambda view: view.robot):
                        for batch in _batches(list(mine)):
                            work = self._render(renderer, batch)
                            if pending is not None:
                                yield from pending.result()
                            pending = helper.submit(self._finish, *work)
            if pending is not None:
                yield from pending.result()

    def _renderer(self, look: str) -> SceneRenderer:
        return SceneRenderer(look, _BATCH, self._settings.processes, self._settings.assets)

    def _render(self, renderer: SceneRenderer, batch: Sequence[_View]) -> tuple[Any, ...]:
        episodes = [self._read(view) for view in batch]
        states = [
            (episode.address.task, episode.address.variant, episode.state(view.step))
            for view, episode in zip(batch, episodes, strict=True)
        ]
        labels = [renderer.labels(*state) for state in states]
        return batch, episodes, renderer.scenes(states), renderer.scenes(states, segmentation=True), labels

    def _read(self, view: _View) -> Episode:
        if self._episode is None or self._episode[0] is not view.shown:
            shown = view.shown
            states = read_states(shown.folder, shown.record)
            self._episode = shown, Episode(shown.record, states, self._robots)
        return self._episode[1]

    def _finish(
        self,
        batch: Sequence[_View],
        episodes: Sequence[Episode],
        pictures: NDArray[np.uint8],
        segmentations: NDArray[np.uint8],
        labels: Sequence[tuple[str, ...]],
    ) -> list[Moment]:
        moments = []
        for i, (view, episode) in enumerate(zip(batch, episodes, strict=True)):
            rng = generator(self._settings.seed, "probes", view.number)
            run = view.shown.run
            moment = observe(episode, view.step, view.number, run, view.look, segmentations[i], labels[i], rng)
            data = encode_image(pictures[i], ".jpg", (cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY))
            (self._folder / moment.image).write_bytes(data)
            moments.append(moment)
        return moments


def _batches(views: Sequence[_View]) -> Iterator[Sequence[_View]]:
    for begin in range(0, len(views), _BATCH):
        yield views[begin : begin + _BATCH]


def split_of(moment: Moment, settings: QuestionsSettings) -> str | None:
    """The split of a moment's questions; ``None`` for one that no split may have."""
    held_out = {
        "ood_robot": moment.robot in _names(settings.held_out_robots),
        "ood_look": bool({moment.look, moment.variant} & set(_names(settings.held_out_looks))),
        "ood_object": bool(set(moment.things) & set(_names(settings.held_out_objects))),
    }
    outside = [name for name, is_out in held_out.items() if is_out]
    if moment.layout.startswith("region"):
        return None if outside else "train"
    return "test" if not outside else outside[0] if len(outside) == 1 else None


def _write(settings: QuestionsSettings, kinds: Sequence[Kind], moments: Sequence[Moment], say: Say) -> dict[str, int]:
    """Deal the questions of every split and write all files."""
    by_split: dict[str, list[Moment]] = defaultdict(list)
    for moment in moments:
        if (split := split_of(moment, settings)) is not None:
            by_split[split].append(moment)
    if settings.held_out_wordings and "test" in by_split:
        by_split["ood_wording"] = by_split["test"]
    folder = Path(settings.output)
    counts = {}
    for split, wanted in _shares(settings, [s for s in _ORDER if s in by_split]).items():
        episodes = [list(group) for _, group in groupby(by_split[split], key=lambda moment: moment.episode)]
        found = {kind: [one for episode in episodes for one in kind.find(episode)] for kind in kinds}
        dealt = deal(found, wanted, settings.seed, _wordings(kinds, settings.held_out_wordings, split))
        questions = _questions(split, dealt, settings.thinking)
        write_split(folder, split, questions)
        counts[split] = len(questions)
        say(f"{split}: {len(questions)} questions" + (f" of {wanted}" if len(questions) < wanted else ""))
        asked = {one.kind.name for one in dealt}
        without = [kind.name for kind in kinds if kind.name not in asked]
        if without:
            say(f"{split}: no balanced question of {', '.join(without)} in these scenes")
    write_meta(folder, counts)
    write_whole(folder / "README.md", data_card(folder, settings, moments).encode())
    return counts


_ORDER = ("train", "test", "ood_robot", "ood_look", "ood_object", "ood_wording")


def _shares(settings: QuestionsSettings, splits: Sequence[str]) -> dict[str, int]:
    """The number of questions in each split: the test splits share equally what training leaves."""
    tests = [split for split in splits if split != "train"]
    training = round(settings.count * (1 - settings.test_share)) if "train" in splits and tests else settings.count
    left = settings.count - training
    shares = {split: left // len(tests) + (i < left % len(tests)) for i, split in enumerate(tests)}
    return {split: training if split == "train" else shares[split] for split in splits}


def _wordings(kinds: Sequence[Kind], held_out: int, split: str) -> dict[str, list[int]]:
    numbers = {kind.name: list(range(len(kind.wordings))) for kind in kinds}
    if not held_out:
        return numbers
    if split == "ood_wording":
        return {name: found[-held_out:] for name, found in numbers.items()}
    return {name: found[:-held_out] for name, found in numbers.items()}


def _questions(split: str, dealt: Sequence[Dealt], thinking: bool) -> list[Question]:
    order = sorted(dealt, key=lambda one: (one.candidate.moments[0].id, one.kind.name, one.text))
    return [_question(f"{split}-{number:06d}", split, one, thinking) for number, one in enumerate(order)]


def thought_of(candidate: Candidate) -> str:
    """The thought before an answer: the sub-task, and where the things are seen, unless one of them is not."""
    moment = candidate.moments[0]
    things = {name: moment.things[name] for name in candidate.places}
    if not all(thing.is_seen for thing in things.values()):
        return candidate.plan
    places = (f"<ref>{name}</ref>{point_on(moment, thing.inside)}" for name, thing in things.items())
    return candidate.plan + "".join(places)


def _question(number: str, split: str, dealt: Dealt, thinking: bool) -> Question:
    candidate, moments = dealt.candidate, dealt.candidate.moments
    first = moments[0]
    return Question(
        id=number,
        split=split,
        kind=dealt.kind.name,
        family=dealt.kind.family,
        form=dealt.kind.form,
        text=dealt.text,
        answer=dealt.answer,
        images=[moment.image for moment in moments],
        sizes=[[moment.width, moment.height] for moment in moments],
        about=candidate.about,
        wording=dealt.wording,
        fixed=candidate.fixed,
        lettered=dealt.lettered,
        options=list(dealt.options),
        right=candidate.answer,
        truth=dict(candidate.truth),
        robot=first.robot,
        task=first.task,
        variant=first.variant,
        look=first.look,
        layout=first.layout,
        trial=first.trial,
        steps=[moment.step for moment in moments],
        thought=thought_of(candidate) if thinking else "",
    )
