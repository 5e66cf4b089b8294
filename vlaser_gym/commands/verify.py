"""Check of stored files against their checksums: ``python -m vlaser_gym.verify PATH``; ``--help`` lists the keys.

A run directory, a training run, a data set, a policy or a trainer's state is read as its readers do, all of it, against
its schema and its checksums. ``rebuild=true`` makes what follows from the rest again: a data set's counts and
statistics, a run's summary and report.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import partial
from pathlib import Path

from omegaconf import DictConfig

from vlaser_gym.agents.vlaser.checkpoint import load_policy
from vlaser_gym.agents.vlaser.processor import Processor
from vlaser_gym.cli import named, run, typed
from vlaser_gym.errors import GymError, InvalidConfigError, StorageError
from vlaser_gym.evaluation.evaluator import EvalSettings
from vlaser_gym.evaluation.lerobot import COLLECTION_PATH, LeRobotReader, LeRobotWriter
from vlaser_gym.evaluation.lerobot_reader import INFO_PATH
from vlaser_gym.evaluation.report import find_videos, write_report
from vlaser_gym.evaluation.store import (
    Record,
    RunStore,
    read_config,
    read_records,
    read_states,
    read_summary,
    read_timing,
    read_training,
)
from vlaser_gym.evaluation.summary import summarise_run
from vlaser_gym.settings.commands import VerifySettings
from vlaser_gym.storage.files import is_temporary
from vlaser_gym.storage.lines import parse_object, read_lines
from vlaser_gym.training.checkpoints import BEST, POLICY_FOLDER, STEPS_FOLDER
from vlaser_gym.training.metrics import read_metrics
from vlaser_gym.training.trainer import STATE_FILE
from vlaser_gym.training.trainer_state import read_state

#: What is called at a step of a check; it raises a :class:`GymError` or says what it has seen.
Step = Callable[[], str | None]


def main(config: DictConfig) -> None:
    """Check, rebuild if asked to, and say what is wrong; status 1 if anything is."""
    settings = typed(VerifySettings, config)
    path = Path(settings.path)
    kind, check, rebuild = kind_of(path)
    print(f"{path}: {kind}")
    if settings.rebuild:
        if rebuild is None:
            raise InvalidConfigError(f"Nothing of {kind} follows from the rest: leave rebuild= out.")
        print(f"rebuilt  {rebuild(path)}")
    wrong = list(complaints(check(path)))
    print("\n".join([*wrong, f"{len(wrong)} things are wrong." if wrong else "Everything is as it was written."]))
    sys.exit(1 if wrong else 0)


def complaints(steps: Iterator[Step]) -> Iterator[str]:
    """The errors of the checks, in order; successful checks are printed as they finish."""
    for step in steps:
        try:
            if said := step():
                print(f"whole    {said}")
        except GymError as error:
            yield f"wrong    {error}"


def kind_of(path: Path) -> tuple[str, Callable[[Path], Iterator[Step]], Callable[[Path], str] | None]:
    """The kind of object at a path: how it is checked, and how its derived files are made again.

    Raises:
        StorageError: if it is nothing that this gym writes.
    """
    if path.is_file():
        is_state = path.name.startswith(STATE_FILE)
        return ("a trainer's state", trainer_state, None) if is_state else ("a policy", policy, None)
    if (path / "settings.json").exists() or (path / STATE_FILE).exists():
        return "a training run", training_run, None
    if (path / "config.yaml").exists():
        return "a run directory", run_directory, rebuilt_run
    if (path / INFO_PATH).exists() or (path / COLLECTION_PATH).exists():
        return "a data set", data_set, rebuilt_data_set
    if any(path.glob("*.safetensors")) or any(path.glob("*.pt")):
        return "a policy", policy, None
    raise StorageError(
        f"{path} should be a run directory (config.yaml), a training run (settings.json), a data set "
        f"({INFO_PATH}), a policy (model.safetensors) or a trainer's state ({STATE_FILE}); it is none of them."
    )


def leftovers(path: Path) -> str | None:
    """Temporaries of a writer that died: they are no harm, and its next start removes them."""
    found = [file for file in path.rglob("*.tmp") if is_temporary(file)]
    if not found:
        return None
    return f"all but {len(found)} files that a writer began and did not end ({found[0]}); its next start removes them"


def quietly(found: object) -> None:
    """Print nothing: the file could be read."""


def arrays_of(read: Callable[[Path, Record], object], path: Path, record: Record) -> None:
    """An episode's arrays can be read."""
    read(path, record)


