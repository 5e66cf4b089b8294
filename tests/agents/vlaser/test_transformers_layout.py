"""InternVL in both layouts against ``transformers``' own model, and several questions at once against one by one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fabricate_vlm import SPECIAL_IDS, vlm_weights, write_tokenizer, write_vlm
from safetensors.torch import save_file

from vlaser_gym.agents.vlaser.chat import Request
from vlaser_gym.agents.vlaser.vlm import Vlm
from vlaser_gym.errors import InvalidConfigError

IMAGE_ID = SPECIAL_IDS["<IMG_CONTEXT>"]
VOCABULARY = max(SPECIAL_IDS.values()) + 1


def their_config(**vision: Any) -> Any:
    from transformers import InternVLConfig

    return InternVLConfig(
        vision_config={
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "patch_size": [14, 14],
            "image_size": [56, 56],
            "attention_bias": True,
            **vision,
        },
        text_config={
            "model_type": "qwen2",
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "rms_norm_eps": 1e-6,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
            "vocab_size": VOCABULARY,
        },
        image_token_id=IMAGE_ID,
        image_seq_length=4,
        tie_word_embeddings=False,
    )


@pytest.fixture(scope="module")
def theirs() -> Any:
    from transformers import InternVLForConditionalGeneration

    torch.manual_seed(3)
    model = InternVLForConditionalGeneration(their_config()).eval()
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.3 + float("norm.weight" in name))
    return model


def their_names(model: Any) -> dict[str, torch.Tensor]:
    """Weights as OpenGVLab's layout has them, translated here by hand, tensor by tensor."""
    state = model.state_dict()
    ours = {
        "vision_model.embeddings.class_embedding": state["model.vision_tower.embeddings.cls_token"],
        "vision_model.embeddings.position_embedding": state["model.vision_tower.embeddings.position_embeddings"],
        "language_model.lm_head.weight": state["lm_head.weight"],
    }
    projection = "model.vision_tower.embeddings.patch_embeddings.projection"
    for end in ("weight", "bias"):
        ours[f"vision_model.embeddings.patch_embedding.{end}"] = state[f"{projection}.{end}"]
        for number, name in ((0, "layer_norm"), (1, "linear_1"), (3, "linear_2")):
            ours[f"mlp1.{number}.{end}"] = state[f"model.multi_modal_projector.{name}.{end}"]
    for i in range(2):
        old, new = f"model.vision_tower.encoder.layer.{i}.", f"vision_model.encoder.layers.{i}."
        ours[f"{new}ls1"], ours[f"{new}ls2"] = state[f"{old}lambda_1"], state[f"{old}lambda_2"]
        for end in ("weight", "bias"):
            qkv = [state[f"{old}attention.{x}_proj.{end}"] for x in "qkv"]
            ours[f"{new}attn.qkv.{end}"] = torch.cat(qkv)
            ours[f"{new}attn.proj.{end}"] = state[f"{old}attention.projection_layer.{end}"]
            ours[f"{new}norm1.{end}"] = state[f"{old}layernorm_before.{end}"]
            ours[f"{new}norm2.{end}"] = state[f"{old}layernorm_after.{end}"]
            for part in ("fc1", "fc2"):
                ours[f"{new}mlp.{part}.{end}"] = state[f"{old}mlp.{part}.{end}"]
    for name, weight in state.items():
        if name.startswith("model.language_model."):
            ours[name.replace("model.language_model.", "language_model.model.", 1)] = weight
    return {name: weight.clone() for name, weight in ours.items()}


def logits(vlm: Vlm, ids: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return vlm.model.language_model(inputs_embeds=vlm.model.embed(ids, pixels, IMAGE_ID)).logits


def sample() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    pixels = torch.randn(3, 3, 56, 56, generator=generator)
    return torch.tensor([[7, 3, *[IMAGE_ID] * 8, 6, 9, *[IMAGE_ID] * 4, 20, 21, 5]]), pixels


@pytest.mark.parametrize("prefix", ["version 5", "version 4"])
def test_logits_of_a_folder_of_transformers(theirs: Any, tmp_path: Path, prefix: str) -> None:
    write_tokenizer(tmp_path)
    if prefix == "version 5":
        theirs.save_pretrained(tmp_path)
    else:  # as InternVL3-1B-hf has them: the head inside the language model, nothing before the towers
        (tmp_path / "config.json").write_text(json.dumps(their_config().to_dict(), default=str))
        old = {}
        for name, weight in theirs.state_dict().items():
            plain = name.removeprefix("model.")
            plain = plain.replace("language_model.", "language_model.model.", 1)
            old["language_model.lm_head.weight" if plain == "lm_head.weight" else plain] = weight.clone()
        save_file(old, tmp_path / "model.safetensors")
    ids, pixels = sample()
    with torch.inference_mode():
        expected = theirs(input_ids=ids, pixel_values=pixels).logits
    got = logits(Vlm.from_folder(tmp_path), ids, pixels)
    assert expected.std() > 0.1
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4)


def test_logits_of_a_folder_of_opengvlab(theirs: Any, tmp_path: Path) -> None:
    folder = write_vlm(tmp_path / "chat")
    save_file(their_names(theirs), folder / "model.safetensors")
    assert set(their_names(theirs)) == set(vlm_weights())
    ids, pixels = sample()
    with torch.inference_mode():
        expected = theirs(input_ids=ids, pixel_values=pixels).logits
    torch.testing.assert_close(logits(Vlm.from_folder(folder), ids, pixels), expected, rtol=0, atol=1e-4)


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(their_config(use_mean_pooling=False).to_dict(), default=str))
    with pytest.raises(InvalidConfigError, match="use_mean_pooling should be True"):
        Vlm.from_folder(tmp_path)


def test_eight_questions_at_once_are_answered_as_one_by_one(tmp_path: Path) -> None:
    vlm = Vlm.from_folder(write_vlm(tmp_path))
    rng = np.random.default_rng(0)
    shapes = [(56, 56), (60, 120), (100, 40), (56, 56), (80, 90), (56, 56), (30, 40), (56, 56)]
    pictures = [rng.integers(0, 256, (*shape, 3), np.uint8) for shape in shapes]
    texts = ["where", "what is it", "a", "how many cans are there", "is it open?", "b", "point to ca", "c"]
    requests = [Request(text, [picture]) for text, picture in zip(texts, pictures, strict=True)]
    requests[5] = Request("a question without an image")
    together = vlm.replies(requests, max_tiles=4, max_new_tokens=24)
    alone = [vlm.replies([request], max_tiles=4, max_new_tokens=24)[0] for request in requests]
    assert together == alone
    assert len({reply.text for reply in alone}) > 5
    assert all(reply.cut for reply in alone), "these weights never end an answer"
