"""``data check``: every problem at once, with its file, column and row; and an episode drawn."""

from __future__ import annotations

from pathlib import Path

import foreign
import numpy as np
import pytest
from demonstrations import write_set
from PIL import Image

from vlaser_gym import cli
from vlaser_gym.commands.data import main


def check(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        cli.run("data", main, cli.named(["check", *words], "action", "data"))
    captured = capsys.readouterr()
    return int(str(ended.value.code)), captured.out + captured.err


def test_a_good_set_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first action points left and away: the arrow below the image goes up and to the left of its dot."""
    columns = foreign.numbers(6, foreign.BRIDGE_STATE)
    columns["action"][:, :3] = [0.02, 0.01, 0]
    path = foreign.write(tmp_path / "set", [columns, foreign.numbers(5, foreign.BRIDGE_STATE, 1)], version=2)
    file = tmp_path / "drawn.png"
    code, text = check(capsys, str(path), "convention=bridge", f"output={file}")
    assert code == 0
    assert "v2.1, 2 episodes, 11 rows, 5 per second, observation.images.image_0\n  nothing is wrong" in text
    picture = np.asarray(Image.open(file)).astype(int)
    assert picture.shape == (240 + 120, 6 * 320, 3)
    below = picture[240:, :128]
    orange = np.argwhere((np.abs(below - [255, 120, 40]) < 30).all(-1))
    assert orange[:, 0].min() < 30, "20 mm, ten times as long, on 0.3 m per 60 pixels: 40 pixels up"
    assert 35 <= orange[:, 1].min() <= 45, "10 mm: 20 pixels to the left of 60"


def test_a_set_of_this_gym_has_its_arrows_in_the_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, file = write_set(tmp_path / "set", 1), tmp_path / "drawn.png"
    code, _ = check(capsys, str(path), f"output={file}")
    assert file.is_file() == (code == 0)


def test_every_problem_is_named_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    episodes = [foreign.numbers(6, foreign.FRACTAL_STATE, n) for n in range(2)]
    episodes[0]["observation.state"][4, 3:7] *= 1.5
    episodes[1]["action"][2, 0] = 3.0
    episodes[0]["action"][:, 6] = episodes[1]["action"][:, 6] = 1
    names = {"observation.state": foreign.FRACTAL_STATE}
    path = foreign.write(tmp_path / "set", episodes, robot="google_robot", fps=3, names=names)
    code, text = check(capsys, str(path), "robot=google_robot", "convention=fractal", "output=null")
    assert code == 1
    assert "row 8 (episode 1, frame 2): action moves 3 m in one step, more than google_robot reaches (1.11 m)" in text
    assert "numbers 6 of action never change" in text


def test_what_stops_a_training_is_named_with_its_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    episodes = [foreign.numbers(6, foreign.BRIDGE_STATE, n) for n in range(2)]
    episodes[1]["observation.state"][1, 2] = np.inf
    path = foreign.write(tmp_path / "set", episodes, version=2, video=True)
    videos = path / "videos/chunk-000/observation.images.image_0"
    (videos / "episode_000000.mp4").write_bytes(b"")
    code, text = check(capsys, str(path), "convention=bridge", "output=null")
    assert code == 1
    assert "episode_000001.parquet, row 7 (episode 1, frame 1): observation.state should hold 8 finite numbers" in text
    assert "episode_000000.mp4" in text
    assert len(text.strip().splitlines()) == 3


def test_no_data_set_and_no_such_episode(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = check(capsys, str(tmp_path))
    assert code == 1
    assert "should hold a LeRobot data set" in text
    path = foreign.bridge(tmp_path / "set")
    code, text = check(capsys, str(path), "convention=bridge", "episode=9", f"output={tmp_path}/x.png")
    assert code == 2
    assert "has no episode 9; choose another episode=" in text
