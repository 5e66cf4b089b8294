"""The ask command: settings, images from files and from stored episodes, what it prints and draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from fabricate_run import plain_record
from fabricate_vlm import write_vlm
from PIL import Image

from vlaser_gym import cli
from vlaser_gym.commands import ask

ANSWER = "The cup: <point>[[500, 500]]</point> <ref>plate</ref><box>[[100, 100, 300, 300]]</box>"


@pytest.fixture(scope="module")
def vlm_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vlm(tmp_path_factory.mktemp("vlm"))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    file = tmp_path / "in.png"
    Image.new("RGB", (200, 100), (10, 200, 30)).save(file)
    return file


def run(*arguments: str) -> None:
    cli.run("ask", ask.main, ask.quoted(arguments))


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as error:
        run(*arguments)
    assert error.value.code == 2
    sentence = capsys.readouterr().err
    assert sentence.startswith("Error: ")
    assert sentence.count("\n") == 1
    return sentence


def test_answers_and_draws(
    vlm_folder: Path, picture: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from vlaser_gym.agents.vlaser.chat import SYSTEM_MESSAGE
    from vlaser_gym.agents.vlaser.vlm import Vlm

    seen = {}

    def fixed_answer(self: Vlm, images: list[np.ndarray], question: str, **options: object) -> str:
        seen.update(images=images, question=question, **options)
        return ANSWER

    monkeypatch.setattr(Vlm, "ask", fixed_answer)
    output = picture.parent / "made" / "out.png"
    run(f"image={picture}", "question=Where's it, [now]?", f"checkpoint={vlm_folder}", f"output={output}")
    assert seen["question"] == "Where's it, [now]?"
    assert seen["system"] == SYSTEM_MESSAGE
    assert seen["images"][0].shape == (100, 200, 3)
    printed = capsys.readouterr().out.splitlines()
    assert printed == [
        ANSWER,
        "Point: x 100, y 50 (pixels)",
        "Box plate: left 20, top 10, right 60, bottom 30 (pixels)",
        f"Image: {output}",
    ]
    drawn = np.asarray(Image.open(output))
    changed = (drawn[:100] != (10, 200, 30)).any(-1)
    assert changed[50, 100]
    assert changed[30, 20:61].all()
    assert not changed[60:, :].any()


def test_a_whole_answer_of_a_random_model(
    vlm_folder: Path, picture: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(picture.parent)
    run(f"image={picture},{picture}", "question=same", f"checkpoint={vlm_folder}", "max_new_tokens=5", "max_tiles=2")
    assert len(capsys.readouterr().out.splitlines()[0]) > 2
    assert np.asarray(Image.open("answer.png")).shape[1] == 200


def test_pointing_prompt_comes_first(vlm_folder: Path, picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vlaser_gym.agents.vlaser.vlm import Vlm

    seen = {}
    monkeypatch.setattr(Vlm, "ask", lambda self, images, question, **options: seen.update(q=question, **options) or "")
    monkeypatch.chdir(picture.parent)
    run(f"image={picture}", "question=the cup", f"checkpoint={vlm_folder}", "pointing=true", "system=Be brief, please.")
    assert seen["q"].startswith("You are InternVL. Your task is to locate several points")
    assert seen["q"].endswith("Return the answer in the point format directly. the cup")
    assert seen["system"] == "Be brief, please."


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A run with two episodes of one recorded state each, and the image that the environment showed."""
    from vlaser_gym.envs.address import Address
    from vlaser_gym.envs.vector import SceneVectorEnv
    from vlaser_gym.evaluation.store import RunStore

    task, path = "widowx_carrot_on_plate", tmp_path_factory.mktemp("run") / "run"
    env = SceneVectorEnv(task, num_envs=2, record_states=True)
    observations, info = env.reset(options={"layout": [3, 4]})
    with RunStore(path, {"task": task}) as store:
        for lane, layout in enumerate(("grid:3", "grid:4")):
            address = Address(task, layout=layout)
            states = {name: np.stack([value] * 2) for name, value in info["initial_states"][lane].items()}
            states["qpos"][1, 0] += 0.5
            store.add(plain_record(address), states)
    images = observations["image"].copy()
    env.close()
    return path, images


class TestStoredEpisode:
    def frame(self, **settings: object) -> np.ndarray:
        keys = ("question", "checkpoint", "image", "output", "system", "max_tiles", "device", "dtype", "look")
        blank = dict.fromkeys(keys) | {"pointing": False, "max_new_tokens": 1}
        return ask._frame(ask.AskSettings(**{**blank, **settings}))  # type: ignore[arg-type]

    def test_frame_is_what_the_environment_showed(self, stored: tuple[Path, np.ndarray]) -> None:
        for layout in (3, 4):
            frame = self.frame(run=str(stored[0]), episode=f"widowx_carrot_on_plate/{layout}", step=0)
            np.testing.assert_array_equal(frame, stored[1][layout - 3])

    def test_later_step_is_another_picture(self, stored: tuple[Path, np.ndarray]) -> None:
        episode = "widowx_carrot_on_plate/3"
        frames = [self.frame(run=str(stored[0]), episode=episode, step=step) for step in (0, 1, -1)]
        assert (frames[0] != frames[1]).any()
        np.testing.assert_array_equal(frames[1], frames[2])

    def test_several_episodes(
        self, stored: tuple[Path, np.ndarray], vlm_folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        where = ("question=a", f"checkpoint={vlm_folder}", f"run={stored[0]}")
        assert "names 2" in refusal(capsys, *where, "episode=widowx_carrot_on_plate")
        assert "Which episode" in refusal(capsys, *where)
        assert "steps 0 to 1" in refusal(capsys, *where, "episode=widowx_carrot_on_plate/3", "step=2")


def test_refusals(vlm_folder: Path, picture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ("question=a", f"checkpoint={vlm_folder}")
    assert "needs a vision-language model" in refusal(capsys, "question=a", f"image={picture}")
    assert "question has no default" in refusal(capsys, f"image={picture}")
    assert "either image=FILE" in refusal(capsys, *given)
    assert "either image=FILE" in refusal(capsys, *given, f"image={picture}", "run=x")
    assert "should be an image" in refusal(capsys, *given, f"image={tmp_path / 'absent.png'}")
    assert "should be an image" in refusal(capsys, *given, f"image={vlm_folder / 'config.json'}")
    assert "at least 1" in refusal(capsys, *given, f"image={picture}", "max_new_tokens=0")
    assert "device is one of" in refusal(capsys, *given, f"image={picture}", "device=tpu")
    assert "Unknown dtype" in refusal(capsys, *given, f"image={picture}", "dtype=float16")
    assert "configuration of an InternVL" in refusal(capsys, "question=a", f"image={picture}", f"checkpoint={tmp_path}")
    assert "can be written" in refusal(capsys, *given, f"image={picture}", "max_new_tokens=1", "output=/proc/a/b.png")
    assert "can be written" in refusal(
        capsys, *given, f"image={picture}", "max_new_tokens=1", f"output={tmp_path / 'a.xyz'}"
    )


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("question=Where's it?", r"question='Where\'s it?'"),
        ("question='quoted'", "question='quoted'"),
        ('question="a" or b', "question='\"a\" or b'"),
        ("system=null", "system=null"),
        ("image=a,b", "image=a,b"),
    ],
)
def test_free_text_is_quoted(argument: str, expected: str) -> None:
    assert ask.quoted([argument]) == [expected]
