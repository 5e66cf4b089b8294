"""The embodied-reasoning mode: a vision-language checkpoint answers questions about images.

InternVL's chat model as Vlaser uses it (OpenGVLab/Vlaser 40d7821; InternVL3): dynamic tiling, ChatML prompt, causal
Qwen2 language model, greedy answers. The weights are those of a plain VLM (``vision_model.*``, ``mlp1.*``,
``language_model.*``); a released policy checkpoint cannot talk, because training it changed the model's attention.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import Qwen2Config, Qwen2ForCausalLM
from transformers.models.qwen2.modeling_qwen2 import Qwen2RotaryEmbedding

from vlaser_gym.agents.vlaser.chat import SYSTEM_MESSAGE, Reply, Request, chat_prompt
from vlaser_gym.agents.vlaser.config import VlaserConfig
from vlaser_gym.agents.vlaser.processor import normalize_pixels
from vlaser_gym.agents.vlaser.tokenizer import IM_END, IMAGE, QwenTokenizer, Tokenizer
from vlaser_gym.agents.vlaser.transformers_layout import as_chat_config, as_chat_weights, is_transformers_layout
from vlaser_gym.agents.vlaser.vision import VisionEncoder, make_projector
from vlaser_gym.errors import InvalidConfigError, MissingAssetError


def tile_grid(width: int, height: int, min_tiles: int = 1, max_tiles: int = 12, tile: int = 448) -> tuple[int, int]:
    """Columns and rows of the tiling whose shape is closest to the image's.

    Of two grids equally close, the larger one is taken if the image has more than half of its pixels.

    Args:
        width, height: image (pixels).
        min_tiles, max_tiles: limits of columns times rows.
        tile: side of a tile (pixels).
    """
    counts = range(1, max_tiles + 1)
    grids = [(i, j) for i in counts for j in counts if min_tiles <= i * j <= max_tiles]
    best, best_gap = (1, 1), float("inf")
    for i, j in sorted(grids, key=lambda grid: grid[0] * grid[1]):
        gap = abs(width / height - i / j)
        if gap < best_gap or (gap == best_gap and width * height > 0.5 * tile**2 * i * j):
            best, best_gap = (i, j), gap
    return best


def tiles(image: NDArray[np.uint8], min_tiles: int = 1, max_tiles: int = 12, tile: int = 448) -> NDArray[np.uint8]:
    """Cut an image ``[H, W, 3]`` into tiles ``[T, tile, tile, 3]``, row by row; behind several comes a thumbnail."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3 or 0 in image.shape:
        raise InvalidConfigError(f"An image is uint8 of shape [H, W, 3]; got {image.dtype}, {list(image.shape)}.")
    picture = Image.fromarray(image)
    columns, rows = tile_grid(*picture.size, min_tiles, max_tiles, tile)
    resized = np.asarray(picture.resize((columns * tile, rows * tile), Image.Resampling.BICUBIC))
    cut = resized.reshape(rows, tile, columns, tile, 3).swapaxes(1, 2).reshape(-1, tile, tile, 3)
    if len(cut) == 1:
        return cut
    thumbnail = np.asarray(picture.resize((tile, tile), Image.Resampling.BICUBIC))
    return np.concatenate([cut, thumbnail[None]])


@dataclass(frozen=True)
class VlmConfig:
    """The ``config.json`` of a VLM folder.

    Attributes:
        vision: sizes of the vision encoder and projector; the rest of it is not used.
        language: keyword arguments of ``transformers.Qwen2Config``.
        min_tiles, max_tiles: limits of the dynamic tiling.
        of_transformers: the weights have the names of ``transformers``' own classes.
    """

    vision: VlaserConfig
    language: dict[str, Any]
    min_tiles: int
    max_tiles: int
    of_transformers: bool = False

    @classmethod
    def load(cls, folder: str | Path) -> VlmConfig:
        """Read a folder in InternVL's chat layout, or in that of ``transformers``' own classes.

        Raises:
            MissingAssetError: if there is no readable config.
            InvalidConfigError: if it describes a model that is built differently.
        """
        file = Path(folder) / "config.json"
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
            of_transformers = is_transformers_layout(data)
            data = as_chat_config(data, file) if of_transformers else data
            _check_architecture(data, file)
            return cls(
                vision=_vision_config(data),
                language={name: data["llm_config"][name] for name in _LANGUAGE_KEYS if name in data["llm_config"]},
                min_tiles=int(data.get("min_dynamic_patch", 1)),
                max_tiles=int(data.get("max_dynamic_patch", 12)),
                of_transformers=of_transformers,
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise MissingAssetError(
                f"{file} should be the configuration of an InternVL chat model; reading it gave "
                f"{type(error).__name__}: {error}. Give the folder of a VLM such as OpenGVLab/Vlaser-2B."
            ) from error


_LANGUAGE_KEYS = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "head_dim", "hidden_act", "max_position_embeddings", "rms_norm_eps", "rope_theta"),
    *("rope_scaling", "rope_parameters", "tie_word_embeddings"),
)


