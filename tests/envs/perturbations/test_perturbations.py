"""Each perturbation against an implementation of its own sentence."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from vlaser_gym.envs.address import Address
from vlaser_gym.envs.engines import Placement
from vlaser_gym.envs.perturbations import (
    FAMILIES,
    LEVELS,
    PERTURBATIONS,
    Perturbation,
    check_perturbation,
    find_perturbations,
    get_perturbation,
)
from vlaser_gym.envs.perturbations.words import paraphrases
from vlaser_gym.envs.robots import get_setup
from vlaser_gym.envs.tasks import get_task, task_names
from vlaser_gym.errors import InvalidConfigError, UnknownNameError

HERE = Address("widowx_carrot_on_plate", layout="grid:3", trial=2)
ELSEWHERE = Address("widowx_carrot_on_plate", layout="grid:4", trial=2)
GREY = np.full((120, 160, 3), 128, np.uint8)
EPISODES = [Address("widowx_carrot_on_plate", layout=f"grid:{k}") for k in range(24)]


def scenery() -> np.ndarray:
    """An image with edges, smooth parts and all colours."""
    y, x = np.mgrid[:120, :160]
    channels = [128 + 100 * np.sin(x / 7), 255 * (y > 60), 255 * x / 160]
    return np.stack(channels, -1).round().clip(0, 255).astype(np.uint8)


def seen(text: str, picture: np.ndarray, address: Address = HERE, step: int = 0) -> np.ndarray:
    perturbation = get_perturbation(text)
    return perturbation.picture(picture, perturbation.moment(address, step))


def placed(text: str, address: Address = HERE) -> Placement:
    task, perturbation = get_task(address.task), get_perturbation(text)
    start = np.array(get_setup(task.robot_setup).qpos)
    placement = Placement(task, "default", task.layout(address.layout), start, address.layout)
    return perturbation.place(placement, perturbation.moment(address))


# ---------------------------------------------------------------------- names


def test_every_perturbation_has_a_family_a_sentence_and_its_own_name() -> None:
    assert {kind.family for kind in PERTURBATIONS.values()} == set(FAMILIES)
    assert all(name == kind.name for name, kind in PERTURBATIONS.items())
    assert all(
        "{strength}" in kind.sentence for kind in PERTURBATIONS.values() if kind.family in ("vision", "execution")
    )
    assert all(len(kind.strengths) in (1, len(LEVELS)) for kind in PERTURBATIONS.values())


def test_names_families_and_the_suite() -> None:
    assert get_perturbation("blur").label == "blur:medium"
    assert get_perturbation("blur:hard").label == "blur:hard"
    assert get_perturbation("no_instruction:hard").label == "no_instruction"
    assert [one.label for one in find_perturbations(["suite:mild"])][:2] == ["image_noise:mild", "blur:mild"]
    assert {one.name for one in find_perturbations(["suite"])} == set(PERTURBATIONS)
    assert {one.family for one in find_perturbations(["semantics:hard"])} == {"semantics"}
    assert [one.label for one in find_perturbations(["blur", "blur:medium", "jpeg"])] == ["blur:medium", "jpeg:medium"]


class Inverted(Perturbation):
    name, family, sentence, strengths = "inverted", "vision", "{strength}", (1.0, 2.0, 3.0)

    def picture(self, picture: np.ndarray, moment: Any) -> np.ndarray:
        return 255 - picture


def test_one_of_your_own_by_import_string() -> None:
    own = f"{__name__}:Inverted"
    assert get_perturbation(own).label == f"{own}:medium"
    assert get_perturbation(get_perturbation(own).label).name == "inverted"
    assert get_perturbation(f"{own}:hard").strength == 3.0
    with pytest.raises(InvalidConfigError, match="must be a subclass of"):
        get_perturbation("math:sqrt")


@pytest.mark.parametrize(
    ("text", "said"),
    [("blurr", "blur"), ("blur:strong", "level of perturb=blur"), ("vision:strong", "hard, medium, mild")],
)
def test_what_does_not_exist_is_said(text: str, said: str) -> None:
    with pytest.raises(UnknownNameError, match=said):
        find_perturbations([text])


def test_what_engine_and_look_cannot_do_is_refused() -> None:
    task = [get_task(HERE.task)]
    check_perturbation(get_perturbation("camera_pose"), {"name": "mujoco"}, "builtin", task)
    check_perturbation(get_perturbation("blur"), {"name": "simpler"}, "original", task)
    with pytest.raises(InvalidConfigError, match="needs engine=mujoco; got engine=simpler"):
        check_perturbation(get_perturbation("mass"), {"name": "simpler"}, "builtin", task)
    with pytest.raises(InvalidConfigError, match="hidden by the photograph of look=original: choose look=builtin"):
        check_perturbation(get_perturbation("light_colour"), {"name": "mujoco"}, "original", task)
    tasks = [get_task("google_robot_open_drawer")]
    with pytest.raises(InvalidConfigError, match="nothing to change in google_robot_open_drawer"):
        check_perturbation(get_perturbation("object_moved"), {"name": "mujoco"}, "builtin", tasks)


# ---------------------------------------------------------------------- random numbers


@pytest.mark.parametrize("name", ["image_noise", "exposure"])
def test_draws_depend_on_the_episode_and_not_on_what_else_was_drawn(name: str) -> None:
    first = seen(name, scenery())
    seen(name, scenery(), ELSEWHERE)
    assert (seen(name, scenery()) == first).all()
    assert any((seen(name, scenery(), address) != first).any() for address in EPISODES)


def test_only_noise_is_drawn_anew_at_every_step() -> None:
    assert (seen("image_noise", GREY, step=4) != seen("image_noise", GREY, step=5)).any()
    assert (seen("exposure", GREY, step=4) == seen("exposure", GREY, step=5)).all()


def test_the_agents_noise_is_another_stream() -> None:
    perturbation = get_perturbation("image_noise")
    assert perturbation.moment(HERE).of_episode().random() != HERE.rng().random()


# ---------------------------------------------------------------------- images


@pytest.mark.parametrize(("level", "size"), list(zip(LEVELS, (8, 20, 40), strict=True)))
def test_noise_has_the_size_that_is_said(level: str, size: float) -> None:
    noise = seen(f"image_noise:{level}", GREY).astype(float) - 128
    assert abs(noise.mean()) < 5 * size / np.sqrt(noise.size)
    assert noise.std() == pytest.approx(size, rel=0.03)


def test_harder_noise_errs_in_the_same_direction() -> None:
    mild, hard = (seen(f"image_noise:{level}", GREY).astype(float) - 128 for level in ("mild", "hard"))
    inside = np.abs(hard) < 120  # elsewhere it ends at black or white
    assert np.abs(hard - 5 * mild)[inside].max() <= 3  # both are rounded


@pytest.mark.parametrize(("level", "sigma"), list(zip(LEVELS, (1.5, 3.0, 6.0), strict=True)))
def test_blur_is_a_gaussian(level: str, sigma: float) -> None:
    expected = np.stack([gaussian_filter(scenery()[..., c].astype(float), sigma) for c in range(3)], -1)
    inside = (slice(30, -30), slice(30, -30))
    assert np.abs(seen(f"blur:{level}", scenery())[inside] - expected[inside]).max() < 3


def test_jpeg_is_what_another_library_makes_of_that_quality() -> None:
    for level, quality in zip(LEVELS, (40, 15, 5), strict=True):
        buffer = io.BytesIO()
        Image.fromarray(scenery()).save(buffer, "JPEG", quality=quality)
        theirs = np.asarray(Image.open(buffer)).astype(float)
        ours = seen(f"jpeg:{level}", scenery()).astype(float)
        lost = np.abs(theirs - scenery()).mean()
        assert np.abs(ours - theirs).mean() < 0.35 * lost
    red = np.zeros((32, 32, 3), np.uint8) + np.array([220, 30, 30], np.uint8)
    assert (np.abs(seen("jpeg:hard", red).mean((0, 1)) - [220, 30, 30]) < 20).all()


def test_exposure_scales_up_or_down() -> None:
    factors = {float(np.round(seen("exposure:hard", GREY // 2, address).mean() / 64, 3)) for address in EPISODES}
    assert factors == {2.5, round(26 / 64, 3)}
    assert seen("exposure:hard", np.full_like(GREY, 255)).max() <= 255


def test_a_blank_image_shows_nothing() -> None:
    assert np.ptp(seen("blank_image", scenery())) == 0


# ---------------------------------------------------------------------- scenes


def test_cameras_are_displaced_and_turned_by_what_is_said() -> None:
    for address in EPISODES[:5]:
        sight = placed("camera_pose:hard", address).sight
        assert np.linalg.norm(sight.shift) == pytest.approx(0.05)
        assert np.rad2deg(np.linalg.norm(sight.turn)) == pytest.approx(5)
    mild, hard = (np.array(placed(f"camera_pose:{level}").sight.shift) for level in ("mild", "hard"))
    np.testing.assert_allclose(5 * mild, hard)
    assert placed("camera_pose", HERE).sight.shift != placed("camera_pose", ELSEWHERE).sight.shift


def test_lenses_are_longer_in_some_episodes_and_shorter_in_others() -> None:
    zooms = {round(placed("focal_length:hard", address).sight.zoom, 6) for address in EPISODES}
    assert zooms == {1.25, 0.8}


def test_light_is_turned_about_a_horizontal_axis() -> None:
    turn = Rotation.from_rotvec(placed("light_direction:medium").sight.light_turn)
    down = turn.apply([0, 0, -1])
    assert np.rad2deg(np.arccos(-down[2])) == pytest.approx(40)


def test_the_lights_colour_changes_and_its_luminance_does_not() -> None:
    colours = np.array([placed("light_colour:hard", address).sight.light_colour for address in EPISODES])
    np.testing.assert_allclose(colours @ [0.299, 0.587, 0.114], 1.0)
    spread = colours / np.exp(np.log(colours).mean(1, keepdims=True))
    np.testing.assert_allclose(np.maximum(spread, 1 / spread).max(1), 1.5)


def test_the_arm_starts_elsewhere_and_nothing_else_does() -> None:
    robot = get_setup("widowx").robot
    nominal = np.array(get_setup("widowx").qpos)
    off = np.array([placed("start_pose:hard", address).qpos - nominal for address in EPISODES])
    arm = [joint.name in robot.arm_joints for joint in robot.moving_joints]
    assert (off[:, np.logical_not(arm)] == 0).all()
    assert np.abs(off).max() <= 0.15
    assert (np.abs(off[:, arm]).max(0) > 0.1).all()
    for joint, column in zip(robot.moving_joints, (off + nominal).T, strict=True):
        assert column.min() >= joint.lower - 1e-12
        assert column.max() <= joint.upper + 1e-12


def test_objects_move_in_all_directions_by_what_is_said() -> None:
    perturbation = get_perturbation("object_moved:medium")
    shifts = [perturbation.shift(perturbation.moment(address)) for address in EPISODES]
    offsets = np.array([shift.offset for shift in shifts if shift is not None])
    np.testing.assert_allclose(np.linalg.norm(offsets, axis=1), 0.03)
    assert (np.ptp(offsets, axis=0) > 0.04).all()
    assert {shift.step for shift in shifts if shift is not None} == {3}  # 5 % of 60


# ---------------------------------------------------------------------- words


def sentences() -> set[str]:
    told = set()
    for task in map(get_task, task_names()):
        for k in range(0, task.num_layouts, max(1, task.num_layouts // 12)):
            told |= {task.instruction(f"grid:{k}", task.variants[0], stage) for stage in (0, 1)}
    return told


@pytest.mark.parametrize("level", LEVELS)
def test_every_instruction_has_two_paraphrases_that_name_the_same_things(level: str) -> None:
    for text in sentences():
        found = paraphrases(text, level)
        assert len(set(found)) == 2, text
        nouns = set(text.split()) - {
            "put",
            "the",
            "on",
            "into",
            "stack",
            "pick",
            "move",
            "near",
            "open",
            "close",
            "place",
        }
        for other in found:
            assert nouns <= set(other.split()), (text, other)
            assert "{" not in other
        assert text not in found or level == "mild"


def test_paraphrases_by_hand() -> None:
    assert paraphrases("put eggplant into yellow basket", "mild")[0] == "place the eggplant into the yellow basket"
    assert paraphrases("close bottom drawer", "medium") == (
        "get the bottom drawer closed",
        "the bottom drawer should be closed",
    )
    assert paraphrases("dance", "mild") == ()


def told(text: str, sentence: str, address: Address = HERE) -> str:
    perturbation = get_perturbation(text)
    return perturbation.instruction(sentence, perturbation.moment(address))


def test_both_paraphrases_are_told_in_some_episode() -> None:
    said = {told("paraphrase:hard", "pick coke can", address) for address in EPISODES}
    assert said == set(paraphrases("pick coke can", "hard"))
    assert told("paraphrase", "dance") == "dance"


def test_talk_surrounds_the_instruction_and_leaves_it_whole() -> None:
    for level, count in zip(LEVELS, (0, 1, 3), strict=True):
        said = told(f"long_instruction:{level}", "put carrot on plate")
        assert "put carrot on plate" in said
        assert said.count(". ") == count


def edit_distance(a: str, b: str) -> int:
    """Damerau and Levenshtein's, with swaps of neighbours (optimal string alignment)."""
    d = np.add.outer(np.arange(len(a) + 1), np.arange(len(b) + 1))
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            d[i, j] = min(d[i - 1, j] + 1, d[i, j - 1] + 1, d[i - 1, j - 1] + (a[i - 1] != b[j - 1]))
            if i > 1 and j > 1 and a[i - 1] == b[j - 2] and a[i - 2] == b[j - 1]:
                d[i, j] = min(d[i, j], d[i - 2, j - 2] + 1)
    return int(d[-1, -1])


