"""Run directories: what an evaluation leaves behind, and how it survives being killed.

The layout and its promises are described in ``docs/run_directory.md``. An episode counts as finished when its line in
``episodes.jsonl`` is complete; its states are written before the line is. A thread then brings both to the disk: the
death of the process loses no finished episode, that of the machine those of its last moments, which are run again.
Nothing in a record depends on the clock, the host or on what ran beside the episode.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import zipfile
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from numpy.typing import NDArray
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from vlaser_gym.agents.vlaser.versions import why_outdated
from vlaser_gym.envs.address import Address
from vlaser_gym.envs.tasks import get_task, is_reference
from vlaser_gym.errors import StorageError
from vlaser_gym.evaluation.arrays import pack_arrays, read_arrays
from vlaser_gym.evaluation.records import (
    POSITIVE,
    Record,
    address_of,
    check_complete,
    check_config,
    check_fields,
    check_record,
    check_summary,
    check_timing,
    sealed,
    states_name,
)
from vlaser_gym.settings.reading import read_yaml
from vlaser_gym.storage.files import is_temporary, probe, remove_leftovers, storage_errors, write_whole
from vlaser_gym.storage.interrupts import uninterrupted
from vlaser_gym.storage.lines import append_line, drop_cut_line, line_of, parse_object, read_lines
from vlaser_gym.storage.locks import LOCK_NAME, claim
from vlaser_gym.storage.syncer import Syncer

__all__ = [
    "FREE_SETTINGS",
    "SCHEMA",
    "Record",
    "RunStore",
    "address_of",
    "check_same",
    "check_writable",
    "read_config",
    "read_records",
    "read_states",
    "read_summary",
    "read_timing",
    "read_training",
    "setting_differences",
    "states_name",
]

#: Version of the layout of run directories and of the fields of records. Older versions stay readable.
SCHEMA = 1
#: Settings that change how an evaluation runs but not its results; a run may be continued with other values.
FREE_SETTINGS = (
    "num_envs",
    "max_minutes",
    "agent_timeout",
    "agent.check_weights",
    "video",
    "report",
    "engine.threads",
    "engine.render_processes",
    "engine.processes",
    "engine.python",
    "engine.timeout",
    "engine.rebuild",
    "launcher",
    # What was in effect is compared, agent_settings.micro_batch.
    "agent.micro_batch",
    # Follows from the settings that are compared; runs of before have none.
    "environment_settings",
)


class RunStore:
    """A run directory that is being written; one process at a time. Use as a context manager.

    Args:
        path: created if it does not exist. A directory that holds a run of the same settings is continued.
        config: resolved settings, as YAML-compatible values, with whatever fixes the results (versions, too).

    Attributes:
        records: of the episodes that are finished, by address.

    Raises:
        StorageError: if the directory cannot be written, belongs to another evaluation, or is being written.
    """

    def __init__(self, path: str | Path, config: Mapping[str, Any]) -> None:
        self.path = Path(path)
        self._new = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        check_same(self.path, config)
        with _sentences(self.path):
            (self.path / "states").mkdir(parents=True, exist_ok=True)
            self._lock = claim(self.path, "another run=")
            try:
                self._open(config)
            except BaseException:
                self._lock.release()
                raise

    def _open(self, config: Mapping[str, Any]) -> None:
        """Clean up after a crash, read what is there, open what is written."""
        remove_leftovers(self.path)
        if not (self.path / "config.yaml").exists():
            write_whole(self.path / "config.yaml", OmegaConf.to_yaml({"schema": SCHEMA, **config}).encode())
        drop_cut_line(self.path / "episodes.jsonl")
        drop_cut_line(self.path / "timing.jsonl")
        found = _read_episodes(self.path)
        whole: Callable[[Path], bool] = Path.is_file if (self.path / "summary.json").exists() else _is_intact
        self.records = {a: r for a, r in found.items() if all(whole(self.path / name) for name in _files_of(r))}
        #: Of episodes whose arrays are gone: they are run again, and their lines stay until then.
        self._stale = {address: record for address, record in found.items() if address not in self.records}
        self._episodes = (self.path / "episodes.jsonl").open("ab", buffering=0)
        self._timing = (self.path / "timing.jsonl").open("ab", buffering=0)
        self._syncer = Syncer()
        self._seconds = 0.0

    def add(
        self,
        record: Record,
        states: Mapping[str, NDArray[Any]] | None,
        training: Mapping[str, NDArray[Any]] | None = None,
    ) -> Record:
        """Store a finished episode; when this returns it survives the death of the process, soon that of the machine.

        Returns:
            The record with ``states``, the path of the states or ``None`` without any, and with ``training``, the path
            of what learners need, if there is such.

        Raises:
            ValueError: for an episode that is stored already, or a record that could not be read again.
        """
        address = address_of(record)
        if address in self.records:
            raise ValueError(f"episode {address} is stored already")
        record = {**record, "states": states_name(address) if states else None}
        if training:
            record["training"] = states_name(address, "training")
        check_record(record)
        with self._clocked(), _sentences(self.path), uninterrupted():
            for name, arrays in (("states", states), ("training", training)):
                if arrays:
                    (self.path / name).mkdir(exist_ok=True)
                    (self.path / record[name]).write_bytes(pack_arrays(arrays))
            if self._stale.pop(address, None) is None:
                append_line(self._episodes, sealed(record))
            else:
                self._rewrite([*self._stale.values(), *self.records.values(), record])
            # Before any signal is heard again: what is stored and what is said to be stored agree.
            self.records[address] = record
            self._syncer.add(*(self.path / name for name in _files_of(record)), self.path / "episodes.jsonl")
        return record

    def sorted_records(self) -> list[Record]:
        """Records of the finished episodes, by address."""
        return [self.records[address] for address in sorted(self.records, key=_sort_key)]

    def add_timing(self, entry: Mapping[str, Any]) -> None:
        """Append an entry about clocks or hosts; the results can be read without these."""
        with self._clocked(), _sentences(self.path):
            append_line(self._timing, entry)

    def keep_environments(self, environments: Mapping[str, Mapping[str, Any]]) -> None:
        """Change what the run's settings tell of its environments: task -> values by name."""
        with self._clocked(), _sentences(self.path):
            config = {**read_config(self.path), "environment_settings": environments}
            write_whole(self.path / "config.yaml", OmegaConf.to_yaml(config).encode())

    def finish(self, summary: Mapping[str, Any]) -> None:
        """All episodes are there: sort the records by address and write the summary."""
        with self._clocked(), _sentences(self.path), uninterrupted():
            self._syncer.wait()
            self._rewrite(self.sorted_records())
            write_whole(self.path / "summary.json", (json.dumps(summary, indent=2, ensure_ascii=False) + "\n").encode())

    def _rewrite(self, records: Iterable[Record]) -> None:
        """Write all lines anew; the file holds either the old ones or the new ones."""
        write_whole(self.path / "episodes.jsonl", b"".join(line_of(sealed(record)) for record in records))
        self._episodes.close()
        self._episodes = (self.path / "episodes.jsonl").open("ab", buffering=0)

    def close(self) -> None:
        """Wait for the disk and let go of the directory."""
        with self._lock:
            self._close_files()

    def _close_files(self) -> None:
        try:
            with self._clocked(), _sentences(self.path):
                self._syncer.close()
        finally:
            self._episodes.close()
            self._timing.close()

    @property
    def seconds(self) -> float:
        """The cost of storing: wall time of the methods, and processor time of the thread that serves them."""
        return self._seconds + self._syncer.cpu_seconds

    @contextmanager
    def _clocked(self) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self._seconds += time.perf_counter() - begun

    def __enter__(self) -> RunStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        is_empty = self._new and not self.records and not os.fstat(self._episodes.fileno()).st_size
        with uninterrupted(), self._lock:
            self._close_files()
            if error is not None and is_empty:
                self._remove()

    def _remove(self) -> None:
        """Leave no trace of an evaluation that failed before its first episode ended."""
        with _sentences(self.path):
            shutil.rmtree(self.path)
            for folder in self._new[1:]:
                with suppress(OSError):  # somebody else has put something there meanwhile
                    folder.rmdir()