def _check_architecture(data: Mapping[str, Any], file: Path) -> None:
    vision, language = data["vision_config"], data["llm_config"]
    expected = [
        ("model_type", "internvl_chat", data.get("model_type")),
        ("llm_config.architectures", ["Qwen2ForCausalLM"], language.get("architectures", ["Qwen2ForCausalLM"])),
        ("ps_version", "v2", data.get("ps_version", "v2")),
        ("select_layer", -1, data.get("select_layer", -1)),
        ("downsample_ratio", 0.5, data.get("downsample_ratio", 0.5)),
        ("use_thumbnail", True, data.get("use_thumbnail", True)),
        ("vision_config.norm_type", "layer_norm", vision.get("norm_type", "layer_norm")),
        ("vision_config.qk_normalization", False, vision.get("qk_normalization", False)),
        ("vision_config.qkv_bias", True, vision.get("qkv_bias", True)),
    ]
    for name, want, got in expected:
        if got != want:
            raise InvalidConfigError(f"{file}: {name} should be {want!r}, as in InternVL3 and Vlaser; got {got!r}.")


def _vision_config(data: Mapping[str, Any]) -> VlaserConfig:
    vision = data["vision_config"]
    return VlaserConfig().replace(
        name="vlm",
        image_size=data.get("force_image_size") or vision["image_size"],
        patch_size=vision["patch_size"],
        vision_width=vision["hidden_size"],
        vision_layers=vision["num_hidden_layers"],
        vision_heads=vision["num_attention_heads"],
        vision_mlp=vision["intermediate_size"],
        width=data["llm_config"]["hidden_size"],
    )


class VisionLanguageModel(nn.Module):
    """Eyes, projector and a causal language model; the names of its parts are those of the released weights."""

    def __init__(self, config: VlmConfig) -> None:
        super().__init__()
        self.vision_model = VisionEncoder(config.vision)
        self.mlp1 = make_projector(config.vision)
        self.language_model: Any = Qwen2ForCausalLM(Qwen2Config(**config.language))

    def embed(self, input_ids: Tensor, pixel_values: Tensor | None, image_id: int) -> Tensor:
        """Token embeddings ``[B, T, width]`` with the images' features in the places of ``image_id``.

        Args:
            input_ids: ``[B, T]``.
            pixel_values: ``[tiles, 3, S, S]`` normalised, in the order of the places; together they have as many
                features as there are places. ``None`` without images.
            image_id: token that marks the places.
        """
        embedded: Tensor = self.language_model.get_input_embeddings()(input_ids)
        if pixel_values is None:
            return embedded
        features = self.mlp1(self.vision_model(pixel_values)).flatten(0, 1)
        return embedded.masked_scatter((input_ids == image_id)[..., None], features.to(embedded.dtype))

    @torch.inference_mode()
    def generate(
        self, embedded: Tensor, max_new_tokens: int, end_id: int, attention_mask: Tensor | None = None
    ) -> list[list[int]]:
        """The most likely next tokens of each row, one after another, up to and with ``end_id``.

        Args:
            embedded: ``[B, T, width]``.
            max_new_tokens: tokens at most.
            end_id: ends an answer.
            attention_mask: ``[B, T]``, 0 for padding, which stands on the left; ``None``: there is none.
        """
        if attention_mask is None:
            attention_mask = torch.ones(embedded.shape[:2], dtype=torch.long, device=embedded.device)
        out = self.language_model.generate(
            inputs_embeds=embedded,
            attention_mask=attention_mask,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=end_id,
            pad_token_id=end_id,
        )
        rows: list[list[int]] = out.tolist()
        return [row[: row.index(end_id) + 1] if end_id in row else row for row in rows]


