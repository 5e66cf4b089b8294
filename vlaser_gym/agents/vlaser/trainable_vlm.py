"""InternVL's chat models as something that learners can train: they answer, and cannot act."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vlaser_gym.agents.text_rows import Pictures, TextRows, TextSample
from vlaser_gym.agents.trainable import TrainableAgent
from vlaser_gym.agents.vlaser.adapters import adapted_layers, inject_adapters, merged_state_dict
from vlaser_gym.agents.vlaser.chat import SYSTEM_MESSAGE, chat_prompt
from vlaser_gym.agents.vlaser.checkpoint import CONFIG_FILE, WEIGHTS_FILE, write_safetensors
from vlaser_gym.agents.vlaser.language import at_least_fp32
from vlaser_gym.agents.vlaser.processor import normalize_pixels
from vlaser_gym.agents.vlaser.tokenizer import IMAGE
from vlaser_gym.agents.vlaser.transformers_layout import as_chat_config, is_transformers_layout
from vlaser_gym.agents.vlaser.vlm import VisionLanguageModel, Vlm, tile_grid, tiles
from vlaser_gym.errors import InvalidConfigError, UnknownNameError
from vlaser_gym.storage.files import write_whole

#: Tokens of images, question and answer together: an image of 12 tiles and its thumbnail takes 3328.
REASONING_LENGTH = 4096
_LANGUAGE = "model.language_model"
_PARTS = {
    "vision": ("model.vision_model", "model.mlp1"),
    "embedding": (f"{_LANGUAGE}.model.embed_tokens",),
    "language": (f"{_LANGUAGE}.model.layers", f"{_LANGUAGE}.model.norm"),
    "head": (f"{_LANGUAGE}.lm_head",),
}


class TrainableVlm(TrainableAgent):
    """An InternVL chat model for ``algo=vlm``.

    Args:
        vlm: its weights change in place.
        config: the ``config.json`` of its folder, in OpenGVLab's layout.
        length: see :attr:`reasoning_length`.
        max_tiles: tiles of an image at most, thumbnail not counted; by default the checkpoint's.
    """

    parts = _PARTS

    def __init__(self, vlm: Vlm, config: Mapping[str, Any], length: int | None, max_tiles: int | None) -> None:
        super().__init__()
        self.vlm, self.model, self.folder_config = vlm, vlm.model, dict(config)
        self.length = length or REASONING_LENGTH
        self.max_tiles = max_tiles or vlm.config.max_tiles

    @classmethod
    def from_folder(
        cls, folder: str | Path, device: str, length: int | None = None, max_tiles: int | None = None
    ) -> Self:
        """Load from a folder in OpenGVLab's layout or in that of ``transformers``; fp32.

        Raises:
            MissingAssetError, InvalidConfigError: as :meth:`Vlm.from_folder`.
        """
        file = Path(folder) / CONFIG_FILE
        vlm = Vlm.from_folder(folder, device)
        config = json.loads(file.read_text(encoding="utf-8"))
        config = as_chat_config(config, file) if is_transformers_layout(config) else config
        return cls(vlm, config, length, max_tiles)

    # ------------------------------------------------------------------ answers

    @property
    def reasoning_length(self) -> int:
        """See :class:`TrainableAgent`."""
        return self.length

    @property
    def pad_id(self) -> int:
        """See :class:`TrainableAgent`."""
        return self.vlm.tokenizer.pad_id

    def picture_tokens(self, width: int, height: int) -> int:
        """See :class:`TrainableAgent`: of its tiles and, where there are several, of the thumbnail."""
        vision = self.vlm.config.vision
        columns, rows = tile_grid(width, height, self.vlm.config.min_tiles, self.max_tiles, vision.image_size)
        count = columns * rows
        return (count + (count > 1)) * vision.num_image_tokens

    def picture_tiles(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """See :class:`TrainableAgent`."""
        return tiles(image, self.vlm.config.min_tiles, self.max_tiles, self.vlm.config.vision.image_size)

    def text_sample(
        self, question: str, answer: str, image_tokens: Sequence[int], history: Sequence[tuple[str, str]] = ()
    ) -> TextSample:
        """See :class:`TrainableAgent`; with the system message that the released models were trained with."""
        tokenizer = self.vlm.tokenizer
        ids = tokenizer.encode(chat_prompt(question, image_tokens, SYSTEM_MESSAGE, history))
        if ids.count(tokenizer.image_id) != sum(image_tokens):
            raise InvalidConfigError(f"Questions are plain text without {IMAGE}; got {question!r}.")
        return TextSample(ids, [*tokenizer.encode(answer), tokenizer.end_id])

    def answer_loss(self, pictures: Pictures | None, rows: TextRows) -> Tensor:
        """See :class:`TrainableAgent`; every token sees what stands before it."""
        rows, language = rows.to(self.device), self.model.language_model
        embedded: Tensor = language.get_input_embeddings()(rows.input_ids)
        if pictures is not None:
            pixels = normalize_pixels(pictures.tiles.to(self.device)).to(embedded.dtype)
            features = self.model.mlp1(self.model.vision_model(pixels))[pictures.index.to(self.device)].flatten(0, 1)
            places = (rows.input_ids == self.vlm.tokenizer.image_id)[..., None]
            embedded = embedded.masked_scatter(places, features.to(embedded.dtype))
        visible = rows.visible(prefix=False)
        mask = torch.zeros_like(visible, dtype=embedded.dtype).masked_fill(~visible, torch.finfo(embedded.dtype).min)
        found = language.model(
            inputs_embeds=embedded, attention_mask=mask[:, None], position_ids=rows.positions, use_cache=False
        )
        return rows.loss(found.last_hidden_state, language.lm_head)

    # ------------------------------------------------------------------ what is trained

    def freeze(self, *parts: str) -> None:
        """See :class:`TrainableAgent`."""
        self.model.requires_grad_(True)
        for part in parts:
            if part not in self.parts:
                raise UnknownNameError("part of the model", part, self.parts)
            for name in self.parts[part]:
                self.get_submodule(name).requires_grad_(False)

    def add_adapters(self, rank: int, frozen: Sequence[str], seed: int, whole: Sequence[str] = ()) -> None:
        """See :class:`TrainableAgent`: on the linear layers of vision and language."""
        self.freeze(*(part for part in self.parts if part in frozen or part not in whole))
        roots = [n for part in ("vision", "language") if part not in (*frozen, *whole) for n in self.parts[part]]
        named = [pair for root in roots for pair in self.get_submodule(root).named_modules(prefix=root)]
        targets = [name.removeprefix("model.") for name, module in named if isinstance(module, nn.Linear)]
        if targets:
            inject_adapters(self.model, targets, rank=rank, seed=seed)
            for part in set(whole) - set(frozen):
                for name in self.parts[part]:
                    self.get_submodule(name).requires_grad_(True)
        for name, parameter in self.model.named_parameters():
            if ".lora_" in name:
                parameter.data = parameter.data.to(at_least_fp32(parameter.dtype))

    @property
    def has_adapters(self) -> bool:
        """See :class:`TrainableAgent`."""
        return any(True for _ in adapted_layers(self.model))

    def frozen_copy(self) -> Self:
        """See :class:`TrainableAgent`; adapters are added in."""
        with torch.device("meta"):
            model = VisionLanguageModel(self.vlm.config)
        model.load_state_dict(
            {name: value.clone() for name, value in merged_state_dict(self.model).items()}, assign=True
        )
        model.language_model.model.rotary_emb = self.model.language_model.model.rotary_emb
        copied = type(self)(
            Vlm(model.eval(), self.vlm.config, self.vlm.tokenizer), self.folder_config, self.length, self.max_tiles
        )
        copied.requires_grad_(False)
        return copied.eval()

    def save(self, folder: Path) -> None:
        """Write a folder in OpenGVLab's layout, which policies are grown from and ``reason`` asks."""
        weights = merged_state_dict(self.model)
        if self.model.language_model.config.tie_word_embeddings:
            del weights["language_model.lm_head.weight"]
        folder.mkdir(parents=True, exist_ok=True)
        self.vlm.tokenizer.save(folder)
        write_safetensors(folder / WEIGHTS_FILE, weights)
        write_whole(folder / CONFIG_FILE, (json.dumps(self.folder_config, indent=2) + "\n").encode())

    # ------------------------------------------------------------------ how it fits into memory

    def layers(self) -> list[nn.Module]:
        """See :class:`TrainableAgent`: of the vision transformer and of the language model."""
        return [*self.model.vision_model.encoder.layers, *self.model.language_model.model.layers]

    def narrow(self, dtype: torch.dtype) -> None:
        """See :class:`TrainableAgent`; angles of positions stay fp32."""
        rotary = self.model.language_model.model.rotary_emb
        self.model.language_model.model.rotary_emb = None
        self.model.to(dtype)
        self.model.language_model.model.rotary_emb = rotary

    def set_gradient_checkpointing(self, *parts: str) -> None:
        """See :class:`TrainableAgent`."""
        for part in parts:
            if part not in ("vision", "language"):
                raise UnknownNameError("part whose layers are recomputed", part, ("vision", "language"))
        self.model.vision_model.encoder.gradient_checkpointing = "vision" in parts
        if "language" in parts:
            self.model.language_model.gradient_checkpointing_enable({"use_reentrant": False})

    def is_vision_language(self, name: str) -> bool:
        """See :class:`TrainableAgent`."""
        return True

    # ------------------------------------------------------------------ it does not act

    def _cannot_act(self) -> NoReturn:
        raise InvalidConfigError("A vision-language model answers and cannot act: train a policy from it by algo=sft.")

    def transform(self, observations: Any) -> dict[str, NDArray[Any]]:
        """See :class:`TrainableAgent`."""
        self._cannot_act()

    def normalize_actions(self, actions: NDArray[Any]) -> NDArray[Any]:
        """See :class:`TrainableAgent`."""
        self._cannot_act()

    def make_decoder(self) -> NoReturn:
        """See :class:`TrainableAgent`."""
        self._cannot_act()

    def encode(self, inputs: Any) -> NoReturn:
        """See :class:`TrainableAgent`."""
        self._cannot_act()

    def draw(self, count: int, generator: torch.Generator) -> NoReturn:
        """See :class:`TrainableAgent`."""
        self._cannot_act()

    def sample(self, encoding: Any, inputs: Any, draws: Any, *, with_value: bool = False) -> NoReturn:
        """See :class:`TrainableAgent`."""
        self._cannot_act()

    def log_prob(self, encoding: Any, inputs: Any, latent: Any, *, with_value: bool) -> NoReturn:
        """See :class:`TrainableAgent`."""
        self._cannot_act()

    def value_features(self, encoding: Any, inputs: Any) -> Tensor:
        """See :class:`TrainableAgent`."""
        self._cannot_act()

    def imitation_draws(self, count: int, samples: int, generator: torch.Generator) -> NoReturn:
        """See :class:`TrainableAgent`."""
        self._cannot_act()

    def imitation_error(self, encoding: Any, inputs: Any, chunk: Tensor, draws: Any) -> Tensor:
        """See :class:`TrainableAgent`."""
        self._cannot_act()
