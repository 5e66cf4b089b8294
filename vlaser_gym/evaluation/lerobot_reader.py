"""Data sets in the layout of LeRobot's ``LeRobotDataset`` v3.0, v2.1 or v2.0, read by the format's own index.

v3.0: ``meta/episodes`` says of every episode which rows it has, in which file they are, and when it begins in which
video; ``meta/tasks.parquet`` says which instruction a row's ``task_index`` means. v2: ``meta/episodes.jsonl`` says how
long every episode is, whose rows and videos are files of its own, and ``meta/tasks.jsonl`` the instructions. Which of
both it is, is told by these files and not by the version's name. Nothing is inferred from an order or from the name of
a file, and what does not add up is refused with the file and the episode.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vlaser_gym.errors import StorageError
from vlaser_gym.evaluation.encoding import decode_image

VERSION = "v3.0"
VERSIONS = ("v2.0", "v2.1", VERSION)
CAMERA = "observation.images.main"
INFO_PATH, TASKS_PATH = "meta/info.json", "meta/tasks.parquet"
#: The same of version 2.
EPISODES_2_PATH, TASKS_2_PATH = "meta/episodes.jsonl", "meta/tasks.jsonl"
#: Largest relative difference between the images per second of a video and of its data set.
FPS_TOLERANCE = 0.01

Columns = dict[str, NDArray[Any]]
Episode = Mapping[str, Any]

_COUNTED = ("episode_index", "length", "dataset_from_index", "dataset_to_index", "data/chunk_index", "data/file_index")


@contextmanager
def damage_as_sentence(path: Path) -> Iterator[None]:
    """Inside, a data set is read whose names and kinds may be anything.

    Raises:
        StorageError: in place of what reading them raises.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, pa.ArrowException) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StorageError(
            f"The data set {path} is damaged: {said}; python -m vlaser_gym.verify {path} says more. Restore what is "
            "wrong, or use another data set."
        ) from error


def read_tasks(file: Path) -> dict[int, str]:
    """Instructions by ``task_index``, from a ``meta/tasks.parquet``: they are the index of a pandas table.

    Raises:
        StorageError: if the file is absent or damaged, or two instructions share a number.
    """
    table = read_table(file)
    # Pandas also names as an index what it makes up itself, and that is no text.
    described = json.loads((table.schema.metadata or {}).get(b"pandas", b"{}"))
    index = [name for name in described.get("index_columns", ()) if isinstance(name, str)]
    texts = [name for name in index if name in table.column_names] or [
        name for name in ("task", "__index_level_0__") if name in table.column_names
    ]
    if not texts or "task_index" not in table.column_names:
        raise StorageError(
            f"{file} should hold instructions as its pandas index and their numbers in task_index; it has the columns "
            f"{', '.join(table.column_names)}. Restore the file."
        )
    numbers = table["task_index"].to_pylist()
    repeated = [number for number in numbers if numbers.count(number) > 1]
    if repeated:
        raise StorageError(f"{file} gives the task_index {repeated[0]} to several instructions; restore the file.")
    return dict(zip(numbers, table[texts[0]].to_pylist(), strict=True))


def read_tasks_2(file: Path) -> dict[int, str]:
    """Instructions by ``task_index``, from a ``meta/tasks.jsonl`` of version 2.

    Raises:
        StorageError: if the file is absent or damaged, or two instructions share a number.
    """
    rows = read_json_lines(file)
    if any(not isinstance(row.get("task_index"), int) or not isinstance(row.get("task"), str) for row in rows):
        raise StorageError(f"{file} should hold a task_index and a task in every line; restore the file.")
    tasks = {row["task_index"]: row["task"] for row in rows}
    if len(tasks) < len(rows):
        raise StorageError(f"{file} gives a task_index to several instructions; restore the file.")
    return tasks


