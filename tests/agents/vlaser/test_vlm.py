"""The talking model at toy size: tiles, prompts, loading and generation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from fabricate_vlm import SPECIAL_IDS, vlm_config, vlm_weights, write_vlm
from PIL import Image

from vlaser_gym.agents.vlaser.chat import SYSTEM_MESSAGE, chat_prompt
from vlaser_gym.agents.vlaser.tokenizer import IMAGE, QwenTokenizer
from vlaser_gym.agents.vlaser.vlm import Vlm, VlmConfig, tile_grid, tiles
from vlaser_gym.errors import InvalidConfigError, MissingAssetError

IMAGE_ID, END_ID = SPECIAL_IDS["<IMG_CONTEXT>"], SPECIAL_IDS["<|im_end|>"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vlm(tmp_path_factory.mktemp("vlm"))


@pytest.fixture(scope="module")
def vlm(folder: Path) -> Vlm:
    return Vlm.from_folder(folder)


def picture(width: int, height: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


class TestTiles:
    @pytest.mark.parametrize(
        ("size", "grid"),
        [
            # 4:3; of 4/3 = 1.333 the closest i/j with i * j <= 12 is 4/3 itself.
            ((640, 480), (4, 3)),
            # 5:4; 4/3 is 0.083 away, 1 is 0.25 away.
            ((640, 512), (4, 3)),
            ((448, 448), (1, 1)),
            # Square and larger than half of 2 x 2 tiles (401,408 pixels), and of 3 x 3 (903,168).
            ((640, 640), (2, 2)),
            ((960, 960), (3, 3)),
            # 2:1; 2/1 and 4/2 are both exact: 500,000 pixels are not more than half of 4 x 2 tiles (802,816).
            ((1000, 500), (2, 1)),
            ((1280, 640), (4, 2)),
            # 3:4 and a long strip.
            ((480, 640), (3, 4)),
            ((5000, 100), (12, 1)),
            ((100, 5000), (1, 12)),
        ],
    )
    def test_grid(self, size: tuple[int, int], grid: tuple[int, int]) -> None:
        assert tile_grid(*size) == grid

    def test_grid_of_six(self) -> None:
        """The pointing benchmarks' limit: 4:3 lies 0.167 from 3/2 and 0.333 from 1."""
        assert tile_grid(640, 480, max_tiles=6) == (3, 2)

    @pytest.mark.parametrize(("size", "count"), [((640, 480), 13), ((448, 448), 1), ((1000, 500), 3)])
    def test_count_includes_the_thumbnail(self, size: tuple[int, int], count: int) -> None:
        assert tiles(picture(*size)).shape == (count, 448, 448, 3)

    def test_tiles_are_cut_row_by_row_from_the_bicubic_picture(self) -> None:
        image = picture(120, 80)
        cut = tiles(image, max_tiles=6, tile=56)
        assert len(cut) == 7
        whole = Image.fromarray(image).resize((168, 112), Image.Resampling.BICUBIC)
        for number in range(6):
            x, y = 56 * (number % 3), 56 * (number // 3)
            np.testing.assert_array_equal(cut[number], np.asarray(whole.crop((x, y, x + 56, y + 56))))
        thumbnail = Image.fromarray(image).resize((56, 56), Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(cut[6], np.asarray(thumbnail))

    def test_wrong_picture(self) -> None:
        with pytest.raises(InvalidConfigError, match="uint8 of shape"):
            tiles(np.zeros((4, 4)))  # type: ignore[arg-type]


class TestPrompt:
    def test_one_picture_goes_before_the_question(self) -> None:
        assert chat_prompt("Where?", [2], system="S") == (
            "<|im_start|>system\nS<|im_end|>\n"
            "<|im_start|>user\n<img><IMG_CONTEXT><IMG_CONTEXT></img>\nWhere?<|im_end|>\n"
            "<|im_start|>assistant\n"
        )

    def test_placeholders_say_where(self) -> None:
        text = chat_prompt("Is <image> like <image>?", [1, 2], system="S")
        assert f"Is <img>{IMAGE}</img> like <img>{IMAGE * 2}</img>?" in text

    def test_several_pictures_are_numbered_lines(self) -> None:
        text = chat_prompt("Same?", [1, 1], system="S")
        assert f"user\nImage-1: <img>{IMAGE}</img>\nImage-2: <img>{IMAGE}</img>\nSame?" in text

    def test_history_is_replayed(self) -> None:
        text = chat_prompt("And now?", [1], system="S", history=[("What?", "A can."), ("Where?", "Left.")])
        assert text == (
            "<|im_start|>system\nS<|im_end|>\n"
            f"<|im_start|>user\n<img>{IMAGE}</img>\nWhat?<|im_end|>\n<|im_start|>assistant\nA can.<|im_end|>\n"
            "<|im_start|>user\nWhere?<|im_end|>\n<|im_start|>assistant\nLeft.<|im_end|>\n"
            "<|im_start|>user\nAnd now?<|im_end|>\n<|im_start|>assistant\n"
        )

    def test_stock_system_message(self) -> None:
        assert chat_prompt("Q", [1]).startswith(f"<|im_start|>system\n{SYSTEM_MESSAGE}<|im_end|>\n")

    def test_placeholders_and_pictures_differ(self) -> None:
        with pytest.raises(InvalidConfigError, match="2 times for 1 images"):
            chat_prompt("<image> <image>", [1])

    @pytest.mark.golden
    def test_real_tokenizer_keeps_the_count(self, shared: Path) -> None:
        tokenizer = QwenTokenizer(shared / "assets" / "internvl3_tokenizer")
        ids = tokenizer.encode(chat_prompt("Where?", [13 * 256]))
        assert ids.count(151667) == 3328
        assert ids[-3:] == [151644, 77091, 198]
        assert tokenizer.decode(ids) == chat_prompt("Where?", [13 * 256])


class TestLoading:
    def test_weights_are_those_of_the_file(self, vlm: Vlm) -> None:
        loaded = vlm.model.state_dict()
        weights = vlm_weights()
        assert set(loaded) == set(weights)
        for name, tensor in weights.items():
            torch.testing.assert_close(loaded[name], tensor.float(), rtol=0, atol=0)

    def test_shards_give_the_same_answer(self, vlm: Vlm, tmp_path: Path) -> None:
        sharded = Vlm.from_folder(write_vlm(tmp_path, shards=3))
        images = [picture(60, 60)]
        assert sharded.ask(images, "hi", max_new_tokens=12) == vlm.ask(images, "hi", max_new_tokens=12)

    def test_rotary_table(self, vlm: Vlm) -> None:
        frequencies = vlm.model.language_model.model.rotary_emb.inv_freq
        expected = 1e6 ** -(torch.arange(0, 8, 2) / 8)
        torch.testing.assert_close(frequencies, expected)

    def test_bf16_keeps_fp32_rotary_tables(self, folder: Path) -> None:
        model = Vlm.from_folder(folder, dtype=torch.bfloat16)
        assert next(model.model.parameters()).dtype == torch.bfloat16
        assert model.model.language_model.model.rotary_emb.inv_freq.dtype == torch.float32
        assert isinstance(model.ask([picture(60, 60)], "hi", max_new_tokens=4), str)

    def test_tied_embeddings(self, tmp_path: Path) -> None:
        config = vlm_config()
        config["llm_config"]["tie_word_embeddings"] = True
        write_vlm(tmp_path, llm_config=config["llm_config"])
        model = Vlm.from_folder(tmp_path).model.language_model
        assert torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)

    @pytest.mark.parametrize(
        ("changes", "sentence"),
        [
            ({"model_type": "qwen2"}, "model_type should be 'internvl_chat'"),
            ({"ps_version": "v1"}, "ps_version should be 'v2'"),
            ({"vision_config": {**vlm_config()["vision_config"], "qk_normalization": True}}, "qk_normalization"),
            ({"llm_config": {"architectures": ["LlamaForCausalLM"]}}, "Qwen2ForCausalLM"),
        ],
    )
    def test_other_architectures_are_refused(self, tmp_path: Path, changes: dict[str, object], sentence: str) -> None:
        (tmp_path / "config.json").write_text(json.dumps(vlm_config(**changes)))
        with pytest.raises(InvalidConfigError, match=sentence):
            VlmConfig.load(tmp_path)

    def test_absent_config(self, tmp_path: Path) -> None:
        with pytest.raises(MissingAssetError, match="configuration of an InternVL chat model"):
            Vlm.from_folder(tmp_path)

    def test_absent_weights(self, tmp_path: Path) -> None:
        (write_vlm(tmp_path) / "model.safetensors").unlink()
        with pytest.raises(MissingAssetError, match="safetensors"):
            Vlm.from_folder(tmp_path)

    def test_absent_shard(self, tmp_path: Path) -> None:
        (write_vlm(tmp_path, shards=2) / "model-00002-of-00002.safetensors").unlink()
        with pytest.raises(MissingAssetError, match="model-00002-of-00002"):
            Vlm.from_folder(tmp_path)

    def test_truncated_weights(self, tmp_path: Path) -> None:
        file = write_vlm(tmp_path) / "model.safetensors"
        file.write_bytes(file.read_bytes()[:5000])
        with pytest.raises(MissingAssetError, match="is damaged"):
            Vlm.from_folder(tmp_path)

    def test_weights_of_another_size(self, tmp_path: Path) -> None:
        write_vlm(tmp_path, vision_config={**vlm_config()["vision_config"], "intermediate_size": 64})
        with pytest.raises(MissingAssetError, match=r"fc1\.weight: expected \[64, 16\], got \[32, 16\]"):
            Vlm.from_folder(tmp_path)


class TestGeneration:
    def embedded(self, vlm: Vlm, images: int = 1) -> torch.Tensor:
        torch.manual_seed(0)
        pixels = torch.randn(images, 3, 56, 56)
        ids = vlm.tokenizer.encode(chat_prompt("where", [4] * images, system="S"))
        return vlm.model.embed(torch.tensor([ids]), pixels, IMAGE_ID).detach()

    def uncached(self, vlm: Vlm, embedded: torch.Tensor, count: int) -> list[int]:
        """Greedy choice with the whole sequence read again for every token."""
        ids: list[int] = []
        for _ in range(count):
            logits = vlm.model.language_model(inputs_embeds=embedded, use_cache=False).logits
            ids.append(int(logits[0, -1].argmax()))
            new = vlm.model.language_model.get_input_embeddings()(torch.tensor([ids[-1:]]))
            embedded = torch.cat([embedded, new], dim=1)
        return ids

    def test_equals_an_uncached_greedy_loop(self, vlm: Vlm) -> None:
        embedded = self.embedded(vlm)
        with torch.inference_mode():
            expected = self.uncached(vlm, embedded, 40)
        assert len(set(expected)) > 5
        unused = next(i for i in range(vlm.model.language_model.config.vocab_size) if i not in expected)
        assert vlm.model.generate(embedded, 40, end_id=unused) == [expected]

    def test_stops_at_the_end_token(self, vlm: Vlm) -> None:
        embedded = self.embedded(vlm)
        with torch.inference_mode():
            expected = self.uncached(vlm, embedded, 20)
        stop = expected[10]
        assert vlm.model.generate(embedded, 20, end_id=stop) == [expected[: expected.index(stop) + 1]]

    def test_every_tile_gets_its_own_features_in_order(self, vlm: Vlm) -> None:
        pixels = torch.randn(3, 3, 56, 56, generator=torch.Generator().manual_seed(1))
        ids = torch.tensor([[5, *[IMAGE_ID] * 8, 6, *[IMAGE_ID] * 4]])
        embedded = vlm.model.embed(ids, pixels, IMAGE_ID)
        features = [vlm.model.mlp1(vlm.model.vision_model(tile[None]))[0] for tile in pixels]
        torch.testing.assert_close(embedded[0, 1:9], torch.cat(features[:2]), rtol=0, atol=1e-5)
        torch.testing.assert_close(embedded[0, 10:], features[2], rtol=0, atol=1e-5)
        table = vlm.model.language_model.get_input_embeddings().weight
        torch.testing.assert_close(embedded[0, [0, 9]], table[[5, 6]], rtol=0, atol=0)


class TestAsk:
    def test_the_prompt_that_the_model_reads(self, vlm: Vlm, monkeypatch: pytest.MonkeyPatch) -> None:
        seen = {}
        monkeypatch.setattr(
            vlm.model,
            "embed",
            lambda ids, pixels, image_id: seen.update(ids=ids, pixels=pixels) or torch.zeros(1, 1, 32),
        )
        monkeypatch.setattr(vlm.model, "generate", lambda *_: [vlm.tokenizer.encode(" a ca <|im_end|> more")])
        answer = vlm.ask([picture(120, 80), picture(50, 50)], "same?", max_tiles=6, max_new_tokens=3)
        assert answer == "a ca"
        assert seen["pixels"].shape == (8, 3, 56, 56)
        assert (seen["ids"] == IMAGE_ID).sum() == 32

    def test_the_answer_depends_on_picture_and_question(self, vlm: Vlm) -> None:
        answers = {
            vlm.ask([picture(60, 60, seed)], question, max_new_tokens=20)
            for seed in (0, 1)
            for question in ("where", "what is it")
        }
        assert len(answers) == 4

    def test_image_tokens_in_a_question(self, vlm: Vlm) -> None:
        with pytest.raises(InvalidConfigError, match="plain text"):
            vlm.ask([picture(60, 60)], "<IMG_CONTEXT>")