@pytest.mark.parametrize(("level", "wrong"), [("mild", 1), ("medium", 2), ("hard", 4)])
def test_a_typing_error_is_one_edit_of_a_word(level: str, wrong: int) -> None:
    text = "put the spoon on the towel"  # five words of three letters or more
    for address in EPISODES:
        pairs = list(zip(text.split(), told(f"typos:{level}", text, address).split(), strict=True))
        distances = [edit_distance(*pair) for pair in pairs]
        assert max(distances) <= 1
        assert sum(distances) == {"mild": 1, "medium": 2, "hard": 5}[level]
        assert wrong <= sum(distances)


def test_the_controls_say_nothing_and_something_else() -> None:
    assert told("no_instruction", "put carrot on plate") == ""
    for name in task_names():
        task = get_task(name)
        said = told("wrong_instruction", task.instruction("grid:0"), Address(name))
        assert said != task.instruction("grid:0")
        assert said in {other.instruction("grid:0") for other in map(get_task, task_names())}


# ---------------------------------------------------------------------- motion


def test_noise_of_actions_spares_the_gripper() -> None:
    chunk, previous = np.zeros((4, 7)), np.zeros((4, 7))
    chunk[:, 6] = -1
    perturbation = get_perturbation("action_noise:hard")
    rows = [perturbation.actions(chunk, previous, perturbation.moment(a, 4 * k)) for a in EPISODES for k in range(15)]
    noise = np.concatenate(rows) - [0, 0, 0, 0, 0, 0, -1]
    assert (noise[:, 6] == 0).all()
    np.testing.assert_allclose(noise[:, :3].std(0), 0.010, rtol=0.06)
    np.testing.assert_allclose(noise[:, 3:6].std(0), 0.080, rtol=0.06)
    assert abs(np.corrcoef(noise[:-1, 0], noise[1:, 0])[0, 1]) < 0.06