def read_config(path: str | Path) -> dict[str, Any]:
    """The settings of a stored run.

    Raises:
        StorageError: if there is no run, one of a newer version of this package, or one whose settings are damaged.
        InvalidConfigError: if it is of a task ``module:object`` or a YAML file that cannot be read.
    """
    file = Path(path) / "config.yaml"
    with _sentences(Path(path)):
        if not file.is_file():
            raise StorageError(f"{path} is no run directory: expected a config.yaml in it; see docs/run_directory.md.")
        try:
            config = read_yaml(file.read_text(encoding="utf-8"))
        except (YAMLError, OmegaConfBaseException, ValueError, RecursionError):
            config = None
    checked = _of_this_version(file, config, check_config)
    # Tasks module:object are imported: the records call them by the names that they have themselves.
    tasks = checked.get("task")
    for name in tasks.split(",") if isinstance(tasks, str) else tasks or ():
        if is_reference(name.strip()):
            get_task(name.strip())
    return checked


def read_summary(path: str | Path) -> dict[str, Any] | None:
    """The summary of a run: ``None`` as long as episodes are missing.

    Raises:
        StorageError: if it is damaged or of a newer version of this package.
    """
    file = Path(path) / "summary.json"
    with _sentences(Path(path)):
        if not file.exists():
            return None
        data = file.read_bytes()
    return _of_this_version(file, parse_object(data), check_summary)