class Vlm:
    """A vision-language model that answers questions about images.

    Args:
        model: in evaluation mode.
        config: its folder's configuration.
        tokenizer: of the same folder.
    """

    def __init__(self, model: VisionLanguageModel, config: VlmConfig, tokenizer: Tokenizer) -> None:
        self.model, self.config, self.tokenizer = model, config, tokenizer

    @classmethod
    def from_folder(cls, folder: str | Path, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Vlm:
        """Load a VLM folder (``config.json``, ``*.safetensors``, tokenizer files).

        Raises:
            MissingAssetError: if files are missing or damaged, or the weights do not fit the configuration.
            InvalidConfigError: if the model is built differently.
        """
        config = VlmConfig.load(folder)
        tokenizer = QwenTokenizer(folder)
        with torch.device("meta"):
            model = VisionLanguageModel(config)
        _load_weights(model, Path(folder), torch.device(device), dtype, config.of_transformers)
        # Its tables are no weights: they are computed, in fp32.
        model.language_model.model.rotary_emb = Qwen2RotaryEmbedding(model.language_model.config).to(device)
        return cls(model.eval(), config, tokenizer)

    def ask(
        self,
        images: Sequence[NDArray[np.uint8]],
        question: str,
        *,
        system: str = SYSTEM_MESSAGE,
        history: Sequence[tuple[str, str]] = (),
        max_tiles: int | None = None,
        max_new_tokens: int = 1024,
    ) -> str:
        """The model's answer.

        Args:
            images: images ``[H, W, 3]`` uint8, in the order of their placeholders.
            question: see :func:`chat_prompt`.
            system: system message.
            history: earlier questions and answers.
            max_tiles: tiles per image at most, thumbnail not counted; default: the checkpoint's.
            max_new_tokens: length of the answer at most.
        """
        request = Request(question, images, history)
        return self.replies([request], system=system, max_tiles=max_tiles, max_new_tokens=max_new_tokens)[0].text

    @torch.inference_mode()
    def replies(
        self,
        requests: Sequence[Request],
        *,
        system: str = SYSTEM_MESSAGE,
        max_tiles: int | None = None,
        max_new_tokens: int = 1024,
    ) -> list[Reply]:
        """The model's answers to several questions at once; padding on the left keeps them from each other.

        Args:
            requests: the questions with their images.
            system, max_tiles, max_new_tokens: as for :meth:`ask`.
        """
        vision = self.config.vision
        limit = self.config.max_tiles if max_tiles is None else max_tiles
        cut = [
            [tiles(image, self.config.min_tiles, limit, vision.image_size) for image in request.images]
            for request in requests
        ]
        prompts = [
            self._ids(request, [len(part) * vision.num_image_tokens for part in parts], system)
            for request, parts in zip(requests, cut, strict=True)
        ]
        weight = next(self.model.parameters())
        length = max(map(len, prompts))
        ids = torch.tensor([[self.tokenizer.pad_id] * (length - len(p)) + p for p in prompts], device=weight.device)
        mask = torch.tensor([[0] * (length - len(p)) + [1] * len(p) for p in prompts], device=weight.device)
        pieces = [part for parts in cut for part in parts]
        pixels = None
        if pieces:
            pixels = normalize_pixels(torch.from_numpy(np.concatenate(pieces)).to(weight.device)).to(weight.dtype)
        embedded = self.model.embed(ids, pixels, self.tokenizer.image_id)
        end = self.tokenizer.end_id
        rows = self.model.generate(embedded, max_new_tokens, end, None if bool(mask.all()) else mask)
        return [Reply(self._text(row), not row or row[-1] != end) for row in rows]

    def _ids(self, request: Request, counts: Sequence[int], system: str) -> list[int]:
        ids = self.tokenizer.encode(chat_prompt(request.question, counts, system, request.history))
        if ids.count(self.tokenizer.image_id) != sum(counts):
            raise InvalidConfigError(f"Questions and system messages are plain text without {IMAGE}.")
        return ids

    def _text(self, row: Sequence[int]) -> str:
        return self.tokenizer.decode(row).split(IM_END)[0].strip()


def _load_weights(
    model: VisionLanguageModel, folder: Path, device: torch.device, dtype: torch.dtype, of_transformers: bool
) -> None:
    """Fill a model on the meta device from the folder's safetensors."""
    wanted = {name: tensor.shape for name, tensor in model.state_dict().items()}
    weights: dict[str, Tensor] = {}
    for file in _weight_files(folder):
        try:
            with safe_open(str(file), framework="pt", device=str(device)) as reader:
                names = [name for name in reader.keys() if of_transformers or name in wanted]  # noqa: SIM118
                weights |= {name: reader.get_tensor(name).to(dtype) for name in names}
        except (SafetensorError, OSError) as error:
            raise MissingAssetError(f"{file} is damaged ({error}); copy it again.") from error
    if of_transformers:
        weights = {name: tensor for name, tensor in as_chat_weights(weights).items() if name in wanted}
    if model.language_model.config.tie_word_embeddings and "language_model.model.embed_tokens.weight" in weights:
        weights["language_model.lm_head.weight"] = weights["language_model.model.embed_tokens.weight"]
    wrong = [name for name, shape in wanted.items() if name not in weights or weights[name].shape != shape]
    if wrong:
        got = list(weights[wrong[0]].shape) if wrong[0] in weights else "nothing"
        raise MissingAssetError(
            f"The weights in {folder} should be those of the VLM that config.json describes; {len(wrong)} tensors do "
            f"not fit, the first is {wrong[0]}: expected {list(wanted[wrong[0]])}, got {got}."
        )
    model.load_state_dict(weights, assign=True)


def _weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder: those that its index names, else all."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        files = sorted({folder / name for name in json.loads(index.read_text())["weight_map"].values()})
    else:
        files = sorted(folder.glob("*.safetensors"))
    missing = [file.name for file in files if not file.is_file()]
    if missing or not files:
        raise MissingAssetError(
            f"{folder} should hold the model's safetensors files; {', '.join(missing) or 'there is none'} missing."
        )
    return files
