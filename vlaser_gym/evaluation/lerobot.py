"""Data sets in the layout of LeRobot's ``LeRobotDataset`` v3.0, written episode group by episode group.

::

    data/chunk-000/file-000.parquet              rows of several episodes, one per control step
    videos/<camera>/chunk-000/file-000.mp4       their images (images="mp4"; with "png" they are inside the rows)
    meta/episodes/chunk-000/file-000.parquet     one row per episode: length, place in the files, address, statistics
    meta/info.json, stats.json, tasks.parquet    features, statistics over everything, instructions
    meta/collection.json, dropped.jsonl          what made the data set; episodes that were run and not kept
    README.md                                    the data card: what the columns mean

Stock policies of LeRobot read what begins with ``observation`` and predict what begins with ``action``: these columns
hold what a policy may see and should do. What only the simulator knows, what was executed in place of what was meant,
and which rows a policy that decides every few steps uses, begins with ``privileged``, which LeRobot leaves alone.

Every group of episodes gets files of its own with the same number in all three folders. The file in ``meta/episodes``
is written after the other two and ``tasks.parquet``, so whoever follows it finds everything it names, whenever the
writer was killed; a later writer removes what has no such file and goes on. What follows from the rows, ``info.json``
and ``stats.json``, comes last and is made again by a later writer, where it does not count the same.
``meta/collection.json`` is written before
everything else: a folder without it (or, in older data sets, without settings in ``info.json``) is somebody else's, and
is left alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from cv2 import IMWRITE_PNG_COMPRESSION
from numpy.typing import NDArray

from vlaser_gym.envs.address import Address
from vlaser_gym.errors import InvalidConfigError, StorageError
from vlaser_gym.evaluation.encoding import decode_image, encode_image
from vlaser_gym.evaluation.lerobot_card import data_card
from vlaser_gym.evaluation.lerobot_reader import (
    CAMERA,
    INFO_PATH,
    TASKS_PATH,
    VERSION,
    Columns,
    LeRobotReader,
    damage_as_sentence,
    open_video,
    read_table,
    read_tasks,
    values_of,
)
from vlaser_gym.evaluation.recording import RecordedEpisode
from vlaser_gym.evaluation.records import address_of, check_where
from vlaser_gym.evaluation.store import setting_differences
from vlaser_gym.evaluation.video import encode
from vlaser_gym.storage.files import appearing, is_temporary, remove_leftovers, storage_errors, write_whole
from vlaser_gym.storage.interrupts import uninterrupted
from vlaser_gym.storage.lines import append_line, drop_cut_line, read_lines
from vlaser_gym.storage.locks import LOCK_NAME, Claim, claim

__all__ = ["LeRobotReader", "LeRobotWriter", "check_images"]

DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
COLLECTION_PATH, DROPPED_PATH, CARD_PATH = "meta/collection.json", "meta/dropped.jsonl", "README.md"
#: Of the columns; the first one had a row per decision, with a block of actions.
LAYOUT = 2
#: What names of columns of images begin with.
_PICTURES = "observation.images."
#: LeRobot's limit of files per folder.
CHUNK_SIZE = 1000
IMAGE_FORMATS = ("png", "mp4")

_ACTION = ["x", "y", "z", "rx", "ry", "rz", "gripper"]
#: Of the numbers in a column.
_NAMES = {
    "observation.state": ["x", "y", "z", "qw", "qx", "qy", "qz", "openness"],
    "action": _ACTION,
    "privileged.executed": _ACTION,
}
#: Shares of the rows that LeRobot's quantiles are about.
QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
_INDICES = ("timestamp", "frame_index", "episode_index", "index", "task_index")


def check_images(images: str) -> None:
    """Check that there is such an image format.

    Raises:
        InvalidConfigError: if not.
    """
    if images not in IMAGE_FORMATS:
        raise InvalidConfigError(f"images is one of {', '.join(IMAGE_FORMATS)}; got {images!r}.")


class LeRobotWriter:
    """Appends episodes to a data set; one process at a time. Use as a context manager: nothing happens before.

    Args:
        path: folder; an existing data set of the same settings is continued.
        fps: images per second.
        robot: robot type.
        images: ``"png"`` (exact) or ``"mp4"`` (small; H.264).
        group: episodes per file; a killed writer loses at most so many.
        settings: what made the episodes, kept with them; a data set of other settings is refused.
        flags: of all its tasks; those that an episode's task has not are False in its rows.

    Attributes:
        addresses: of all episodes stored or dropped so far.
        dropped: those of them that were run and are not kept.

    Raises:
        InvalidConfigError: for a format of images that does not exist.
        StorageError: on entering, if the folder cannot be written, belongs to something else or is being written.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        fps: float,
        robot: str,
        images: str = "png",
        group: int = 50,
        settings: dict[str, Any] | None = None,
        flags: Sequence[str] = (),
    ) -> None:
        check_images(images)
        self._flags = tuple(flags)
        self.path, self.robot, self.images, self.group = Path(path), robot, images, group
        self.fps: float = int(fps) if float(fps).is_integer() else fps
        self.settings = settings or {}
        self.tasks: list[str] = []
        self.addresses: set[Address] = set()
        self.dropped: set[Address] = set()
        self._episodes: list[dict[str, Any]] = []
        self._numbers: dict[str, list[NDArray[Any]]] = {}
        self._waiting: list[RecordedEpisode] = []
        self._new: list[Path] = []
        self._lock: Claim | None = None
        self._is_ours = False

    def __enter__(self) -> LeRobotWriter:
        try:
            with self._sentences():
                self._new = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
                self.path.mkdir(parents=True, exist_ok=True)
                self._lock = claim(self.path, "another output=")
                self._open()
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self.flush()
        finally:
            self._leave()

    def _open(self) -> None:
        """Find what is there; remove files that belong to no complete group."""
        stored = self._made_by()
        with damage_as_sentence(self.path):
            self._read_episodes()
        if stored is not None and self.addresses:
            self._check_same(stored)
        with damage_as_sentence(self.path):
            file = self.path / TASKS_PATH
            tasks = read_tasks(file) if self._episodes else {}
            if sorted(tasks) != list(range(len(tasks))):
                raise StorageError(f"{file} should number its {len(tasks)} instructions from 0 on; restore the file.")
            self.tasks = [tasks[number] for number in range(len(tasks))]
            self._read_numbers()
        self._is_ours = True
        self._remove_leftovers()
        (self.path / "meta").mkdir(exist_ok=True)
        write_whole(self.path / COLLECTION_PATH, _json(self._wanted()))
        with damage_as_sentence(self.path):
            if self._episodes and not self._meta_is_whole():
                self.rebuild()

    def _read_episodes(self) -> None:
        groups = sorted(self.path.glob("meta/episodes/*/file-*.parquet"))
        self._next_group = len(groups)
        self._episodes = [row for file in groups for row in read_table(file).to_pylist()]
        drop_cut_line(self.path / DROPPED_PATH)
        self.dropped = {address_of(entry) for entry in read_lines(self.path / DROPPED_PATH, check_where)}
        self.addresses = {_address(row) for row in self._episodes} | self.dropped

    def _read_numbers(self) -> None:
        """Keep the numbers of the stored episodes: quantiles are taken over all of them."""
        keys = self._episodes[0] if self._episodes else {}
        means = [key.removeprefix("stats/").removesuffix("/mean") for key in keys if key.endswith("/mean")]
        names = [name for name in means if not _is_picture(name)]
        for chunk, number in dict.fromkeys((e["data/chunk_index"], e["data/file_index"]) for e in self._episodes):
            file = self.path / DATA_PATH.format(chunk_index=chunk, file_index=number)
            self._keep_numbers(_number_columns(file, names))

    def _keep_numbers(self, columns: Columns) -> None:
        for name, values in columns.items():
            if name not in _INDICES:
                self._numbers.setdefault(name, []).append(values)

    def _wanted(self) -> dict[str, Any]:
        return {"layout": LAYOUT, "fps": self.fps, "robot_type": self.robot, **self.settings}

    def _made_by(self) -> dict[str, Any] | None:
        """The collection settings of the existing data set; ``None`` in an empty folder."""
        if (self.path / COLLECTION_PATH).is_file():
            return _read_json(self.path / COLLECTION_PATH)
        if (self.path / INFO_PATH).is_file():
            info = _read_json(self.path / INFO_PATH)
            if "vlaser_gym" not in info:  # where the first layout kept its settings
                raise StorageError(f"{self.path} holds a data set from elsewhere; choose another output=.")
            return dict(info["vlaser_gym"])
        if not all(self._is_beginning(entry) for entry in self.path.rglob("*")):
            raise StorageError(f"{self.path} is not empty and holds no data set; choose another output=.")
        return None

    def _is_beginning(self, entry: Path) -> bool:
        """True if an entry may exist before the folder is marked as a data set of this gym."""
        if entry.is_dir() and not entry.is_symlink():
            return True
        own = entry.name.startswith(Path(COLLECTION_PATH).name) and is_temporary(entry)
        return entry == self.path / LOCK_NAME or (own and entry.parent == self.path / "meta")

    def _check_same(self, stored: dict[str, Any]) -> None:
        if stored.get("layout") != LAYOUT:
            raise StorageError(
                f"{self.path} holds a data set of an earlier version, with a row per decision instead of one per "
                "control step: it can be trained on as before, but not continued; choose another output=."
            )
        differences = setting_differences(stored, json.loads(_json(self._wanted())), ("agent.check_weights",))
        if differences:
            raise StorageError(
                f"{self.path} holds a data set made with other settings ({'; '.join(differences)}): choose another "
                "output= or repeat its settings."
            )

    def _remove_leftovers(self) -> None:
        """Remove files of ours that belong to no complete group, and nothing else."""
        videos = [(f"videos/{folder.name}", "mp4") for folder in self.path.glob(f"videos/{_PICTURES}*")]
        for folder, ending in (("data", "parquet"), *videos, ("meta/episodes", "parquet")):
            for chunk in self.path.glob(f"{folder}/chunk-*"):
                remove_leftovers(chunk)
                for file in chunk.glob(f"file-*.{ending}"):
                    if not (self.path / "meta/episodes" / chunk.name / f"{file.stem}.parquet").is_file():
                        file.unlink()
        for place in (INFO_PATH, TASKS_PATH, COLLECTION_PATH, "meta/stats.json", CARD_PATH):
            for file in (self.path / place).parent.glob(f"{Path(place).name}.*"):
                if is_temporary(file):
                    file.unlink()

    def _leave(self) -> None:
        """Let go of the folder; a data set of which nothing was stored leaves no trace."""
        try:
            if self._is_ours and not (self._episodes or self.dropped):
                with self._sentences():
                    self._remove()
        finally:
            if self._lock is not None:
                self._lock.release()
            _remove_empty(self._new)
            self._lock, self._is_ours = None, False

    def _remove(self) -> None:
        self._remove_leftovers()
        entries = sorted(self.path.rglob("*"), reverse=True)
        # It says that the folder is ours, and so stays as long as anything else does.
        if {entry for entry in entries if not entry.is_dir()} == {self.path / COLLECTION_PATH, self.path / LOCK_NAME}:
            (self.path / COLLECTION_PATH).unlink()
            _remove_empty(entries)

    def _sentences(self) -> AbstractContextManager[None]:
        return storage_errors(
            f"Cannot write the data set {self.path}",
            "choose a writable place with enough space by output=DIR (stored episodes are kept)",
        )

    @property
    def total_frames(self) -> int:
        """Images stored so far."""
        return self._episodes[-1]["dataset_to_index"] if self._episodes else 0

    @property
    def total_episodes(self) -> int:
        """Episodes stored so far."""
        return len(self._episodes)

    def add(self, episode: RecordedEpisode) -> None:
        """Take in an episode; every ``group`` episodes are written together."""
        self._waiting.append(episode)
        self.addresses.add(episode.address)
        if len(self._waiting) >= self.group:
            self.flush()

    def drop(self, address: Address) -> None:
        """Remember that an episode was run and is not kept."""
        where = {name: getattr(address, name) for name in ("task", "variant", "layout", "trial")}
        with uninterrupted(), self._sentences(), (self.path / DROPPED_PATH).open("ab", buffering=0) as file:
            append_line(file, where)
            self.dropped.add(address)
            self.addresses.add(address)

    def flush(self) -> None:
        """Write the episodes that wait.

        Raises:
            StorageError: if they cannot be written.
        """
        if not self._waiting:
            return
        place = {"chunk_index": self._next_group // CHUNK_SIZE, "file_index": self._next_group % CHUNK_SIZE}
        with uninterrupted(), self._sentences():
            rows, columns = self._tables(place)
            table, shapes = {name: _array(values) for name, values in columns.items()}, {}
            for name in _pictures(self._waiting[0]):
                frames = np.concatenate([_pictures(episode)[name] for episode in self._waiting])
                shapes[name] = frames.shape[1:]
                if self.images == "mp4":
                    file = self.path / VIDEO_PATH.format(video_key=name, **place)
                    file.parent.mkdir(parents=True, exist_ok=True)
                    with appearing(file) as partial:
                        encode(partial, frames[0], frames[1:], self.fps, quality=8)
                else:
                    files = (encode_image(frame, ".png", (IMWRITE_PNG_COMPRESSION, 1)) for frame in frames)
                    table[name] = _array([{"bytes": file, "path": None} for file in files])
            names = pa.table({"task_index": range(len(self.tasks)), "__index_level_0__": self.tasks})
            _write_table(names.replace_schema_metadata({"pandas": json.dumps(_PANDAS_INDEX)}), self.path / TASKS_PATH)
            _write_table(pa.table(table), self.path / DATA_PATH.format(**place))
            _write_table(pa.Table.from_pylist(rows), self.path / EPISODES_PATH.format(**place))
            self._episodes += rows
            self._keep_numbers(columns)
            self._next_group += 1
            features = {name: _feature(name, values) for name, values in columns.items()}
            self._waiting = []  # they are stored, whatever happens from here on
            self._write_meta({**{name: self._camera_feature(shape) for name, shape in shapes.items()}, **features})

    def rebuild(self) -> None:
        """Write what follows from the stored rows anew: features, counts, statistics, and the card if there is none.

        Raises:
            StorageError: if rows or images are damaged.
        """
        first = self._episodes[0]
        file = self.path / DATA_PATH.format(**{key: first[f"data/{key}"] for key in ("chunk_index", "file_index")})
        table = read_table(file)
        columns = _number_columns(file, [name for name in table.column_names if not _is_picture(name)])
        features = {name: _feature(name, values) for name, values in columns.items()}
        shapes = {name: self._picture_shape(table, name) for name in _pictures_of(first)}
        self._write_meta({**{name: self._camera_feature(shape) for name, shape in shapes.items()}, **features})

    def _picture_shape(self, table: pa.Table, name: str) -> Sequence[int]:
        """Height, width and channels of the stored images of a column."""
        if self.images == "mp4":
            file = self.path / VIDEO_PATH.format(video_key=name, chunk_index=0, file_index=0)
            return next(open_video(file)[1]).shape
        return np.asarray(decode_image(table[name][0].as_py()["bytes"])).shape

    def _meta_is_whole(self) -> bool:
        """True if the derived metadata count all stored rows; a writer may have died before updating them."""
        if not all((self.path / place).is_file() for place in (INFO_PATH, "meta/stats.json", CARD_PATH)):
            return False
        counts = ("total_episodes", self.total_episodes), ("total_frames", self.total_frames)
        info, stats = (_read_json(self.path / place) for place in (INFO_PATH, "meta/stats.json"))
        pooled = stats.get("action", {}).get("count")
        return all(info.get(name) == count for name, count in counts) and pooled == [self.total_frames]

    # ------------------------------------------------------------------ pieces

    def _tables(self, place: dict[str, int]) -> tuple[list[dict[str, Any]], Columns]:
        """Rows of ``meta/episodes`` and columns of ``data`` for the waiting episodes."""
        rows: list[dict[str, Any]] = []
        parts: list[Columns] = []
        index, in_file = self.total_frames, 0
        for episode in self._waiting:
            self.tasks += [text for text in dict.fromkeys(episode.instructions) if text not in self.tasks]
            number, length = self.total_episodes + len(rows), len(episode)
            columns = _columns(episode, self._flags)
            rows.append(self._episode_row(episode, number, index, in_file, place, columns))
            steps = np.arange(len(columns["action"]))
            indices: Columns = {
                "timestamp": (steps / self.fps).astype(np.float32),
                "frame_index": steps,
                "episode_index": np.full(len(steps), number),
                "index": index + steps,
                "task_index": np.array([self.tasks.index(text) for text in episode.instructions]),
            }
            parts.append({**columns, **indices})
            index, in_file = index + length, in_file + length
        return rows, {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _episode_row(
        self, episode: RecordedEpisode, number: int, index: int, in_file: int, place: dict[str, int], columns: Columns
    ) -> dict[str, Any]:
        row: dict[str, Any] = {
            "episode_index": number,
            "tasks": list(dict.fromkeys(episode.instructions)),
            "length": len(episode),
            "dataset_from_index": index,
            "dataset_to_index": index + len(episode),
            **{f"data/{key}": value for key, value in place.items()},
            **{f"meta/episodes/{key}": value for key, value in place.items()},
        }
        for name in _pictures(episode) if self.images == "mp4" else ():
            row |= {f"videos/{name}/{key}": value for key, value in place.items()}
            row |= {
                f"videos/{name}/from_timestamp": in_file / self.fps,
                f"videos/{name}/to_timestamp": (in_file + len(episode)) / self.fps,
            }
        row |= {f"address/{key}": value for key, value in asdict(episode.address).items()}
        row["success"] = episode.success
        statistics = {name: _picture_statistics(frames) for name, frames in _pictures(episode).items()}
        statistics |= {name: _statistics(values) for name, values in columns.items()}
        return row | {
            f"stats/{name}/{key}": value for name, found in statistics.items() for key, value in found.items()
        }

    def _camera_feature(self, shape: Sequence[int]) -> dict[str, Any]:
        feature = {"shape": [int(n) for n in shape], "names": ["height", "width", "channels"]}
        if self.images == "png":
            return {"dtype": "image", **feature}
        info = {
            "video.height": int(shape[0]),
            "video.width": int(shape[1]),
            "video.channels": 3,
            "video.codec": "h264",
            "video.pix_fmt": "yuv420p",
            "is_depth_map": False,
            "video.fps": self.fps,
            "has_audio": False,
        }
        return {"dtype": "video", **feature, "info": info}

    def _write_meta(self, features: dict[str, Any]) -> None:
        self._numbers = {name: [np.concatenate(parts)] for name, parts in self._numbers.items()}
        numbers = {name: parts[0] for name, parts in self._numbers.items()}
        write_whole(self.path / "meta/stats.json", _json(_total_statistics(self._episodes, numbers)))
        info = {
            "codebase_version": VERSION,
            "robot_type": self.robot,
            "total_episodes": self.total_episodes,
            "total_frames": self.total_frames,
            "total_tasks": len(self.tasks),
            "chunks_size": CHUNK_SIZE,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200,
            "fps": self.fps,
            "splits": {"train": f"0:{self.total_episodes}"},
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH if self.images == "mp4" else None,
            "features": features,
        }
        write_whole(self.path / INFO_PATH, _json(info))
        if not (self.path / CARD_PATH).exists():  # afterwards it is its owner's
            write_whole(self.path / CARD_PATH, data_card(self.robot, self.fps, self.settings, features).encode())


def _is_picture(column: str) -> bool:
    return column.startswith(_PICTURES)


def _pictures(episode: RecordedEpisode) -> dict[str, NDArray[np.uint8]]:
    """Frames of all cameras, by the names of their columns."""
    return {CAMERA: episode.frames, **{f"{_PICTURES}{name}": frames for name, frames in episode.views.items()}}


def _pictures_of(row: Mapping[str, Any]) -> list[str]:
    """Columns of images that a stored episode has."""
    means = (key.removeprefix("stats/").removesuffix("/mean") for key in row if key.endswith("/mean"))
    return [name for name in means if _is_picture(name)]


def _remove_empty(folders: Sequence[Path]) -> None:
    for folder in folders:
        with suppress(OSError):  # a file, or a folder that holds one
            folder.rmdir()


def _columns(episode: RecordedEpisode, names: Sequence[str]) -> Columns:
    """Columns under names by which LeRobot tells inputs from outputs and from what it leaves alone."""
    given = episode.columns
    own = {name.removeprefix("flag/"): values for name, values in given.items() if name.startswith("flag/")}
    absent = np.zeros(len(episode), bool)
    flags = {f"next.{name}": own.get(name, absent) for name in dict.fromkeys((*names, *own))}
    return {
        "observation.state": given["proprio"],
        "action": given["label"],
        "privileged.executed": given["action"],
        "privileged.state": given["state"],
        "privileged.decision": given["decision"],
        "next.reward": given["reward"],
        "next.done": given["done"],
        **flags,
    }


def _feature(name: str, values: NDArray[Any]) -> dict[str, Any]:
    return {"dtype": str(values.dtype), "shape": list(values.shape[1:]) or [1], "names": _NAMES.get(name)}


def _number_columns(file: Path, names: Sequence[str]) -> Columns:
    """Some columns of a data file of ours: scalars or vectors."""
    table = read_table(file, names)
    found = {}
    for name in names:
        kind = table.schema.field(name).type
        values = values_of(table[name], [kind.list_size if pa.types.is_fixed_size_list(kind) else 1])
        if values is None:
            raise StorageError(f"{file} is damaged: the column {name} has gaps; restore the file.")
        found[name] = values
    return found


def _statistics(values: NDArray[Any]) -> dict[str, Any]:
    """LeRobot's: min, max, mean, std, quantiles and count of ``[R, ...]`` over the rows."""
    numbers = values.astype(np.float64).reshape(len(values), -1)
    found = {name: getattr(numbers, name)(axis=0).tolist() for name in ("min", "max", "mean", "std")}
    return {**found, **_quantiles(numbers), "count": [len(values)]}


def _quantiles(numbers: NDArray[np.float64]) -> dict[str, list[float]]:
    found = np.quantile(numbers, list(QUANTILES.values()), axis=0)
    return dict(zip(QUANTILES, found.tolist(), strict=True))


def _picture_statistics(frames: NDArray[np.uint8]) -> dict[str, Any]:
    """The same of images ``[R, h, w, 3]``, by channel, as ``[3, 1, 1]`` in 0..1."""
    histograms = [np.bincount(frames[..., channel].ravel(), minlength=256) for channel in range(3)]
    by_channel = [_histogram_statistics(histogram) for histogram in histograms]
    found = {name: np.array([part[name] for part in by_channel]).reshape(3, 1, 1).tolist() for name in by_channel[0]}
    return {**found, "count": [len(frames)]}


def _histogram_statistics(counts: NDArray[np.int64]) -> dict[str, float]:
    """Statistics of values 0..255, of which there are so many each, divided by 255; quantiles are interpolated."""
    values, total, behind = np.arange(256) / 255, counts.sum(), np.cumsum(counts)
    mean = float(counts @ values / total)
    found = {"min": values[counts > 0][0], "max": values[counts > 0][-1], "mean": mean}
    found["std"] = np.sqrt(counts @ (values - mean) ** 2 / total)
    for name, share in QUANTILES.items():
        rank = share * (total - 1)
        low, high = (values[np.searchsorted(behind, whole, "right")] for whole in (np.floor(rank), np.ceil(rank)))
        found[name] = low + (rank - np.floor(rank)) * (high - low)
    return {name: float(value) for name, value in found.items()}


def _total_statistics(episodes: list[dict[str, Any]], numbers: Columns) -> dict[str, Any]:
    """Statistics over all episodes: quantiles from all rows, those of images as LeRobot's own, the episodes' mean."""
    found = {}
    for name in (*_pictures_of(episodes[0]), *numbers):
        parts = {key: np.array([e[f"stats/{name}/{key}"] for e in episodes], np.float64) for key in _POOLED}
        found[name] = _pooled(parts)
        if _is_picture(name):
            of_each = {key: np.array([e[f"stats/{name}/{key}"] for e in episodes]) for key in QUANTILES}
            found[name] |= {key: np.average(v, 0, parts["count"][:, 0]).tolist() for key, v in of_each.items()}
        else:
            found[name] |= _quantiles(numbers[name].astype(np.float64).reshape(len(numbers[name]), -1))
    return found


_POOLED = ("min", "max", "mean", "std", "count")


def _pooled(parts: Columns) -> dict[str, Any]:
    means, counts = parts["mean"], parts["count"]
    weights = (counts / counts.sum()).reshape(-1, *[1] * (means.ndim - 1))
    mean = (weights * means).sum(0)
    variance = (weights * (parts["std"] ** 2 + (means - mean) ** 2)).sum(0)
    return {
        "min": parts["min"].min(0).tolist(),
        "max": parts["max"].max(0).tolist(),
        "mean": mean.tolist(),
        "std": np.sqrt(variance).tolist(),
        "count": [int(counts.sum())],
    }


def _array(values: Any) -> pa.Array:
    if isinstance(values, list):
        return pa.array(values, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    if values.ndim == 1:
        return pa.array(values)
    inner = pa.array(values.reshape(-1))
    for size in reversed(values.shape[1:]):
        inner = pa.FixedSizeListArray.from_arrays(inner, size)
    return inner


def _address(row: dict[str, Any]) -> Address:
    return Address(row["address/task"], row["address/variant"], row["address/layout"], row["address/trial"])


def _write_table(table: pa.Table, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with appearing(file) as partial:
        pq.write_table(table, partial, write_page_checksum=True)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_bytes())
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise StorageError(f"{file} is damaged: expected a JSON object; restore the file or choose another output=.")
    return found


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()


#: Makes pandas, and so LeRobot, read the instruction as the index of ``tasks.parquet``.
_PANDAS_INDEX = {
    "index_columns": ["__index_level_0__"],
    "column_indexes": [],
    "columns": [
        {"name": "task_index", "field_name": "task_index", "pandas_type": "int64", "numpy_type": "int64"},
        {"name": None, "field_name": "__index_level_0__", "pandas_type": "unicode", "numpy_type": "object"},
    ],
}