def read_json_lines(file: Path) -> list[dict[str, Any]]:
    """The objects in a text file, one a line.

    Raises:
        StorageError: if it is absent or damaged.
    """
    try:
        rows = [json.loads(line) for line in file.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise StorageError(f"Cannot read {file}: {str(error).splitlines()[0]}; restore the file.") from error
    if not all(isinstance(row, dict) for row in rows):
        raise StorageError(f"{file} should hold a JSON object in every line; restore the file.")
    return rows


def read_table(file: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """A parquet file, or some of its columns.

    Raises:
        StorageError: if it is absent or damaged, or lacks a column.
    """
    try:
        with pq.ParquetFile(file, page_checksum_verification=True) as parquet:
            missing = [name for name in columns or () if name not in parquet.schema_arrow.names]
            if missing:
                raise StorageError(f"{file} lacks the columns {', '.join(missing)}; restore the file.")
            return parquet.read(columns=None if columns is None else list(columns))
    except (OSError, pa.ArrowException) as error:
        raise StorageError(f"Cannot read {file}: {str(error).splitlines()[0]}; restore the file.") from error


def values_of(column: pa.ChunkedArray, shape: Sequence[int]) -> NDArray[Any] | None:
    """A column as ``[R, *shape]``, or ``[R]`` for the shape ``[1]``; ``None`` if it has gaps or another shape."""
    flat = column.combine_chunks()
    while pa.types.is_fixed_size_list(flat.type) or pa.types.is_list(flat.type):
        flat = flat.flatten()
    if flat.null_count or len(flat) != len(column) * int(np.prod(shape)):
        return None
    values = flat.to_numpy(zero_copy_only=False)
    return np.asarray(values.reshape(len(column), *([] if list(shape) == [1] else shape)))


class LeRobotReader:
    """A data set on disk.

    Args:
        path: its folder.
        groups: read only so many files of ``meta/episodes``; a data set may grow while it is read.
        camera: column of the images; ``None``: this gym's, or else the only column with images.

    Attributes:
        info: ``meta/info.json``.
        groups: files in ``meta/episodes``.
        episodes: rows of ``meta/episodes``, in order.

    Raises:
        StorageError: if there is no data set, or its episodes do not follow one another.
    """

    def __init__(self, path: str | Path, groups: int | None = None, camera: str | None = None) -> None:
        self.path, self._camera = Path(path), camera
        with damage_as_sentence(self.path):
            self._open(groups)

    def _open(self, groups: int | None) -> None:
        self.info = self._read_info()
        self.episodes: list[dict[str, Any]] = []
        if self.is_version_2:
            file, start = self.path / EPISODES_2_PATH, 0
            self.groups, self._is_whole = [file], True
            for row in read_json_lines(file):
                length = row.get("length")
                stop = start + (length if isinstance(length, int) else 0)
                bounds = {"dataset_from_index": start, "dataset_to_index": stop}
                self.episodes.append({**row, **bounds, "data/chunk_index": 0, "data/file_index": 0})
                start = stop
            self._lists = [file] * len(self.episodes)
        else:
            there = sorted(self.path.glob("meta/episodes/*/file-*.parquet"))
            self.groups = there[:groups]
            self._is_whole = len(self.groups) == len(there)
            listed = [(file, row) for file in self.groups for row in read_table(file).to_pylist()]
            self.episodes += [row for _, row in listed]
            self._lists = [file for file, _ in listed]
        self._check_episodes()

    @property
    def is_version_2(self) -> bool:
        """True for version 2 of the format, where each episode has files of its own."""
        return (self.path / EPISODES_2_PATH).is_file() and not (self.path / "meta/episodes").is_dir()

    def _read_info(self) -> dict[str, Any]:
        file = self.path / INFO_PATH
        if not file.is_file():
            raise StorageError(
                f"{self.path} should hold a LeRobot data set (meta/info.json); it does not. "
                "Write one with python -m vlaser_gym.collect."
            )
        try:
            info = json.loads(file.read_bytes())
        except ValueError:
            info = None
        if not isinstance(info, dict) or not isinstance(info.get("features"), dict):
            raise StorageError(f"{file} is damaged: expected a JSON object with features; restore the file.")
        if info.get("codebase_version") not in VERSIONS:
            found = repr(info.get("codebase_version"))[:30]
            raise StorageError(
                f"{self.path} has data set version {found}; {', '.join(VERSIONS)} are read: "
                "convert it with LeRobot's own scripts (python -m lerobot.datasets.v30.convert_dataset_v21_to_v30)."
            )
        return info

    def _check_episodes(self) -> None:
        """Raise :class:`StorageError` unless the episodes' rows follow one another from 0 on."""
        start = 0
        for number, (file, row) in enumerate(zip(self._lists, self.episodes, strict=True)):
            missing = [name for name in _COUNTED if not isinstance(row.get(name), int)]
            if missing:
                raise StorageError(f"{file} lacks {', '.join(missing)} of episode {number}; restore the file.")
            expected = (number, start, start + row["length"])
            found = (row["episode_index"], row["dataset_from_index"], row["dataset_to_index"])
            if found != expected:
                raise StorageError(
                    f"{file} should list episode {expected[0]} with the rows {expected[1]} to {expected[2]} here, as "
                    f"its length is {row['length']}; it lists episode {found[0]} with {found[1]} to {found[2]}."
                )
            start = expected[2]
        total = self.info.get("total_episodes", 0)
        if self._is_whole and len(self.episodes) < total:
            raise StorageError(
                f"{self.path / INFO_PATH} counts {total} episodes; meta/episodes lists {len(self.episodes)}: a file is "
                "missing there, restore it."
            )

    # ------------------------------------------------------------------ what there is

    @property
    def features(self) -> dict[str, Any]:
        """The columns as ``meta/info.json`` describes them."""
        return dict(self.info["features"])

    @property
    def total_frames(self) -> int:
        """Rows of all episodes."""
        return int(self.episodes[-1]["dataset_to_index"]) if self.episodes else 0

    @property
    def cameras(self) -> list[str]:
        """The columns with images."""
        return [name for name, feature in self.features.items() if feature.get("dtype") in ("image", "video")]

    @property
    def camera(self) -> str:
        """The column whose images are read.

        Raises:
            StorageError: if there are several and none was chosen.
        """
        if self._camera is not None:
            return self._camera
        if CAMERA in self.features or not self.cameras:
            return CAMERA
        if len(self.cameras) > 1:
            raise StorageError(
                f"The data set {self.path} has images of {', '.join(self.cameras)}, and none of {CAMERA}: say which "
                "by columns.camera=."
            )
        return self.cameras[0]

    @property
    def is_video(self) -> bool:
        """True if the images are stored in video files."""
        return bool(self.features[self.camera]["dtype"] == "video")

    @property
    def is_of_this_gym(self) -> bool:
        """True if this gym recorded the set, so that its actions are this gym's commands."""
        return "privileged.decision" in self.features or "vlaser_gym" in self.info

    def require(self, *names: str) -> None:
        """Check that columns are present.

        Raises:
            StorageError: with those that are missing and those that are there.
        """
        missing = [name for name in names if name not in self.features]
        if missing:
            raise StorageError(
                f"The data set {self.path} lacks the columns {', '.join(missing)}; it has {', '.join(self.features)}. "
                "Say what they are called by columns.camera=, columns.state=, columns.action=."
            )

    def place(self, row: int) -> str:
        """The location of a row: its file, episode and step."""
        starts = [episode["dataset_from_index"] for episode in self.episodes]
        episode = self.episodes[int(np.searchsorted(starts, row, side="right")) - 1]
        return (
            f"{self._data_file(episode)}, row {row} (episode {episode['episode_index']}, "
            f"frame {row - episode['dataset_from_index']})"
        )

    def _data_file(self, episode: Episode) -> Path:
        place = {key: episode[f"data/{key}"] for key in ("chunk_index", "file_index")}
        return self.path / str(self.info["data_path"]).format(**place, **self._place_2(episode))

    def _place_2(self, episode: Episode) -> dict[str, int]:
        """The files of an episode in version 2."""
        number = int(episode["episode_index"])
        return {"episode_index": number, "episode_chunk": number // int(self.info.get("chunks_size") or 1000)}

    def _video_file(self, episode: Episode) -> Path:
        if self.is_version_2:
            return self.path / str(self.info["video_path"]).format(video_key=self.camera, **self._place_2(episode))
        place = {key: episode[f"videos/{self.camera}/{key}"] for key in ("chunk_index", "file_index")}
        return self.path / str(self.info["video_path"]).format(video_key=self.camera, **place)

    def _list_of(self, episode: Episode) -> Path:
        return self._lists[episode["episode_index"]]

    def picture_files(self) -> list[Path]:
        """The files that hold the images, each once."""
        self._check_camera()
        file_of = self._video_file if self.is_video else self._data_file
        return list(dict.fromkeys(file_of(episode) for episode in self.episodes))

    # ------------------------------------------------------------------ rows

    def columns(self, names: Sequence[str]) -> Columns:
        """Whole columns, ``[total_frames, ...]``.

        Raises:
            StorageError: if a column is missing, has gaps, or rows are not where ``meta/episodes`` says.
        """
        self.require(*names)
        parts: dict[str, list[NDArray[Any]]] = {name: [] for name in names}
        for file, episodes in self._by_data_file():
            table = self._rows(file, episodes, names)
            for name in names:
                parts[name].append(self._values(file, table, name))
        return {name: np.concatenate(arrays) for name, arrays in parts.items()}

    def _values(self, file: Path, table: pa.Table, name: str) -> NDArray[Any]:
        shape = self.features[name]["shape"]
        values = values_of(table[name], shape)
        if values is None:
            raise StorageError(
                f"{file}: each row of the column {name} should hold numbers of shape {list(shape)}, as meta/info.json "
                "says; some hold none, fewer or more. Restore the file."
            )
        return values

    def _by_data_file(self) -> Iterator[tuple[Path, list[dict[str, Any]]]]:
        for file, episodes in groupby(self.episodes, self._data_file):
            yield file, list(episodes)

    def _rows(self, file: Path, episodes: Sequence[Episode], names: Sequence[str]) -> pa.Table:
        """The rows of some episodes, from the file that ``meta/episodes`` names, as it counts them."""
        first, last = episodes[0], episodes[-1]
        if not file.is_file():
            raise StorageError(
                f"{self._list_of(first)} says that the rows of episode {first['episode_index']} are in {file}, which "
                "is not there; restore it."
            )
        table = read_table(file, [*names, "episode_index", "index"])
        numbers, index = (self._values(file, table, name) for name in ("episode_index", "index"))
        wanted = np.repeat([e["episode_index"] for e in episodes], [e["length"] for e in episodes])
        mine = np.isin(numbers, wanted)
        expected = np.arange(first["dataset_from_index"], last["dataset_to_index"])
        if not (np.array_equal(numbers[mine], wanted) and np.array_equal(index[mine], expected)):
            self._explain_rows(file, episodes, numbers, index)
        self._check_strangers(file, numbers[~mine])
        return table.filter(pa.array(mine))

    def _explain_rows(
        self, file: Path, episodes: Sequence[Episode], numbers: NDArray[np.int64], index: NDArray[np.int64]
    ) -> None:
        """Raise :class:`StorageError` with the first episode whose rows are not as ``meta/episodes`` says."""
        for episode in episodes:
            number, start = episode["episode_index"], episode["dataset_from_index"]
            found = index[numbers == number]
            if len(found) != episode["length"]:
                raise StorageError(
                    f"{file} holds {len(found)} rows of episode {number}; {self._list_of(episode)} counts "
                    f"{episode['length']}. Restore the file that is wrong."
                )
            if not np.array_equal(found, np.arange(start, start + len(found))):
                raise StorageError(
                    f"{file} numbers the rows of episode {number} {found.min()} to {found.max()} (column index), or in "
                    f"another order; {self._list_of(episode)} says {start} to {start + len(found) - 1}."
                )
        raise StorageError(f"{file} holds the rows of its episodes in another order than {self._list_of(episodes[0])}.")

    def _check_strangers(self, file: Path, numbers: NDArray[np.int64]) -> None:
        """Raise :class:`StorageError` for rows of episodes that ``meta/episodes`` does not place in this file."""
        for number in np.unique(numbers):
            if number < len(self.episodes) and self._data_file(self.episodes[number]) == file:
                continue
            if number < len(self.episodes) or self._is_whole:
                raise StorageError(
                    f"{file} holds {(numbers == number).sum()} rows of episode {number}, which meta/episodes does not "
                    "place there; restore the file that is wrong."
                )

    # ------------------------------------------------------------------ instructions

    def instructions(self, column: str = "task_index") -> list[str]:
        """The instruction of each row, ``total_frames`` texts.

        Args:
            column: holds the texts, or their numbers in ``meta/tasks``.

        Raises:
            StorageError: if a row's number is not in the table, or ``meta/episodes`` says another instruction.
        """
        numbers = self.columns([column])[column]
        if numbers.dtype.kind not in "iu":
            return [str(text) for text in numbers]
        tasks = self._tasks()
        told: list[str] = []
        for episode in self.episodes:
            mine = [int(n) for n in numbers[episode["dataset_from_index"] : episode["dataset_to_index"]]]
            unknown = [number for number in mine if number not in tasks]
            if unknown:
                raise StorageError(
                    f"{self._data_file(episode)}: rows of episode {episode['episode_index']} have the task_index "
                    f"{unknown[0]}, which is none of the {len(tasks)} in {self.path / TASKS_PATH}; restore one of both."
                )
            told += [tasks[number] for number in mine]
            here = {tasks[number] for number in mine}
            if column == "task_index" and set(episode.get("tasks") or here) != here:
                raise StorageError(
                    f"The rows of episode {episode['episode_index']} are told {_quoted(here)} by "
                    f"{self.path / TASKS_PATH}, but {self._list_of(episode)} lists {_quoted(set(episode['tasks']))}; "
                    "restore the file that is wrong."
                )
        return told

    def _tasks(self) -> dict[int, str]:
        if (self.path / TASKS_2_PATH).is_file() and not (self.path / TASKS_PATH).is_file():
            return read_tasks_2(self.path / TASKS_2_PATH)
        tasks = read_tasks(self.path / TASKS_PATH)
        if "vlaser_gym" in self.info:
            # This gym used to number instructions by their first use and to write the table last: it may be behind.
            first_used = dict.fromkeys(text for row in self.episodes for text in row["tasks"])
            tasks = dict(enumerate(first_used)) | tasks
        return tasks

    # ------------------------------------------------------------------ images

    def frames(self, chosen: NDArray[np.bool_] | None = None) -> Iterator[NDArray[np.uint8]]:
        """Images in order, an array ``[R, h, w, 3]`` per episode.

        Args:
            chosen: which rows, ``[total_frames]``; ``None``: all.

        Raises:
            StorageError: if an image cannot be decoded, or a video has not the images that ``meta/episodes`` says.
        """
        self._check_camera()
        chosen = np.ones(self.total_frames, bool) if chosen is None else chosen
        if not self.is_video:
            yield from self._from_rows(chosen)
            return
        for file, episodes in groupby(self.episodes, self._video_file):
            yield from self._from_video(file, list(episodes), chosen)

    def _check_camera(self) -> None:
        self.require(self.camera)
        if self.is_version_2:
            return
        keys = ("chunk_index", "file_index", "from_timestamp", "to_timestamp")
        names = [f"videos/{self.camera}/{name}" for name in keys]
        for episode in self.episodes if self.is_video else ():
            missing = [name for name in names if episode.get(name) is None]
            if missing:
                raise StorageError(
                    f"{self._list_of(episode)} lacks {', '.join(missing)} of episode {episode['episode_index']}; "
                    "restore the file."
                )

    def _from_rows(self, chosen: NDArray[np.bool_]) -> Iterator[NDArray[np.uint8]]:
        for file, episodes in self._by_data_file():
            pictures = self._rows(file, episodes, [self.camera])[self.camera]
            first = episodes[0]["dataset_from_index"]
            for episode in episodes:
                rows = np.arange(episode["dataset_from_index"], episode["dataset_to_index"])
                rows = rows[chosen[rows]]
                if len(rows):
                    yield np.stack([self._decoded(pictures[int(row - first)].as_py(), int(row)) for row in rows])

    def _decoded(self, picture: Mapping[str, Any] | None, row: int) -> NDArray[np.uint8]:
        image = decode_image((picture or {}).get("bytes") or b"")
        if image is None:
            raise StorageError(
                f"{self.place(row)}: {self.camera} holds no image that can be decoded; restore the file."
            )
        return image

    def _from_video(
        self, file: Path, episodes: Sequence[Episode], chosen: NDArray[np.bool_]
    ) -> Iterator[NDArray[np.uint8]]:
        """The chosen images of one video; all of it is decoded, so that its images are counted."""
        spans = [self._span(file, episode) for episode in episodes]
        for episode, (start, _), (_, before) in zip(episodes[1:], spans[1:], spans, strict=False):
            if start < before:
                raise StorageError(
                    f"{self._list_of(episode)} says that episode {episode['episode_index']} begins at image {start} "
                    f"of {file}, before the episode ahead of it ends ({before})."
                )
        fps, video = open_video(file)
        count = 0
        for episode, (start, stop) in zip(episodes, spans, strict=True):
            kept = []
            wanted = chosen[episode["dataset_from_index"] : episode["dataset_to_index"]]
            while count < stop and (picture := next(video, None)) is not None:
                if count >= start and wanted[count - start]:
                    kept.append(picture)
                count += 1
            if count < stop:
                self._refuse_count(file, episode, count, stop)
            if kept:
                yield np.stack(kept)
        count += sum(1 for _ in video)
        if count > spans[-1][1] and self._is_whole:
            self._refuse_count(file, episodes[-1], count, spans[-1][1])
        if abs(fps - self.info["fps"]) > FPS_TOLERANCE * self.info["fps"]:
            raise StorageError(
                f"{file} has {fps:g} images per second; {self.path / INFO_PATH} says {self.info['fps']:g}. Restore "
                "the file that is wrong."
            )

    def _span(self, file: Path, episode: Episode) -> tuple[int, int]:
        """The first image of an episode in its video and the one behind its last."""
        if self.is_version_2:
            return 0, int(episode["length"])
        begin, end = (episode[f"videos/{self.camera}/{name}_timestamp"] for name in ("from", "to"))
        start, stop = (round(float(time) * float(self.info["fps"])) for time in (begin, end))
        if stop - start != episode["length"]:
            raise StorageError(
                f"{self._list_of(episode)} gives episode {episode['episode_index']} {stop - start} images of {file} "
                f"({begin:g} to {end:g} s at {self.info['fps']} per second), but {episode['length']} rows."
            )
        return start, stop

    def _refuse_count(self, file: Path, episode: Episode, found: int, expected: int) -> None:
        raise StorageError(
            f"{file} holds {found} images; by {self._list_of(episode)} episode {episode['episode_index']} ends there "
            f"with image {expected}{', the last one' if found > expected else ''}. Restore the video, or record it "
            "again."
        )


def open_video(file: Path) -> tuple[float, Iterator[NDArray[np.uint8]]]:
    """A video: its images per second, and its images ``[h, w, 3]``, every stored one once.

    Raises:
        StorageError: if it is absent or, now or later, cannot be decoded.
    """
    if not file.is_file():
        raise StorageError(f"The video {file}, which meta/episodes names, is not there; restore it.")
    # Without this ffmpeg would repeat and leave out images to even out their times.
    reader = imageio_ffmpeg.read_frames(str(file), output_params=["-fps_mode", "passthrough"])
    with _decoding(file):
        meta = next(reader)
    return float(meta["fps"]), _pictures(file, reader, meta["size"])


def _pictures(file: Path, reader: Generator[Any], size: tuple[int, int]) -> Iterator[NDArray[np.uint8]]:
    with closing(reader), _decoding(file):
        for data in reader:
            yield np.frombuffer(data, np.uint8).reshape(size[1], size[0], 3)


@contextmanager
def _decoding(file: Path) -> Iterator[None]:
    """Turn what the decoder says into one sentence."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        last = str(error).strip().splitlines()[-1]
        raise StorageError(f"Cannot decode the video {file}: {last}; restore it.") from error


def _quoted(texts: set[str]) -> str:
    return ", ".join(repr(text) for text in sorted(texts))
