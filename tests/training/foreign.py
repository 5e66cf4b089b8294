"""Small data sets as other projects lay them out, written here with nothing of the package: LeRobot v2.1 and v3.0."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

TEXTS = ("put carrot on plate", "put the spoon on the towel")
BRIDGE_STATE = ["x", "y", "z", "roll", "pitch", "yaw", "pad", "gripper"]
FRACTAL_STATE = ["x", "y", "z", "rx", "ry", "rz", "rw", "gripper"]
ACTION = ["x", "y", "z", "roll", "pitch", "yaw", "gripper"]


def numbers(length: int, state: list[str], seed: int = 0) -> dict[str, np.ndarray]:
    """State and action of an episode: poses within reach, quaternions of unit length, the gripper 0 or 1."""
    rng = np.random.default_rng(seed)
    states = rng.uniform(-0.3, 0.3, (length, len(state)))
    if "rw" in state:
        states[:, 3:7] /= np.linalg.norm(states[:, 3:7], axis=1, keepdims=True)
    if "pad" in state:
        states[:, state.index("pad")] = 0
    states[:, -1] = rng.uniform(0, 1, length)
    actions = rng.normal(0, 0.02, (length, 7))
    actions[:, 6] = rng.integers(0, 2, length)
    return {"observation.state": states.astype("f4"), "action": actions.astype("f4")}


def write(
    path: Path,
    episodes: list[dict[str, np.ndarray]],
    *,
    version: int = 3,
    camera: str = "observation.images.image_0",
    robot: str | None = "widowx",
    fps: float = 5,
    video: bool = False,
    names: dict[str, list[str]] | None = None,
    size: tuple[int, int] = (24, 32),
) -> Path:
    """A data set; of an episode's images each has one brightness, ten times its row plus its episode."""
    files, rows, start = {}, [], 0
    for number, columns in enumerate(episodes):
        length = len(columns["action"])
        pictures = [np.full((*size, 3), (10 * i + number) % 250, np.uint8) for i in range(length)]
        table: dict[str, Any] = {name: values.tolist() for name, values in columns.items()}
        table |= {
            "timestamp": (np.arange(length) / fps).tolist(), "frame_index": list(range(length)),
            "episode_index": [number] * length, "index": list(range(start, start + length)),
            "task_index": [number % len(TEXTS)] * length,
        }  # fmt: skip
        if not video:
            table[camera] = [{"bytes": _png(picture), "path": None} for picture in pictures]
        files[number] = (table, pictures)
        rows.append({"episode_index": number, "length": length, "tasks": [TEXTS[number % len(TEXTS)]]})
        start += length
    (path / "meta").mkdir(parents=True)
    paths = (_write_2 if version == 2 else _write_3)(path, files, rows, camera, fps, video)
    shapes = {name: list(values.shape[1:]) or [1] for name, values in episodes[0].items()}
    features: dict[str, Any] = {
        name: {"dtype": "float32", "shape": shape, "names": {"motors": (names or {}).get(name)}}
        for name, shape in shapes.items()
    }
    for name in ("timestamp", "frame_index", "episode_index", "index", "task_index"):
        features[name] = {"dtype": "int64", "shape": [1], "names": None}
    features[camera] = {"dtype": "video" if video else "image", "shape": [*size, 3], "names": None}
    info = {
        "codebase_version": "v2.1" if version == 2 else "v3.0", "robot_type": robot, "fps": fps,
        "total_episodes": len(episodes), "total_frames": start, "chunks_size": 1000, "features": features, **paths,
    }  # fmt: skip
    (path / "meta/info.json").write_text(json.dumps(info))
    return path


def _write_2(path: Path, files: dict, rows: list, camera: str, fps: float, video: bool) -> dict[str, str]:
    for number, (table, pictures) in files.items():
        (path / "data/chunk-000").mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(table), path / f"data/chunk-000/episode_{number:06d}.parquet")
        if video:
            file = path / f"videos/chunk-000/{camera}/episode_{number:06d}.mp4"
            file.parent.mkdir(parents=True, exist_ok=True)
            imageio.mimwrite(file, pictures, fps=fps, quality=9, macro_block_size=2)
    lines = "\n".join(json.dumps(row) for row in rows)
    (path / "meta/episodes.jsonl").write_text(lines + "\n")
    tasks = "\n".join(json.dumps({"task_index": i, "task": text}) for i, text in enumerate(TEXTS))
    (path / "meta/tasks.jsonl").write_text(tasks + "\n")
    return {
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    }


def _write_3(path: Path, files: dict, rows: list, camera: str, fps: float, video: bool) -> dict[str, str]:
    tables = [table for table, _ in files.values()]
    merged = {name: [value for table in tables for value in table[name]] for name in tables[0]}
    start = 0
    for row in rows:
        place = {"chunk_index": 0, "file_index": 0}
        row |= {"dataset_from_index": start, "dataset_to_index": start + row["length"]}
        row |= {f"data/{key}": value for key, value in place.items()}
        if video:
            row |= {f"videos/{camera}/{key}": value for key, value in place.items()}
            row |= {f"videos/{camera}/from_timestamp": start / fps}
            row |= {f"videos/{camera}/to_timestamp": (start + row["length"]) / fps}
        start += row["length"]
    for folder in ("data/chunk-000", "meta/episodes/chunk-000", f"videos/{camera}/chunk-000"):
        (path / folder).mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(merged), path / "data/chunk-000/file-000.parquet")
    pq.write_table(pa.Table.from_pylist(rows), path / "meta/episodes/chunk-000/file-000.parquet")
    if video:
        every = [picture for _, pictures in files.values() for picture in pictures]
        file = path / f"videos/{camera}/chunk-000/file-000.mp4"
        imageio.mimwrite(file, every, fps=fps, quality=9, macro_block_size=2)
    described = {"index_columns": ["task"], "columns": [], "column_indexes": []}
    table = pa.table({"task_index": list(range(len(TEXTS))), "task": list(TEXTS)})
    pq.write_table(table.replace_schema_metadata({"pandas": json.dumps(described)}), path / "meta/tasks.parquet")
    return {
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    }


def bridge(path: Path, episodes: int = 2, length: int = 6, pad: bool = True, **options: Any) -> Path:
    """A set with the names of BridgeData V2 in LeRobot's format."""
    state = BRIDGE_STATE if pad else [name for name in BRIDGE_STATE if name != "pad"]
    made = [numbers(length + n, state, n) for n in range(episodes)]
    return write(path, made, names={"observation.state": state, "action": ACTION}, **options)


def fractal(path: Path, episodes: int = 2, length: int = 6, **options: Any) -> Path:
    """A set with the names of Fractal in LeRobot's format."""
    made = [numbers(length + n, FRACTAL_STATE, n) for n in range(episodes)]
    names = {"observation.state": FRACTAL_STATE, "action": ACTION}
    options = {"camera": "observation.images.image", "robot": "google_robot", "fps": 3, **options}
    return write(path, made, names=names, **options)


def _png(picture: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()
