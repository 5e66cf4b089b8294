"""Small demonstrations without a simulator, and a policy of a few thousand parameters."""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from vlaser_gym.agents.vlaser.config import VlaserConfig
from vlaser_gym.envs.address import Address
from vlaser_gym.evaluation.lerobot import LeRobotWriter
from vlaser_gym.evaluation.recording import RecordedEpisode

SIZE = 24
CAMERA = "observation.images.main"
TINY = {
    "image_size": SIZE,
    "patch_size": 6,
    "vision_width": 16,
    "vision_layers": 1,
    "vision_heads": 2,
    "vision_mlp": 32,
    "width": 16,
    "layers": 2,
    "heads": 2,
    "kv_heads": 1,
    "head_dim": 8,
    "mlp_width": 32,
    "expert_width": 16,
    "expert_mlp": 32,
    "max_length": 48,
}


def tiny_config(**changes) -> VlaserConfig:
    return VlaserConfig.preset("nano", **{**TINY, **changes})


def fake_episode(
    number: int, rows: int = 5, every: int = 1, task: str = "widowx_stack_cube", stages: int = 1
) -> RecordedEpisode:
    """Random numbers with the shapes of a recording; quaternions are unit, the gripper is +1 or -1.

    The instruction changes in the middle where there are two stages.
    """
    rng = np.random.default_rng(number)
    quaternion = rng.normal(size=(rows, 4))
    quaternion /= np.linalg.norm(quaternion, axis=1, keepdims=True)
    proprio = np.concatenate([rng.normal(size=(rows, 3)), quaternion, rng.random((rows, 1))], 1)
    state = rng.normal(size=(rows, 26))
    state[:, 11:15] = state[:, 18:22] = quaternion
    action = rng.normal(0, 0.02, (rows, 7))
    action[:, 6] = np.sign(rng.normal(size=rows))
    return RecordedEpisode(
        address=Address(task, layout=f"region:{1_000_000 + number}"),
        instructions=tuple(
            ["stack the cubes", "put it there"][(number + row * stages // rows) % 2] for row in range(rows)
        ),
        success=True,
        frames=rng.integers(0, 256, (rows, SIZE, SIZE, 3), np.uint8),
        columns={
            "proprio": proprio.astype(np.float32),
            "state": state.astype(np.float32),
            "action": action + 0.001,
            "label": action,
            "decision": np.arange(rows) % every == 0,
            "reward": np.zeros(rows, np.float32),
            "done": np.arange(rows) == rows - 1,
            "flag/success": np.arange(rows) >= rows - 2,
        },
    )


def write_set(
    path: Path, episodes: int = 6, *, rows: int = 5, every: int = 1, group: int = 4, images: str = "png"
) -> Path:
    with LeRobotWriter(path, fps=5, robot="widowx", images=images, group=group) as writer:
        for number in range(episodes):
            writer.add(fake_episode(number, rows + number % 2, every))
    return path


def write_old_set(path: Path, episodes: list[RecordedEpisode], every: int, images: str = "png") -> Path:
    """A data set as this gym wrote it at first: a row per decision with a block of actions, instructions by first use.

    Written here with nothing of the package, so that data sets on people's disks stay readable.
    """
    for folder in ("data/chunk-000", "meta/episodes/chunk-000", f"videos/{CAMERA}/chunk-000"):
        (path / folder).mkdir(parents=True, exist_ok=True)
    texts = list(dict.fromkeys(text for episode in episodes for text in episode.instructions[::every]))
    columns: dict[str, list] = {}
    listed, frames, start = [], [], 0
    for number, episode in enumerate(episodes):
        rows = range(0, len(episode), every)
        told = [episode.instructions[row] for row in rows]
        place = {"chunk_index": 0, "file_index": 0}
        listed.append(
            {
                "episode_index": number, "tasks": list(dict.fromkeys(told)), "length": len(rows),
                "dataset_from_index": start, "dataset_to_index": start + len(rows),
                **{f"{kind}/{key}": value for kind in ("data", f"videos/{CAMERA}") for key, value in place.items()},
                **{f"address/{key}": value for key, value in asdict(episode.address).items()},
                f"videos/{CAMERA}/from_timestamp": start * every / 5,
                f"videos/{CAMERA}/to_timestamp": (start + len(rows)) * every / 5,
            }
        )  # fmt: skip
        for t, row in enumerate(rows):
            block = [min(row + k, len(episode) - 1) for k in range(every)]
            for name, value in {
                "observation.state": episode.columns["proprio"][row].tolist(),
                "observation.environment_state": episode.columns["state"][row].tolist(),
                "action": _block(episode.columns["action"], block),
                "action.intended": _block(episode.columns["label"], block),
                "steps": min(every, len(episode) - row),
                "timestamp": t * every / 5, "frame_index": t, "episode_index": number, "index": start + t,
                "task_index": texts.index(told[t]),
            }.items():  # fmt: skip
                columns.setdefault(name, []).append(value)
        frames += [episode.frames[row] for row in rows]
        start += len(rows)
    if images == "png":
        columns[CAMERA] = [{"bytes": _png(frame), "path": None} for frame in frames]
    else:
        video = path / f"videos/{CAMERA}/chunk-000/file-000.mp4"
        imageio.mimwrite(video, frames, fps=5 / every, quality=8, macro_block_size=2)
    pq.write_table(pa.table(columns), path / "data/chunk-000/file-000.parquet")
    pq.write_table(pa.Table.from_pylist(listed), path / "meta/episodes/chunk-000/file-000.parquet")
    write_tasks(path, texts)
    block = [every, 7] if every > 1 else [7]
    shapes = {
        "observation.state": [8],
        "observation.environment_state": [26],
        "action": block,
        "action.intended": block,
    }
    features = {name: {"dtype": "float32", "shape": shapes.get(name, [1]), "names": None} for name in columns}
    features[CAMERA] = {"dtype": "image" if images == "png" else "video", "shape": [SIZE, SIZE, 3], "names": None}
    info = {
        "codebase_version": "v3.0", "robot_type": "widowx", "total_episodes": len(episodes), "total_frames": start,
        "fps": 5 / every, "features": features, "vlaser_gym": {"every": every},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    }  # fmt: skip
    (path / "meta/info.json").write_text(json.dumps(info))
    return path


def write_tasks(path: Path, texts: list[str], numbers: list[int] | None = None) -> None:
    """``meta/tasks.parquet`` as pandas writes it with the instructions as its index."""
    described = {"index_columns": ["task"], "columns": [], "column_indexes": []}
    table = pa.table({"task_index": numbers or list(range(len(texts))), "task": texts})
    pq.write_table(table.replace_schema_metadata({"pandas": json.dumps(described)}), path / "meta/tasks.parquet")


def _block(actions: np.ndarray, rows: list[int]) -> list:
    return actions[rows].tolist() if len(rows) > 1 else actions[rows[0]].tolist()


def _png(frame: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "PNG")
    return file.getvalue()
