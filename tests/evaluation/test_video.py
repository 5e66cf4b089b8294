from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import imageio_ffmpeg
import numpy as np
import pytest
from test_evaluator import score

from vlaser_gym.errors import RenderingUnavailableError, StorageError, UnknownNameError
from vlaser_gym.evaluation import video
from vlaser_gym.evaluation.store import Record, read_records, read_states
from vlaser_gym.evaluation.video import choose_examples, draw_caption, render_videos, select_episodes

CAPTION: dict[str, Any] = {
    "instruction": "put carrot on plate",
    "where": "widowx_carrot_on_plate   grid:3   trial 0",
    "step": "step 12/60",
    "flags": {"success": False, "moved_correct_obj": True},
    "note": "",
}


class FakeRenderer:
    """Paints the first joint position as a grey level, so that frames can be told apart in the video."""

    made: list[str]
    cameras: ClassVar[set[str]] = set()

    def __init__(self, look: str, batch: int, processes: int | None, assets: str | None = None) -> None:
        self.batch = batch
        FakeRenderer.made.append(look)

    def frames(self, task: str, variant: str, states: Sequence[Any], camera: str) -> np.ndarray:
        FakeRenderer.cameras.add(camera)
        assert len(states) <= self.batch
        assert all(set(state) >= {"qpos"} and state["qpos"].shape == (8,) for state in states)
        return np.stack([np.full((480, 640, 3), self.grey(state["qpos"][0]), np.uint8) for state in states])

    @staticmethod
    def grey(x: float) -> int:
        return int(np.clip(40 + 1500 * x, 0, 250))

    def close(self) -> None:
        FakeRenderer.made.append("closed")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "scored"
    score(path, "engine.crash_on=[widowx_stack_cube/default/grid:1/0]")
    return path