@pytest.mark.parametrize(("level", "late"), list(zip(LEVELS, (1, 2, 3), strict=True)))
def test_a_delay_is_a_queue(level: str, late: int) -> None:
    perturbation, rng = get_perturbation(f"delay:{level}"), np.random.default_rng(0)
    remembered = np.zeros((4, 7))
    queue = [np.zeros(7)] * late
    for size in (4, 1, 2, 1, 1, 3):  # chunks may be shorter than the delay
        chunk = rng.normal(size=(size, 7))
        executed = perturbation.actions(chunk, remembered, perturbation.moment(HERE))
        queue += list(chunk)
        expected, queue = queue[:size], queue[size:]
        np.testing.assert_array_equal(executed, expected)
        remembered = np.concatenate([remembered, chunk])[-4:]


def test_noise_of_proprioception_stays_a_pose() -> None:
    perturbation = get_perturbation("proprio_noise:hard")
    true = np.array([0.3, 0.0, 0.2, *Rotation.from_euler("xyz", [3.0, 0.2, 0.4]).as_quat()[[3, 0, 1, 2]], 0.6])
    true[3:7] *= np.sign(true[3])
    moments = [perturbation.moment(a, k) for a in EPISODES for k in range(40)]
    noisy = np.array([perturbation.proprio(true, moment) for moment in moments])
    np.testing.assert_allclose(np.linalg.norm(noisy[:, 3:7], axis=1), 1)
    assert (noisy[:, 3] >= 0).all()
    np.testing.assert_allclose((noisy[:, :3] - true[:3]).std(0), 0.010, rtol=0.1)
    turns = Rotation.from_quat(noisy[:, [4, 5, 6, 3]]) * Rotation.from_quat(true[[4, 5, 6, 3]]).inv()
    assert np.sqrt((turns.magnitude() ** 2).mean() / 3) == pytest.approx(0.08, rel=0.1)
    assert (noisy[:, 7] - true[7]).std() == pytest.approx(0.1, rel=0.1)
    assert perturbation.proprio(replace_last(true, 1.0), moments[0])[7] <= 1


def replace_last(values: np.ndarray, last: float) -> np.ndarray:
    return np.array([*values[:-1], last])


def test_what_is_not_changed_is_handed_back() -> None:
    class Nothing(Perturbation):
        name, family, sentence, strengths = "nothing", "vision", "", (1.0,)

    nothing = Nothing()
    moment = nothing.moment(HERE)
    chunk = np.ones((2, 7))
    assert nothing.picture(GREY, moment) is GREY
    assert nothing.actions(chunk, chunk, moment) is chunk
    assert nothing.proprio(chunk[0], moment) is not None
    assert nothing.instruction("x", moment) == "x"
    assert nothing.shift(moment) is None
    assert not any(Nothing.changes(name) for name in ("picture", "actions", "proprio", "instruction", "shift", "place"))
    placement = placed("blur")
    assert nothing.place(placement, moment) is placement
    assert replace(placement).sight == placement.sight
