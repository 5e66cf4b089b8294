"""Data sets in the layout of LeRobot's ``LeRobotDataset`` v3.0, written episode group by episode group.

::

    data/chunk-000/file-000.parquet              rows of several episodes
    videos/<camera>/chunk-000/file-000.mp4       their pictures (images="mp4"; with "png" they are inside the rows)
    meta/episodes/chunk-000/file-000.parquet     one row per episode: length, place in the files, address, statistics
    meta/info.json, stats.json, tasks.parquet    features, statistics over everything, instructions
    meta/collection.json, dropped.jsonl          what made the data set; episodes that were run and not kept

Every group of episodes gets files of its own with the same number in all three folders. The file in ``meta/episodes``
is written after the other two, so whoever follows it finds everything it names, whenever the writer was killed; a
later writer removes what has no such file and goes on. ``meta/collection.json`` is written before everything else: a
folder without it (or without ``info.json``, in older data sets) is somebody else's, and is left alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import imageio.v2 as imageio
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vlaser_gym.envs.address import Address
from vlaser_gym.errors import InvalidConfigError, StorageError
from vlaser_gym.evaluation.files import (
    appearing,
    append_line,
    claim,
    drop_cut_line,
    read_lines,
    storage_errors,
    write_whole,
)
from vlaser_gym.evaluation.recording import RecordedEpisode
from vlaser_gym.evaluation.records import address_of, check_where
from vlaser_gym.evaluation.store import setting_differences
from vlaser_gym.evaluation.video import encode

VERSION = "v3.0"
CAMERA = "observation.images.main"
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
INFO_PATH, COLLECTION_PATH, DROPPED_PATH = "meta/info.json", "meta/collection.json", "meta/dropped.jsonl"
#: LeRobot's limit of files per folder.
CHUNK_SIZE = 1000
IMAGE_FORMATS = ("png", "mp4")

_PROPRIO = ["x", "y", "z", "qw", "qx", "qy", "qz", "openness"]
_ACTION = ["x", "y", "z", "rx", "ry", "rz", "gripper"]
Columns = dict[str, NDArray[Any]]


def check_images(images: str) -> None:
    """Look whether there is such a format of pictures.

    Raises:
        InvalidConfigError: if not.
    """
    if images not in IMAGE_FORMATS:
        raise InvalidConfigError(f"images is one of {', '.join(IMAGE_FORMATS)}; got {images!r}.")


class LeRobotWriter:
    """Appends episodes to a data set; one process at a time. Use as a context manager: nothing happens before.

    Args:
        path: folder; an existing data set of the same settings is continued.
        fps: pictures per second.
        robot: robot type.
        images: ``"png"`` (exact) or ``"mp4"`` (small; H.264).
        group: episodes per file; a killed writer loses at most so many.
        settings: what made the episodes, kept with them; a data set of other settings is refused.

    Attributes:
        addresses: of all episodes stored or dropped so far.
        dropped: those of them that were run and are not kept.

    Raises:
        InvalidConfigError: for a format of pictures that does not exist.
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
    ) -> None:
        check_images(images)
        self.path, self.robot, self.images, self.group = Path(path), robot, images, group
        self.fps: float = int(fps) if float(fps).is_integer() else fps
        self.settings = settings or {}
        self.tasks: list[str] = []
        self.addresses: set[Address] = set()
        self.dropped: set[Address] = set()
        self._episodes: list[dict[str, Any]] = []
        self._waiting: list[RecordedEpisode] = []
        self._new: list[Path] = []
        self._lock = -1
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
        self._read()
        if stored is not None and self.addresses:
            self._check_same(stored)
        self._is_ours = True
        self._remove_leftovers()
        (self.path / "meta").mkdir(exist_ok=True)
        write_whole(self.path / COLLECTION_PATH, _json(self._wanted()))

    def _read(self) -> None:
        groups = sorted(self.path.glob("meta/episodes/*/file-*.parquet"))
        self._next_group = len(groups)
        self._episodes = [row for file in groups for row in pq.read_table(file).to_pylist()]
        self.tasks = instructions_of(self._episodes)
        drop_cut_line(self.path / DROPPED_PATH)
        self.dropped = {address_of(entry) for entry in read_lines(self.path / DROPPED_PATH, check_where)}
        self.addresses = {_address(row) for row in self._episodes} | self.dropped

    def _wanted(self) -> dict[str, Any]:
        return {"fps": self.fps, "robot_type": self.robot, **self.settings}

    def _made_by(self) -> dict[str, Any] | None:
        """What made the data set that is there; ``None`` in an empty folder."""
        if (self.path / COLLECTION_PATH).is_file():
            return _read_json(self.path / COLLECTION_PATH)
        if (self.path / INFO_PATH).is_file():
            info = _read_json(self.path / INFO_PATH)
            if "vlaser_gym" not in info:
                raise StorageError(f"{self.path} holds a data set from elsewhere; choose another output=.")
            return {"fps": info["fps"], "robot_type": info["robot_type"], **info["vlaser_gym"]}
        begun = self.path / f"{COLLECTION_PATH}.tmp"
        if any(entry != begun for entry in self.path.rglob("*") if entry.is_symlink() or not entry.is_dir()):
            raise StorageError(f"{self.path} is not empty and holds no data set; choose another output=.")
        return None

    def _check_same(self, stored: dict[str, Any]) -> None:
        differences = setting_differences(stored, json.loads(_json(self._wanted())))
        if differences:
            raise StorageError(
                f"{self.path} holds a data set made with other settings ({'; '.join(differences)}): choose another "
                "output= or repeat its settings."
            )

    def _remove_leftovers(self) -> None:
        """Remove files of ours that belong to no complete group, and nothing else."""
        for folder, ending in (("data", "parquet"), (f"videos/{CAMERA}", "mp4")):
            for name in (f"chunk-*/file-*.{ending}", f"chunk-*/file-*.{ending}.tmp"):
                for file in self.path.glob(f"{folder}/{name}"):
                    group = self.path / "meta/episodes" / file.parent.name / f"{file.name.split('.')[0]}.parquet"
                    if not group.is_file():
                        file.unlink()

    def _leave(self) -> None:
        """Let go of the folder; a data set of which nothing was stored leaves no trace."""
        try:
            if self._is_ours and not (self._episodes or self.dropped):
                with self._sentences():
                    self._remove()
        finally:
            _remove_empty(self._new)
            if self._lock >= 0:
                os.close(self._lock)
            self._lock, self._is_ours = -1, False

    def _remove(self) -> None:
        self._remove_leftovers()
        entries = sorted(self.path.rglob("*"), reverse=True)
        # It says that the folder is ours, and so stays as long as anything else does.
        if [entry for entry in entries if not entry.is_dir()] == [self.path / COLLECTION_PATH]:
            (self.path / COLLECTION_PATH).unlink()
            _remove_empty(entries)

    def _sentences(self) -> AbstractContextManager[None]:
        return storage_errors(
            f"Cannot write the data set {self.path}",
            "choose a writable place with enough space by output=DIR (stored episodes are kept)",
        )

    @property
    def total_frames(self) -> int:
        """Pictures stored so far."""
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
        with self._sentences(), (self.path / DROPPED_PATH).open("ab", buffering=0) as file:
            append_line(file, where)
        self.dropped.add(address)
        self.addresses.add(address)

    def flush(self) -> None:
        """Write the episodes that wait.

        Raises:
            StorageError: if they cannot be written.
        """
        if self._waiting:
            with self._sentences():
                self._write_group()

    def _write_group(self) -> None:
        place = {"chunk_index": self._next_group // CHUNK_SIZE, "file_index": self._next_group % CHUNK_SIZE}
        rows, table = self._tables(place)
        frames = np.concatenate([episode.frames for episode in self._waiting])
        if self.images == "mp4":
            self._write_video(frames, self.path / VIDEO_PATH.format(video_key=CAMERA, **place))
        else:
            table[CAMERA] = [{"bytes": _png(frame), "path": None} for frame in frames]
        _write_table(_arrow(table), self.path / DATA_PATH.format(**place))
        _write_table(pa.Table.from_pylist(rows), self.path / EPISODES_PATH.format(**place))
        self._episodes += rows
        self._next_group += 1
        features = {name: _feature(values) for name, values in table.items() if name != CAMERA}
        self._write_meta({CAMERA: self._camera_feature(frames.shape[1:]), **features})
        self._waiting = []

    # ------------------------------------------------------------------ pieces

    def _tables(self, place: dict[str, int]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Rows of ``meta/episodes`` and columns of ``data`` for the waiting episodes."""
        rows: list[dict[str, Any]] = []
        parts: list[Columns] = []
        index, in_file = self.total_frames, 0
        for episode in self._waiting:
            self.tasks += [text for text in dict.fromkeys(episode.instructions) if text not in self.tasks]
            number, length = self.total_episodes + len(rows), len(episode)
            columns = _columns(episode)
            rows.append(self._episode_row(episode, number, index, in_file, place, columns))
            tasks = np.array([self.tasks.index(text) for text in episode.instructions])
            parts.append(self._with_indices(columns, number, index, tasks))
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
        if self.images == "mp4":
            row |= {f"videos/{CAMERA}/{key}": value for key, value in place.items()}
            row |= {
                f"videos/{CAMERA}/from_timestamp": in_file / self.fps,
                f"videos/{CAMERA}/to_timestamp": (in_file + len(episode)) / self.fps,
            }
        row |= {f"address/{key}": value for key, value in asdict(episode.address).items()}
        row["success"] = episode.success
        for name, values in {CAMERA: episode.frames / np.float32(255), **columns}.items():
            for key, value in _statistics(values, name == CAMERA).items():
                row[f"stats/{name}/{key}"] = value
        return row

    def _with_indices(self, columns: Columns, number: int, index: int, tasks: NDArray[np.int64]) -> Columns:
        steps = np.arange(len(columns["action"]))
        return {
            **columns,
            "timestamp": (steps / self.fps).astype(np.float32),
            "frame_index": steps,
            "episode_index": np.full(len(steps), number),
            "index": index + steps,
            "task_index": tasks,
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
            "video.is_depth_map": False,
            "video.fps": self.fps,
            "has_audio": False,
        }
        return {"dtype": "video", **feature, "info": info}

    def _write_video(self, frames: NDArray[np.uint8], file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        with appearing(file) as partial:
            encode(partial, frames[0], frames[1:], self.fps, quality=8)

    def _write_meta(self, features: dict[str, Any]) -> None:
        meta = self.path / "meta"
        names = pa.table({"task_index": range(len(self.tasks)), "__index_level_0__": self.tasks})
        _write_table(names.replace_schema_metadata({"pandas": json.dumps(_PANDAS_INDEX)}), meta / "tasks.parquet")
        write_whole(meta / "stats.json", _json(_total_statistics(self._episodes)))
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
            "vlaser_gym": self.settings,
        }
        write_whole(self.path / INFO_PATH, _json(info))


def _remove_empty(folders: Sequence[Path]) -> None:
    for folder in folders:
        with suppress(OSError):  # a file, or a folder that holds one
            folder.rmdir()


def _columns(episode: RecordedEpisode) -> Columns:
    """Columns under LeRobot's names. Blocks of one action lose their middle axis."""
    given = episode.columns
    action, label = (given[name][:, 0] if given[name].shape[1] == 1 else given[name] for name in ("action", "label"))
    flags = {f"next.{name[5:]}": values for name, values in given.items() if name.startswith("flag/")}
    return {
        "observation.state": given["proprio"],
        "observation.environment_state": given["state"],
        "action": action,
        "action.intended": label,
        "steps": given["steps"].astype(np.int64),
        "next.reward": given["reward"].astype(np.float32),
        "next.done": given["done"],
        **flags,
    }


def _feature(values: Any) -> dict[str, Any]:
    shape = list(values.shape[1:]) or [1]
    names: Any = {8: _PROPRIO, 7: _ACTION}.get(shape[-1]) if len(shape) == 1 else None
    return {"dtype": str(values.dtype), "shape": shape, "names": names}


def _statistics(values: NDArray[Any], is_image: bool) -> dict[str, Any]:
    """LeRobot's: min, max, mean, std and count; pictures by channel, as ``[3, 1, 1]`` in 0..1."""
    numbers = values.astype(np.float64)
    axes = (0, 1, 2) if is_image else (0,)
    found = {name: getattr(numbers, name)(axis=axes) for name in ("min", "max", "mean", "std")}
    shape = (3, 1, 1) if is_image else (found["mean"].shape or (1,))
    return {**{k: v.reshape(shape).tolist() for k, v in found.items()}, "count": [len(values)]}


def _total_statistics(episodes: list[dict[str, Any]]) -> dict[str, Any]:
    """Statistics over all episodes from those of each."""
    names = [key.removeprefix("stats/").removesuffix("/mean") for key in episodes[0] if key.endswith("/mean")]
    return {name: _pooled([{k: e[f"stats/{name}/{k}"] for k in _STATISTICS} for e in episodes]) for name in names}


_STATISTICS = ("min", "max", "mean", "std", "count")


def _pooled(parts: list[dict[str, Any]]) -> dict[str, Any]:
    low, high, means, stds, counts = (np.array([part[key] for part in parts], np.float64) for key in _STATISTICS)
    weights = (counts / counts.sum()).reshape(-1, *[1] * (means.ndim - 1))
    mean = (weights * means).sum(0)
    variance = (weights * (stds**2 + (means - mean) ** 2)).sum(0)
    return {
        "min": low.min(0).tolist(),
        "max": high.max(0).tolist(),
        "mean": mean.tolist(),
        "std": np.sqrt(variance).tolist(),
        "count": [int(counts.sum())],
    }


def _arrow(columns: dict[str, Any]) -> pa.Table:
    return pa.table({name: _array(values) for name, values in columns.items()})


def _array(values: Any) -> pa.Array:
    if isinstance(values, list):
        return pa.array(values, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    if values.ndim == 1:
        return pa.array(values)
    inner = pa.array(values.reshape(-1))
    for size in reversed(values.shape[1:]):
        inner = pa.FixedSizeListArray.from_arrays(inner, size)
    return inner


def _png(frame: NDArray[np.uint8]) -> bytes:
    done, data = cv2.imencode(".png", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 1])
    assert done
    return bytes(data)


def _address(row: dict[str, Any]) -> Address:
    return Address(row["address/task"], row["address/variant"], row["address/layout"], row["address/trial"])


def _write_table(table: pa.Table, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with appearing(file) as partial:
        pq.write_table(table, partial)


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


def instructions_of(episodes: Sequence[dict[str, Any]]) -> list[str]:
    """The instructions of a data set in the order of ``task_index``, from its rows of ``meta/episodes``.

    They are newer than ``meta/tasks.parquet`` where a writer was killed.
    """
    return list(dict.fromkeys(text for row in episodes for text in row["tasks"]))


class LeRobotReader:
    """A data set on disk.

    Args:
        path: its folder.
        groups: read only so many groups of episodes; a data set may grow while it is read.

    Attributes:
        info: ``meta/info.json``.
        groups: files in ``meta/episodes``.
        episodes: rows of ``meta/episodes``, in order.

    Raises:
        StorageError: if there is no data set.
    """

    def __init__(self, path: str | Path, groups: int | None = None) -> None:
        self.path = Path(path)
        info = self.path / INFO_PATH
        if not info.is_file():
            raise StorageError(
                f"{self.path} should hold a LeRobot data set (meta/info.json); it does not. "
                "Write one with python -m vlaser_gym.collect."
            )
        self.info: dict[str, Any] = json.loads(info.read_text())
        if self.info.get("codebase_version") != VERSION:
            raise StorageError(f"{self.path} has data set version {self.info.get('codebase_version')}, not {VERSION}.")
        self.groups = sorted(self.path.glob("meta/episodes/*/file-*.parquet"))[:groups]
        self.episodes = [row for file in self.groups for row in pq.read_table(file).to_pylist()]

    @property
    def tasks(self) -> list[str]:
        """Instructions; rows name theirs by its place, in the column ``task_index``."""
        return instructions_of(self.episodes)

    @property
    def total_frames(self) -> int:
        """Pictures in all episodes."""
        return int(self.episodes[-1]["dataset_to_index"]) if self.episodes else 0

    @property
    def is_video(self) -> bool:
        """Whether the pictures are in video files."""
        return bool(self.info["features"][CAMERA]["dtype"] == "video")

    def columns(self, names: Sequence[str]) -> Columns:
        """Whole columns, ``[total_frames, ...]``."""
        parts = [self._columns_of(table, names) for table in self._tables(names)]
        return {name: np.concatenate([part[name] for part in parts]) for name in names}

    def _columns_of(self, table: pa.Table, names: Sequence[str]) -> Columns:
        found = {}
        for name in names:
            shape = self.info["features"][name]["shape"]
            column = table[name].combine_chunks()
            while pa.types.is_fixed_size_list(column.type) or pa.types.is_list(column.type):
                column = column.flatten()
            values = column.to_numpy(zero_copy_only=False)
            found[name] = values.reshape(table.num_rows, *([] if shape == [1] else shape))
        return found

    def _tables(self, names: Sequence[str]) -> Iterator[pa.Table]:
        for file in self.groups:
            yield pq.read_table(self.path / "data" / file.relative_to(self.path / "meta/episodes"), columns=list(names))

    def frames(self) -> Iterator[NDArray[np.uint8]]:
        """All pictures in order, one array ``[R, h, w, 3]`` per file."""
        for file in self.groups:
            place = file.relative_to(self.path / "meta/episodes")
            if self.is_video:
                reader: Any = imageio.get_reader(self.path / "videos" / CAMERA / place.with_suffix(".mp4"))
                with reader as video:
                    yield np.stack([np.asarray(frame) for frame in video.iter_data()])
            else:
                table = pq.read_table(self.path / "data" / place, columns=[CAMERA])
                yield np.stack([_decoded(row["bytes"]) for row in table[CAMERA].to_pylist()])


def _decoded(data: bytes) -> NDArray[np.uint8]:
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)