@pytest.fixture(autouse=True)
def fake_renderer(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeRenderer.made, FakeRenderer.cameras = [], set()
    monkeypatch.setattr(video, "SceneRenderer", FakeRenderer)


def read_video(path: Path) -> tuple[dict[str, Any], np.ndarray]:
    frames = imageio_ffmpeg.read_frames(str(path))
    meta = next(frames)
    width, height = meta["size"]
    return meta, np.stack([np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in frames])


def test_a_video_shows_every_step_in_the_format_that_browsers_play(run: Path, tmp_path: Path) -> None:
    record = read_records(run)[0]
    (path,) = render_videos(run, [record], tmp_path / "videos", fps=5)
    meta, frames = read_video(path)
    assert meta["codec"] == "h264"
    assert meta["pix_fmt"].startswith("yuv420p")
    assert (meta["fps"], meta["size"]) == (5, (640, 576))
    qpos = read_states(run, record)["qpos"]
    assert len(frames) == len(qpos) == record["steps"] + 1
    shown = frames[:, 100:300, 100:300].mean((1, 2, 3))
    np.testing.assert_allclose(shown, [FakeRenderer.grey(q[0]) for q in qpos], atol=6)
    assert path.name.startswith("widowx_carrot_on_plate.default.grid-0000.trial-0.")
    assert [entry.name for entry in path.parent.iterdir()] == [path.name], "no partial file is left"
    assert FakeRenderer.made == ["builtin", "closed"]


def test_a_video_of_another_camera_stands_beside_the_policy_s(run: Path, tmp_path: Path) -> None:
    record = read_records(run)[0]
    (first,) = render_videos(run, [record], tmp_path)
    (second,) = render_videos(run, [record], tmp_path, camera="wrist")
    assert second.name == first.name.removesuffix(".mp4") + ".wrist.mp4"
    assert first.exists()
    assert FakeRenderer.cameras == {"policy", "wrist"}
    with pytest.raises(UnknownNameError, match=r"Unknown camera 'wirst'.*nearest: wrist"):
        list(render_videos(run, [record], tmp_path, camera="wirst"))


@pytest.mark.parametrize(("task", "hertz"), [("widowx_carrot_on_plate", 5), ("google_robot_move_near", 3)])
def test_a_video_plays_as_fast_as_the_robot_moved(task: str, hertz: int, tmp_path: Path) -> None:
    score(tmp_path / "run", f"task={task}", "episodes=1", "trials=1")
    (path,) = render_videos(tmp_path / "run", read_records(tmp_path / "run"), tmp_path / "videos")
    assert read_video(path)[0]["fps"] == hertz


def test_the_caption_is_below_and_leaves_the_picture_alone() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    drawn = draw_caption(picture, CAPTION)
    assert drawn.shape == (576, 640, 3)
    np.testing.assert_array_equal(drawn[:480], picture)


@pytest.mark.parametrize(
    "change",
    [
        {"instruction": "stack the green block"},
        {"step": "step 13/60"},
        {"flags": {"success": True, "moved_correct_obj": True}},
    ],
)
def test_everything_the_caption_says_is_seen(change: dict[str, Any]) -> None:
    picture = np.zeros((480, 640, 3), np.uint8)
    different = (draw_caption(picture, CAPTION) != draw_caption(picture, CAPTION | change)).any(-1)
    assert different.sum() > 50


def test_a_note_has_a_line_of_its_own() -> None:
    """Beside the longest address it used to be printed over it."""
    where = "google_robot_place_apple_in_closed_top_drawer   region:123   trial 10   vlaser_nano"
    plain = draw_caption(np.zeros((480, 640, 3), np.uint8), CAPTION | {"where": where, "note": ""})
    note = "shown: mujoco, original; simulated: maniskill, original"
    noted = draw_caption(np.zeros((480, 640, 3), np.uint8), CAPTION | {"where": where, "note": note})
    assert noted.shape == (592, 640, 3)
    np.testing.assert_array_equal(noted[:530], plain[:530])
    np.testing.assert_array_equal(noted[551:], plain[535:])
    red, _, blue = noted[531:548].reshape(-1, 3).astype(int).T
    assert (red - blue > 60).sum() > 200


def test_many_flags_take_a_second_line_and_stay_inside() -> None:
    flags = dict.fromkeys([f"a_rather_long_flag_{i}" for i in range(7)], True)
    drawn = draw_caption(np.zeros((480, 640, 3), np.uint8), CAPTION | {"flags": flags})
    background = drawn[-1, 0]
    inked = (np.abs(drawn[480:].astype(int) - background) > 40).any(-1)
    assert inked[55:72].any()
    assert inked[73:91].any(), "the second line"
    assert not inked[:, 634:].any()
    assert not inked[93:].any()


def test_flags_are_those_after_the_step(run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []
    real = draw_caption
    monkeypatch.setattr(video, "draw_caption", lambda p, caption: (seen.append(caption), real(p, caption))[1])
    record = next(r for r in read_records(run) if r["first_success_step"])
    list(render_videos(run, [record], tmp_path))
    first = record["first_success_step"]
    assert [c["flags"]["success"] for c in seen[: first + 1]] == [False] * first + [True]
    assert seen[first]["step"] == f"step {first}/10"  # what the fake environment allows
    assert seen[0]["instruction"] == record["instruction"]


def test_a_picture_that_is_not_what_was_simulated_says_so(
    run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    notes: set[str] = set()
    real = draw_caption
    monkeypatch.setattr(video, "draw_caption", lambda p, caption: (notes.add(caption["note"]), real(p, caption))[1])
    record = read_records(run)[0]
    list(render_videos(run, [record], tmp_path))
    assert notes == {""}
    foreign = record | {"engine": "maniskill", "look": "overlay"}
    list(render_videos(run, [foreign], tmp_path))
    assert notes == {"", "shown: mujoco, builtin; simulated: maniskill, overlay"}


def test_examples_show_a_success_and_a_failure(run: Path) -> None:
    records = read_records(run)
    tasks = list(dict.fromkeys(r["task"] for r in records))
    one, two, many = (choose_examples(records, n) for n in (1, 2, 100))
    assert [(r["task"], r["layout"], r["trial"]) for r in one] == [(task, "grid:0", 0) for task in tasks]
    assert [(r["task"], r["success"]) for r in two] == [(task, outcome) for task in tasks for outcome in (True, False)]
    assert len(many) == len({r["states"] for r in many}) == sum(r["states"] is not None for r in records) == 23
    assert choose_examples(records, 0) == []


def selected(run: Path, *words: str) -> list[Record]:
    return select_episodes(run, words)


def test_episodes_are_chosen_by_outcome_or_address(run: Path) -> None:
    records = [r for r in read_records(run) if r["states"]]
    assert selected(run, "all") == records
    assert selected(run, "failures") == [r for r in records if not r["success"]]
    assert selected(run, "successes") == [r for r in records if r["success"]]
    cubes = "widowx_stack_cube"
    assert [r["trial"] for r in selected(run, f"{cubes}/grid:2")] == [0, 1]
    assert selected(run, f"{cubes}/2") == selected(run, f"{cubes}/grid:2")
    assert [(r["layout"], r["trial"]) for r in selected(run, f"{cubes}/grid:2/1")] == [("grid:2", 1)]
    assert selected(run, f"{cubes}/default/grid:2/1") == selected(run, f"{cubes}/grid:2/1")
    assert len(selected(run, f"{cubes}/2", f"{cubes}/grid:2/1", f"{cubes}/3")) == 4, "each once"


def test_mistakes_in_choosing(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="nearest: widowx_stack_cube"):
        selected(run, "widowx_stack_cub/default/grid:2/1")
    with pytest.raises(UnknownNameError, match="failures"):
        selected(run, "failure")
    with pytest.raises(StorageError, match="is no run directory"):
        selected(tmp_path, "all")
    (crashed,) = selected(run, "widowx_stack_cube/grid:1/0")
    with pytest.raises(StorageError, match="holds no states"):
        list(render_videos(run, [crashed], tmp_path / "videos"))
    with pytest.raises(UnknownNameError, match="builtin"):
        list(render_videos(run, [crashed], tmp_path / "videos", look="bultin"))
    assert not (tmp_path / "videos").exists()


def test_where_videos_cannot_be_written(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="Cannot write the video"):
        list(render_videos(run, read_records(run)[:1], tmp_path / "file" / "videos"))


def test_without_a_driver_nothing_is_written(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> np.ndarray:
        raise RenderingUnavailableError("no driver")

    monkeypatch.setattr(FakeRenderer, "frames", refuse)
    with pytest.raises(RenderingUnavailableError):
        list(render_videos(run, read_records(run)[:1], tmp_path / "videos"))
    assert not (tmp_path / "videos").exists()
    assert FakeRenderer.made == ["builtin", "closed"]
