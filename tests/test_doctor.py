from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlaser_gym import cli
from vlaser_gym.commands import doctor
from vlaser_gym.envs.assets import Status
from vlaser_gym.envs.tasks import task_names
from vlaser_gym.envs.vector import SceneVectorEnv
from vlaser_gym.errors import RenderingUnavailableError


def run(*overrides: str) -> int:
    """The exit status of the command."""
    with pytest.raises(SystemExit) as stopped:
        cli.run("doctor", doctor.main, list(overrides))
    return int(stopped.value.code)  # type: ignore[arg-type]


def line_of(text: str, name: str) -> str:
    (line,) = (line for line in text.splitlines() if line[9:].startswith(f"{name}: "))
    return line


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise RenderingUnavailableError("No images can be made here (broken driver). Do this. Or that.")

    monkeypatch.setattr(doctor, "_probe", refuse)


def test_everything_works_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new folder" / "probe.png"
    assert run(f"output={path}") == 0
    said = capsys.readouterr().out
    for name in ("Python", "torch", "physics", "images", "videos", "tasks", "engines"):
        assert line_of(said, name).startswith("works"), name
    assert all(task in line_of(said, "tasks") for task in task_names())
    assert str(path) in line_of(said, "images")
    env = SceneVectorEnv(task_names()[0], observe=("image",), engine_options={"render_processes": 1})
    observation, _ = env.reset(options={"layout": 1})
    assert np.array_equal(np.asarray(Image.open(path)), observation["image"][0])
    env.close()


def test_without_a_driver_the_remedy_is_named(no_pictures: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 1
    said = capsys.readouterr().out
    line = line_of(said, "images")
    assert line.startswith("missing")
    assert line.endswith("No images can be made here (broken driver).")
    assert "libegl1" in said
    assert "video=0" in said
    assert "Something needed is missing." in said
    assert line_of(said, "physics").startswith("works")


def test_a_blank_picture_is_not_a_picture(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(doctor, "_probe", lambda: (np.full((480, 640, 3), 7, np.uint8), 0.01))
    assert run() == 1
    assert "blank (1 colours)" in line_of(capsys.readouterr().out, "images")


@pytest.mark.slow
@pytest.mark.parametrize("broken", ["_torch", "_physics", "_videos"])
def test_a_broken_part_is_a_finding_and_not_a_traceback(
    broken: str, no_pictures: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> str:
        raise ImportError("libfoo.so\nis not there")

    monkeypatch.setattr(doctor, broken, fail)
    assert run() == 1
    said = capsys.readouterr().out
    assert "ImportError: libfoo.so is not there" in line_of(said, broken.removeprefix("_"))
    assert "constraints.txt" in said


@pytest.mark.slow
def test_optional_parts_do_not_change_the_verdict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "_probe", lambda: (np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8), 0))
    monkeypatch.setattr(doctor, "_OPTIONAL", (("no_such_module", "Nothing", "nothing", "pip install nothing"),))
    assert run() == 0
    said = capsys.readouterr().out
    assert line_of(said, "Nothing").startswith("optional")
    assert "-> pip install nothing" in said


def test_the_asset_pack_is_told_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Absent, incomplete, whole; never needed."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    absent = doctor._assets()
    assert (absent.works, absent.needed) == (False, False)
    assert "not fetched" in absent.text
    assert absent.remedy == "python -m vlaser_gym.assets fetch"
    doctor.default_directory().mkdir(parents=True)
    broken = doctor._assets()
    assert "448 of 448 files" in broken.text
    assert "first data/custom/info_bridge_custom_baked_tex_v0.json" in broken.text
    monkeypatch.setattr(doctor, "check_assets", lambda directory: Status((), (), (), ()))
    assert doctor._assets().works


def test_a_picture_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "_probe", lambda: (np.zeros((48, 64, 3), np.uint8), 0))
    (tmp_path / "file").touch()
    assert run(f"output={tmp_path}/file/probe.png") == 2
    assert "Cannot write the image" in capsys.readouterr().err
    assert run(f"output={tmp_path}/probe.nonsense") == 2


@pytest.mark.slow
def test_the_command_itself_where_mujoco_gl_is_wrong() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vlaser_gym.doctor"],
        env={"MUJOCO_GL": "nonsense", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 1
    assert line_of(done.stdout, "images").startswith("missing  images: MUJOCO_GL is nonsense. No images can be")
    assert line_of(done.stdout, "physics").startswith("works")
    assert not done.stderr
