"""A policy of ``examples/lerobot_server.py`` with LeRobot's own classes: made, served, asked once, and once in process.

Its tokenizer, and SmolVLA's settings, would come from the hub: small ones of our own lie under those names in the
working folder, where they are found first. Arguments: ``pi0``, ``smolvla`` or ``xvla``.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from lerobot.policies.pi0 import modeling_pi0
from served import served
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    SmolVLMConfig,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)

from examples.lerobot_server import make_random
from vlaser_gym.agents.lerobot import LeRobotAgent
from vlaser_gym.agents.remote import RemoteAgent
from vlaser_gym.envs.address import Address

NAMES = {
    "pi0": "google/paligemma-3b-pt-224",
    "smolvla": "HuggingFaceTB/SmolVLM2-500M-Video-Instruct",
    "xvla": "facebook/bart-large",
}
#: SmolVLM's words for pictures.
PICTURES = {
    **{"image_token": "<image>", "fake_image_token": "<fake>"},
    **{"global_image_token": "<global>", "end_of_utterance_token": "<end>"},
}
SEEN = {
    "image": np.random.default_rng(0).integers(0, 255, (1, 480, 640, 3)).astype(np.uint8),
    "proprio": np.array([[0.25, 0.1, 0.2, 1, 0, 0, 0, 1]], np.float32),
    "instruction": ("stack the cube",),
}


def write_tokenizer(folder):
    words = ["<pad>", "<s>", "</s>", *PICTURES.values(), *sorted(pre_tokenizers.ByteLevel.alphabet())]
    made = Tokenizer(models.BPE({word: number for number, word in enumerate(words)}, []))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", bos_token="<s>", eos_token="</s>", extra_special_tokens=PICTURES
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def write_smolvlm(folder, tokenizer):
    processor = SmolVLMProcessor(
        SmolVLMImageProcessor(), tokenizer, SmolVLMVideoProcessor(), chat_template="{{ messages }}"
    )
    processor.save_pretrained(folder)
    text = {
        **{"model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "head_dim": 16},
        **{"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": len(tokenizer)},
    }
    vision = {
        **{"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2},
        **{"image_size": 512, "patch_size": 32},
    }
    SmolVLMConfig(text_config=text, vision_config=vision, scale_factor=4, image_token_id=3).save_pretrained(folder)


def flatten_pi0():
    """Two layers instead of 18; a billion numbers are left, in its vocabulary and in its eye."""
    settings = modeling_pi0.get_gemma_config

    def of_two_layers(variant):
        made = settings(variant)
        made.depth, made.mlp_dim = 2, 64
        return made

    modeling_pi0.get_gemma_config = of_two_layers


def main(kind, folder):
    tokenizer = write_tokenizer(NAMES[kind])
    if kind == "smolvla":
        write_smolvlm(NAMES[kind], tokenizer)
    if kind == "pi0":
        flatten_pi0()
    make_random(kind, Path(folder))
    lane, place = np.array([0]), [Address("widowx_stack_cube", layout="grid:3")]
    here = LeRobotAgent(folder)
    here.reset(lane, place)
    expected = here.act(SEEN, lane)
    with served(LeRobotAgent(folder), kind) as url:
        there = RemoteAgent(url, timeout=600)
        there.reset(lane, place)
        np.testing.assert_array_equal(there.act(SEEN, lane), expected)
        there.close()
    assert expected.shape == (1, 4, 7)
    assert np.isfinite(expected).all()


if __name__ == "__main__":
    with TemporaryDirectory() as made:
        main(sys.argv[1], made)
