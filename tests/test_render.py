"""The render command on the real renderer. Choosing and captions are tested in tests/evaluation/test_video.py."""

from __future__ import annotations

from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from vlaser_gym import cli
from vlaser_gym.commands import eval as eval_command
from vlaser_gym.commands import render as render_command
from vlaser_gym.evaluation.arrays import pack_arrays
from vlaser_gym.evaluation.store import read_records, read_states

CAPTION = 96  # px below the picture


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One episode, of whose states every tenth is left: pictures take time."""
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
    assert len(found) > 100, "no carrot in the picture"
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
