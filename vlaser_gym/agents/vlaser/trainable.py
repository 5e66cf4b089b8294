"""Vlaser as a trainable agent: the flow with a density on its steps, and flow matching as the loss of imitation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vlaser_gym.agents.base import Agent, Observations
from vlaser_gym.agents.text_rows import Pictures, TextRows, TextSample, spread_targets
from vlaser_gym.agents.trainable import Draws, Inputs, Likelihood, Sample, TrainableAgent
from vlaser_gym.agents.vlaser import flow
from vlaser_gym.agents.vlaser.adapters import adapters_off, add_lora, has_adapters, is_shared, merged_state_dict
from vlaser_gym.agents.vlaser.agent import VlaserAgent
from vlaser_gym.agents.vlaser.answering import Prompter
from vlaser_gym.agents.vlaser.checkpoint import save_pretrained
from vlaser_gym.agents.vlaser.commands import executed_actions
from vlaser_gym.agents.vlaser.densities import Distribution, FlowField
from vlaser_gym.agents.vlaser.densities import Draws as ChainDraws
from vlaser_gym.agents.vlaser.exploration import ExploringAgent
from vlaser_gym.agents.vlaser.gripper import make_gripper
from vlaser_gym.agents.vlaser.inference import bucketed_lengths
from vlaser_gym.agents.vlaser.language import at_least_fp32
from vlaser_gym.agents.vlaser.places import PlaceReader, image_keys_values, make_named_place_head, make_place_head
from vlaser_gym.agents.vlaser.policy import PARTS, VisionLanguage, VlaserPolicy
from vlaser_gym.agents.vlaser.processor import NormalizeProprio, Processor, ResizeImage, RobotProprio, normalize_pixels
from vlaser_gym.agents.vlaser.statistics import Moments, Statistics
from vlaser_gym.agents.vlaser.tokenizer import AnswerTokenizer
from vlaser_gym.settings.algorithms import LIKELIHOODS

VISION_LANGUAGE = ("vision", "embedding", "language")
#: Presets of the released sizes.
RELEASED = ("vlaser_2b", "vlaser_8b")


class VlaserDecoder:
    """Clamping, denormalisation and the gripper's memory; see :class:`~vlaser_gym.agents.trainable.ActionDecoder`."""

    def __init__(self, processor: Processor, act_steps: int) -> None:
        self.processor, self.act_steps = processor, act_steps
        self.gripper = make_gripper(processor.robot)

    def reset(self, indices: NDArray[np.int64]) -> None:
        """Forget the gripper state of the environments."""
        self.gripper.reset(indices)

    def __call__(self, chunk: NDArray[Any], indices: NDArray[np.int64]) -> NDArray[np.float64]:
        """``[N, H, A]`` -> ``[N, act_steps, 7]``: translation (m), axis-angle (rad), gripper command."""
        return executed_actions(chunk, self.processor, self.gripper, indices, self.act_steps)

    def get_state(self) -> dict[str, Any]:
        """The state of the grippers."""
        return self.gripper.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`get_state` gave."""
        self.gripper.set_state(state)


class TrainableVlaser(TrainableAgent):
    """A Vlaser policy for learners.

    Always trained in evaluation mode where likelihoods count: dropout and drop-path would make them random.

    Args:
        policy: acts; its ``requires_grad`` flags say what is trained.
        processor: of the policy.
        density: makes likelihoods; imitation does without.
        places: weight of a head on the image features that says where things are, in the imitation loss; no action
            depends on it. 0 leaves it out.
        seed: of that head's weights.
        named_places: weight of a second such head, on the keys and values of the image tokens in the language model's
            last layer.
        teach: whether what answers alone depend on is trained: the language head and the end of the language model.
        acts: whether its action expert is trained, or was; else checkpoints are those of a vision-language model.
        place_spread: standard deviation of what stands for a place's number in answers, in hundredths of the image;
            0: the number alone.
    """

    parts = PARTS
    latent_names = ("chain", "stochastic")
    recordable = True
    likelihoods = LIKELIHOODS
    layer_methods = ("key_value",)

    def __init__(
        self,
        policy: VlaserPolicy,
        processor: Processor,
        density: Distribution | None = None,
        places: float = 0.0,
        seed: int = 0,
        *,
        named_places: float = 0.0,
        teach: bool = False,
        acts: bool = True,
        place_spread: float = 0.0,
    ) -> None:
        super().__init__()
        self.policy, self.processor, self.density = policy, processor, density
        self.teach, self.acts = teach, acts
        self.robot, self.act_steps = processor.robot, policy.config.executed_steps
        self.horizon, self.action_dim = policy.config.horizon, policy.config.action_dim
        size, config = policy.config.image_size, policy.config
        self.input_shapes = {
            "pixels": (size, size, 3),
            "input_ids": (config.max_length,),
            "proprio": (config.proprio_dim,),
        }
        self.value_width = policy.config.horizon * policy.config.expert_width
        # As the authors trained them (docs/scaling.md); the small models learn their tokens.
        self.frozen_by_default = ("embedding",) if config.name in RELEASED else ()
        self.places_weight, self.named_places_weight = places, named_places
        self.place_moments: tuple[Tensor, Tensor] | None = None
        self._image_features: Tensor | None = None
        if places:
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                self.places = make_place_head(policy.config)
            policy.projector.register_forward_hook(self._keep_image_features)
        self.answer_targets: Tensor | None
        spread = spread_targets(AnswerTokenizer.tens, place_spread, config.vocab_size) if place_spread else None
        self.register_buffer("answer_targets", spread, persistent=False)
        self._named_features: Tensor | None = None
        if named_places:
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                self.named_places = make_named_place_head(policy.config)

    def _keep_image_features(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self._image_features = output

    @property
    def device(self) -> torch.device:
        """See :class:`TrainableAgent`."""
        return self.policy.device

    @property
    def resize(self) -> ResizeImage:  # type: ignore[override]
        """See :class:`TrainableAgent`."""
        return self.processor.resize

    # ------------------------------------------------------------------ environment side

    def transform(self, observations: Observations) -> dict[str, NDArray[Any]]:
        """See :class:`TrainableAgent`."""
        processor, data = self.processor, dict(observations)
        if "image" in data:
            data = dict(processor.resize(data))
        if "instruction" in data:
            data = dict(processor.prompt(data))
        if "proprio" in data:
            data = dict(NormalizeProprio(processor.statistics)(RobotProprio(self.robot)(data)))
        return {name: data[name] for name in self.input_shapes if name in data}

    def normalize_actions(self, actions: NDArray[Any]) -> NDArray[Any]:
        """See :class:`TrainableAgent`."""
        return self.processor.statistics.normalize_action(actions)

    def widen_proprio(self, data: Moments) -> Statistics:
        """Rescale the weights that read proprioception to bounds that hold some data's as well as the policy's own.

        Within the old bounds, where nothing was clipped, the policy answers as before.

        Returns:
            the statistics that go with the weights.
        """
        before = self.processor.statistics.proprio
        after = before.widened(data)
        self.policy.rescale_proprio(*before.rescaling_to(after))
        return replace(self.processor.statistics, proprio=after)

    def make_decoder(self) -> VlaserDecoder:
        """See :class:`TrainableAgent`."""
        return VlaserDecoder(self.processor, self.act_steps)

    def acting(self, *, explore: bool = False) -> Agent:
        """See :class:`TrainableAgent`. Compiling would wrap the layers that are being trained."""
        if explore and self.density is not None:
            return ExploringAgent(self.policy, self.processor, self.density)
        return VlaserAgent(self.policy, self.processor, compile=False)

    def describe_distribution(self) -> dict[str, Any]:
        """See :class:`TrainableAgent`."""
        if self.density is None:
            return {}
        return {**self.density.describe(), "initial_noise": self.density.initial_noise}

    def save(self, folder: Path) -> None:
        """See :class:`TrainableAgent`."""
        save_pretrained(self.policy, folder, acts=self.acts)
        self.processor.save(folder, acts=self.acts)
        if self.places_weight and self.place_moments is not None:
            PlaceReader(self.places, *self.place_moments).save(folder)

    # ------------------------------------------------------------------ network side

    def encode(self, inputs: Inputs) -> VisionLanguage:
        """Keys and values of image and text; without gradients where nothing of them is trained.

        Prompts are cut behind the batch's longest (:attr:`VlaserConfig.length_bucket`). Encodings that may be kept, and
        joined with those of other batches, are filled up again: nobody sees what stands there.
        """
        ids, is_kept, length = inputs["input_ids"], self.encoding_is_frozen, inputs["input_ids"].shape[1]
        if self.policy.config.length_bucket and not ids.is_meta:
            length = int(bucketed_lengths(self.policy.config, ids).max())
        with torch.set_grad_enabled(torch.is_grad_enabled() and not is_kept):
            pixels = normalize_pixels(inputs["pixels"].to(self.policy.device))
            kept = ids[:, :length].to(self.policy.device)
            encoding = self.policy.encode_vision_language(pixels, kept)
            if self.named_places_weight:
                self._named_features = image_keys_values(encoding, kept == self.policy.config.image_token_id)
        return encoding.padded(ids.shape[1]) if is_kept else encoding

    @property
    def encoding_is_frozen(self) -> bool:
        """See :class:`TrainableAgent`."""
        policy = self.policy
        encoders = (policy.vision, policy.projector, policy.embed_tokens, policy.language)
        later = {id(parameter) for module in policy.answer_modules() for parameter in module.parameters()}
        learned = (p for part in encoders for p in part.parameters() if p.requires_grad)
        return all(id(parameter) in later for parameter in learned)

    def draw(self, count: int, generator: torch.Generator) -> Draws:
        """The flow's first states and the noise of its steps."""
        assert self.density is not None, "Likelihoods need a density."
        return vars(self.density.draw(count, self.horizon, self.action_dim, generator))

    def sample(self, encoding: VisionLanguage, inputs: Inputs, draws: Draws, *, with_value: bool = False) -> Sample:
        """Chains ``[B, L + 1, H, A]``; their last state is the chunk."""
        assert self.density is not None, "Likelihoods need a density."
        drawn = ChainDraws(**draws).to(self.policy.device)
        prefix = self.policy.encode_proprio(encoding, inputs["proprio"].to(self.policy.device))
        field = FlowField(self.policy, prefix, with_value=with_value)
        chain, log_prob = self.density.sample(field, drawn)
        return Sample(chain[:, -1], {"chain": chain, "stochastic": drawn.stochastic}, log_prob, field.value_features)

    def log_prob(
        self, encoding: VisionLanguage, inputs: Inputs, latent: Mapping[str, Tensor], *, with_value: bool
    ) -> Likelihood:
        """See :class:`TrainableAgent`."""
        assert self.density is not None, "Likelihoods need a density."
        chain, stochastic = (latent[name].to(self.policy.device) for name in self.latent_names)
        prefix = self.policy.encode_proprio(encoding, inputs["proprio"].to(self.policy.device))
        field = FlowField(self.policy, prefix, with_value=with_value)
        found = self.density.evaluate(field, chain, stochastic)
        numbers = stochastic.shape[1] * chain.shape[2] * chain.shape[3]
        return Likelihood(
            found.log_prob, found.entropy, numbers, found.location, field.value_features, actions=found.actions
        )

    def value_features(self, encoding: VisionLanguage, inputs: Inputs) -> Tensor:
        """The action expert's features of a chunk of zeros, the mean of the noise, at flow time 0: ``[B, F]``."""
        prefix = self.policy.encode_proprio(encoding, inputs["proprio"].to(self.policy.device))
        zeros = torch.zeros(len(inputs["proprio"]), self.horizon, self.action_dim, device=self.policy.device)
        return self.policy.features(prefix, zeros, zeros[:, 0, 0]).flatten(1)

    def imitation_draws(self, count: int, samples: int, generator: torch.Generator) -> Draws:
        """Noise ``[B, K, H, A]`` and flow times ``[B, K]``: K flow states per row, which share its image and text."""
        noise = torch.randn(count, samples, self.horizon, self.action_dim, generator=generator)
        times = flow.sample_times(count * samples, self.policy.config.time_distribution, generator)
        return {"noise": noise, "t": times.view(count, samples)}

    def imitation_error(self, encoding: VisionLanguage, inputs: Inputs, chunk: Tensor, draws: Draws) -> Tensor:
        """Squared errors of the velocity, ``[B, K, H, A]``."""
        velocity, target = self.velocities(encoding, inputs, chunk, draws)
        return (velocity - target).square()

    def auxiliary_losses(self, inputs: Inputs) -> dict[str, Tensor]:
        """Mean squared errors of the heads that say where things are."""
        losses: dict[str, Tensor] = {}
        if self.places_weight:
            assert self._image_features is not None
            losses["places"] = self.places_weight * self._miss(self.places(self._image_features.flatten(1)), inputs)
        if self.named_places_weight:
            assert self._named_features is not None
            found = self.named_places(self._named_features)
            losses["named_places"] = self.named_places_weight * self._miss(found, inputs)
        self._image_features = self._named_features = None
        return losses

    def _miss(self, found: Tensor, inputs: Inputs) -> Tensor:
        return nn.functional.mse_loss(found.float(), inputs["places"].to(self.policy.device))

    def keep_place_moments(self, mean: NDArray[np.float64], std: NDArray[np.float64]) -> None:
        """See :class:`TrainableAgent`."""
        self.place_moments = torch.from_numpy(mean), torch.from_numpy(std)

    def velocities(
        self, encoding: VisionLanguage, inputs: Inputs, chunk: Tensor, draws: Draws
    ) -> tuple[Tensor, Tensor]:
        """See :class:`TrainableAgent`."""
        noise, t, proprio = (
            tensor.to(self.policy.device) for tensor in (draws["noise"], draws["t"], inputs["proprio"])
        )
        actions, sigma_min = chunk.to(self.policy.device)[:, None].expand_as(noise), self.policy.config.sigma_min
        x = flow.interpolate(noise.flatten(0, 1), actions.flatten(0, 1), t.flatten(), sigma_min).view_as(noise)
        velocity = self.policy.decode(self.policy.joint_features(encoding, proprio, x, t))
        return velocity, flow.target_velocity(noise, actions, sigma_min)

    # ------------------------------------------------------------------ answers

    @property
    def reasoning_length(self) -> int:
        """See :class:`TrainableAgent`."""
        return self.policy.config.reasoning_length or 0

    @property
    def pad_id(self) -> int:
        """See :class:`TrainableAgent`."""
        return self.policy.config.pad_id

    def picture_tokens(self, width: int, height: int) -> int:
        """See :class:`TrainableAgent`: the policy reads an image as one square, whatever its size."""
        return self.policy.config.num_image_tokens

    def picture_tiles(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """See :class:`TrainableAgent`."""
        return np.asarray(self.resize({"image": image[None]})["pixels"], np.uint8)

    def text_sample(
        self, question: str, answer: str, image_tokens: Sequence[int], history: Sequence[tuple[str, str]] = ()
    ) -> TextSample:
        """See :class:`TrainableAgent`."""
        return self._prompter.sample(question, answer, len(image_tokens), history)

    @cached_property
    def _prompter(self) -> Prompter:
        return Prompter(self.policy.config, self.processor.prompt.tokenizer)

    def answer_loss(self, pictures: Pictures | None, rows: TextRows) -> Tensor:
        """See :class:`TrainableAgent`."""
        rows, features = rows.to(self.policy.device), None
        if pictures is not None:
            pixel_values = normalize_pixels(pictures.tiles.to(self.policy.device)).to(self.policy.dtype)
            features = self.policy.image_features(pixel_values)[pictures.index.to(self.policy.device)]
        embedded = self.policy.embed_text(features, rows.input_ids)
        hidden, _ = self.policy.read_text(embedded, rows.positions, rows.visible(prefix=True))
        return rows.loss(hidden, self.policy.lm_head, self.answer_targets)

    # ------------------------------------------------------------------ what is trained

    def freeze(self, *parts: str) -> None:
        """See :class:`TrainableAgent`; what no action depends on is trained with ``teach`` alone."""
        self.policy.freeze(*parts)
        if self.teach:
            self.policy.train_answers()

    def add_adapters(self, rank: int, frozen: Sequence[str], seed: int, whole: Sequence[str] = ()) -> None:
        """See :class:`TrainableAgent`. Where nothing is trained whole, the policy without its adapters is the one that
        training began with. Adapters are fp32, whatever the weights below them are.
        """
        self.freeze(*(part for part in PARTS if part in frozen or part not in whole))
        adapted = [part for part in PARTS if part not in (*frozen, *whole, "embedding")]
        if adapted:
            add_lora(self.policy, adapted, rank=rank, seed=seed)
            if self.teach:
                self.policy.train_answers()
        for name, parameter in self.policy.named_parameters():
            if ".lora_" in name:
                parameter.data = parameter.data.to(at_least_fp32(parameter.dtype))

    @property
    def has_adapters(self) -> bool:
        """See :class:`TrainableAgent`."""
        return has_adapters(self.policy)

    def adapters_off(self) -> AbstractContextManager[None]:
        """See :class:`TrainableAgent`."""
        return adapters_off(self.policy)

    def frozen_copy(self) -> Self:
        """See :class:`TrainableAgent`; adapters are added in, the head for places is left out."""
        policy = VlaserPolicy.on_meta(self.policy.config)
        # Weights that may change are copied.
        constant = {p.data_ptr() for p in self.policy.parameters() if not (p.requires_grad or is_shared(p))}
        merged = merged_state_dict(self.policy).items()
        weights = {name: value if value.data_ptr() in constant else value.clone() for name, value in merged}
        policy.load_state_dict(weights, assign=True)
        copied = type(self)(policy.to(self.policy.device), self.processor, self.density, acts=self.acts)
        copied.policy.requires_grad_(False)
        return copied.eval()

    # ------------------------------------------------------------------ how it fits into memory

    def layers(self) -> list[nn.Module]:
        """See :class:`TrainableAgent`: of the vision transformer, the language model and the action expert."""
        policy = self.policy
        return [*policy.vision.encoder.layers, *policy.language.layers, *policy.expert.layers]

    def narrow(self, dtype: torch.dtype) -> None:
        """See :class:`TrainableAgent`; angles of positions and of flow times stay fp32."""
        self.policy.to(dtype)

    def set_gradient_checkpointing(self, *parts: str) -> None:
        """See :class:`TrainableAgent`."""
        self.policy.set_gradient_checkpointing(*parts)

    def is_vision_language(self, name: str) -> bool:
        """See :class:`TrainableAgent`."""
        modules = tuple(f"policy.{module}." for part in VISION_LANGUAGE for module in PARTS[part])
        return name.startswith((*modules, "policy.lm_head."))
