"""The processor against golden numbers, recorded proprioception and closed forms."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from vlaser_gym.agents.vlaser.processor import (
    SHORT_TEMPLATE,
    VLASER_TEMPLATE,
    Processor,
    ResizeImage,
    TokenizePrompt,
    normalize_pixels,
    robot_proprio,
)
from vlaser_gym.agents.vlaser.statistics import BRIDGE, FRACTAL
from vlaser_gym.agents.vlaser.tokenizer import ByteTokenizer, QwenTokenizer
from vlaser_gym.errors import InvalidConfigError, UnknownNameError

COUNTS = {
    "": 273,
    "put carrot on plate": 277,
    "put eggplant into yellow basket": 279,
    "put the spoon on the towel": 279,
    "stack the green block on the yellow block": 281,
    "pick coke can": 276,
    "move blue plastic bottle near pepsi can": 281,
    "open middle drawer": 276,
    "place apple into top drawer": 278,
}


def small_prompt(**options: object) -> TokenizePrompt:
    settings = {"num_image_tokens": 4, "max_length": 32, "template": SHORT_TEMPLATE} | options
    return TokenizePrompt(ByteTokenizer(), **settings)  # type: ignore[arg-type]


def processor(robot: str = "widowx") -> Processor:
    return Processor(small_prompt(), ResizeImage(28), robot, BRIDGE if robot == "widowx" else FRACTAL)


class TestPrompt:
    @pytest.mark.golden
    def test_real_ids_and_counts(self, shared: Path) -> None:
        tokenizer = QwenTokenizer(shared / "assets" / "internvl3_tokenizer")
        prompt = TokenizePrompt(tokenizer, num_image_tokens=256, max_length=384)
        for instruction, count in COUNTS.items():
            ids = prompt.ids(instruction)
            assert ids.shape == (384,)
            assert (ids != 151643).sum() == count == np.argmax(np.append(ids, 151643) == 151643)
            assert (ids == 151667).sum() == 256
        head = [151644, 8948, 198, 4064, 151645, 198, 151644, 872, 198, 151665]
        tail = [151666, 198, 29245, 83323, 646, 151645, 198, 151644, 77091, 198]
        assert prompt.ids("pick coke can").tolist() == [*head, *[151667] * 256, *tail, *[151643] * 108]

    def test_template_is_filled_and_padded(self) -> None:
        ids = small_prompt().ids("go")
        text = [259, 261, 261, 261, 261, 260, *b"go\n"]
        assert ids.tolist() == text + [256] * (32 - len(text))

    def test_wrapping(self) -> None:
        wrap = "The task is to {instruction}, now."
        ids = small_prompt(wrap=wrap, max_length=64).ids("go")
        assert bytes(ids[6:][ids[6:] < 256].tolist()).decode() == "The task is to go, now.\n"

    def test_braces_in_an_instruction_are_text(self) -> None:
        ids = small_prompt().ids("{image}")
        assert bytes(ids[6:][ids[6:] < 256].tolist()) == b"{image}\n"

    def test_long_instructions_are_cut_with_a_warning(self) -> None:
        with pytest.warns(UserWarning, match="107 tokens and is cut to 32"):
            ids = small_prompt().ids("x" * 100)
        assert ids.tolist() == [259, 261, 261, 261, 261, 260, *b"x" * 26]

    @pytest.mark.parametrize("text", ["<IMG_CONTEXT>", "a<|endoftext|>b"])
    def test_special_tokens_in_an_instruction(self, text: str) -> None:
        with pytest.raises(InvalidConfigError, match="plain text"):
            small_prompt().ids(text)

    def test_no_room(self) -> None:
        with pytest.raises(InvalidConfigError, match="no room"):
            small_prompt(max_length=6)

    @pytest.mark.parametrize("options", [{"template": "{instruction}"}, {"wrap": "do it"}])
    def test_templates_without_their_places(self, options: dict[str, str]) -> None:
        with pytest.raises(InvalidConfigError, match="once each"):
            small_prompt(**options)

    def test_every_lane_has_its_own_instruction(self) -> None:
        prompt = small_prompt()
        ids = prompt({"instruction": ("a", "b", "a")})["input_ids"]
        np.testing.assert_array_equal(ids[0], ids[2])
        np.testing.assert_array_equal(ids[1], prompt.ids("b"))
        assert (ids[0] != ids[1]).sum() == 1


class TestImage:
    def test_resize_is_lanczos4_straight_to_the_square(self) -> None:
        image = np.random.default_rng(0).integers(0, 256, (2, 48, 64, 3), np.uint8)
        pixels = ResizeImage(28)({"image": image})["pixels"]
        expected = [cv2.resize(i, (28, 28), interpolation=cv2.INTER_LANCZOS4) for i in image]
        np.testing.assert_array_equal(pixels, expected)

    def test_resize_weights_are_those_of_an_8_tap_lanczos_window(self) -> None:
        """One white column; doubling the width spreads it with the weights of sinc(x) sinc(x / 4) at quarters."""
        image = np.zeros((1, 32, 32, 3), np.uint8)
        image[:, :, 16] = 255
        row = ResizeImage(64)({"image": image})["pixels"][0, 20, :, 0].astype(float)
        taps = np.arange(-3, 5)
        for column in range(26, 40):
            centre = (column + 0.5) / 2 - 0.5
            x = centre - (np.floor(centre) + taps)
            weights = np.sinc(x) * np.sinc(x / 4)
            weights /= weights.sum()
            expected = np.clip(255 * weights[np.floor(centre) + taps == 16].sum(), 0, 255)
            assert row[column] == pytest.approx(expected, abs=1.5)

    def test_area_filter_is_the_mean_of_blocks(self) -> None:
        image = np.random.default_rng(0).integers(0, 256, (1, 32, 64, 3), np.uint8)
        pixels = ResizeImage(8, "area")({"image": image})["pixels"]
        blocks = image[0].reshape(8, 4, 8, 8, 3).mean((1, 3))
        np.testing.assert_allclose(pixels[0], blocks, atol=0.51)

    def test_unknown_filter(self) -> None:
        with pytest.raises(UnknownNameError, match="lanczos4"):
            ResizeImage(8, "lanczos")

    @pytest.mark.parametrize("image", [np.zeros((2, 4, 4, 3)), np.zeros((4, 4, 3), np.uint8)])
    def test_wrong_images(self, image: np.ndarray) -> None:
        with pytest.raises(InvalidConfigError, match="uint8 of shape"):
            ResizeImage(8)({"image": image})

    def test_normalisation(self) -> None:
        pixels = torch.tensor([[[[0, 128, 255]]]], dtype=torch.uint8)
        expected = [(0 - 0.485) / 0.229, (128 / 255 - 0.456) / 0.224, (1 - 0.406) / 0.225]
        normal = normalize_pixels(pixels)
        assert normal.shape == (1, 3, 1, 1)
        assert normal.dtype == torch.float32
        np.testing.assert_allclose(normal.flatten(), expected, atol=1e-6)


class TestProprioception:
    def test_golden_widowx_orientation(self) -> None:
        quaternions = np.array([[0.70710678, 0, 0.70710678, 0], [0.68, 0.05, 0.72, -0.1]])
        state = np.concatenate([np.full((2, 3), 0.1), quaternions, np.full((2, 1), 0.7)], axis=1)
        proprio = robot_proprio(state, "widowx")
        np.testing.assert_allclose(proprio[0, 3:6], 0, atol=1e-8)
        np.testing.assert_allclose(proprio[1, 3:6], [-0.07667912, 0.04884656, -0.21534539], atol=1e-8)
        assert (proprio[:, [0, 1, 2, 6]] == [0.1, 0.1, 0.1, 0.7]).all()

    def test_google_robot_order_and_closedness(self) -> None:
        proprio = robot_proprio([0.1, 0.2, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9], "google_robot")
        np.testing.assert_allclose(proprio, [0.1, 0.2, 0.3, 0.6, 0.7, 0.8, 0.5, 0.1], atol=1e-12)

    @pytest.mark.golden
    @pytest.mark.parametrize("robot", ["widowx", "google_robot"])
    def test_recorded_proprioception(self, golden: Path, robot: str) -> None:
        files = sorted((golden / "reset").glob(f"{robot}*/*.npz"))
        assert len(files) > 40
        for file in files:
            with np.load(file) as data:
                np.testing.assert_allclose(robot_proprio(data["eef_pos"], robot), data["proprio"], rtol=0, atol=1e-6)

    @pytest.mark.parametrize("proprio", [np.zeros((2, 7)), np.full((2, 8), np.nan), np.float64(1)])
    def test_wrong_proprioception(self, proprio: np.ndarray) -> None:
        with pytest.raises(InvalidConfigError, match="8 finite numbers"):
            robot_proprio(proprio, "widowx")

    def test_unknown_robot(self) -> None:
        with pytest.raises(UnknownNameError, match="widowx"):
            robot_proprio(np.ones(8), "widow")


class TestProcessor:
    def observations(self, lanes: int = 3) -> dict[str, object]:
        rng = np.random.default_rng(1)
        return {
            "image": rng.integers(0, 256, (lanes, 48, 64, 3), np.uint8),
            "proprio": rng.uniform(0.1, 0.4, (lanes, 8)).astype(np.float32),
            "instruction": tuple("abc"[:lanes]),
        }

    @pytest.mark.parametrize(("robot", "dims"), [("widowx", 7), ("google_robot", 8)])
    def test_shapes_and_types(self, robot: str, dims: int) -> None:
        inputs = processor(robot).inputs(self.observations())
        assert inputs.pixel_values.shape == (3, 3, 28, 28)
        assert inputs.input_ids.shape == (3, 32)
        assert inputs.input_ids.dtype == torch.int64
        assert inputs.proprio.shape == (3, dims)
        assert inputs.proprio.dtype == inputs.pixel_values.dtype == torch.float32
        assert inputs.proprio.abs().max() <= 1

    def test_rows_do_not_depend_on_their_company(self) -> None:
        observations = self.observations()
        whole = processor().inputs(observations)
        alone = processor().inputs({name: value[1:2] for name, value in observations.items()})  # type: ignore[index]
        for a, b in zip(whole, alone, strict=True):
            assert torch.equal(a[1:2], b)

    def test_actions_are_denormalised_then_turned_into_axis_angle(self) -> None:
        bounds = np.array([BRIDGE.action.p01, BRIDGE.action.p99])[:, 3:6]
        euler = np.array([0.05, -0.06, 0.15])
        normal = np.zeros(7)
        normal[3:6] = 2 * (euler - bounds[0]) / (bounds[1] - bounds[0]) - 1
        normal[6] = 0.3
        action = processor().arm_actions(normal)
        from scipy.spatial.transform import Rotation

        np.testing.assert_allclose(action[3:6], Rotation.from_euler("xyz", euler).as_rotvec(), atol=1e-12)
        np.testing.assert_allclose(action[:3], BRIDGE.denormalize_action(np.zeros(7))[:3], atol=1e-12)
        assert action[6] == 0.3

    @pytest.mark.parametrize("robot", ["widowx", "google_robot"])
    def test_labels_undo_actions(self, robot: str) -> None:
        normal = np.random.default_rng(2).uniform(-1, 1, (20, 4, 7))
        tool = processor(robot)
        np.testing.assert_allclose(tool.labels(tool.arm_actions(normal)), normal, atol=1e-6)

    def test_statistics_of_the_other_robot(self) -> None:
        with pytest.raises(InvalidConfigError, match="7 proprioceptive dimensions; these have 8"):
            Processor(small_prompt(), ResizeImage(28), "widowx", FRACTAL)

    def test_vlaser_template_says_none(self) -> None:
        assert VLASER_TEMPLATE.startswith("<|im_start|>system\nNone<|im_end|>\n")
