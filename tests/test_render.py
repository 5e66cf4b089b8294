"""The render command on the real renderer. Choosing and captions are tested in tests/evaluation/test_video.py."""

from __future__ import annotations

from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from vlaser_gym import cli
from vlaser_gym.commands import eval as eval_command
from vlaser_gym.commands import render as render_command
from vlaser_gym.envs.rendering import SceneRenderer, drawn_states
from vlaser_gym.evaluation.arrays import pack_arrays
from vlaser_gym.evaluation.evaluator import EvalSettings, evaluate, make_scene_env
from vlaser_gym.evaluation.store import read_records, read_states
from vlaser_gym.evaluation.video import render_videos

CAPTION = 96  # px below the image


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One episode, of whose states every tenth is left: images take time."""
    path = tmp_path_factory.mktemp("runs") / "scored"
    settings = ["task=widowx_carrot_on_plate", "agent=expert", "episodes=1", "video=0", "report=false", f"run={path}"]
    cli.run("eval", eval_command.main, settings)
    (record,) = read_records(path)
    states = read_states(path, record)
    thinned = {
        name: values[9::10] if len(values) == 60 else np.concatenate([values[:1], values[10::10]])
        for name, values in states.items()
        if name != "decision"
    }
    (path / record["states"]).write_bytes(pack_arrays({**thinned, "decision": np.array([0, 4])}))
    return path


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def render(*overrides: str) -> None:
    cli.run("render", render_command.main, list(overrides))


def frames(path: Path) -> np.ndarray:
    reader = imageio_ffmpeg.read_frames(str(path))
    width, height = next(reader)["size"]
    return np.stack([np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader])


def orange(picture: np.ndarray) -> np.ndarray:
    """Centre of what is as orange as the carrot, x and y in px."""
    red, green, blue = (picture[: -CAPTION or None, :, c].astype(int) for c in range(3))
    found = np.argwhere((red > 210) & (green > 80) & (green < 170) & (blue < 90))
    assert len(found) > 100, "no carrot in the image"
    return found.mean(0)[::-1]


def test_the_carrot_is_seen_to_move_onto_the_plate(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    render(f"run={run}", "episodes=all", f"output={tmp_path / 'videos'}", "fps=10")
    (path,) = (tmp_path / "videos").iterdir()
    assert str(path) in capsys.readouterr().out
    pictures = frames(path)
    assert pictures.shape == (7, 480 + CAPTION, 640, 3)
    first, last = orange(pictures[0]), orange(pictures[-1])
    assert last[0] - first[0] > 60, "the plate lies to the right of the carrot"


def test_nothing_to_render_writes_nothing(run: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    render(f"run={run}", "episodes=failures")
    assert "0 episodes chosen" in capsys.readouterr().out
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["run=RUN", "episodes=failure"], "Unknown episode 'failure'"),
        (["run=RUN", "episodes=widowx_stack_cube/grid:0"], "Unknown episode"),
        (["run=RUN", "episodes=all", "look=bultin"], "bultin"),
        (["run=RUN", "episodes=all", "fps=0"], "fps must be above 0 and at most 240 or null; got 0.0."),
        (["run=RUN", "episodes=all", "processes=0"], "processes must be at least 1"),
        (["run=nowhere"], "nowhere is no run directory"),
        ([], "run has no default"),
    ],
)
def test_bad_input_is_one_sentence(
    run: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str], overrides: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        render(*(text.replace("RUN", str(run)) for text in overrides))
    said = capsys.readouterr().err
    assert caught.value.code == 2
    assert message in said
    assert said.count("\n") == 1
    assert not list(elsewhere.iterdir())


def projected(point: np.ndarray, azimuth: float, elevation: float, distance: float, middle: np.ndarray) -> np.ndarray:
    """Pixel of a point for a camera that looks at ``middle``: MuJoCo's field of view is 45 degrees high."""
    a, e = np.deg2rad([azimuth, -elevation])
    forward = np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])
    right = np.array([np.sin(a), -np.cos(a), 0.0])
    seen = point - (middle - distance * forward)
    scale = 240 / np.tan(np.deg2rad(22.5)) / (seen @ forward)
    return np.array([320 + scale * (seen @ right), 240 - scale * (seen @ np.cross(right, forward))])


@pytest.mark.parametrize(
    ("words", "view"),
    [
        (["camera=front"], (0, 30, 0.8)),
        (["camera=top"], (0, 89.9, 0.8)),
        (["camera=free", "azimuth=60", "elevation=50", "distance=1.1"], (60, 50, 1.1)),
    ],
)
def test_a_view_shows_things_where_its_place_says(run: Path, elsewhere: Path, words: list[str], view: tuple) -> None:
    """The robot stands on the side of positive x and faces negative x: azimuth 0 looks along +x, at its face."""
    render(f"run={run}", "episodes=all", "output=views", *words)
    (path,) = Path("views").glob("*.mp4")
    carrot, plate = (read_states(run, read_records(run)[0])[f"object/{name}"][0, :3] for name in (
        "bridge_carrot_generated_modified", "bridge_plate_objaverse_larger"))  # fmt: skip
    middle = (carrot + plate) / 2 + [0, 0, 0.05]
    towards = np.array([0.147, 0.028]) - middle[:2]
    azimuth = np.rad2deg(np.arctan2(towards[1], towards[0])) + view[0]
    expected = projected(carrot, azimuth, view[1], view[2], middle)
    np.testing.assert_allclose(orange(frames(path)[0]), expected, atol=14)


def test_cameras_stand_side_by_side(run: Path, elsewhere: Path) -> None:
    render(f"run={run}", "episodes=all", "output=out", "camera=policy,top")
    render(f"run={run}", "episodes=all", "output=out")
    both, alone = sorted(Path("out").glob("*.mp4"), key=lambda path: ".policy-top.mp4" not in path.name)
    pictures = frames(both)
    assert pictures.shape[2] == 2 * 640
    assert np.abs(pictures[0, :480, :640].astype(int) - frames(alone)[0][:480]).mean() < 4
    assert len(pictures) == len(frames(alone))


def test_only_a_free_camera_is_placed(run: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        render(f"run={run}", "episodes=all", "camera=top", "azimuth=10")
    assert "azimuth=10" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        render(f"run={run}", "episodes=all", "camera=fornt")
    assert "nearest: front" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("label", ["camera_pose:hard", "exposure:hard", "table_texture:hard"])
def test_a_perturbed_episode_is_drawn_as_the_policy_saw_it(label: str, elsewhere: Path) -> None:
    task, layout = "widowx_carrot_on_plate", "grid:0"
    words = [f"task={task}", "agent=expert", "episodes=1", "run=seen", f"perturb={label}"]
    settings = EvalSettings.from_config(cli.load("eval", words))
    evaluate(settings)
    (record,) = read_records("seen")
    env = make_scene_env(settings, [task], 1, ("image",))
    seen, _ = env.reset(options={"task": [task], "layout": [layout], "trial": [0]})
    env.close()
    (path,) = render_videos("seen", [record], "videos")
    assert np.abs(frames(path)[0][:480].astype(int) - seen["image"][0]).mean() < 4
    (states,) = [read_states("seen", record)]
    renderer = SceneRenderer()
    first = {name: values[0] for name, values in drawn_states(states).items()}
    plain = renderer.frames(task, "default", [first])[0].astype(int)
    renderer.close()
    assert np.abs(plain - seen["image"][0]).mean() > 5