def read_records(path: str | Path) -> list[Record]:
    """Records of the finished episodes of a run, sorted by address; a run in progress can be read too.

    Raises:
        StorageError: if there is no run, a line is damaged, an episode stands there twice, or the run is complete and
            its records are not those that its summary has counted.
    """
    read_config(path)
    with _sentences(Path(path)):
        found = _read_episodes(Path(path))
    if (summary := read_summary(path)) is not None:
        try:
            check_complete(found.values(), summary)
        except ValueError as error:
            raise StorageError(
                f"{Path(path) / 'summary.json'} does not belong to the records beside it: {error}; restore the "
                "records, or remove it and repeat the run's command, which runs what is missing and writes it anew."
            ) from error
    return [found[address] for address in sorted(found, key=_sort_key)]


def _read_episodes(path: Path) -> dict[Address, Record]:
    """Records by address, in the order of their lines."""
    file = path / "episodes.jsonl"
    records: dict[Address, Record] = {}
    for number, record in enumerate(read_lines(file, check_record), 1):
        address = address_of(record)
        if address in records:
            first = 1 + list(records).index(address)
            raise StorageError(
                f"Lines {first} and {number} of {file} are both of episode {address}: expected each episode once; "
                "take one of them out."
            )
        records[address] = {name: value for name, value in record.items() if name != "crc32"}
    return records


def read_timing(path: str | Path) -> list[dict[str, Any]]:
    """The timing lines of a run, in order.

    Raises:
        StorageError: if a line is damaged.
    """
    with _sentences(Path(path)):
        return read_lines(Path(path) / "timing.jsonl", check_timing)