def run_directory(path: Path) -> Iterator[Step]:
    """Settings, records with their checksums, arrays, times, and a summary that counts the records."""
    yield lambda: quietly(read_config(path))
    yield lambda: f"{len(read_records(path))} episodes"
    yield lambda: quietly(read_timing(path))
    yield lambda: "the summary" if read_summary(path) else "no summary yet: episodes are missing"
    try:
        records = read_records(path)
    except GymError:
        return  # as was said
    for record in records:
        for name, read in (("states", read_states), ("training", read_training)):
            if record.get(name) is not None:
                yield partial(arrays_of, read, path, record)
    yield lambda: leftovers(path)


def rebuilt_run(path: Path) -> str:
    """Summary and report from settings and records."""
    config = read_config(path)
    known = {field.name for field in fields(EvalSettings)}
    settings = EvalSettings(**{name: value for name, value in config.items() if name in known})
    if settings.until is not None or settings.protocol is not None:
        raise StorageError(
            f"The summary of {path} holds the verdict of a test or a protocol's scores: repeat the run's command with "
            f"run={path}, which writes it anew and runs no episode again."
        )
    with RunStore(path, {name: value for name, value in config.items() if name != "schema"}) as store:
        if all(address in store.records for address in settings.plan):
            store.finish(summarise_run(store.sorted_records(), settings.tasks, config))
    return f"{write_report(path, find_videos(path))} and what it tells of"


def data_set(path: Path) -> Iterator[Step]:
    """Counts, rows, instructions and images."""

    def rows() -> str:
        reader = LeRobotReader(path)
        reader.columns([name for name, told in reader.features.items() if told["dtype"] not in ("image", "video")])
        reader.instructions()
        count = sum(len(frames) for frames in reader.frames())
        return f"{len(reader.episodes)} episodes, {reader.total_frames} rows, {count} images"

    yield rows
    yield lambda: _counts(LeRobotReader(path))
    yield lambda: leftovers(path)


def _counts(reader: LeRobotReader) -> str | None:
    told = reader.info.get("total_episodes"), reader.info.get("total_frames")
    found = len(reader.episodes), reader.total_frames
    if told != found:
        raise StorageError(
            f"{reader.path / INFO_PATH} counts {told[0]} episodes and {told[1]} rows; there are {found[0]} and "
            f"{found[1]}: rebuild=true counts again."
        )
    return None


def rebuilt_data_set(path: Path) -> str:
    """Counts, features and statistics from the rows, of a data set that this gym recorded."""
    file = path / COLLECTION_PATH
    made = parse_object(file.read_bytes()) if file.is_file() else None
    if made is None or not {"fps", "robot_type"} <= made.keys():
        raise StorageError(f"{file} should say what made the data set; it is absent or damaged: restore the file.")
    settings = {name: value for name, value in made.items() if name not in ("layout", "fps", "robot_type")}
    images = "mp4" if any(path.glob("videos/*/*/*.mp4")) else "png"
    with LeRobotWriter(path, fps=made["fps"], robot=made["robot_type"], images=images, settings=settings) as writer:
        if writer.total_episodes:
            writer.rebuild()
    return f"{INFO_PATH} and meta/stats.json"


def policy(path: Path) -> Iterator[Step]:
    """Weights with their checksum, and what stands beside them."""

    def load() -> str:
        loaded, report = load_policy(path)
        if report.layout == "folder" and (path / "processor.json").exists():
            Processor.load(path, loaded.config)
        return f"{len(report.mapped)} tensors in {path}"

    yield load


def trainer_state(path: Path) -> Iterator[Step]:
    """A state that can be read, with its checksums."""
    yield lambda: f"{len(read_state(path))} parts in {path.name}"


def training_run(path: Path) -> Iterator[Step]:
    """Settings, numbers, the state and the one before, every policy, and the rounds' run directories."""

    def settings() -> str:
        if parse_object((path / "settings.json").read_bytes()) is None:
            raise StorageError(f"{path / 'settings.json'} is damaged: expected the run's settings; restore the file.")
        return "the settings"

    if (path / "settings.json").is_file():
        yield settings
    yield lambda: quietly(read_lines(path / "starts.jsonl", lambda row: None))
    yield lambda: f"{len(read_metrics(path / 'metrics.jsonl'))} lines of numbers"
    for name in (STATE_FILE, f"{STATE_FILE}.previous"):
        if (path / name).is_file():
            yield from trainer_state(path / name)
    folders = [path / POLICY_FOLDER, *sorted((path / STEPS_FOLDER).glob("[0-9]*")), path / STEPS_FOLDER / BEST]
    for folder in folders:
        if folder.is_dir() and not is_temporary(folder):
            yield from policy(folder)
    for config in sorted((path / "rounds").glob("*/config.yaml")):
        yield from run_directory(config.parent)
    yield lambda: leftovers(path)


def command() -> None:
    """``python -m vlaser_gym.verify``."""
    run("verify", main, named(sys.argv[1:], "path"))