def _of_this_version(file: Path, found: Any, check: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """The content of a file whose version and fields this package reads."""
    try:
        if not isinstance(found, dict):
            raise ValueError("expected names with values")
        check_fields(found, {"schema": POSITIVE})
        if found["schema"] <= SCHEMA:
            check(found)
    except ValueError as error:
        raise StorageError(f"{file} is damaged: {error}; restore the file or use another run directory.") from error
    if found["schema"] > SCHEMA:
        raise StorageError(
            f"{file} was written by a newer vlaser-gym (schema {found['schema']}, this one reads up to {SCHEMA}); "
            "update the package."
        )
    return found


def read_states(
    path: str | Path, record: Mapping[str, Any], names: Container[str] | None = None
) -> dict[str, NDArray[Any]]:
    """Per-step arrays of a stored episode, by name.

    Args:
        path: the run directory.
        record: of the episode.
        names: arrays to read, those of them that there are; ``None`` for all.

    Raises:
        StorageError: if none were stored, or the file is damaged.
    """
    if record["states"] is None:
        raise StorageError(f"The run {path} holds no states of episode {address_of(record)}.")
    return _read_arrays(Path(path) / record["states"], "states", names)


def read_training(path: str | Path, record: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """The decisions of a stored episode for learners: arrays by name, one row per decision.

    Raises:
        StorageError: if it was not stored, or the file is damaged.
    """
    if record.get("training") is None:
        raise StorageError(
            f"The run {path} holds nothing to learn from of episode {address_of(record)}: repeat it with "
            "store=training in another run directory."
        )
    return _read_arrays(Path(path) / record["training"], "training arrays")


def _read_arrays(file: Path, what: str, names: Container[str] | None = None) -> dict[str, NDArray[Any]]:
    try:
        return read_arrays(file, names)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise StorageError(f"Cannot read the {what} {file}: {error}; score the episode again.") from error


def _files_of(record: Record) -> list[str]:
    """Paths of an episode's arrays inside its run directory."""
    return [record[name] for name in ("states", "training") if record.get(name) is not None]


def check_same(path: str | Path, config: Mapping[str, Any]) -> None:
    """Refuse a directory that holds another evaluation, or something that is none.

    Only the settings named in ``config`` are compared.

    Raises:
        StorageError: with the differences.
    """
    path = Path(path)
    with _sentences(path):
        entries = path.iterdir() if path.exists() else ()
        begun = ("states", "training", LOCK_NAME)
        if all(entry.name in begun or is_temporary(entry) for entry in entries):
            return
    stored = read_config(path)
    outdated = why_outdated(stored.get("agent_settings"))
    if outdated is not None:
        raise StorageError(f"{path} holds an evaluation {outdated}. Run it again with another run=.")
    known = {key: value for key, value in stored.items() if key in {"schema", *config}}
    differences = setting_differences(known, {**config, "schema": stored["schema"]}, FREE_SETTINGS)
    if differences:
        raise StorageError(
            f"{path} holds another evaluation ({'; '.join(differences)}): choose another run= or repeat its settings."
        )


def check_writable(path: str | Path) -> None:
    """Find out whether a run directory can be made or written, and leave no trace.

    Raises:
        StorageError: if not.
    """
    with _sentences(Path(path)):
        probe(Path(path))


_ABSENT = object()
#: What settings were in runs that do not keep them.
_UNTOLD: dict[str, Any] = {
    "perturb": None,
    "engine.image_size": None,
    "instruction": None,
    "max_episode_steps": None,
    "reduced": None,
    "cameras": "policy",
    "render": "every_step",
    **{"agent_settings.agent_version": 1, "agent_settings.initial_noise": 1.0},
    **{
        "agent.checkpoint": "nano",
        "agent.initial_noise": None,
        "agent.check_weights": True,
        "agent.think": None,
        "agent.chunk_noise": [0.12, 0.04],
        "agent.rotation_noise": 0.3,
        "agent.convention": None,
        "agent.explain": None,
    },
}


def setting_differences(stored: Mapping[str, Any], wanted: Mapping[str, Any], free: Collection[str] = ()) -> list[str]:
    """Settings in which two differ: each by its dotted key, the old value and the new one.

    Args:
        stored: the old ones.
        wanted: the new ones.
        free: keys that may differ, dotted, or whole groups by their first part.
    """
    new = _flat(wanted)
    if new.get("checkpoint") is not None:
        free = (*free, "agent.checkpoint")  # which it takes the place of
    old = {key: value for key, value in _UNTOLD.items() if key in new} | _flat(stored)
    return [
        f"{key} was {_shown(old, key)}, now {_shown(new, key)}"
        for key in sorted(old.keys() | new.keys())
        if key not in free and key.split(".")[0] not in free and old.get(key, _ABSENT) != new.get(key, _ABSENT)
    ]


def _shown(flat: Mapping[str, Any], key: str) -> str:
    return repr(flat[key]) if key in flat else "not set"


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else {f"{prefix}{key}": value}
    return flat


def _sort_key(address: Address) -> tuple[Any, ...]:
    return address.sort_key


def _is_intact(file: Path) -> bool:
    """True if an archive is complete: a power failure can leave it empty or with holes."""
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile):
        return False


def _sentences(path: Path) -> AbstractContextManager[None]:
    return storage_errors(
        f"Cannot use the run directory {path}",
        "choose a writable place with enough space by run=DIR (finished episodes are kept)",
    )
